//! Vars that hold templates.

use super::{diagnostics, instance, resolved, resolved_with, state, tree};
use crate::{knowledge::Knowledge, resolve::Cache};

fn site(vars: &str, task: &str) -> String {
    format!(
        "=== site.toml\nname = \"test\"\n[vars]\n{vars}\n=== inventory/all.toml\n[nodes.n0]\nvars.port = 80\n[nodes.n1]\nvars.port = 81\n\
         [groups.all]\nservices = [\"s\"]\n=== services/s/service.toml\n[[task]]\nid = \"t\"\n{task}\n"
    )
}

/// The content of a file on both nodes.
#[track_caller]
fn contents(vars: &str, template: &str) -> [String; 2] {
    let state = state(&site(vars, &format!("file = {{ path = \"/t\", content = {template:?} }}")));
    ["s.t@n0", "s.t@n1"].map(|id| {
        let content = instance(&state, id).resolved.spec.content.clone().expect("content");
        let json = serde_json::to_value(&content).expect("JSON");
        json.as_object()
            .and_then(|content| content.values().next()?.as_str().map(str::to_owned))
            .unwrap_or_else(|| json.to_string())
    })
}

#[track_caller]
fn faults(vars: &str, template: &str) -> String {
    let tree = tree(&site(vars, &format!("file = {{ path = \"/t\", content = {template:?} }}")));
    let (state, faults) = resolved(&tree, &mut Cache::default());
    assert!(state.is_none());
    diagnostics(&tree, &faults)
}

#[test]
fn a_var_is_rendered_where_it_is_used() {
    let vars = "url = \"http://{{ node.name }}:{{ port }}/\"\nwelcome = \"see {{ url }}\"";
    assert_eq!(contents(vars, "{{ welcome }}"), ["see http://n0:80/", "see http://n1:81/"]);
    // Also deep in tables and lists, whose other values stay as they are.
    let vars = "t = { a = [\"{{ port }}\", 7], b = \"plain\" }";
    assert_eq!(
        contents(vars, "{{ t.a[0] }} {{ t.a[1] + 1 }} {{ t.b }} {{ t|length }}"),
        ["80 8 plain 2", "81 8 plain 2"]
    );
    // Braces as they are.
    assert_eq!(contents("v = \"{% raw %}{{ .Names }}{% endraw %}\"", "{{ v }}")[0], "{{ .Names }}");
}

#[test]
fn what_a_var_reads_is_an_input() {
    let text = site("url = \"{{ port }}\"", "file = { path = \"/t\", content = \"{{ url }}\" }");
    let state = state(&text);
    let inputs: Vec<_> = instance(&state, "s.t@n0").resolved.inputs.iter().map(|input| input.name.clone()).collect();
    assert!(inputs.contains(&"var url".to_owned()) && inputs.contains(&"var port".to_owned()), "{inputs:?}");
}

#[test]
fn a_var_decides_a_condition() {
    let task = "when = \"wanted == 'n0'\"\nfile = { path = \"/t\", content = \"\" }";
    let state = state(&site("wanted = \"{{ node.name }}\"", task));
    assert!(state.wants(&"s.t@n0".parse().unwrap()) && !state.wants(&"s.t@n1".parse().unwrap()));
}

#[test]
fn a_var_that_needs_itself_is_a_fault() {
    let found = faults("a = \"{{ b }}\"\nb = \"x {{ c }}\"\nc = \"{{ a }}\"", "{{ a }}");
    assert!(found.contains("the var `a`: it needs itself: `a` → `b` → `c` → `a`"), "{found}");
    assert!(found.starts_with("services/s/service.toml:3 "), "{found}");
}

#[test]
fn a_fault_in_a_var_names_the_var() {
    let found = faults("a = \"{{ nope }}\"", "{{ a }}");
    assert!(found.contains("the var `a`: undefined variable `nope`"), "{found}");
    let found = faults("a = \"{{ 1 \"", "{{ a }}");
    assert!(found.contains("the var `a`: "), "{found}");
}

#[test]
fn vars_that_double_each_other_are_bounded() {
    let mut vars = "v0 = \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"\n".to_owned();
    for n in 1..64 {
        vars += &format!("v{n} = \"{{{{ v{0} }}}}{{{{ v{0} }}}}\"\n", n - 1);
    }
    let found = faults(&vars, "{{ v63 }}");
    assert!(found.contains("the var `v17`: the template renders to more than 4 MiB"), "{found}");
}

#[test]
fn what_nodes_report_is_no_template() {
    let text = site("v = \"{{ facts.local.x }}\"", "file = { path = \"/t\", content = \"{{ v }}\" }");
    let facts = serde_json::from_str(r#"{"local": {"x": "{{ node.name }}"}}"#).unwrap();
    let facts = [("n0".parse().unwrap(), std::sync::Arc::new(facts))].into();
    let tree = tree(&text);
    let (state, _) = resolved_with(&tree, &Knowledge { facts, ..Knowledge::default() }, &mut Cache::default());
    let state = state.expect("a state");
    let content = format!("{:?}", instance(&state, "s.t@n0").resolved.spec.content);
    assert!(content.contains("{{ node.name }}"), "{content}");
}

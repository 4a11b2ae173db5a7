//! Values reported by nodes: facts in templates and `when`, and what is pending without them.

use std::{fmt::Write as _, sync::Arc};

use groundplan_protocol::ids::NodeId;

use super::{Cache, diagnostics, instance, on_all, resolved_with, tree};
use crate::{
    desired::DesiredState,
    knowledge::{Facts, Knowledge, Misfit},
};

/// Facts that these nodes reported: JSON by name.
pub(super) fn reported(nodes: &[(&str, &str)]) -> Knowledge {
    let facts = |json: &str| Arc::new(serde_json::from_str::<Facts>(json).expect("facts"));
    let by_node = nodes.iter().map(|(node, json)| (NodeId::new(*node).unwrap(), facts(json)));
    Knowledge { facts: by_node.collect(), ..Knowledge::default() }
}

/// Where each task is, is not, and what it waits for.
pub(super) fn resolutions(state: &DesiredState) -> String {
    let mut out = String::new();
    let name = |node: crate::NodeIx| &state.nodes[node.0 as usize];
    for task in &state.graph.tasks {
        write!(out, "{}:", task.id).unwrap();
        for here in &task.instances {
            write!(out, " {}", name(here.node)).unwrap();
        }
        for (node, off) in &task.off {
            let inputs: Vec<_> =
                off.inputs.iter().map(|i| format!("{}={}", i.name, i.value.as_deref().unwrap_or("?"))).collect();
            write!(out, "; not on {} ({})", name(*node), inputs.join(" ")).unwrap();
        }
        for pending in &task.pending {
            let waits: Vec<_> = pending.waits_for.iter().map(ToString::to_string).collect();
            write!(out, "; {} waits for {}", name(pending.node), waits.join(", ")).unwrap();
        }
        out.push('\n');
    }
    out
}

pub(super) fn check_resolutions(text: &str, knowledge: &Knowledge, expect: &str) -> DesiredState {
    let tree = tree(text);
    let (state, faults) = resolved_with(&tree, knowledge, &mut Cache::default());
    let state = state.unwrap_or_else(|| panic!("{}", diagnostics(&tree, &faults)));
    assert_eq!(resolutions(&state).trim_end(), expect.trim());
    state
}

pub(super) fn check_reported_faults(text: &str, knowledge: &Knowledge, expect: &str) {
    let tree = tree(text);
    let (state, faults) = resolved_with(&tree, knowledge, &mut Cache::default());
    assert_eq!(diagnostics(&tree, &faults).trim_end(), expect.trim());
    assert!(state.is_none());
}

fn site(tasks: &str) -> String {
    format!("{}=== services/s/service.toml\n{tasks}", on_all(&["s"]))
}

const DEBIAN: &str = r#"{"os": {"id": "debian", "like": []}, "cpus": 2, "local": {"rack": "r1"}}"#;
const ROCKY: &str = r#"{"os": {"id": "rocky", "like": ["rhel"]}, "cpus": 4}"#;

#[test]
fn when_decides_node_by_node() {
    let text = site(
        "[vars]\nwanted = true\n[[task]]\nid = 'a'\nwhen = \"facts.os.id == 'debian'\"\ncommand = { run = 'x' }
[[task]]\nid = 'b'\nwhen = \"wanted and 'rhel' in facts.os.like\"\ncommand = { run = 'x' }
[[task]]\nid = 'c'\nwhen = 'not wanted'\ncommand = { run = 'x' }
[[task]]\nid = 'd'\nwhen = \"node.name != 'n1'\"\ncommand = { run = 'x' }
[[task]]\nid = 'e'\nwhen = 'facts.cpus > 1'\nonce = true\ncommand = { run = 'x' }\n",
    );
    let state = check_resolutions(
        &text,
        &reported(&[("n0", DEBIAN), ("n1", ROCKY)]),
        "
s.a: n0; not on n1 (facts.os.id=rocky); n2 waits for facts of node n2
s.b: n1; not on n0 (var wanted=true facts.os.like=[]); n2 waits for facts of node n2
s.c:; not on n0 (var wanted=true); not on n1 (var wanted=true); not on n2 (var wanted=true)
s.d: n0 n2; not on n1 (node.name=n1)
s.e: n0
",
    );
    let nodes: Vec<_> = state.node_inputs.facts.iter().map(NodeId::as_str).collect();
    assert_eq!(nodes, ["n0", "n1", "n2"]);
}

#[test]
fn templates_see_facts() {
    let text = site(
        "[[task]]\nid = 'a'\nfile = { path = '/a', content = \"{{ facts.os.id }} {{ facts.cpus * 2 }} {{ facts.package_manager | default('none') }}\" }
[[task]]\nid = 'b'\nfile = { path = \"/{{ facts.local.rack }}\", content = \"{% for f in facts.os %}{{ f }} {% endfor %}\" }\n",
    );
    let state = check_resolutions(
        &text,
        &reported(&[("n0", DEBIAN), ("n1", ROCKY)]),
        "
s.a: n0 n1; n2 waits for facts of node n2
s.b: n0; n1 waits for facts.local.rack of node n1; n2 waits for facts of node n2
",
    );
    let content = |id: &str| serde_json::to_string(&instance(&state, id).resolved.spec.content).unwrap();
    assert!(content("s.a@n0").contains("debian 4 none"), "{}", content("s.a@n0"));
    assert!(content("s.b@n0").contains("id like"), "{}", content("s.b@n0"));
    let names: Vec<_> = instance(&state, "s.a@n1").resolved.inputs.iter().map(|i| i.name.as_str()).collect();
    assert!(names.contains(&"facts.os.id") && names.contains(&"facts.cpus"), "{names:?}");
}

#[test]
fn equal_facts_share_a_result() {
    let text = site("[[task]]\nid = 'a'\nfile = { path = '/a', content = '{{ facts.os.id }}' }\n");
    let state = check_resolutions(&text, &reported(&[("n0", DEBIAN), ("n1", DEBIAN), ("n2", ROCKY)]), "s.a: n0 n1 n2");
    let of = |id| instance(&state, id).resolved.clone();
    assert!(Arc::ptr_eq(&of("s.a@n0"), &of("s.a@n1")) && !Arc::ptr_eq(&of("s.a@n0"), &of("s.a@n2")));
}

#[test]
fn what_changes_changes_just_that_node() {
    let text =
        site("[[task]]\nid = 'a'\nwhen = 'facts.cpus > 2'\nfile = { path = '/a', content = '{{ facts.os.id }}' }\n");
    let (tree, mut cache) = (tree(&text), Cache::default());
    let mut resolutions_with =
        |knowledge: &Knowledge| resolutions(&resolved_with(&tree, knowledge, &mut cache).0.unwrap());
    assert_eq!(
        resolutions_with(&reported(&[("n0", ROCKY), ("n1", DEBIAN)])).trim(),
        "s.a: n0; not on n1 (facts.cpus=2); n2 waits for facts of node n2"
    );
    assert_eq!(resolutions_with(&reported(&[("n0", ROCKY), ("n1", ROCKY), ("n2", ROCKY)])).trim(), "s.a: n0 n1 n2");
}

#[test]
fn names_that_no_host_reports_are_faults_even_before_any_host_has_reported() {
    let text = site(
        "[[task]]\nid = 'a'\nwhen = \"facts.oss.id == 'debian'\"\ncommand = { run = 'x' }
[[task]]\nid = 'b'\nwhen = \"facts.os.idd == 'debian'\"\ncommand = { run = 'x' }
[[task]]\nid = 'c'\nwhen = 'facts.os.id'\ncommand = { run = 'x' }
[[task]]\nid = 'd'\nwhen = \"wantd == 1\"\ncommand = { run = 'x' }
[[task]]\nid = 'e'\nwhen = \"facts.os.id ==\"\ncommand = { run = 'x' }
[[task]]\nid = 'f'\nwhen = \"wantd is defined\"\ncommand = { run = 'x' }\n",
    );
    check_reported_faults(
        &text,
        &reported(&[("n0", DEBIAN)]),
        "
services/s/service.toml:3 ‹facts.oss›: `facts.oss` is undefined
  hint: did you mean `os`?
services/s/service.toml:7 ‹facts.os.idd›: `facts.os.idd` is undefined
  hint: did you mean `id`?
services/s/service.toml:11 ‹facts.os.id›: `when` is not true or false, but 'debian' (on node `n0`)
  hint: compare it with something, such as `facts.os.id == 'debian'`
services/s/service.toml:15 ‹wantd›: undefined variable `wantd`
  hint: set it in the vars of the service, the site, a group or the node
services/s/service.toml:19 ‹==›: syntax error in a template: unexpected end of input, expected expression
",
    );
}

#[test]
fn values_that_do_not_fit_are_faults_of_a_commit_and_waited_for_in_force() {
    let text = site("[[task]]\nid = 'a'\nfile = { path = '/a', content = '{{ facts.os.version }}' }\n");
    let mut knowledge = reported(&[("n0", DEBIAN), ("n1", r#"{"os": {"version": "13"}}"#), ("n2", DEBIAN)]);
    let tree = tree(&text);
    let mut cache = Cache::default();
    knowledge.misfit = Misfit::Wait;
    let (state, _) = resolved_with(&tree, &knowledge, &mut cache);
    let fit = "facts and exports that fit on node";
    assert_eq!(
        resolutions(&state.unwrap()).trim(),
        format!(
            "s.a: n1; n0 waits for {fit} n0: `facts.os.version` is undefined; n2 waits for {fit} n2: `facts.os.version` is undefined"
        )
    );
    knowledge.misfit = Misfit::Refuse;
    let (state, faults) = resolved_with(&tree, &knowledge, &mut cache);
    assert!(state.is_none(), "a memory of the one is not taken for the other");
    assert!(faults[0].message.contains("`facts.os.version` is undefined"));
}

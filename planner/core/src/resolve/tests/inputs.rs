use super::*;

const SITE: &str = r#"
=== site.toml
name = "cloud"
[vars]
port = 80
unused = 1
[external."database/ready"]
address = "db.example.org"
=== inventory/nodes.toml
[groups.g]
services = ["s"]
[nodes.n0]
groups = ["g"]
address = "10.0.0.1"
vars = { size = 3 }
=== services/s/service.toml
[service]
[vars]
size = 1
[[task]]
id = "conf"
template = { source = "t.j2", path = "/etc/{{ service.name }}", mode = "0640" }
[[task]]
id = "run"
command = { run = ["true", "{{ port }}"], env = { A = "1", B = "{{ size }}" }, timeout = "5s" }
ready = { http = "http://{{ node.address }}/" }
[[task]]
id = "file"
file = { source = "f.txt", path = "/f" }
=== services/s/t.j2
{% if size > 2 %}{{ port }}{% else %}{{ unused }}{% endif %}
{% include 'p.j2' %}{{ groups.g[0].name }} {{ external['database/ready'].address }} {{ site.name }} {{ node.name }}
=== services/s/p.j2
{{ node.address }}
=== services/s/f.txt
text
"#;

fn inputs(state: &DesiredState, id: &str) -> String {
    let inputs = instance(state, id).resolved.inputs.iter();
    inputs.map(|i| format!("{} = {} [{}]\n", i.name, i.value.as_deref().unwrap_or("…"), i.at.file)).collect()
}

#[test]
fn inputs_are_what_was_used_and_where_it_is_set() {
    let state = state(SITE);
    let check = |id, expect: &str| assert_eq!(inputs(&state, id).trim(), expect.trim());
    check(
        "s.conf@n0",
        "
external.database/ready = {\"address\":\"db.example.org\",\"vars\":{}} [site.toml]
groups.g = n0 [inventory/nodes.toml]
kind = template [services/s/service.toml]
node.address = 10.0.0.1 [inventory/nodes.toml]
node.name = n0 [inventory/nodes.toml]
param mode = 0640 [services/s/service.toml]
param path = /etc/{{ service.name }} [services/s/service.toml]
site.name = cloud [site.toml]
template p.j2 = … [services/s/p.j2]
template t.j2 = … [services/s/t.j2]
var port = 80 [site.toml]
var size = 3 [inventory/nodes.toml]
",
    );
    check(
        "s.run@n0",
        "
kind = command [services/s/service.toml]
param env.A = 1 [services/s/service.toml]
param env.B = {{ size }} [services/s/service.toml]
param run = [\"true\",\"{{ port }}\"] [services/s/service.toml]
var port = 80 [site.toml]
var size = 3 [inventory/nodes.toml]
",
    );
    check(
        "s.file@n0",
        "
kind = file [services/s/service.toml]
param path = /f [services/s/service.toml]
source f.txt = … [services/s/f.txt]
",
    );
}

/// Which instances have another fingerprint once `from` is `to`, in words of the inputs that differ.
fn check_change(edits: &[(&str, &str)], expect: &str) {
    let mut text = SITE.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let (before, after) = (state(SITE), state(&text));
    let mut out = String::new();
    for task in &before.graph.tasks {
        let id = format!("{}@n0", task.id);
        let (before, after) = (&instance(&before, &id).resolved, &instance(&after, &id).resolved);
        if before.fingerprint != after.fingerprint {
            let was = |name: &str| before.inputs.iter().find(|i| i.name == name).map(|i| &i.digest);
            let differ = after.inputs.iter().filter(|i| was(&i.name) != Some(&i.digest)).map(|i| i.name.as_str());
            out += &format!("{}: {}\n", task.id, differ.collect::<Vec<_>>().join(", "));
        }
    }
    assert_eq!(out.trim(), expect.trim(), "{edits:?}");
}

#[test]
fn a_fingerprint_differs_for_what_decides_the_result_and_for_nothing_else() {
    check_change(&[("port = 80", "port = 81")], "s.conf: var port\ns.run: var port");
    check_change(&[("unused = 1", "unused = 2")], "");
    check_change(&[("size = 1", "size = 2")], "");
    check_change(&[("size = 3", "size = 1")], "s.conf: var size, var unused\ns.run: var size");
    check_change(&[("0640", "0600")], "s.conf: param mode");
    check_change(&[("10.0.0.1", "10.0.0.2")], "s.conf: groups.g, node.address");
    check_change(&[("=== services/s/f.txt\ntext", "=== services/s/f.txt\nother")], "s.file: source f.txt");
    // Where content comes from, how long something may take, when it counts as done, what comes before it.
    check_change(&[("f.txt", "g.txt"), ("t.j2", "u.j2"), ("p.j2", "x/q.j2")], "");
    check_change(&[("timeout = \"5s\"", "timeout = \"6s\"")], "");
    check_change(&[("http://{{ node.address }}/", "http://{{ node.address }}/x")], "");
    check_change(&[("id = \"run\"", "id = \"run\"\nrequires = []\nrun_on = [\"conf\"]")], "");
    check_change(&[("id = \"run\"", "id = \"run\"\non_interrupt = \"fail\"")], "");
    // Comments and whitespace, in TOML and in templates.
    check_change(&[("[vars]\nport", "# comment\n[vars]\n\n   port"), ("[[task]]", "\n[[task]]  # a task\n")], "");
    check_change(&[("{{ port }}{% else %}", "{# comment #}{{   port }}{% else %}")], "");
    check_change(&[("file = { source = \"f.txt\"", "file = { content = \"text\\n\"")], "");
}

#[test]
fn instances_with_the_same_inputs_share_one_result() {
    let text = SITE.replace("[nodes.n0]", "[nodes.n1]\ngroups = [\"g\"]\naddress = \"x\"\nvars = { size = 3 }\n[nodes.n2]\ngroups = [\"g\"]\naddress = \"x\"\n[nodes.n0]");
    let state = state(&text);
    let shared = |task: &str, a: &str, b: &str| {
        let of = |node| &instance(&state, &format!("s.{task}@{node}")).resolved;
        Arc::ptr_eq(of(a), of(b))
    };
    assert!(shared("file", "n0", "n1") && shared("file", "n1", "n2"));
    assert!(!shared("conf", "n0", "n1"));
    assert!(!shared("run", "n0", "n2"));
}

#[test]
fn the_order_of_files_and_keys_makes_no_difference() {
    let reversed: String =
        SITE.split("=== ").skip(1).collect::<Vec<_>>().into_iter().rev().map(|f| format!("=== {f}")).collect();
    assert_eq!(format!("{:?}", state(SITE)), format!("{:?}", state(&reversed)));
}

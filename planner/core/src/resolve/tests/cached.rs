use super::*;

const SITE: &str = r#"
=== site.toml
name = "cloud"
[vars]
port = 80
[external."cap/x"]
address = "x"
ready = { tcp = 1 }
=== inventory/nodes.toml
[groups.g]
services = ["s", "r"]
vars = { size = 1 }
[nodes.n0]
groups = ["g"]
[nodes.n1]
groups = ["g"]
vars = { size = 2 }
=== services/s/service.toml
[service]
requires = ["cap/x"]
[[task]]
id = "conf"
template = { source = "t.j2", path = "/s" }
[[task]]
id = "file"
file = { source = "f", path = "/{{ node.name }}" }
=== services/s/t.j2
{{ size }} {{ port }} {% include 'p' %}{% include 'q' ignore missing %}
=== services/s/p
{{ groups.g|length }}
=== services/s/f
text
=== services/r/service.toml
[service]
[[task]]
id = "go"
command = { run = "echo {{ size }}" }
run_on = ["s.conf"]
"#;

/// Commits one after the other: each with what is kept from those before, and each from nothing.
#[test]
fn what_is_kept_from_other_commits_changes_nothing() {
    let edits: &[&[(&str, &str)]] = &[
        &[],
        &[("{{ size }} {{ port }}", "{{ port }} {{ size }}")],
        &[("size = 1", "size = 3")],
        &[("[groups.g]", "# a comment moves everything\n[groups.g]")],
        &[("port = 80", "port = 81")],
        &[("{{ groups.g|length }}", "{{ site.name }}")],
        &[("=== services/s/f\ntext", "=== services/s/q\nthere now\n=== services/s/f\ntext")],
        &[("[nodes.n1]", "[nodes.n01]\ngroups = [\"g\"]\n[nodes.n1]")],
        &[("tcp = 1", "tcp = 2")],
        &[("text", "other"), ("run_on", "requires = []\nrun_on")],
        &[("{{ size }} {{ port }}", "{{ size }} {{ prot }}")],
        &[("services = [\"s\", \"r\"]", "services = [\"r\"]")],
        &[("=== services/r/service.toml\n[service]", "=== services/r/service.toml\n[service]\n# comment")],
        &[("path = \"/s\"", "path = \"/n0\"")],
        &[],
    ];
    let mut cache = Cache::default();
    // Twice, the second time backwards, so that every commit follows several others.
    for edits in edits.iter().chain(edits.iter().rev()) {
        let text = edits.iter().fold(SITE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let tree = tree(&text);
        let kept = resolved(&tree, &mut cache);
        let fresh = resolved(&tree, &mut Cache::default());
        assert_eq!(format!("{kept:?}"), format!("{fresh:?}"), "{edits:?}");
    }
}

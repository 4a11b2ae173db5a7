use groundplan_protocol::blob::{BlobRef, Content};

use super::*;
use crate::desired::Body;

const SITE: &str = r#"
=== site.toml
name = "cloud"
[vars]
a = "site"
b = "site"
c = "site"
[external."database/ready"]
address = "db.example.org"
vars = { user = "me" }
ready = { tcp = 3306, http = "http://{{ external['database/ready'].address }}/{{ site.name }}/{{ a }}" }
=== inventory/nodes.toml
[groups.g]
services = ["s"]
vars = { b = "group", c = "group" }
[nodes.n0]
groups = ["g"]
address = "10.0.0.1"
labels = { rack = "r1" }
vars = { c = "node" }
[nodes.n1]
groups = ["g"]
address = "10.0.0.2"
"#;

/// What a template renders to on n0 and on n1.
fn check(template: &str, expect: [&str; 2]) {
    let text = format!(
        "{SITE}=== services/s/service.toml\n[service]\n[vars]\nself_d = 1\nd = \"service\"\na = \"service\"\n[[task]]\nid = \"t\"\n\
         template = {{ source = \"t.j2\", path = \"/t\" }}\n=== services/s/x/part.j2\n<{{{{ d }}}}>\n=== services/s/t.j2\n{template}"
    );
    let state = state(&text);
    for (node, expect) in ["n0", "n1"].iter().zip(expect) {
        let instance = instance(&state, &format!("s.t@{node}"));
        assert_eq!(instance.resolved.spec.content, Some(Content::Text(expect.to_owned())), "{node}: {template}");
    }
}

#[test]
fn vars_of_the_node_override_those_of_group_site_and_service() {
    check("{{ d }} {{ a }} {{ b }} {{ c }}\n", ["service site group node\n", "service site group group\n"]);
}

#[test]
fn templates_see_node_groups_site_service_and_external() {
    let node = "{{ node.name }} {{ node.address }} {{ node.labels.rack|default('-') }} {{ node.groups|join(',') }}";
    check(node, ["n0 10.0.0.1 r1 all,g", "n1 10.0.0.2 - all,g"]);
    check("{% for n in groups.g %}{{ n.name }}={{ n.address }};{% endfor %}", ["n0=10.0.0.1;n1=10.0.0.2;"; 2]);
    check("{% for name in groups %}{{ name }} {% endfor %}{{ groups['g']|length }}", ["all g 2"; 2]);
    let external = "{{ external[\"database/ready\"].address }} {{ external['database/ready'].vars.user }}";
    check(external, ["db.example.org me"; 2]);
    check("{{ site.name }} {{ service.name }}", ["cloud s"; 2]);
    check("{{ {'b': 1, 'a': [node.name]}|tojson }}", ["{\"b\": 1, \"a\": [\"n0\"]}", "{\"b\": 1, \"a\": [\"n1\"]}"]);
}

#[test]
fn tables_keep_the_order_in_which_they_are_written() {
    let rendered = |table: &str| {
        let text = format!(
            "{SITE}=== services/s/service.toml\n[[task]]\nid = \"t\"\n\
             template = {{ source = \"t.j2\", path = \"/t\" }}\n[vars]\n{table}\n\
             === services/s/t.j2\n{{% for key, value in sshd|items %}}{{{{ key }}}} {{{{ value }}}};{{% endfor %}}"
        );
        let resolved = instance(&state(&text), "s.t@n0").resolved.clone();
        (resolved.spec.content.clone(), resolved.fingerprint)
    };
    let content = |text: &str| Some(Content::Text(text.to_owned()));
    let (match_last, fingerprint) = rendered("sshd = { Port = 22, AllowUsers = \"a b\", Match = { z = 1, a = 2 } }");
    assert_eq!(match_last, content("Port 22;AllowUsers a b;Match {'z': 1, 'a': 2};"));
    let (below, same) = rendered("[vars.sshd]\nPort = 22\nAllowUsers = \"a b\"\nMatch = { z = 1, a = 2 }");
    assert_eq!((below, same), (match_last.clone(), fingerprint));
    // Another order is another content.
    let (match_first, other) = rendered("sshd = { Match = { a = 2, z = 1 }, Port = 22, AllowUsers = \"a b\" }");
    assert_eq!(match_first, content("Match {'a': 2, 'z': 1};Port 22;AllowUsers a b;"));
    assert_ne!(other, fingerprint);
}

#[test]
fn nothing_is_escaped_and_undefined_names_may_be_asked_about() {
    check(
        "<&\"'> {{ '<&>' }} {{ nope|default('x') }}{% if nope is defined %}y{% endif %}\n\n",
        ["<&\"'> <&> x\n\n"; 2],
    );
}

#[test]
fn templates_include_others_of_their_service() {
    check(
        "{% include 'x/part.j2' %}{% include ['no.j2', 'x/part.j2'] %}{% include 'no.j2' ignore missing %}.",
        ["<service>\n<service>\n."; 2],
    );
}

#[test]
fn strings_of_tasks_are_templates_too() {
    let text = format!(
        "{SITE}=== services/s/service.toml\n[service]\nrequires = [\"database/ready\"]\n[[task]]\nid = \"t\"\n\
         process = {{ run = [\"{{{{ service.name }}}}d\", \"plain\", \"{{{{ node.address }}}}\"], env = {{ A = \"{{{{ a }}}}\", B = \"b\" }} }}\n\
         ready = {{ tcp = \"{{{{ node.address }}}}:80\", timeout = \"5s\" }}\n\
         [[task]]\nid = \"c\"\nfile = {{ path = \"/{{{{ c }}}}\", content = \"{{{{ b }}}}\\n\" }}\n\
         [[task]]\nid = \"own\"\nfile = {{ path = \"/own\", source = \"{{{{ node.name }}}}.txt\" }}\n\
         [[task]]\nid = \"ownt\"\ntemplate = {{ path = \"/ownt\", source = \"{{{{ node.name }}}}.txt\" }}\n\
         === services/s/n0.txt\nzero {{{{ c }}}}\n=== services/s/n1.txt\none"
    );
    let state = state(&text);
    let spec = |id| serde_json::to_string(&instance(&state, id).resolved.spec).unwrap();
    let external = r#""external":[{"tcp":"db.example.org:3306","http":"http://db.example.org/cloud/site"}]"#;
    assert_eq!(
        spec("s.t@n0"),
        format!(
            r#"{{"params":{{"process":{{"run":["sd","plain","10.0.0.1"],"env":{{"A":"site","B":"b"}}}}}},"ready":{{"tcp":"10.0.0.1:80","timeout":"5s"}},{external}}}"#
        )
    );
    assert_eq!(
        spec("s.c@n0"),
        format!(r#"{{"params":{{"file":{{"path":"/node"}}}},"content":{{"text":"group\n"}},{external}}}"#)
    );
    assert_eq!(
        spec("s.own@n1"),
        format!(r#"{{"params":{{"file":{{"path":"/own"}}}},"content":{{"text":"one"}},{external}}}"#)
    );
    assert_eq!(
        spec("s.ownt@n0"),
        format!(r#"{{"params":{{"template":{{"path":"/ownt"}}}},"content":{{"text":"zero node\n"}},{external}}}"#)
    );
}

#[test]
fn large_content_is_a_blob_and_a_file_of_the_repository_stays_there() {
    let large = "x".repeat(40_000);
    let text = format!(
        "{SITE}=== services/s/service.toml\n[service]\n[[task]]\nid = \"f\"\nfile = {{ source = \"big\", path = \"/f\" }}\n\
         [[task]]\nid = \"t\"\ntemplate = {{ source = \"big.j2\", path = \"/t\" }}\n\
         === services/s/big\n{large}=== services/s/big.j2\n{{{{ a }}}}{large}"
    );
    let state = state(&text);
    let file = &instance(&state, "s.f@n0").resolved;
    assert_eq!(file.spec.content, Some(Content::Blob(BlobRef::of(large.as_bytes()))));
    assert_eq!(file.body, Some(Body::File("services/s/big".into())));
    let rendered = format!("site{large}");
    let template = &instance(&state, "s.t@n0").resolved;
    assert_eq!(template.spec.content, Some(Content::Blob(BlobRef::of(rendered.as_bytes()))));
    assert_eq!(template.body, Some(Body::Bytes(rendered.as_bytes().into())));
}

//! Values that tasks publish: in templates, in reasons, and in order.

use groundplan_protocol::ids::NodeId;

use super::{
    instance,
    known::{check_reported_faults, check_resolutions},
};
use crate::{desired::DesiredState, knowledge::Knowledge};

/// A site in which `db` publishes on n0 and n1, and `app` runs on n2.
fn exporting(db: &str, app: &str) -> String {
    "=== site.toml\nname = 'test'\n=== inventory/nodes.toml\n[nodes.n0]\ngroups = ['db']\n[nodes.n1]\ngroups = ['db']
[nodes.n2]\ngroups = ['app']\n[groups.db]\nservices = ['db']\n[groups.app]\nservices = ['app']\n"
        .to_owned()
        + &format!("=== services/db/service.toml\n{db}=== services/app/service.toml\n{app}")
}

/// With these exports, by `service.task` and node.
fn published(mut knowledge: Knowledge, exports: &[(&str, &str, &str)]) -> Knowledge {
    for (task, node, value) in exports {
        let by_node = knowledge.exports.entry(task.parse().unwrap()).or_default();
        by_node.insert(NodeId::new(*node).unwrap(), (*value).to_owned());
    }
    knowledge
}

const ADDRESS: &str = "[[task]]\nid = 'address'\nexport = { value = 'x' }\n";

fn app(content: &str, fields: &str) -> String {
    format!("[[task]]\nid = 'config'\n{fields}\nfile = {{ path = '/c', content = \"\"\"{content}\"\"\" }}\n")
}

#[test]
fn exports_are_a_map_by_node_or_the_value_itself() {
    let requires = "requires = ['db.address']";
    let text =
        exporting(ADDRESS, &app("{% for n, v in exports.db.address|items %}{{ n }}={{ v }} {% endfor %}", requires));
    let half = published(Knowledge::default(), &[("db.address", "n1", "one")]);
    check_resolutions(&text, &half, "db.address: n0 n1\napp.config:; n2 waits for export db.address of n0");
    let whole = published(half.clone(), &[("db.address", "n0", "zero")]);
    let state = check_resolutions(&text, &whole, "db.address: n0 n1\napp.config: n2");
    let content =
        |state: &DesiredState| serde_json::to_string(&instance(state, "app.config@n2").resolved.spec.content).unwrap();
    assert!(content(&state).contains("n0=zero n1=one "), "{}", content(&state));
    assert!(state.node_inputs.exports.iter().map(ToString::to_string).eq(["db.address"]));

    let one = exporting(ADDRESS, &app("{{ exports.db.address['n1'] }}", requires));
    let state = check_resolutions(&one, &half, "db.address: n0 n1\napp.config: n2");
    let input = instance(&state, "app.config@n2").resolved.inputs.iter().find(|i| i.name.starts_with("exports"));
    assert_eq!(input.map(|i| (i.name.as_str(), i.value.as_deref())), Some(("exports.db.address[n1]", Some("one"))));

    let once = exporting(&format!("{ADDRESS}once = true\n"), &app("{{ exports.db.address }}", requires));
    check_resolutions(&once, &half, "db.address: n0\napp.config:; n2 waits for export db.address of n0");
    let state = check_resolutions(&once, &whole, "db.address: n0\napp.config: n2");
    assert!(content(&state).contains("zero"));
    let input = instance(&state, "app.config@n2").resolved.inputs.iter().find(|i| i.name.starts_with("exports"));
    assert_eq!(input.map(|i| i.name.as_str()), Some("exports.db.address"));
}

#[test]
fn an_export_whose_when_is_false_is_not_there() {
    let db = format!("{ADDRESS}when = \"node.name != 'n0'\"\n");
    let text = exporting(
        &db,
        &app("{{ exports.db.address | length }}{{ exports.db.address.n1 }}", "requires = ['db.address']"),
    );
    let knowledge = published(Knowledge::default(), &[("db.address", "n1", "one")]);
    let state = check_resolutions(&text, &knowledge, "db.address: n1; not on n0 (node.name=n0)\napp.config: n2");
    let content = serde_json::to_string(&instance(&state, "app.config@n2").resolved.spec.content).unwrap();
    assert!(content.contains("1one"), "{content}");
}

#[test]
fn whoever_uses_an_export_comes_after_it() {
    let knowledge = published(Knowledge::default(), &[("db.address", "n0", "a"), ("db.address", "n1", "b")]);
    let text = exporting(ADDRESS, &app("{{ exports.db.address.n0 }}", ""));
    check_reported_faults(
        &text,
        &knowledge,
        "
services/app/service.toml:2 ‹'config'›: `app.config` uses `exports.db.address` but does not come after it
  services/db/service.toml:2 ‹'address'›: `db.address` here
  hint: add `db.address` to its `requires`
",
    );
    let wide = "[service]\nrequires = ['db.address']\n";
    check_resolutions(
        &exporting(ADDRESS, &format!("{wide}{}", app("{{ exports.db.address.n0 }}", ""))),
        &knowledge,
        "db.address: n0 n1\napp.config: n2",
    );
    // In one service, file order is enough for a value of the same node.
    let user = |content: &str| format!("{ADDRESS}{}", app(content, ""));
    check_resolutions(
        &exporting(&user("{{ exports.db.address[node.name] }}"), &app("", "")),
        &knowledge,
        "app.config: n2\ndb.address: n0 n1\ndb.config: n0 n1",
    );
    check_reported_faults(
        &exporting(&user("{{ exports.db.address.n0 }}"), &app("", "")),
        &knowledge,
        "
services/db/service.toml:5 ‹'config'›: `db.config` uses `exports.db.address` of other nodes but comes after it on its own node only
  services/db/service.toml:2 ‹'address'›: `db.address` here
  hint: add `db.address` to its `requires`
",
    );
}

#[test]
fn exports_that_no_task_publishes() {
    for (content, expect) in [
        (
            "{{ exports.dbb.address }}",
            "‹exports.dbb›: no task of a service `dbb` exports anything\n  hint: did you mean `db`?",
        ),
        (
            "{{ exports.db.addres }}",
            "‹exports.db.addres›: service `db` has no export `addres`\n  hint: did you mean `address`?",
        ),
        (
            "{{ exports.db.address.n7 }}",
            "‹exports.db.address.n7›: `exports.db.address.n7` is undefined\n  hint: `db.address` runs on `n0`, `n1`",
        ),
        (
            "{{ exports.app.config }}",
            "‹exports.app›: no task of a service `app` exports anything\n  hint: a task of the kind `export` publishes a value",
        ),
    ] {
        let text = exporting(ADDRESS, &app(content, "requires = ['db.address']"));
        check_reported_faults(&text, &Knowledge::default(), &format!("services/app/service.toml:4 {expect}"));
    }
}

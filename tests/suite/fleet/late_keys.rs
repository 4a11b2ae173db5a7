//! Keys of nodes that the planner gets after it has refused what the nodes said: neither planner nor agent is started again.

use std::fs;

use groundplan_tests::{brokers::Kind, fleet::Fleet};

use super::with_both_brokers;

with_both_brokers!(a_key_that_comes_late_is_of_use_at_once);

const INVENTORY: &str = "inventory/nodes.toml";

fn inventory(nodes: &str) -> String {
    format!("[groups.all]\nservices = [\"s\"]\n\n{nodes}")
}

fn a_key_that_comes_late_is_of_use_at_once(kind: Kind) {
    let nodes = ["n1", "n2", "n3", "n4"];
    // The last one is not even declared.
    let declared = inventory("[nodes.n1]\n\n[nodes.n2]\n\n[nodes.n3]\n");
    let files = [
        ("site.toml", "name = \"testsite\"\n"),
        (INVENTORY, &declared),
        ("services/s/service.toml", "[[task]]\nid = \"t\"\nfile = { path = \"/t\", content = \"t\" }\n"),
    ];
    let mut fleet = Fleet::new(kind, &files);
    fleet.keep_keys();
    fleet.start_planner("one");
    nodes.iter().for_each(|node| fleet.start_agent(node));
    let refused = |fleet: &Fleet, node: &str| {
        let status = fleet.ask("one", &["status"])?;
        let of_node = status["nodes"].as_array()?.iter().find(|of| of["node"] == node)?.clone();
        of_node["rejected"]["reason"].as_str().map(str::to_owned)
    };
    for node in &nodes[..3] {
        let reason = fleet.wait("a refused message", || refused(&fleet, node));
        assert_eq!(reason, "no key of the node is known");
        // The agent says what to do.
        let key = Fleet::node_key(node).public();
        fleet.wait("the agent's key in its log", || {
            fleet.logged(node).contains(&format!("groundplan trust {node} {key}")).then_some(())
        });
    }
    let applied = |fleet: &Fleet, node: &str| {
        fleet.wait(&format!("the file of {node}"), || fleet.file(node, "t"));
        fleet.wait("no refusal", || refused(fleet, node).is_none().then_some(()));
    };

    // By a command; by a file, as a configuration management writes it; in the inventory; with its declaration.
    let key = |node: &str| Fleet::node_key(node).public().to_string();
    let trusted = fleet.ask("one", &["trust", "n1", &key("n1")]).expect("an answer");
    assert_eq!(trusted["changed"], true);
    applied(&fleet, "n1");
    fs::write(fleet.planner_state("one").join("trusted/n2.pub"), key("n2")).expect("a key file");
    applied(&fleet, "n2");
    let nodes = format!(
        "[nodes.n1]\n\n[nodes.n2]\n\n[nodes.n3]\nkey = \"{}\"\n\n[nodes.n4]\nkey = \"{}\"\n",
        key("n3"),
        key("n4")
    );
    let commit = fleet.commit(&[(INVENTORY, &inventory(&nodes))], "keys");
    applied(&fleet, "n3");
    applied(&fleet, "n4");
    fleet.converged("one", &commit);
}

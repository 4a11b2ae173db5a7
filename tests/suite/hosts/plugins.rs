//! The plugins of `docs/examples/plugins` on real hosts: a time zone by a shell script, limits of a unit by a Python program.

use std::{fs, net::Ipv4Addr, path::Path};

use groundplan_tests::{
    fleet::{SITE, texts},
    hosts::{Builder, Hosts},
    needs_hosts,
};

const NODES: [&str; 3] = ["host-0", "worker-0", "worker-1"];
const WORKERS: [&str; 2] = ["worker-0", "worker-1"];

/// The example's files, with this site's name and the hosts' addresses in them.
fn example(builder: &Builder) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/plugins");
    let paths = [
        "site.toml",
        "inventory/nodes.toml",
        "plugins/limits",
        "plugins/limits.schema.json",
        "plugins/timezone",
        "plugins/timezone.schema.json",
        "services/clock/service.toml",
        "services/worker/service.toml",
    ];
    let read = |path: &str| {
        let mut text = fs::read_to_string(folder.join(path)).expect("a file of the example");
        text = text.replace("name = \"plugins\"", &format!("name = {SITE:?}"));
        for (node, given) in NODES.iter().zip(["10.77.2.10", "10.77.2.20", "10.77.2.21"]) {
            let address: Ipv4Addr = builder.address(node);
            text = text.replace(&format!("{given:?}"), &format!("\"{address}\""));
        }
        (path.to_owned(), text)
    };
    paths.into_iter().map(read).collect()
}

/// A committed file with one text in it replaced.
fn edited(hosts: &Hosts, path: &str, from: &str, to: &str) -> String {
    let text = fs::read_to_string(hosts.fleet.repository().join(path)).expect("a file of the site");
    assert_eq!(text.matches(from).count(), 1, "{from:?} in {path}");
    hosts.commit(&[(path, &text.replace(from, to))], to)
}

fn zone(hosts: &Hosts, node: &str) -> String {
    hosts.out(node, "readlink /etc/localtime || true").trim().to_owned()
}

fn starts(hosts: &Hosts, node: &str) -> String {
    let count = "journalctl --sync; journalctl -b -o cat -u worker.service _PID=1 | grep -c ^Started || true";
    hosts.out(node, count).trim().to_owned()
}

fn limit(hosts: &Hosts, node: &str) -> String {
    hosts.out(node, "systemctl show -P LimitNOFILE worker.service").trim().to_owned()
}

/// What the latest rollout did, each as `service.task@node: outcome`.
fn did(hosts: &Hosts) -> Vec<String> {
    let rollout = hosts.ask(&["show"]).expect("a rollout");
    let word = |instance: &serde_json::Value| {
        let outcome = &instance["outcome"];
        let what = match (outcome["is"].as_str(), outcome["changed"].as_bool()) {
            (Some("done"), Some(true)) => "changed",
            (Some("done"), _) => "unchanged",
            (is, _) => is.unwrap_or("nothing"),
        };
        format!("{}: {what}", instance["instance"].as_str().expect("an instance"))
    };
    let mut did: Vec<_> = rollout["instances"].as_array().expect("instances").iter().map(word).collect();
    did.sort();
    did
}

#[test]
fn the_examples_keep_zones_and_limits() {
    needs_hosts!();
    let builder = Hosts::site(&NODES).with_internet();
    let files = example(&builder);
    let service = |text: &(String, String)| text.0.starts_with("services/");
    let bare: Vec<_> = files.iter().filter(|file| !service(file)).cloned().collect();
    let without: Vec<_> = bare
        .iter()
        .map(|(path, text)| (path.as_str(), text.replace("\"clock\"", "").replace("\"worker\"", "")))
        .collect();
    let hosts = builder.start(&texts(&without));
    hosts.converged(&hosts.head());
    let before = NODES.map(|node| zone(&hosts, node));

    // Create.
    let all: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    hosts.converged(&hosts.commit(&all, "the example"));
    for node in NODES {
        assert_eq!(zone(&hosts, node), "/usr/share/zoneinfo/Europe/Vienna");
        assert!(matches!(hosts.out(node, "date +%Z").trim(), "CET" | "CEST"), "programs see it");
    }
    for node in WORKERS {
        assert_eq!((limit(&hosts, node).as_str(), starts(&hosts, node).as_str()), ("4096", "1"));
        assert_eq!(hosts.out(node, "systemctl show -P MemoryMax worker.service").trim(), "268435456");
    }
    assert!(hosts.report("worker.limits", "worker-0").output.contains("wrote /etc/systemd/system/worker.service.d/"));

    // Another limit: exactly that unit restarts, once on each node.
    hosts.converged(&edited(&hosts, "services/worker/service.toml", "files = 4096", "files = 8192"));
    for node in WORKERS {
        assert_eq!((limit(&hosts, node).as_str(), starts(&hosts, node).as_str()), ("8192", "2"));
        assert!(hosts.report("worker.worker", node).outcome.contains("restarted"));
    }
    let limits = |what: &str| WORKERS.map(|node| format!("worker.limits@{node}: {what}"));
    let worker = |what: &str| WORKERS.map(|node| format!("worker.worker@{node}: {what}"));
    assert_eq!(did(&hosts), [limits("changed"), worker("changed")].concat());

    // The plugin edited: exactly the instances that use it are checked again, and found as they should be.
    hosts.converged(&edited(&hosts, "plugins/limits", "def main():", "# A comment.\ndef main():"));
    assert_eq!(did(&hosts), [limits("unchanged"), worker("skipped")].concat());
    hosts.converged(&edited(&hosts, "plugins/timezone", "zones=/usr", "# A comment.\nzones=/usr"));
    assert_eq!(did(&hosts), NODES.map(|node| format!("clock.zone@{node}: unchanged")));
    for node in WORKERS {
        assert_eq!(starts(&hosts, node), "2");
    }

    // Changes out of band.
    hosts.out("host-0", "ln -sf /usr/share/zoneinfo/UTC /etc/localtime");
    hosts.out("worker-0", "sed -i s/8192/16/ /etc/systemd/system/worker.service.d/50-limits.conf");
    let (none, drift) = hosts.fleet.run_json("one", &["drift"]);
    let drift = drift.expect("what drifted").to_string();
    for difference in [["zone", "Europe/Vienna", "UTC"], ["LimitNOFILE", "8192", "16"]] {
        let [what, expected, found] = difference.map(|text| format!("{text:?}"));
        let parts = [format!("\"what\":{what}"), format!("\"expected\":{expected}"), format!("\"found\":{found}")];
        assert!(parts.iter().all(|part| drift.contains(part)), "{difference:?}: {drift}");
    }
    assert!(!none);
    assert_eq!(hosts.recheck(&["worker.limits"], &[]).changed, ["worker.limits@worker-0", "worker.worker@worker-0"]);
    assert_eq!((limit(&hosts, "worker-0").as_str(), starts(&hosts, "worker-0").as_str()), ("8192", "3"));
    assert_eq!(hosts.recheck(&["clock.zone"], &[]).changed, ["clock.zone@host-0"]);
    assert_eq!(zone(&hosts, "host-0"), "/usr/share/zoneinfo/Europe/Vienna");

    // A zone that matches the schema, and that no host has.
    hosts.settled(&edited(&hosts, "site.toml", "Europe/Vienna", "Europe/Atlantis"));
    let failed = hosts.report("clock.zone", "host-0").outcome;
    assert!(failed.contains("this host has no zone Europe/Atlantis: choose one that tzdata has"), "{failed}");
    assert_eq!(zone(&hosts, "host-0"), "/usr/share/zoneinfo/Europe/Vienna", "nothing half done");

    // Removal gives back what was there.
    hosts.converged(&hosts.commit(&texts(&without), "nothing any more"));
    assert_eq!(NODES.map(|node| zone(&hosts, node)), before);
    for node in WORKERS {
        assert_eq!(hosts.out(node, "ls -d /etc/systemd/system/worker* 2>/dev/null || true"), "");
    }
}

//! `docs/examples/keystone` on three real hosts: from bare Debian to a token, then what its changes restart, then the same against a
//! database that someone else runs. Takes minutes and needs Debian's archive, so it is a target of its own: `tests/run keystone`.
//!
//! Prints tables in markdown, with figures of this run, on standard output.

mod identity;
mod site;
mod units;

use std::time::{Duration, Instant};

use groundplan_tests::{binaries, hosts::Hosts, needs_hosts};
use serde_json::Value;

use self::{identity::Identity, units::Units};

/// Database; message bus and cache; Keystone.
const NODES: [&str; 3] = ["db-0", "mq-0", "id-0"];
/// What Task-Core claims for its own Keystone example.
const CLAIM: &str = "roughly 5 minutes";

#[test]
fn from_bare_hosts_to_a_token() {
    needs_hosts!();
    // Built before the clock runs.
    let _ = (binaries::groundplan(), binaries::agent());
    let booting = Instant::now();
    let builder = Hosts::site(&NODES).with_internet();
    let addresses = NODES.map(|node| (node, builder.address(node)));
    let example = site::example(&addresses);
    let bare = site::bare(&example);
    let mut hosts = builder.start(&site::borrowed(&bare));
    hosts.patience(Duration::from_secs(30 * 60));
    hosts.wait("three agents", || {
        let status = hosts.ask(&["status"])?;
        let online = status["nodes"].as_array()?.iter().filter(|node| node["presence"] == "online").count();
        (online == NODES.len()).then_some(())
    });
    let booted = booting.elapsed();

    // Nothing but the agent is there, and it is idle. The clock runs from the commit.
    for node in NODES {
        assert_eq!(hosts.sh(node, "command -v mariadbd rabbitmqctl memcached keystone-manage").out, "");
    }
    let begun = Instant::now();
    let commit = hosts.commit(&site::borrowed(&example), "keystone");
    let status = hosts.converged(&commit);
    let identity = Identity::at(hosts.address("id-0"), "ChangeMeAdmin");
    let token = identity.issue();
    let took = begun.elapsed();
    let valid = identity.validate(&token);
    assert_eq!(valid["token"]["user"]["name"], "admin");
    assert_eq!(valid["token"]["project"]["name"], "admin");
    let services: Vec<&str> =
        valid["token"]["catalog"].as_array().unwrap().iter().filter_map(|s| s["type"].as_str()).collect();
    assert_eq!(services, ["identity"]);
    println!("\n{}\n", site::machine());
    println!("| from the commit to a token | |\n|---|---|");
    println!("| three bare hosts booted, agents connected | {:.0} s |", booted.as_secs_f64());
    println!("| commit → rollout succeeded → token issued and validated | {:.0} s |", took.as_secs_f64());
    println!("| Task-Core's claim for its Keystone | {CLAIM} |\n");
    println!("{}", timeline(&hosts));
    stack_is_in_use(&hosts);
    secrets_are_kept(&hosts);

    nothing_is_left_to_do(&hosts, &status);
    let edits = [
        Edit {
            what: "Keystone's configuration",
            file: "services/keystone/service.toml",
            from: "token_lifetime = 3600",
            to: "token_lifetime = 7200",
            restarts: &[("id-0", "keystone.service")],
        },
        Edit {
            what: "MariaDB's configuration",
            file: "services/mariadb/service.toml",
            from: "max_connections = 200",
            to: "max_connections = 300",
            restarts: &[("db-0", "mariadb.service"), ("id-0", "keystone.service")],
        },
        Edit {
            what: "memcached's configuration",
            file: "services/memcached/service.toml",
            from: "megabytes = 64",
            to: "megabytes = 128",
            restarts: &[("mq-0", "memcached.service")],
        },
    ];
    let mut units = Units::of(&hosts, &NODES);
    for edit in &edits {
        let text = site::edited(&hosts.fleet.repository(), edit.file, edit.from, edit.to);
        let status = hosts.converged(&hosts.commit(&[(edit.file, &text)], edit.what));
        let after = Units::of(&hosts, &NODES);
        println!("{}", units.table(&after, edit.what));
        assert_eq!(units.restarted(&after), edit.restarts, "{}", edit.what);
        // Keystone continues, whatever was restarted: the token is still valid, and there are new ones.
        identity.validate(&token);
        identity.issue();
        units = after;
        nothing_is_left_to_do(&hosts, &status);
    }
    everything_is_so(&hosts, &units);
    println!("{}", memory(&hosts));
    someone_elses_database(&mut hosts, &example);
}

/// An edit, and what alone it may restart.
struct Edit {
    what: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    restarts: &'static [(&'static str, &'static str)],
}

/// What took how long, in the order in which it was done.
fn timeline(hosts: &Hosts) -> String {
    let rollout = hosts.ask(&["show"]).expect("the rollout");
    let start = rollout["started_ms"].as_u64().expect("a time");
    let mut tasks: Vec<&Value> = rollout["instances"].as_array().expect("instances").iter().collect();
    tasks.sort_by_key(|task| task["started_ms"].as_u64());
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let mut table = "| task | began after | took |\n|---|---:|---:|\n".to_owned();
    for task in tasks {
        let (Some(began), Some(took)) = (task["started_ms"].as_u64(), task["duration_ms"].as_u64()) else { continue };
        let name = task["instance"].as_str().unwrap_or_default();
        let after = seconds(began.saturating_sub(start));
        table.push_str(&format!("| `{name}` | {after:.1} s | {:.1} s |\n", seconds(took)));
    }
    table
}

/// Keystone talks to all three: its tables are in MariaDB, its answers in memcached, its notifications in RabbitMQ.
fn stack_is_in_use(hosts: &Hosts) {
    let count = |host: &str, line: &str| -> u64 {
        let output = hosts.out(host, line);
        output.trim().parse().unwrap_or_else(|_| panic!("`{line}` on {host} prints {output:?}"))
    };
    let users = "mariadb --skip-column-names --batch --execute 'SELECT COUNT(*) FROM local_user' keystone";
    assert_eq!(count("db-0", users), 1);
    let queues =
        "rabbitmqctl --silent list_queues --vhost keystone name messages | grep ^notifications.info | cut -f 2";
    assert!(count("mq-0", queues) > 0, "nothing was published");
    let items = identity::memcached(hosts.address("mq-0"), "stats");
    let items = items.lines().find_map(|line| line.strip_prefix("STAT curr_items ")).expect("a figure");
    assert!(items.trim().parse::<u64>().expect("a number") > 0, "nothing is cached");
}

/// No password is in a file that others may read, or in the arguments of a process.
fn secrets_are_kept(hosts: &Hosts) {
    for node in NODES {
        let places = "/etc /home /opt /root /run /srv /tmp /usr/local /var";
        let line =
            format!("runuser --user nobody -- grep --recursive --devices skip --files-with-matches ChangeMe {places}");
        assert_eq!(hosts.sh(node, &line).out, "", "on {node}, others may read these");
        let arguments = hosts.sh(node, "ps -eo args | grep '[C]hangeMe'");
        assert_eq!(arguments.out, "", "on {node}, everybody sees these");
    }
}

/// The same tree in another commit makes no rollout.
fn nothing_is_left_to_do(hosts: &Hosts, status: &Value) {
    let commit = hosts.commit(&[], "nothing");
    let again = hosts.converged(&commit);
    assert_eq!(again["rollout"]["generation"], status["rollout"]["generation"], "the same tree was planned again");
}

/// Every task is checked again, and is in sync.
fn everything_is_so(hosts: &Hosts, before: &Units) {
    let begun = Instant::now();
    let answer = hosts.ask(&["recheck"]).expect("every task to be in sync");
    let counts = &answer["rollout"]["counts"];
    assert_eq!(answer["left_out"], serde_json::json!([]), "every task of the example can be checked");
    assert_eq!(counts["changed"], 0, "{:#}", answer["rollout"]);
    let tasks = counts["unchanged"].as_u64().expect("a count");
    assert!(tasks >= 25, "{counts:#}");
    assert_eq!(before.restarted(&Units::of(hosts, &NODES)), []);
    println!("Every task checked again: {tasks} unchanged, none changed, in {:.0} s.\n", begun.elapsed().as_secs_f64());
}

/// What the agents came to take for all this.
fn memory(hosts: &Hosts) -> String {
    let mut table = "| agent, debug build | resident | peak |\n|---|---:|---:|\n".to_owned();
    for node in NODES {
        let memory = hosts.agent_memory(node);
        let mib = |kib: u64| kib as f64 / 1024.0;
        table.push_str(&format!("| {node} | {:.1} MiB | {:.1} MiB |\n", mib(memory.resident), mib(memory.peak)));
    }
    table
}

/// The variant: db-0 is no node of ours any more. Its owner made an empty database and an account; Keystone and its message bus are built
/// again on fresh hosts against it.
fn someone_elses_database(hosts: &mut Hosts, example: &[(String, String)]) {
    hosts.out("db-0", "systemctl disable --now groundplan-agent");
    // Its connections may hold locks on the database, for which the drop would wait.
    hosts.out("id-0", "systemctl stop keystone");
    hosts.out("db-0", "mariadb --execute 'DROP DATABASE keystone; DROP USER keystone'");
    let account = "CREATE DATABASE keystone CHARACTER SET utf8mb4; \
                   GRANT ALL PRIVILEGES ON keystone.* TO keystone@\\`%\\` IDENTIFIED BY \\\"TheirPassword\\\"";
    hosts.out("db-0", &format!("mariadb --execute \"{account}\""));
    let database = Units::of(hosts, &["db-0"]);
    for node in ["mq-0", "id-0"] {
        hosts.kill(node);
    }
    let addresses = NODES.map(|node| (node, hosts.address(node)));
    let begun = Instant::now();
    let mut changes = site::variant("external-database", &addresses);
    for (path, text) in &mut changes {
        if path == "site.toml" {
            *text = text.replace("ChangeMeDatabase", "TheirPassword");
        }
    }
    let gone = example.iter().filter(|(path, _)| path.starts_with("services/mariadb/"));
    changes.extend(gone.map(|(path, _)| (path.clone(), String::new())));
    let commit = hosts.commit(&site::borrowed(&changes), "someone else's database");
    for node in ["mq-0", "id-0"] {
        hosts.wipe(node);
    }
    let status = hosts.converged(&commit);
    let ours = status["nodes"].as_array().unwrap().iter().filter(|node| node["declared"] == true);
    let nodes: Vec<&str> = ours.filter_map(|node| node["node"].as_str()).collect();
    assert_eq!(nodes, ["id-0", "mq-0"]);
    let identity = Identity::at(hosts.address("id-0"), "ChangeMeAdmin");
    let token = identity.issue();
    identity.validate(&token);
    println!("With someone else's database, two fresh hosts to a token: {:.0} s.\n", begun.elapsed().as_secs_f64());
    assert_eq!(database.restarted(&Units::of(hosts, &["db-0"])), [], "it is not ours to restart");
    let tables = "mariadb --skip-column-names --batch --execute 'SELECT COUNT(*) FROM local_user' keystone";
    assert_eq!(hosts.out("db-0", tables), "1");
    nothing_is_left_to_do(hosts, &status);
}

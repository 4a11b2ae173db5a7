//! Resident memory of agent and planner on a small site, and the sizes of the programs. The agent is the static release build.

use std::{fs, path::Path};

use groundplan_tests::{
    binaries,
    brokers::Kind,
    fleet::Fleet,
    hosts::{self, Hosts, Memory},
};

use crate::table::Row;

pub(crate) fn run() -> Vec<Row> {
    let agent = binaries::static_agent();
    let files = [
        ("site.toml", "name = \"testsite\"\n"),
        ("inventory/nodes.toml", "[groups.g]\nservices = [\"s\"]\n\n[nodes.n1]\ngroups = [\"g\"]\n"),
        ("services/s/service.toml", "[[task]]\nid = \"f\"\nfile = { path = \"/f\", content = \"x\" }\n"),
    ];
    let mut fleet = Fleet::new(Kind::Mosquitto, &files);
    fleet.use_agent(agent.clone());
    fleet.start_agent("n1");
    fleet.start_planner("one");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let mosquitto = resident(fleet.broker.pid().expect("mosquitto runs"));
    let mut rows = vec![
        Row::new("agent, idle, resident", resident(fleet.agent_pid("n1")), "MiB")
            .against("mosquitto", mosquitto)
            .at_most(4.0),
        Row::new("planner, resident, other broker", resident(fleet.planner_pid("one")), "MiB")
            .against("mosquitto", mosquitto),
    ];
    let commands: String =
        (0..1000).map(|c| format!("[[task]]\nid = \"c{c}\"\ncommand = {{ run = \"echo {c}\" }}\n\n")).collect();
    let commit = fleet.commit(&[("services/s/service.toml", &commands)], "commands");
    fleet.converged("one", &commit);
    rows.push(Row::new("agent, after 1000 commands, resident", resident(fleet.agent_pid("n1")), "MiB"));
    drop(fleet);

    let mut fleet = Fleet::new(Kind::Mosquitto, &files);
    fleet.embed_broker();
    fleet.start_planner("one");
    fleet.start_agent("n1");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let row = Row::new("planner with embedded broker, resident", resident(fleet.planner_pid("one")), "MiB");
    rows.push(row.against("mosquitto", mosquitto).at_most(30.0));
    drop(fleet);

    rows.extend(on_a_host(&agent));
    rows.push(Row::new("agent, static, on disk", megabytes(&agent), "MB").at_most(4.0));
    rows.push(Row::new("groundplan, on disk", megabytes(&binaries::groundplan()), "MB"));
    rows
}

/// The agent on a real host, under systemd, before and after a plan of a thousand tasks.
fn on_a_host(agent: &Path) -> Vec<Row> {
    if let Some(why) = hosts::impossible() {
        eprintln!("NOT MEASURED: the agent on a real host: {why}");
        return Vec::new();
    }
    let file = |n: usize| format!("[[task]]\nid = \"f{n}\"\nfile = {{ path = \"/srv/{n}\", content = \"{n}\" }}\n\n");
    let command = |n: usize| format!("[[task]]\nid = \"c{n}\"\ncommand = {{ run = \"echo {n}\" }}\n\n");
    let site = Hosts::site(&["h1"]).agent(agent.to_owned()).serve(&file(0));
    site.converged(&site.head());
    let rows = |when: &str, Memory { resident, peak }: Memory| {
        let row =
            |what: &str, kib: u64| Row::new(format!("agent on a host, {when}, {what}"), kib as f64 / 1024.0, "MiB");
        [row("resident", resident), row("at its peak", peak)]
    };
    let before = rows("idle", site.agent_memory("h1"));
    let tasks: String = (0..500).map(|n| file(n) + &command(n)).collect();
    site.converged(&site.change(&tasks));
    before.into_iter().chain(rows("after 1000 tasks", site.agent_memory("h1"))).collect()
}

/// Resident memory of a process in MiB (proc(5), `VmRSS`).
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib / 1024.0
}

fn megabytes(path: &Path) -> f64 {
    fs::metadata(path).expect("the program").len() as f64 / 1e6
}

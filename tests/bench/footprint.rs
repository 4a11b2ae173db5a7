//! Resident memory of agent and planner on a small site, and the sizes of the programs. The agent is the static release build.

use std::{fs, path::Path};

use groundplan_tests::{binaries, brokers::Kind, fleet::Fleet};

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

    rows.push(Row::new("agent, static, on disk", megabytes(&agent), "MB").at_most(4.0));
    rows.push(Row::new("groundplan, on disk", megabytes(&binaries::groundplan()), "MB"));
    rows
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

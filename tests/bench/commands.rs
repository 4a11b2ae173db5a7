//! 1000 trivial commands on each of 6 nodes: from the push to the last result at the planner. The baseline is the spawns alone: the
//! same commands, one after the other in each of 6 threads, their output captured.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use groundplan::api::{Client, types::RolloutResult};
use groundplan_tests::{brokers::Kind, fleet::Fleet};

use crate::table::Row;

const NODES: usize = 6;
const COMMANDS: usize = 1000;
const ROUNDS: usize = 3;

pub(crate) fn run() -> Vec<Row> {
    let nodes: Vec<String> = (1..=NODES).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let mut inventory = String::from("[groups.g]\nservices = [\"s\"]\n");
    nodes.iter().for_each(|node| inventory.push_str(&format!("\n[nodes.{node}]\ngroups = [\"g\"]\n")));
    let start = [
        ("site.toml", "name = \"testsite\"\n[vars]\nround = 0\n"),
        ("inventory/nodes.toml", &inventory),
        ("services/s/service.toml", "[[task]]\nid = \"f\"\nfile = { path = \"/f\", content = \"x\" }\n"),
    ];
    let fleet = Fleet::started(Kind::Embedded, &start, &names);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));

    let (mut ours, mut bare) = (f64::MAX, f64::MAX);
    for round in 1..=ROUNDS {
        bare = bare.min(spawns(round));
        let mut service = String::new();
        for c in 0..COMMANDS {
            service.push_str(&format!("[[task]]\nid = \"c{c}\"\ncommand = {{ run = \"echo {c} {round}\" }}\n\n"));
        }
        let began = Instant::now();
        let commit = fleet.commit(&[("services/s/service.toml", &service)], "commands");
        deployed(&fleet, &commit);
        ours = ours.min(began.elapsed().as_secs_f64());
    }
    vec![
        Row::new(format!("{COMMANDS} commands × {NODES} nodes, best of {ROUNDS}"), ours, "s")
            .against("the bare spawns", bare)
            .at_most_times(1.25),
    ]
}

/// Waits for the last result at the planner, with queries from this process: starting a program for each query would take the time
/// that is measured.
fn deployed(fleet: &Fleet, commit: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut planner = Client::connect(&fleet.planner_state("one").join("planner.sock")).await.expect("a planner");
        loop {
            let status = planner.ask(&groundplan::api::requests::GetStatus {}).await.expect("a status");
            let rollout = status.rollout.as_ref().filter(|rollout| rollout.commit.id.as_str() == commit);
            if rollout.is_some_and(|rollout| rollout.result == RolloutResult::Succeeded) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

fn spawns(round: usize) -> f64 {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..NODES {
            scope.spawn(|| {
                for c in 0..COMMANDS {
                    let line = format!("echo {c} {round}");
                    let output =
                        Command::new("/bin/sh").args(["-c", &line]).stdin(Stdio::null()).output().expect("sh runs");
                    assert!(output.status.success());
                }
            });
        }
    });
    assert!(began.elapsed() < Duration::from_secs(600));
    began.elapsed().as_secs_f64()
}

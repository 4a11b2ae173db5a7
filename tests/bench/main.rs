//! The benchmarks: each figure beside a baseline that is measured in the same run, and beside the target of the design.
//!
//! In: names of benchmarks (all but `fleet`, if none). Out: a table on standard output, and the same as JSON in `bench.json` of the target
//! directory or in the file of `--json FILE`. Run by `tests/run bench`, in release, on a quiet machine; never part of a test.

mod broker;
mod commands;
mod fleet;
mod footprint;
mod generate;
mod latency;
mod offers;
mod planning;
mod readers;
mod rollout;
mod table;

use std::{path::PathBuf, process::ExitCode};

use table::{Row, Table};

/// A benchmark: its name, what it measures, and how.
type Bench = (&'static str, &'static str, fn() -> Vec<Row>);

const ALL: [Bench; 8] = [
    ("planning", "commit to plan, 1000 nodes and 1000 services, about 20 services a node", planning::run),
    ("offers", "1000 plans bound, signed and encrypted, and taken again", offers::run),
    (
        "rollout",
        "rollouts of 300, 1000 and 3000 nodes inside the planner's machine, plain, with a barrier and with turns",
        rollout::run,
    ),
    ("latency", "push to file in place on one node", latency::run),
    ("commands", "1000 trivial commands on each of 6 nodes, push to last result", commands::run),
    ("readers", "a chain of gates on two nodes, with and without a hundred clients that poll the status", readers::run),
    ("broker", "20 000 QoS 1 messages through the embedded broker", broker::run),
    ("footprint", "resident memory of agent and planner, sizes of the programs", footprint::run),
];

fn main() -> ExitCode {
    let mut names = Vec::new();
    let (mut fleet, mut options) = (false, fleet::Options::default());
    let mut json = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "fleet" => fleet = true,
            "--json" => json = args.next().map(PathBuf::from),
            name if ALL.iter().any(|(n, ..)| *n == name) => names.push(arg),
            option if args.next().is_some_and(|value| options.take(option, &value).is_some()) => {}
            _ => {
                eprintln!("usage: groundplan-bench [--json FILE] [NAME…] [OPTION VALUE…]\n");
                ALL.iter().for_each(|(name, what, _)| eprintln!("  {name:<10} {what}"));
                eprintln!(
                    "  fleet      simulated agents, a thousand of them, against a real planner: only if it is named\n\n{}",
                    fleet::USAGE
                );
                return ExitCode::from(64);
            }
        }
    }
    if cfg!(debug_assertions) && fleet && names.is_empty() {
        eprintln!("this is a debug build: its figures compare with each other and with nothing else");
    } else if cfg!(debug_assertions) {
        eprintln!("this is a debug build: its figures say nothing; use `tests/run bench`");
        return ExitCode::FAILURE;
    }
    let mut table = Table::default();
    let is_wanted = |name: &str| if names.is_empty() { !fleet } else { names.iter().any(|wanted| wanted == name) };
    for (name, what, run) in ALL.iter().filter(|(name, ..)| is_wanted(name)) {
        eprintln!("{name}: {what} …");
        table.rows.extend(run());
    }
    if fleet {
        table.rows.extend(fleet::run(options));
    }
    println!("{}", table.text());
    let path = json.unwrap_or_else(|| groundplan_tests::binaries::groundplan().with_file_name("bench.json"));
    std::fs::write(&path, table.json()).expect("the results can be written");
    println!("as JSON: {}", path.display());
    ExitCode::SUCCESS
}

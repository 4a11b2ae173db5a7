//! `tests/run property`: runs the property on real hosts, with one seed or many.

use std::process::ExitCode;

use groundplan_tests::{hosts, property::Property};

const USAGE: &str = "groundplan-property [--seed N] [--seeds N] [--commits N] [--from N] [--no-faults] [--no-kills] [--without KINDS] [--keep-going]";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut seed, mut seeds, mut commits, mut from) = (1, 1, 200, 1);
    let (mut faults, mut kills, mut keep_going) = (true, true, false);
    let mut without = Vec::new();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--no-faults" => faults = false,
            "--no-kills" => kills = false,
            "--without" => {
                let Some(kinds) = args.next() else { return usage() };
                without.extend(kinds.split(',').map(str::to_lowercase));
            }
            "--keep-going" => keep_going = true,
            "--seed" | "--seeds" | "--commits" | "--from" => {
                let Some(value) = args.next().and_then(|value| value.parse::<u64>().ok()) else { return usage() };
                match arg.as_str() {
                    "--seed" => seed = value,
                    "--seeds" => seeds = value,
                    "--from" => from = value as u32,
                    _ => commits = value as u32,
                }
            }
            _ => return usage(),
        }
    }
    if let Some(why) = hosts::impossible() {
        eprintln!("NOT RUN: {why}");
        return ExitCode::FAILURE;
    }
    let mut failed = Vec::new();
    for seed in seed..seed + seeds {
        println!("== seed {seed}");
        match (Property { seed, commits, from, faults, kills, without: without.clone(), verbose: true }).run() {
            Ok(totals) => println!("seed {seed}: {totals}"),
            Err(report) => {
                println!("\n{report}\n");
                failed.push(seed);
                if !keep_going {
                    break;
                }
            }
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}");
    ExitCode::FAILURE
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(64)
}

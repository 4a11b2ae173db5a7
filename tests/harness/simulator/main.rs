//! `tests/run simulate`: runs seeds of the simulator until one fails, or enough have passed.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use groundplan_tests::simulator::{Omission, Previewed, Sabotage, Totals, preview, run, run_many};

const USAGE: &str = "groundplan-simulate [--previews] [--seed N | --seeds N | --seconds N] [--from N] [--keep-going] [--trace] | [--previews] --sabotage";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut seed, mut seeds, mut seconds, mut from) = (None, None, None, 1);
    let (mut keep_going, mut trace, mut previews, mut sabotaged) = (false, false, false, false);
    while let Some(arg) = args.next() {
        let flag = match arg.as_str() {
            "--keep-going" => Some(&mut keep_going),
            "--sabotage" => Some(&mut sabotaged),
            "--trace" => Some(&mut trace),
            "--previews" => Some(&mut previews),
            _ => None,
        };
        if let Some(flag) = flag {
            *flag = true;
            continue;
        }
        let Some(value) = args.next().and_then(|value| value.parse::<u64>().ok()) else {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        };
        match arg.as_str() {
            "--seed" => seed = Some(value),
            "--seeds" => seeds = Some(value),
            "--seconds" => seconds = Some(Duration::from_secs(value)),
            "--from" => from = value,
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(64);
            }
        }
    }
    let began = Instant::now();
    let enough = |done: u64, began: Instant| match seconds {
        Some(seconds) => began.elapsed() >= seconds,
        None => done >= seeds.unwrap_or(1000),
    };
    match (previews, sabotaged) {
        (true, true) => return omissions(),
        (true, false) => {
            // One seed is a run of one.
            let enough = |done: u64| if seed.is_some() { done >= 1 } else { enough(done, began) };
            return run_previews(seed.unwrap_or(from), enough, keep_going, trace);
        }
        (false, true) => return sabotage(),
        (false, false) => {}
    }
    if let Some(seed) = seed {
        let mut totals = Totals::default();
        let result = run(seed, None, &mut totals);
        totals.took = began.elapsed();
        println!("{totals}");
        if let (Err(failure), true) = (&result, trace) {
            failure.trace.iter().for_each(|line| println!("{line}"));
        }
        return end(result.map_err(|failure| failure.report));
    }
    let (mut all, mut failed) = (Totals::default(), Vec::new());
    while !enough(all.seeds, began) {
        let before = all.seeds;
        let (totals, result) = run_many(from + before, None, |totals| enough(before + totals.seeds, began));
        all.seeds += totals.seeds;
        all.events += totals.events;
        totals.faults.into_iter().for_each(|(fault, n)| *all.faults.entry(fault).or_default() += n);
        totals.counts.into_iter().for_each(|(name, n)| *all.counts.entry(name).or_default() += n);
        if let Err(failure) = result {
            println!("seed {}: {}", failure.seed, failure.invariant);
            failed.push(failure.report);
            if !keep_going {
                break;
            }
        }
    }
    all.took = began.elapsed();
    println!("{all}");
    if failed.is_empty() { end(Ok(())) } else { end(Err(failed.swap_remove(0))) }
}

fn end(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            println!("\n{report}");
            ExitCode::FAILURE
        }
    }
}

/// Compares previews with runs, seed by seed. `trace` prints each preview with its run.
fn run_previews(from: u64, enough: impl Fn(u64) -> bool, keep_going: bool, trace: bool) -> ExitCode {
    let (mut all, mut failed, mut seeds) = (Previewed::default(), Vec::new(), 0);
    while !enough(seeds) {
        let mut print = |text: String| {
            if trace {
                println!("{text}");
            }
        };
        match preview(from + seeds, None, &mut print) {
            Ok(shown) => all.add(&shown),
            Err(failure) => {
                println!("{}", failure.lines().next().unwrap_or_default());
                failed.push(failure);
                if !keep_going {
                    break;
                }
            }
        }
        seeds += 1;
    }
    println!("{seeds} seeds, {} failed: {all:?}", failed.len());
    if failed.is_empty() { end(Ok(())) } else { end(Err(failed.swap_remove(0))) }
}

/// Leaves one thing after the other out of previews and runs, and prints which seed notices.
fn omissions() -> ExitCode {
    for omission in Omission::ALL {
        match (1..=400).find_map(|seed| preview(seed, Some(omission), &mut |_| {}).err()) {
            Some(failure) => println!("{omission:?}: {}", failure.lines().next().unwrap_or_default()),
            None => println!("{omission:?}: unnoticed in 400 seeds"),
        }
    }
    ExitCode::SUCCESS
}

/// Breaks one thing after the other on purpose, and prints which seed notices.
fn sabotage() -> ExitCode {
    for sabotage in Sabotage::ALL {
        let (totals, result) = run_many(sabotage.first_seed(), Some(sabotage), |totals| totals.seeds >= 400);
        let (seeds, events, seconds) = (totals.seeds, totals.events, totals.took.as_secs_f64());
        match result {
            Err(failure) => {
                println!("{sabotage:?}: seed {}, {events} events, {seconds:.1} s: {}", failure.seed, failure.invariant)
            }
            Ok(()) => println!("{sabotage:?}: unnoticed in {seeds} seeds"),
        }
    }
    ExitCode::SUCCESS
}

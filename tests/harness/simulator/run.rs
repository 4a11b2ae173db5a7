//! Running seeds: one or many, with a shortened schedule and a trace for one that fails.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use super::{
    rng::Rng,
    sabotage::Sabotage,
    schedule::{Fault, Op, Profile, WITH_DROPS, WITH_EXCHANGES, WITH_PARKING, WITH_RENAMES, WITH_REPLAYS, schedule},
    world::{Setup, Verdict, Violation, World},
};

/// Lines of the trace that are printed.
const LINES: usize = 70;
/// Runs that shortening a schedule may take.
const SHRINKS: usize = 150;

/// What happened in all worlds together.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Worlds.
    pub seeds: u64,
    /// Things that happened.
    pub events: u64,
    /// What went wrong, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Further numbers, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// How long it took.
    pub took: Duration,
}

/// A seed that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The invariant that did not hold.
    pub invariant: String,
    /// All that a person needs to follow it: the seed, the shortened schedule, the end of the trace.
    pub report: String,
    /// The whole trace.
    pub trace: Vec<String>,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let rate = self.events as f64 / seconds.max(0.001);
        writeln!(f, "{} seeds, {} events in {seconds:.1} s: {rate:.0} events per second", self.seeds, self.events)?;
        let list = |counts: Vec<String>| counts.join(", ");
        writeln!(f, "faults: {}", list(self.faults.iter().map(|(fault, n)| format!("{fault:?} {n}")).collect()))?;
        write!(f, "in them: {}", list(self.counts.iter().map(|(name, n)| format!("{n} {name}")).collect()))
    }
}

/// The profile and the schedule of a seed.
fn setup(seed: u64, sabotage: Option<Sabotage>) -> Setup {
    let mut rng = Rng::new(seed ^ 0x51_0d);
    let rough = rng.chance(70);
    let profile = Profile {
        rough,
        failures: if rough && rng.chance(50) { *rng.pick(&[2, 6, 15]) } else { 0 },
        planners: rough && rng.chance(50),
        renames: seed >= WITH_RENAMES,
        // What changes hands is as in the worlds before; parking is added to that.
        exchanges: seed >= WITH_EXCHANGES,
        parks: seed >= WITH_PARKING,
        replays: (WITH_REPLAYS..WITH_DROPS).contains(&seed),
        drops: seed >= WITH_DROPS,
    };
    Setup { seed, profile, ops: schedule(profile, &mut rng), sabotage, tracing: false }
}

fn verdict(setup: Setup) -> Verdict {
    let seed = setup.seed;
    let caught = catch_unwind(AssertUnwindSafe(|| World::new(setup).run()));
    caught.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let details = format!("seed {seed}: {}", text.unwrap_or("without a message"));
        Verdict { violation: Some(Violation { invariant: "nothing panics", details }), ..Verdict::default() }
    })
}

/// Runs one seed.
///
/// # Errors
/// An invariant did not hold.
pub fn run(seed: u64, sabotage: Option<Sabotage>, totals: &mut Totals) -> Result<(), Box<Failure>> {
    let setup = setup(seed, sabotage);
    let verdict = verdict(setup.clone());
    totals.seeds += 1;
    totals.events += verdict.events;
    for (fault, n) in &verdict.faults {
        *totals.faults.entry(*fault).or_default() += n;
    }
    let counts = verdict.counts;
    for (name, n) in [
        ("commits", counts.commits),
        ("refusals", counts.refused),
        ("plans", counts.plans),
        ("jobs", counts.jobs),
        ("changes", counts.changes),
        ("effects", counts.effects),
        ("needless effects", counts.needless),
        ("failed jobs", counts.failures),
        ("kills", counts.kills),
    ] {
        *totals.counts.entry(name).or_default() += n;
    }
    match verdict.violation {
        None => Ok(()),
        Some(violation) => Err(Box::new(failure(setup, &violation))),
    }
}

/// Runs seeds from `first` on, until `enough` says so.
///
/// # Errors
/// The first seed of which an invariant did not hold.
pub fn run_many(
    first: u64,
    sabotage: Option<Sabotage>,
    mut enough: impl FnMut(&Totals) -> bool,
) -> (Totals, Result<(), Box<Failure>>) {
    let began = Instant::now();
    let mut totals = Totals::default();
    let mut result = Ok(());
    while result.is_ok() && !enough(&totals) {
        result = run(first + totals.seeds, sabotage, &mut totals);
        totals.took = began.elapsed();
    }
    (totals, result)
}

/// The seeds that once failed, with what each showed.
pub fn regressions() -> impl Iterator<Item = (u64, &'static str)> {
    let lines = include_str!("regressions.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (seed, showed) = line.split_once(' ')?;
        Some((seed.parse().ok()?, showed))
    })
}

/// Leaves out operations for as long as the same invariant does not hold without them, and runs the rest with a trace.
fn failure(setup: Setup, violation: &Violation) -> Failure {
    let fails = |ops: &[Op]| {
        let again = verdict(Setup { ops: ops.to_vec(), ..setup.clone() });
        again.violation.is_some_and(|found| found.invariant == violation.invariant)
    };
    let mut ops = setup.ops.clone();
    let (mut size, mut left) = (ops.len().div_ceil(2), SHRINKS);
    while size > 0 && left > 0 {
        let mut at = 0;
        while at < ops.len() && left > 0 {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + size).min(ops.len()));
            left -= 1;
            if fails(&fewer) {
                ops = fewer;
            } else {
                at += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    let traced = verdict(Setup { ops: ops.clone(), tracing: true, ..setup.clone() });
    let violation = traced.violation.as_ref().unwrap_or(violation);
    let mut report = format!("seed {}: {violation}\nprofile: {:?}\n", setup.seed, setup.profile);
    let _ = writeln!(report, "schedule, {} of {} operations:", ops.len(), setup.ops.len());
    for Op { at, fault, .. } in &ops {
        let _ = writeln!(report, "{:9.3} {fault:?}", at.as_secs_f64());
    }
    let skipped = traced.trace.len().saturating_sub(LINES);
    let _ = writeln!(report, "the last {} lines of its trace:", traced.trace.len() - skipped);
    traced.trace.iter().skip(skipped).for_each(|line| {
        let _ = writeln!(report, "{line}");
    });
    let _ = write!(report, "again: tests/run simulate --seed {}", setup.seed);
    Failure { seed: setup.seed, invariant: violation.invariant.to_owned(), report, trace: traced.trace }
}

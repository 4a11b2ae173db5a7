//! Whatever commits a host has lived through, it equals a fresh host at the same commit: a short run with a fixed seed. The long one,
//! which also replays a seed, is `tests/run property`.

use groundplan_tests::{needs_hosts, property::Property};

/// Seeds, and how many commits of each.
const RUNS: [(u64, u32); 1] = [(21, 12)];

#[test]
fn hosts_equal_fresh_ones_whatever_came_before() {
    needs_hosts!();
    for (seed, commits) in RUNS {
        let held = Property { seed, commits, verbose: false, ..Property::default() }.run();
        match held {
            Ok(totals) => println!("seed {seed}: {totals}"),
            Err(report) => panic!("{report}"),
        }
    }
}

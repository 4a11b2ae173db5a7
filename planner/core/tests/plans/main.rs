//! Plans as data: each file of `scenarios/` is a site before and after a change, with the plan that follows.
//!
//! A scenario begins with a comment that says what it shows. Its sections are described in `scenario.rs`. `UPDATE=1` writes what
//! came out into the files, to be reviewed as a diff; `SCENARIO=name` runs those whose name contains it.

mod print;
mod rollout;
mod scenario;
mod world;

use std::{env, fs, path::PathBuf};

use similar::TextDiff;

use self::scenario::Scenario;

#[test]
fn every_scenario_plans_what_it_says() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/plans/scenarios");
    let only = env::var("SCENARIO").unwrap_or_default();
    let update = env::var_os("UPDATE").is_some();
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_string_lossy().contains(&only));
    files.sort();
    assert!(!files.is_empty(), "no scenario is called {only}");
    let mut failures = String::new();
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(file).unwrap();
        let found = run(Scenario::parse(&name, &text));
        if found == text {
            continue;
        }
        if update {
            fs::write(file, &found).unwrap();
        } else {
            let diff = TextDiff::from_lines(&text, &found);
            failures += &format!("{}", diff.unified_diff().header(&format!("{name}: expected"), "found"));
        }
    }
    assert!(failures.is_empty(), "\n{failures}\nUPDATE=1 writes what was found into the files");
}

/// The scenario's text with what came out in the place of what was expected.
fn run(mut scenario: Scenario) -> String {
    let world = world::World::of(&scenario);
    let plan = world.plan();
    world.check(&plan);
    scenario.expect("plan", &print::plan(&plan, &mut world.locator()));
    scenario.expect_if_given("pending", &print::pending(&plan));
    scenario.expect_if_given("waits", &print::waits(&plan));
    scenario.expect_if_given("gates", &print::gates(&plan));
    let mut run = rollout::Run::of(&plan, &world);
    if let Some(script) = scenario.section("rollout") {
        scenario.expect("rollout", &run.play(&script));
    }
    let mut world = world;
    for stage in ["next", "then"] {
        let Some(next) = world.next(&scenario, stage) else { break };
        let plan;
        (plan, run) = run.superseded_by(&next);
        scenario.expect(&format!("{stage} plan"), &print::plan(&plan, &mut next.locator()));
        scenario.expect_if_given(&format!("{stage} waits"), &print::waits(&plan));
        let rollout = format!("{stage} rollout");
        if let Some(script) = scenario.section(&rollout) {
            scenario.expect(&rollout, &run.play(&script));
        }
        world = next;
    }
    scenario.finish()
}

//! Hand-over: a task that goes, one that takes over from it, and whatever happens in between.

use serde_json::{Value, json};

use super::*;

const UNCHANGED: JobOutcome = JobOutcome { changed: false, effect: None };
const CHANGED: JobOutcome = JobOutcome { changed: true, effect: None };

/// A bench on which `old` is applied, with a memory.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.handle(Event::Connected { session_present: false });
    offer(&mut bench, 1, vec![planned("old", Action::Create, 1, &[])]);
    end(&mut bench, "old", Ok(CHANGED), Some(json!("what old found")));
    bench.reported();
    bench
}

/// `old` hands over to `new`.
fn renamed(version: u32) -> Vec<PlannedTask> {
    let new = PlannedTask { from: vec![task("old")], ..planned("new", Action::Create, version, &[]) };
    let old = PlannedTask { into: vec![task("new")], ..planned("old", Action::Remove, 0, &["new"]) };
    vec![new, old]
}

fn end(bench: &mut Bench, name: &str, result: Result<JobOutcome, &str>, memory: Option<Value>) {
    let task = bench.jobs.remove(&task(name)).expect("it runs").task;
    let (result, output, export, found) = (result.map_err(str::to_owned), None, None, Default::default());
    let done = JobDone { task, result, touched: true, output, memory, export, found, started_ms: 0, duration_ms: 0 };
    bench.handle(Event::Finished(Box::new(done)));
    bench.wait(Duration::from_secs(1));
}

fn memory_of(bench: &Bench, name: &str) -> Option<Value> {
    bench.disk.applied.get(&task(name)).and_then(|record| record.memory.clone())
}

#[test]
fn the_successor_remembers_what_its_predecessor_did() {
    let mut bench = bench();
    offer(&mut bench, 2, renamed(1));
    assert_eq!(bench.running(), "new:apply");
    let start = &bench.jobs[&task("new")];
    assert_eq!(start.memory, Some(json!("what old found")));
    assert!(matches!(&start.work, Work::Apply { from, previous: None, .. } if *from == [task("old")]));
    end(&mut bench, "new", Ok(UNCHANGED), None);
    assert_eq!(memory_of(&bench, "new"), Some(json!("what old found")));
    assert!(matches!(&bench.jobs[&task("old")].work, Work::Remove { into, .. } if *into == [task("new")]));
    end(&mut bench, "old", Ok(UNCHANGED), None);
    assert_eq!(bench.disk.applied.keys().collect::<Vec<_>>(), [&task("new")]);
    assert_eq!(bench.reported(), "new@2=unchanged; old@2=unchanged");
}

#[test]
fn the_successor_of_a_successor_that_the_planner_does_not_know_of_remembers_as_well() {
    let mut bench = bench();
    // As `old`, by another name.
    let again = |name: &str, from: &[&str]| {
        let spec = planned("old", Action::Create, 1, &[]).spec;
        let from = from.iter().map(|name| task(name)).collect();
        PlannedTask { spec, from, ..planned(name, Action::Create, 1, &[]) }
    };
    let removed =
        |name: &str, into: &str| PlannedTask { into: vec![task(into)], ..planned(name, Action::Remove, 0, &[into]) };
    offer(&mut bench, 2, vec![again("second", &["old"]), removed("old", "second")]);
    end(&mut bench, "second", Ok(UNCHANGED), None);
    end(&mut bench, "old", Ok(UNCHANGED), None);
    // Made before these two reports came.
    offer(&mut bench, 3, vec![again("third", &["old"]), removed("old", "third")]);
    let start = &bench.jobs[&task("third")];
    assert_eq!(start.memory, Some(json!("what old found")));
    assert!(matches!(&start.work, Work::Apply { from, .. } if *from == [task("second")]));
    // And again after a kill.
    bench.restart();
    bench.handle(Event::Connected { session_present: false });
    assert_eq!(bench.jobs[&task("third")].memory, Some(json!("what old found")));
    end(&mut bench, "third", Ok(UNCHANGED), None);
    offer(&mut bench, 4, vec![PlannedTask { after: Vec::new(), ..removed("second", "third") }]);
    end(&mut bench, "second", Ok(UNCHANGED), None);
    assert_eq!(memory_of(&bench, "third"), Some(json!("what old found")));
}

#[test]
fn nothing_is_removed_for_an_heir_that_is_not_there() {
    // The planner takes `new` to be applied, because a report is on its way.
    let mut bench = bench();
    let old = || PlannedTask { into: vec![task("new")], ..planned("old", Action::Remove, 0, &[]) };
    offer(&mut bench, 2, vec![old()]);
    assert_eq!(bench.running(), "");
    assert_eq!(bench.reported(), "old@2=blocked by s.new");
    assert!(bench.disk.applied.contains_key(&task("old")));

    // And here it was, but a removal for the plan before is under way.
    offer(&mut bench, 3, vec![planned("new", Action::Create, 1, &[])]);
    end(&mut bench, "new", Ok(UNCHANGED), None);
    offer(&mut bench, 4, vec![planned("new", Action::Remove, 0, &[])]);
    assert_eq!(bench.running(), "new:remove");
    bench.reported();
    offer(&mut bench, 5, vec![old()]);
    assert_eq!(bench.running(), "new:remove");
    end(&mut bench, "new", Ok(CHANGED), None);
    assert_eq!(bench.running(), "");
    assert_eq!(bench.reported(), "new@4=changed; old@5=blocked by s.new");
}

#[test]
fn after_a_failure_nothing_is_removed_and_the_next_plan_takes_over() {
    let mut bench = bench();
    offer(&mut bench, 2, renamed(2));
    end(&mut bench, "new", Err("no"), None);
    assert_eq!(bench.running(), "", "the removal waits for its heir");
    assert!(bench.reported().starts_with("new@2=failed: no; old@2=blocked"));
    offer(&mut bench, 3, renamed(1));
    assert_eq!(bench.jobs[&task("new")].memory, Some(json!("what old found")));
    end(&mut bench, "new", Ok(CHANGED), Some(json!("more")));
    end(&mut bench, "old", Ok(UNCHANGED), None);
    assert_eq!(memory_of(&bench, "new"), Some(json!("more")));
}

#[test]
fn killed_in_between_it_takes_over_all_the_same() {
    let mut bench = bench();
    offer(&mut bench, 2, renamed(1));
    bench.restart();
    assert_eq!(bench.jobs[&task("new")].memory, Some(json!("what old found")));
    end(&mut bench, "new", Ok(UNCHANGED), None);
    bench.restart();
    assert_eq!((bench.running(), memory_of(&bench, "new")), ("old:remove".to_owned(), Some(json!("what old found"))));
    end(&mut bench, "old", Ok(UNCHANGED), None);
    assert_eq!(bench.disk.applied.len(), 1);
}

#[test]
fn a_restart_that_became_due_meanwhile_is_due_to_the_successor() {
    let mut bench = Bench::new();
    bench.handle(Event::Connected { session_present: false });
    let process = |name: &str, action| {
        let params = r#"{"systemd":{"unit":"a.service"}}"#;
        let fingerprint = Some(Fingerprint(Digest::of(b"unit")));
        PlannedTask { spec: Some(spec(params)), fingerprint, ..planned(name, action, 1, &[]) }
    };
    offer(&mut bench, 1, vec![planned("config", Action::Create, 1, &[]), process("old", Action::Create)]);
    end(&mut bench, "config", Ok(CHANGED), None);
    end(&mut bench, "old", Ok(CHANGED), None);
    // A change that calls for a restart of `old`, which waits for a gate; then both are renamed in a plan that does not know of it.
    let trigger = Trigger { effect: effect::Effect::Restart, on: TriggerSource::Task(task("config")) };
    let waits = PlannedTask {
        triggers: vec![trigger],
        gates: vec![gate("later")],
        after: vec![task("config")],
        ..process("old", Action::Restart)
    };
    offer(&mut bench, 2, vec![planned("config", Action::Update, 2, &[]), waits]);
    end(&mut bench, "config", Ok(CHANGED), None);
    let new = PlannedTask { from: vec![task("old")], ..process("new", Action::Create) };
    let old = PlannedTask { into: vec![task("new")], ..planned("old", Action::Remove, 0, &["new"]) };
    offer(&mut bench, 3, vec![new, old]);
    assert_eq!(bench.running(), "new:apply+restart");
}

#[test]
fn it_waits_for_a_job_of_its_predecessor_that_still_runs() {
    let mut bench = bench();
    offer(&mut bench, 2, vec![planned("old", Action::Update, 2, &[])]);
    offer(&mut bench, 3, renamed(2));
    assert_eq!(bench.running(), "old:apply");
    end(&mut bench, "old", Ok(CHANGED), Some(json!("more")));
    assert_eq!(bench.running(), "new:apply");
    assert_eq!(bench.jobs[&task("new")].memory, Some(json!("more")));
}

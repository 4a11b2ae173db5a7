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
fn a_successor_that_is_killed_while_a_newer_plan_withdraws_both_remembers() {
    let mut bench = bench();
    // As `old`, by another name: both have the same.
    let spec = planned("old", Action::Create, 1, &[]).spec;
    let new = PlannedTask { spec, from: vec![task("old")], ..planned("new", Action::Create, 1, &[]) };
    let old = PlannedTask { into: vec![task("new")], ..planned("old", Action::Remove, 0, &["new"]) };
    offer(&mut bench, 2, vec![new, old]);
    assert_eq!(bench.running(), "new:apply");
    // Made without a report of `new`, which still runs; and then the agent is killed.
    let removed = |name: &str| planned(name, Action::Remove, 0, &[]);
    offer(&mut bench, 3, vec![removed("old")]);
    kill(&mut bench);
    assert_eq!(memory_of(&bench, "new"), Some(json!("what old found")));
    offer(&mut bench, 4, vec![removed("old"), removed("new")]);
    assert_eq!(bench.running(), "new:remove old:remove");
    assert_eq!(bench.jobs[&task("new")].memory, Some(json!("what old found")), "it removes what is there");
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
fn what_a_failed_successor_changed_is_its_own_to_give_back() {
    let mut bench = bench();
    let mut plan = renamed(2);
    plan[0].spec = planned("old", Action::Create, 2, &[]).spec;
    offer(&mut bench, 2, plan);
    end(&mut bench, "new", Err("no"), None);
    // Withdrawn, both of them: what is there is as the successor made it, although its predecessor still has the record.
    offer(&mut bench, 3, vec![planned("new", Action::Remove, 0, &[]), planned("old", Action::Remove, 0, &["new"])]);
    assert_eq!(bench.jobs[&task("new")].yielding, [task("old")]);
    end(&mut bench, "new", Ok(CHANGED), None);
    assert_eq!(bench.jobs[&task("old")].yielding, []);
}

/// `old` as an update makes it, about something else than it is.
fn moved() -> PlannedTask {
    let spec = planned("elsewhere", Action::Update, 1, &[]).spec;
    PlannedTask { spec, ..planned("old", Action::Update, 2, &[]) }
}

/// What the job of `old` is to do away with besides what it updates, with what was noted of that.
fn earlier(bench: &Bench) -> Vec<(&'static str, Option<Value>)> {
    let name = |params: &TaskParams| match planned("elsewhere", Action::Update, 1, &[]).spec {
        Some(spec) if spec.params == *params => "elsewhere",
        _ => "old",
    };
    let earlier = bench.jobs[&task("old")].earlier.iter();
    earlier.map(|earlier| (name(&earlier.params), earlier.memory.clone())).collect()
}

#[test]
fn what_a_failed_update_made_elsewhere_is_the_tasks_until_it_is_gone() {
    let mut bench = bench();
    offer(&mut bench, 2, vec![moved()]);
    let start = &bench.jobs[&task("old")];
    assert_eq!((&start.memory, start.earlier.len()), (&Some(json!("what old found")), 0));
    end(&mut bench, "old", Err("no"), Some(json!("found elsewhere")));
    // Each of the two keeps what was found of it.
    assert_eq!(memory_of(&bench, "old"), Some(json!("what old found")));
    // Tried again, the job is about the new, and does away with the old.
    offer(&mut bench, 3, vec![moved()]);
    let start = &bench.jobs[&task("old")];
    assert!(matches!(&start.work, Work::Apply { previous: None, .. }));
    assert_eq!(start.memory, Some(json!("found elsewhere")));
    assert_eq!(earlier(&bench), [("old", Some(json!("what old found")))]);
    end(&mut bench, "old", Err("no"), None);
    // Reverted, it is the other way round.
    offer(&mut bench, 4, vec![planned("old", Action::Update, 1, &[])]);
    let start = &bench.jobs[&task("old")];
    assert!(matches!(&start.work, Work::Apply { previous: Some(_), .. }));
    assert_eq!(start.memory, Some(json!("what old found")));
    assert_eq!(earlier(&bench), [("elsewhere", Some(json!("found elsewhere")))]);
    end(&mut bench, "old", Ok(CHANGED), None);
    assert!(bench.disk.takings.is_empty());
    assert_eq!(memory_of(&bench, "old"), Some(json!("what old found")));
}

#[test]
fn what_a_killed_update_made_elsewhere_is_removed_with_the_task() {
    let mut bench = bench();
    offer(&mut bench, 2, vec![moved()]);
    let params = moved().spec.expect("a spec").params;
    bench.disk.noted = vec![found::memory_note(&task("old"), &params, &json!("found elsewhere"))];
    bench.restart();
    bench.handle(Event::Connected { session_present: false });
    assert_eq!(bench.jobs[&task("old")].memory, Some(json!("found elsewhere")));
    bench.restart();
    // A commit withdraws it before it is tried again.
    bench.handle(Event::Connected { session_present: false });
    end(&mut bench, "old", Err("no"), None);
    offer(&mut bench, 3, vec![planned("old", Action::Remove, 0, &[])]);
    assert_eq!(bench.jobs[&task("old")].memory, Some(json!("what old found")));
    assert_eq!(earlier(&bench), [("elsewhere", Some(json!("found elsewhere")))]);
    end(&mut bench, "old", Ok(CHANGED), None);
    assert!(bench.disk.takings.is_empty() && bench.disk.applied.is_empty());
}

#[test]
fn an_update_that_failed_before_it_changed_anything_leaves_nothing_elsewhere() {
    let mut bench = bench();
    offer(&mut bench, 2, vec![moved()]);
    let started = bench.jobs.remove(&task("old")).expect("it runs").task;
    let (result, found) = (Err("no".to_owned()), Default::default());
    let (output, memory, export) = (None, None, None);
    let done =
        JobDone { task: started, result, touched: false, output, memory, export, found, started_ms: 0, duration_ms: 0 };
    bench.handle(Event::Finished(Box::new(done)));
    bench.wait(Duration::from_secs(1));
    assert!(bench.disk.takings.is_empty());
    offer(&mut bench, 3, vec![planned("old", Action::Update, 1, &[])]);
    assert_eq!(earlier(&bench), []);
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

/// `name` with a link at this path.
fn at(name: &str, action: Action, path: &str) -> PlannedTask {
    let fingerprint = Some(Fingerprint(Digest::of(path.as_bytes())));
    let spec = Some(spec(&format!(r#"{{"link":{{"path":"{path}","target":"t"}}}}"#)));
    PlannedTask { spec, fingerprint, ..planned(name, action, 1, &[]) }
}

/// A bench on which `a` and `b` are applied at `/a` and `/b`, each with a memory.
fn two() -> Bench {
    let mut bench = Bench::new();
    bench.handle(Event::Connected { session_present: false });
    offer(&mut bench, 1, vec![at("a", Action::Create, "/a"), at("b", Action::Create, "/b")]);
    end(&mut bench, "a", Ok(CHANGED), Some(json!({"of": "/a"})));
    end(&mut bench, "b", Ok(CHANGED), Some(json!({"of": "/b"})));
    bench.reported();
    bench
}

/// What a job is about, what it remembers of that, and what else its task claims, with what is remembered of it.
fn about(bench: &Bench, name: &str) -> String {
    let path = |params: &TaskParams| params.subject(&task(name))[0].to_string().replace('`', "");
    let of = |memory: &Value| memory["of"].as_str().unwrap().to_owned();
    let memory = |memory: &Option<Value>| memory.as_ref().map_or("-".to_owned(), of);
    let start = &bench.jobs[&task(name)];
    let (what, spec, previous, parties) = match &start.work {
        Work::Apply { spec, previous, from } => ("apply", spec, previous.as_ref(), from),
        Work::Remove { spec, into } => ("remove", spec, None, into),
        other => panic!("{other:?}"),
    };
    let mut text = format!("{what} {} {}", path(&spec.params), memory(&start.memory));
    text.extend(previous.map(|previous| format!(", previous {}", path(&previous.params))));
    text.extend(start.earlier.iter().map(|e| format!(", earlier {} {}", path(&e.params), memory(&e.memory))));
    text.extend(parties.iter().map(|task| format!(", with {task}")));
    text
}

#[test]
fn two_tasks_exchange_what_they_own() {
    let exchange = || vec![at("a", Action::Update, "/b"), at("b", Action::Update, "/a")];
    for killed in [false, true] {
        let mut bench = two();
        offer(&mut bench, 2, exchange());
        let promised: Vec<_> =
            bench.promised.iter().map(|promise| (promise.task.to_string(), promise.params.clone())).collect();
        let params = |path: &str| at("a", Action::Create, path).spec.unwrap().params;
        assert_eq!(promised, [("s.a".to_owned(), params("/b")), ("s.b".to_owned(), params("/a"))], "before any job");
        if killed {
            kill(&mut bench);
            assert_eq!(bench.promised.len(), 2, "of the new process as well");
        }
        assert_eq!(about(&bench, "a"), "apply /b /b, earlier /a /a, with s.b");
        assert_eq!(about(&bench, "b"), "apply /a /a, earlier /b /b, with s.a");
        end(&mut bench, "a", Ok(UNCHANGED), None);
        if killed {
            kill(&mut bench);
            assert_eq!(about(&bench, "b"), "apply /a /a, earlier /b /b, with s.a");
        }
        end(&mut bench, "b", Ok(UNCHANGED), None);
        let memories = ["a", "b"].map(|name| memory_of(&bench, name).unwrap());
        assert_eq!(memories, [json!({"of": "/b"}), json!({"of": "/a"})]);
        assert!(bench.disk.takings.is_empty());
        let state = bench.machine.node_state();
        assert!(state.applied.values().all(|applied| applied.inputs.is_empty()), "{state:?}");
    }
}

#[test]
fn a_new_task_takes_over_what_an_update_gives_up() {
    let mut bench = two();
    let new = || at("new", Action::Create, "/a");
    offer(&mut bench, 2, vec![at("a", Action::Update, "/c"), PlannedTask { gates: vec![gate("g")], ..new() }]);
    assert_eq!(about(&bench, "a"), "apply /c /a, previous /a, with s.new");
    end(&mut bench, "a", Ok(CHANGED), Some(json!({"of": "/c"})));
    // Not carried out yet, it is there for the planner all the same: as something to be applied, or to be removed.
    let state = bench.machine.node_state();
    assert!(state.applied[&task("new")].inputs.contains_key(groundplan_protocol::state::UNFINISHED));
    kill(&mut bench);
    bench.handle(Event::Gates(gates(bench.plan(), 2, &[("g", false)])));
    assert_eq!(about(&bench, "new"), "apply /a /a, with s.a");
    end(&mut bench, "new", Ok(UNCHANGED), None);
    assert!(bench.reported().ends_with("new@2=unchanged"), "what changes hands is no change");
    assert_eq!(memory_of(&bench, "new"), Some(json!({"of": "/a"})));
    assert_eq!(memory_of(&bench, "a"), Some(json!({"of": "/c"})));
}

#[test]
fn what_was_to_be_taken_over_is_removed_with_its_heir() {
    let mut bench = two();
    let new = PlannedTask { gates: vec![gate("never")], ..at("new", Action::Create, "/a") };
    offer(&mut bench, 2, vec![at("a", Action::Update, "/c"), new]);
    end(&mut bench, "a", Ok(CHANGED), None);
    offer(&mut bench, 3, vec![planned("new", Action::Remove, 0, &[])]);
    assert_eq!(about(&bench, "new"), "remove /a /a, with s.a");
    end(&mut bench, "new", Ok(CHANGED), None);
    assert!(bench.disk.takings.is_empty() && !bench.disk.applied.contains_key(&task("new")));
    assert!(!bench.machine.node_state().applied.contains_key(&task("new")));

    // The same with a task that had something before, and fails.
    let mut bench = two();
    offer(&mut bench, 2, vec![at("a", Action::Update, "/c"), at("b", Action::Update, "/a")]);
    end(&mut bench, "a", Ok(CHANGED), None);
    end(&mut bench, "b", Err("no"), Some(json!({"of": "/a, more"})));
    offer(&mut bench, 3, vec![planned("b", Action::Remove, 0, &[])]);
    assert_eq!(about(&bench, "b"), "remove /b /b, earlier /a /a, more, with s.a");
    end(&mut bench, "b", Ok(CHANGED), None);
    assert!(bench.disk.takings.is_empty());

    // And one that goes back to what it was.
    let mut bench = two();
    offer(&mut bench, 2, vec![at("a", Action::Update, "/c"), at("b", Action::Update, "/a")]);
    end(&mut bench, "a", Ok(CHANGED), None);
    end(&mut bench, "b", Err("no"), None);
    offer(&mut bench, 3, vec![at("b", Action::Update, "/b")]);
    assert_eq!(about(&bench, "b"), "apply /b /b, previous /b, earlier /a /a, with s.a");
    end(&mut bench, "b", Ok(CHANGED), None);
    assert!(bench.disk.takings.is_empty());
}

#[test]
fn a_job_of_an_older_plan_hands_over_what_it_notes() {
    let mut bench = two();
    let again = PlannedTask { fingerprint: Some(Fingerprint(Digest::of(b"other"))), ..at("a", Action::Update, "/a") };
    offer(&mut bench, 2, vec![again]);
    offer(&mut bench, 3, vec![at("a", Action::Update, "/c"), at("new", Action::Create, "/a")]);
    end(&mut bench, "a", Ok(CHANGED), Some(json!({"of": "/a, more"})));
    assert_eq!(about(&bench, "new"), "apply /a /a, more, with s.a");
}

#[test]
fn what_another_task_has_changed_is_not_as_it_was_applied() {
    // By a removal, and by an update: what takes over changes the thing, and a revert comes before what gives it up is carried out.
    let renamed = || vec![PlannedTask { from: vec![task("a")], ..at("new", Action::Create, "/a") }];
    let given = || {
        vec![at("new", Action::Create, "/a"), PlannedTask { gates: vec![gate("g")], ..at("a", Action::Update, "/c") }]
    };
    for killed in [false, true] {
        for plan in [renamed(), given()] {
            let mut bench = two();
            let before = bench.machine.node_state().applied[&task("a")].fingerprint;
            offer(&mut bench, 2, plan);
            if killed {
                kill(&mut bench);
            } else {
                end(&mut bench, "new", Ok(CHANGED), None);
            }
            let after = bench.machine.node_state().applied[&task("a")].fingerprint;
            assert_ne!(after, before, "it is to be applied again if it is to be as it was");
        }
    }
    // What only changes hands is as it was.
    let mut bench = two();
    let before = bench.machine.node_state().applied[&task("a")].fingerprint;
    offer(&mut bench, 2, renamed());
    end(&mut bench, "new", Ok(UNCHANGED), None);
    assert_eq!(bench.machine.node_state().applied[&task("a")].fingerprint, before);
}

#[test]
fn what_a_run_for_an_earlier_plan_has_taken_over_is_remembered() {
    // The next plan says the same, but was made by a planner that takes the first one for superseded.
    let mut bench = two();
    let renamed = || vec![at("new", Action::Create, "/a"), planned("a", Action::Remove, 0, &["new"])];
    offer(&mut bench, 2, renamed());
    offer(&mut bench, 3, renamed());
    end(&mut bench, "new", Ok(UNCHANGED), None);
    end(&mut bench, "a", Ok(UNCHANGED), None);
    assert_eq!(bench.running(), "");
    assert_eq!(memory_of(&bench, "new"), Some(json!({"of": "/a"})));
    assert!(bench.disk.takings.is_empty());

    // And so where the first plan knew nothing of it, or the job noted something of its own.
    for noted in [None, Some(json!({"of": "/a, more"}))] {
        let mut bench = two();
        offer(&mut bench, 2, vec![at("new", Action::Create, "/a")]);
        offer(&mut bench, 3, vec![at("new", Action::Create, "/a"), at("a", Action::Update, "/c")]);
        end(&mut bench, "new", Ok(UNCHANGED), noted.clone());
        end(&mut bench, "a", Ok(UNCHANGED), None);
        assert_eq!(memory_of(&bench, "new"), Some(noted.unwrap_or(json!({"of": "/a"}))));
        assert!(bench.disk.takings.is_empty());
    }
}

#[test]
fn a_task_that_had_something_else_takes_over_from_one_that_goes() {
    let mut bench = two();
    let taking = PlannedTask { from: vec![task("a")], ..at("b", Action::Update, "/a") };
    offer(
        &mut bench,
        2,
        vec![taking, PlannedTask { into: vec![task("b")], ..planned("a", Action::Remove, 0, &["b"]) }],
    );
    assert_eq!(about(&bench, "b"), "apply /a /a, earlier /b /b, with s.a");
    end(&mut bench, "b", Ok(CHANGED), None);
    assert_eq!(memory_of(&bench, "b"), Some(json!({"of": "/a"})));
}

//! Scenarios: sequences of events, and what the machine does.

use groundplan_protocol::{
    blob::{BlobRef, Content},
    effect::Effect as Fire,
    plan::OnInterrupt,
    report::{Ack, Output},
    state::Phase,
};

use super::*;
use crate::machine::SYNCED;

#[test]
fn a_change_restarts_only_the_tasks_it_triggers() {
    let mut bench = applied(&["a", "b", "c"]);
    let plan = || {
        vec![
            planned("a", Action::Update, 2, &[]),
            restarted("b", Action::Restart, 1, &["a"]),
            restarted("c", Action::Restart, 1, &["b"]),
        ]
    };
    offer(&mut bench, 2, plan());
    assert_eq!(bench.running(), "a:apply");
    bench.finish("a", CHANGED);
    assert_eq!(bench.running(), "b:only+restart");
    bench.finish("b", RESTARTED);
    bench.finish("c", RESTARTED);
    assert_eq!(bench.reported(), "a@2=changed; b@2=restarted; c@2=restarted");
    offer(&mut bench, 3, plan());
    bench.finish("a", UNCHANGED);
    assert_eq!(bench.reported(), "a@3=unchanged; b@3=not needed; c@3=not needed", "early cutoff");
    assert_eq!(bench.machine.phase(), Phase::Idle);
    assert!(bench.disk.obligations.is_empty());
}

#[test]
fn a_failure_blocks_later_tasks_and_keeps_the_restart() {
    let mut bench = applied(&["b"]);
    let plan = || {
        vec![
            planned("a", Action::Create, 1, &[]),
            restarted("b", Action::Restart, 1, &["a"]),
            planned("c", Action::Create, 1, &["b"]),
            planned("d", Action::Create, 1, &[]),
        ]
    };
    offer(&mut bench, 2, plan());
    bench.finish("a", Err("no space"));
    bench.finish("d", CHANGED);
    assert_eq!(bench.reported(), "a@2=failed: no space; b@2=blocked by s.a; c@2=blocked by s.b; d@2=changed");
    offer(&mut bench, 3, plan());
    // The first attempt may have done it already: "unchanged" does not count.
    bench.finish("a", UNCHANGED);
    assert_eq!(bench.running(), "b:only+restart d:apply");
    bench.finish("b", Err("does not come up"));
    bench.finish("d", UNCHANGED);
    bench.reported();
    assert!(bench.states.last().unwrap().obligations[&task("b")].fired);
    // A newer plan without the task.
    offer(&mut bench, 4, Vec::new());
    assert_eq!(bench.running(), "b:only+restart");
    bench.finish("b", RESTARTED);
    assert_eq!(bench.reported(), "b@4=restarted");
    offer(&mut bench, 5, Vec::new());
    assert_eq!(bench.running(), "", "once");
}

#[test]
fn a_kill_between_change_and_record_loses_no_restart() {
    for power_loss in [false, true] {
        let mut bench = applied(&["a", "b"]);
        offer(&mut bench, 2, vec![planned("a", Action::Update, 2, &[]), restarted("b", Action::Restart, 1, &["a"])]);
        assert_eq!(bench.disk.started.len(), 1);
        if power_loss {
            bench.boot = "another".to_owned();
            bench.disk.started.clear();
        }
        kill(&mut bench);
        assert_eq!(bench.running(), "a:apply");
        let applied = bench.states.last().unwrap().applied[&task("a")].clone();
        assert!(![1, 2].map(|v| versioned(v).1).contains(&applied.fingerprint), "what is in place is unknown");
        bench.finish("a", UNCHANGED);
        assert_eq!(bench.running(), "b:only+restart");
        // Once more before the end of `a` is persisted, and once after it.
        kill(&mut bench);
        assert_eq!(bench.running(), "a:apply");
        bench.finish("a", UNCHANGED);
        bench.wait(Duration::from_millis(40));
        kill(&mut bench);
        assert_eq!(bench.running(), "b:only+restart");
        bench.finish("b", RESTARTED);
        assert_eq!(bench.reported(), "a@2=changed; b@2=restarted");
        kill(&mut bench);
        assert_eq!(bench.running(), "");
    }
}

#[test]
fn an_interrupted_command_follows_its_policy() {
    for (policy, running, word) in [
        (OnInterrupt::Rerun, "a:apply", "a@1=interrupted"),
        (OnInterrupt::Fail, "", "a@1=interrupted; b@1=blocked by s.a"),
    ] {
        let mut bench = bench();
        let mut command = planned("a", Action::Create, 1, &[]);
        let spec = spec(r#"{"command":{"run":"true"}}"#);
        command.spec = Some(TaskSpec { on_interrupt: policy, ..spec });
        offer(&mut bench, 1, vec![command, planned("b", Action::Create, 1, &["a"])]);
        kill(&mut bench);
        assert_eq!((bench.running().as_str(), bench.reported().as_str()), (running, word));
        kill(&mut bench);
        assert!(!bench.reported().contains("b@"), "reported once");
    }
}

#[test]
fn a_synced_journal_is_trusted_in_another_boot() {
    for (synced, word) in [(true, ""), (false, "a@1=interrupted")] {
        let mut bench = bench();
        let mut command = planned("a", Action::Create, 1, &[]);
        let spec = spec(r#"{"command":{"run":"true"}}"#);
        command.spec = Some(TaskSpec { on_interrupt: OnInterrupt::Fail, ..spec });
        offer(&mut bench, 1, vec![command]);
        // The task waited, and was withdrawn from the journal when the host went down.
        bench.disk.started.clear();
        bench.boot = "another".to_owned();
        if synced {
            bench.disk.boot = Some(SYNCED.to_owned());
        }
        kill(&mut bench);
        assert_eq!((bench.running().as_str(), bench.reported().as_str()), (if synced { "a:apply" } else { "" }, word));
    }
}

#[test]
fn gates_delay_and_fire_even_if_they_come_before_their_plan() {
    let gated = |fired| {
        let mut bench = applied(&["a"]);
        let mut waits = restarted("a", Action::Restart, 1, &[]);
        waits.gates.push(gate("db.start"));
        waits.triggers.push(Trigger { effect: Fire::Restart, on: TriggerSource::Gate(gate("db.start")) });
        let plan = node_plan(2, vec![waits.clone()]);
        let id = PlanText::of(&plan).id();
        bench.handle(Event::Gates(gates(id, 2, &[("db.start", fired)])));
        bench.offer(&plan);
        let early = bench.running();
        bench.reported();
        offer(&mut bench, 3, vec![PlannedTask { inputs: [("x".to_owned(), String::new())].into(), ..waits }]);
        bench.handle(Event::Gates(gates(id, 2, &[("db.start", true)])));
        // Of another planner, which has used the same generation.
        bench.handle(Event::Gates(gates(id, 3, &[("db.start", true)])));
        (bench, early)
    };
    let (mut bench, early) = gated(false);
    assert_eq!(
        (early.as_str(), bench.running().as_str()),
        ("", ""),
        "not fired; and the gates of another generation, or of another plan of the same, mean nothing"
    );
    let obligation = bench.machine.node_state().obligations[&task("a")].clone();
    assert_eq!((obligation.fired, obligation.open), (false, vec![TriggerSource::Gate(gate("db.start"))]));
    bench.handle(Event::Gates(gates(bench.plan(), 3, &[("db.start", true)])));
    assert_eq!(bench.running(), "a:only+restart");
    let (bench, early) = gated(true);
    assert_eq!((early.as_str(), bench.running().as_str()), ("a:only+restart", "a:only+restart"));
}

#[test]
fn running_tasks_continue_under_a_newer_plan() {
    let mut bench = applied(&["c"]);
    let first = vec![
        planned("a", Action::Create, 1, &[]),
        planned("b", Action::Create, 1, &["a"]),
        restarted("c", Action::Restart, 1, &["a"]),
    ];
    offer(&mut bench, 2, first);
    offer(&mut bench, 3, vec![planned("a", Action::Create, 1, &[]), planned("d", Action::Create, 1, &["a"])]);
    assert_eq!(bench.running(), "a:apply", "a running task is neither killed nor started twice");
    bench.finish("a", CHANGED);
    // `c` is not in the newer plan, but the task that triggers it has changed.
    assert_eq!(bench.running(), "c:only+restart d:apply");
    bench.finish("c", RESTARTED);
    bench.finish("d", CHANGED);
    bench.wait(Duration::from_millis(50));
    let reported = bench.reported();
    assert_eq!(reported, "b@2=superseded; c@2=superseded; a@2=changed; a@3=changed; c@3=restarted; d@3=changed");
}

#[test]
fn tasks_start_after_all_blobs_are_fetched() {
    let mut bench = bench();
    let mut large = planned("b", Action::Create, 1, &[]);
    let blob = BlobRef { sha256: Digest::of(b"x"), size: 900 };
    large.spec.as_mut().unwrap().content = Some(Content::Blob(blob.clone()));
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[]), large]);
    assert_eq!((bench.machine.phase(), bench.running().as_str()), (Phase::Fetching, ""));
    bench.handle(Event::BlobFailed { blob: blob.sha256, reason: "no answer".to_owned() });
    bench.wait(Duration::from_secs(2));
    assert!(bench.states.last().unwrap().refused.as_ref().unwrap().reason.contains("no answer"));
    kill(&mut bench);
    assert_eq!(bench.fetched, [blob.sha256; 2]);
    bench.handle(Event::BlobReady(blob.sha256));
    assert_eq!(bench.running(), "a:apply b:apply");
    let Work::Apply { spec, .. } = &bench.jobs[&task("b")].work else { panic!("{:?}", bench.jobs) };
    assert_eq!(spec.content, Some(Content::Blob(blob)));
}

#[test]
fn the_ledger_keeps_digests_and_effects_fetch_nothing() {
    let mut bench = bench();
    let shipped = |bytes: &[u8]| Some(Content::of(bytes));
    let mut a = planned("a", Action::Create, 1, &[]);
    let mut b = restarted("b", Action::Create, 1, &["a"]);
    a.spec.as_mut().unwrap().content = shipped(b"one");
    b.spec.as_mut().unwrap().content = shipped(b"two");
    offer(&mut bench, 1, vec![a, b]);
    bench.finish("a", CHANGED);
    bench.finish("b", RESTARTED);
    let named = |bench: &Bench, name: &str| bench.disk.applied[&task(name)].spec.content.clone();
    assert_eq!(named(&bench, "a"), Some(Content::Blob(BlobRef::of(b"one"))));
    assert_eq!(named(&bench, "b"), Some(Content::Blob(BlobRef::of(b"two"))));

    // `b` has an obligation that the next plan does not contain.
    let mut a = planned("a", Action::Update, 2, &[]);
    a.spec.as_mut().unwrap().content = shipped(b"three");
    offer(&mut bench, 2, vec![a, restarted("b", Action::Restart, 1, &["a"])]);
    bench.finish("a", CHANGED);
    bench.finish("b", Err("no"));
    offer(&mut bench, 3, vec![planned("c", Action::Create, 1, &[])]);
    kill(&mut bench);
    assert_eq!(bench.running(), "b:only+restart c:apply");
    assert!(bench.fetched.is_empty(), "{:?}", bench.fetched);
    bench.finish("b", RESTARTED);
    assert_eq!(named(&bench, "a"), Some(Content::Blob(BlobRef::of(b"three"))));
    assert_eq!(named(&bench, "b"), Some(Content::Blob(BlobRef::of(b"two"))));
}

#[test]
fn reports_are_grouped_and_repeated_until_acknowledged() {
    let mut bench = bench();
    let tasks: Vec<_> = (0..6).map(|n| planned(&format!("t{n}"), Action::Create, 1, &[])).collect();
    offer(&mut bench, 1, tasks);
    assert_eq!(bench.jobs.len(), 3, "no more than may run at a time");
    for n in 0..3 {
        bench.finish(&format!("t{n}"), CHANGED);
    }
    assert_eq!(bench.disk.sequence, Sequence(0), "others run: no transaction for each");
    bench.wait(Duration::from_millis(40));
    assert_eq!((bench.disk.sequence, bench.sent), (Sequence(3), Sequence(3)));
    for n in 3..6 {
        bench.finish(&format!("t{n}"), CHANGED);
    }
    assert_eq!(bench.sent, Sequence(6), "nothing else runs: at once");
    let ack = |bench: &Bench, ledger: &LedgerId, to| Ack {
        version: VERSION,
        site: SiteName::new("site").unwrap(),
        node: bench.machine.node_state().node,
        ledger: ledger.clone(),
        sequence: Sequence(to),
    };
    let (ours, other) = (bench.disk.ledger.clone(), LedgerId::new("f".repeat(32)).unwrap());
    for (ledger, to, acked) in [(&ours, 2, 2), (&other, 5, 2), (&ours, 1, 2), (&ours, 99, 2), (&ours, 4, 4)] {
        let ack = ack(&bench, ledger, to);
        bench.handle(Event::Ack(ack));
        assert_eq!(bench.disk.acked, Sequence(acked));
    }
    bench.sent = Sequence(4);
    bench.wait(Duration::from_secs(6));
    assert_eq!(bench.sent, Sequence(6), "again, without an acknowledgement");
    bench.sent = Sequence(4);
    kill(&mut bench);
    assert_eq!(bench.sent, Sequence(6), "and after a restart");
}

#[test]
fn a_clean_stop_waits_for_running_tasks() {
    let mut bench = bench();
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[]), planned("b", Action::Create, 1, &["a"])]);
    bench.handle(Event::Stop);
    bench.finish("a", CHANGED);
    assert_eq!((bench.running().as_str(), bench.reported().as_str()), ("", "a@1=changed"));
    assert!(bench.disk.started.is_empty(), "nothing is in doubt");
    offer(&mut bench, 2, Vec::new());
    assert_eq!(bench.disk.plan.as_ref().unwrap().generation, Generation(1), "the next agent will accept it");
    kill(&mut bench);
    assert_eq!(bench.running(), "b:apply");
}

#[test]
fn a_state_that_became_due_without_a_connection_is_published_on_the_next() {
    let mut bench = bench();
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[])]);
    bench.handle(Event::Disconnected);
    bench.finish("a", CHANGED);
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.machine.deadline(), None, "nothing is due until there is a connection");
    assert_eq!(bench.states.last().unwrap().phase, Phase::Running);
    bench.handle(Event::Connected { session_present: true });
    let state = bench.states.last().unwrap();
    assert_eq!((state.phase, state.sequence), (Phase::Idle, Sequence(1)));
}

#[test]
fn facts_are_reported_when_they_change() {
    let facts = |cpus: u32| Event::Facts([("cpus".to_owned(), cpus.into())].into());
    let mut bench = bench();
    assert!(bench.states.last().unwrap().facts.is_empty(), "not read yet");
    bench.handle(facts(2));
    assert_eq!(bench.states.last().unwrap().facts["cpus"], 2, "the first ones at once");
    bench.wait(Duration::from_secs(5));
    let count = bench.states.len();
    bench.handle(facts(2));
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.states.len(), count, "unchanged facts are not reported again");
    bench.handle(facts(4));
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.states.last().unwrap().facts["cpus"], 4);
}

#[test]
fn what_a_run_for_the_plan_before_printed_is_in_the_report_for_the_newer_plan() {
    let mut bench = bench();
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[])]);
    offer(&mut bench, 2, vec![planned("a", Action::Create, 1, &[])]);
    let start = bench.jobs.remove(&task("a")).unwrap();
    let output = Some(Output { head: "done".to_owned(), ..Output::default() });
    let (started_ms, duration_ms) = (5, 7);
    let result = Ok(JobOutcome { changed: true, effect: None });
    let done = JobDone {
        task: start.task,
        result,
        touched: true,
        output,
        memory: None,
        export: None,
        found: Vec::new(),
        started_ms,
        duration_ms,
    };
    bench.handle(Event::Finished(Box::new(done)));
    bench.wait(Duration::from_secs(1));
    let reports: Vec<_> = bench.reports.iter().map(|r| (r.generation.0, r.started_ms, r.duration_ms)).collect();
    assert_eq!(reports, [(1, 5, 7), (2, 5, 7)]);
    assert!(bench.reports.iter().all(|r| r.output.as_ref().is_some_and(|output| output.head == "done")));
}

fn link() -> Found {
    Found::Link { target: "old".to_owned(), uid: 0, gid: 0 }
}

#[test]
fn what_was_found_is_in_the_ledger_with_the_end_of_the_job() {
    let mut bench = bench();
    let key = || "path /a".to_owned();
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[])]);
    bench.finish_with("a", Err("the disk is full"), vec![(key(), Some(link()))]);
    assert_eq!(bench.disk.found, [(key(), link())].into(), "also if it failed");
    assert_eq!(bench.machine.node_state().found.first[0].what, "link to old");
    kill(&mut bench);
    assert_eq!(bench.machine.found().len(), 1);
    offer(&mut bench, 2, vec![planned("a", Action::Create, 1, &[])]);
    bench.finish("a", CHANGED);
    offer(&mut bench, 3, vec![planned("a", Action::Remove, 0, &[])]);
    bench.finish_with("a", CHANGED, vec![(key(), None)]);
    assert!(bench.disk.found.is_empty() && bench.machine.node_state().found.is_empty());
}

#[test]
fn notes_of_a_killed_agent_are_taken_over() {
    let mut bench = bench();
    let key = |name: &str| format!("path {name}");
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[])]);
    // The job has noted what it found, and something of a claim that no task has any more.
    bench.disk.noted = vec![(key("/a"), link()), (key("/gone"), Found::Absent)];
    kill(&mut bench);
    bench.disk.noted.clear();
    assert_eq!(bench.disk.found, [(key("/a"), link())].into());
    assert!(bench.disk.started.is_empty() || bench.jobs.len() == 1);
}

#[test]
fn where_nothing_shows_what_was_there_it_is_not_known() {
    // Applied by an agent that made no notes.
    let mut bench = applied(&["a"]);
    assert!(bench.disk.found.keys().all(|key| !key.starts_with("memory")));
    kill(&mut bench);
    assert_eq!(bench.disk.found, [("path /a".to_owned(), Found::Unrecorded)].into());
    // After a power loss: the note of a task that may have been started may be lost.
    let mut bench = self::bench();
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[])]);
    bench.boot = "another".to_owned();
    kill(&mut bench);
    assert_eq!(bench.disk.found, [("path /a".to_owned(), Found::Unknown)].into());
}

#[test]
fn what_members_of_archives_replaced_is_kept_while_there_are_archives() {
    let key = "replaced path /opt/a/x";
    let absent = || (key.to_owned(), Found::Absent);
    let mut bench = bench();
    let mut archive = planned("a", Action::Create, 1, &[]);
    let spec = archive.spec.as_mut().expect("a spec");
    spec.params = serde_json::from_str(r#"{"archive":{"path":"/a.tar","dest":"/opt/a"}}"#).expect("an archive");
    offer(&mut bench, 1, vec![archive]);
    // The job is killed after the note and before its end is in the ledger.
    bench.disk.noted = vec![absent()];
    kill(&mut bench);
    assert_eq!(bench.disk.found, [absent()].into());
    bench.finish("a", UNCHANGED);
    bench.restart();
    assert_eq!(bench.disk.found, [absent()].into());
    let mut bench = applied(&["b"]);
    bench.disk.noted = vec![absent()];
    bench.restart();
    assert!(!bench.disk.found.contains_key(key), "{:?}", bench.disk.found);
}

#[test]
fn a_removal_does_what_was_declared_last() {
    use groundplan_protocol::plan::{Edges, OnRemove};

    let mut bench = applied(&["a"]);
    let declared = |on_remove| Edges { on_remove, ..Edges::default() };
    let mut plan = node_plan(2, Vec::new());
    plan.edges = [(task("a"), declared(OnRemove::Keep))].into();
    bench.offer(&plan);
    assert_eq!(bench.machine.node_state().applied[&task("a")].on_remove, Some(OnRemove::Keep));
    kill(&mut bench);
    offer(&mut bench, 3, vec![planned("a", Action::Remove, 0, &[])]);
    assert_eq!(bench.jobs[&task("a")].on_remove, OnRemove::Keep);
}

#[test]
fn a_killed_job_has_what_it_noted_for_its_task() {
    let noted = |name: &str, memory: u32| {
        let params = planned(name, Action::Create, 1, &[]).spec.expect("a spec").params;
        found::memory_note(&task(name), &params, &serde_json::json!({ "was": memory }))
    };
    let mut bench = applied(&["done"]);
    offer(&mut bench, 2, vec![planned("begun", Action::Create, 1, &[])]);
    bench.disk.noted = vec![noted("begun", 1), noted("done", 2), noted("gone", 3)];
    bench.restart();
    assert_eq!(bench.jobs[&task("begun")].memory, Some(serde_json::json!({"was": 1})));
    // The end of this one is in the ledger, with what it remembers; and none of these is a note of a claim.
    assert_eq!(bench.disk.applied[&task("done")].memory, None);
    assert!(bench.disk.found.keys().all(|key| !key.starts_with("memory")));
}

#[test]
fn a_killed_effect_has_what_it_noted_for_its_task() {
    let params = planned("b", Action::Update, 1, &[]).spec.expect("a spec").params;
    let noted = |was: u32| found::memory_note(&task("b"), &params, &serde_json::json!({ "was": was }));
    let mut bench = applied(&["a", "b"]);
    // Another task still runs, so that the notes are kept.
    let tasks = vec![
        planned("a", Action::Update, 2, &[]),
        restarted("b", Action::Restart, 1, &["a"]),
        planned("c", Action::Create, 1, &[]),
    ];
    offer(&mut bench, 2, tasks);
    bench.finish("a", CHANGED);
    assert_eq!(bench.running(), "b:only+restart c:apply");
    bench.wait(Duration::from_secs(1));
    // The restart is done, and what is waited for is that the task is ready.
    bench.disk.noted = vec![noted(1)];
    kill(&mut bench);
    assert_eq!(bench.running(), "b:only+restart c:apply");
    assert_eq!(bench.jobs[&task("b")].memory, Some(serde_json::json!({"was": 1})));
    // With its end in the ledger, what is in the ledger counts.
    bench.finish("b", RESTARTED);
    bench.wait(Duration::from_secs(1));
    bench.disk.noted = vec![noted(2)];
    kill(&mut bench);
    assert_eq!(bench.running(), "c:apply");
    assert_eq!(bench.disk.applied[&task("b")].memory, Some(serde_json::json!({"was": 1})));
}

#[test]
fn a_command_that_has_been_run_is_not_run_again_for_a_plan_that_did_not_know_it() {
    let mut bench = bench();
    let command = |name: &str, guard: &str| {
        let spec = spec(&format!(r#"{{"command":{{"run":"true"{guard}}}}}"#));
        PlannedTask { spec: Some(spec), ..planned(name, Action::Create, 1, &[]) }
    };
    let plan = || vec![command("a", ""), command("b", r#","creates":"/x""#), restarted("c", Action::Create, 1, &["a"])];
    offer(&mut bench, 1, plan());
    bench.finish("a", CHANGED);
    bench.finish("b", CHANGED);
    // Made before the report of it had come.
    offer(&mut bench, 2, plan());
    assert_eq!(bench.running(), "b:apply c:apply+restart");
    bench.finish("b", UNCHANGED);
    bench.finish("c", CHANGED);
    let reported = bench.reported();
    assert_eq!(reported, "a@1=changed; b@1=changed; a@2=unchanged; b@2=unchanged; c@1=changed; c@2=changed");
    // What calls for it runs it.
    let mut run = command("a", "");
    run.obligation = Some(Fire::Run);
    offer(&mut bench, 3, vec![run]);
    assert_eq!(bench.running(), "a:only+run");
}

#[test]
fn a_generation_that_no_planner_gives_is_refused_and_forgotten() {
    let mut bench = bench();
    let a = || vec![planned("a", Action::Create, 1, &[])];
    offer(&mut bench, 1 << 53, a());
    bench.wait(Duration::from_secs(2));
    assert!(bench.states.last().unwrap().refused.as_ref().unwrap().reason.contains("below 9007199254740992"));

    // An agent of before has taken one, and is killed in the middle of it: what was begun is in doubt, and the next plan is taken.
    offer(&mut bench, 1, a());
    let used_up = Generation(u64::MAX - 2);
    bench.disk.plan.as_mut().unwrap().generation = used_up;
    bench.disk.started.iter_mut().for_each(|(generation, _)| *generation = used_up);
    kill(&mut bench);
    assert_eq!(bench.states.last().unwrap().generation, Generation(0));
    assert!(bench.disk.applied[&task("a")].in_doubt);
    // The bench takes care that no agent goes back, except from there.
    bench.disk.plan = None;
    offer(&mut bench, 2, a());
    assert_eq!(bench.running(), "a:apply");
}

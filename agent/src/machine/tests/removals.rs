//! Removals: of what never was, those that fail, and records that are dropped.

use groundplan_protocol::plan::Edges;

use super::*;

fn removed(name: &str) -> PlannedTask {
    planned(name, Action::Remove, 0, &[])
}

/// What is created at another path than all others, after `after`.
fn elsewhere(name: &str, params: &str, after: &[&str]) -> PlannedTask {
    PlannedTask { spec: Some(spec(params)), ..planned(name, Action::Create, 1, after) }
}

const OTHER: &str = r#"{"link":{"path":"/other","target":"x"}}"#;

/// A bench on which the removal of `old`, which is applied with these parameters, is about to run, with `new` after it.
fn removing(old: &str, new: PlannedTask) -> Bench {
    let mut bench = bench();
    offer(&mut bench, 1, vec![elsewhere("old", old, &[])]);
    bench.finish("old", CHANGED);
    bench.reported();
    offer(&mut bench, 2, vec![removed("old"), new]);
    bench
}

#[test]
fn what_a_failed_job_never_touched_is_known_also_after_a_restart() {
    let mut bench = bench();
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[])]);
    bench.fail_untouched("a", "no INI file");
    bench.wait(Duration::from_secs(1));
    assert!(bench.disk.applied[&task("a")].in_doubt && !bench.disk.applied[&task("a")].touched);
    bench.restart();
    assert!(bench.disk.found.is_empty(), "what is there is not the task's own");
    offer(&mut bench, 2, vec![removed("a")]);
    assert!(!bench.jobs[&task("a")].touched, "there is nothing to remove");
    // Killed while it removes nothing: still nothing is there.
    bench.restart();
    assert!(!bench.jobs[&task("a")].touched);
    bench.finish("a", UNCHANGED);
    bench.wait(Duration::from_secs(1));
    assert!(bench.disk.applied.is_empty());
    assert!(bench.reported().ends_with("a@2=unchanged"), "nothing was changed that could trigger anything");
}

#[test]
fn what_was_never_touched_is_not_protected() {
    let mut bench = bench();
    let protected = || Edges { prevent_destroy: true, ..Edges::default() };
    offer(&mut bench, 1, vec![PlannedTask { edges: protected(), ..planned("a", Action::Create, 1, &[]) }]);
    bench.fail_untouched("a", "no INI file");
    bench.wait(Duration::from_secs(1));
    let is_protected = |bench: &Bench| bench.machine.node_state().applied[&task("a")].edges.prevent_destroy;
    assert!(!is_protected(&bench), "a commit that leaves it out destroys nothing");
    bench.restart();
    offer(&mut bench, 2, vec![PlannedTask { edges: protected(), ..planned("a", Action::Create, 2, &[]) }]);
    bench.finish("a", CHANGED);
    bench.wait(Duration::from_secs(1));
    assert!(is_protected(&bench));
}

#[test]
fn what_was_interrupted_may_have_been_touched() {
    let mut bench = bench();
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[])]);
    bench.restart();
    assert!(bench.disk.applied[&task("a")].touched, "nothing shows how far it came");
    // It runs again, and this time its end is known; but what the first run did is not.
    bench.fail_untouched("a", "no INI file");
    bench.wait(Duration::from_secs(1));
    assert!(bench.disk.applied[&task("a")].touched);
}

#[test]
fn a_superseded_job_that_touched_nothing_leaves_nothing() {
    let mut bench = bench();
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[])]);
    offer(&mut bench, 2, vec![removed("a")]);
    bench.fail_untouched("a", "no INI file");
    assert!(!bench.jobs[&task("a")].touched);
}

#[test]
fn a_failed_removal_names_the_next_step() {
    let mut bench = removing(OTHER, elsewhere("new", r#"{"line":{"path":"/f","line":"x"}}"#, &["old"]));
    bench.finish("old", Err("it is no INI file"));
    assert_eq!(bench.running(), "new:apply", "what only comes after it is not held back");
    bench.finish("new", CHANGED);
    let reports = bench.reported();
    assert!(reports.starts_with("old@2=failed: it is no INI file; repair that on the host"), "{reports}");
    assert!(reports.ends_with("groundplan forget node s.old; new@2=changed"), "{reports}");
}

#[test]
fn a_failed_removal_holds_back_what_would_meet_it() {
    let process = r#"{"process":{"run":"a"}}"#;
    for (old, new) in [(process, process), (OTHER, OTHER)] {
        let mut bench = removing(old, elsewhere("new", new, &["old"]));
        bench.finish("old", Err("it does not end"));
        assert_eq!(bench.running(), "", "{old}");
        assert!(bench.reported().ends_with("new@2=blocked by s.old"));
    }
    // And what it triggers.
    let mut bench = removing(
        OTHER,
        PlannedTask {
            spec: Some(spec(r#"{"line":{"path":"/f","line":"x"}}"#)),
            ..restarted("new", Action::Create, 1, &["old"])
        },
    );
    bench.finish("old", Err("no"));
    assert!(bench.reported().ends_with("new@2=blocked by s.old"));
}

#[test]
fn a_record_that_is_dropped_takes_its_obligations_with_it() {
    let mut bench = bench();
    let restarted = || restarted("b", Action::Restart, 1, &["a"]);
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[]), planned("b", Action::Create, 1, &[])]);
    bench.finish("a", CHANGED);
    bench.finish("b", CHANGED);
    offer(&mut bench, 2, vec![planned("a", Action::Update, 2, &[]), restarted()]);
    bench.finish("a", CHANGED);
    bench.finish("b", Err("it does not start"));
    bench.reported();
    assert!(bench.disk.obligations.contains_key(&task("b")) || bench.machine.obligations.contains_key(&task("b")));

    let forget = PlannedTask { spec: None, fingerprint: None, ..planned("b", Action::Forget, 0, &[]) };
    offer(&mut bench, 3, vec![forget.clone()]);
    assert_eq!(bench.running(), "b:forget");
    // Killed in between: it is dropped once the agent is back.
    bench.restart();
    assert_eq!(bench.running(), "b:forget");
    bench.finish("b", UNCHANGED);
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.reported(), "b@3=unchanged");
    assert!(!bench.disk.applied.contains_key(&task("b")) && bench.disk.obligations.is_empty());
    // Once more, as by a planner that has not seen the report.
    offer(&mut bench, 4, vec![forget]);
    assert_eq!((bench.running(), bench.reported()), (String::new(), "b@4=unchanged".to_owned()));
}

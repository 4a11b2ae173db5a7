//! Tasks that are tried again after they have failed.

use groundplan_protocol::{blob::Content, duration::Span, plan::Retry, state::Phase};

use super::*;

fn retried(attempts: u32, name: &str, action: Action, version: u32, after: &[&str]) -> PlannedTask {
    let retry = Some(Retry { attempts, backoff: Span::secs(30) });
    PlannedTask { retry, ..planned(name, action, version, after) }
}

fn degraded(bench: &mut Bench) -> Option<String> {
    bench.wait(Duration::from_secs(2));
    let degraded = &bench.states.last().unwrap().degraded;
    assert!(degraded.len() < 2, "{degraded:?}");
    degraded.values().next().cloned()
}

#[test]
fn a_task_that_fails_is_tried_again_and_what_comes_after_it_waits() {
    let mut bench = bench();
    let plan = vec![
        retried(3, "a", Action::Create, 1, &[]),
        restarted("b", Action::Create, 1, &["a"]),
        planned("c", Action::Create, 1, &[]),
    ];
    offer(&mut bench, 1, plan);
    bench.finish("a", Err("no mirror"));
    bench.finish("c", CHANGED);
    assert_eq!(bench.running(), "", "nothing runs between two attempts");
    assert_eq!(bench.reported(), "c@1=changed", "no end of it is reported");
    assert_eq!(degraded(&mut bench).unwrap(), "attempt 1 of 3 failed, the next one follows 30 s after it: no mirror");
    assert_eq!(bench.states.last().unwrap().phase, Phase::Running);
    bench.wait(Duration::from_secs(27));
    assert_eq!(bench.running(), "");
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.running(), "a:apply");
    bench.finish("a", Err("no mirror"));
    assert_eq!(degraded(&mut bench).unwrap(), "attempt 2 of 3 failed, the next one follows 60 s after it: no mirror");
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.running(), "a:apply");
    bench.finish("a", UNCHANGED);
    bench.finish("b", CHANGED);
    assert_eq!(bench.reported(), "a@1=changed; b@1=changed", "what a failed attempt changed counts");
    assert_eq!(degraded(&mut bench), None);
    assert_eq!(bench.states.last().unwrap().phase, Phase::Idle);
}

#[test]
fn the_last_attempt_fails_for_good() {
    let mut bench = bench();
    offer(&mut bench, 1, vec![retried(2, "a", Action::Create, 1, &[]), planned("b", Action::Create, 1, &["a"])]);
    bench.finish("a", Err("no mirror"));
    bench.wait(Duration::from_secs(30));
    bench.finish("a", Err("no mirror"));
    assert_eq!(bench.reported(), "a@1=failed: no mirror (attempt 2); b@1=blocked by s.a");
    assert_eq!((degraded(&mut bench), bench.machine.phase()), (None, Phase::Idle));
    bench.wait(Duration::from_secs(3600));
    assert_eq!(bench.running(), "");
}

#[test]
fn a_newer_plan_takes_the_place_of_one_that_waits_for_an_attempt() {
    let mut bench = bench();
    offer(&mut bench, 1, vec![retried(3, "a", Action::Create, 1, &[])]);
    bench.finish("a", Err("no mirror"));
    offer(&mut bench, 2, vec![retried(3, "a", Action::Create, 2, &[])]);
    assert_eq!(bench.running(), "a:apply", "at once, and with all attempts");
    bench.finish("a", Err("no mirror"));
    assert_eq!(degraded(&mut bench).unwrap(), "attempt 1 of 3 failed, the next one follows 30 s after it: no mirror");
    offer(&mut bench, 3, Vec::new());
    assert_eq!((degraded(&mut bench), bench.machine.phase()), (None, Phase::Idle));
    bench.wait(Duration::from_secs(3600));
    assert_eq!(bench.running(), "", "what no plan asks for is not tried again");
}

#[test]
fn a_killed_agent_goes_on_with_what_waited_for_an_attempt() {
    let mut bench = bench();
    let content = |mut task: PlannedTask| {
        task.spec.as_mut().unwrap().content = Some(Content::Text("text".into()));
        task
    };
    offer(&mut bench, 1, vec![content(retried(3, "a", Action::Create, 1, &[]))]);
    let shipped = |bench: &Bench| match &bench.jobs[&task("a")].work {
        Work::Apply { spec, .. } => spec.content.clone(),
        _ => None,
    };
    let first = shipped(&bench);
    assert!(first.is_some());
    bench.finish("a", Err("no mirror"));
    bench.wait(Duration::from_secs(30));
    assert_eq!(shipped(&bench), first, "the next attempt has the content as well");
    bench.finish("a", Err("no mirror"));
    bench.restart();
    assert_eq!(bench.running(), "a:apply", "at once: how often it was tried is not on record");
    assert_eq!(shipped(&bench), first);
    bench.finish("a", CHANGED);
    assert_eq!(bench.reported(), "a@1=changed");
}

#[test]
fn an_effect_that_fails_is_tried_again() {
    let mut bench = applied(&["a", "b"]);
    let retry = Some(Retry { attempts: 2, backoff: Span::secs(1) });
    let restart = PlannedTask { retry, ..restarted("b", Action::Restart, 1, &["a"]) };
    offer(&mut bench, 2, vec![planned("a", Action::Update, 2, &[]), restart]);
    bench.finish("a", CHANGED);
    assert_eq!(bench.running(), "b:only+restart");
    bench.finish("b", Err("does not start"));
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.running(), "b:only+restart");
    bench.finish("b", Ok(JobOutcome { changed: false, effect: Some(effect::Effect::Restart) }));
    assert!(bench.disk.obligations.is_empty(), "{:?}", bench.disk.obligations);
}

//! Rounds start when they are due, and end with what they found.

use groundplan_protocol::{VERSION, blob::Content, drift::Difference, duration::Span, ids::SiteName};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn at(mono: Duration) -> Now {
    Now { mono, wall_ms: 1_000_000 + mono.as_millis() as u64 }
}

fn task(name: &str) -> TaskId {
    format!("s.{name}").parse().unwrap()
}

fn request(revision: u64, interval: Option<Duration>, asked: u64) -> CheckRequest {
    let interval = interval.map(|interval| Span::millis(interval.as_millis() as u64));
    let (site, node) = (SiteName::new("site").unwrap(), NodeId::new("n0").unwrap());
    CheckRequest { version: VERSION, site, node, revision, interval, asked }
}

fn monitor() -> DriftMonitor {
    DriftMonitor::new(&NodeId::new("n0").unwrap(), at(Duration::ZERO))
}

fn fingerprint() -> Fingerprint {
    Fingerprint(Digest::of(b"x"))
}

fn drifted(content: Option<Content>) -> CheckResult {
    CheckResult::Drifted(vec![Difference { what: "content".to_owned(), expected: None, found: None, content }])
}

/// A round over `tasks`, each check with the result given for it.
fn round(monitor: &mut DriftMonitor, now: Duration, tasks: &[(&str, CheckResult)]) -> Findings {
    assert_eq!(monitor.step(true, Generation(1), at(now)), Step::Begin);
    monitor.begin(tasks.iter().map(|(name, _)| task(name)), 0, Generation(1), at(now));
    while let Some(check) = monitor.next_task() {
        let result = tasks.iter().find(|(name, _)| task(name) == check.task).unwrap().1.clone();
        monitor.checked(check, result, Some(fingerprint()));
    }
    monitor.finish(at(now)).expect("every task is checked")
}

#[test]
fn a_requested_round_starts_at_once_and_only_once() {
    let mut monitor = monitor();
    assert_eq!(monitor.step(true, Generation(1), at(HOUR)), Step::Nothing, "nothing was requested");
    monitor.request(&request(3, None, 3));
    let findings = round(&mut monitor, HOUR, &[("a", CheckResult::InSync), ("b", CheckResult::LeftOut)]);
    assert_eq!((findings.round, findings.asked, findings.checked, findings.left_out), (1, 3, 1, 1));
    assert_eq!(monitor.step(true, Generation(1), at(HOUR * 2)), Step::Nothing);
    monitor.request(&request(3, None, 9));
    monitor.request(&request(2, None, 2));
    assert_eq!(
        (monitor.step(true, Generation(1), at(HOUR * 2)), monitor.deadline()),
        (Step::Nothing, None),
        "an old request"
    );
    monitor.request(&request(4, None, 4));
    assert_eq!(round(&mut monitor, HOUR * 2, &[]).asked, 4, "also where nothing is applied");
}

#[test]
fn the_interval_counts_from_the_end_of_the_last_round_and_a_fleet_is_spread() {
    let mut monitor = monitor();
    monitor.request(&request(1, Some(HOUR), 0));
    assert_eq!(monitor.step(true, Generation(1), at(Duration::ZERO)), Step::Nothing);
    let first = monitor.deadline().unwrap();
    assert!(first >= HOUR * 9 / 10 && first <= HOUR * 11 / 10, "{first:?}");
    assert_eq!(monitor.step(true, Generation(1), at(first - Duration::from_millis(1))), Step::Nothing);
    monitor.begin([task("a")].into_iter(), 0, Generation(1), at(first));
    let check = monitor.next_task().unwrap();
    let end = first + Duration::from_secs(100);
    monitor.checked(check, CheckResult::InSync, Some(fingerprint()));
    assert_eq!(monitor.finish(at(end)).unwrap().duration, Duration::from_secs(100));
    assert_eq!(monitor.deadline(), Some(end + first));
    monitor.request(&request(2, Some(Duration::ZERO), 0));
    assert!(monitor.deadline().unwrap() > end, "an interval of zero does not check without pause");
    monitor.request(&request(3, None, 0));
    assert_eq!(monitor.deadline(), None);
    let spreads: std::collections::BTreeSet<u32> = (0..50)
        .map(|n| DriftMonitor::new(&NodeId::new(format!("n{n}")).unwrap(), Now::default()).spread)
        .inspect(|spread| assert!((9_000..=11_000).contains(spread)))
        .collect();
    assert!(spreads.len() > 40);
}

#[test]
fn a_plan_cancels_a_round_which_starts_again_after_it() {
    let mut monitor = monitor();
    monitor.request(&request(1, None, 1));
    assert_eq!(monitor.step(false, Generation(1), at(HOUR)), Step::Nothing, "something runs");
    assert_eq!(monitor.deadline(), None);
    assert_eq!(monitor.step(true, Generation(1), at(HOUR)), Step::Begin);
    monitor.begin(["a", "b", "c"].map(task).into_iter(), 0, Generation(1), at(HOUR));
    let cancelled: Vec<TaskCheck> = std::iter::from_fn(|| monitor.next_task()).collect();
    assert_eq!(cancelled.len(), 2, "not all at once");
    assert_eq!(monitor.step(false, Generation(2), at(HOUR)), Step::Cancel);
    assert_eq!(monitor.step(false, Generation(2), at(HOUR)), Step::Nothing);
    assert_eq!(monitor.step(true, Generation(2), at(HOUR)), Step::Begin);
    monitor.begin([task("a")].into_iter(), 0, Generation(2), at(HOUR));
    // Late results of the cancelled round count for nothing.
    cancelled.into_iter().for_each(|check| monitor.checked(check, drifted(None), Some(fingerprint())));
    assert!(monitor.finish(at(HOUR)).is_none());
    let check = monitor.next_task().unwrap();
    // A plan that was carried out within one step cancels it as well.
    assert_eq!(monitor.step(true, Generation(3), at(HOUR)), Step::Cancel);
    assert_eq!(monitor.step(true, Generation(3), at(HOUR)), Step::Begin);
    monitor.begin([task("a")].into_iter(), 0, Generation(3), at(HOUR));
    monitor.checked(check, CheckResult::InSync, Some(fingerprint()));
    let check = monitor.next_task().unwrap();
    monitor.checked(check, drifted(None), None);
    let findings = monitor.finish(at(HOUR)).unwrap();
    assert_eq!((findings.generation, findings.left_out), (Generation(3), 1), "another result is applied by now");
    assert!(findings.drifted.is_empty());
}

#[test]
fn a_drifted_task_is_checked_again_once_it_ran() {
    let mut monitor = monitor();
    monitor.request(&request(1, None, 1));
    let failed = CheckResult::Failed("no".to_owned());
    let tasks = [("a", drifted(None)), ("b", CheckResult::InSync), ("c", failed)];
    let first = round(&mut monitor, HOUR, &tasks);
    let since = first.drifted[&task("a")].since_ms;
    assert_eq!((since, first.failed.len(), first.checked), (at(HOUR).wall_ms, 1, 2));
    monitor.task_ran(&task("b"));
    assert_eq!(monitor.step(true, Generation(1), at(HOUR * 2)), Step::Nothing);
    monitor.task_ran(&task("a"));
    let second = round(&mut monitor, HOUR * 2, &[("a", drifted(None)), ("c", drifted(None))]);
    assert_eq!((second.asked, second.round), (1, 2));
    assert_eq!(second.drifted[&task("a")].since_ms, since, "drifted since the first round");
    assert_eq!(second.drifted[&task("c")].since_ms, at(HOUR * 2).wall_ms, "found to be drifted only now");
    monitor.task_ran(&task("a"));
    assert!(round(&mut monitor, HOUR * 3, &[("a", CheckResult::InSync)]).drifted.is_empty());
    monitor.task_ran(&task("a"));
    assert_eq!(monitor.step(true, Generation(1), at(HOUR * 4)), Step::Nothing);
}

#[test]
fn content_is_bounded() {
    let mut monitor = monitor();
    monitor.request(&request(1, None, 1));
    let text = Content::Text("x".repeat(30_000));
    let tasks: Vec<(String, CheckResult)> = (0..12).map(|n| (format!("t{n}"), drifted(Some(text.clone())))).collect();
    let tasks: Vec<(&str, CheckResult)> = tasks.iter().map(|(name, result)| (name.as_str(), result.clone())).collect();
    let findings = round(&mut monitor, HOUR, &tasks);
    let contents = findings.drifted.values().map(|drifted| drifted.differences[0].content.clone().unwrap());
    let (whole, named): (Vec<_>, Vec<_>) = contents.partition(|content| content.blob().is_none());
    assert_eq!((whole.len(), named.len()), (8, 4));
    assert_eq!(named[0], Content::Blob(text.name().unwrap()));
}

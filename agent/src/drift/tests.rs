//! Looks come when they are due, and tell what they found.

use groundplan_protocol::{VERSION, drift::Difference, duration::Span, ids::SiteName};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn at(mono: Duration) -> Now {
    Now { mono, wall_ms: 1_000_000 + mono.as_millis() as u64 }
}

fn task(name: &str) -> TaskId {
    format!("s.{name}").parse().unwrap()
}

fn wish(revision: u64, interval: Option<Duration>, asked: u64) -> CheckRequest {
    let interval = interval.map(|interval| Span::millis(interval.as_millis() as u64));
    let (site, node) = (SiteName::new("site").unwrap(), NodeId::new("n0").unwrap());
    CheckRequest { version: VERSION, site, node, revision, interval, asked }
}

fn watch() -> Watch {
    Watch::new(&NodeId::new("n0").unwrap(), at(Duration::ZERO))
}

fn fingerprint() -> Fingerprint {
    Fingerprint(Digest::of(b"x"))
}

fn drifted(content: Option<Content>) -> Looked {
    Looked::Drifted(vec![Difference { what: "content".to_owned(), expected: None, found: None, content }])
}

/// Looks at `tasks`, each of which is as it says; what came of it.
fn look(watch: &mut Watch, now: Duration, tasks: &[(&str, Looked)]) -> Findings {
    assert_eq!(watch.step(true, Generation(1), at(now)), Step::Begin);
    watch.begin(tasks.iter().map(|(name, _)| task(name)), 0, Generation(1), at(now));
    while let Some(due) = watch.next_task() {
        let looked = tasks.iter().find(|(name, _)| task(name) == due.task).unwrap().1.clone();
        watch.looked(due, looked, Some(fingerprint()));
    }
    watch.finish(at(now)).expect("all is looked at")
}

#[test]
fn one_that_is_asked_for_comes_at_once_and_once() {
    let mut watch = watch();
    assert_eq!(watch.step(true, Generation(1), at(HOUR)), Step::Nothing, "nobody has wished anything");
    watch.wish(&wish(3, None, 3));
    let findings = look(&mut watch, HOUR, &[("a", Looked::So), ("b", Looked::LeftOut)]);
    assert_eq!((findings.count, findings.asked, findings.checked, findings.left_out), (1, 3, 1, 1));
    assert_eq!(watch.step(true, Generation(1), at(HOUR * 2)), Step::Nothing);
    watch.wish(&wish(3, None, 9));
    watch.wish(&wish(2, None, 2));
    assert_eq!((watch.step(true, Generation(1), at(HOUR * 2)), watch.deadline()), (Step::Nothing, None), "an old wish");
    watch.wish(&wish(4, None, 4));
    assert_eq!(look(&mut watch, HOUR * 2, &[]).asked, 4, "also where nothing is applied");
}

#[test]
fn the_interval_counts_from_the_end_of_the_last_look_and_a_fleet_is_spread() {
    let mut watch = watch();
    watch.wish(&wish(1, Some(HOUR), 0));
    assert_eq!(watch.step(true, Generation(1), at(Duration::ZERO)), Step::Nothing);
    let first = watch.deadline().unwrap();
    assert!(first >= HOUR * 9 / 10 && first <= HOUR * 11 / 10, "{first:?}");
    assert_eq!(watch.step(true, Generation(1), at(first - Duration::from_millis(1))), Step::Nothing);
    watch.begin([task("a")].into_iter(), 0, Generation(1), at(first));
    let due = watch.next_task().unwrap();
    let end = first + Duration::from_secs(100);
    watch.looked(due, Looked::So, Some(fingerprint()));
    assert_eq!(watch.finish(at(end)).unwrap().duration, Duration::from_secs(100));
    assert_eq!(watch.deadline(), Some(end + first));
    watch.wish(&wish(2, Some(Duration::ZERO), 0));
    assert!(watch.deadline().unwrap() > end, "never without end");
    watch.wish(&wish(3, None, 0));
    assert_eq!(watch.deadline(), None);
    let spreads: std::collections::BTreeSet<u32> = (0..50)
        .map(|n| Watch::new(&NodeId::new(format!("n{n}")).unwrap(), Now::default()).spread)
        .inspect(|spread| assert!((9_000..=11_000).contains(spread)))
        .collect();
    assert!(spreads.len() > 40);
}

#[test]
fn a_plan_ends_a_look_and_it_begins_anew_after_it() {
    let mut watch = watch();
    watch.wish(&wish(1, None, 1));
    assert_eq!(watch.step(false, Generation(1), at(HOUR)), Step::Nothing, "something runs");
    assert_eq!(watch.deadline(), None);
    assert_eq!(watch.step(true, Generation(1), at(HOUR)), Step::Begin);
    watch.begin(["a", "b", "c"].map(task).into_iter(), 0, Generation(1), at(HOUR));
    let begun: Vec<Due> = std::iter::from_fn(|| watch.next_task()).collect();
    assert_eq!(begun.len(), 2, "not all at once");
    assert_eq!(watch.step(false, Generation(2), at(HOUR)), Step::Stop);
    assert_eq!(watch.step(false, Generation(2), at(HOUR)), Step::Nothing);
    assert_eq!(watch.step(true, Generation(2), at(HOUR)), Step::Begin);
    watch.begin([task("a")].into_iter(), 0, Generation(2), at(HOUR));
    // What comes late from the look before counts for nothing.
    begun.into_iter().for_each(|due| watch.looked(due, drifted(None), Some(fingerprint())));
    assert!(watch.finish(at(HOUR)).is_none());
    let due = watch.next_task().unwrap();
    // A plan that was over in one step ends it as well.
    assert_eq!(watch.step(true, Generation(3), at(HOUR)), Step::Stop);
    assert_eq!(watch.step(true, Generation(3), at(HOUR)), Step::Begin);
    watch.begin([task("a")].into_iter(), 0, Generation(3), at(HOUR));
    watch.looked(due, Looked::So, Some(fingerprint()));
    let due = watch.next_task().unwrap();
    watch.looked(due, drifted(None), None);
    let findings = watch.finish(at(HOUR)).unwrap();
    assert_eq!((findings.generation, findings.left_out), (Generation(3), 1), "it is another task's result by now");
    assert!(findings.drifted.is_empty());
}

#[test]
fn what_stands_as_drifted_is_looked_at_again_once_it_ran() {
    let mut watch = watch();
    watch.wish(&wish(1, None, 1));
    let failed = Looked::Failed("no".to_owned());
    let first = look(&mut watch, HOUR, &[("a", drifted(None)), ("b", Looked::So), ("c", failed)]);
    let since = first.drifted[&task("a")].since_ms;
    assert_eq!((since, first.failed.len(), first.checked), (at(HOUR).wall_ms, 1, 2));
    watch.ran(&task("b"));
    assert_eq!(watch.step(true, Generation(1), at(HOUR * 2)), Step::Nothing);
    watch.ran(&task("a"));
    let second = look(&mut watch, HOUR * 2, &[("a", drifted(None)), ("c", drifted(None))]);
    assert_eq!((second.asked, second.count), (1, 2));
    assert_eq!(second.drifted[&task("a")].since_ms, since, "it has stood since then");
    assert_eq!(second.drifted[&task("c")].since_ms, at(HOUR * 2).wall_ms, "that it is so is known since now");
    watch.ran(&task("a"));
    assert!(look(&mut watch, HOUR * 3, &[("a", Looked::So)]).drifted.is_empty());
    watch.ran(&task("a"));
    assert_eq!(watch.step(true, Generation(1), at(HOUR * 4)), Step::Nothing);
}

#[test]
fn content_is_bounded() {
    let mut watch = watch();
    watch.wish(&wish(1, None, 1));
    let text = Content::Text("x".repeat(30_000));
    let tasks: Vec<(String, Looked)> = (0..12).map(|n| (format!("t{n}"), drifted(Some(text.clone())))).collect();
    let tasks: Vec<(&str, Looked)> = tasks.iter().map(|(name, looked)| (name.as_str(), looked.clone())).collect();
    let findings = look(&mut watch, HOUR, &tasks);
    let told = findings.drifted.values().map(|drifted| drifted.differences[0].content.clone().unwrap());
    let (whole, named): (Vec<_>, Vec<_>) = told.partition(|content| content.blob().is_none());
    assert_eq!((whole.len(), named.len()), (8, 4));
    assert_eq!(named[0], Content::Blob(text.name().unwrap()));
}

//! The ledger keeps what was written, also over restarts, and detects damage.

use std::{fs, path::Path};

use groundplan_protocol::{
    digest::Digest,
    effect::{Action, Effect},
    ids::{CommitId, Generation, LedgerId, Sequence, TaskId},
    plan::TriggerSource,
    report::{Outcome, Output, TaskReport},
};

use super::{Journal, Ledger, LedgerError};
use crate::machine::{Found, Record, Snapshot, StoredObligation, StoredPlan, Write};

fn id() -> LedgerId {
    LedgerId::new("0123456789abcdef0123456789abcdef").unwrap()
}

fn open(dir: &Path) -> Result<(Ledger, Journal, Snapshot), LedgerError> {
    Ledger::open(dir, id)
}

fn task(name: &str) -> TaskId {
    name.parse().unwrap()
}

fn report(n: u64) -> Write {
    let output = Some(Output { head: format!("output {n}"), ..Output::default() });
    Write::Report(
        Sequence(n),
        Box::new(TaskReport {
            plan: None,
            generation: Generation(3),
            task: task("a.b"),
            action: Action::Create,
            outcome: Outcome::Done { changed: true, effect: None },
            fingerprint: None,
            claims: Vec::new(),
            contends: Vec::new(),
            started_ms: 1,
            duration_ms: 2,
            output,
            export: None,
        }),
    )
}

fn plan(json: &[u8]) -> Write {
    Write::Plan(Box::new(StoredPlan {
        generation: Generation(3),
        commit: CommitId::new("0".repeat(40)).unwrap(),
        digest: Digest::of(json),
        issued_ms: 0,
        receipt: None,
        json: Some(json.to_vec()),
    }))
}

#[test]
fn what_was_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let obligation = StoredObligation {
        fired: Some(Effect::Reload),
        open: vec![(TriggerSource::Task(task("a.b")), Effect::Restart)],
    };
    {
        let (ledger, _, snapshot) = open(dir.path()).unwrap();
        assert_eq!((snapshot.sequence, snapshot.acked, snapshot.epoch), (Sequence(0), Sequence(0), 0));
        let done = |name| Write::Done(task(name), Outcome::Skipped);
        ledger.write(&[done("old.one"), plan(b"{}"), done("a.b"), Write::Epoch(7)], true).unwrap();
        ledger
            .write(&[Write::Obligation(task("a.c"), Some(obligation.clone())), report(1), report(2), report(3)], true)
            .unwrap();
        ledger.write(&[Write::Acknowledged(Sequence(1)), Write::DropOutput(Sequence(2))], false).unwrap();
        let stored = ledger.reports(Sequence(2), Sequence(9), 1, 1).unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!((stored[0].0, &stored[0].1.output), (Sequence(2), &None));
    }
    let (ledger, _, snapshot) = open(dir.path()).unwrap();
    assert_eq!(snapshot.ledger, id());
    assert_eq!(snapshot.plan.unwrap().json.unwrap(), b"{}");
    assert_eq!(snapshot.done.keys().collect::<Vec<_>>(), [&task("a.b")]);
    assert_eq!(snapshot.obligations[&task("a.c")], obligation);
    assert_eq!((snapshot.acked, snapshot.sequence, snapshot.epoch), (Sequence(1), Sequence(3), 7));
    assert_eq!(snapshot.outputs, [(Sequence(3), "output 3".len())]);
    ledger
        .write(&[Write::Acknowledged(Sequence(3)), Write::PlanFinished, Write::Obligation(task("a.c"), None)], true)
        .unwrap();
    drop(ledger);
    let (_, _, snapshot) = open(dir.path()).unwrap();
    assert_eq!((snapshot.acked, snapshot.sequence), (Sequence(3), Sequence(3)), "numbers are never reused");
    assert!(snapshot.plan.unwrap().json.is_none() && snapshot.obligations.is_empty() && snapshot.outputs.is_empty());
}

/// A snapshot to which the same writes are applied equals what is read back from the file: tests and the simulator rely on it.
#[test]
fn snapshot_and_file_agree_after_the_same_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _, mut snapshot) = open(dir.path()).unwrap();
    assert_eq!(snapshot, Snapshot::empty(id()));
    let obligation = |open| StoredObligation { fired: Some(Effect::Restart), open };
    let record: Record = serde_json::from_str(&format!(
        r#"{{"spec":{{"params":{{"link":{{"path":"/l","target":"t"}}}}}},"fingerprint":"{}"}}"#,
        Digest::of(b"x")
    ))
    .unwrap();
    let applied = |name, in_doubt| {
        let record = Record { in_doubt, ..record.clone() };
        Write::Applied(task(name), Some(Box::new(record)))
    };
    let found = Found::Link { target: "../run/x".to_owned(), uid: 1, gid: 2 };
    let found = |key: &str, there| Write::Found(key.to_owned(), Some(found.clone()).filter(|_| there).map(Box::new));
    let groups = [
        vec![Write::Epoch(1), Write::Boot("boot".to_owned()), plan(b"{}"), applied("a.b", false), applied("a.c", true)],
        vec![Write::Done(task("a.b"), Outcome::Skipped), report(1), report(2), report(3), report(4)],
        vec![Write::Obligation(task("a.b"), Some(obligation(vec![]))), Write::Obligation(task("a.c"), None)],
        vec![Write::DropOutput(Sequence(3)), Write::Acknowledged(Sequence(1)), Write::Applied(task("a.c"), None)],
        vec![Write::PlanFinished, report(5), Write::Obligation(task("a.b"), None)],
        vec![plan(b"[]"), Write::Acknowledged(Sequence(5)), Write::Epoch(2)],
        vec![found("path /l", true), found("path /m", true)],
        vec![found("path /m", false), found("path /n", false)],
    ];
    let mut ledger = Some(ledger);
    for writes in groups {
        ledger.take().unwrap().write(&writes, true).unwrap();
        writes.iter().for_each(|write| snapshot.apply(write));
        let (reopened, _, read) = open(dir.path()).unwrap();
        assert_eq!(read, snapshot, "after {writes:?}");
        ledger = Some(reopened);
    }
}

#[test]
fn a_ledger_of_an_agent_without_notes_is_read_and_gets_them() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (ledger, ..) = open(dir.path()).unwrap();
        let tx = ledger.db.as_ref().unwrap().begin_write().unwrap();
        assert!(tx.delete_table(super::FOUND).unwrap());
        tx.commit().unwrap();
    }
    let (ledger, _, snapshot) = open(dir.path()).unwrap();
    assert_eq!(snapshot, Snapshot::empty(id()));
    ledger.write(&[Write::Found("path /x".to_owned(), Some(Box::new(Found::Absent)))], true).unwrap();
    drop(ledger);
    assert_eq!(open(dir.path()).unwrap().2.found, [("path /x".to_owned(), Found::Absent)].into());
}

#[test]
fn only_the_owner_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("lib/groundplan");
    drop(open(&state).unwrap());
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_second_agent_gets_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(LedgerError::InUse { .. })));
}

#[test]
fn damage_and_newer_formats_are_errors_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    {
        let (ledger, ..) = open(dir.path()).unwrap();
        ledger.write(&[plan(&[b'x'; 100_000])], true).unwrap();
    }
    let good = fs::read(&path).unwrap();
    for bytes in [&good[..0], &good[..100], &good[..5000], &b"not a database at all, but text"[..]] {
        fs::write(&path, bytes).unwrap();
        let error = open(dir.path()).map(|_| ()).unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { .. }), "{} bytes: {error:?}", bytes.len());
        assert!(error.to_string().contains("move it away"));
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    fs::write(&path, &good).unwrap();
    {
        let (ledger, ..) = open(dir.path()).unwrap();
        let tx = ledger.db.as_ref().unwrap().begin_write().unwrap();
        tx.open_table(super::META).unwrap().insert("schema", b"2".as_slice()).unwrap();
        tx.commit().unwrap();
    }
    assert!(matches!(open(dir.path()), Err(LedgerError::Newer { found: 2, .. })));
}

#[test]
fn the_journal_drops_torn_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("started");
    let tasks = [task("a.b"), task("a.c")];
    let (mut journal, started) = Journal::open(&path).unwrap();
    assert!(started.is_empty());
    journal.start(Generation(5), tasks.iter()).unwrap();
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() - 3]).unwrap();
    let (mut journal, started) = Journal::open(&path).unwrap();
    assert_eq!(started, [(Generation(5), task("a.b"))]);
    journal.start(Generation(6), tasks[..1].iter()).unwrap();
    let (mut journal, started) = Journal::open(&path).unwrap();
    assert_eq!(started.last(), Some(&(Generation(6), task("a.b"))));
    journal.start(Generation(7), tasks.iter()).unwrap();
    journal.withdraw(Generation(7), tasks[1..].iter()).unwrap();
    journal.sync().unwrap();
    let (mut journal, started) = Journal::open(&path).unwrap();
    assert_eq!(started.last(), Some(&(Generation(7), task("a.b"))), "withdrawn tasks are not listed");
    journal.reset().unwrap();
    assert_eq!(Journal::open(&path).unwrap().1, []);
}

use groundplan_protocol::ids::SiteName;

use super::*;

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn ledger() -> LedgerId {
    LedgerId::new("0123456789abcdef0123456789abcdef").unwrap()
}

fn entry(first: u64) -> LogEntry {
    LogEntry::Reports { node: node("a"), ledger: ledger(), first: Sequence(first), reports: vec![] }
}

#[test]
fn what_was_committed_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let meta = Meta {
        site: SiteName::new("s").ok(),
        planner: "p".into(),
        generation: Generation(7),
        term: 2,
        ..Meta::default()
    };
    let plan = StoredPlan { generation: Generation(7), digest: vec![1], sealed: vec![2; 9], body: vec![] };
    {
        let (mut store, empty) = Store::open(dir.path()).unwrap();
        assert_eq!(empty.meta, Meta::default());
        let group = Group {
            meta: Some(meta.clone()),
            nodes: vec![(node("a"), Some(StoredNode { seen_ms: 5, ..StoredNode::default() }))],
            acks: vec![(node("a"), ledger(), Sequence(3))],
            plans: vec![(node("a"), Some(plan.clone()))],
            log: vec![entry(1), entry(2)],
            ..Group::default()
        };
        store.commit(&group).unwrap();
        store.commit(&Group { log: vec![entry(3)], ..Group::default() }).unwrap();
    }
    let (mut store, again) = Store::open(dir.path()).unwrap();
    assert_eq!(again.meta, meta);
    assert_eq!(again.nodes[&node("a")].seen_ms, 5);
    assert_eq!(again.acks[&node("a")], (ledger(), Sequence(3)));
    assert_eq!(again.plans[&node("a")], (Generation(7), vec![1]));
    assert_eq!(again.log, [entry(1), entry(2), entry(3)]);
    assert_eq!(store.plan(&node("a")).unwrap(), Some(plan));
    store.commit(&Group { log: vec![entry(4)], plans: vec![(node("a"), None)], ..Group::default() }).unwrap();
    assert_eq!(store.plan(&node("a")).unwrap(), None);
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().1.log.len(), 4);
}

#[test]
fn a_second_planner_and_a_newer_layout_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse { .. })));
    let tx = store.db.begin_write().unwrap();
    tx.open_table(META).unwrap().insert("schema", b"9".as_slice()).unwrap();
    tx.commit().unwrap();
    drop(store);
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Newer { found: 9, .. })));
}

#[test]
fn a_torn_file_is_an_error_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("planner.redb"), b"not a database at all").unwrap();
    let Err(error) = Store::open(dir.path()) else { panic!("opened") };
    assert!(error.hint().unwrap().contains("move the file away"));
}

#[test]
fn commands_are_kept_by_time_up_to_a_number() {
    use groundplan_protocol::{kinds::Run, report::Output};

    use crate::api::exec::{ExecNode, NodeOutcome, TIMEOUT};

    let record = |number: u64, result| {
        let output = Some(Output { head: "printed".to_owned(), ..Output::default() });
        let told = ExecNode { outcome: NodeOutcome::Running, duration_ms: None, omitted: 0, output };
        ExecRecord {
            version: 1,
            // Ids say nothing of the order.
            id: ExecId::new(format!("{:08x}", u32::MAX - number as u32)).unwrap(),
            by: "root".to_owned(),
            on: "all".to_owned(),
            run: Run::Shell("true".to_owned()),
            user: None,
            cwd: None,
            env: Default::default(),
            timeout: TIMEOUT,
            started_ms: 1000 + number,
            finished_ms: None,
            result,
            nodes: [(node("a"), told)].into(),
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let last = EXECS as u64 + 4;
    for number in 0..=last {
        let begun = record(number, ExecResult::Running);
        store.commit(&Group { execs: vec![begun], ..Group::default() }).unwrap();
        if number < last {
            let ended = record(number, ExecResult::Finished);
            store.commit(&Group { execs: vec![ended], ..Group::default() }).unwrap();
        }
    }
    let all = store.execs(usize::MAX).unwrap();
    assert_eq!((all.len(), all[0].started_ms, all[EXECS - 1].started_ms), (EXECS, 1000 + last, 1005));
    assert!(all.iter().all(|record| record.nodes[&node("a")].output.is_none()));
    assert_eq!(store.execs(3).unwrap(), all[..3]);
    assert_eq!(store.exec(&all[1].id).unwrap(), Some(record(last - 1, ExecResult::Finished)));
    assert_eq!(store.exec(&record(0, ExecResult::Finished).id).unwrap(), None);
    drop(store);
    let (_, again) = Store::open(dir.path()).unwrap();
    assert_eq!(again.execs, [record(last, ExecResult::Running)], "what was not ended is known at the next start");
}

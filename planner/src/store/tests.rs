use std::{collections::BTreeMap, fs};

use groundplan_core::plan::{Plan, ReasonReport};
use groundplan_machine::{
    Effect, Input, Machine, Settings,
    command::{CommandNode, CommandRecord, CommandResult, NodeOutcome},
    commit::{Commit, Refusal, RefusedCommit},
    record::{LogEntry, Meta, PlanNote, StoredNode, StoredPlan},
    rollout::{Counts, InstanceState, RolloutDetail, RolloutHead, RolloutResult, RolloutSummary},
    write::Write,
};
use groundplan_protocol::{
    digest::Digest,
    duration::Span,
    ids::{ExecId, Generation, LedgerId, NodeId, SiteName},
    kinds::Run,
    report::Output,
    time::Now,
};
use redb::ReadableDatabase as _;
use serde_json::{Value, json};

use super::*;
use crate::record::{CommandRow, HistoryRow};

/// Written by a planner of the last release with layout 1; `fixtures/README.md` describes what happened before it was killed.
const SCHEMA_1: &[u8] = include_bytes!("fixtures/schema-1.redb");

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn ledger() -> LedgerId {
    LedgerId::new("0123456789abcdef0123456789abcdef").unwrap()
}

fn entry(first: u64) -> LogEntry {
    LogEntry::Reports { node: node("a"), ledger: ledger(), first: Sequence(first), reports: vec![] }
}

fn commit() -> Commit {
    Commit {
        id: id(&"c0".repeat(20)).unwrap(),
        subject: "A commit".into(),
        author: "Ada".into(),
        time: 0,
        rewinds: None,
    }
}

fn group<const N: usize>(writes: [Write; N]) -> Group {
    let mut group = Group::default();
    group.extend(writes);
    group
}

fn rollout(generation: u64) -> Write {
    let head = RolloutHead {
        generation: Generation(generation),
        commit: commit(),
        started_ms: 1,
        actions: [].into(),
        ended_ms: None,
        kept: BTreeMap::new(),
    };
    Write::Rollout(head.into(), Rollout::new(&Plan::default(), Generation(generation)).into())
}

fn detail(generation: u64, finished_ms: Option<u64>) -> RolloutDetail {
    let summary = RolloutSummary {
        generation: Generation(generation),
        commit: commit(),
        result: RolloutResult::Running,
        counts: Counts::default(),
        nodes: 0,
        started_ms: 1,
        finished_ms,
        forgotten: Vec::new(),
    };
    RolloutDetail { summary, instances: vec![], pending: vec![] }
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
    let note = PlanNote { generation: Generation(7), asks: vec![1], id: Digest::of(b"{}") };
    let plan = StoredPlan { note: note.clone(), json: b"{}".to_vec() };
    {
        let (mut store, empty) = Store::open(dir.path()).unwrap();
        assert_eq!(empty.meta, Meta::default());
        let writes = [
            Write::Meta(Box::new(meta.clone())),
            Write::Node(node("a"), StoredNode { seen_ms: 4, ..StoredNode::default() }.into()),
            Write::Node(node("a"), StoredNode { seen_ms: 5, ..StoredNode::default() }.into()),
            Write::Ack(node("a"), ledger(), Sequence(3)),
            Write::Plan(node("a"), Some(plan.clone())),
            Write::Log(entry(1)),
            Write::Log(entry(2)),
        ];
        store.commit(&group(writes)).unwrap();
        store.commit(&group([Write::Log(entry(3))])).unwrap();
    }
    let (mut store, again) = Store::open(dir.path()).unwrap();
    let reader = store.reader();
    assert_eq!(again.meta, meta);
    assert_eq!(again.nodes[&node("a")].seen_ms, 5);
    assert_eq!(again.acks[&node("a")], (ledger(), Sequence(3)));
    assert_eq!(again.plans[&node("a")], note);
    assert_eq!(again.log, [entry(1), entry(2), entry(3)]);
    assert_eq!(reader.plan(&node("a")).unwrap(), Some(plan));
    store.commit(&group([Write::Log(entry(4)), Write::Plan(node("a"), None)])).unwrap();
    assert_eq!(reader.plan(&node("a")).unwrap(), None, "a reader sees what was committed since it was made");
    drop((store, reader));
    assert_eq!(Store::open(dir.path()).unwrap().1.log.len(), 4);
}

#[test]
fn a_rollout_begins_a_log_of_its_own_and_gets_its_end_from_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    store.commit(&group([rollout(1), Write::Log(entry(1)), Write::History(detail(1, None).into())])).unwrap();
    store.commit(&group([Write::Log(entry(2)), Write::History(detail(1, Some(9)).into())])).unwrap();
    drop(store);
    let (mut store, stored) = Store::open(dir.path()).unwrap();
    assert_eq!(stored.log, [entry(1), entry(2)]);
    assert_eq!(stored.rollout.unwrap().0.ended_ms, Some(9));
    let writes = [
        Write::Log(entry(3)),
        Write::History(detail(1, Some(9)).into()),
        rollout(2),
        Write::Log(LogEntry::Advance),
        Write::History(detail(2, None).into()),
    ];
    store.commit(&group(writes)).unwrap();
    let reader = store.reader();
    let summaries = reader.summaries(5).unwrap();
    assert_eq!(summaries, [detail(2, None).summary, detail(1, Some(9)).summary], "the newest first");
    assert_eq!(reader.history(1).unwrap(), [detail(2, None)]);
    assert_eq!(reader.rollout(Generation(1)).unwrap(), Some(detail(1, Some(9))));
    assert_eq!(reader.rollout(Generation(3)).unwrap(), None);
    drop((store, reader));
    let (_, stored) = Store::open(dir.path()).unwrap();
    assert_eq!(stored.log, [LogEntry::Advance], "what came before happened to the rollout before");
    let (head, snapshot) = stored.rollout.unwrap();
    assert_eq!((head.generation, head.ended_ms, snapshot.generation()), (Generation(2), None, Generation(2)));
}

#[test]
fn a_second_planner_and_a_newer_layout_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse { .. })));
    let tx = store.file.begin_write().unwrap();
    tx.open_table(META).unwrap().insert(SCHEMA_KEY, b"9".as_slice()).unwrap();
    tx.commit().unwrap();
    drop(store);
    let Err(error) = Store::open(dir.path()) else { panic!("opened") };
    assert!(matches!(error, StoreError::Newer { found: 9, known: SCHEMA, .. }));
    assert!(error.hint().unwrap().contains("use that release"));
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
    let record = |number: u64, result| {
        let output = Some(Output { head: "printed".to_owned(), ..Output::default() });
        let running = CommandNode { outcome: NodeOutcome::Running, duration_ms: None, omitted: 0, output };
        CommandRecord {
            // The order of ids is not that of time.
            id: ExecId::new(format!("{:08x}", u32::MAX - number as u32)).unwrap(),
            by: "root".to_owned(),
            on: "all".to_owned(),
            run: Run::Shell("true".to_owned()),
            user: None,
            cwd: None,
            env: Default::default(),
            timeout: Span::secs(60),
            started_ms: 1000 + number,
            finished_ms: None,
            result,
            nodes: [(node("a"), running)].into(),
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let last = EXECS + 4;
    for number in 0..=last {
        store.commit(&group([Write::Command(record(number, CommandResult::Running).into())])).unwrap();
        if number < last {
            store.commit(&group([Write::Command(record(number, CommandResult::Finished).into())])).unwrap();
        }
    }
    let reader = store.reader();
    let all = reader.execs(usize::MAX).unwrap();
    assert_eq!((all.len() as u64, all[0].started_ms, all.last().unwrap().started_ms), (EXECS, 1000 + last, 1005));
    assert!(all.iter().all(|record| record.nodes[&node("a")].output.is_none()));
    assert_eq!(reader.execs(3).unwrap(), all[..3]);
    assert_eq!(reader.exec(&all[1].id).unwrap(), Some(record(last - 1, CommandResult::Finished)));
    assert_eq!(reader.exec(&record(0, CommandResult::Finished).id).unwrap(), None);
    drop((store, reader));
    let (_, again) = Store::open(dir.path()).unwrap();
    assert_eq!(again.commands, [record(last, CommandResult::Running)], "what had not ended is there at the next start");
}

#[test]
fn refused_commits_are_kept_by_time_up_to_a_number() {
    let refusal = |at_ms| Refusal { at_ms, refused: RefusedCommit { commit: commit(), faults: Vec::new() } };
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    for at_ms in 0..REFUSED + 3 {
        store.commit(&group([Write::Refusal(refusal(at_ms).into())])).unwrap();
    }
    let reader = store.reader();
    let all = reader.refusals(usize::MAX).unwrap();
    assert_eq!((all.len() as u64, all.last().unwrap().at_ms), (REFUSED, 3));
    assert_eq!(reader.refusals(2).unwrap(), [refusal(REFUSED + 2), refusal(REFUSED + 1)]);
}

#[test]
fn a_store_without_the_table_of_refused_commits_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let tx = store.file.begin_write().unwrap();
    assert!(tx.delete_table(REFUSALS).unwrap());
    tx.commit().unwrap();
    drop(store);
    let (store, _) = Store::open(dir.path()).unwrap();
    assert_eq!(store.reader().refusals(1).unwrap(), []);
}

/// A directory with the store of the last release with layout 1.
fn old_store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("planner.redb"), SCHEMA_1).unwrap();
    dir
}

/// Every row of a file, by table and key, as it is there.
fn rows(dir: &Path) -> BTreeMap<String, Value> {
    let json = |row: &[u8]| serde_json::from_slice::<Value>(row).unwrap();
    let db = redb::Database::open(dir.join("planner.redb")).unwrap();
    let tx = db.begin_read().unwrap();
    let mut rows = BTreeMap::new();
    for row in tx.open_table(META).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        rows.insert(format!("meta {}", key.value()), json(value.value()));
    }
    for row in tx.open_table(NODES).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        rows.insert(format!("node {}", key.value()), json(value.value()));
    }
    for row in tx.open_table(ACKS).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        rows.insert(format!("ack {}", key.value()), json!(value.value()));
    }
    for row in tx.open_table(LOG).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        rows.insert(format!("log {}", key.value()), json(value.value()));
    }
    for row in tx.open_table(ROLLOUTS).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        rows.insert(format!("rollout {}", key.value()), json(value.value()));
    }
    for row in tx.open_table(COMMANDS).unwrap().iter().unwrap() {
        let (key, value) = row.unwrap();
        rows.insert(format!("command {}", key.value().1), json(value.value()));
    }
    rows
}

/// A row of layout 1 or 2 without what the step between them changes.
fn common(mut row: Value) -> Value {
    // A rollout's head and the history name their actions differently.
    let head = if row.is_array() { &mut row[0] } else { &mut row };
    for list in ["actions", "instances"] {
        for element in head.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            element.as_object_mut().unwrap().remove("reasons").unwrap();
        }
    }
    row
}

/// Each reason of a list of actions or instances.
fn reasons(row: &Value) -> impl Iterator<Item = &Value> {
    row.as_array().unwrap().iter().flat_map(|element| element["reasons"].as_array().unwrap())
}

#[test]
fn a_store_of_layout_1_reads_back() {
    let dir = old_store();
    let (store, stored) = Store::open(dir.path()).unwrap();
    let reader = store.reader();
    let mut shown = format!(
        "planner {} of site {:?}, generation {}, term {}\n",
        stored.meta.planner, stored.meta.site, stored.meta.generation, stored.meta.term
    );
    let mut line = |text: String| shown.push_str(&(text + "\n"));
    let active = stored.meta.active.unwrap();
    line(format!("active: {} by {}", active.subject, active.author));
    let refused = stored.meta.refused.unwrap();
    line(format!("refused: {}", refused.commit.subject));
    for fault in &refused.faults {
        let at = fault.at.as_ref().unwrap();
        let (line_number, text) = (at.place.line.unwrap(), at.text.as_deref().unwrap());
        line(format!("  {}:{line_number}: {} | {text}", at.place.file, fault.message));
    }
    for (name, node) in &stored.nodes {
        let applied: Vec<String> = node.belief.applied.tasks.keys().map(ToString::to_string).collect();
        let state = node.state.as_ref().unwrap();
        line(format!(
            "node {name}: generation {}, applied {}, obligations {:?}, state at {}, acknowledged {}",
            node.belief.generation,
            applied.join(" "),
            node.belief.applied.obligations.keys().collect::<Vec<_>>(),
            state.revision,
            stored.acks[name].1,
        ));
        // Kept as signed messages then, which no agent takes any more: each node is planned for again.
        assert_eq!((stored.plans.get(name), reader.plan(name).unwrap()), (None, None));
        assert_eq!(node.belief.ledger.as_ref(), Some(&stored.acks[name].0));
    }
    let (head, rollout) = stored.rollout.unwrap();
    line(format!("rollout {}: {}, ended {:?}", head.generation, head.commit.subject, head.ended_ms));
    assert_eq!((head.generation, head.actions.len()), (rollout.generation(), rollout.statuses().count()));
    for entry in &stored.log {
        line(match entry {
            LogEntry::Reports { node, first, reports, .. } => {
                let reports: Vec<_> = reports.iter().map(|r| format!("{} {}", r.task, r.outcome)).collect();
                format!("  reports of {node} from {first}: {}", reports.join(", "))
            }
            LogEntry::Presence { node, online } => format!("  {node} online: {online}"),
            LogEntry::Accepted { node, generation, running } => format!("  {node} at {generation} runs {running:?}"),
            LogEntry::Refused { node, generation, reason, .. } => format!("  {node} refused {generation}: {reason}"),
            LogEntry::Advance => "  gates".to_owned(),
        });
    }
    for known in reader.history(usize::MAX).unwrap() {
        let RolloutSummary { generation, commit, result, .. } = &known.summary;
        line(format!("history {generation}: {}, {result:?}", commit.subject));
        for instance in &known.instances {
            let state = match &instance.state {
                InstanceState::Finished(outcome) => outcome.to_string(),
                state => format!("{state:?}"),
            };
            let output = instance.output.as_ref().map(|output| format!(", printed {:?}", output.head));
            let planned = &instance.planned;
            line(format!("  {} {}: {state}{}", planned.action, planned.instance, output.unwrap_or_default()));
            for reason in &planned.reasons {
                line(format!("    {}", serde_json::to_string(reason).unwrap()));
            }
        }
        assert_eq!(reader.rollout(*generation).unwrap(), Some(known));
    }
    for command in reader.execs(usize::MAX).unwrap() {
        line(format!("command of {} on {}: {:?}, {:?}", command.by, command.on, command.run, command.result));
        for (node, state) in &reader.exec(&command.id).unwrap().unwrap().nodes {
            let printed = state.output.as_ref().map(|output| output.head.as_str());
            line(format!("  {node}: {}, printed {:?}", state.outcome, printed));
        }
    }
    let open: Vec<_> = stored.commands.iter().map(|command| (&command.run, command.result)).collect();
    line(format!("open at the start: {open:?}"));
    insta::assert_snapshot!(shown);
}

#[test]
fn a_planner_goes_on_from_a_store_of_layout_1() {
    let dir = old_store();
    let (mut store, stored) = Store::open(dir.path()).unwrap();
    let command = stored.commands[0].id.clone();
    let mut machine = Machine::restore(&Settings::new([0; 16]), stored, Now { wall_ms: 7, ..Now::default() });
    let view = machine.view();
    let RolloutSummary { result, counts, .. } = view.rollout.unwrap().summary();
    assert_eq!((result, counts), (RolloutResult::Running, Counts { running: 1, waiting: 3, changed: 2, ..counts }));
    let acked: Vec<_> = view.nodes.values().map(|node| node.acked.as_ref().unwrap().1.0).collect();
    assert_eq!(acked, [6, 19, 15]);

    let mut group = Group::default();
    for effect in machine.handle(Input::Tick, Now { wall_ms: 7, ..Now::default() }) {
        if let Effect::Persist(write) = effect {
            group.push(write);
        }
    }
    store.commit(&group).unwrap();
    let command = store.reader().exec(&command).unwrap().unwrap();
    assert_eq!((command.result, command.finished_ms), (CommandResult::Interrupted, Some(7)));
}

#[test]
fn a_store_of_layout_1_is_rewritten_once_and_loses_nothing() {
    let dir = old_store();
    let before = rows(dir.path());
    drop(Store::open(dir.path()).unwrap());
    let after = rows(dir.path());
    assert_eq!((&before["meta schema"], &after["meta schema"]), (&json!(1), &json!(SCHEMA)));
    assert!(before.keys().eq(after.keys()));

    for (key, old) in &before {
        let new = &after[key];
        match key.as_str() {
            "meta schema" => {}
            "meta meta" => {
                let mut old = old.clone();
                let mut faults = old["refused"].as_object_mut().unwrap().remove("diagnostics").unwrap();
                old["refused"]["faults"] = faults.take();
                old["active"] = old.as_object_mut().unwrap().remove("good").unwrap();
                assert_eq!(new, &old);
            }
            "meta rollout" => {
                let mut old = old.clone();
                for entry in old[1]["entries"].as_array_mut().unwrap() {
                    entry["obligation"] = entry.as_object_mut().unwrap().remove("owed").unwrap();
                }
                assert_eq!(common(new.clone()), common(old));
            }
            _ => assert_eq!(common(new.clone()), common(old.clone()), "{key}"),
        }
        // The types of the rows take all that is in them, but for what they dropped on purpose.
        let written = match key.split_once(' ').unwrap() {
            ("meta", "meta") => again::<MetaRow>(new),
            ("meta", "rollout") => again::<(HeadRow<'_>, Rollout)>(new),
            ("node", _) => again::<NodeRow>(new),
            ("log", _) => again::<LogRow>(new),
            ("rollout", _) => again::<HistoryRow>(new),
            ("command", _) => again::<CommandRow>(new),
            _ => new.clone(),
        };
        let mut new = new.clone();
        if let Some(fields) = new.as_object_mut().filter(|_| key.starts_with("rollout ") || key.starts_with("command "))
        {
            assert_eq!(fields.remove("version"), Some(json!(1)));
        }
        assert_eq!(written, new, "{key}");
    }
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for (rows, kinds) in [(&before, &mut old), (&after, &mut new)] {
        let history = rows.iter().filter(|(key, _)| key.starts_with("rollout ")).map(|(_, row)| &row["instances"]);
        for list in history.chain([&rows["meta rollout"][0]["actions"]]) {
            kinds.extend(reasons(list).map(|reason| reason["kind"].clone()));
        }
    }
    old.iter_mut().filter(|kind| **kind == "owed").for_each(|kind| *kind = json!("obligation"));
    assert_eq!(old, new, "every reason is there, in its place");
    let history = after.iter().filter(|(key, _)| key.starts_with("rollout ")).map(|(_, row)| &row["instances"]);
    for reason in history.flat_map(reasons) {
        again::<ReasonReport>(reason);
    }

    drop(Store::open(dir.path()).unwrap());
    assert_eq!(rows(dir.path()), after, "the second opening changes nothing");
}

/// A row as its type writes it.
fn again<T: serde::Serialize + serde::de::DeserializeOwned>(row: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(row.clone()).unwrap()).unwrap()
}

#[test]
fn a_migration_that_does_not_come_to_its_end_leaves_the_file_as_it_was() {
    let dir = old_store();
    let db = redb::Database::open(dir.path().join("planner.redb")).unwrap();
    let tx = db.begin_write().unwrap();
    // The last one of the history, when all else is rewritten.
    tx.open_table(ROLLOUTS).unwrap().insert(u64::MAX, br#"{"instances": [{}]}"#.as_slice()).unwrap();
    tx.commit().unwrap();
    drop(db);
    let before = rows(dir.path());
    assert!(matches!(Store::open(dir.path()), Err(StoreError::Record(_))));
    assert_eq!(before["meta schema"], json!(1));
    assert_eq!(rows(dir.path()), before);
}

#[test]
fn a_store_of_layout_1_without_commands_gets_a_table_of_them() {
    let dir = old_store();
    let db = redb::Database::open(dir.path().join("planner.redb")).unwrap();
    let tx = db.begin_write().unwrap();
    tx.delete_table(COMMANDS).unwrap();
    tx.commit().unwrap();
    drop(db);
    let (store, _) = Store::open(dir.path()).unwrap();
    assert_eq!(store.reader().execs(5).unwrap(), []);
}

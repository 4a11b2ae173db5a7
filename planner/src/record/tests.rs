//! One row of each kind, as it is in the file. A snapshot that differs is another layout: it needs another schema and a migration step,
//! or a default. What is written must also read back as the same value.

use std::{collections::BTreeMap, fmt::Debug, str::FromStr, sync::Arc};

use groundplan_core::{
    Belief, Rollout,
    applied::{Due, Forget, NodeApplied},
    knowledge::Unknown,
    plan::{Gate, NodePart, PendingInstance, Plan, PlanTask, PlannedAction, Position, ReasonReport},
};
use groundplan_machine::{
    command::{CommandNode, CommandRecord, CommandResult, NodeOutcome},
    commit::{Commit, Fault, FaultPlace, Refusal, RefusedCommit},
    damping::Damping,
    record::{LogEntry, Meta, Park, PastLedger, StoredNode},
    rollout::{
        Counts, Forgotten, InstanceDetail, InstanceState, PlannedReasons, RolloutDetail, RolloutHead, RolloutResult,
        RolloutSummary,
    },
};
use groundplan_protocol::{
    digest::{Digest, Fingerprint},
    duration::Span,
    effect::{Action, Effect},
    ids::{Generation, Sequence},
    kinds::Run,
    plan::{Trigger, TriggerSource},
    report::{Outcome, Output, TaskReport},
    state::{Applied, Obligation},
};
use insta::assert_snapshot;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{from_str, json, to_string_pretty};

use super::*;

fn id<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("an id")
}

fn commit() -> Commit {
    Commit {
        id: id(&"c0".repeat(20)),
        subject: "Move the database".into(),
        author: "Ada".into(),
        time: 1_700_000_000,
        rewinds: None,
    }
}

/// The row of a value as JSON, read again and found to be the same value.
fn written<T, R>(value: &T) -> String
where
    T: Clone + PartialEq + Debug + From<R>,
    R: Serialize + DeserializeOwned + From<T>,
{
    let row = to_string_pretty(&R::from(value.clone())).expect("JSON");
    assert_eq!(&T::from(from_str::<R>(&row).expect("what was written")), value);
    row
}

fn position(file: &str, line: usize) -> Position {
    Position { file: file.into(), line: Some(line), column: Some(1) }
}

/// Every kind of reason.
fn reasons() -> Vec<ReasonReport> {
    let at = || position("services/app/service.toml", 4);
    let input = || "task app.server".to_owned();
    vec![
        ReasonReport::Triggered { by: id("app.config@b"), effect: Effect::Restart },
        ReasonReport::Changed {
            input: "var port".into(),
            before: Some("1".into()),
            after: Some("2".into()),
            at: position("site.toml", 6),
        },
        ReasonReport::Added { input: "node b".into(), at: position("inventory/nodes.toml", 2) },
        ReasonReport::Removed {
            input: input(),
            at: Position { file: "services/app/service.toml".into(), line: None, column: None },
        },
        ReasonReport::Forgotten { input: input(), by: "ada".into(), why: "damaged".into(), at: at() },
        ReasonReport::Off { when: "false".into(), input: None, before: None, after: None, at: at() },
        ReasonReport::Asked { input: input(), at: at() },
        ReasonReport::Drifted { input: input(), what: "not active".into(), at: at() },
        ReasonReport::Obligation { input: input(), effect: Effect::Reload, at: at() },
    ]
}

fn report() -> TaskReport {
    TaskReport {
        generation: Generation(7),
        plan: None,
        task: id("app.config"),
        action: Action::Update,
        outcome: Outcome::Done { changed: true, effect: None },
        fingerprint: Some(Fingerprint(Digest::of(b"inputs"))),
        claims: Vec::new(),
        contends: Vec::new(),
        started_ms: 1000,
        duration_ms: 5,
        output: Some(Output { head: "written".into(), omitted: 0, tail: String::new() }),
        export: None,
    }
}

#[test]
fn meta() {
    let place =
        || FaultPlace { place: position("services/app/service.toml", 4), text: Some("kind = \"fil\"".to_owned()) };
    let fault = Fault {
        at: Some(place()),
        message: "there is no kind `fil`".into(),
        label: "here".into(),
        related: vec![(place(), "declared here".into())],
        hint: Some("`file`?".into()),
    };
    let whole = Fault { at: None, message: "no site".into(), label: String::new(), related: vec![], hint: None };
    let meta = Meta {
        site: Some(id("s")),
        planner: "0123456789abcdef".into(),
        generation: Generation(7),
        term: 2,
        active: Some(commit()),
        refused: Some(RefusedCommit { commit: commit(), faults: vec![fault, whole] }),
        forget: [(id("app.old@b"), Forget { by: "ada".into(), reason: "damaged".into() })].into(),
        elected: [(id("db.seed"), id("a"))].into(),
        parked: [(id("b"), Park { by: "ada".into(), reason: "new disk".into(), since_ms: 5, until_ms: Some(9) })]
            .into(),
    };
    assert_snapshot!(written::<_, MetaRow>(&meta));
    written::<_, MetaRow>(&Meta::default());
    let refused = meta.refused.expect("set above");
    written::<_, RefusalRow>(&Refusal { at_ms: 8, refused });
}

#[test]
fn node() {
    let applied = Applied {
        fingerprint: Fingerprint(Digest::of(b"inputs")),
        inputs: [("var port".to_owned(), "0011223344556677".to_owned())].into(),
        edges: Default::default(),
        claims: vec!["00000000000000a1".parse().unwrap()],
        contends: Vec::new(),
        on_remove: None,
        destroys: None,
    };
    let agreed = applied.clone();
    let obligation =
        Obligation { effect: Effect::Restart, fired: true, open: vec![TriggerSource::Task(id("app.config"))] };
    let ledger = "0123456789abcdef0123456789abcdef";
    let state = json!({
        "version": 1, "site": "s", "node": "b", "ledger": ledger, "revision": 3, "generation": 7, "phase": "idle",
        "sequence": 9, "facts": { "os": "debian" }, "agent": "0.1.0", "ignored": 0
    });
    let node = StoredNode {
        belief: Belief {
            ledger: Some(id(ledger)),
            revision: 3,
            sequence: Sequence(9),
            generation: Generation(7),
            applied: NodeApplied {
                tasks: Arc::new([(id("app.config"), applied)].into()),
                obligations: [(id("app.server"), obligation)].into(),
            },
        },
        past: vec![PastLedger { ledger: id("ffffffffffffffffffffffffffffffff"), revision: 7 }],
        seen_ms: 1_700_000_000_000,
        state: Some(serde_json::from_value(state).expect("a state")),
        damping: Damping {
            times: 4,
            last_ms: 1_700_000_000_000,
            until_ms: Some(1_700_000_010_000),
            agreed: BTreeMap::from([(id("app.config"), agreed)]),
            obligations: [id("app.server")].into(),
            exports: BTreeMap::from([(id("app.port"), Some("80".to_owned()))]),
            changes: BTreeMap::from([(id("app.port"), 5)]),
            counted: Some(Generation(7)),
        },
    };
    assert_snapshot!(written::<_, NodeRow>(&node));
    written::<_, NodeRow>(&StoredNode::default());
}

#[test]
fn head() {
    let planned = PlannedReasons { instance: id("app.server@b"), action: Action::Restart, reasons: reasons() };
    let head = RolloutHead {
        generation: Generation(7),
        commit: commit(),
        started_ms: 1_700_000_000_000,
        actions: [planned].into(),
        ended_ms: None,
        kept: [(id("a"), Generation(6))].into(),
    };
    let row = to_string_pretty(&HeadRow::from(&head)).expect("JSON");
    assert_eq!(RolloutHead::from(from_str::<HeadRow<'_>>(&row).expect("what was written")), head);
    assert_snapshot!(row);
}

/// The core serializes it; what it looks like is part of the layout nonetheless.
#[test]
fn snapshot_of_a_rollout() {
    let action = |instance: &str, action, waits_for: &[Unknown]| PlannedAction {
        instance: id(instance),
        action,
        on_remove: None,
        destroys: None,
        reasons: vec![],
        waits_for: waits_for.into(),
    };
    let task = |task: &str, action| PlanTask {
        task: id(task),
        action,
        resolved: None,
        edges: Arc::default(),
        after: vec![],
        gates: vec![],
        triggers: vec![],
        obligation: None,
        from: vec![],
        into: vec![],
        retry: None,
    };
    let part = |tasks| NodePart { tasks, edges: BTreeMap::new() };
    let server = PlanTask {
        after: vec![id("app.config")],
        gates: vec![id("db.server"), id("rolling/app.server@b")],
        triggers: vec![
            Trigger { effect: Effect::Restart, on: TriggerSource::Task(id("app.config")) },
            Trigger { effect: Effect::Reload, on: TriggerSource::Gate(id("db.server")) },
        ],
        obligation: Some(Due { effect: Effect::Run, since: Some(Generation(6)) }),
        ..task("app.server", Action::Restart)
    };
    let unknown = Unknown::Export { task: id("db.address"), node: id("a") };
    let plan = Plan {
        parked: [id("b")].into(),
        detached: [id("app.config@b")].into(),
        actions: vec![
            action("db.server@a", Action::Update, &[]),
            action("app.config@b", Action::Update, std::slice::from_ref(&unknown)),
            action("app.server@b", Action::Restart, &[]),
        ],
        nodes: [
            (id("a"), part(vec![task("db.server", Action::Update)])),
            (id("b"), part(vec![task("app.config", Action::Update), server])),
        ]
        .into(),
        gates: [
            (id("db.server"), Gate::Done { waits_for: vec![id("db.server@a")], fires_on: Some(id("db.server")) }),
            (id("rolling/app.server@b"), Gate::Turn { service: id("app"), limit: 1 }),
        ]
        .into(),
        prevented: vec![],
        pending: vec![PendingInstance {
            instance: id("app.check@b"),
            waits_for: vec![
                unknown,
                Unknown::Facts(id("a")),
                Unknown::Fact { name: "local.rack".into(), node: id("a") },
                Unknown::Fit { fault: "no number".into(), node: id("a") },
            ],
        }],
    };
    let mut rollout = Rollout::new(&plan, Generation(7));
    rollout.presence(&id("a"), true);
    rollout.fold(&id("a"), &TaskReport { task: id("db.server"), ..report() });
    rollout.advance();
    let row = to_string_pretty(&rollout).expect("JSON");
    assert_eq!(from_str::<Rollout>(&row).expect("what was written"), rollout);
    assert_snapshot!(row);
}

#[test]
fn log() {
    let reports = LogEntry::Reports {
        node: id("b"),
        ledger: id("0123456789abcdef0123456789abcdef"),
        first: Sequence(9),
        reports: vec![report()],
    };
    let refused = LogEntry::Refused {
        node: id("b"),
        generation: Generation(7),
        reason: "names a blob of 300 MiB; the limit is 256 MiB".to_owned(),
        at_ms: 1000,
    };
    let entries = [reports, LogEntry::Presence { node: id("b"), online: true }, refused, LogEntry::Advance];
    assert_snapshot!(entries.iter().map(written::<_, LogRow>).collect::<Vec<_>>().join("\n"));
}

#[test]
fn history() {
    let output = Output { head: String::new(), omitted: 2000, tail: "the end".into() };
    let instance = |state| InstanceDetail {
        planned: PlannedReasons { instance: id("app.config@b"), action: Action::Update, reasons: vec![] },
        state,
        started_ms: None,
        duration_ms: None,
        output: None,
    };
    let failed = InstanceDetail {
        planned: PlannedReasons { instance: id("app.server@b"), action: Action::Restart, reasons: reasons() },
        started_ms: Some(1000),
        duration_ms: Some(5),
        output: Some(output),
        ..instance(InstanceState::Finished(Outcome::Failed { error: "exited with 1".into() }))
    };
    let waiting =
        InstanceState::Waiting { on: vec![id("db.server@a")], others: 3, unknown: vec!["facts of node a".into()] };
    let detail = RolloutDetail {
        summary: RolloutSummary {
            generation: Generation(7),
            commit: commit(),
            result: RolloutResult::Failed,
            counts: Counts { failed: 1, waiting: 1, ..Counts::default() },
            nodes: 2,
            started_ms: 1_700_000_000_000,
            finished_ms: Some(1_700_000_000_100),
            forgotten: vec![Forgotten { instance: id("app.old@b"), by: "ada".into(), why: "damaged".into() }],
        },
        instances: vec![failed, instance(waiting), instance(InstanceState::Pending), instance(InstanceState::Running)],
        pending: vec![(id("app.check@b"), vec!["export db.address of a".into()])],
    };
    let row = written::<_, HistoryRow>(&detail);
    assert_eq!(RolloutSummary::from(from_str::<SummaryRow>(&row).expect("a summary")), detail.summary);
    assert_snapshot!(row);
}

#[test]
fn command() {
    let node = |outcome| CommandNode { outcome, duration_ms: None, omitted: 0, output: None };
    let exited = CommandNode {
        duration_ms: Some(5),
        omitted: 10,
        output: Some(Output { head: "up".into(), omitted: 0, tail: String::new() }),
        ..node(NodeOutcome::Exited { code: 0 })
    };
    let command = CommandRecord {
        id: id("0123abcd"),
        by: "root".into(),
        on: "group:web".into(),
        run: Run::Args(vec!["uptime".into(), "-p".into()]),
        user: Some("www-data".into()),
        cwd: Some("/srv".into()),
        env: ["LANG".to_owned()].into(),
        timeout: Span::secs(60),
        started_ms: 1_700_000_000_000,
        finished_ms: Some(1_700_000_000_100),
        result: CommandResult::Finished,
        nodes: [
            (id("a"), exited),
            (id("b"), node(NodeOutcome::Waiting)),
            (id("c"), node(NodeOutcome::Running)),
            (id("d"), node(NodeOutcome::Killed { signal: "SIGSEGV".into() })),
            (id("e"), node(NodeOutcome::TimedOut)),
            (id("f"), node(NodeOutcome::Stopped)),
            (id("g"), node(NodeOutcome::Refused { reason: "exec is off".into() })),
            (id("h"), node(NodeOutcome::Failed { error: "no such user".into() })),
            (id("i"), node(NodeOutcome::Offline)),
            (id("j"), node(NodeOutcome::CutOff { began: true })),
            (id("k"), node(NodeOutcome::Lost)),
            (id("l"), node(NodeOutcome::Interrupted)),
            (id("m"), node(NodeOutcome::MayHaveRun)),
        ]
        .into(),
    };
    assert_snapshot!(written::<_, CommandRow>(&command));
    for result in [CommandResult::Running, CommandResult::Stopped, CommandResult::Interrupted] {
        written::<_, CommandRow>(&CommandRecord { result, ..command.clone() });
    }
}

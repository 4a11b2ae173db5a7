//! The machine's values as the API's types.

use groundplan_machine::{
    command, commit,
    fleet::{self, Node},
    io, leadership, rollout,
};
use groundplan_protocol::ids::ExecId;

use crate::{
    api::{
        event::Event,
        exec::{ExecEvent, ExecNode, ExecRecord, ExecResult, NodeOutcome},
        types::{
            Commit, Counts, Fault, FaultPlace, Forgotten, InstanceRecord, InstanceState, NodePresence, PendingRecord,
            RefusedCommit, Rejected, Related, Rewind, Role, RolloutDetail, RolloutResult, RolloutSummary, VERSION,
        },
    },
    store::StoreError,
};

impl From<commit::Commit> for Commit {
    fn from(commit::Commit { id, subject, author, time, rewinds }: commit::Commit) -> Self {
        let rewinds = rewinds.map(|rewinds| Rewind { from: rewinds.from, commits: rewinds.commits });
        Self { id, subject, author, time, rewinds }
    }
}

fn place(commit::FaultPlace { place: position, text }: commit::FaultPlace) -> FaultPlace {
    FaultPlace { file: position.file, line: position.line, column: position.column, text }
}

impl From<commit::RefusedCommit> for RefusedCommit {
    fn from(refused: commit::RefusedCommit) -> Self {
        let faults = refused.faults.into_iter().map(|fault| Fault {
            at: fault.at.map(place),
            message: fault.message,
            label: fault.label,
            related: fault.related.into_iter().map(|(at, words)| Related { at: place(at), words }).collect(),
            hint: fault.hint,
        });
        Self { diagnostics: faults.collect(), commit: refused.commit.into() }
    }
}

impl From<fleet::NodePresence> for NodePresence {
    fn from(presence: fleet::NodePresence) -> Self {
        match presence {
            fleet::NodePresence::Online => Self::Online,
            fleet::NodePresence::Offline => Self::Offline,
            fleet::NodePresence::Unknown => Self::Unknown,
        }
    }
}

/// The presence of a node, which may have sent no message yet.
pub(super) fn presence(node: Option<&Node>) -> NodePresence {
    node.map(|node| node.presence).unwrap_or_default().into()
}

impl From<fleet::Rejected> for Rejected {
    fn from(fleet::Rejected { count, reason, hint }: fleet::Rejected) -> Self {
        Self { count, reason, hint }
    }
}

impl From<leadership::Role> for Role {
    fn from(role: leadership::Role) -> Self {
        match role {
            leadership::Role::Starting => Self::Starting,
            leadership::Role::Planning => Self::Planning,
            leadership::Role::Standby { planner } => Self::Standby { planner },
        }
    }
}

impl From<rollout::Counts> for Counts {
    fn from(counts: rollout::Counts) -> Self {
        let rollout::Counts { pending, waiting, running, changed, unchanged, failed, blocked, superseded } = counts;
        Self { pending, waiting, running, changed, unchanged, failed, blocked, superseded }
    }
}

impl From<rollout::RolloutResult> for RolloutResult {
    fn from(result: rollout::RolloutResult) -> Self {
        match result {
            rollout::RolloutResult::Running => Self::Running,
            rollout::RolloutResult::Waiting => Self::Waiting,
            rollout::RolloutResult::Succeeded => Self::Succeeded,
            rollout::RolloutResult::Failed => Self::Failed,
            rollout::RolloutResult::Superseded => Self::Superseded,
        }
    }
}

impl From<rollout::RolloutSummary> for RolloutSummary {
    fn from(summary: rollout::RolloutSummary) -> Self {
        Self {
            generation: summary.generation,
            commit: summary.commit.into(),
            result: summary.result.into(),
            counts: summary.counts.into(),
            nodes: summary.nodes,
            unplanned: 0,
            degraded: 0,
            started_ms: summary.started_ms,
            finished_ms: summary.finished_ms,
            forgotten: summary.forgotten.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<rollout::Forgotten> for Forgotten {
    fn from(forgotten: rollout::Forgotten) -> Self {
        let rollout::Forgotten { instance, by, why } = forgotten;
        Self { instance, by, why }
    }
}

impl From<rollout::InstanceState> for InstanceState {
    fn from(state: rollout::InstanceState) -> Self {
        match state {
            rollout::InstanceState::Pending => Self::Pending,
            rollout::InstanceState::Waiting { on, others, unknown } => Self::Waiting { on, others, unknown },
            rollout::InstanceState::Running => Self::Running,
            rollout::InstanceState::Finished(outcome) => Self::Finished { outcome },
        }
    }
}

impl From<rollout::InstanceDetail> for InstanceRecord {
    fn from(detail: rollout::InstanceDetail) -> Self {
        let rollout::InstanceDetail { planned, state, started_ms, duration_ms, output } = detail;
        let rollout::PlannedReasons { instance, action, reasons } = planned;
        Self { instance, action, reasons, state: state.into(), started_ms, duration_ms, output }
    }
}

impl From<rollout::RolloutDetail> for RolloutDetail {
    fn from(detail: rollout::RolloutDetail) -> Self {
        let instances = detail.instances.into_iter().map(Into::into);
        let pending = detail.pending.into_iter().map(|(instance, waits_for)| PendingRecord { instance, waits_for });
        Self {
            version: VERSION,
            summary: detail.summary.into(),
            instances: instances.collect(),
            pending: pending.collect(),
        }
    }
}

impl From<io::Event> for Event {
    fn from(event: io::Event) -> Self {
        match event {
            io::Event::Refused(refused) => Self::Refused { refused: refused.into() },
            io::Event::Commit(commit) => Self::Commit { commit: commit.into() },
            io::Event::RolloutStarted(rollout) => Self::RolloutStarted { rollout: rollout.into() },
            io::Event::TaskStarted(instance) => Self::TaskStarted { instance },
            io::Event::TaskFinished { instance, action, outcome, duration_ms, skipped, counts } => {
                Self::TaskFinished { instance, action, outcome, duration_ms, skipped, counts: counts.into() }
            }
            io::Event::RolloutFinished(rollout) => Self::RolloutFinished { rollout: rollout.into() },
            io::Event::Node(node, presence) => Self::Node { node, presence: presence.into() },
            io::Event::Degraded(instance, why) => Self::Degraded { instance, why },
            io::Event::Role(role) => Self::Role { role: role.into() },
            io::Event::Idle => Self::Idle,
        }
    }
}

impl From<command::NodeOutcome> for NodeOutcome {
    fn from(outcome: command::NodeOutcome) -> Self {
        use command::NodeOutcome as From;
        match outcome {
            From::Waiting => Self::Waiting,
            From::Running => Self::Running,
            From::Exited { code } => Self::Exited { code },
            From::Killed { signal } => Self::Killed { signal },
            From::TimedOut => Self::TimedOut,
            From::Stopped => Self::Stopped,
            From::Refused { reason } => Self::Refused { reason },
            From::Failed { error } => Self::Failed { error },
            From::Offline => Self::Offline,
            From::CutOff { began } => Self::CutOff { began },
            From::MayHaveRun => Self::MayHaveRun,
            From::Lost => Self::Lost,
            From::Interrupted => Self::Interrupted,
        }
    }
}

impl From<command::CommandRecord> for ExecRecord {
    fn from(record: command::CommandRecord) -> Self {
        let nodes = record.nodes.into_iter().map(|(id, node)| {
            let command::CommandNode { outcome, duration_ms, omitted, output } = node;
            (id, ExecNode { outcome: outcome.into(), duration_ms, omitted, output })
        });
        Self {
            version: VERSION,
            id: record.id,
            by: record.by,
            on: record.on,
            run: record.run,
            user: record.user,
            cwd: record.cwd,
            env: record.env,
            timeout: record.timeout,
            started_ms: record.started_ms,
            finished_ms: record.finished_ms,
            result: match record.result {
                command::CommandResult::Running => ExecResult::Running,
                command::CommandResult::Finished => ExecResult::Finished,
                command::CommandResult::Stopped => ExecResult::Stopped,
                command::CommandResult::Interrupted => ExecResult::Interrupted,
            },
            nodes: nodes.collect(),
        }
    }
}

/// An event of a command, for its client.
pub(crate) fn command_event(id: &ExecId, event: command::CommandEvent) -> ExecEvent {
    match event {
        command::CommandEvent::Started { nodes } => ExecEvent::Started {
            version: VERSION,
            id: id.clone(),
            nodes: nodes.into_iter().map(|(node, presence)| (node, presence.into())).collect(),
        },
        command::CommandEvent::Begun { node } => ExecEvent::Begun { node },
        command::CommandEvent::Output { node, stream, text } => ExecEvent::Output { node, stream, text },
        command::CommandEvent::NodeEnded { node, outcome, duration_ms, omitted } => {
            ExecEvent::NodeEnded { node, outcome: outcome.into(), duration_ms, omitted }
        }
        command::CommandEvent::Finished { record } => ExecEvent::Finished { record: Box::new((*record).into()) },
    }
}

impl From<StoreError> for crate::api::types::Problem {
    fn from(error: StoreError) -> Self {
        Self { kind: crate::api::types::ProblemKind::Internal, hint: error.hint(), error: error.to_string() }
    }
}

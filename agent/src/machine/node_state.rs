//! The node's state, as it is published to the planner.
//!
//! In: the machine. Out: a `NodeState` that holds nothing but what the ledger holds. Its revision never goes back: the upper
//! half counts the openings of the ledger.

use std::{collections::BTreeMap, time::Duration};

use groundplan_protocol::{
    VERSION,
    digest::{Digest, Fingerprint},
    ids::TaskId,
    kinds::ClaimKey,
    plan::OnRemove,
    state::{Applied, NodeState, Obligation, Phase, UNFINISHED},
    time::Now,
};

use super::{
    found,
    io::Effect,
    snapshot::{Record, StoredObligation, Taking},
    state::Machine,
};

/// The state is published at most this often, except where it shows progress of the plan itself.
const STATE_EVERY: Duration = Duration::from_secs(1);
/// Added to that for each applied task: a state lists them all.
const STATE_PER_TASK: Duration = Duration::from_millis(2);

impl Machine {
    /// Has the state published as soon as the last one is old enough.
    pub(super) fn request_state(&mut self, now: Now) {
        let every = STATE_EVERY + STATE_PER_TASK * u32::try_from(self.applied.len()).unwrap_or(u32::MAX / 2000);
        let at = self.last_state.map_or(now.mono, |last| (last + every).max(now.mono));
        self.due.state = Some(self.due.state.map_or(at, |due| due.min(at)));
    }

    pub(super) fn publish_state(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.revision += 1;
        self.last_state = Some(now.mono);
        out.push(Effect::State(Box::new(self.node_state())));
    }

    /// The node's state at this moment, under the revision of the last one that was published.
    pub fn node_state(&self) -> NodeState {
        let obligations = self.obligations.iter();
        NodeState {
            version: VERSION,
            site: self.settings.site.clone(),
            node: self.settings.node.clone(),
            ledger: self.ledger.clone(),
            revision: self.numbered(self.revision),
            generation: self.generation(),
            commit: self.active.as_ref().map(|active| active.commit.clone()),
            receipt: self.active.as_ref().and_then(|active| active.receipt.clone()),
            phase: self.phase(),
            sequence: self.outbox.stored(),
            applied: self.applied_state(),
            running: self.running.iter().filter(|(_, run)| run.at.is_none()).map(|(task, _)| task.clone()).collect(),
            obligations: obligations.filter_map(|(task, stored)| Some((task.clone(), obligation(stored)?))).collect(),
            facts: self.facts.clone(),
            exports: self.applied.iter().filter_map(|(task, r)| Some((task.clone(), r.export.clone()?))).collect(),
            found: found::list(&self.found),
            degraded: self.degraded(),
            agent: self.settings.agent.clone(),
            encryption_key: Some(self.settings.encryption_key),
            private: None,
            refused: self.refused.clone(),
            ignored: self.ignored,
        }
    }

    /// What is applied and does not work, and what has failed and is to be tried again.
    fn degraded(&self) -> BTreeMap<TaskId, String> {
        let applied = self.degraded.iter().filter(|(task, _)| self.applied.contains_key(task));
        let mut degraded: BTreeMap<_, _> = applied.map(|(task, why)| (task.clone(), why.clone())).collect();
        for node in self.active.iter().flat_map(|active| active.queue.iter()) {
            let (Some((failed, why)), Some(retry)) = (&node.failed, node.planned.retry) else { continue };
            if node.is_waiting() {
                let next = retry
                    .after(*failed)
                    .map_or_else(String::new, |wait| format!(", the next one follows {} s after it", wait.as_secs()));
                let why = format!("attempt {failed} of {} failed{next}: {why}", retry.attempts);
                degraded.insert(node.planned.task.clone(), why);
            }
        }
        degraded
    }

    /// What is applied; and what is about to be taken over, as in doubt: it is to be removed if no site declares its task any more.
    fn applied_state(&self) -> BTreeMap<TaskId, Applied> {
        let mut all: BTreeMap<_, _> =
            self.applied.iter().map(|(task, record)| (task.clone(), applied(task, record))).collect();
        for (task, takings) in &self.takings {
            for Taking { record: taken, .. } in takings {
                let doubtful = applied(task, taken);
                let entry = all.entry(task.clone()).or_insert_with(|| doubtful.clone());
                entry.fingerprint = doubtful.fingerprint;
                entry.inputs.extend(doubtful.inputs.into_iter().filter(|(name, _)| name == UNFINISHED));
                entry.claims = joined(&entry.claims, doubtful.claims);
                entry.contends = joined(&entry.contends, doubtful.contends);
            }
        }
        all
    }

    /// Whether it fetches blobs, carries out a plan, or has nothing to do.
    pub fn phase(&self) -> Phase {
        match &self.active {
            Some(active) if !active.missing.is_empty() => Phase::Fetching,
            Some(active) if !active.queue.is_finished() => Phase::Running,
            _ if !self.running.is_empty() => Phase::Running,
            _ => Phase::Idle,
        }
    }
}

fn applied(task: &TaskId, record: &Record) -> Applied {
    let mut inputs = record.inputs.clone();
    if record.is_doubtful() {
        // An input of its own, so that the planner can name the reason for which the task is applied again.
        inputs.insert(UNFINISHED.to_owned(), fingerprint_in_doubt(record).0.short());
    }
    let fingerprint = fingerprint(record);
    let on_remove = record.spec.params.leaves_something().then_some(record.edges.on_remove);
    let keeps = record.edges.on_remove == OnRemove::Keep;
    let destroys = record.spec.params.destroyed_by_removal().filter(|_| record.touched && !keeps);
    let mut edges = record.edges.clone();
    // Of what no job has touched nothing can be destroyed.
    edges.prevent_destroy &= record.touched;
    Applied {
        fingerprint,
        inputs,
        edges,
        claims: record.spec.identity(task),
        contends: record.spec.contends(task),
        on_remove,
        destroys,
    }
}

/// Both, sorted, each once.
pub(super) fn joined(some: &[ClaimKey], mut more: Vec<ClaimKey>) -> Vec<ClaimKey> {
    more.extend(some);
    more.sort_unstable();
    more.dedup();
    more
}

/// The fingerprint as the planner is to know it. In doubt it is one that no plan has: it differs from whatever is desired.
pub(super) fn fingerprint(record: &Record) -> Fingerprint {
    match record.is_doubtful() {
        true => fingerprint_in_doubt(record),
        false => record.fingerprint,
    }
}

fn fingerprint_in_doubt(record: &Record) -> Fingerprint {
    Fingerprint(Digest::of(format!("in doubt: {}", record.fingerprint).as_bytes()))
}

fn obligation(stored: &StoredObligation) -> Option<Obligation> {
    let greatest = stored.open.iter().map(|(_, effect)| *effect).max();
    // The greatest that it may become: a planner that lost its store has to assume that what is open has fired.
    let effect = stored.fired.max(greatest)?;
    let mut open: Vec<_> = stored.open.iter().map(|(source, _)| source.clone()).collect();
    open.sort();
    open.dedup();
    Some(Obligation { effect, fired: stored.fired.is_some(), open })
}

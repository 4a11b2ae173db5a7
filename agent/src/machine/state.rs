//! The node's state, as it is told to the planner.
//!
//! In: the machine. Out: a `NodeState` that says nothing which the ledger does not hold; its revision never goes back,
//! for its upper half counts the openings of the ledger.

use groundplan_protocol::{
    VERSION,
    digest::{Digest, Fingerprint},
    state::{Applied, NodeState, Obligation, Phase},
    time::Now,
};

use super::{Effect, Machine, Record, STATE_EVERY, STATE_PER_TASK, StoredObligation};

impl Machine {
    /// Publishes the state as soon as the last one is old enough.
    pub(super) fn wish_state(&mut self, now: Now) {
        let every = STATE_EVERY + STATE_PER_TASK * u32::try_from(self.applied.len()).unwrap_or(u32::MAX / 2000);
        let at = self.last_state.map_or(now.mono, |last| (last + every).max(now.mono));
        self.due.state = Some(self.due.state.map_or(at, |due| due.min(at)));
    }

    pub(super) fn publish_state(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.revision += 1;
        self.last_state = Some(now.mono);
        out.push(Effect::State(Box::new(self.node_state())));
    }

    /// What the agent says of its node.
    pub fn node_state(&self) -> NodeState {
        NodeState {
            version: VERSION,
            site: self.settings.site.clone(),
            node: self.settings.node.clone(),
            ledger: self.ledger.clone(),
            revision: self.numbered(self.revision),
            generation: self.generation(),
            commit: self.current.as_ref().map(|c| c.commit.clone()),
            phase: self.phase(),
            sequence: self.reports.stored(),
            applied: self.applied.iter().map(|(task, record)| (task.clone(), told(record))).collect(),
            obligations: self
                .obligations
                .iter()
                .filter_map(|(task, owed)| Some((task.clone(), obligation(owed)?)))
                .collect(),
            facts: self.facts.clone(),
            exports: self.applied.iter().filter_map(|(task, r)| Some((task.clone(), r.export.clone()?))).collect(),
            agent: self.settings.agent.clone(),
            refused: self.refused.clone(),
            ignored: self.ignored,
        }
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        match &self.current {
            Some(current) if !current.missing.is_empty() => Phase::Fetching,
            Some(current) if !current.queue.is_finished() => Phase::Running,
            _ if !self.running.is_empty() => Phase::Running,
            _ => Phase::Idle,
        }
    }
}

fn told(record: &Record) -> Applied {
    let mut inputs = record.inputs.clone();
    if record.in_doubt {
        inputs.insert("unfinished".to_owned(), fingerprint_in_doubt(record).0.short());
    }
    let fingerprint = if record.in_doubt { fingerprint_in_doubt(record) } else { record.fingerprint };
    Applied { fingerprint, inputs, edges: record.edges.clone() }
}

/// A fingerprint that no plan has: whatever is desired, it differs.
pub(super) fn fingerprint_in_doubt(record: &Record) -> Fingerprint {
    Fingerprint(Digest::of(format!("in doubt: {}", record.fingerprint).as_bytes()))
}

fn obligation(owed: &StoredObligation) -> Option<Obligation> {
    let greatest = owed.open.iter().map(|(_, effect)| *effect).max();
    // The greatest that it may come to: a planner without a store can but presume that what is open has fired.
    let effect = owed.fired.max(greatest)?;
    let mut open: Vec<_> = owed.open.iter().map(|(source, _)| source.clone()).collect();
    open.sort();
    open.dedup();
    Some(Obligation { effect, fired: owed.fired.is_some(), open })
}

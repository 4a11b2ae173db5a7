//! The status of a rollout: per instance, in numbers, as a whole, and along the chain of what an instance waits for.

use std::collections::BTreeSet;

use groundplan_protocol::{
    effect::Action,
    ids::{InstanceId, NodeId},
    report::Outcome,
};

use super::{
    model::{Opens, Rollout, Standing, Status, Summary, Verdict, Wait},
    outlook::Outlook,
    waits::Lister,
};

impl Rollout {
    /// Every instance with its action and status, in the plan's order.
    pub fn statuses(&self) -> impl Iterator<Item = (InstanceId, Action, Status)> {
        let (outlooks, mut lister) = (self.outlooks(), Lister::new(self));
        self.entries.iter().enumerate().map(move |(i, entry)| {
            (entry.instance.clone(), entry.action, self.status_of(i as u32, outlooks[i], &mut lister))
        })
    }

    /// As [`Self::statuses`], without the evidence.
    pub fn standings(&self) -> impl Iterator<Item = (&InstanceId, Standing)> {
        let outlooks = self.outlooks();
        self.entries
            .iter()
            .enumerate()
            .map(move |(i, entry)| (&entry.instance, self.standing_of(i as u32, outlooks[i])))
    }

    /// The status of one instance; none if it is not in the plan.
    pub fn status(&self, instance: &InstanceId) -> Option<Status> {
        let i = self.find(&instance.node, &instance.task)?;
        Some(self.status_of(i, self.outlooks()[i as usize], &mut Lister::new(self)))
    }

    /// An instance with its status, then the one that it waits for or is blocked by, then the one that that waits for, to the last.
    pub fn why(&self, instance: &InstanceId) -> Vec<(InstanceId, Status)> {
        let (outlooks, mut lister) = (self.outlooks(), Lister::new(self));
        let mut chain = Vec::new();
        let mut next = self.find(&instance.node, &instance.task);
        while let Some(i) = next.filter(|_| chain.len() <= self.entries.len()) {
            let status = self.status_of(i, outlooks[i as usize], &mut lister);
            let on = match &status {
                Status::Blocked { by } => Some(by.clone()),
                Status::Waiting(waits) => waits.iter().find_map(|wait| match wait {
                    Wait::Instance { instance, .. } => Some(instance.clone()),
                    Wait::Offline | Wait::Others { .. } | Wait::Turn { .. } | Wait::Unknown(_) => None,
                }),
                _ => None,
            };
            chain.push((self.entries[i as usize].instance.clone(), status));
            next = on.and_then(|on| self.find(&on.node, &on.task));
        }
        chain
    }

    /// How many instances have which status.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary { total: self.entries.len(), ..Summary::default() };
        self.standings().for_each(|(_, standing)| *summary.count(standing) += 1);
        summary
    }

    /// The state of the rollout as a whole.
    pub fn verdict(&self) -> Verdict {
        let mut outlooks = self.outlooks();
        // The rollout does not wait for what a parked node does when it is back.
        for (entry, outlook) in self.entries.iter().zip(&mut outlooks) {
            if *outlook == Outlook::Away && self.parked.contains(&entry.instance.node) {
                *outlook = Outlook::Done;
            }
        }
        let has = |outlook| outlooks.contains(&outlook);
        if has(Outlook::Live) {
            return Verdict::Running;
        }
        if has(Outlook::Away) {
            let away = self.entries.iter().zip(&outlooks).filter(|(_, outlook)| **outlook == Outlook::Away);
            let nodes: BTreeSet<_> = away.map(|(entry, _)| &entry.instance.node).collect();
            return Verdict::Offline(nodes.into_iter().filter(|node| !self.online(node)).cloned().collect());
        }
        let open = |outlook: &&Outlook| !matches!(outlook, Outlook::Done | Outlook::Unknown);
        match outlooks.iter().find(open) {
            Some(_) => Verdict::Failed,
            None if has(Outlook::Unknown) || !self.pending.is_empty() => Verdict::Waiting,
            None => Verdict::Succeeded,
        }
    }

    /// Whether something on a node is not done. It may be done after the rollout has ended without the node, because that is parked.
    pub fn is_open_on(&self, node: &NodeId) -> bool {
        let mut order = self.nodes.get(node).into_iter().flat_map(|at| at.order.iter());
        order.any(|i| !self.entries[*i as usize].succeeded())
    }

    /// The standing of an entry: what was reported for this plan, else what its outlook says, else whether it waits for anything.
    fn standing_of(&self, i: u32, outlook: Outlook) -> Standing {
        let entry = &self.entries[i as usize];
        match (&entry.outcome, outlook) {
            (Some(Outcome::Done { changed, .. }), _) => Standing::Done { changed: *changed },
            (Some(Outcome::Skipped), _) => Standing::Skipped,
            (Some(Outcome::Superseded), _) => Standing::Superseded,
            (Some(_), _) if entry.failed() => Standing::Failed,
            (_, Outlook::Stuck(_) | Outlook::Unavailable(_)) => Standing::Blocked,
            _ if entry.running || !self.waits(i) => Standing::Running,
            _ => Standing::Waiting,
        }
    }

    /// Whether an entry waits for anything, so that it cannot run.
    fn waits(&self, i: u32) -> bool {
        let entry = &self.entries[i as usize];
        let closed = entry.gates.iter().map(|g| &self.gates[*g as usize]).filter(|gate| gate.open.is_none());
        !self.online(&entry.instance.node)
            || entry.after.iter().any(|i| !self.entries[*i as usize].succeeded())
            || !entry.unknown.is_empty()
            || closed.into_iter().any(|gate| match gate.opens {
                Opens::Done { left, .. } => left > 0,
                Opens::Turn { .. } => true,
                Opens::Unknown => false,
            })
    }

    /// The status of an entry: its standing, with the evidence.
    fn status_of(&self, i: u32, outlook: Outlook, lister: &mut Lister<'_>) -> Status {
        let entry = &self.entries[i as usize];
        match self.standing_of(i, outlook) {
            Standing::Waiting => Status::Waiting(lister.waits(i)),
            Standing::Running => Status::Running,
            Standing::Done { changed } => {
                let effect = match &entry.outcome {
                    Some(Outcome::Done { effect, .. }) => *effect,
                    _ => None,
                };
                Status::Done { changed, effect }
            }
            Standing::Skipped => Status::Skipped,
            Standing::Superseded => Status::Superseded,
            Standing::Failed => Status::Failed {
                error: match &entry.outcome {
                    Some(Outcome::Failed { error }) => error.clone(),
                    other => other.as_ref().map(ToString::to_string).unwrap_or_default(),
                },
            },
            Standing::Blocked => Status::Blocked {
                by: match outlook {
                    Outlook::Unavailable(held) => {
                        let held = &self.held[held as usize];
                        held.task.at(&held.node)
                    }
                    Outlook::Stuck(by) => self.entries[by as usize].instance.clone(),
                    Outlook::Done | Outlook::Live | Outlook::Away | Outlook::Unknown | Outlook::Superseded => {
                        entry.instance.clone()
                    }
                },
            },
        }
    }
}

impl Summary {
    /// The number of instances of that standing.
    fn count(&mut self, standing: Standing) -> &mut usize {
        match standing {
            Standing::Waiting => &mut self.waiting,
            Standing::Running => &mut self.running,
            Standing::Done { changed: true } => &mut self.changed,
            Standing::Done { changed: false } => &mut self.unchanged,
            Standing::Skipped => &mut self.skipped,
            Standing::Failed => &mut self.failed,
            Standing::Blocked => &mut self.blocked,
            Standing::Superseded => &mut self.superseded,
        }
    }
}

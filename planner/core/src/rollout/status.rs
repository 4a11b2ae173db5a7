//! The status of a rollout: per instance, in numbers, as a whole, and along the chain of what an instance waits for.

use std::collections::BTreeSet;

use groundplan_protocol::{
    effect::Action,
    ids::{InstanceId, NodeId, ServiceId},
    report::Outcome,
};

use super::model::{Entry, HeldTurn, On, Opens, Rollout, Status, Summary, Verdict, Wait};

/// What can still happen to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// Nothing: it succeeded.
    Done,
    /// It can go on, or what it waits for can.
    Live,
    /// Nothing until a node is online.
    Away,
    /// Nothing until a value is reported.
    Unknown,
    /// Nothing: this entry failed, which is itself or one that it comes after.
    Stuck(u32),
    /// Nothing: the task of this turn of an earlier rollout failed, and is not in this plan.
    Unavailable(u32),
    /// Nothing: a newer plan took its place.
    Superseded,
}

impl Rollout {
    /// Every instance with its action and status, in the plan's order.
    pub fn statuses(&self) -> impl Iterator<Item = (InstanceId, Action, Status)> {
        let outlooks = self.outlooks();
        self.entries
            .iter()
            .enumerate()
            .map(move |(i, entry)| (entry.instance.clone(), entry.action, self.status_of(i as u32, outlooks[i])))
    }

    /// The status of one instance; none if it is not in the plan.
    pub fn status(&self, instance: &InstanceId) -> Option<Status> {
        let i = self.find(&instance.node, &instance.task)?;
        Some(self.status_of(i, self.outlooks()[i as usize]))
    }

    /// An instance with its status, then the one that it waits for or is blocked by, then the one that that waits for, to the last.
    pub fn why(&self, instance: &InstanceId) -> Vec<(InstanceId, Status)> {
        let outlooks = self.outlooks();
        let mut chain = Vec::new();
        let mut next = self.find(&instance.node, &instance.task);
        while let Some(i) = next.filter(|_| chain.len() <= self.entries.len()) {
            let status = self.status_of(i, outlooks[i as usize]);
            let on = match &status {
                Status::Blocked { by } => Some(by.clone()),
                Status::Waiting(waits) => waits.iter().find_map(|wait| match wait {
                    Wait::Instance { instance, .. } => Some(instance.clone()),
                    Wait::Offline | Wait::Turn { .. } | Wait::Unknown(_) => None,
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
        for (_, _, status) in self.statuses() {
            let count = match status {
                Status::Waiting(_) => &mut summary.waiting,
                Status::Running => &mut summary.running,
                Status::Done { changed: true, .. } => &mut summary.changed,
                Status::Done { changed: false, .. } => &mut summary.unchanged,
                Status::Skipped => &mut summary.skipped,
                Status::Failed { .. } => &mut summary.failed,
                Status::Blocked { .. } => &mut summary.blocked,
                Status::Superseded => &mut summary.superseded,
            };
            *count += 1;
        }
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
        let mut order = self.nodes.get(node).into_iter().flat_map(|at| &at.order);
        order.any(|i| !self.entries[*i as usize].succeeded())
    }

    fn online(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|at| at.online)
    }

    /// The outlook of every entry. Entries come after all that they wait for, so one pass suffices; but what waits for a turn depends on
    /// the nodes that hold one, which may come later. So the first pass takes every turn as free, and a second one takes the holders'
    /// outlooks from the first.
    fn outlooks(&self) -> Vec<Outlook> {
        let free = |_: &ServiceId| Outlook::Live;
        let first = self.pass(&free);
        if self.limits.is_empty() {
            return first;
        }
        let holding = |service: &ServiceId| {
            let Some(limit) = self.limits.get(service) else { return Outlook::Live };
            // A turn is free, and is given as soon as some task waits for nothing else.
            if limit.holders.len() < limit.at_once as usize {
                return Outlook::Live;
            }
            // A node gives its turn back when all of its entries in the turn are done, so the worst of them decides for the node; of
            // several holders, that which can give its turn back first.
            let of_node = |node: &NodeId| {
                let unplanned = |held: &HeldTurn| {
                    held.failed
                        && held.node == *node
                        && held.service == *service
                        && self.find(node, &held.task).is_none()
                };
                if let Some(i) = self.held.iter().position(unplanned) {
                    return Outlook::Unavailable(i as u32);
                }
                let order = self.nodes.get(node).into_iter().flat_map(|at| &at.order);
                let theirs = order.filter(|i| self.in_turn(**i, service)).map(|i| first[*i as usize]);
                theirs.fold(Outlook::Done, worse)
            };
            let each = limit.holders.iter().map(of_node);
            match each.reduce(better) {
                // A holder that is done gives its turn back at the next `advance`.
                None | Some(Outlook::Done) => Outlook::Live,
                Some(outlook) => outlook,
            }
        };
        let by_service: Vec<_> = self.limits.keys().map(|service| (service, holding(service))).collect();
        let turn = |service: &ServiceId| match by_service.binary_search_by(|(s, _)| (*s).cmp(service)) {
            Ok(i) => by_service[i].1,
            Err(_) => Outlook::Live,
        };
        self.pass(&turn)
    }

    /// Whether `after` is a removal that its agent has given up, and that an entry comes after, without being triggered by it or being a
    /// removal that depends on it. One that waits for something that does not come is given up by no agent.
    fn only_comes_after_removal(&self, entry: &Entry, after: u32) -> bool {
        let triggers =
            || entry.triggers.iter().any(|(_, on)| matches!(on, On::Entry(i) | On::Barrier(i) if *i == after));
        let removal = &self.entries[after as usize];
        removal.action == Action::Remove && removal.outcome.is_some() && entry.action != Action::Remove && !triggers()
    }

    /// Whether its node keeps its turn of the service until this entry is done.
    fn in_turn(&self, i: u32, service: &ServiceId) -> bool {
        let entry = &self.entries[i as usize];
        let gates = || entry.gates.iter().map(|gate| &self.gates[*gate as usize]).filter(|gate| gate.open.is_some());
        let at = &entry.instance;
        gates().any(|gate| matches!(&gate.opens, Opens::Turn { service: s } if s == service))
            || self.held.iter().any(|h| h.service == *service && h.node == at.node && h.task == at.task)
    }

    /// One pass over the entries. `turn` is the outlook of a wait for a turn of a service.
    fn pass(&self, turn: &dyn Fn(&ServiceId) -> Outlook) -> Vec<Outlook> {
        let mut outlooks: Vec<Outlook> = Vec::with_capacity(self.entries.len());
        let mut gates: Vec<Option<Outlook>> = vec![None; self.gates.len()];
        for (i, entry) in self.entries.iter().enumerate() {
            let outlook = match &entry.outcome {
                Some(outcome) if outcome.is_success() => Outlook::Done,
                _ if entry.failed() => Outlook::Stuck(i as u32),
                Some(Outcome::Superseded) => Outlook::Superseded,
                // Not done, or to be tried again: the worst of its node and everything that it waits for decides.
                outcome => {
                    let mut worst = if self.online(&entry.instance.node) { Outlook::Live } else { Outlook::Away };
                    for after in &entry.after {
                        let outlook = match outlooks[*after as usize] {
                            // The agent knows whether what is left on the host is in its way, and reports it.
                            Outlook::Stuck(_) if self.only_comes_after_removal(entry, *after) => Outlook::Live,
                            outlook => outlook,
                        };
                        worst = worse(worst, outlook);
                    }
                    for g in &entry.gates {
                        let gate = &self.gates[*g as usize];
                        let of = match &gate.opens {
                            _ if gate.open.is_some() => Outlook::Done,
                            Opens::Turn { service } => turn(service),
                            Opens::Unknown => Outlook::Unknown,
                            // The same for every entry that waits there: computed at the first one, which all that the gate waits
                            // for come before.
                            Opens::Done { waits_for, .. } => *gates[*g as usize].get_or_insert_with(|| {
                                waits_for.iter().map(|i| outlooks[*i as usize]).fold(Outlook::Done, worse)
                            }),
                        };
                        worst = worse(worst, of);
                    }
                    match outcome {
                        // The agent has given up on it because of a failure that may not have been reported yet.
                        Some(Outcome::Blocked { by }) if !matches!(worst, Outlook::Stuck(_)) => {
                            let by = self.find(&entry.instance.node, by).unwrap_or(i as u32);
                            // It names what it comes after, which may be blocked itself.
                            match outlooks.get(by as usize) {
                                Some(Outlook::Stuck(first)) => Outlook::Stuck(*first),
                                _ => Outlook::Stuck(by),
                            }
                        }
                        _ => worst,
                    }
                }
            };
            outlooks.push(outlook);
        }
        outlooks
    }

    /// The status of an entry: what was reported for this plan, else what its outlook says, else what it waits for.
    fn status_of(&self, i: u32, outlook: Outlook) -> Status {
        let entry = &self.entries[i as usize];
        match (&entry.outcome, outlook) {
            (Some(Outcome::Done { changed, effect }), _) => Status::Done { changed: *changed, effect: *effect },
            (Some(Outcome::Skipped), _) => Status::Skipped,
            (Some(Outcome::Superseded), _) => Status::Superseded,
            (Some(outcome @ (Outcome::Failed { .. } | Outcome::Interrupted)), _) if entry.failed() => {
                let error = match outcome {
                    Outcome::Failed { error } => error.clone(),
                    other => other.to_string(),
                };
                Status::Failed { error }
            }
            (_, Outlook::Stuck(by)) => Status::Blocked { by: self.entries[by as usize].instance.clone() },
            (_, Outlook::Unavailable(held)) => {
                let held = &self.held[held as usize];
                Status::Blocked { by: held.task.at(&held.node) }
            }
            _ if entry.running => Status::Running,
            _ => match self.waits(i) {
                waits if waits.is_empty() => Status::Running,
                waits => Status::Waiting(waits),
            },
        }
    }

    /// What an entry waits for; empty if it can run.
    fn waits(&self, i: u32) -> Vec<Wait> {
        let entry = &self.entries[i as usize];
        let mut waits = BTreeSet::new();
        if !self.online(&entry.instance.node) {
            waits.insert(Wait::Offline);
        }
        let mut on = |i: &u32| {
            let other = &self.entries[*i as usize];
            if !other.succeeded() {
                let offline = !self.online(&other.instance.node);
                waits.insert(Wait::Instance { instance: other.instance.clone(), offline });
            }
        };
        entry.after.iter().for_each(&mut on);
        let closed = || entry.gates.iter().map(|g| &self.gates[*g as usize]).filter(|gate| gate.open.is_none());
        for gate in closed() {
            if let Opens::Done { waits_for, .. } = &gate.opens {
                waits_for.iter().for_each(&mut on);
            }
        }
        waits.extend(entry.unknown.iter().cloned().map(Wait::Unknown));
        // A turn is the last thing that it waits for: it is given when nothing else is left.
        if waits.is_empty() {
            for gate in closed() {
                if let Opens::Turn { service } = &gate.opens {
                    let holders = self.limits.get(service).map(|limit| limit.holders.iter().cloned().collect());
                    waits.insert(Wait::Turn { holders: holders.unwrap_or_default() });
                }
            }
        }
        waits.into_iter().collect()
    }
}

/// The worse of two outlooks: of everything that an entry waits for, the worst decides.
fn worse(a: Outlook, b: Outlook) -> Outlook {
    let weight = |outlook: &Outlook| match outlook {
        Outlook::Done => 0,
        Outlook::Live => 1,
        Outlook::Away => 2,
        Outlook::Unknown => 3,
        Outlook::Superseded => 4,
        Outlook::Stuck(_) | Outlook::Unavailable(_) => 5,
    };
    if weight(&b) > weight(&a) { b } else { a }
}

/// The better of two outlooks.
fn better(a: Outlook, b: Outlook) -> Outlook {
    if worse(a, b) == a { b } else { a }
}

//! What can still happen to each entry of a rollout.
//!
//! In: outcomes, presence, gates. Out: the outlook of every entry, in one or two passes over all of them, each of which costs as much as
//! the plan has edges: what a gate stands for is walked once, however many entries wait there.

use groundplan_protocol::{
    effect::Action,
    ids::{NodeId, ServiceId},
    report::Outcome,
};

use super::model::{Entry, HeldTurn, On, Opens, Rollout};

/// What can still happen to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
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
    pub(super) fn online(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|at| at.online)
    }

    /// The outlook of every entry. Entries come after all that they wait for, so one pass suffices; but what waits for a turn depends on
    /// the nodes that hold one, which may come later. So the first pass takes every turn as free, and a second one takes the holders'
    /// outlooks from the first.
    pub(super) fn outlooks(&self) -> Vec<Outlook> {
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
                let order = self.nodes.get(node).into_iter().flat_map(|at| at.order.iter());
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

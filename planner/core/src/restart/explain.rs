//! Why a vertex is planned, or an instance removed: the chain of reasons that ends at a place in a file.
//!
//! In: the finished restart graph. Out: reasons, made only for what is in a plan. Decides nothing.

use std::collections::BTreeSet;

use groundplan_inventory::{Lifecycle, Location};
use groundplan_protocol::{effect::Effect, ids::TaskId, kinds::ClaimKey};

use super::{Cause, RestartGraph, Why, instance};
use crate::{
    applied::Check,
    desired::{Input, NodeIx, TaskIx},
    diff::RemovedTask,
    reason::{Declared, Reason, UNKNOWN, service_file},
};

impl RestartGraph<'_> {
    /// The chain of reasons of a planned vertex, from its effect to a place in a file.
    pub(crate) fn reasons(&self, task: usize, vertex: usize) -> Vec<Reason> {
        let diff = self.diff;
        let mut chain = Vec::with_capacity(self.marks[vertex].length as usize);
        let (mut task, mut vertex) = (task, vertex);
        loop {
            match self.marks[vertex].why {
                Why::Change => chain.push(self.change_reason(task, vertex)),
                Why::Obligation => chain.push(Reason::Obligation {
                    effect: self.marks[vertex].obligation.unwrap_or(Effect::Run),
                    at: diff.desired.graph.tasks[task].at.clone(),
                }),
                Why::Triggered { by: Cause::Removal(removed, node), effect } => {
                    let removed = &diff.removed[removed as usize];
                    chain.push(Reason::Triggered { by: removed.id.at(&diff.desired.nodes[node.0 as usize]), effect });
                    chain.push(self.removed_reason(removed, node));
                }
                // The source's own reason follows. Sources have lesser numbers, so this ends.
                Why::Triggered { by: Cause::Vertex(source), effect } => {
                    vertex = source as usize;
                    task = diff.first.partition_point(|first| *first <= source) - 1;
                    chain.push(Reason::Triggered { by: instance(diff, task, vertex), effect });
                    continue;
                }
            }
            return chain;
        }
    }

    /// Why a vertex is a change of its own.
    fn change_reason(&self, task: usize, vertex: usize) -> Reason {
        let diff = self.diff;
        let (desired, at) = (diff.desired, &diff.desired.graph.tasks[task]);
        let Some(before) = diff.before[vertex] else {
            if let Some(elected) = self.elected(task).filter(|_| diff.removed_of[task].is_some()) {
                return elected;
            }
            // On a node without anything applied, the node is what is new, not each of its tasks.
            let node = diff.node_of[vertex].0 as usize;
            let empty = diff.known[node].is_none_or(|known| known.tasks.is_empty());
            return match empty {
                true => Reason::Added {
                    what: Declared::Node(desired.nodes[node].clone()),
                    at: desired.node_places[node].clone(),
                },
                false => self
                    .takes_over(task, vertex)
                    .or_else(|| self.replaces(task, vertex))
                    .unwrap_or_else(|| Reason::Added { what: Declared::Task(at.id.clone()), at: at.at.clone() }),
            };
        };
        match diff.checks.get(&vertex) {
            Some(Check::Asked) => return Reason::Asked { at: at.at.clone() },
            Some(Check::Drifted(what)) => return Reason::Drifted { what: what.clone(), at: at.at.clone() },
            None => {}
        }
        if !self.hand_overs.updated_for(vertex).is_empty()
            && let Some(reason) = self.takes_over(task, vertex)
        {
            return reason;
        }
        let now = diff.resolved(task, vertex).map_or(&[][..], |resolved| &resolved.inputs);
        let changed =
            |input: String, after: Option<String>, at: Location| Reason::Changed { input, before: None, after, at };
        // The fingerprint is known from a report, the inputs would have come with a state.
        if before.inputs.is_empty() {
            return changed(UNKNOWN.to_owned(), None, at.at.clone());
        }
        if let Some(input) = now.iter().find(|input| before.inputs.get(&input.name) != Some(&input.digest)) {
            return changed(input.name.clone(), input.value.clone(), input.at.clone());
        }
        let lost = before.inputs.keys().find(|name| !now.iter().any(|input| input.name == **name));
        changed(lost.map_or_else(|| UNKNOWN.to_owned(), String::clone), None, at.at.clone())
    }

    /// Where a task with `once` is to run, as a reason.
    fn elected(&self, task: usize) -> Option<Reason> {
        let (desired, task) = (self.diff.desired, &self.diff.desired.graph.tasks[task]);
        let node = desired.once.get(&task.id)?.elected.node;
        Some(Reason::Elected {
            task: task.id.clone(),
            node: desired.nodes[node.0 as usize].clone(),
            at: task.at.clone(),
        })
    }

    /// The reason of an instance that takes over from others, which are removed or updated, with the first input in which it differs from
    /// them; none if it takes over nothing.
    fn takes_over(&self, task: usize, vertex: usize) -> Option<Reason> {
        let diff = self.diff;
        let at = &diff.desired.graph.tasks[task];
        let task_of = |v: u32| diff.first.partition_point(|first| *first <= v) - 1;
        let removed = self.hand_overs.from(vertex).iter().map(|g| &diff.removed[*g as usize]);
        let removed = removed.map(|removed| (removed.id, removed.on(diff.node_of[vertex])));
        let updated = self.hand_overs.updated_for(vertex).iter();
        let updated = updated.map(|v| (&diff.desired.graph.tasks[task_of(*v)].id, diff.before[*v as usize]));
        let from: Vec<_> = removed.chain(updated).collect();
        if from.is_empty() {
            return None;
        }
        let before = from.iter().filter_map(|(_, before)| *before);
        let change = diff.resolved(task, vertex).and_then(|now| {
            let same = before.clone().any(|before| before.fingerprint == now.fingerprint);
            let differs =
                |input: &&Input| !before.clone().any(|before| before.inputs.get(&input.name) == Some(&input.digest));
            (!same).then(|| now.inputs.iter().find(differs).map_or_else(|| UNKNOWN.to_owned(), |i| i.name.clone()))
        });
        Some(Reason::TakesOver {
            from: from.iter().map(|(id, _)| (*id).clone()).collect(),
            to: at.id.clone(),
            change,
            at: at.at.clone(),
        })
    }

    /// The reason of a new instance of a kind that nothing takes over, such as a process, that does what removed ones did: they end before
    /// it begins.
    fn replaces(&self, task: usize, vertex: usize) -> Option<Reason> {
        let (diff, at) = (self.diff, &self.diff.desired.graph.tasks[task]);
        let (node, first) = (diff.node_of[vertex], self.hand_overs.first(vertex));
        let spec = &diff.resolved(task, vertex).filter(|_| !first.is_empty())?.spec;
        // Not by its ports: what another program does there is another thing.
        let mut same = BTreeSet::new();
        spec.params.contends(&at.id, &mut |claim| _ = same.insert(ClaimKey::of(&claim)));
        let does = |g: &&u32| {
            diff.removed[**g as usize]
                .on(node)
                .is_some_and(|before| before.contends.iter().any(|key| same.contains(key)))
        };
        let from: Vec<TaskId> = first.iter().filter(does).map(|g| diff.removed[*g as usize].id.clone()).collect();
        let replaces = !from.is_empty() && spec.identity(&at.id).is_empty();
        replaces.then(|| Reason::Replaces { from, to: at.id.clone(), at: at.at.clone() })
    }

    /// Why an instance is removed: its `when` is false, its node no longer runs the service, or the service no longer has the task.
    pub(crate) fn removed_reason(&self, removed: &RemovedTask<'_>, node: NodeIx) -> Reason {
        let diff = self.diff;
        if let Some(hand_over) = diff.removed_by_id(removed.id).and_then(|g| self.hand_overs.of(g as u32, node)) {
            let task = |v: &u32| diff.first.partition_point(|first| first <= v) - 1;
            let heirs: Vec<_> = hand_over.heirs.iter().map(|v| &diff.desired.graph.tasks[task(v)]).collect();
            if let [first, ..] = heirs.as_slice() {
                return Reason::HandsOver {
                    to: heirs.iter().map(|heir| heir.id.clone()).collect(),
                    whole: hand_over.whole,
                    at: first.at.clone(),
                };
            }
        }
        if let Some(off) = removed.task.and_then(|task| diff.desired.graph.tasks[task].off_on(node)) {
            let before = removed.on(node).map(|applied| &applied.inputs);
            let differs = |input: &&Input| before.is_some_and(|before| before.get(&input.name) != Some(&input.digest));
            let input = off.inputs.iter().find(differs).or(off.inputs.first());
            return Reason::Off {
                when: off.when.clone(),
                input: input.map(|input| input.name.clone()),
                before: None,
                after: input.and_then(|input| input.value.clone()),
                at: off.at.clone(),
            };
        }
        let ix = node.0 as usize;
        if diff.desired.lifecycles.get(ix) == Some(&Lifecycle::Decommissioned) {
            let (node, at) = (diff.desired.nodes[ix].clone(), diff.desired.node_places[ix].clone());
            return Reason::Decommissioned { node, at };
        }
        let declared = removed.task.and_then(|task| Some((task, diff.desired.once.get(removed.id)?)));
        if let Some((task, _)) = declared.filter(|(_, once)| once.candidates.binary_search(&node).is_ok())
            && let Some(elected) = self.elected(task)
        {
            return elected;
        }
        // Another task of the service shows whether the service still exists, and whether it still runs on this node.
        let service = &removed.id.service;
        let graph = &diff.desired.graph;
        let earlier = graph.by_id.range::<TaskId, _>(..removed.id).rev();
        let siblings = || {
            let same = |(id, _): &(&TaskId, &TaskIx)| id.service == *service;
            let later = graph.by_id.range::<TaskId, _>(removed.id..);
            earlier.clone().take_while(same).chain(later.take_while(same)).map(|(_, ix)| &graph.tasks[ix.0 as usize])
        };
        let sibling = siblings().next();
        let runs_here = siblings().any(|task| task.on(node).is_some());
        let node = node.0 as usize;
        match (sibling, removed.task) {
            (Some(_), Some(_)) if !runs_here => Reason::Removed {
                what: Declared::Node(diff.desired.nodes[node].clone()),
                file: diff.desired.node_places[node].file.to_string(),
            },
            (Some(sibling), _) => {
                Reason::Removed { what: Declared::Task(removed.id.clone()), file: sibling.at.file.to_string() }
            }
            (None, _) => Reason::Removed { what: Declared::Task(removed.id.clone()), file: service_file(service) },
        }
    }
}

//! Makes a rollout of a plan: actions become entries, names become indices.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use groundplan_protocol::{
    ids::{GateId, Generation, InstanceId},
    plan::{OnInterrupt, Place, TriggerSource},
};

use super::{
    kept::Tally,
    model::{Entry, GateEntry, Limit, NodeEntry, On, Opens, PlannedEntry, Rollout},
};
use crate::plan::{Gate, Plan};

impl Rollout {
    /// The rollout of a plan that is published as `generation`. All nodes count as offline until [`Rollout::presence`] is called.
    pub fn new(plan: &Plan, generation: Generation) -> Self {
        // Everything is by index from here on: a rollout is walked at every report.
        let numbers: HashMap<&InstanceId, u32> =
            plan.actions.iter().enumerate().map(|(i, action)| (&action.instance, i as u32)).collect();
        let gate_numbers: HashMap<&GateId, u32> = plan.gates.keys().enumerate().map(|(i, id)| (id, i as u32)).collect();
        let mut entries: Vec<PlannedEntry> = plan
            .actions
            .iter()
            .map(|action| PlannedEntry {
                instance: action.instance.clone(),
                action: action.action,
                after: Vec::new(),
                gates: Vec::new(),
                triggers: Vec::new(),
                obligation: None,
                since: None,
                unknown: action.waits_for.to_vec(),
                feeds: Vec::new(),
                reruns: false,
            })
            .collect();
        let mut gates: Vec<GateEntry> = Vec::with_capacity(plan.gates.len());
        let mut targets: Vec<Vec<u32>> = vec![Vec::new(); plan.gates.len()];
        let mut limits = BTreeMap::new();
        for (number, (id, gate)) in plan.gates.iter().enumerate() {
            let opens = match gate {
                Gate::Done { waits_for, fires_on } => {
                    let waits_for: Arc<[u32]> = waits_for.iter().filter_map(|i| numbers.get(i).copied()).collect();
                    waits_for.iter().for_each(|i| entries[*i as usize].feeds.push(number as u32));
                    Opens::Done { left: waits_for.len() as u32, waits_for, fires_on: fires_on.clone() }
                }
                Gate::Unknown => Opens::Unknown,
                Gate::Turn { service, limit } => {
                    let limit = Limit { at_once: *limit, pending: BTreeSet::new(), holders: BTreeSet::new() };
                    limits.entry(service.clone()).or_insert(limit);
                    Opens::Turn { service: service.clone() }
                }
            };
            gates.push(GateEntry { id: id.clone(), opens, targets: Arc::default(), open: None });
        }
        let mut nodes = BTreeMap::new();
        for (node, part) in &plan.nodes {
            let (mut tasks, mut order) = (BTreeMap::new(), Vec::new());
            // Tasks stand after all that they wait for, so that names of earlier tasks resolve to entries on the way.
            for task in &part.tasks {
                let Some(number) = numbers.get(&task.task.at(node)).copied() else { continue };
                let entry = &mut entries[number as usize];
                entry.obligation = task.obligation.map(|due| due.effect);
                entry.since = task.obligation.and_then(|due| due.since);
                entry.reruns =
                    task.resolved.as_ref().is_none_or(|resolved| resolved.spec.on_interrupt == OnInterrupt::Rerun);
                entry.after = task.after.iter().filter_map(|task| tasks.get(task).copied()).collect();
                entry.gates = task.gates.iter().filter_map(|gate| gate_numbers.get(gate).copied()).collect();
                let on = |on: &TriggerSource| match on {
                    // The declared edge says what the source is for the agent: see `On`. Without one the source is a removal, which
                    // acts by a recorded edge that may have been a barrier.
                    TriggerSource::Task(source) => {
                        let mut declared = task.edges.triggers.iter().filter(|edge| edge.on.task == *source).peekable();
                        let barrier =
                            declared.peek().is_none() || declared.any(|edge| edge.on.place == Place::Everywhere);
                        tasks.get(source).copied().map(if barrier { On::Barrier } else { On::Entry })
                    }
                    TriggerSource::Gate(gate) => gate_numbers.get(gate).copied().map(On::Gate),
                };
                entry.triggers = task.triggers.iter().filter_map(|t| Some((t.effect, on(&t.on)?))).collect();
                for gate in &entry.gates {
                    targets[*gate as usize].push(number);
                    if let Opens::Turn { service } = &gates[*gate as usize].opens
                        && let Some(limit) = limits.get_mut(service)
                    {
                        limit.pending.insert(node.clone());
                    }
                }
                tasks.insert(task.task.clone(), number);
                order.push(number);
            }
            nodes.insert(node.clone(), NodeEntry { online: false, tasks: Arc::new(tasks), order: order.into() });
        }
        let entries = entries.into_iter().map(Entry::new).collect();
        gates.iter_mut().zip(targets).for_each(|(gate, targets)| gate.targets = targets.into());
        let (ripe, held, dormant, late) = (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
        let (pending, parked, detached) = (plan.pending.clone(), plan.parked.clone(), plan.detached.clone());
        let tally = Tally::default();
        Self { generation, entries, gates, nodes, limits, ripe, held, dormant, pending, late, parked, detached, tally }
    }
}

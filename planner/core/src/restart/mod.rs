//! The restart graph: the changes, plus all that trigger edges reach from them; nothing else.
//!
//! In: the diff. Out: per vertex whether it is planned, with what effect, and why. One sweep over the tasks in topological
//! order: all sources of a task are decided before the task itself. A removed instance acts by the edges that are declared now and
//! by those that the ledgers of its targets recorded. Of several chains of reasons the shortest is kept, and of these the first. `explain`
//! makes reasons of it.

mod explain;
mod going;

use std::collections::BTreeSet;

use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{Generation, InstanceId, TaskId},
    plan::{Place, Source, TriggerSource},
    state::Obligation,
};

use self::going::{Acts, Going, Others};
use crate::{
    applied::Due,
    desired::{NodeIx, Scope},
    diff::{Change, Diff},
    hand_over::HandOvers,
};

/// Which vertices are planned, with what effect, and why.
pub(crate) struct RestartGraph<'a> {
    pub(crate) diff: &'a Diff<'a>,
    /// By vertex.
    marks: Vec<Mark>,
    /// By task: its vertices in numbers.
    numbers: Vec<Numbers>,
    /// Triggers that removals fire, ascending by vertex.
    removal_triggers: Vec<RemovalTrigger>,
    /// What removed tasks hand over, as far as the order allows.
    pub(crate) hand_overs: HandOvers,
    /// What changes on parked nodes and has triggers on others, which do not wait for it: vertices, and removed tasks with their nodes.
    pub(crate) detached: BTreeSet<u32>,
    pub(crate) detached_removals: BTreeSet<(u32, NodeIx)>,
}

/// How many vertices of a task are what.
#[derive(Clone, Copy, Default)]
struct Numbers {
    /// Of nodes that take part.
    known: u32,
    /// Planned.
    planned: u32,
    /// Planned, and not on a parked node: what acts on other nodes, which wait for it.
    acting: u32,
}

/// Whether and why a vertex is planned.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Length of the chain of reasons; 0 if it is not planned.
    length: u32,
    /// The greatest effect that a trigger or an obligation may have on it.
    effect: Option<Effect>,
    /// The effect of the obligations that earlier plans left.
    obligation: Option<Effect>,
    /// What of them the node's own ledger may not have.
    due: Option<Due>,
    why: Why,
}

/// The first link of a vertex's chain of reasons.
#[derive(Clone, Copy, Default)]
enum Why {
    /// It changed itself.
    #[default]
    Change,
    /// An earlier plan left an obligation.
    Obligation,
    /// A trigger reaches it.
    Triggered { by: Cause, effect: Effect },
}

/// What a trigger comes from.
#[derive(Clone, Copy)]
enum Cause {
    Vertex(u32),
    /// A removed task, by its index in `Diff::removed`, on a node.
    Removal(u32, NodeIx),
}

/// A removal that acts on a vertex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RemovalTrigger {
    pub(crate) vertex: u32,
    /// The removed task, by its index in `Diff::removed`.
    pub(crate) removed: u32,
    /// Which of its instances act.
    pub(crate) scope: Scope,
    pub(crate) effect: Effect,
    /// Whether none of them is waited for, because their nodes are parked: then the effect is due at once.
    pub(crate) at_once: bool,
}

impl<'a> RestartGraph<'a> {
    pub(crate) fn new(diff: &'a Diff<'a>) -> Self {
        let mut hand_overs = HandOvers::new(diff);
        let (removal_triggers, detached_removals) = removal_triggers(diff, &hand_overs);
        let task_of = |v: u32| diff.first.partition_point(|first| *first <= v) - 1;
        hand_overs.give_up_before(diff, removal_triggers.iter().map(|hit| (hit.removed, task_of(hit.vertex))));
        let mut graph = Self {
            diff,
            marks: vec![Mark::default(); diff.change.len()],
            numbers: vec![Numbers::default(); diff.edges.len()],
            removal_triggers,
            hand_overs,
            detached: BTreeSet::new(),
            detached_removals,
        };
        let obligations = obligations(diff, &graph.hand_overs);
        // Both lists ascend by vertex, as the sweep does: each is walked once.
        let (mut next_removal, mut next_obligation) = (0, 0);
        for task in 0..diff.edges.len() {
            let end = diff.first[task + 1];
            for v in diff.vertices(task) {
                if diff.change[v].is_planned() {
                    graph.marks[v].length = 1;
                }
            }
            // Every edge leads from a lesser number to a greater one, so all sources of this task are decided.
            graph.follow_edges(task);
            while let Some(hit) = graph.removal_triggers.get(next_removal).copied().filter(|hit| hit.vertex < end) {
                // For people, one instance of a barrier suffices: the first.
                let node = match hit.scope {
                    Scope::SameNode => diff.node_of[hit.vertex as usize],
                    Scope::AllNodes => diff.removed[hit.removed as usize].instances[0].0,
                    Scope::OneNode(node) => node,
                };
                graph.trigger(hit.vertex as usize, hit.effect, 1, Cause::Removal(hit.removed, node));
                if hit.at_once {
                    let due = Due { effect: hit.effect, since: None };
                    let mark = &mut graph.marks[hit.vertex as usize];
                    mark.due = mark.due.map_or(Some(due), |before| Some(before.and(due)));
                }
                next_removal += 1;
            }
            // After the triggers: an obligation that a trigger of this plan covers adds nothing.
            while let Some(left) = obligations.get(next_obligation).filter(|left| left.vertex < end) {
                graph.oblige(task, left);
                next_obligation += 1;
            }
            graph.numbers[task] = graph.numbers(task);
        }
        graph
    }

    fn numbers(&self, task: usize) -> Numbers {
        let mut numbers = Numbers::default();
        for v in self.diff.vertices(task) {
            numbers.known += u32::from(self.diff.change[v] != Change::LeftOut);
            numbers.planned += u32::from(self.is_planned(v));
            numbers.acting += u32::from(self.is_planned(v) && !self.diff.is_parked(self.diff.node_of[v]));
        }
        numbers
    }

    /// Whether a vertex is planned.
    pub(crate) fn is_planned(&self, vertex: usize) -> bool {
        self.marks[vertex].length > 0
    }

    /// How many vertices of a task are planned; final once the sweep has passed the task.
    pub(crate) fn count(&self, task: usize) -> u32 {
        self.numbers[task].planned
    }

    /// How many vertices of a task are planned and waited for on other nodes; final once the sweep has passed the task.
    pub(crate) fn acting(&self, task: usize) -> u32 {
        self.numbers[task].acting
    }

    /// What is done to a planned vertex.
    pub(crate) fn action(&self, vertex: usize) -> Action {
        match self.diff.change[vertex] {
            Change::Added => Action::Create,
            Change::Modified | Change::Check => Action::Update,
            Change::Same | Change::LeftOut | Change::Pending => {
                self.marks[vertex].effect.map_or(Action::Update, Effect::action)
            }
        }
    }

    /// What is due to a vertex because of earlier plans and may not be in its node's ledger.
    pub(crate) fn due(&self, vertex: usize) -> Option<Due> {
        self.marks[vertex].due
    }

    /// The removals that act on a vertex.
    pub(crate) fn removals(&self, vertex: usize) -> &[RemovalTrigger] {
        let from = self.removal_triggers.partition_point(|hit| (hit.vertex as usize) < vertex);
        let to = from + self.removal_triggers[from..].partition_point(|hit| hit.vertex as usize == vertex);
        &self.removal_triggers[from..to]
    }

    /// All removals that act on any vertex, ascending by vertex.
    pub(crate) fn all_removals(&self) -> &[RemovalTrigger] {
        &self.removal_triggers
    }

    /// Applies the declared trigger edges that lead to a task.
    fn follow_edges(&mut self, task: usize) {
        let diff = self.diff;
        for edge in &diff.desired.graph.tasks[task].edges {
            let (from, Some(effect)) = (edge.from.0 as usize, edge.trigger) else { continue };
            // Most tasks are in no plan: this check keeps a small change on a large site cheap.
            if self.count(from) == 0 {
                continue;
            }
            let source = match edge.scope {
                Scope::SameNode => {
                    // Both tasks' vertices are in node order: pair them by one merge.
                    let mut sources = diff.vertices(from).peekable();
                    for v in diff.vertices(task) {
                        let node = diff.node_of[v];
                        while sources.next_if(|s| diff.node_of[*s] < node).is_some() {}
                        if let Some(s) = sources.next_if(|s| diff.node_of[*s] == node && self.is_planned(*s)) {
                            self.trigger(v, effect, self.marks[s].length, Cause::Vertex(s as u32));
                        }
                    }
                    continue;
                }
                Scope::AllNodes => diff.vertices(from),
                Scope::OneNode(node) => diff.vertex(from, node).map_or(0..0, |s| s..s + 1),
            };
            // One source suffices to explain a barrier: that with the shortest chain, the first of several.
            let (parked, sources): (Vec<_>, Vec<_>) =
                source.filter(|s| self.is_planned(*s)).partition(|s| diff.is_parked(diff.node_of[*s]));
            let first = sources.into_iter().min_by_key(|s| self.marks[*s].length);
            let mut detached = Others::new();
            // A node that never reported gets no plan, so nothing may be planned for it; a merge by `vertex` above excludes it as well.
            for v in diff.vertices(task).filter(|v| diff.change[*v] != Change::LeftOut) {
                // What changes on a parked node acts there alone in this plan, because it is not waited for elsewhere: see `Plan::detached`.
                // Vertices of one task are in node order.
                let own = parked.binary_search_by_key(&diff.node_of[v], |s| diff.node_of[*s]).ok().map(|i| parked[i]);
                if let Some(s) = own.or(first) {
                    self.trigger(v, effect, self.marks[s].length, Cause::Vertex(s as u32));
                }
                detached.all_but(own);
            }
            self.detached.extend(detached.of(&parked).map(|s| s as u32));
        }
    }

    /// Lets a trigger reach a vertex. The reason kept is that of the greatest effect, then of the shortest chain, then the first.
    fn trigger(&mut self, vertex: usize, effect: Effect, length: u32, by: Cause) {
        let mark = &mut self.marks[vertex];
        let better = match mark.effect {
            None => true,
            Some(before) => effect > before || effect == before && length + 1 < mark.length,
        };
        mark.effect = mark.effect.max(Some(effect));
        // A change of its own explains a vertex better than any trigger.
        if better && !self.diff.change[vertex].is_planned() {
            mark.length = length + 1;
            mark.why = Why::Triggered { by, effect };
        }
    }

    /// Takes over an obligation of earlier plans. What a node reported is in its own ledger, and not part of the plan. If nothing has fired
    /// yet, and every source that still may is in this plan with a trigger to the vertex, that trigger decides, and the obligation ends
    /// here.
    fn oblige(&mut self, task: usize, left: &Left<'_>) {
        let vertex = left.vertex as usize;
        let (effect, due) = match left.obligation {
            Obliged::Fired(due) => (due.effect, Some(due)),
            Obliged::Reported(known, since) => {
                let mut uncovered = known.open.iter().filter(|open| !self.is_covered(task, vertex, open)).peekable();
                if !known.fired && uncovered.peek().is_none() {
                    return;
                }
                // Only a planner without memory takes it from a node that a gate is open: whether it fired, the node cannot know.
                let gate = uncovered.any(|open| matches!(open, TriggerSource::Gate(_)));
                (known.effect, gate.then_some(Due { effect: known.effect, since }))
            }
        };
        let mark = &mut self.marks[vertex];
        // There may be several: an heir has its own, and those of tasks that hand over to it.
        mark.obligation = mark.obligation.max(Some(effect));
        mark.due = mark.due.into_iter().chain(due).reduce(Due::and);
        // A certain effect explains more than a trigger of the same effect, which may not fire.
        if !self.diff.change[vertex].is_planned() && mark.effect <= Some(effect) {
            mark.length = 1;
            mark.why = Why::Obligation;
        }
        mark.effect = mark.effect.max(Some(effect));
    }

    /// Whether all instances that an open source stands for are in this plan, with a trigger from there to the vertex.
    ///
    /// An open source is one of an earlier plan of which it is not known whether it changed anything. It may have done so already, and
    /// its report may be on its way: to answer true wrongly loses a restart, to answer false wrongly costs one too many.
    fn is_covered(&self, task: usize, vertex: usize, open: &TriggerSource) -> bool {
        let diff = self.diff;
        let node = diff.node_of[vertex];
        let (id, place) = match open {
            TriggerSource::Task(id) => (id.clone(), Place::Here),
            TriggerSource::Gate(gate) => {
                // Gates that fire are named after their source, see `assemble.rs`. A name that was too long is a digest and does not
                // parse: then nothing is known of the source, and the obligation stays.
                let name = gate.as_str();
                let Ok(source) = name.strip_prefix("removed/").unwrap_or(name).parse::<Source>() else { return false };
                (source.task, source.place)
            }
        };
        // The source is removed by this plan and acts on the vertex by that.
        if self.removals(vertex).iter().any(|hit| *diff.removed[hit.removed as usize].id == id) {
            return true;
        }
        // The source is neither desired nor removed by this plan: nothing in it would fire in its place.
        let Some(from) = diff.desired.graph.by_id.get(&id).map(|ix| ix.0 as usize) else { return false };
        let at = match &place {
            Place::Everywhere => None,
            Place::Here => Some(node),
            Place::Node(id) => match diff.desired.node(id) {
                Some(node) => Some(node),
                None => return false,
            },
        };
        // The edges may have changed since that plan: compare the instances that the open source stands for (`at`, or all) with those
        // that the edge of today comes from.
        // Also not one on a parked node, which acts on others by a newer plan.
        let acts = |s: usize| self.is_planned(s) && diff.is_waited_for(diff.node_of[s], node);
        let planned = |node| diff.vertex(from, node).is_some_and(acts);
        // Counted, not listed: many vertices may have been left the same barrier.
        let all_act = || {
            let own = u32::from(diff.is_parked(node) && planned(node));
            self.acting(from) + own == self.numbers[from].known
        };
        diff.desired.graph.tasks[task].edges.iter().any(|edge| {
            edge.from.0 as usize == from
                && edge.trigger.is_some()
                && match (edge.scope, at) {
                    // One instance is open: it is covered if the edge includes it and it is planned.
                    (Scope::SameNode, Some(at)) => at == node && planned(node),
                    (Scope::SameNode, None) => planned(node),
                    (Scope::OneNode(only), Some(at)) => at == only && planned(only),
                    (Scope::OneNode(only), None) => planned(only),
                    (Scope::AllNodes, Some(at)) => planned(at),
                    // A barrier is open, and any of its instances may be the one that changed: all must be planned.
                    (Scope::AllNodes, None) => self.count(from) > 0 && all_act(),
                }
        })
    }
}

/// The id of a vertex.
pub(crate) fn instance(diff: &Diff<'_>, task: usize, vertex: usize) -> InstanceId {
    diff.desired.graph.tasks[task].id.at(&diff.desired.nodes[diff.node_of[vertex].0 as usize])
}

/// The triggers that removals fire, by the edges declared now and by those recorded; and what is removed on parked nodes and triggers others
/// by declared edges, which do not wait for it.
fn removal_triggers(diff: &Diff<'_>, hand_overs: &HandOvers) -> (Vec<RemovalTrigger>, BTreeSet<(u32, NodeIx)>) {
    let (mut triggers, mut detached) = (Vec::new(), BTreeSet::new());
    if diff.removed.is_empty() {
        return (triggers, detached);
    }
    let going: Vec<Going> = (0..diff.removed.len()).map(|removed| Going::new(diff, hand_overs, removed)).collect();
    let trigger = |removed: usize, scope: Scope, effect: Effect, vertex: usize, at_once: bool| RemovalTrigger {
        vertex: vertex as u32,
        removed: removed as u32,
        scope,
        effect,
        at_once,
    };
    let takes_part = |v: &usize| diff.change[*v] != Change::LeftOut;
    // Declared edges: their source is removed on some nodes and stays on others.
    for (task, declared) in diff.desired.graph.tasks.iter().enumerate() {
        for edge in &declared.edges {
            let (Some(effect), Some(removed)) = (edge.trigger, diff.removed_of[edge.from.0 as usize]) else { continue };
            let (going, mut away) = (&going[removed as usize], Others::new());
            for v in diff.vertices(task).filter(takes_part) {
                let at = diff.node_of[v];
                let acts = going.acts(diff, edge.scope, at);
                if acts == Acts::There {
                    triggers.push(trigger(removed as usize, edge.scope, effect, v, false));
                }
                match going.scope(edge.scope) {
                    Scope::AllNodes => {
                        away.all_but(Some(at).filter(|at| going.parked.binary_search(at).is_ok()));
                    }
                    Scope::OneNode(only) if acts == Acts::Away => {
                        detached.insert((removed, only));
                    }
                    Scope::OneNode(_) | Scope::SameNode => {}
                }
            }
            detached.extend(away.of(&going.parked).map(|node| (removed, node)));
        }
    }
    // Recorded edges: the site may have dropped the edge together with its source, or in a commit that the node never got.
    for v in diff.stale.iter().map(|v| *v as usize).filter(takes_part) {
        let recorded = diff.before[v].map_or(&[][..], |before| &before.edges.triggers);
        let task = diff.first.partition_point(|first| *first as usize <= v) - 1;
        for edge in recorded {
            let (Some(removed), Some(scope)) = (diff.removed_by_id(&edge.on.task), scope(diff, &edge.on)) else {
                continue;
            };
            let acts = going[removed].acts(diff, scope, diff.node_of[v]);
            let (any, at_once) = (acts != Acts::Not, acts == Acts::Away);
            // No later plan would know of the edge: so its effect does not wait for a node that is parked.
            let declared = || diff.edges[task].triggers.iter().any(|declared| declared.on.task == edge.on.task);
            if any && !(at_once && declared()) {
                triggers.push(trigger(removed, scope, edge.effect, v, at_once));
            }
        }
    }
    triggers.sort_unstable();
    triggers.dedup();
    (triggers, detached)
}

/// The scope of a recorded source; none if it names a node that is no longer declared.
pub(crate) fn scope(diff: &Diff<'_>, source: &Source) -> Option<Scope> {
    Some(match &source.place {
        Place::Here => Scope::SameNode,
        Place::Everywhere => Scope::AllNodes,
        Place::Node(id) => Scope::OneNode(diff.desired.node(id)?),
    })
}

/// An obligation that earlier plans left a vertex.
struct Left<'a> {
    vertex: u32,
    obligation: Obliged<'a>,
}

/// How the planner knows of an obligation.
enum Obliged<'a> {
    /// Its node reported it, at that generation.
    Reported(&'a Obligation, Option<Generation>),
    /// Something changed on another node.
    Fired(Due),
}

/// The obligations of vertices, ascending by vertex. Those of tasks that are no longer desired pass to their heirs, and end with
/// their removal where there is none.
fn obligations<'a>(diff: &Diff<'a>, hand_overs: &HandOvers) -> Vec<Left<'a>> {
    let vertex = |node: usize, id: &TaskId| {
        let node = NodeIx(node as u32);
        let heir = || {
            let hand_over = hand_overs.of(diff.removed_by_id(id)? as u32, node)?;
            hand_over.heirs.first().copied()
        };
        let task = diff.desired.graph.by_id.get(id).map(|ix| ix.0 as usize);
        task.and_then(|task| diff.vertex(task, node)).map(|v| v as u32).or_else(heir)
    };
    let known = diff.known.iter().enumerate().filter_map(|(node, known)| Some((node, (*known)?)));
    let reported = known.flat_map(|(node, known)| {
        let at = diff.applied.at.get(&diff.desired.nodes[node]).copied();
        known.obligations.iter().map(move |(id, obligation)| (node, id, Obliged::Reported(obligation, at)))
    });
    let fired = diff.applied.fired.iter().filter_map(|(instance, due)| {
        let node = diff.desired.node(&instance.node)?;
        Some((node.0 as usize, &instance.task, Obliged::Fired(*due)))
    });
    let left = |(node, id, obligation)| Some(Left { vertex: vertex(node, id)?, obligation });
    let mut obligations: Vec<_> = reported.chain(fired).filter_map(left).collect();
    obligations.sort_by_key(|left| left.vertex);
    obligations
}

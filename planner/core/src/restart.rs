//! The restart graph: the changes, plus all that trigger edges reach from them; nothing else.
//!
//! In: the diff. Out: per vertex whether it is planned, with what effect, and why. One sweep over the tasks in topological
//! order: a task's sources are settled before it is looked at. A removed instance acts by the edges that are declared now and
//! by those that its targets' ledgers recorded. Of several reasons the shortest chain is told, and of these the first.

use groundplan_inventory::Location;
use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{InstanceId, TaskId},
    plan::{Place, Source, TriggerSource},
    state::Obligation,
};

use crate::{
    applied::Check,
    desired::{Input, NodeIx, Scope, TaskIx},
    diff::{Diff, Gone, Own},
    reason::{Declared, Reason, UNKNOWN},
};

/// What is planned.
pub(crate) struct RestartGraph<'a> {
    pub(crate) diff: &'a Diff<'a>,
    /// One per vertex.
    marks: Vec<Mark>,
    /// How many vertices of each task are planned.
    planned: Vec<u32>,
    /// Triggers that removals fire, ascending by vertex.
    hits: Vec<GoneHit>,
}

/// Whether and why a vertex is planned.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Length of the chain of reasons; 0 if it is not planned.
    length: u32,
    /// The greatest effect that a trigger or an obligation may have on it.
    effect: Option<Effect>,
    /// The effect that is owed to it.
    owed: Option<Effect>,
    why: Why,
}

#[derive(Clone, Copy, Default)]
enum Why {
    /// It changed itself.
    #[default]
    Own,
    Owed,
    Triggered {
        by: Cause,
        effect: Effect,
    },
}

#[derive(Clone, Copy)]
enum Cause {
    Vertex(u32),
    Gone(u32, NodeIx),
}

/// A removal that acts on a vertex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GoneHit {
    pub(crate) vertex: u32,
    /// Which of the removed tasks.
    pub(crate) gone: u32,
    /// Which of its instances.
    pub(crate) scope: Scope,
    pub(crate) effect: Effect,
}

impl<'a> RestartGraph<'a> {
    pub(crate) fn new(diff: &'a Diff<'a>) -> Self {
        let mut graph = Self {
            diff,
            marks: vec![Mark::default(); diff.own.len()],
            planned: vec![0; diff.edges.len()],
            hits: gone_hits(diff),
        };
        let owed = obligations(diff);
        let (mut next_hit, mut next_owed) = (0, 0);
        for task in 0..diff.edges.len() {
            let end = diff.first[task + 1];
            for v in diff.vertices(task) {
                if diff.own[v].is_planned() {
                    graph.marks[v].length = 1;
                }
            }
            graph.follow_edges(task);
            while let Some(hit) = graph.hits.get(next_hit).copied().filter(|hit| hit.vertex < end) {
                let node = match hit.scope {
                    Scope::SameNode => diff.node_of[hit.vertex as usize],
                    Scope::AllNodes => diff.gone[hit.gone as usize].instances[0].0,
                    Scope::OneNode(node) => node,
                };
                graph.hit(hit.vertex as usize, hit.effect, 1, Cause::Gone(hit.gone, node));
                next_hit += 1;
            }
            while let Some((v, obligation)) = owed.get(next_owed).copied().filter(|(v, _)| *v < end) {
                graph.owe(task, v as usize, obligation);
                next_owed += 1;
            }
            graph.planned[task] = diff.vertices(task).filter(|v| graph.is_planned(*v)).count() as u32;
        }
        graph
    }

    /// Whether a vertex is planned.
    pub(crate) fn is_planned(&self, vertex: usize) -> bool {
        self.marks[vertex].length > 0
    }

    /// How many vertices of a task are planned.
    pub(crate) fn count(&self, task: usize) -> u32 {
        self.planned[task]
    }

    /// What is done to a planned vertex.
    pub(crate) fn action(&self, vertex: usize) -> Action {
        match self.diff.own[vertex] {
            Own::Added => Action::Create,
            Own::Modified | Own::Asked => Action::Update,
            Own::Same | Own::Unknown | Own::Pending => self.marks[vertex].effect.map_or(Action::Update, Effect::action),
        }
    }

    /// What is owed to a vertex.
    pub(crate) fn owed(&self, vertex: usize) -> Option<Effect> {
        self.marks[vertex].owed
    }

    /// The removals that act on a vertex.
    pub(crate) fn removals(&self, vertex: usize) -> &[GoneHit] {
        let from = self.hits.partition_point(|hit| (hit.vertex as usize) < vertex);
        let to = from + self.hits[from..].partition_point(|hit| hit.vertex as usize == vertex);
        &self.hits[from..to]
    }

    /// All removals that act.
    pub(crate) fn all_removals(&self) -> &[GoneHit] {
        &self.hits
    }

    fn follow_edges(&mut self, task: usize) {
        let diff = self.diff;
        for edge in &diff.desired.graph.tasks[task].edges {
            let (from, Some(effect)) = (edge.from.0 as usize, edge.trigger) else { continue };
            if self.planned[from] == 0 {
                continue;
            }
            let source = match edge.scope {
                Scope::SameNode => {
                    let mut sources = diff.vertices(from).peekable();
                    for v in diff.vertices(task) {
                        let node = diff.node_of[v];
                        while sources.next_if(|s| diff.node_of[*s] < node).is_some() {}
                        if let Some(s) = sources.next_if(|s| diff.node_of[*s] == node && self.is_planned(*s)) {
                            self.hit(v, effect, self.marks[s].length, Cause::Vertex(s as u32));
                        }
                    }
                    continue;
                }
                Scope::AllNodes => {
                    diff.vertices(from).filter(|s| self.is_planned(*s)).min_by_key(|s| self.marks[*s].length)
                }
                Scope::OneNode(node) => diff.vertex(from, node).filter(|s| self.is_planned(*s)),
            };
            let Some(s) = source else { continue };
            for v in diff.vertices(task).filter(|v| diff.own[*v] != Own::Unknown) {
                self.hit(v, effect, self.marks[s].length, Cause::Vertex(s as u32));
            }
        }
    }

    /// A trigger reaches a vertex. The greatest effect is told, by its shortest chain, by its first source.
    fn hit(&mut self, vertex: usize, effect: Effect, length: u32, by: Cause) {
        let mark = &mut self.marks[vertex];
        let better = match mark.effect {
            None => true,
            Some(before) => effect > before || effect == before && length + 1 < mark.length,
        };
        mark.effect = mark.effect.max(Some(effect));
        if better && !self.diff.own[vertex].is_planned() {
            mark.length = length + 1;
            mark.why = Why::Triggered { by, effect };
        }
    }

    /// An obligation stands. If nothing has fired yet, and what still may is planned to, the plan's triggers see to it.
    fn owe(&mut self, task: usize, vertex: usize, obligation: &Obligation) {
        let covered = |open: &TriggerSource| self.is_covered(task, vertex, open);
        if !obligation.fired && obligation.open.iter().all(covered) {
            return;
        }
        let effect = obligation.effect;
        let mark = &mut self.marks[vertex];
        mark.owed = Some(effect);
        if !self.diff.own[vertex].is_planned() && mark.effect <= Some(effect) {
            mark.length = 1;
            mark.why = Why::Owed;
        }
        mark.effect = mark.effect.max(Some(effect));
    }

    /// Whether all that an open source stands for is in this plan, with a trigger from there to the vertex.
    fn is_covered(&self, task: usize, vertex: usize, open: &TriggerSource) -> bool {
        let diff = self.diff;
        let node = diff.node_of[vertex];
        let (id, place) = match open {
            TriggerSource::Task(id) => (id.clone(), Place::Here),
            TriggerSource::Gate(gate) => {
                let name = gate.as_str();
                let Ok(source) = name.strip_prefix("removed/").unwrap_or(name).parse::<Source>() else { return false };
                (source.task, source.place)
            }
        };
        if self.removals(vertex).iter().any(|hit| *diff.gone[hit.gone as usize].id == id) {
            return true;
        }
        let Some(from) = diff.desired.graph.by_id.get(&id).map(|ix| ix.0 as usize) else { return false };
        let at = match &place {
            Place::Everywhere => None,
            Place::Here => Some(node),
            Place::Node(id) => match diff.desired.node(id) {
                Some(node) => Some(node),
                None => return false,
            },
        };
        let planned = |node| diff.vertex(from, node).is_some_and(|s| self.is_planned(s));
        diff.desired.graph.tasks[task].edges.iter().any(|edge| {
            edge.from.0 as usize == from
                && edge.trigger.is_some()
                && match (edge.scope, at) {
                    (Scope::SameNode, Some(at)) => at == node && planned(node),
                    (Scope::SameNode, None) => planned(node),
                    (Scope::OneNode(only), Some(at)) => at == only && planned(only),
                    (Scope::OneNode(only), None) => planned(only),
                    (Scope::AllNodes, Some(at)) => planned(at),
                    (Scope::AllNodes, None) => {
                        self.planned[from] > 0
                            && diff.vertices(from).filter(|s| diff.own[*s] != Own::Unknown).all(|s| self.is_planned(s))
                    }
                }
        })
    }

    /// The chain of reasons of a planned vertex.
    pub(crate) fn reasons(&self, task: usize, vertex: usize) -> Vec<Reason> {
        let diff = self.diff;
        let mut chain = Vec::with_capacity(self.marks[vertex].length as usize);
        let (mut task, mut vertex) = (task, vertex);
        loop {
            match self.marks[vertex].why {
                Why::Own => chain.push(own_reason(diff, task, vertex)),
                Why::Owed => chain.push(Reason::Owed {
                    effect: self.marks[vertex].owed.unwrap_or(Effect::Run),
                    at: diff.desired.graph.tasks[task].at.clone(),
                }),
                Why::Triggered { by: Cause::Gone(gone, node), effect } => {
                    let gone = &diff.gone[gone as usize];
                    chain.push(Reason::Triggered { by: gone.id.at(&diff.desired.nodes[node.0 as usize]), effect });
                    chain.push(removed_reason(diff, gone, node));
                }
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
}

/// The id of a vertex.
pub(crate) fn instance(diff: &Diff<'_>, task: usize, vertex: usize) -> InstanceId {
    diff.desired.graph.tasks[task].id.at(&diff.desired.nodes[diff.node_of[vertex].0 as usize])
}

/// Why a vertex is a change.
fn own_reason(diff: &Diff<'_>, task: usize, vertex: usize) -> Reason {
    let (desired, at) = (diff.desired, &diff.desired.graph.tasks[task]);
    let Some(before) = diff.before[vertex] else {
        let node = diff.node_of[vertex].0 as usize;
        let empty = diff.known[node].is_none_or(|known| known.tasks.is_empty());
        return match empty {
            true => Reason::Added {
                what: Declared::Node(desired.nodes[node].clone()),
                at: desired.node_places[node].clone(),
            },
            false => Reason::Added { what: Declared::Task(at.id.clone()), at: at.at.clone() },
        };
    };
    match diff.asked.get(&vertex) {
        Some(Check::Asked) => return Reason::Asked { at: at.at.clone() },
        Some(Check::Drifted(what)) => return Reason::Drifted { what: what.clone(), at: at.at.clone() },
        None => {}
    }
    let now = diff.resolved(task, vertex).map_or(&[][..], |resolved| &resolved.inputs);
    let changed =
        |input: String, after: Option<String>, at: Location| Reason::Changed { input, before: None, after, at };
    if before.inputs.is_empty() {
        return changed(UNKNOWN.to_owned(), None, at.at.clone());
    }
    if let Some(input) = now.iter().find(|input| before.inputs.get(&input.name) != Some(&input.digest)) {
        return changed(input.name.clone(), input.value.clone(), input.at.clone());
    }
    let lost = before.inputs.keys().find(|name| !now.iter().any(|input| input.name == **name));
    changed(lost.map_or_else(|| UNKNOWN.to_owned(), String::clone), None, at.at.clone())
}

/// Why an instance is removed: its node runs the service no longer, or the service has lost the task, or is gone.
pub(crate) fn removed_reason(diff: &Diff<'_>, gone: &Gone<'_>, node: NodeIx) -> Reason {
    if let Some(off) = gone.task.and_then(|task| diff.desired.graph.tasks[task].off_on(node)) {
        let before = gone.on(node).map(|applied| &applied.inputs);
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
    let service = &gone.id.service;
    let graph = &diff.desired.graph;
    let earlier = graph.by_id.range::<TaskId, _>(..gone.id).rev();
    let siblings = || {
        let same = |(id, _): &(&TaskId, &TaskIx)| id.service == *service;
        let later = graph.by_id.range::<TaskId, _>(gone.id..);
        earlier.clone().take_while(same).chain(later.take_while(same)).map(|(_, ix)| &graph.tasks[ix.0 as usize])
    };
    let sibling = siblings().next();
    let runs_here = siblings().any(|task| task.on(node).is_some());
    let node = node.0 as usize;
    match (sibling, gone.task) {
        (Some(_), Some(_)) if !runs_here => Reason::Removed {
            what: Declared::Node(diff.desired.nodes[node].clone()),
            file: diff.desired.node_places[node].file.to_string(),
        },
        (Some(sibling), _) => {
            Reason::Removed { what: Declared::Task(gone.id.clone()), file: sibling.at.file.to_string() }
        }
        (None, _) => {
            Reason::Removed { what: Declared::Task(gone.id.clone()), file: format!("services/{service}/service.toml") }
        }
    }
}

/// The triggers that removals fire, by the edges declared now and by those recorded.
fn gone_hits(diff: &Diff<'_>) -> Vec<GoneHit> {
    let mut hits = Vec::new();
    if diff.gone.is_empty() {
        return hits;
    }
    let reaches = |gone: usize, scope: Scope, vertex: usize| match scope {
        Scope::SameNode => diff.gone[gone].on(diff.node_of[vertex]).is_some(),
        Scope::AllNodes => true,
        Scope::OneNode(node) => diff.gone[gone].on(node).is_some(),
    };
    let mut add = |gone: usize, scope: Scope, effect: Effect, vertex: usize| {
        if diff.own[vertex] != Own::Unknown && reaches(gone, scope, vertex) {
            hits.push(GoneHit { vertex: vertex as u32, gone: gone as u32, scope, effect });
        }
    };
    for (task, declared) in diff.desired.graph.tasks.iter().enumerate() {
        for edge in &declared.edges {
            if let (Some(effect), Some(gone)) = (edge.trigger, diff.gone_of[edge.from.0 as usize]) {
                diff.vertices(task).for_each(|v| add(gone as usize, edge.scope, effect, v));
            }
        }
    }
    for v in &diff.stale {
        let recorded = diff.before[*v as usize].map_or(&[][..], |before| &before.edges.triggers);
        for trigger in recorded {
            let (Some(gone), Some(scope)) = (diff.gone_by_id(&trigger.on.task), scope(diff, &trigger.on)) else {
                continue;
            };
            add(gone, scope, trigger.effect, *v as usize);
        }
    }
    hits.sort_unstable();
    hits.dedup();
    hits
}

/// A recorded source's scope; none if it is a node that is no longer declared.
pub(crate) fn scope(diff: &Diff<'_>, source: &Source) -> Option<Scope> {
    Some(match &source.place {
        Place::Here => Scope::SameNode,
        Place::Everywhere => Scope::AllNodes,
        Place::Node(id) => Scope::OneNode(diff.desired.node(id)?),
    })
}

/// What is owed to vertices, ascending.
fn obligations<'a>(diff: &Diff<'a>) -> Vec<(u32, &'a Obligation)> {
    let vertex = |node: usize, id: &TaskId| {
        let task = diff.desired.graph.by_id.get(id)?.0 as usize;
        diff.vertex(task, NodeIx(node as u32)).map(|v| v as u32)
    };
    let known = diff.known.iter().enumerate().filter_map(|(node, known)| Some((node, (*known)?)));
    let all = known.flat_map(|(node, known)| known.obligations.iter().map(move |(id, owed)| (node, id, owed)));
    let mut owed: Vec<_> = all.filter_map(|(node, id, owed)| Some((vertex(node, id)?, owed))).collect();
    owed.sort_unstable_by_key(|(v, _)| *v);
    owed
}

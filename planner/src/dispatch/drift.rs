//! Drift: when nodes look for it, what they have found, and what is checked again and put right: by policy, or because somebody asked.
//!
//! In: the site's policies, the nodes' reports, requests. Out: a `CheckRequest` for each node, published when it changes; and the instances that
//! the next plans have checked again. An instance stays among these until its node reports on it: a newer plan does not lose it, and
//! what failed is tried again after the next look.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use groundplan_core::Check;
use groundplan_inventory::DriftPolicy;
use groundplan_protocol::{
    VERSION as WIRE,
    blob::Content,
    drift::{self, CheckRequest, DriftReport, Drifted},
    duration::Span,
    envelope,
    ids::{Generation, InstanceId, NodeId, ServiceId, TaskId},
    report::{Outcome, TaskReport},
    topic::NodeTopic,
};

use super::{Dispatcher, commits::InForce, now_ms};
use crate::api::{
    drift::{
        Answered, Difference, Drift, LookAsked, LookRequest, Looked, NodeAnswered, NodeDrift, TaskDrift, one_line,
    },
    types::{Problem, RecheckPlanned, RecheckRequest, VERSION},
};

/// How many differences stand in the reason of a plan.
const TOLD: usize = 3;

/// How long a task rests after it was put right, where nodes look only when asked.
const PAUSE: Duration = Duration::from_secs(60);

/// Most bytes of drifted contents that are kept of all nodes together; beyond it, their names.
const CONTENTS: usize = 32 << 20;
/// Most of one value in a reason, in characters.
const WORDS: usize = 80;

/// What is known of a node's drift.
#[derive(Debug, Default)]
pub(super) struct NodeLook {
    /// The last `CheckRequest` that was published: its revision, interval and request.
    published: Option<(u64, Option<Span>, u64)>,
    /// The last report.
    report: Option<DriftReport>,
    /// Tasks that are to be put right.
    heal: BTreeSet<TaskId>,
    /// When a task was last put right, or tried to be.
    tried: BTreeMap<TaskId, Instant>,
    /// Tasks that somebody asked to be checked again, each with the first generation that does so: what a job of an earlier one
    /// reports is no answer.
    asked: BTreeMap<TaskId, Generation>,
}

impl NodeLook {
    /// How many tasks have drifted, as far as is known.
    pub(super) fn drifted(&self) -> usize {
        self.report.as_ref().map_or(0, |report| report.drifted.len())
    }

    /// How many bytes of contents its last report holds.
    fn contents(&self) -> usize {
        let differences = self.report.iter().flat_map(|report| report.drifted.values()).flat_map(|d| &d.differences);
        let length = |content: &Content| match content {
            Content::Text(text) | Content::Base64(text) => text.len(),
            Content::Blob(_) => 0,
        };
        differences.filter_map(|difference| difference.content.as_ref()).map(length).sum()
    }

    /// Whether a `CheckRequest` of it is out there.
    pub(super) fn is_published(&self) -> bool {
        self.published.is_some()
    }

    /// A node's word on a task of a plan.
    pub(super) fn fold_report(&mut self, report: &TaskReport, now: Instant) {
        match report.outcome {
            // To be tried again, by the agent or by the next plan.
            Outcome::Interrupted | Outcome::Superseded => return,
            Outcome::Done { .. } => {
                if let Some(known) = &mut self.report {
                    known.drifted.remove(&report.task);
                }
            }
            _ => {}
        }
        let failed_again = !report.outcome.is_success() && self.tried.contains_key(&report.task);
        if self.heal.remove(&report.task) || failed_again {
            self.tried.insert(report.task.clone(), now);
        }
        if self.asked.get(&report.task).is_some_and(|first| report.generation >= *first) {
            self.asked.remove(&report.task);
        }
    }

    /// Whether a task was tried so short a time ago that it rests: what drifts again at once, or cannot be put right, is not to
    /// restart what follows it without end.
    fn rests(&self, task: &TaskId, pause: Duration) -> bool {
        self.tried.get(task).is_some_and(|tried| tried.elapsed() < pause)
    }
}

impl InForce {
    /// How long after it was put right a task may be put right again: so that the next look counts, whatever its node's spread.
    fn pause(&self) -> Duration {
        self.loaded.site.drift.interval.map_or(PAUSE, |interval| Duration::from(interval) * 8 / 10)
    }

    /// What becomes of drift in a service.
    fn drift_policy(&self, service: &ServiceId) -> DriftPolicy {
        let own = self.loaded.catalog.services.get(service).and_then(|service| service.drift);
        own.unwrap_or(self.loaded.site.drift.policy)
    }

    /// Whether what has drifted on a node is to be put right: by policy, and if it is still what the commit asks for.
    fn heals(&self, instance: &InstanceId, drifted: &Drifted) -> bool {
        let desired = self.loaded.desired.instance(instance);
        let same = desired.is_some_and(|desired| desired.resolved.fingerprint == drifted.fingerprint);
        same && self.drift_policy(&instance.task.service) == DriftPolicy::Heal
    }
}

impl Dispatcher {
    /// Publishes to each declared node when it is to look, where that is not what it was told last; to those in `asked` that it
    /// is to look now. Returns the number of each such request.
    pub(super) fn publish_looks(&mut self, asked: &BTreeSet<NodeId>) -> BTreeMap<NodeId, u64> {
        let mut requests = BTreeMap::new();
        let (Some(in_force), Some(site)) = (&self.loaded, self.meta.site.clone()) else { return requests };
        if !self.leader.plans() {
            return requests;
        }
        let interval = in_force.loaded.site.drift.interval;
        let nodes: Vec<NodeId> = in_force.loaded.inventory.nodes.keys().cloned().collect();
        for node in nodes {
            let look = &mut self.nodes.entry(node.clone()).or_default().look;
            let before = look.published.filter(|(_, known, _)| *known == interval && !asked.contains(&node));
            if before.is_some() {
                continue;
            }
            let (last, request) = look.published.map_or((0, 0), |(revision, _, request)| (revision, request));
            // By the clock, so that it also grows over the loss of this planner's store; and beyond what the node has answered, in
            // case the clock was set back.
            let answered = look.report.as_ref().map_or(0, |report| report.asked);
            let revision = now_ms().max(last.max(answered).saturating_add(1));
            let request = if asked.contains(&node) { revision } else { request };
            look.published = Some((revision, interval, request));
            if request == revision {
                requests.insert(node.clone(), request);
            }
            let message = CheckRequest {
                version: WIRE,
                site: site.clone(),
                node: node.clone(),
                revision,
                interval,
                asked: request,
            };
            let sealed = envelope::seal(&self.key, &message);
            self.publish_node(&node, NodeTopic::Check, sealed, true);
        }
        requests
    }

    /// As [`Self::publish_looks`], for a broker that may have lost them.
    pub(super) fn publish_looks_again(&mut self) {
        self.nodes.values_mut().for_each(|record| record.look.published = None);
        self.publish_looks(&BTreeSet::new());
    }

    /// Takes what a node has found.
    pub(super) fn on_drift(&mut self, node: &NodeId, report: DriftReport) {
        let Some(record) = self.nodes.get_mut(node) else { return };
        let known = record.look.report.as_ref().filter(|known| known.ledger == report.ledger);
        // Of a ledger that the node no longer has, or repeated, or overtaken.
        let foreign = record.belief.ledger.as_ref().is_some_and(|ledger| *ledger != report.ledger);
        if foreign || known.is_some_and(|known| known.revision >= report.revision) {
            return;
        }
        tracing::debug!(%node, drifted = report.drifted.len(), checked = report.checked, "has looked for drift");
        record.look.report = Some(report);
        self.bound_contents(node);
        if (self.choose(node) || self.is_unhealed(node)) && self.leader.plans() {
            self.plan_soon(Instant::now(), false);
        }
    }

    /// Drops what the last report of a node tells of contents, if all nodes together tell more than is kept.
    fn bound_contents(&mut self, node: &NodeId) {
        let held: usize = self.nodes.values().map(|record| record.look.contents()).sum();
        let Some(report) = self.nodes.get_mut(node).and_then(|record| record.look.report.as_mut()) else { return };
        if held <= CONTENTS {
            return;
        }
        for difference in report.drifted.values_mut().flat_map(|drifted| &mut drifted.differences) {
            let name = difference.content.as_ref().and_then(Content::name);
            difference.content = name.map(Content::Blob);
        }
    }

    /// Whether something that was to be put right by policy was tried and did not come about. What a commit's own rollout failed at
    /// is not: that waits for another commit, or for somebody who asks.
    fn is_unhealed(&self, node: &NodeId) -> bool {
        let (Some(in_force), Some(record)) = (&self.loaded, self.nodes.get(node)) else { return false };
        record.belief.applied.tasks.iter().any(|(task, applied)| {
            let desired = in_force.loaded.desired.instance(&task.at(node));
            desired.is_some_and(|desired| desired.resolved.fingerprint != applied.fingerprint)
                && record.look.tried.contains_key(task)
                && !record.look.rests(task, in_force.pause())
                && in_force.drift_policy(&task.service) == DriftPolicy::Heal
        })
    }

    /// Chooses anew what is to be put right, on all nodes: the policies may be others than before.
    pub(super) fn choose_all(&mut self) {
        let nodes: Vec<NodeId> = self.nodes.keys().cloned().collect();
        let more = nodes.iter().filter(|node| self.choose(node)).count() > 0;
        if more && self.leader.plans() {
            self.plan_soon(Instant::now(), false);
        }
    }

    /// Chooses anew what is to be put right on a node. Returns whether there is more of it than before.
    fn choose(&mut self, node: &NodeId) -> bool {
        let (Some(in_force), Some(record)) = (&self.loaded, self.nodes.get_mut(node)) else { return false };
        let drifted = record.look.report.iter().flat_map(|report| &report.drifted);
        let heals = |(task, drifted): &(&TaskId, &Drifted)| {
            in_force.heals(&task.at(node), drifted) && !record.look.rests(task, in_force.pause())
        };
        let heal: BTreeSet<TaskId> = drifted.filter(heals).map(|(task, _)| task.clone()).collect();
        let more = !heal.is_subset(&record.look.heal);
        record.look.heal = heal;
        more
    }

    /// What the next plan is to have checked again, and why.
    pub(super) fn to_check(&self) -> BTreeMap<InstanceId, Check> {
        let mut check = BTreeMap::new();
        for (node, record) in &self.nodes {
            let NodeLook { report, heal, asked, .. } = &record.look;
            check.extend(asked.keys().map(|task| (task.at(node), Check::Asked)));
            let words = |task: &TaskId| report.as_ref()?.drifted.get(task).map(words);
            check.extend(heal.iter().map(|task| (task.at(node), Check::Drifted(words(task).unwrap_or_default()))));
        }
        check
    }

    /// Plans so that nodes check again what is named.
    pub(super) fn recheck(&mut self, request: RecheckRequest) -> Result<RecheckPlanned, Problem> {
        let in_force = self.in_force_here()?;
        let desired = &in_force.loaded.desired;
        let RecheckRequest { on, services, tasks } = request;
        let nodes = in_force.selected(&on)?;
        in_force.has(&services, &tasks)?;
        let all = services.is_empty() && tasks.is_empty();
        let is_named = |task: &TaskId| all || services.contains(&task.service) || tasks.contains(task);
        let (mut named, mut left_out) = (Vec::new(), Vec::new());
        for task in desired.graph.tasks.iter().filter(|task| is_named(&task.id)) {
            for instance in &task.instances {
                let node = &desired.nodes[instance.node.0 as usize];
                if !nodes.is_empty() && !nodes.contains(node) {
                    continue;
                }
                let list = if instance.resolved.spec.params.can_check() { &mut named } else { &mut left_out };
                list.push(task.id.at(node));
            }
        }
        let before = self.meta.generation;
        for InstanceId { node, task } in named {
            if let Some(record) = self.nodes.get_mut(&node).filter(|record| record.is_known()) {
                record.look.asked.entry(task).or_insert(before.next());
            }
        }
        self.plan_now();
        let generation = Some(self.meta.generation).filter(|generation| *generation > before);
        Ok(RecheckPlanned { version: VERSION, generation, left_out })
    }

    /// The commit in force, if this planner plans.
    fn in_force_here(&self) -> Result<&InForce, Problem> {
        if !self.leader.plans() {
            let hint = self.leader.standby_of().map(|planner| format!("ask the planner `{planner}`"));
            return Err(Problem { error: "this planner does not plan at the moment".to_owned(), hint });
        }
        let none = || Problem { error: "there is no commit in force yet".to_owned(), hint: None };
        self.loaded.as_ref().ok_or_else(none)
    }

    /// Has nodes look now.
    pub(super) fn ask_to_look(&mut self, request: LookRequest) -> Result<LookAsked, Problem> {
        // Who stands by knows what nodes have found as well.
        let in_force = match &self.loaded {
            Some(in_force) if request.name_only => in_force,
            _ => self.in_force_here()?,
        };
        in_force.has(&request.services, &request.tasks)?;
        let nodes = match request.on.is_empty() {
            true => in_force.loaded.inventory.nodes.keys().cloned().collect(),
            false => in_force.selected(&request.on)?,
        };
        let asked = match request.name_only {
            true => nodes.into_iter().map(|node| (node, 0)).collect(),
            false => self.publish_looks(&nodes),
        };
        Ok(LookAsked { version: VERSION, asked })
    }

    /// Which request each node has answered.
    pub(super) fn answered(&self) -> Answered {
        let declared = self.loaded.iter().flat_map(|in_force| in_force.loaded.inventory.nodes.keys());
        let nodes = declared.map(|node| {
            let record = self.nodes.get(node);
            let report = record.and_then(|record| record.look.report.as_ref());
            let presence = record.map(|record| record.presence).unwrap_or_default();
            (node.clone(), NodeAnswered { presence, asked: report.map_or(0, |report| report.asked) })
        });
        Answered { version: VERSION, nodes: nodes.collect() }
    }

    /// What these nodes have found, or all if none is named, with the contents that their diffs are made of.
    pub(super) fn drift(&self, only: &BTreeSet<NodeId>) -> Drift {
        let Some(in_force) = &self.loaded else { return Drift { version: VERSION, nodes: vec![] } };
        let node = |node: &NodeId| {
            let record = self.nodes.get(node);
            let report = record.and_then(|record| record.look.report.as_ref());
            let drifted = report.into_iter().flat_map(|report| &report.drifted).map(|(task, drifted)| {
                let told = TaskDrift {
                    policy: in_force.drift_policy(&task.service),
                    healing: record.is_some_and(|record| record.look.heal.contains(task)),
                    tried_ms: record
                        .and_then(|record| record.look.tried.get(task))
                        .map(|tried| now_ms().saturating_sub(tried.elapsed().as_millis() as u64)),
                    since_ms: drifted.since_ms,
                    differences: drifted
                        .differences
                        .iter()
                        .map(|d| difference(in_force, &task.at(node), drifted, d))
                        .collect(),
                };
                (task.clone(), told)
            });
            NodeDrift {
                node: node.clone(),
                presence: record.map(|record| record.presence).unwrap_or_default(),
                look: report.map(|report| Looked {
                    asked: report.asked,
                    at_ms: report.at_ms,
                    duration_ms: report.duration_ms,
                    checked: report.checked,
                    left_out: report.left_out,
                }),
                drifted: drifted.collect(),
                failed: report.map(|report| report.failed.clone()).unwrap_or_default(),
            }
        };
        let declared = in_force.loaded.inventory.nodes.keys();
        let nodes = declared.filter(|node| only.is_empty() || only.contains(*node)).map(node);
        Drift { version: VERSION, nodes: nodes.collect() }
    }
}

fn difference(in_force: &InForce, instance: &InstanceId, drifted: &Drifted, told: &drift::Difference) -> Difference {
    let drift::Difference { what, expected, found, content } = told.clone();
    // A name alone is nothing to compare with.
    let found_here = content.filter(|content| content.blob().is_none());
    let desired = in_force.loaded.desired.instance(instance).map(|desired| &desired.resolved);
    let applied = desired.filter(|resolved| resolved.fingerprint == drifted.fingerprint);
    let contents = found_here.map(|found| (applied.cloned(), found));
    Difference { what, expected, found, diff: None, contents }
}

/// What differs, in short words: what a node says, fit for a line of a table.
fn words(drifted: &Drifted) -> String {
    let word = |d: &drift::Difference| {
        let what = one_line(&d.what, WORDS);
        let [expected, found] = [&d.expected, &d.found].map(|text| text.as_ref().map(|text| one_line(text, WORDS)));
        match (expected, found) {
            (Some(expected), Some(found)) => format!("{what} {expected} → {found}"),
            (Some(expected), None) => format!("{what} {expected} → nothing"),
            (None, Some(found)) => format!("{what} → {found}"),
            (None, None) => format!("{what} differs"),
        }
    };
    let mut words: Vec<String> = drifted.differences.iter().take(TOLD).map(word).collect();
    match drifted.differences.len() {
        0 => return "it is not so any more".to_owned(),
        n if n > TOLD => words.push(format!("and {} more", n - TOLD)),
        _ => {}
    }
    words.join(", ")
}

//! Drift and healing: when nodes check for drift, what they found, and what is checked again and repaired, by policy or because an
//! operator asked.
//!
//! In: the site's settings, the nodes' drift reports and task reports, requests. Out: a [`CheckRequest`] for each node, when it changes;
//! and the instances that the next plan has checked again. An instance stays among these until its node reports on it, so a newer plan
//! does not lose it; one that an operator asked for, until another planner takes over. What could not be repaired rests until the next
//! drift check.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use groundplan_core::Check;
use groundplan_protocol::{
    VERSION,
    blob::Content,
    drift::{CheckRequest, Difference, DriftReport, Drifted},
    duration::Span,
    ids::{Generation, InstanceId, NodeId, TaskId},
    report::{Outcome, TaskReport},
    time::Now,
};

use crate::commit::ActiveCommit;

/// How many differences stand in the reason of a plan.
const NAMED: usize = 3;
/// Most of one value in a reason, in characters.
const SHORT: usize = 80;
/// Most bytes of drifted contents that are kept of all nodes together; beyond it, their names.
const CONTENTS: usize = 32 << 20;

/// What is known of the drift of one node.
#[derive(Debug, Clone, Default)]
pub struct NodeDrift {
    /// The last request that was published.
    published: Option<Published>,
    /// The last report.
    pub report: Option<DriftReport>,
    /// Tasks that are to be repaired.
    pub heal: BTreeSet<TaskId>,
    /// When a task was last repaired, or tried to be.
    pub tried: BTreeMap<TaskId, Now>,
    /// Tasks that an operator asked to be checked again, each with the first generation that does so: what a job of an earlier one
    /// reports is no answer.
    asked: BTreeMap<TaskId, Generation>,
}

/// A published request, without its addressee.
#[derive(Debug, Clone, Copy)]
struct Published {
    revision: u64,
    interval: Option<Span>,
    asked: u64,
}

impl NodeDrift {
    /// How many tasks have drifted, as far as is known.
    pub fn drifted(&self) -> usize {
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

    /// Takes a report on a task of a plan.
    fn fold_report(&mut self, report: &TaskReport, now: Now) {
        match report.outcome {
            // Not the end of it: the agent, or the next plan, tries again.
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

    /// Whether a task was tried so short a time ago that it rests: what drifts again at once, or cannot be repaired, is not to restart
    /// what follows it without end.
    fn rests(&self, task: &TaskId, rest: Duration, now: Now) -> bool {
        self.tried.get(task).is_some_and(|tried| now.mono.saturating_sub(tried.mono) < rest)
    }
}

/// The drift of all nodes; shared with views like the fleet's nodes.
#[derive(Debug, Default)]
pub(crate) struct Drift {
    nodes: BTreeMap<NodeId, Arc<NodeDrift>>,
}

impl Drift {
    pub(crate) fn nodes(&self) -> &BTreeMap<NodeId, Arc<NodeDrift>> {
        &self.nodes
    }

    fn entry(&mut self, node: &NodeId) -> &mut NodeDrift {
        Arc::make_mut(self.nodes.entry(node.clone()).or_default())
    }

    /// Makes the request of each declared node for which it has changed, and of those in `asked`, which are to check now.
    ///
    /// Returns the requests, and the number of each that asks.
    pub(crate) fn requests(
        &mut self,
        active: &ActiveCommit,
        asked: &BTreeSet<NodeId>,
        now: Now,
    ) -> (Vec<CheckRequest>, BTreeMap<NodeId, u64>) {
        let (mut requests, mut numbers) = (Vec::new(), BTreeMap::new());
        let interval = active.drift.interval;
        for node in &active.desired.nodes {
            let asks = asked.contains(node);
            let known = self.nodes.get(node).and_then(|known| known.published);
            if known.is_some_and(|known| known.interval == interval) && !asks {
                continue;
            }
            let entry = self.entry(node);
            let (last, before) = known.map_or((0, 0), |known| (known.revision, known.asked));
            // By the clock, so that it also grows over the loss of this planner's store; and beyond what the node has answered, in
            // case the clock was set back.
            let answered = entry.report.as_ref().map_or(0, |report| report.asked);
            let revision = now.wall_ms.max(last.max(answered).saturating_add(1));
            let number = if asks { revision } else { before };
            entry.published = Some(Published { revision, interval, asked: number });
            if asks {
                numbers.insert(node.clone(), number);
            }
            let (site, node) = (active.site.clone(), node.clone());
            requests.push(CheckRequest { version: VERSION, site, node, revision, interval, asked: number });
        }
        (requests, numbers)
    }

    /// Has every request made again: the broker may have lost them.
    pub(crate) fn forget_published(&mut self) {
        for known in self.nodes.values_mut().filter(|known| known.published.is_some()) {
            Arc::make_mut(known).published = None;
        }
    }

    /// Nodes that a request was published for and that are not declared any more; forgets their drift.
    pub(crate) fn forget_undeclared(&mut self, active: &ActiveCommit) -> Vec<NodeId> {
        let undeclared =
            |(node, known): &(&NodeId, &Arc<NodeDrift>)| known.published.is_some() && !active.declares(node);
        let nodes: Vec<NodeId> = self.nodes.iter().filter(undeclared).map(|(node, _)| node.clone()).collect();
        nodes.iter().for_each(|node| drop(self.nodes.remove(node)));
        nodes
    }

    /// Takes what a node's drift check found. Returns whether it was news.
    pub(crate) fn fold(&mut self, node: &NodeId, report: DriftReport) -> bool {
        let known = self.nodes.get(node).and_then(|known| known.report.as_ref());
        let known = known.filter(|known| known.ledger == report.ledger);
        // Repeated, or overtaken by a newer one.
        if known.is_some_and(|known| known.revision >= report.revision) {
            return false;
        }
        self.entry(node).report = Some(report);
        self.bound_contents(node);
        true
    }

    /// Takes a report on a task of a plan.
    pub(crate) fn fold_report(&mut self, node: &NodeId, report: &TaskReport, now: Now) {
        // Most nodes have no drift: no copy is made for those.
        let Some(known) = self.nodes.get_mut(node) else { return };
        let concerns = known.report.as_ref().is_some_and(|drift| drift.drifted.contains_key(&report.task))
            || known.heal.contains(&report.task)
            || known.tried.contains_key(&report.task)
            || known.asked.contains_key(&report.task);
        if concerns {
            Arc::make_mut(known).fold_report(report, now);
        }
    }

    /// Drops the contents that the last report of a node holds, if all nodes together hold more than is kept.
    fn bound_contents(&mut self, node: &NodeId) {
        let held: usize = self.nodes.values().map(|known| known.contents()).sum();
        if held <= CONTENTS {
            return;
        }
        let Some(report) = &mut self.entry(node).report else { return };
        for difference in report.drifted.values_mut().flat_map(|drifted| &mut drifted.differences) {
            let name = difference.content.as_ref().and_then(Content::name);
            difference.content = name.map(Content::Blob);
        }
    }

    /// Chooses again what is to be repaired on a node. Returns whether there is more of it than before.
    pub(crate) fn choose(&mut self, node: &NodeId, active: &ActiveCommit, now: Now) -> bool {
        let Some(known) = self.nodes.get_mut(node) else { return false };
        let drifted = known.report.iter().flat_map(|report| &report.drifted);
        let heals = |(task, drifted): &(&TaskId, &Drifted)| {
            // Only what is still what the commit asks for: anything else is changed by a plan anyway.
            let desired = active.desired.instance(&task.at(node));
            desired.is_some_and(|desired| desired.resolved.fingerprint == drifted.fingerprint)
                && active.drift.heal.contains(&task.service)
                && !known.rests(task, active.drift.rest(), now)
        };
        let heal: BTreeSet<TaskId> = drifted.filter(heals).map(|(task, _)| task.clone()).collect();
        let more = !heal.is_subset(&known.heal);
        if heal != known.heal {
            Arc::make_mut(known).heal = heal;
        }
        more
    }

    /// Whether a repair of this task by policy was tried, did not succeed, and may be tried again. What a commit's own rollout failed at
    /// is not: that waits for another commit, or for an operator.
    pub(crate) fn may_retry(&self, node: &NodeId, task: &TaskId, active: &ActiveCommit, now: Now) -> bool {
        self.nodes.get(node).is_some_and(|known| {
            known.tried.contains_key(task)
                && !known.rests(task, active.drift.rest(), now)
                && active.drift.heal.contains(&task.service)
        })
    }

    /// Has an instance checked again from `first` on, because an operator asks.
    pub(crate) fn ask(&mut self, instance: &InstanceId, first: Generation) {
        self.entry(&instance.node).asked.entry(instance.task.clone()).or_insert(first);
    }

    /// Ends what operators asked for in an earlier term: the planner that planned meanwhile may have received the answers.
    pub(crate) fn end_requests(&mut self) {
        for known in self.nodes.values_mut().filter(|known| !known.asked.is_empty()) {
            Arc::make_mut(known).asked.clear();
        }
    }

    /// What the next plan is to have checked again, and why.
    pub(crate) fn to_check(&self) -> BTreeMap<InstanceId, Check> {
        let mut check = BTreeMap::new();
        for (node, known) in &self.nodes {
            let NodeDrift { report, heal, asked, .. } = &**known;
            check.extend(asked.keys().map(|task| (task.at(node), Check::Asked)));
            let summary = |task: &TaskId| report.as_ref()?.drifted.get(task).map(summary);
            check.extend(heal.iter().map(|task| (task.at(node), Check::Drifted(summary(task).unwrap_or_default()))));
        }
        check
    }
}

/// What differs, in a few words that are fit for a line of a table.
fn summary(drifted: &Drifted) -> String {
    let one = |d: &Difference| {
        let what = one_line(&d.what, SHORT);
        let [expected, found] = [&d.expected, &d.found].map(|text| text.as_ref().map(|text| one_line(text, SHORT)));
        match (expected, found) {
            (Some(expected), Some(found)) => format!("{what} {expected} → {found}"),
            (Some(expected), None) => format!("{what} {expected} → nothing"),
            (None, Some(found)) => format!("{what} → {found}"),
            (None, None) => format!("{what} differs"),
        }
    };
    let mut parts: Vec<String> = drifted.differences.iter().take(NAMED).map(one).collect();
    match drifted.differences.len() {
        0 => return "it is out of sync".to_owned(),
        n if n > NAMED => parts.push(format!("and {} more", n - NAMED)),
        _ => {}
    }
    parts.join(", ")
}

/// A node's text, fit for one line of a terminal: its first line, at most so many characters, control characters escaped.
pub fn one_line(text: &str, most: usize) -> String {
    let line = plain(text.lines().next().unwrap_or_default());
    let mut out: String = line.chars().take(most).collect();
    if text.trim_end().lines().count() > 1 || line.chars().count() > most {
        out.push('…');
    }
    out
}

/// A node's text with control characters but tabs escaped: what stands in a tampered file must not reach a terminal as commands.
pub fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        match c.is_control() && c != '\t' {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_with_its_term() {
        let instance: InstanceId = "web.server@n1".parse().unwrap();
        let mut drift = Drift::default();
        drift.ask(&instance, Generation(3));
        assert_eq!(drift.to_check(), BTreeMap::from([(instance, Check::Asked)]));
        drift.end_requests();
        assert_eq!(drift.to_check(), BTreeMap::new());
    }

    #[test]
    fn a_text_of_a_node_is_fit_for_a_line() {
        assert_eq!(one_line("two\nlines", 80), "two…");
        assert_eq!(one_line("one line\n", 80), "one line");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(plain("\x1b[2J\tx"), "\\u{1b}[2J\tx");
    }
}

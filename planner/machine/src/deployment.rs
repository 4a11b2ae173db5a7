//! The deployment: which commit is active, which was refused, and what is due to be loaded or planned.
//!
//! In: tips of the branch, answers to jobs, news of nodes' facts and exports, the time. Out: the next [`Job`] to start, and what an
//! answer means. One load and one plan are under way at most; an answer counts only if it is of the latest job of its kind. Starts
//! nothing itself, and holds no more of a commit than [`ActiveCommit`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use groundplan_core::knowledge::Misfit;
use groundplan_protocol::{
    ids::{CommitId, Generation, InstanceId, NodeId, TaskId},
    time::Now,
};

use crate::{
    commit::{ActiveCommit, Earlier},
    ids::{JobId, RequestId},
    io::{Effect, Reply},
};

/// How long to wait for more nodes with news before planning again, at first and at most.
const DEBOUNCE: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(500)];

/// How often facts that were known before may make a new plan.
const FACTS_EVERY: Duration = Duration::from_secs(10);

/// How long after a commit could not be read it is tried again.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// Planning that is due, by the monotonic clock.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Duration,
    latest: Duration,
}

/// News from nodes that the active commit has asked for and is not resolved with yet.
#[derive(Debug, Clone, Copy)]
struct News {
    /// When the commit is to be resolved with it, by the monotonic clock.
    at: Duration,
    /// Whether no gate may be opened before.
    holds_gates: bool,
}

/// Why a commit is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoadReason {
    /// It was active when the planner ended.
    Restored,
    /// It is the branch's tip.
    Tip,
    /// It is active, and nodes have reported something that it asks for.
    News,
}

/// A load under way.
#[derive(Debug)]
struct Loading {
    job: JobId,
    commit: CommitId,
    reason: LoadReason,
    /// The news that it takes into account.
    news: Option<News>,
    /// Nodes whose facts have come since it was started, and whether they were the first.
    facts: BTreeMap<NodeId, bool>,
    /// Exports that have another value since it was started.
    exports: BTreeSet<TaskId>,
}

/// A plan under way.
#[derive(Debug)]
pub(crate) struct Planning {
    job: JobId,
    /// The generation that it gets.
    pub(crate) generation: Generation,
    /// Requests that wait for it.
    pub(crate) requests: Vec<PlanRequest>,
}

/// A request that waits for its plan.
#[derive(Debug)]
pub(crate) struct PlanRequest {
    pub(crate) request: RequestId,
    pub(crate) wants: Wants,
}

/// What a request wants of the plan.
#[derive(Debug)]
pub(crate) enum Wants {
    /// A check; with what cannot be checked.
    Recheck { left_out: Vec<InstanceId> },
    /// What has failed to be tried again.
    Retry,
    /// A record to be dropped.
    Forget,
    /// To go on without a node, or to wait for it again.
    Park,
}

impl PlanRequest {
    /// Its reply, once there is a plan; `generation` if that does anything.
    pub(crate) fn reply(self, generation: Option<Generation>) -> Effect {
        let reply = match self.wants {
            Wants::Recheck { left_out } => Reply::Recheck { generation, left_out },
            Wants::Retry => Reply::Retry(generation),
            Wants::Forget => Reply::Forget(generation),
            Wants::Park => Reply::Park(generation),
        };
        Effect::Reply(self.request, Ok(reply))
    }
}

/// What is to be started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Load { job: JobId, commit: CommitId, misfit: Misfit },
    Plan { job: JobId },
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Deployment {
    active: Option<Arc<ActiveCommit>>,
    /// The commit for which there is or was a rollout, or nothing to do.
    pub(crate) planned_commit: Option<CommitId>,
    /// The commit that was active when the planner ended, until it or another one is active again, and when it is to be loaded.
    restore: Option<(CommitId, Duration)>,
    /// The branch's tip, while it is to be loaded.
    tip: Option<CommitId>,
    /// A tip that could not be read, and when it is tried again.
    unread: Option<(CommitId, Duration)>,
    /// Why the repository could not be read the last time.
    pub(crate) repository_error: Option<String>,
    loading: Option<Loading>,
    planning: Option<Planning>,
    due: Option<Due>,
    news: Option<News>,
    /// News for which the active commit could not be read.
    unread_news: Option<News>,
    /// A plan has to come before gates open again: what it is to be planned with was resolved already.
    gates_wait_for_plan: bool,
    /// When changed facts last had the commit resolved again.
    facts_resolved: Option<Duration>,
    /// What was desired before, for reasons that name the values before.
    earlier: Earlier,
    /// Requests that wait for the next plan to be started.
    requests: Vec<PlanRequest>,
    last_job: u64,
}

impl Deployment {
    /// `restore` is the commit that was active when the planner ended.
    pub(crate) fn new(restore: Option<CommitId>, planned_commit: Option<CommitId>) -> Self {
        let restore = restore.map(|commit| (commit, Duration::ZERO));
        Self { restore, planned_commit, ..Self::default() }
    }

    pub(crate) fn active(&self) -> Option<&Arc<ActiveCommit>> {
        self.active.as_ref()
    }

    fn next_job(&mut self) -> JobId {
        self.last_job += 1;
        JobId(self.last_job)
    }

    /// The branch's tip is this. Returns whether it is active already, so that nothing that was refused stands any more.
    pub(crate) fn tip(&mut self, id: CommitId) -> bool {
        self.repository_error = None;
        self.unread = None;
        let loads_tip = self.loading.as_ref().filter(|loading| loading.reason == LoadReason::Tip);
        if loads_tip.is_some_and(|loading| loading.commit == id) {
            return false;
        }
        if self.active.as_ref().is_some_and(|active| active.commit.id == id) {
            self.tip = None;
            if loads_tip.is_some() {
                self.abandon_load();
            }
            return true;
        }
        self.tip = Some(id);
        false
    }

    /// An answer that is not waited for any more: its news are news again.
    fn abandon_load(&mut self) {
        if let Some(Loading { news: Some(news), .. }) = self.loading.take() {
            self.add_news(news.at, news.holds_gates);
        }
    }

    /// A node's facts have changed, or are known for the first time.
    pub(crate) fn facts_changed(&mut self, node: &NodeId, first: bool, now: Now) {
        // The commit that is loaded may ask for what the active one does not, and is resolved without this.
        if let Some(loading) = &mut self.loading {
            *loading.facts.entry(node.clone()).or_default() |= first;
        }
        if !self.active.as_ref().is_some_and(|active| active.desired.node_inputs.facts.contains(node)) {
            return;
        }
        // A fact that flaps must not make a storm of plans; one that is new has something waiting for it.
        let allowed = self.facts_resolved.map_or(now.mono, |last| last + FACTS_EVERY);
        let at = if first { now.mono } else { now.mono.max(allowed) };
        self.add_news(at + DEBOUNCE[0], false);
    }

    /// Another value of an export is known.
    pub(crate) fn export_changed(&mut self, task: &TaskId, now: Now) {
        if let Some(loading) = &mut self.loading {
            loading.exports.insert(task.clone());
        }
        if self.active.as_ref().is_some_and(|active| active.desired.node_inputs.exports.contains(task)) {
            self.add_news(now.mono + DEBOUNCE[0], true);
        }
    }

    /// Whether a commit is being loaded, or is to be because of news.
    pub(crate) fn is_resolving(&self) -> bool {
        self.loading.is_some() || self.news.is_some() || self.unread_news.is_some() || self.tip.is_some()
    }

    /// Elections have another outcome: what comes after the tasks waits until they are planned with it.
    pub(crate) fn elected(&mut self, now: Now) {
        self.add_news(now.mono, true);
    }

    fn add_news(&mut self, at: Duration, holds_gates: bool) {
        let news = self.news.get_or_insert(News { at, holds_gates });
        news.at = news.at.min(at);
        news.holds_gates |= holds_gates;
    }

    /// All news, to be loaded with.
    fn take_news(&mut self) -> Option<News> {
        if let Some(unread) = self.unread_news.take() {
            self.add_news(unread.at, unread.holds_gates);
        }
        self.news.take()
    }

    /// Whether gates must stay closed until the next plan: what comes after an export is planned with its value first, and while a plan is
    /// worked out the rollout that it supersedes stands still.
    pub(crate) fn holds_gates(&self) -> bool {
        let loading = self.loading.as_ref().and_then(|loading| loading.news);
        [self.news, self.unread_news, loading].into_iter().flatten().any(|news| news.holds_gates)
            || self.gates_wait_for_plan
            || self.planning.is_some()
    }

    /// Plans at once, or after a short while in which more news may come.
    pub(crate) fn plan_soon(&mut self, now: Now, at_once: bool) {
        let latest = self.due.map_or(now.mono + DEBOUNCE[1], |due| due.latest);
        let at = match self.due {
            // What is due already stays so, however much news comes.
            Some(due) if due.at <= now.mono => due.at,
            _ if at_once => now.mono,
            _ => (now.mono + DEBOUNCE[0]).min(latest),
        };
        self.due = Some(Due { at, latest });
    }

    /// Whether something has come in that is not planned with yet.
    pub(crate) fn is_due(&self) -> bool {
        self.due.is_some()
            || self.news.is_some()
            || self.unread_news.is_some()
            || self.planning.is_some()
            || self.loading.is_some()
            || self.tip.is_some()
    }

    /// Whether a plan is due or under way.
    pub(crate) fn plan_is_due(&self) -> bool {
        self.due.is_some() || self.planning.is_some()
    }

    /// The plan under way.
    pub(crate) fn planning(&self) -> Option<&Planning> {
        self.planning.as_ref()
    }

    /// Has a request wait for the next plan that is started, which is due at once.
    pub(crate) fn wait_for_plan(&mut self, request: PlanRequest, now: Now) {
        self.requests.push(request);
        self.plan_soon(now, true);
    }

    /// This planner ceases to plan. Returns the requests that waited.
    pub(crate) fn stand_by(&mut self) -> Vec<PlanRequest> {
        self.due = None;
        self.gates_wait_for_plan = false;
        let planning = self.planning.take().map(|planning| planning.requests).unwrap_or_default();
        planning.into_iter().chain(std::mem::take(&mut self.requests)).collect()
    }

    /// When the next job is to be started, by the monotonic clock; `plans` is whether this planner plans.
    pub(crate) fn deadline(&self, plans: bool) -> Option<Duration> {
        let may_resolve = plans && self.loading.is_none() && self.planning.is_none();
        let [news, unread_news] = [self.news, self.unread_news].map(|news| news.map(|n| n.at).filter(|_| may_resolve));
        let due = self.due.map(|due| due.at).filter(|_| plans && self.can_plan());
        let unread = self.unread.as_ref().map(|(_, at)| *at).filter(|_| !self.is_restoring());
        let restore = self.restore.as_ref().map(|(_, at)| *at).filter(|_| self.loading.is_none());
        [news, unread_news, due, unread, restore].into_iter().flatten().min()
    }

    /// A plan waits for a load of news, because it would have to be made again at once.
    fn can_plan(&self) -> bool {
        let news = self.loading.as_ref().is_some_and(|loading| loading.reason != LoadReason::Tip);
        self.planning.is_none() && !news && self.active.is_some()
    }

    fn is_restoring(&self) -> bool {
        self.loading.as_ref().is_some_and(|loading| loading.reason == LoadReason::Restored)
    }

    /// The next job that is due.
    pub(crate) fn start(&mut self, plans: bool, now: Now) -> Option<Job> {
        let idle = self.loading.is_none();
        if let Some((commit, _)) = self.restore.take_if(|(_, at)| idle && now.mono >= *at) {
            return Some(self.load(commit, LoadReason::Restored, None));
        }
        // Until what was active is so again, a tip would be taken for the first commit.
        if self.is_restoring() {
            return None;
        }
        if let Some((commit, _)) = self.unread.take_if(|(_, at)| now.mono >= *at) {
            self.tip = Some(commit);
        }
        if let Some(commit) = self.tip.take() {
            self.abandon_load();
            let news = self.take_news();
            return Some(self.load(commit, LoadReason::Tip, news));
        }
        if !plans {
            return None;
        }
        let has_come = |news: &News| now.mono >= news.at;
        let plan_due = self.due.is_some_and(|due| now.mono >= due.at) && self.can_plan();
        // A plan that is due is made with the latest news, but does not wait until the repository can be read again.
        let news_due = self.news.as_ref().is_some_and(|news| plan_due || has_come(news))
            || self.unread_news.as_ref().is_some_and(has_come);
        if news_due && self.loading.is_none() && self.planning.is_none() {
            let (commit, news) = (self.active.as_ref()?.commit.id.clone(), self.take_news());
            if news.is_some_and(|news| !news.holds_gates) {
                self.facts_resolved = Some(now.mono);
            }
            return Some(self.load(commit, LoadReason::News, news));
        }
        if plan_due {
            self.due = None;
            let job = self.next_job();
            return Some(Job::Plan { job });
        }
        None
    }

    fn load(&mut self, commit: CommitId, reason: LoadReason, news: Option<News>) -> Job {
        let job = self.next_job();
        let (facts, exports) = Default::default();
        self.loading = Some(Loading { job, commit: commit.clone(), reason, news, facts, exports });
        // In a commit that is active no person has changed anything: a node's odd fact must not stop a fleet.
        let misfit = if reason == LoadReason::Tip { Misfit::Refuse } else { Misfit::Wait };
        Job::Load { job, commit, misfit }
    }

    /// Whether a request that waits for the next plan wants what has failed to be tried again.
    pub(crate) fn wants_retry(&self) -> bool {
        self.requests.iter().any(|request| matches!(request.wants, Wants::Retry))
    }

    /// A plan is under way.
    pub(crate) fn planning_started(&mut self, job: JobId, generation: Generation) {
        let requests = std::mem::take(&mut self.requests);
        self.planning = Some(Planning { job, generation, requests });
    }

    /// What was desired before; once.
    pub(crate) fn take_earlier(&mut self) -> Earlier {
        self.earlier.take()
    }

    /// The plan of `job` is there. None if it is stale.
    pub(crate) fn planned(&mut self, job: JobId) -> Option<Planning> {
        let planning = self.planning.take_if(|planning| planning.job == job)?;
        self.gates_wait_for_plan = false;
        Some(planning)
    }

    /// A load has ended. None if it is stale; else why it was made.
    pub(crate) fn loaded(&mut self, job: JobId) -> Option<LoadReason> {
        let loading = self.loading.as_ref().filter(|loading| loading.job == job)?;
        Some(loading.reason)
    }

    /// What was loaded is without fault and becomes active.
    pub(crate) fn accept(&mut self, commit: Arc<ActiveCommit>, same: bool, now: Now) {
        let Some(loading) = self.loading.take() else { return };
        let before = self.active.replace(commit);
        (self.restore, self.repository_error) = (None, None);
        match loading.reason {
            LoadReason::Restored => {}
            LoadReason::Tip => {
                self.keep_earlier(before);
                self.drop_plan();
            }
            LoadReason::News if same => {}
            LoadReason::News => {
                self.keep_earlier(before);
                self.drop_plan();
                self.gates_wait_for_plan |= loading.news.is_some_and(|news| news.holds_gates);
                self.plan_soon(now, true);
            }
        }
        for (node, first) in loading.facts {
            self.facts_changed(&node, first, now);
        }
        for task in loading.exports {
            self.export_changed(&task, now);
        }
    }

    fn keep_earlier(&mut self, before: Option<Arc<ActiveCommit>>) {
        if let Some(before) = before {
            self.earlier.get_or_insert(before.desired.clone());
        }
    }

    /// A plan under way is of an older commit: its answer is stale, and who waited for it waits for the next.
    fn drop_plan(&mut self) {
        if let Some(planning) = self.planning.take() {
            self.requests.extend(planning.requests);
        }
    }

    /// What was loaded has faults, or cannot be read; what was active stays so.
    pub(crate) fn not_accepted(&mut self, unreadable: Option<String>, now: Now) {
        let Some(Loading { commit, reason, news, .. }) = self.loading.take() else { return };
        let again = now.mono + READ_AGAIN;
        match (reason, unreadable.is_some()) {
            (LoadReason::Restored, true) => self.restore = Some((commit, again)),
            (LoadReason::Tip, true) => self.unread = Some((commit, again)),
            (LoadReason::News, true) => self.unread_news = news.map(|news| News { at: again, ..news }),
            (_, false) => {}
        }
        if let Some(news) = news.filter(|_| reason == LoadReason::Tip) {
            // The active commit is to be resolved with them after all.
            self.add_news(news.at, news.holds_gates);
        }
        if unreadable.is_some() {
            self.repository_error = unreadable;
        }
    }
}

#[cfg(test)]
#[path = "deployment_tests.rs"]
mod tests;

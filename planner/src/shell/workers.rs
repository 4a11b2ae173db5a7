//! The jobs that the loop must not wait for, each kind on a thread of its own: loading commits, and working out plans.
//!
//! In: jobs. Out: answers, on the loop's channel. Each thread takes its jobs in order; a load whose answer would be stale is skipped. The
//! threads end when the loop does.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc::Receiver},
    time::Instant,
};

use groundplan_core::{locate::Locator, plan::ReasonReport};
use groundplan_machine::{
    commit::{Commit, RefusedCommit, Rewind, asks_for_the_same},
    ids::JobId,
    io::{LoadJob, LoadOutcome},
    planning::{PlanJob, Planned},
};
use groundplan_protocol::ids::CommitId;
use tokio::sync::mpsc::UnboundedSender;

use super::site::{Site, fault, renamed, rewound};
use crate::{
    repository::{Repository, RepositoryError},
    site::{self, Cache},
};

/// Which commits are accepted that are no fast-forwards; shared by the loop and the thread that loads.
#[derive(Debug)]
pub(super) struct FastForward {
    /// Whether none is, whatever the site says.
    only: bool,
    /// The one that an operator has accepted.
    accepted: Mutex<Option<CommitId>>,
}

impl FastForward {
    pub(super) fn new(only: bool) -> Self {
        Self { only, accepted: Mutex::default() }
    }

    /// An operator accepts a commit.
    pub(super) fn accept(&self, commit: CommitId) {
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(commit);
    }

    /// Whether a commit that is no fast-forward is refused; `site` is whether the active commit says so.
    fn refuses(&self, commit: &CommitId, site: bool) -> bool {
        (self.only || site) && self.accepted.lock().unwrap_or_else(PoisonError::into_inner).as_ref() != Some(commit)
    }
}

/// An answer of a worker.
pub(super) enum Answer {
    /// A commit was loaded, or not.
    Loaded(JobId, LoadOutcome, Option<Arc<Site>>),
    /// A plan was worked out.
    Planned(Box<Planned>),
}

/// Loads commits until the loop ends.
pub(super) fn load(
    repository: &Repository,
    rule: &FastForward,
    jobs: &Receiver<Box<LoadJob>>,
    answers: &UnboundedSender<Answer>,
) {
    let mut cache = Cache::default();
    while let Ok(mut job) = jobs.recv() {
        // Only the latest is waited for.
        while let Ok(newer) = jobs.try_recv() {
            job = newer;
        }
        let started = Instant::now();
        let (outcome, site) = load_one(repository, rule, &job, &mut cache).unwrap_or_else(|error| {
            let hint = error.hint().map_or(String::new(), |hint| format!(" ({hint})"));
            (LoadOutcome::Unreadable(format!("{error}{hint}")), None)
        });
        tracing::debug!(commit = %job.commit, took = ?started.elapsed(), "loaded");
        if answers.send(Answer::Loaded(job.job, outcome, site)).is_err() {
            return;
        }
    }
}

fn load_one(
    repository: &Repository,
    rule: &FastForward,
    job: &LoadJob,
    cache: &mut Cache,
) -> Result<(LoadOutcome, Option<Arc<Site>>), RepositoryError> {
    // The order decides what is reported: a commit that cannot be read is no fault of the site, and only a site without
    // faults can be compared with the active one.
    let mut commit = Commit::from(repository.describe(&job.commit)?);
    commit.rewinds = match &job.base {
        Some(base) if base.id == commit.id => base.rewinds.clone(),
        Some(base) => {
            let rewinds = repository.rewinds(&base.id, &commit.id)?;
            rewinds.map(|commits| Box::new(Rewind { from: base.id.clone(), commits }))
        }
        None => None,
    };
    if let Some(rewinds) =
        commit.rewinds.as_ref().filter(|_| job.base.as_ref().is_some_and(|base| base.id != commit.id))
    {
        tracing::warn!(commit = %commit.id, from = %rewinds.from, "the branch was moved to a commit that is no fast-forward");
        if rule.refuses(&commit.id, job.active.as_ref().is_some_and(|active| active.fast_forward_only)) {
            let faults = vec![rewound(&commit.id, rewinds)];
            return Ok((LoadOutcome::Refused(RefusedCommit { commit, faults }), None));
        }
    }
    let tree = repository.tree(&job.commit)?;
    let loaded = site::load(&tree, &job.knowledge, cache);
    if let Some(unread) = tree.unread() {
        // What was made of the rest must not be taken for what the commit holds.
        *cache = Cache::default();
        let commit = job.commit.clone();
        return Err(RepositoryError::File { path: unread.path, commit, cause: unread.cause });
    }
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            let mut locator = Locator::of_tree(&tree);
            let faults = diagnostics.iter().map(|diagnostic| fault(diagnostic, &mut locator)).collect();
            return Ok((LoadOutcome::Refused(RefusedCommit { commit, faults }), None));
        }
    };
    if let Some(fault) = job.site.as_ref().and_then(|before| renamed(before, &loaded.site.name, &tree)) {
        return Ok((LoadOutcome::Refused(RefusedCommit { commit, faults: vec![fault] }), None));
    }
    let site = Arc::new(Site::new(commit, tree, loaded));
    // Compared here, because it may take long on a large site: the machine then plans nothing for a commit that was
    // loaded again.
    let same = job.active.as_ref().is_some_and(|active| {
        active.commit.id == site.active.commit.id && asks_for_the_same(&active.desired, &site.active.desired)
    });
    Ok((LoadOutcome::Good { commit: site.active.clone(), same }, Some(site)))
}

/// Works out plans until the loop ends; each comes with the site that it is for.
pub(super) fn plan(jobs: &Receiver<(Box<PlanJob>, Arc<Site>)>, answers: &UnboundedSender<Answer>) {
    while let Ok((job, site)) = jobs.recv() {
        let started = Instant::now();
        let mut locator = Locator::of_tree(&site.tree);
        let planned =
            job.run(&mut |instance, reasons| ReasonReport::chain(instance, reasons, &mut |at| locator.find(at)));
        tracing::debug!(actions = planned.actions.len(), plans = planned.plans.len(), took = ?started.elapsed(), "planned");
        if answers.send(Answer::Planned(Box::new(planned))).is_err() {
            return;
        }
    }
}

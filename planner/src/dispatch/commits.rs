//! New commits: loaded whole, or refused with every fault while the last good one stays in force.

use std::{collections::BTreeSet, time::Instant};

use groundplan_core::{SourceTree, knowledge::Misfit};
use groundplan_protocol::ids::CommitId;

use super::{Dispatcher, blobs::BlobIndex, words::Places};
use crate::{
    api::{
        event::Event,
        types::{Commit, Fault, Place, RefusedCommit},
    },
    repository::{CommitInfo, GitTree, RepositoryError, watch::Seen},
    site::{self, Loaded},
    transport::TransportError,
};

/// The commit in force.
pub(super) struct InForce {
    pub(super) commit: Commit,
    pub(super) tree: GitTree,
    pub(super) loaded: Loaded,
    /// Content that agents may ask for, found when the first one asks.
    pub(super) blobs: Option<BlobIndex>,
}

/// What a commit holds.
enum Checked {
    Good(Box<InForce>),
    Refused(Commit, Vec<Fault>),
}

impl From<CommitInfo> for Commit {
    fn from(info: CommitInfo) -> Self {
        Self { id: info.id, subject: info.subject, author: info.author, time: info.time }
    }
}

impl Dispatcher {
    /// What was in force when the planner ended is so again, until the branch's tip says otherwise.
    pub(super) fn restore_site(&mut self) -> Result<(), TransportError> {
        let (Some(site), Some(good)) = (self.meta.site.clone(), self.meta.good.clone()) else { return Ok(()) };
        match self.check(&good.id, Misfit::Wait) {
            Ok(Checked::Good(in_force)) => self.loaded = Some(*in_force),
            Ok(Checked::Refused(..)) => {
                tracing::warn!(commit = %good.id, "this release refuses the commit that was in force")
            }
            Err(error) => {
                tracing::warn!(commit = %good.id, error = &error as &dyn std::error::Error, "not there any more")
            }
        }
        self.connect(&site)
    }

    pub(super) fn on_tip(&mut self, seen: Seen) -> Result<(), TransportError> {
        let tip = seen.as_ref().ok().cloned();
        self.unread = None;
        let checked = seen.and_then(|id| match &self.loaded {
            Some(in_force) if in_force.commit.id == id => Ok(None),
            _ => self.check(&id, Misfit::Refuse).map(Some),
        });
        let checked = match checked {
            Ok(checked) => {
                self.repository_error = None;
                checked
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the repository cannot be read");
                let hint = error.hint().map_or(String::new(), |hint| format!(" ({hint})"));
                self.repository_error = Some(format!("{error}{hint}"));
                self.unread = tip;
                return Ok(());
            }
        };
        match checked {
            None => {
                // The branch is back at what is in force.
                self.meta.refused = None;
                self.group.meta = Some(self.meta.clone());
            }
            Some(Checked::Refused(commit, diagnostics)) => self.refuse(commit, diagnostics),
            Some(Checked::Good(in_force)) => self.accept(*in_force)?,
        }
        Ok(())
    }

    fn check(&mut self, id: &CommitId, misfit: Misfit) -> Result<Checked, RepositoryError> {
        let commit = Commit::from(self.repository.describe(id)?);
        let tree = self.repository.tree(id)?;
        let started = Instant::now();
        let knowledge = self.knowledge(misfit);
        // New plugins are asked here, and may take their time.
        let loaded = tokio::task::block_in_place(|| site::load(&tree, &knowledge, &mut self.cache));
        Ok(match loaded {
            Ok(loaded) => {
                tracing::debug!(commit = %id, took = ?started.elapsed(), "loaded");
                match self.renamed(&loaded, &tree) {
                    Some(fault) => Checked::Refused(commit, vec![fault]),
                    None => Checked::Good(Box::new(InForce { commit, tree, loaded, blobs: None })),
                }
            }
            Err(diagnostics) => {
                let mut places = Places::new(&tree);
                Checked::Refused(commit, diagnostics.iter().map(|d| places.fault(d)).collect())
            }
        })
    }

    /// A site keeps its name: agents, topics and keys hang on it.
    fn renamed(&self, loaded: &Loaded, tree: &dyn SourceTree) -> Option<Fault> {
        let before = self.meta.site.as_ref().filter(|before| **before != loaded.site.name)?;
        let at =
            tree.entry("site.toml").map(|e| Place { file: e.path.to_string(), line: None, column: None, text: None });
        Some(Fault {
            at,
            message: format!("the site's name was `{before}` and is now `{}`", loaded.site.name),
            label: String::new(),
            related: vec![],
            hint: Some(format!(
                "agents know the site by its name: keep `{before}`, or start a planner with another --state for a new site"
            )),
        })
    }

    pub(super) fn refuse(&mut self, commit: Commit, diagnostics: Vec<Fault>) {
        tracing::warn!(commit = %commit.id, faults = diagnostics.len(), "refused; the last good commit stays in force");
        let refused = RefusedCommit { commit, diagnostics };
        self.meta.refused = Some(refused.clone());
        self.group.meta = Some(self.meta.clone());
        self.tell(Event::Refused { refused });
    }

    fn accept(&mut self, in_force: InForce) -> Result<(), TransportError> {
        tracing::info!(commit = %in_force.commit.id, subject = in_force.commit.subject, "in force");
        let site = in_force.loaded.site.name.clone();
        self.meta.site = Some(site.clone());
        self.meta.good = Some(in_force.commit.clone());
        self.meta.refused = None;
        self.group.meta = Some(self.meta.clone());
        self.tell(Event::Commit { commit: in_force.commit.clone() });
        if let Some(before) = self.loaded.replace(in_force) {
            self.earlier.get_or_insert(before.loaded.desired);
        }
        // It is resolved with all that is known.
        self.learned = None;
        self.connect(&site)?;
        self.publish_looks(&BTreeSet::new());
        self.choose_all();
        if self.leader.plans() {
            self.plan_soon(Instant::now(), true);
        }
        Ok(())
    }
}

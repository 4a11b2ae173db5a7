//! The site's repository: commits of made-up sites, a branch that points at one of them, and the real code that reads a commit.
//!
//! In: sketches, and load jobs of a planner. Out: their answers, by the same functions that the planner's shell calls. What was worked
//! out once is kept: it depends on nothing but the commit and what nodes reported.

use std::{collections::HashMap, sync::Arc};

use groundplan_core::{Cache, DesiredState, Knowledge, SourceTree as _, resolve, source::MemoryTree};
use groundplan_inventory::Diagnostic;
use groundplan_machine::{
    commit::{ActiveCommit, Commit, DriftSettings, Fault, RefusedCommit, asks_for_the_same},
    io::{LoadJob, LoadOutcome},
};
use groundplan_protocol::{digest::Digest, ids::CommitId};
use groundplan_services::{ParsedFile, plugin::Plugins, tree};

use super::site::Sketch;

/// Results of loads that are kept.
const KEPT: usize = 32;

/// What a commit resolves to, or its faults.
type Resolved = Result<Arc<DesiredState>, Vec<Diagnostic>>;

/// See the module.
pub(super) struct Branch {
    commits: Vec<Entry>,
    by_id: HashMap<CommitId, usize>,
    /// Number of the commit that the branch points at.
    pub(super) tip: usize,
    cache: Cache,
    parsed: HashMap<(Arc<str>, Arc<str>), ParsedFile>,
    loaded: Vec<(usize, Knowledge, Resolved)>,
}

struct Entry {
    commit: Commit,
    sketch: Sketch,
    tree: MemoryTree,
}

impl Branch {
    /// A repository with one commit.
    pub(super) fn new(first: Sketch) -> Self {
        let mut branch = Self {
            commits: Vec::new(),
            by_id: HashMap::new(),
            tip: 0,
            cache: Cache::default(),
            parsed: HashMap::new(),
            loaded: Vec::new(),
        };
        branch.push(first);
        branch
    }

    /// Commits, and moves the branch there.
    pub(super) fn push(&mut self, sketch: Sketch) {
        let number = self.commits.len();
        let digest = Digest::of(format!("commit {number}").as_bytes()).to_string();
        let hex: String = digest.chars().filter(char::is_ascii_hexdigit).collect();
        let id = CommitId::new(&hex[hex.len() - 40..]).expect("40 hexadecimal digits");
        let subject = format!("Commit {number}");
        let commit =
            Commit { id: id.clone(), subject, author: "Operator".to_owned(), time: number as i64, rewinds: None };
        self.by_id.insert(id, number);
        self.commits.push(Entry { commit, tree: sketch.tree(), sketch });
        self.tip = number;
    }

    /// How many commits there are.
    pub(super) fn len(&self) -> usize {
        self.commits.len()
    }

    /// The commit that the branch points at.
    pub(super) fn tip_id(&self) -> CommitId {
        self.commits[self.tip].commit.id.clone()
    }

    /// The sketch of the tip.
    pub(super) fn sketch(&self) -> &Sketch {
        &self.commits[self.tip].sketch
    }

    /// Number of a commit.
    pub(super) fn number(&self, id: &CommitId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// The answer to a load job.
    pub(super) fn load(&mut self, job: &LoadJob) -> LoadOutcome {
        let Some(number) = self.number(&job.commit) else {
            return LoadOutcome::Unreadable("there is no such commit".to_owned());
        };
        let commit = self.commits[number].commit.clone();
        match self.desired(number, &job.knowledge) {
            Ok(desired) => {
                let active = job.active.as_ref().filter(|active| active.commit.id == commit.id);
                let same = active.is_some_and(|active| asks_for_the_same(&active.desired, &desired));
                let site = desired.site.clone();
                let commit =
                    ActiveCommit { commit, site, desired, drift: DriftSettings::default(), fast_forward_only: false };
                LoadOutcome::Good { commit: Arc::new(commit), same }
            }
            Err(faults) => {
                let fault = |fault: Diagnostic| Fault {
                    at: None,
                    message: format!("{}: {}", fault.at.file, fault.message),
                    label: fault.label,
                    related: Vec::new(),
                    hint: fault.hint,
                };
                LoadOutcome::Refused(RefusedCommit { commit, faults: faults.into_iter().map(fault).collect() })
            }
        }
    }

    /// What a commit resolves to with what nodes reported.
    ///
    /// # Errors
    /// Its faults.
    pub(super) fn desired(
        &mut self,
        number: usize,
        knowledge: &Knowledge,
    ) -> Result<Arc<DesiredState>, Vec<Diagnostic>> {
        if let Some((.., known)) = self.loaded.iter().find(|(n, k, _)| *n == number && k == knowledge) {
            return known.clone();
        }
        let tree = &self.commits[number].tree;
        let mut files = Vec::new();
        for entry in tree.entries().iter().filter(|entry| tree::wants(&entry.path)) {
            let key = (entry.path.clone(), entry.version.clone());
            let file = self.parsed.entry(key).or_insert_with(|| {
                let bytes = tree.read(&entry.path).expect("the tree lists it");
                tree::parse(&entry.path, &bytes)
            });
            files.push(file.clone());
        }
        let plugins = Plugins::default();
        let (model, mut faults) = tree::merge(&files, tree.entries().iter().map(|entry| &*entry.path), &plugins);
        let mut desired = None;
        if let Some(site) = &model.site {
            let (resolved, found) =
                resolve(site, &model.inventory, &model.catalog, &plugins, tree, knowledge, &mut self.cache);
            faults.extend(found);
            desired = resolved;
        }
        faults.sort();
        faults.dedup();
        let result = match desired {
            Some(desired) if faults.is_empty() => Ok(Arc::new(desired)),
            _ => Err(faults),
        };
        if self.loaded.len() >= KEPT {
            drop(self.loaded.remove(0));
        }
        self.loaded.push((number, knowledge.clone(), result.clone()));
        result
    }
}

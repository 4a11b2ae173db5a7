//! The site that a command works on: a directory as it is, or a commit.

use std::{path::Path, sync::Arc};

use groundplan_core::{Knowledge, SourceTree};
use groundplan_inventory::Diagnostic;
use groundplan_protocol::ids::CommitId;

use super::folder::{self, Folder};
use crate::{
    diagnose,
    repository::{Repository, RepositoryError},
    site::{self, Cache, Loaded},
    terminal::{Failure, Output, format::count},
};

/// The files of a directory or a commit.
pub(super) struct Source {
    /// The directory or revision as the user wrote it, for messages.
    pub(super) name: String,
    /// The site's files there.
    pub(super) tree: Box<dyn SourceTree>,
    /// The commit; `None` for a directory.
    pub(super) commit: Option<CommitId>,
    /// As a base: how many of its commits the target lacks, if that is no fast-forward.
    pub(super) rewound: Option<usize>,
}

impl Source {
    /// A directory as it is, committed or not.
    pub(super) fn folder(dir: &Path) -> Result<Self, Failure> {
        let tree = Folder::open(dir).map_err(|e| Failure::because("cannot read the directory", e))?;
        Ok(Self { name: dir.display().to_string(), tree: Box::new(tree), commit: None, rewound: None })
    }

    /// A work tree as git would commit it; `dir` is its top.
    pub(super) fn work_tree(repository: &Repository, dir: &Path) -> Result<Self, Failure> {
        let tree = repository.work_tree(dir).map_err(|e| failure("cannot read the work tree", e))?;
        Ok(Self { name: "the work tree".to_owned(), tree: Box::new(tree), commit: None, rewound: None })
    }

    /// Whether the files of a site are the same in both, of which one is a commit and the other a commit or a work tree.
    pub(super) fn is_same_site(&self, other: &Self) -> bool {
        let files = |source: &'_ Self| -> Vec<_> {
            source.tree.entries().iter().filter(|entry| folder::is_of_site(&entry.path)).cloned().collect()
        };
        files(self) == files(other)
    }

    /// The commit that a revision names.
    pub(super) fn commit(repository: &Repository, rev: &str) -> Result<Self, Failure> {
        let commit = repository.rev_parse(rev).map_err(|e| failure("cannot find the commit", e))?;
        let tree = repository.tree(&commit).map_err(|e| failure("cannot read the commit", e))?;
        Ok(Self { name: rev.to_owned(), tree: Box::new(tree), commit: Some(commit), rewound: None })
    }

    /// The content of a file, to show its lines in a diagnostic; `None` if it cannot be read.
    pub(super) fn text(&self, path: &str) -> Option<Arc<[u8]>> {
        self.tree.read(path).ok()
    }

    /// Loads the site, or returns all its errors.
    pub(super) fn load(&self, knowledge: &Knowledge, cache: &mut Cache) -> Result<Loaded, Vec<Diagnostic>> {
        site::load(&*self.tree, knowledge, cache)
    }

    /// Loads the site, or shows all its errors on standard error and fails.
    pub(super) fn load_or_report(
        &self,
        knowledge: &Knowledge,
        cache: &mut Cache,
        out: &mut Output,
    ) -> Result<Loaded, Failure> {
        self.load(knowledge, cache).map_err(|faults| {
            out.note(&diagnose::render(&faults, &|path| self.text(path), out.error_color()));
            Failure::new(format!("{} has {}", self.name, count(faults.len(), "error")))
        })
    }
}

/// Opens the repository that contains `dir`.
pub(super) fn repository(dir: &Path) -> Result<Repository, Failure> {
    Repository::discover(dir).map_err(|e| failure("cannot open the repository", e))
}

/// An error of the repository with its hint.
pub(super) fn failure(what: &str, e: RepositoryError) -> Failure {
    let hint = e.hint();
    Failure::because(what, e).maybe_hint(hint)
}

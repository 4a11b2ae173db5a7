//! Which files a command is about: a folder as it is, or a commit.

use std::{path::Path, sync::Arc};

use groundplan_core::{Knowledge, SourceTree};
use groundplan_inventory::Diagnostic;
use groundplan_protocol::ids::CommitId;

use super::folder::Folder;
use crate::{
    diagnose,
    repository::{Repository, RepositoryError},
    site::{self, Cache, Loaded},
    terminal::{Failure, Output, format::count},
};

/// The files of a folder or a commit.
pub(super) struct Source {
    /// What to call it.
    pub(super) name: String,
    /// The files.
    pub(super) tree: Box<dyn SourceTree>,
    /// The commit that they are of.
    pub(super) commit: Option<CommitId>,
}

impl Source {
    /// A folder, committed or not.
    pub(super) fn folder(dir: &Path) -> Result<Self, Failure> {
        let tree = Folder::open(dir).map_err(|e| Failure::because("cannot read the folder", e))?;
        Ok(Self { name: dir.display().to_string(), tree: Box::new(tree), commit: None })
    }

    /// The commit that an expression names, in the repository that `dir` lies in.
    pub(super) fn commit(repository: &Repository, rev: &str) -> Result<Self, Failure> {
        let commit = repository.rev_parse(rev).map_err(|e| failure("cannot find the commit", e))?;
        let tree = repository.tree(&commit).map_err(|e| failure("cannot read the commit", e))?;
        Ok(Self { name: rev.to_owned(), tree: Box::new(tree), commit: Some(commit) })
    }

    /// A file's bytes, for those who point at its lines.
    pub(super) fn text(&self, path: &str) -> Option<Arc<[u8]>> {
        self.tree.read(path).ok()
    }

    /// Loads the site, or returns every fault.
    pub(super) fn load(&self, knowledge: &Knowledge, cache: &mut Cache) -> Result<Loaded, Vec<Diagnostic>> {
        site::load(&*self.tree, knowledge, cache)
    }

    /// Loads the site, or shows every fault on standard error and fails.
    pub(super) fn load_or_tell(
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

/// Opens the repository that `dir` lies in.
pub(super) fn repository(dir: &Path) -> Result<Repository, Failure> {
    Repository::discover(dir).map_err(|e| failure("cannot open the repository", e))
}

/// A repository's word, with its hint.
pub(super) fn failure(what: &str, e: RepositoryError) -> Failure {
    let hint = e.hint();
    let failure = Failure::because(what, e);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

//! A work tree as git would commit it: with ignored files left out, line endings and filters applied, and what a sparse checkout leaves out
//! kept as it is committed.
//!
//! In: an open repository and the top of its work tree. Out: its files. `git add` does the work, with an index of its own, and puts new
//! objects into a scratch repository that borrows all others. So nothing of the repository changes; what is new goes with the tree.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use groundplan_core::source::{Entry, ReadError, SourceTree};
use groundplan_protocol::ids::CommitId;

use super::{GitTree, Repository, error::RepositoryError, local::git};

/// The files of a work tree.
pub struct WorkTree {
    tree: GitTree,
    /// Index and objects, which exist as long as the tree is read.
    _scratch: tempfile::TempDir,
}

impl Repository {
    /// The work tree whose top is `top`, as `git add --all` and a commit would record it.
    ///
    /// # Errors
    /// git cannot read a file, or a filter that it is configured with fails.
    pub fn work_tree(&self, top: &Path) -> Result<WorkTree, RepositoryError> {
        let [git_dir, common_dir] = self.git_dirs().map(|dir| dir.to_path_buf());
        let objects = common_dir.join("objects");
        let scratch = tempfile::tempdir().map_err(|e| failed(&std::env::temp_dir(), e))?;
        let (copy, index) = (scratch.path().join("copy"), scratch.path().join("index"));
        let format = git(&git_dir, &[], &["rev-parse", "--show-object-format"])?;
        let format = format!("--object-format={format}");
        git(scratch.path(), &[], &["init", "--quiet", "--bare", "--template=", &format, "copy"])?;
        let borrowed = copy.join("objects/info/alternates");
        fs::create_dir_all(copy.join("objects/info")).map_err(|e| failed(&borrowed, e))?;
        fs::write(&borrowed, format!("{}\n", objects.display())).map_err(|e| failed(&borrowed, e))?;
        match copy_index(&git_dir.join("index"), &index) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&index, e)),
            _ => {}
        }
        let top = top.canonicalize().map_err(|e| failed(top, e))?;
        let env: [(&str, PathBuf); 8] = [
            ("GIT_DIR", git_dir),
            ("GIT_WORK_TREE", top.clone()),
            ("GIT_INDEX_FILE", index),
            ("GIT_OBJECT_DIRECTORY", copy.join("objects")),
            ("GIT_AUTHOR_NAME", "preview".into()),
            ("GIT_AUTHOR_EMAIL", "preview@localhost".into()),
            ("GIT_COMMITTER_NAME", "preview".into()),
            ("GIT_COMMITTER_EMAIL", "preview@localhost".into()),
        ];
        // Whether a conversion of line endings can be undone (core.safecrlf) is a question for the commit itself.
        git(&top, &env, &["-c", "core.safecrlf=false", "-c", "advice.addEmbeddedRepo=false", "add", "--all"])?;
        let tree = git(&top, &env, &["write-tree"])?;
        let commit = git(&top, &env, &["-c", "commit.gpgSign=false", "commit-tree", "-m", "preview", &tree])?;
        let commit = CommitId::new(&*commit).map_err(|_| RepositoryError::Git {
            what: "commit-tree".to_owned(),
            stderr: "it printed no id".to_owned(),
        })?;
        Ok(WorkTree { tree: Self::open(copy)?.tree(&commit)?, _scratch: scratch })
    }
}

/// Copies an index with its time: what was changed within one tick of the clock after it was written, git recognizes by that alone.
fn copy_index(from: &Path, to: &Path) -> io::Result<()> {
    let written = fs::metadata(from)?.modified()?;
    fs::copy(from, to)?;
    fs::File::options().write(true).open(to)?.set_modified(written)
}

fn failed(path: &Path, source: io::Error) -> RepositoryError {
    RepositoryError::Io { path: path.to_owned(), source }
}

impl SourceTree for WorkTree {
    fn entries(&self) -> &[Entry] {
        self.tree.entries()
    }

    fn read(&self, path: &str) -> Result<Arc<[u8]>, ReadError> {
        self.tree.read(path)
    }

    fn scan(&self, path: &str, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), ReadError> {
        self.tree.scan(path, take)
    }
}

//! Reading by libgit2, in this process and without network.

use std::{
    collections::HashMap,
    ffi::OsStr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use git2::{ErrorCode, ObjectType, Oid, RepositoryOpenFlags};
use groundplan_core::source::{Entry, EntryKind};
use groundplan_protocol::ids::CommitId;

use super::{
    command::GitCommand,
    error::RepositoryError,
    process::Processes,
    read::{CommitInfo, Paths, Room, sorted},
};

/// An open repository, and the tree that was listed last. libgit2's repository is not `Sync`, hence the lock.
pub(super) struct Objects {
    inner: Mutex<Inner>,
    /// Reads what is long: libgit2 holds an object as a whole, and the planner's memory would reach a multiple of it.
    long: GitCommand,
}

/// Files longer than this are read in pieces, in bytes.
const LONG: u64 = 1 << 20;

struct Inner {
    repo: git2::Repository,
    /// The tree that was listed last: of the next commit, only the directories that differ from it have to be read.
    last: Option<Arc<Dir>>,
}

/// Whether git may fetch objects that it lacks: a remote promised them (git-config(1): `remote.<name>.promisor`, or by its older name).
fn is_partial(repo: &git2::Repository) -> bool {
    let Ok(config) = repo.config() else { return false };
    let promised = |names| config.entries(Some(names)).is_ok_and(|mut entries| entries.next().is_some());
    config.get_string("extensions.partialclone").is_ok() || promised(r"^remote\..*\.promisor$")
}

impl Objects {
    pub(super) fn open(path: &Path, discover: bool, processes: &Processes) -> Result<(Self, Paths), RepositoryError> {
        // Discovery follows GIT_DIR like git itself; a path that was given by name must be the repository, not merely lie in one.
        let flags = match (discover, std::env::var_os("GIT_DIR").is_some()) {
            (true, true) => RepositoryOpenFlags::FROM_ENV,
            (true, false) => RepositoryOpenFlags::empty(),
            (false, _) => RepositoryOpenFlags::NO_SEARCH,
        };
        let given = path.to_owned();
        let repo = git2::Repository::open_ext(path, flags, [] as [&OsStr; 0]).map_err(|e| match e.code() {
            ErrorCode::NotFound => RepositoryError::NotARepository { path: given.clone() },
            ErrorCode::Owner => RepositoryError::Owner { path: given.clone() },
            // Anything else may be a format that libgit2 does not support: the caller tries the git command, whose error is better.
            _ => RepositoryError::Unsupported { path: given.clone(), source: e },
        })?;
        // libgit2 opens a partial clone, and does not fetch what is missing in it.
        if is_partial(&repo) {
            let source = git2::Error::from_str("a partial clone");
            return Err(RepositoryError::Unsupported { path: given, source });
        }
        let paths = Paths { given, git_dir: repo.path().to_owned(), common_dir: repo.commondir().to_owned() };
        let from_env = flags == RepositoryOpenFlags::FROM_ENV;
        let dir = if from_env { paths.given.clone() } else { paths.git_dir.clone() };
        let long = GitCommand::beside(dir, from_env, processes);
        Ok((Self { inner: Mutex::new(Inner { repo, last: None }), long }, paths))
    }

    /// The `git` command in the same repository.
    pub(super) fn command(&self) -> &GitCommand {
        &self.long
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn default_branch(&self) -> Result<String, RepositoryError> {
        let inner = self.lock();
        let head = inner.repo.find_reference("HEAD").map_err(RepositoryError::Read)?;
        let target = head.symbolic_target().ok().flatten();
        let branch = target.and_then(|t| t.strip_prefix("refs/heads/"));
        branch.map(str::to_owned).ok_or(RepositoryError::NoDefaultBranch)
    }

    pub(super) fn branch(&self, name: &str) -> Result<Option<CommitId>, RepositoryError> {
        let inner = self.lock();
        let reference = match inner.repo.find_reference(&format!("refs/heads/{name}")) {
            Ok(reference) => reference,
            Err(e) if matches!(e.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => return Ok(None),
            Err(e) => return Err(RepositoryError::Read(e)),
        };
        let resolved = reference.resolve().map_err(RepositoryError::Read)?;
        Ok(resolved.target().map(commit_id))
    }

    pub(super) fn branches(&self) -> Result<Vec<String>, RepositoryError> {
        let inner = self.lock();
        let references = inner.repo.references_glob("refs/heads/*").map_err(RepositoryError::Read)?;
        let name = |r: git2::Reference<'_>| r.shorthand().ok().map(str::to_owned);
        Ok(references.flatten().filter_map(name).collect())
    }

    pub(super) fn rev_parse(&self, rev: &str) -> Result<CommitId, RepositoryError> {
        let inner = self.lock();
        let object = inner.repo.revparse_single(rev).and_then(|o| o.peel_to_commit());
        object.map(|c| commit_id(c.id())).map_err(|_| RepositoryError::NoCommit { rev: rev.to_owned(), shallow: false })
    }

    pub(super) fn describe(&self, id: &CommitId) -> Result<CommitInfo, RepositoryError> {
        let inner = self.lock();
        let commit = find_commit(&inner.repo, id)?;
        let subject = commit.summary_bytes().unwrap_or_default();
        Ok(CommitInfo {
            id: id.clone(),
            subject: String::from_utf8_lossy(subject).into_owned(),
            author: String::from_utf8_lossy(commit.author().name_bytes()).into_owned(),
            time: commit.time().seconds(),
        })
    }

    /// Whether `of` has `before` in its history.
    pub(super) fn has_before(&self, of: &CommitId, before: &CommitId) -> Result<bool, RepositoryError> {
        let inner = self.lock();
        let commit = find_commit(&inner.repo, of)?;
        let Ok(before) = Oid::from_str(before.as_str()) else { return Ok(false) };
        // The usual case, for which no history is walked.
        if commit.parent_ids().any(|parent| parent == before) {
            return Ok(true);
        }
        match inner.repo.graph_descendant_of(commit.id(), before) {
            Ok(has) => Ok(has),
            // It is not in the repository any more.
            Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
            Err(error) => Err(RepositoryError::Read(error)),
        }
    }

    /// The entries of a commit. Costs the directories that differ from the tree that was listed before, not the whole tree.
    pub(super) fn entries(&self, id: &CommitId) -> Result<Arc<[Entry]>, RepositoryError> {
        let mut inner = self.lock();
        let tree = find_commit(&inner.repo, id)?.tree_id();
        let dir = list(&inner.repo, inner.last.as_ref(), ("", 0), tree, &mut Room::new())?;
        inner.last = Some(dir.clone());
        Ok(dir.entries.clone())
    }

    pub(super) fn blob(&self, oid: &str) -> Result<Arc<[u8]>, String> {
        let inner = self.lock();
        let blob = Oid::from_str(oid).and_then(|oid| inner.repo.find_blob(oid));
        blob.map(|b| b.content().into()).map_err(|e| e.message().to_owned())
    }

    /// Reads a file in pieces, each with the length of the whole; `take` returns whether to go on. The error is the cause alone.
    pub(super) fn scan(&self, oid: &str, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), String> {
        let length = {
            let inner = self.lock();
            let header = inner.repo.odb().and_then(|odb| odb.read_header(Oid::from_str(oid)?));
            header.map_err(|e| e.message().to_owned())?.0 as u64
        };
        if length <= LONG {
            let bytes = self.blob(oid)?;
            take(length, &bytes);
            return Ok(());
        }
        let mut begun = false;
        let read = self.long.scan(oid, &mut |length, piece| {
            begun = true;
            take(length, piece)
        });
        match read {
            // Without the `git` command it is held after all, but only once.
            Err(_) if !begun => {
                let inner = self.lock();
                let blob = Oid::from_str(oid).and_then(|oid| inner.repo.find_blob(oid));
                let blob = blob.map_err(|e| e.message().to_owned())?;
                take(length, blob.content());
                Ok(())
            }
            read => read,
        }
    }
}

fn commit_id(oid: Oid) -> CommitId {
    CommitId::new(oid.to_string()).expect("libgit2 writes ids as hexadecimal digits")
}

fn find_commit<'r>(repo: &'r git2::Repository, id: &CommitId) -> Result<git2::Commit<'r>, RepositoryError> {
    let vanished = || RepositoryError::Vanished { commit: id.clone() };
    let oid = Oid::from_str(id.as_str()).map_err(|_| vanished())?;
    repo.find_commit(oid).map_err(|e| match e.code() {
        ErrorCode::NotFound => vanished(),
        _ => RepositoryError::Read(e),
    })
}

/// A directory of a tree, with everything below it.
struct Dir {
    oid: Oid,
    /// All files below it, sorted, with their paths from the root.
    entries: Arc<[Entry]>,
    /// Its subdirectories by name.
    below: HashMap<Box<[u8]>, Arc<Dir>>,
}

/// Lists the directory `prefix` (empty, or with a slash at its end), whose tree is `oid`. `before` is the same directory in the tree that
/// was listed last; `depth` counts the directories around it. A subtree with the same id has the same content (that is what ids of trees mean) and is reused without being read.
fn list(
    repo: &git2::Repository,
    before: Option<&Arc<Dir>>,
    (prefix, depth): (&str, usize),
    oid: Oid,
    room: &mut Room,
) -> Result<Arc<Dir>, RepositoryError> {
    if let Some(same) = before.filter(|dir| dir.oid == oid) {
        return Ok(same.clone());
    }
    Room::descend(depth)?;
    let (mut entries, mut below) = (Vec::new(), HashMap::new());
    for entry in &repo.find_tree(oid).map_err(RepositoryError::Read)? {
        let path = format!("{prefix}{}", String::from_utf8_lossy(entry.name_bytes()));
        let kind = match entry.kind() {
            Some(ObjectType::Tree) => {
                // By name, not by position: entries before it may have been added or removed.
                let known = before.and_then(|dir| dir.below.get(entry.name_bytes()));
                let dir = list(repo, known, (&format!("{path}/"), depth + 1), entry.id(), room)?;
                // Each directory holds the entries of all below it, but shares their paths.
                dir.entries.iter().try_for_each(|_| room.take(None))?;
                entries.extend_from_slice(&dir.entries);
                below.insert(entry.name_bytes().into(), dir);
                continue;
            }
            Some(ObjectType::Commit) => EntryKind::Submodule,
            _ if entry.filemode() == 0o120000 => EntryKind::Symlink,
            _ => EntryKind::File,
        };
        room.take(Some(&path))?;
        // The library reads the permissions of odd modes as those of a file, whatever kind of entry it is.
        let executable = kind == EntryKind::File && entry.filemode() == 0o100755;
        entries.push(Entry { path: path.into(), kind, version: entry.id().to_string().into(), executable });
    }
    Ok(Arc::new(Dir { oid, entries: sorted(entries), below }))
}

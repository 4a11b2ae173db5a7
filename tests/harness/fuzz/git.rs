//! Fed: a commit as one text. What comes before the first line with `---` is the commit without its tree: parents, author, message. Then each
//! part, see [`super::files`], is an entry: `--- MODE NAME` with the content of a file; `--- MODE NAME /` opens a directory and `--- .` closes
//! it; `--- MODE NAME =N` is another entry with the object of the N-th entry so far. Names may be any bytes but NUL and newline.
//!
//! Checked: the entries are sorted, each path once, the same when the repository is opened again and when the tree was listed before; they
//! can be read and loaded as a site; links and submodules are never read. Few objects make no large list, however they are put together.

use std::{collections::BTreeSet, path::Path};

use git2::{ObjectType, Odb, Oid};
use groundplan::{
    repository::{GitTree, Repository, RepositoryError},
    site::{Cache, load},
};
use groundplan_core::{
    Knowledge, SourceTree as _,
    source::{Entry, EntryKind},
};
use groundplan_protocol::ids::CommitId;

use super::files;

/// How the content of a file begins that is fetched by another program.
const POINTER: &[u8] = b"version https://git-lfs";

/// See the module.
pub fn check(text: &[u8]) {
    if text.windows(POINTER.len()).any(|part| part == POINTER) {
        return;
    }
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory");
    let written = git2::Repository::init_bare(dir.path()).expect("a repository");
    let Some(commit) = written_commit(&written.odb().expect("its objects"), text) else { return };
    drop(written);

    let repository = Repository::open(dir.path()).expect("a repository");
    let _ = repository.describe(&commit);
    let tree = match repository.tree(&commit) {
        Ok(tree) => tree,
        Err(error) => {
            let _ = (error.to_string(), error.hint());
            assert!(listed(dir.path(), &commit).is_err(), "the second time it is listed");
            return;
        }
    };
    let entries = tree.entries();
    assert!(entries.is_sorted_by(|a, b| a.path < b.path), "{entries:#?}");
    assert_eq!(repository.tree(&commit).expect("again").entries(), entries);
    assert_eq!(listed(dir.path(), &commit).expect("a tree").entries(), entries);
    for entry in entries {
        let read = tree.read(&entry.path);
        assert!(entry.kind == EntryKind::File || read.is_err(), "{entry:?} was read");
        assert!(!entry.executable || entry.kind == EntryKind::File, "{entry:?}");
    }
    let paths: BTreeSet<&str> = entries.iter().map(|entry: &Entry| &*entry.path).collect();
    assert_eq!(paths.len(), entries.len());
    let _ = load(&tree, &Knowledge::default(), &mut Cache::default());
}

fn listed(path: &Path, commit: &CommitId) -> Result<GitTree, RepositoryError> {
    Repository::open(path)?.tree(commit)
}

/// Writes the objects of a text, without any check; the id of the commit, if the store takes them all.
pub fn written_commit(odb: &Odb<'_>, text: &[u8]) -> Option<CommitId> {
    let (about, parts) = files::parts(text);
    // The entries of each directory that is open, as git has them, with the mode and the name that it gets.
    let mut open: Vec<(Vec<u8>, Vec<u8>)> = vec![Default::default()];
    let mut objects: Vec<Oid> = Vec::new();
    let close = |open: &mut Vec<(Vec<u8>, Vec<u8>)>, objects: &mut Vec<Oid>| {
        let (head, entries) = open.pop()?;
        let oid = odb.write(ObjectType::Tree, &entries).ok()?;
        objects.push(oid);
        if let Some((_, outer)) = open.last_mut() {
            put(outer, &head, oid);
        }
        Some(oid)
    };
    for (head, content) in parts {
        if head == b"." {
            if open.len() > 1 {
                close(&mut open, &mut objects)?;
            }
            continue;
        }
        if let Some(head) = head.strip_suffix(b" /") {
            open.push((head.to_vec(), Vec::new()));
            continue;
        }
        let earlier = head.iter().rposition(|byte| *byte == b'=').and_then(|at| {
            let number: usize = std::str::from_utf8(&head[at + 1..]).ok()?.parse().ok()?;
            Some((head[..at].strip_suffix(b" ")?, *objects.get(number)?))
        });
        let (head, oid) = match earlier {
            Some(earlier) => earlier,
            None => (head, odb.write(ObjectType::Blob, content).ok()?),
        };
        objects.push(oid);
        put(&mut open.last_mut()?.1, head, oid);
    }
    while open.len() > 1 {
        close(&mut open, &mut objects)?;
    }
    let tree = close(&mut open, &mut objects)?;
    let commit = [format!("tree {tree}\n").as_bytes(), about].concat();
    let oid = odb.write(ObjectType::Commit, &commit).ok()?;
    CommitId::new(oid.to_string()).ok()
}

fn put(entries: &mut Vec<u8>, head: &[u8], oid: Oid) {
    entries.extend_from_slice(head);
    entries.push(0);
    entries.extend_from_slice(oid.as_bytes());
}

use std::{path::PathBuf, process::Command, time::Duration};

use groundplan_core::source::{EntryKind, SourceTree as _};
use tokio::sync::mpsc;

use super::{
    watch::{WatchOptions, watch},
    *,
};

/// A work tree, created by the real git.
struct Work {
    dir: tempfile::TempDir,
}

impl Work {
    fn new(options: &[&str]) -> Self {
        let work = Self { dir: tempfile::tempdir().unwrap() };
        let args: Vec<&str> = ["init", "--quiet", "--initial-branch=main"].iter().chain(options).copied().collect();
        work.git(&args);
        work
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn git(&self, args: &[&str]) -> String {
        git(self.dir.path(), args)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn commit(&self, subject: &str) -> CommitId {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", subject]);
        CommitId::new(self.git(&["rev-parse", "HEAD"]).trim()).unwrap()
    }
}

fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(dir).args(["-c", "protocol.file.allow=always"]).args(args);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Ann").env(format!("GIT_{who}_EMAIL"), "ann@example.org");
    }
    let out = command.output().unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn paths(tree: &GitTree) -> Vec<(String, EntryKind)> {
    tree.entries().iter().map(|e| (e.path.to_string(), e.kind)).collect()
}

/// The checks for every kind of repository.
fn reads_like_git(options: &[&str]) {
    let work = Work::new(options);
    work.write("site.toml", "name = \"s\"\n");
    work.write("services/a/service.toml", "a");
    work.write("services/a.b/x", "x");
    std::os::unix::fs::symlink("/etc/passwd", work.path().join("link")).unwrap();
    let first = work.commit("first: käse");
    work.write("services/a/service.toml", "b");
    let second = work.commit("second");
    let repository = Repository::open(work.path()).unwrap();
    assert_eq!(repository.default_branch().unwrap(), "main");
    assert_eq!(repository.branch("main").unwrap(), second);
    assert_eq!(repository.range("HEAD~1..").unwrap(), (first.clone(), second.clone()));
    assert!(matches!(repository.range("a...b"), Err(RepositoryError::NoRange { .. })));
    assert!(matches!(repository.rev_parse("nonsense"), Err(RepositoryError::NoCommit { .. })));
    let info = repository.describe(&first).unwrap();
    assert_eq!((info.subject.as_str(), info.author.as_str()), ("first: käse", "Ann"));
    let (before, after) = (repository.tree(&first).unwrap(), repository.tree(&second).unwrap());
    let expected = [
        ("link", EntryKind::Symlink),
        ("services/a.b/x", EntryKind::File),
        ("services/a/service.toml", EntryKind::File),
        ("site.toml", EntryKind::File),
    ];
    assert_eq!(paths(&after), expected.map(|(path, kind)| (path.to_owned(), kind)));
    assert_eq!(&*before.read("services/a/service.toml").unwrap(), b"a");
    assert_eq!(&*after.read("services/a/service.toml").unwrap(), b"b");
    assert_eq!(&*after.read("site.toml").unwrap(), b"name = \"s\"\n");
    assert!(after.read("link").is_err() && after.read("none").is_err());
    let version = |tree: &GitTree, path| tree.entry(path).unwrap().version.clone();
    assert_eq!(version(&before, "site.toml"), version(&after, "site.toml"));
    assert_ne!(version(&before, "services/a/service.toml"), version(&after, "services/a/service.toml"));
    let error = repository.branch("mian").unwrap_err();
    assert_eq!(error.hint().unwrap(), "did you mean `main`?");
    let removed = CommitId::new("ab".repeat(second.as_str().len() / 2)).unwrap();
    assert!(matches!(repository.tree(&removed), Err(RepositoryError::Vanished { .. })));
}

#[test]
fn reads_by_libgit2() {
    reads_like_git(&[]);
}

#[test]
fn reads_a_reftable_repository() {
    reads_like_git(&["--ref-format=reftable"]);
}

#[test]
fn reads_a_sha256_repository() {
    reads_like_git(&["--object-format=sha256"]);
}

#[test]
fn paths_that_are_no_repository_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: PathBuf| Repository::open(path).err().unwrap();
    assert!(matches!(open(dir.path().join("none")), RepositoryError::Missing { .. }));
    assert!(matches!(open(dir.path().to_owned()), RepositoryError::NotARepository { .. }));
    // A directory within a work tree is not the site's repository, but is found from there.
    let work = Work::new(&[]);
    work.write("sub/file", "");
    assert!(matches!(open(work.path().join("sub")), RepositoryError::NotARepository { .. }));
    assert!(matches!(Repository::open(work.path()).unwrap().branch("main"), Err(RepositoryError::Empty { .. })));
    let tip = work.commit("one");
    assert_eq!(Repository::discover(work.path().join("sub")).unwrap().branch("main").unwrap(), tip);
}

#[test]
fn packed_refs_bare_repositories_and_work_trees_are_read() {
    let work = Work::new(&[]);
    let tip = work.commit("one");
    work.git(&["branch", "feature/x"]);
    work.git(&["pack-refs", "--all"]);
    let repository = Repository::open(work.path()).unwrap();
    assert_eq!(repository.branch("feature/x").unwrap(), tip);
    let elsewhere = tempfile::tempdir().unwrap();
    let (bare, tree) = (elsewhere.path().join("b.git"), elsewhere.path().join("tree"));
    work.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    assert_eq!(Repository::open(&bare).unwrap().branch("main").unwrap(), tip);
    work.git(&["worktree", "add", "--quiet", tree.to_str().unwrap(), "feature/x"]);
    let linked = Repository::open(&tree).unwrap();
    assert_eq!((linked.default_branch().unwrap().as_str(), linked.branch("main").unwrap()), ("feature/x", tip));
}

#[test]
fn a_submodule_is_listed_but_not_read() {
    let (inner, work) = (Work::new(&[]), Work::new(&[]));
    inner.commit("inner");
    work.git(&["submodule", "--quiet", "add", inner.path().to_str().unwrap(), "sub"]);
    let tip = work.commit("outer");
    let tree = Repository::open(work.path()).unwrap().tree(&tip).unwrap();
    assert_eq!(tree.entry("sub").unwrap().kind, EntryKind::Submodule);
    assert!(tree.read("sub").unwrap_err().to_string().contains("submodule"));
}

#[test]
fn a_remote_is_mirrored_and_fetched() {
    let work = Work::new(&[]);
    let first = work.commit("one");
    let state = tempfile::tempdir().unwrap();
    let url = format!("file://{}", work.path().display());
    let repository = Repository::open_location(&url, state.path()).unwrap();
    assert_eq!(repository.default_branch().unwrap(), "main");
    assert_eq!(repository.branch("main").unwrap(), first);
    let second = work.commit("two");
    repository.fetch().unwrap();
    assert_eq!(repository.branch("main").unwrap(), second);
    work.git(&["branch", "-m", "trunk"]);
    repository.fetch().unwrap();
    assert!(matches!(repository.branch("main"), Err(RepositoryError::NoBranch { .. })));
    // Without the remote, what was mirrored serves.
    drop(work);
    assert_eq!(Repository::open_location(&url, state.path()).unwrap().branch("trunk").unwrap(), second);
    let error = Repository::open_location("file:///nowhere/at/all", state.path()).err().unwrap();
    assert!(matches!(error, RepositoryError::Git { .. }), "{error}");
}

#[test]
fn remotes_and_paths_are_distinguished() {
    for remote in ["https://h/x.git", "file:///x", "git@h:x.git", "host:x"] {
        assert!(is_remote(remote), "{remote}");
    }
    for local in ["/srv/site.git", "./a:b", "site", ":x"] {
        assert!(!is_remote(local), "{local}");
    }
}

async fn notices_a_push(options: &[&str]) {
    let work = Work::new(options);
    let first = work.commit("one");
    let repository = Repository::open(work.path()).unwrap();
    let (sender, mut tips) = mpsc::channel(4);
    let hour = Duration::from_secs(3600);
    let options = WatchOptions { branch: "main".into(), poll: hour, fetch: hour };
    tokio::spawn(watch(repository, options, sender));
    let mut next = async || {
        let next = tokio::time::timeout(Duration::from_secs(10), tips.recv()).await;
        next.expect("events are noticed").unwrap()
    };
    assert_eq!(next().await.unwrap(), first);
    let second = work.commit("two");
    assert_eq!(next().await.unwrap(), second);
    work.git(&["reset", "--quiet", "--hard", first.as_str()]);
    assert_eq!(next().await.unwrap(), first);
    work.git(&["checkout", "--quiet", "--orphan", "other"]);
    work.git(&["branch", "-D", "main"]);
    assert!(matches!(next().await, Err(RepositoryError::Empty { .. })));
}

#[tokio::test]
async fn a_push_a_force_push_and_a_lost_branch_are_noticed() {
    notices_a_push(&[]).await;
}

#[tokio::test]
async fn so_they_are_with_reftable() {
    notices_a_push(&["--ref-format=reftable"]).await;
}

#[test]
fn long_files_are_read_in_pieces() {
    for options in [&[][..], &["--object-format=sha256"]] {
        let work = Work::new(options);
        let long = "0123456789abcdef".repeat(3 << 16);
        let files = [("long", &*long), ("short", "s"), ("empty", "")];
        files.iter().for_each(|(path, text)| work.write(path, text));
        let commit = work.commit("one");
        for packed in [false, true] {
            if packed {
                work.git(&["gc", "--quiet"]);
            }
            let tree = Repository::open(work.path()).unwrap().tree(&commit).unwrap();
            for (path, text) in files {
                let mut read = Vec::new();
                let mut take = |whole: u64, piece: &[u8]| {
                    assert!(whole == text.len() as u64 && piece.len() <= 64 * 1024, "{path}");
                    read.extend_from_slice(piece);
                    true
                };
                tree.scan(path, &mut take).unwrap();
                assert!(read == text.as_bytes(), "{path}");
            }
            // What is not wanted is not read, and does no harm to what comes after it.
            let mut calls = 0;
            let mut stop = |_: u64, _: &[u8]| {
                calls += 1;
                false
            };
            tree.scan("long", &mut stop).unwrap();
            assert_eq!((calls, &*tree.read("short").unwrap()), (1, &b"s"[..]));
            tree.scan("long", &mut |_, _| true).unwrap();
        }
    }
}

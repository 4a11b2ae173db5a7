use std::{path::PathBuf, process::Command, time::Duration};

use groundplan_core::source::{EntryKind, SourceTree as _};
use tokio::sync::mpsc;

use super::{follow::Follow, watch::watch, *};

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

/// A commit of a tree: `levels` directories within each other, each there `times` times, and as many files in the innermost ones.
fn commit_of_directories(work: &Work, levels: usize, times: usize) -> CommitId {
    let repo = git2::Repository::open(work.path()).unwrap();
    let (mut oid, mut mode) = (repo.blob(b"x").unwrap(), 0o100_644);
    for _ in 0..=levels {
        let mut tree = repo.treebuilder(None).unwrap();
        for n in 0..times {
            tree.insert(format!("{n:02}"), oid, mode).unwrap();
        }
        (oid, mode) = (tree.write().unwrap(), 0o040_000);
    }
    let (tree, author) = (repo.find_tree(oid).unwrap(), git2::Signature::now("Ann", "ann@example.org").unwrap());
    CommitId::new(repo.commit(None, &author, &author, "large", &tree, &[]).unwrap().to_string()).unwrap()
}

#[test]
fn a_tree_that_no_planner_could_hold_is_refused() {
    let work = Work::new(&[]);
    // A few hundred bytes each, and 16 million files, or directories that no stack can walk.
    let commits = [commit_of_directories(&work, 5, 16), commit_of_directories(&work, 20_000, 1)];
    let good = commit_of_directories(&work, 100, 1);
    let by_libgit2 = Repository::open(work.path()).unwrap();
    let (by_git, _) = command::GitCommand::open(&work.path(), false, &Processes::default()).unwrap();
    for commit in &commits {
        assert!(matches!(by_libgit2.tree(commit), Err(RepositoryError::Unlisted { .. })));
        assert!(by_git.entries(commit).is_err());
    }
    assert_eq!(by_libgit2.tree(&good).unwrap().entries().len(), 1);
    assert_eq!(by_git.entries(&good).unwrap().len(), 1);
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

/// Fetches with no patience for a silent server.
fn fetch(repository: &Repository) -> Result<(), RepositoryError> {
    repository.fetch(Duration::from_secs(30), &mut |_| {})
}

/// A work tree as a remote, and the mirror of it.
fn mirror(work: &Work, state: &Path) -> (Repository, PathBuf) {
    let url = format!("file://{}", work.path().display());
    let repository = Repository::open_location(&url, state).unwrap();
    let dir = repository.git_dirs()[0].clone();
    (repository, dir)
}

#[test]
fn a_remote_is_mirrored_and_fetched() {
    let work = Work::new(&[]);
    let first = work.commit("one");
    let state = tempfile::tempdir().unwrap();
    let (repository, _) = mirror(&work, state.path());
    assert!(matches!(repository.branch("main"), Err(RepositoryError::Empty { .. })), "nothing is fetched by opening");
    fetch(&repository).unwrap();
    assert_eq!(repository.default_branch().unwrap(), "main");
    assert_eq!(repository.branch("main").unwrap(), first);
    let second = work.commit("two");
    let mut lines = Vec::new();
    repository.fetch(Duration::from_secs(30), &mut |line| lines.push(line.to_owned())).unwrap();
    assert!(lines.iter().any(|line| line.contains("objects")), "progress is reported: {lines:?}");
    assert_eq!(repository.branch("main").unwrap(), second);
    // The default branch is followed under its new name.
    work.git(&["branch", "-m", "trunk"]);
    fetch(&repository).unwrap();
    assert!(matches!(repository.branch("main"), Err(RepositoryError::NoBranch { .. })));
    assert_eq!(repository.default_branch().unwrap(), "trunk");
    // Without the remote, what was mirrored serves.
    let (again, _) = mirror(&work, state.path());
    drop(work);
    assert_eq!((again.default_branch().unwrap(), again.branch("trunk").unwrap()), ("trunk".to_owned(), second));
    assert!(matches!(fetch(&again), Err(RepositoryError::Git { .. })));
}

#[test]
fn a_remote_in_sha256_is_mirrored_in_sha256() {
    let work = Work::new(&["--object-format=sha256"]);
    work.write("site.toml", "x");
    let tip = work.commit("one");
    let state = tempfile::tempdir().unwrap();
    let (repository, _) = mirror(&work, state.path());
    fetch(&repository).unwrap();
    assert_eq!((tip.as_str().len(), repository.branch("main").unwrap()), (64, tip.clone()));
    assert_eq!(&*repository.tree(&tip).unwrap().read("site.toml").unwrap(), b"x");
    let second = work.commit("two");
    fetch(&repository).unwrap();
    assert_eq!(repository.branch("main").unwrap(), second);
}

#[test]
fn what_a_killed_git_left_in_the_mirror_does_no_harm() {
    let work = Work::new(&[]);
    work.commit("one");
    let state = tempfile::tempdir().unwrap();
    let (repository, dir) = mirror(&work, state.path());
    fetch(&repository).unwrap();
    let second = work.commit("two");
    let left =
        ["HEAD.lock", "packed-refs.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x"].map(|path| dir.join(path));
    left.iter().for_each(|path| std::fs::write(path, "").unwrap());
    assert!(fetch(&repository).is_err(), "a lock is respected while it may be held");
    let (repository, _) = mirror(&work, state.path());
    assert!(left.iter().all(|path| !path.exists()));
    fetch(&repository).unwrap();
    assert_eq!(repository.branch("main").unwrap(), second);
}

#[test]
fn a_silent_server_is_given_up_with_all_that_was_started() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("git://{}/site.git", listener.local_addr().unwrap());
    let state = tempfile::tempdir().unwrap();
    let repository = Repository::open_location(&url, state.path()).unwrap();
    let error = repository.fetch(Duration::from_secs(1), &mut |_| {}).unwrap_err();
    assert!(matches!(error, RepositoryError::Limit { silent: true, .. }), "{error}");
    // Connections are closed: no process of git holds one any more.
    let (mut connection, _) = listener.accept().unwrap();
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut connection, &mut rest).unwrap();
    // One that is stopped ends at once, however patient it is.
    let running = repository.clone();
    let fetching = std::thread::spawn(move || running.fetch(Duration::from_secs(3600), &mut |_| {}));
    let (connection, _) = listener.accept().unwrap();
    repository.stop();
    assert!(fetching.join().unwrap().is_err());
    drop(connection);
    assert!(fetch(&repository).is_err(), "none is started any more");
}

#[test]
fn what_a_partial_clone_lacks_is_fetched_when_it_is_read() {
    let work = Work::new(&[]);
    work.write("a/b", "content");
    let tip = work.commit("one");
    work.git(&["config", "uploadpack.allowFilter", "true"]);
    work.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let dir = tempfile::tempdir().unwrap();
    for filter in ["blob:none", "tree:0"] {
        let clone = dir.path().join(filter);
        let url = format!("file://{}", work.path().display());
        let filter = format!("--filter={filter}");
        git(dir.path(), &["clone", "--quiet", "--bare", &filter, &url, clone.to_str().unwrap()]);
        let tree = Repository::open(&clone).unwrap().tree(&tip).unwrap();
        assert_eq!(&*tree.read("a/b").unwrap(), b"content", "{filter}");
    }
}

#[test]
fn a_shallow_clone_says_what_it_cannot_compare() {
    let work = Work::new(&[]);
    work.commit("one");
    work.commit("two");
    let dir = tempfile::tempdir().unwrap();
    let clone = dir.path().join("shallow");
    let url = format!("file://{}", work.path().display());
    git(dir.path(), &["clone", "--quiet", "--depth=1", &url, clone.to_str().unwrap()]);
    let error = Repository::open(&clone).unwrap().range("HEAD~1..HEAD").unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("shallow") && hint.contains("--unshallow")), "{error:?}");
    let error = Repository::open(work.path()).unwrap().range("HEAD~9..HEAD").unwrap_err();
    assert_eq!(error.hint(), None);
}

#[test]
fn a_file_that_cannot_be_read_is_no_fault_of_the_commit() {
    let work = Work::new(&[]);
    work.write("a", "content");
    let tip = work.commit("one");
    let oid = work.git(&["rev-parse", "HEAD:a"]);
    let object = work.path().join(".git/objects").join(&oid[..2]).join(oid[2..].trim());
    let away = work.path().join("away");
    std::fs::rename(&object, &away).unwrap();
    let repository = Repository::open(work.path()).unwrap();
    let tree = repository.tree(&tip).unwrap();
    assert!(tree.read("none").is_err() && tree.unread().is_none(), "what is not in the commit never will be");
    assert!(tree.read("a").is_err());
    assert_eq!(tree.unread().unwrap().path, "a");
    std::fs::rename(&away, &object).unwrap();
    let tree = repository.tree(&tip).unwrap();
    assert!(&*tree.read("a").unwrap() == b"content" && tree.unread().is_none());
}

#[test]
fn a_pointer_of_git_lfs_is_not_taken_for_the_content() {
    let work = Work::new(&[]);
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 3\n", "0".repeat(64));
    work.write("big", &pointer);
    let tip = work.commit("one");
    let tree = Repository::open(work.path()).unwrap().tree(&tip).unwrap();
    for error in [tree.read("big").unwrap_err(), tree.scan("big", &mut |_, _| true).unwrap_err()] {
        assert!(error.cause.contains("pointer of Git LFS"), "{error}");
    }
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
    let follow = Follow::new(repository.clone(), None).unwrap();
    tokio::spawn(watch(repository, follow, hour, sender));
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

/// An edit within the tick of the clock in which the index was written shows by nothing but the times being the same.
#[test]
fn an_edit_right_after_a_commit_is_seen() {
    let work = Work::new(&[]);
    work.git(&["config", "core.checkStat", "minimal"]);
    work.git(&["config", "core.trustctime", "false"]);
    work.write("site.toml", "ann");
    let file = |path: &str| std::fs::File::options().write(true).open(work.path().join(path)).unwrap();
    let tick = std::time::SystemTime::now() - Duration::from_secs(10);
    file("site.toml").set_modified(tick).unwrap();
    work.commit("ann");
    work.write("site.toml", "bob");
    for path in ["site.toml", ".git/index"] {
        file(path).set_modified(tick).unwrap();
    }
    let tree = Repository::open(work.path()).unwrap().work_tree(&work.path()).unwrap();
    assert_eq!(&*tree.read("site.toml").unwrap(), b"bob");
}

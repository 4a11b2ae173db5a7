//! Remote repositories: servers that are silent or away, default branches with another name, files that cannot be read for a moment.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::Command,
};

use groundplan_tests::{brokers::Kind, fleet::Fleet};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{greeting, web};

/// The repository's status.
fn repository(fleet: &Fleet) -> Option<Value> {
    Some(fleet.ask("one", &["status"])?["repository"].clone())
}

/// Waits until the commit is active.
fn active(fleet: &Fleet, commit: &str) {
    fleet.wait("the commit to be active", || (fleet.ask("one", &["status"])?["commit"]["id"] == commit).then_some(()));
}

/// A program in the fleet's folder.
fn program(path: &Path, text: &str) -> String {
    fs::write(path, text).expect("a program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
    path.to_string_lossy().into_owned()
}

/// Processes of git whose command line contains a word.
fn processes(word: &str) -> Vec<String> {
    let lines = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?.replace('\0', " ");
        line.contains(word).then_some(line)
    });
    // The planner's own command line has the word as well.
    lines.filter(|line| line.contains("git") && !line.contains("groundplan")).collect()
}

#[test]
fn a_silent_server_freezes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("git://{}/site.git", listener.local_addr().expect("an address"));
    let mut fleet = Fleet::new(Kind::Embedded, &web());
    fleet.serve_from(&["--repo", &url, "--fetch-timeout", "3600"], &[]);
    for _ in 0..2 {
        fleet.start_planner("one");
        let fetch = fleet.wait("a fetch to be under way", || {
            let fetch = repository(&fleet)?["fetch"].clone();
            fetch["since_ms"].is_u64().then_some(fetch)
        });
        assert!(fetch["fetched_ms"].is_null() && fetch["error"].is_null(), "{fetch:#}");
        let text = Command::new(groundplan_tests::binaries::groundplan())
            .args(["status", "--state"])
            .arg(fleet.planner_state("one"))
            .output()
            .expect("a status");
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.contains("a fetch is under way, begun"), "{text}");
        fleet.terminate_planner("one");
        fleet.wait("git to have ended too", || processes(&url).is_empty().then_some(()));
    }
    fleet.start_planner("one");
    fleet.wait("a fetch to be under way", || (!processes(&url).is_empty()).then_some(()));
    fleet.kill_planner("one");
    fleet.wait("git to have ended with the planner", || processes(&url).is_empty().then_some(()));
}

#[test]
fn a_remote_that_comes_and_goes() {
    let mut fleet = Fleet::new(Kind::Embedded, &web());
    // In the place of ssh: the server is this machine, or silent while there is a file of that name.
    let silent = fleet.repository().with_file_name("silent");
    let ssh = fleet.repository().with_file_name("ssh");
    let ssh = program(
        &ssh,
        &format!(
            "#!/bin/sh\n[ -e {} ] && exec sleep 100000\nfor last; do :; done\neval \"exec $last\"\n",
            silent.display()
        ),
    );
    let url = format!("ssh://host{}", fleet.repository().display());
    let env = [("GIT_SSH_COMMAND", ssh.as_str()), ("GIT_SSH_VARIANT", "ssh")];
    fleet.serve_from(&["--repo", &url, "--fetch", "3600", "--fetch-timeout", "1"], &env);
    fleet.start_planner("one");
    let first = fleet.git(&["rev-parse", "HEAD"]);
    active(&fleet, &first);
    assert_eq!(repository(&fleet).expect("a status")["branch"], "main", "the default branch");

    // A signal has it fetch at once.
    let second = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    fleet.signal_planner("one", Signal::SIGHUP);
    active(&fleet, &second);

    // While the server is silent, what was fetched stays; why is in the status.
    fs::write(&silent, "").expect("a file");
    let third = fleet.commit(&[("site.toml", &greeting("three"))], "three");
    fleet.signal_planner("one", Signal::SIGHUP);
    let fetch = fleet.wait("the fetch to be given up", || {
        let fetch = repository(&fleet)?["fetch"].clone();
        fetch["error"].is_string().then_some(fetch)
    });
    assert!(fetch["error"].as_str().is_some_and(|error| error.contains("was silent for 1 s")), "{fetch:#}");
    assert!(fetch["failing_since_ms"].is_u64(), "{fetch:#}");
    active(&fleet, &second);
    let why = fleet.run("one", &["why", "n1", "web.config"]);
    fleet.wait("the reason to name it too", || {
        why.out().contains("what was pushed since is not known: fetching fails").then_some(())
    });

    // Also at a start, when an interrupted git has left its locks.
    fleet.kill_planner("one");
    let mirrors = fs::read_dir(fleet.planner_state("one").join("mirrors")).expect("mirrors");
    let mirror = mirrors.flatten().next().expect("a mirror").path();
    for lock in ["packed-refs.lock", "refs/heads/main.lock"] {
        fs::write(mirror.join(lock), "").expect("a lock");
    }
    fleet.start_planner("one");
    active(&fleet, &second);

    // A hook has it fetch at once when the server is back.
    fs::remove_file(&silent).expect("a file");
    let mut hook = UnixStream::connect(fleet.planner_state("one").join("planner.sock")).expect("a socket");
    hook.write_all(b"POST /v1/fetch HTTP/1.1\r\nHost: planner\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .expect("a request");
    let mut reply = String::new();
    hook.read_to_string(&mut reply).expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    active(&fleet, &third);
    assert!(repository(&fleet).expect("a status")["fetch"]["error"].is_null());

    // The default branch under another name.
    fleet.git(&["branch", "-m", "trunk"]);
    let fourth = fleet.commit(&[("site.toml", &greeting("four"))], "four");
    fleet.signal_planner("one", Signal::SIGHUP);
    active(&fleet, &fourth);
    assert_eq!(repository(&fleet).expect("a status")["branch"], "trunk");
    fleet.terminate_planner("one");
}

#[test]
fn a_file_that_cannot_be_read_for_a_moment_is_tried_again() {
    let mut fleet = Fleet::new(Kind::Embedded, &web());
    fleet.start_planner("one");
    active(&fleet, &fleet.git(&["rev-parse", "HEAD"]));
    // Its object is away before the branch names the commit.
    let site = fleet.repository().join("site.toml");
    fs::write(&site, greeting("two")).expect("a file");
    fleet.git(&["add", "-A"]);
    let oid = fleet.git(&["rev-parse", ":site.toml"]);
    let object = fleet.repository().join(".git/objects").join(&oid[..2]).join(&oid[2..]);
    let away = fleet.repository().with_file_name("away");
    let tree = fleet.git(&["write-tree"]);
    let commit = fleet.git(&["commit-tree", &tree, "-p", "HEAD", "-m", "two"]);
    fs::rename(&object, &away).expect("an object");
    fleet.git(&["update-ref", "refs/heads/main", &commit]);
    let status = fleet.wait("the fault to be reported", || {
        let status = fleet.ask("one", &["status"])?;
        status["repository"]["error"].is_string().then_some(status)
    });
    assert!(
        status["repository"]["error"].as_str().is_some_and(|error| error.contains("`site.toml` of commit")),
        "{status:#}"
    );
    assert!(status["refused"].is_null(), "{status:#}");
    fs::rename(&away, &object).expect("an object");
    active(&fleet, &commit);
    fleet.wait("the fault to be over", || repository(&fleet)?["error"].is_null().then_some(()));
}

#[test]
fn files_in_git_lfs_are_shipped_by_their_content_where_git_lfs_is_there() {
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 8\n", "0".repeat(64));
    let service = "[[task]]\nid = \"big\"\nfile = { source = \"big\", path = \"/big\" }\n";
    let mut files = web();
    files.extend([("services/web/service.toml", service), ("services/web/big", &*pointer.leak())]);
    let mut fleet = Fleet::new(Kind::Embedded, &files);
    let head = fleet.git(&["rev-parse", "HEAD"]);
    let repo = fleet.repository();
    let repo = repo.to_string_lossy();
    fleet.start_planner("one");
    let status = fleet.wait("the commit to be refused", || {
        let status = fleet.ask("one", &["status"])?;
        (status["refused"]["commit"]["id"] == head.as_str()).then_some(status)
    });
    assert!(status["refused"]["diagnostics"].to_string().contains("pointer of Git LFS"), "{status:#}");
    fleet.terminate_planner("one");

    let bin = fleet.repository().with_file_name("bin");
    fs::create_dir(&bin).expect("a folder");
    program(&bin.join("git-lfs"), "#!/bin/sh\n[ \"$1\" = smudge ] && cat > /dev/null && printf content\nexit 0\n");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("PATH"));
    fleet.serve_from(&["--repo", &repo, "--branch", "main"], &[("PATH", &path)]);
    for node in super::BOTH {
        fleet.start_agent(node);
    }
    fleet.start_planner("one");
    fleet.converged("one", &head);
    assert_eq!(fleet.file("n1", "big").as_deref(), Some("content"));
}

//! `command`, and how programs are run.

use std::time::Instant;

use serde_json::json;

use super::*;
use crate::host::cancel::Canceller;

/// A duration for `sleep` that only this run of the tests uses.
pub(super) fn nap(n: u32) -> String {
    format!("{}{n}", 1_000_000 + std::process::id())
}

/// The number of `sleep` processes with this duration.
pub(super) fn sleepers(marker: &str) -> usize {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
    processes.filter(|line| line.starts_with(b"sleep") && String::from_utf8_lossy(line).contains(marker)).count()
}

#[tokio::test]
async fn runs_when_new_changed_or_triggered() {
    let site = Site::new();
    let spec = command("echo ran >> log; echo to stdout; echo to stderr >&2");
    let finished = site.job("svc.task", apply(&spec, None), Some(Effect::Run)).await;
    // Applying has run it, so the effect is done, too.
    assert_eq!(finished.result, CHANGED);
    assert_eq!(finished.output.unwrap().head, "to stdout\nto stderr\n");
    assert_eq!(site.trigger(&spec, Effect::Run).await, effected(Effect::Run));
    assert_eq!(site.remove(&spec).await, UNCHANGED);
    assert_eq!(fs::read_to_string(site.at("log")).unwrap(), "ran\nran\n");
}

#[tokio::test]
async fn guards_prevent_the_run() {
    let site = Site::new();
    fs::write(site.at("there"), "").unwrap();
    for (guard, runs) in [
        (json!({ "creates": "/there" }), false),
        (json!({ "creates": "/missing" }), true),
        (json!({ "creates": "/there/below/a/file" }), true),
        (json!({ "unless": "test -e there" }), false),
        (json!({ "unless": ["test", "-e", "missing"] }), true),
        (json!({ "only_if": "test -e there" }), true),
        (json!({ "only_if": "test -e missing" }), false),
        (json!({ "unless": "false", "only_if": "false" }), false),
    ] {
        let mut params = guard.clone();
        params["run"] = json!(["true"]);
        let spec = spec(json!({ "command": params }));
        assert_eq!(site.create(&spec).await, if runs { CHANGED } else { UNCHANGED }, "{guard}");
        assert_eq!(site.trigger(&spec, Effect::Run).await.unwrap().changed, runs, "{guard}");
    }
}

#[tokio::test]
async fn the_environment_of_a_program() {
    let site = Site::new();
    fs::create_dir(site.at("work")).unwrap();
    let show =
        "pwd; echo $GROUNDPLAN_SITE $GROUNDPLAN_NODE $GROUNDPLAN_ROOT $MINE $CARGO; test -t 0 || cat; ps -o pgid= $$";
    let spec = spec(json!({ "command": { "run": show, "cwd": "/work", "env": { "MINE": "a b" } } }));
    let output = site.job("svc.task", apply(&spec, None), None).await.output.unwrap().head;
    let root = site.at("").canonicalize().unwrap();
    let expected = format!("{}\nlab n0 {} a b\n", root.join("work").display(), root.display());
    assert!(output.starts_with(&expected), "{output}");
}

#[tokio::test]
async fn errors_name_the_program_and_the_reason() {
    let site = Site::new();
    fs::write(site.at("text"), "no program").unwrap();
    for (params, error) in [
        (json!({ "run": "echo one; echo two >&2; exit 3" }), "the command exited with 3: one\ntwo"),
        (json!({ "run": "kill -SEGV $$" }), "the command was killed by SIGSEGV"),
        (json!({ "run": ["false"] }), "`false` exited with 1"),
        (json!({ "run": ["/no/such", "x"] }), "cannot start `/no/such`: No such file or directory (os error 2)"),
        (json!({ "run": ["./text"] }), "cannot start `./text`: Permission denied (os error 13)"),
        (json!({ "run": ["true"], "cwd": "/missing" }), "cannot run in /missing: there is no such directory"),
        (
            json!({ "run": ["true"], "user": "no-such" }),
            "cannot run as another user: there is no user `no-such` on this host",
        ),
        (json!({ "run": ["no-such"], "env": { "PATH": "/bin" } }), "there is no program `no-such` in PATH (/bin)"),
    ] {
        assert_eq!(site.create(&spec(json!({ "command": params }))).await, Err(error.to_owned()));
    }
}

#[tokio::test]
async fn a_shell_line_is_not_among_the_arguments_of_its_shell() {
    let site = Site::new();
    // The line reads what is shown of it to all, and what its programs inherit.
    let line = "echo secret-1 > /dev/null; echo $0 $#; tr '\\0' ' ' < /proc/$$/cmdline; echo; env";
    let guarded = json!({ "command": { "run": line, "only_if": "! grep -q secret-2 /proc/$$/cmdline" } });
    let output = site.job("svc.task", apply(&spec(guarded), None), None).await.output.unwrap().head;
    assert!(output.starts_with("/bin/sh 0\n/bin/sh -c eval "), "{output}");
    assert!(!output.contains("secret") && !output.contains("GROUNDPLAN_LINE="), "{output}");
    let validated = json!({ "command": "! grep -q secret-3 /proc/$$/cmdline && grep -q x %s" });
    let file = json!({ "file": { "path": "/x", "validate": validated } });
    let content = Some(Shipped::of(b"x"));
    assert_eq!(site.create(&TaskSpec { content, ..spec(file) }).await, CHANGED);
    // A line that only starts a program becomes it, as with `sh -c`: no shell waits beside it.
    let finished = site.job("svc.task", apply(&command("grep PPid: /proc/self/status"), None), None).await;
    assert_eq!(finished.output.unwrap().head, format!("PPid:\t{}\n", std::process::id()));
}

#[tokio::test]
async fn another_user() {
    if !is_root() {
        eprintln!("SKIPPED: only root may run programs as other users");
        return;
    }
    let site = Site::new();
    fs::set_permissions(site.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let spec =
        spec(json!({ "command": { "run": "id -un; id -gn; echo $HOME $USER; umask >/dev/null", "user": "daemon" } }));
    let output = site.job("svc.task", apply(&spec, None), None).await.output.unwrap().head;
    assert_eq!(output, "daemon\ndaemon\n/usr/sbin daemon\n");
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group() {
    let site = Site::new();
    for (line, marker) in [
        ("sleep $NAP & sleep $NAP", nap(1)),
        // Both ignore TERM.
        ("trap '' TERM; echo begun; (trap '' TERM; sleep $NAP) & sleep $NAP", nap(2)),
    ] {
        let begun = Instant::now();
        let spec = spec(json!({ "command": { "run": line, "timeout": "100ms", "env": { "NAP": marker } } }));
        let error = site.create(&spec).await.unwrap_err();
        assert!(error.ends_with("took longer than 100ms, and was ended"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_eq!(sleepers(&marker), 0);
    }
}

#[tokio::test]
async fn cancelled_and_dropped_jobs_end_their_programs() {
    let site = Site::new();
    let canceller = Canceller::new();
    let (one, two) = (nap(3), nap(4));
    let job = |line: &str| job("svc.task", apply(&command(line), None), None, None);
    let (finished, ()) = tokio::join!(site.host.run(job(&format!("sleep {one}")), canceller.listen()), async {
        until(|| sleepers(&one) == 1).await;
        canceller.cancel();
    });
    assert!(finished.result.unwrap_err().starts_with("the command was ended, because"));
    assert_eq!(
        site.host.run(job("true"), canceller.listen()).await.result,
        Err("cancelled before it began".to_owned())
    );
    let dropped =
        tokio::time::timeout(Duration::from_millis(200), site.host.run(job(&format!("sleep {two}")), Cancel::never()));
    assert!(dropped.await.is_err());
    until(|| sleepers(&one) + sleepers(&two) == 0).await;
}

#[tokio::test]
async fn a_daemon_that_keeps_the_pipe_open_delays_nothing() {
    let site = Site::new();
    let begun = Instant::now();
    let finished = site.job("svc.task", apply(&command("sleep 600 & echo $!"), None), None).await;
    assert_eq!(finished.result, CHANGED);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let pid: u32 = finished.output.unwrap().head.trim().parse().unwrap();
    assert!(lives(pid));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_gigabyte_of_output_is_truncated() {
    let site = Site::new();
    let size = 1_u64 << 30;
    let spec = command(&format!("echo begin; head -c {size} /dev/zero; echo end"));
    let finished = site.job("svc.task", apply(&spec, None), None).await;
    assert_eq!(finished.result, CHANGED);
    let output = finished.output.unwrap();
    assert!(output.head.starts_with("begin\n\0") && output.tail.ends_with("\0end\n"));
    assert_eq!((output.head.len() + output.tail.len()) as u64 + output.omitted, size + 10);
}

#[tokio::test]
async fn endless_output_ends_at_the_timeout() {
    let site = Site::new();
    let spec = spec(json!({ "command": { "run": ["yes"], "timeout": "200ms" } }));
    let finished = site.job("svc.task", apply(&spec, None), None).await;
    assert_eq!(finished.result, Err("`yes` took longer than 200ms, and was ended".to_owned()));
    assert!(finished.output.unwrap().omitted > 0 && finished.duration < Duration::from_secs(2));
}

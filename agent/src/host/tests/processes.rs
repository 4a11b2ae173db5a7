//! `process`: supervision, and adoption by an agent that is started after a kill.

use std::time::Instant;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::*;
use crate::host::process::Supervised;

/// Writes a line at each start, and runs until TERM.
const SERVICE: &str =
    "trap 'echo reload >> starts' HUP; echo start $X >> starts; echo ready; while :; do sleep 0.02; done";

fn service(x: &str) -> TaskSpec {
    spec(json!({ "process": { "run": SERVICE, "env": { "X": x } } }))
}

fn starts(site: &Site) -> Vec<String> {
    fs::read_to_string(site.at("starts")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Waits for that many lines: a process that was just started may not have written its line yet.
async fn noted(site: &Site, lines: usize) {
    until(|| starts(site).len() >= lines).await;
}

fn only(site: &Site) -> Supervised {
    let [process] = <[Supervised; 1]>::try_from(site.host.processes()).unwrap();
    process
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

#[tokio::test]
async fn started_updated_restarted_reloaded_stopped() {
    let site = Site::new();
    let (a, b) = (service("a"), service("b"));
    let finished = site.job("svc.task", apply(&a, None), Some(Effect::Restart)).await;
    assert_eq!(finished.result, CHANGED);
    let first = only(&site);
    noted(&site, 1).await;
    assert!(lives(first.pid));
    assert_eq!(site.create(&a).await, UNCHANGED);
    assert_eq!(only(&site), first);

    assert_eq!(site.update(&a, &b).await, CHANGED);
    let second = only(&site).pid;
    noted(&site, 2).await;
    assert!(!lives(first.pid) && lives(second));
    assert_eq!(site.trigger(&b, Effect::Reload).await, effected(Effect::Reload));
    noted(&site, 3).await;
    assert_eq!(only(&site).pid, second);
    assert_eq!(site.trigger(&b, Effect::Restart).await, effected(Effect::Restart));
    noted(&site, 4).await;
    assert_eq!(starts(&site), ["start a", "start b", "reload", "start b"]);

    // Other parameters for stopping do not restart it.
    let third = only(&site).pid;
    let amended = spec(json!({ "process": { "run": SERVICE, "env": { "X": "b" }, "stop_timeout": "1s" } }));
    assert_eq!(site.update(&b, &amended).await, CHANGED);
    assert_eq!(site.update(&b, &amended).await, UNCHANGED);
    assert_eq!(only(&site).pid, third);

    assert_eq!(site.remove(&amended).await, CHANGED);
    assert!(!lives(third) && site.host.processes().is_empty());
    assert_eq!(fs::read_dir(site.state("process")).unwrap().count(), 0);
    assert_eq!(site.remove(&amended).await, UNCHANGED);
    assert!(fs::read_to_string(site.state("log/svc.task.log")).unwrap().starts_with("ready\n"));
}

/// As below an agent that was started with nohup(1), with a signal that nothing else here uses.
#[tokio::test]
async fn a_signal_that_the_agent_ignores_reaches_its_processes() {
    #[expect(unsafe_code, reason = "std has no way to ignore a signal")]
    // SAFETY: no handler is installed.
    unsafe {
        nix::sys::signal::signal(Signal::SIGUSR2, nix::sys::signal::SigHandler::SigIgn).unwrap();
    }
    let site = Site::new();
    let run = SERVICE.replace("HUP", "USR2");
    let spec = spec(json!({ "process": { "run": run, "env": { "X": "a" }, "reload_signal": "USR2" } }));
    site.create(&spec).await.unwrap();
    noted(&site, 1).await;
    assert_eq!(site.trigger(&spec, Effect::Reload).await, effected(Effect::Reload));
    noted(&site, 2).await;
    assert_eq!(starts(&site), ["start a", "reload"]);
    assert_eq!(site.remove(&spec).await, CHANGED);
}

#[tokio::test]
async fn a_process_that_exits_at_once_is_a_failed_start() {
    let site = Site::new();
    let crash = spec(json!({ "process": { "run": "echo no configuration; exit 7" } }));
    assert_eq!(site.create(&crash).await, Err("the process exited with 7: no configuration".to_owned()));
    let ready = json!({ "command": "false" });
    let begun = Instant::now();
    assert_eq!(
        site.create(&with_ready(crash.clone(), ready)).await,
        Err("the process exited with 7: no configuration".to_owned())
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
    let missing = spec(json!({ "process": { "run": ["no-such"], "env": { "PATH": "/bin" } } }));
    assert_eq!(site.create(&missing).await, Err("there is no program `no-such` in PATH (/bin)".to_owned()));
    // The task of the ledger is started again later; meanwhile no record has a process id that another process may get.
    let mut absent = missing.clone();
    absent.params = spec(json!({ "process": { "run": ["/no/such"] } })).params;
    assert!(site.update(&missing, &absent).await.unwrap_err().starts_with("cannot start `/no/such`: No such file"));
    assert_eq!(fs::read_dir(site.state("process")).unwrap().count(), 0);
    assert_eq!(site.remove(&absent).await, UNCHANGED);
    // A task that is not in the ledger is not started again.
    assert!(site.host.processes().is_empty());
    assert_eq!(fs::read_dir(site.state("process")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_process_that_exits_is_restarted_with_backoff() {
    let site = Site::new();
    let spec = service("a");
    site.create(&spec).await.unwrap();
    let mut gaps = Vec::new();
    for restarts in 1..=3 {
        let begun = Instant::now();
        let pid = only(&site).pid;
        signal(pid, Signal::SIGKILL);
        until(|| site.host.processes().first().is_some_and(|process| process.restarts == restarts)).await;
        gaps.push(begun.elapsed());
    }
    // 100, 200 and 400 ms.
    assert!(gaps[0] >= Duration::from_millis(90) && gaps[1] >= Duration::from_millis(190), "{gaps:?}");
    assert!(gaps[2] >= Duration::from_millis(390), "{gaps:?}");
    let log = fs::read_to_string(site.state("log/svc.task.log")).unwrap();
    assert!(log.contains("groundplan: was killed by SIGKILL\ngroundplan: started again in 0.2s\n"), "{log}");

    // While it is down, a reload starts it.
    signal(only(&site).pid, Signal::SIGKILL);
    until(|| site.host.processes().is_empty()).await;
    assert_eq!(site.trigger(&spec, Effect::Reload).await, effected(Effect::Restart));
    assert_eq!(only(&site).restarts, 0);
    site.host.stop_processes().await;
}

#[tokio::test]
async fn a_reload_that_ends_the_process_is_a_restart_or_a_failure() {
    // It has no handler for the signal: it is restarted in the orderly way.
    let site = Site::new();
    let plain = spec(json!({ "process": { "run": ["sleep", "1000"] } }));
    site.create(&plain).await.unwrap();
    let before = only(&site).pid;
    let finished = site.job("svc.task", Work::Trigger { spec: plain.clone() }, Some(Effect::Reload)).await;
    assert_eq!(finished.result, effected(Effect::Restart));
    let report = finished.output.unwrap().head;
    assert_eq!(report, "restarted: the program has no handler for SIGHUP, which would end it\n");
    assert!(!lives(before) && lives(only(&site).pid));
    assert_eq!(only(&site).restarts, 0, "it is a start by a job");
    site.remove(&plain).await.unwrap();

    // Its handler ends it: it is started again.
    // `wait` ends at the signal: a loop would see it only when what it runs has ended, however late that is on a busy machine.
    let quits = r#"trap '[ -z "$!" ] || kill $!; exit 0' HUP; echo start >> starts; sleep 1000 & wait"#;
    let quitter = spec(json!({ "process": { "run": quits } }));
    site.create(&quitter).await.unwrap();
    noted(&site, 1).await;
    let finished = site.job("svc.task", Work::Trigger { spec: quitter.clone() }, Some(Effect::Reload)).await;
    assert_eq!(finished.result, effected(Effect::Restart));
    assert_eq!(finished.output.unwrap().head, "restarted: at SIGHUP, it exited with 0\n");
    noted(&site, 2).await;
    site.remove(&quitter).await.unwrap();

    // It does not start again: its new configuration is bad.
    let run = format!("test ! -e bad || {{ echo bad configuration; exit 7; }}; {quits}");
    let broken = spec(json!({ "process": { "run": run } }));
    site.create(&broken).await.unwrap();
    noted(&site, 3).await;
    fs::write(site.at("bad"), "").unwrap();
    let error = Err("the process exited with 7: bad configuration".to_owned());
    assert_eq!(site.trigger(&broken, Effect::Reload).await, error);
    site.host.stop_processes().await;
}

#[tokio::test]
async fn stops_the_whole_process_group() {
    let site = Site::new();
    let stubborn = spec(json!({ "process": {
        "run": "trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & echo $! > child; while :; do sleep 0.1; done",
        "stop_timeout": "200ms",
    } }));
    site.create(&stubborn).await.unwrap();
    until(|| fs::read_to_string(site.at("child")).is_ok_and(|text| text.ends_with('\n'))).await;
    let child: u32 = fs::read_to_string(site.at("child")).unwrap().trim().parse().unwrap();
    let leader = only(&site).pid;
    assert!(lives(leader) && lives(child));
    site.host.stop_processes().await;
    until(|| !lives(leader) && !lives(child)).await;
}

#[tokio::test]
async fn adopts_running_processes_after_a_kill() {
    let site = Site::new();
    let spec = service("a");
    site.create(&spec).await.unwrap();
    let before = only(&site);
    noted(&site, 1).await;
    // Once with a record without identity, as if the agent had been killed right after the fork.
    let record = site.state("process/svc.task.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    for intent_only in [false, true] {
        if intent_only {
            text.as_object_mut().unwrap().remove("identity");
            fs::write(&record, text.to_string()).unwrap();
        }
        let next = Site { host: Site::host(&site.dir), dir: tempfile::tempdir().unwrap(), ..Site::new() };
        next.host.adopt(&[(id("svc.task"), spec.params.clone())]).await;
        assert_eq!(only(&next).pid, before.pid);
        assert_eq!(next.create(&spec).await, UNCHANGED);
        // It is adopted also if the ledger does not have the task.
        let next = Site { host: Site::host(&site.dir), dir: next.dir, memories: next.memories, ..Site::new() };
        next.host.adopt(&[]).await;
        assert_eq!(only(&next).pid, before.pid);
    }
    assert_eq!(starts(&site), ["start a"]);

    // The new agent supervises it like a process that it started.
    site.host.leave_processes();
    let site = site.after_a_crash();
    site.host.adopt(&[(id("svc.task"), spec.params.clone())]).await;
    assert_eq!(site.trigger(&spec, Effect::Reload).await, effected(Effect::Reload));
    noted(&site, 2).await;
    signal(before.pid, Signal::SIGKILL);
    until(|| site.host.processes().first().is_some_and(|process| process.restarts == 1)).await;
    noted(&site, 3).await;
    assert_eq!(starts(&site), ["start a", "reload", "start a"]);
    assert_eq!(site.remove(&spec).await, CHANGED);
}

#[tokio::test]
async fn processes_that_are_down_start_with_the_agent() {
    let site = Site::new();
    let spec = service("a");
    site.create(&spec).await.unwrap();
    let pid = only(&site).pid;
    noted(&site, 1).await;
    site.host.leave_processes();
    let site = site.after_a_crash();
    signal(pid, Signal::SIGKILL);
    until(|| !lives(pid)).await;
    site.host.adopt(&[(id("svc.task"), spec.params.clone())]).await;
    noted(&site, 2).await;
    assert_ne!(only(&site).pid, pid);
    site.host.stop_processes().await;
    assert!(site.host.processes().is_empty());
}

#[tokio::test]
async fn a_start_counts_once_the_process_has_lived_for_a_moment() {
    let site = Site::new();
    let dying = spec(json!({ "process": { "run": "sleep 0.2; echo broken; exit 3" } }));
    let error = site.create(&dying).await.unwrap_err();
    assert!(error.contains('3') && error.contains("broken"), "{error}");
    assert!(site.host.processes().is_empty(), "what has never worked is not started again");
}

#[tokio::test]
async fn a_process_that_ends_by_itself_is_degraded_until_it_runs_on() {
    let site = Site::new();
    // It ends twice, and then runs on.
    let run = "echo x >> runs; [ $(wc -l < runs) -gt 2 ] || { sleep 0.2; echo broken; exit 3; }; exec sleep 1000";
    let task = spec(json!({ "process": { "run": run, "settle": "50ms" } }));
    // By its own `settle` it has started: with the default it would have failed.
    assert_eq!(site.create(&task).await, CHANGED);
    let degraded = site.host.degraded_changed().await;
    let (of, why) = degraded.first_key_value().expect("it has ended");
    assert_eq!(of.to_string(), "svc.task");
    assert!(why.contains("broken"), "{why}");
    until(|| site.host.processes().first().is_some_and(|process| process.restarts == 2)).await;
    while !site.host.degraded_changed().await.is_empty() {}

    // What is stopped is not degraded.
    signal(only(&site).pid, Signal::SIGKILL);
    assert_eq!(site.host.degraded_changed().await.len(), 1);
    // Whether there is anything to stop depends on whether it runs again already.
    site.remove(&task).await.unwrap();
    while !site.host.degraded_changed().await.is_empty() {}
}

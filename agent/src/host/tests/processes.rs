//! `process`: supervision, and what an agent finds after it was killed.

use std::time::Instant;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::*;
use crate::host::process::Supervised;

/// Notes each start, and runs until TERM.
const SERVICE: &str =
    "trap 'echo reload >> starts' HUP; echo start $X >> starts; echo ready; while :; do sleep 0.02; done";

fn service(x: &str) -> TaskSpec {
    spec(json!({ "process": { "run": SERVICE, "env": { "X": x } } }))
}

fn starts(site: &Site) -> Vec<String> {
    fs::read_to_string(site.at("starts")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Waits until so many lines are noted: a process that has just been started may not have come to it yet.
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

    // How it is stopped is no reason to restart it.
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

#[tokio::test]
async fn one_that_ends_at_once_has_failed_to_start() {
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
    // One that the ledger knows is tried again; meanwhile no record names an id that may pass to another process.
    let mut gone = missing.clone();
    gone.params = spec(json!({ "process": { "run": ["/no/such"] } })).params;
    assert!(site.update(&missing, &gone).await.unwrap_err().starts_with("cannot start `/no/such`: No such file"));
    assert_eq!(fs::read_dir(site.state("process")).unwrap().count(), 0);
    assert_eq!(site.remove(&gone).await, UNCHANGED);
    // What is unknown to the ledger is not tried again behind its back.
    assert!(site.host.processes().is_empty());
    assert_eq!(fs::read_dir(site.state("process")).unwrap().count(), 0);
}

#[tokio::test]
async fn one_that_ends_is_started_again_with_back_off() {
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

    // While it is down it is not so; to reload it is to start it.
    signal(only(&site).pid, Signal::SIGKILL);
    until(|| site.host.processes().is_empty()).await;
    assert_eq!(site.trigger(&spec, Effect::Reload).await, effected(Effect::Reload));
    assert_eq!(only(&site).restarts, 0);
    site.host.stop_processes().await;
}

#[tokio::test]
async fn its_whole_group_is_stopped() {
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
async fn adopted_after_the_agent_died() {
    let site = Site::new();
    let spec = service("a");
    site.create(&spec).await.unwrap();
    let before = only(&site);
    noted(&site, 1).await;
    // A process between two records: as if the agent had died right after the fork.
    let record = site.state("process/svc.task.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    for intent_only in [false, true] {
        if intent_only {
            text.as_object_mut().unwrap().remove("identity");
            fs::write(&record, text.to_string()).unwrap();
        }
        let next =
            Site { host: Site::host(&site.dir), dir: tempfile::tempdir().unwrap(), memories: Default::default() };
        next.host.adopt(&[(id("svc.task"), spec.params.clone())]).await;
        assert_eq!(only(&next).pid, before.pid);
        assert_eq!(next.create(&spec).await, UNCHANGED);
        // Unknown to the ledger, it is known all the same.
        let next = Site { host: Site::host(&site.dir), dir: next.dir, memories: next.memories };
        next.host.adopt(&[]).await;
        assert_eq!(only(&next).pid, before.pid);
    }
    assert_eq!(starts(&site), ["start a"]);

    // The adopter supervises it like one of its own.
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
async fn what_does_not_run_is_started_at_the_agents_start() {
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

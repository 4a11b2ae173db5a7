//! `reboot`, with fakes of the programs that reboot a host. The real ones are not in the path.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;
use crate::host::{cancel::Canceller, job::Notes};

/// A host in that boot. Its root is `/`, because only a whole machine can be rebooted.
fn booted(dir: &TempDir, boot: &str) -> Host {
    let [bin, state] = ["bin", "state"].map(|name| dir.path().join(name));
    fs::create_dir_all(&bin).unwrap();
    for name in ["systemctl", "reboot"] {
        fs::write(bin.join(name), format!("#!/bin/sh\necho {name} $* >> {}/asked\n", dir.path().display())).unwrap();
        fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut settings = Settings::new("/".into(), state, "lab".parse().unwrap(), "n0".parse().unwrap());
    settings.boot = boot.to_owned();
    let mut host = Host::new(settings).unwrap();
    host.environment.env.insert("PATH".to_owned(), bin.into());
    host
}

fn requested(dir: &TempDir) -> usize {
    let requests = fs::read_to_string(dir.path().join("asked")).unwrap_or_default();
    let _ = fs::remove_file(dir.path().join("asked"));
    requests.lines().filter(|line| line.ends_with("reboot") || *line == "reboot ").count()
}

fn reboot(params: Value) -> TaskSpec {
    spec(json!({ "reboot": params }))
}

/// Runs a job of the task until the host goes down, and then stops the agent, as the init system would.
async fn until_down(host: &Host, mut job: Job, memory: Option<Value>) -> Finished {
    job.memory = memory;
    let canceller = Canceller::new();
    let (finished, ()) = tokio::join!(host.run(job, canceller.listen()), async {
        until(|| host.is_going_down()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        canceller.cancel();
    });
    assert_eq!(finished.result, Err(INTERRUPTED.to_owned()), "a reboot does not succeed in the boot in which it began");
    finished
}

async fn done(host: &Host, job: Job) -> Finished {
    host.run(job, Cancel::never()).await
}

const INTERRUPTED: &str =
    "interrupted before the host went down, because the agent stops; the task runs again when it is back";

fn create(spec: &TaskSpec) -> Job {
    job("svc.task", apply(spec, None), None, None)
}

fn again(spec: &TaskSpec, notes: &Notes) -> Job {
    job("svc.task", apply(spec, Some(spec)), None, notes.memory.clone())
}

fn trigger(spec: &TaskSpec, notes: &Notes) -> Job {
    job("svc.task", Work::Trigger { spec: spec.clone() }, Some(Effect::Run), notes.memory.clone())
}

#[tokio::test]
async fn reboots_once_and_continues_in_the_next_boot() {
    let dir = tempfile::tempdir().unwrap();
    let spec = reboot(json!({}));
    until_down(&booted(&dir, "one"), create(&spec), None).await;
    assert_eq!(requested(&dir), 1);

    let two = booted(&dir, "two");
    let finished = done(&two, create(&spec)).await;
    assert_eq!(finished.result, CHANGED);
    assert_eq!(finished.output.unwrap().head, "the host has been down and is back\n");
    // An agent that was killed before its ledger had the result comes to the same result again.
    let finished = done(&booted(&dir, "two"), create(&spec)).await;
    assert_eq!(finished.result, CHANGED);
    // Applied again in this boot or in a later one, it is in sync.
    assert_eq!(done(&two, again(&spec, &finished.notes)).await.result, UNCHANGED);
    assert_eq!(done(&booted(&dir, "three"), again(&spec, &finished.notes)).await.result, UNCHANGED);
    assert_eq!(requested(&dir), 0);

    // A trigger reboots the host once more.
    let three = booted(&dir, "three");
    until_down(&three, trigger(&spec, &finished.notes), finished.notes.memory.clone()).await;
    assert_eq!(requested(&dir), 1);
    let finished = done(&booted(&dir, "four"), trigger(&spec, &finished.notes)).await;
    assert_eq!(finished.result, effected(Effect::Run));
    assert_eq!(requested(&dir), 0);
    let changed = reboot(json!({ "unless": "test -e /nonexistent" }));
    until_down(&booted(&dir, "four"), again(&changed, &finished.notes), finished.notes.memory.clone()).await;
    assert_eq!(requested(&dir), 1);
    assert_eq!(
        done(&booted(&dir, "five"), job("svc.task", Work::Remove { spec: changed }, None, None)).await.result,
        UNCHANGED
    );
    assert_eq!(fs::read_dir(dir.path().join("state/reboot")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_interrupted_reboot_is_requested_again() {
    let dir = tempfile::tempdir().unwrap();
    let spec = reboot(json!({}));
    // The agent was killed between marker and reboot: the same boot.
    until_down(&booted(&dir, "one"), create(&spec), None).await;
    until_down(&booted(&dir, "one"), create(&spec), None).await;
    assert_eq!(requested(&dir), 2);
    // A marker of which only a part was written.
    fs::write(dir.path().join("state/reboot/svc.task.json"), "{\"boot\":\"on").unwrap();
    until_down(&booted(&dir, "two"), create(&spec), None).await;
    assert_eq!(requested(&dir), 1);
    // The reboot before had other parameters: it does not count for these.
    let other = reboot(json!({ "only_if": "true" }));
    until_down(&booted(&dir, "three"), create(&other), None).await;
    assert_eq!(requested(&dir), 1);
    // A newer plan, and a change since the host is back: the last reboot did not serve that change.
    let four = booted(&dir, "four");
    let newer = Job { plan: Generation(2), ..create(&other) };
    let change = job("svc.other", apply(&command("true"), None), None, None);
    assert_eq!(done(&four, change).await.result, CHANGED);
    until_down(&four, newer.clone(), None).await;
    assert_eq!(requested(&dir), 1);
    // Without a change, the last reboot counts.
    assert_eq!(done(&booted(&dir, "five"), Job { plan: Generation(3), ..newer }).await.result, CHANGED);
    assert_eq!(requested(&dir), 0);
}

#[tokio::test]
async fn guards_prevent_the_reboot() {
    let dir = tempfile::tempdir().unwrap();
    let host = booted(&dir, "one");
    for params in [
        json!({ "unless": "true" }),
        json!({ "only_if": "false" }),
        json!({ "needed": true }),
        json!({ "needed": false, "only_if": ["/bin/sh", "-c", "exit 3"] }),
    ] {
        let spec = reboot(params.clone());
        let finished = done(&host, create(&spec)).await;
        assert_eq!(finished.result, UNCHANGED, "{params}");
        assert_eq!(done(&host, again(&spec, &finished.notes)).await.result, UNCHANGED, "{params}");
        assert_eq!(done(&host, trigger(&spec, &finished.notes)).await.result, UNCHANGED, "{params}");
    }
    assert_eq!(requested(&dir), 0);
}

#[tokio::test]
async fn other_tasks_end_before_and_none_begins() {
    let dir = tempfile::tempdir().unwrap();
    let host = booted(&dir, "one");
    let canceller = Canceller::new();
    let file = |name: &str| dir.path().join(name);
    let line = |line: String| create(&command(&line));
    let before = Job { task: id("svc.before"), ..line(format!("/bin/sleep 0.3; echo > {}", file("before").display())) };
    let after = Job { task: id("svc.after"), ..line(format!("echo > {}", file("after").display())) };
    let (before, finished, after, ()) = tokio::join!(
        done(&host, before),
        host.run(create(&reboot(json!({ "delay": "100ms" }))), canceller.listen()),
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            host.run(after, canceller.listen()).await
        },
        async {
            until(|| host.is_going_down()).await;
            assert!(file("before").exists());
            canceller.cancel();
        },
    );
    assert_eq!(before.result, CHANGED);
    assert_eq!(finished.result, Err(INTERRUPTED.to_owned()));
    assert!(finished.begun && !after.begun && !file("after").exists());
    assert_eq!(after.result, Err("cancelled before it began".to_owned()));
}

#[tokio::test]
async fn a_host_that_stays_up_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let host = booted(&dir, "one");
    let finished = done(&host, create(&reboot(json!({ "timeout": "200ms" })))).await;
    let error = "the host did not go down within 200ms; is something holding it up? See `systemctl list-jobs`";
    assert_eq!(finished.result, Err(error.to_owned()));
    assert!(!dir.path().join("state/reboot/svc.task.json").exists());
    assert!(!host.is_going_down());
    for name in ["systemctl", "reboot"] {
        fs::write(dir.path().join("bin").join(name), "#!/bin/sh\necho no bus >&2\nexit 1\n").unwrap();
    }
    let error = done(&host, create(&reboot(json!({})))).await.result.unwrap_err();
    assert!(error.ends_with("exited with 1: no bus"), "{error}");
    assert!(!dir.path().join("state/reboot/svc.task.json").exists());
    // Other tasks continue.
    assert_eq!(done(&host, create(&command("true"))).await.result, CHANGED);

    let error = Site::new().create(&reboot(json!({}))).await.unwrap_err();
    assert!(error.contains("acts on the host as a whole"), "{error}");
}

#[tokio::test]
async fn what_acts_on_the_host_as_a_whole_is_skipped_where_that_is_configured() {
    let mut site = Site::new();
    site.host.skip_host_kinds = true;
    let kinds = [
        ("reboot", json!({})),
        ("package", json!({ "names": ["nginx"] })),
        ("systemd", json!({ "unit": "ssh.service", "state": "stopped" })),
        ("container", json!({ "name": "web", "image": "docker.io/nginx:1" })),
        ("pod", json!({ "name": "web", "containers": [{ "name": "web", "image": "docker.io/nginx:1" }] })),
        ("image", json!({ "name": "docker.io/nginx:1" })),
        ("user", json!({ "name": "ann" })),
        ("group", json!({ "name": "staff" })),
        ("hostname", json!({ "name": "web" })),
        ("sysctl", json!({ "net.ipv4.ip_forward": 1 })),
        ("module", json!({ "name": "br_netfilter" })),
        ("mount", json!({ "path": "/mnt", "source": "tmpfs", "fstype": "tmpfs" })),
        ("cron", json!({ "schedule": "@daily", "run": "true" })),
        ("selinux", json!({ "boolean": "httpd_can_network_connect", "value": true })),
    ];
    for (kind, params) in kinds {
        let spec = spec(json!({ kind: params }));
        for work in [apply(&spec, None), Work::Remove { spec: spec.clone() }, Work::Trigger { spec: spec.clone() }] {
            let finished = site.job("svc.task", work, None).await;
            assert_eq!(finished.result, UNCHANGED, "{kind}");
            let output = finished.output.expect("why").head;
            assert!(output.starts_with(&format!("skipped: `{kind}` acts on the host as a whole")), "{output}");
        }
        assert_eq!(site.check(&spec).await, CheckResult::LeftOut, "{kind}");
        assert_eq!(site.host.watched_unit(&spec.params), None, "{kind}");
    }
    // All else is carried out below the root.
    assert_eq!(site.create(&command("true")).await, CHANGED);
}

//! `systemd`, with a fake `systemctl` that keeps one unit's state in files and logs the requests that it gets.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::{drift::differences, *};

const SYSTEMCTL: &str = r#"#!/bin/sh
cd "$GROUNDPLAN_ROOT" || exit 9
shift 2
case "$1" in
show)
    case "$*" in *@.*) exit 1;; esac
    for p in LoadState ActiveState UnitFileState NeedDaemonReload Type WantedBy; do echo "$p=$(cat $p 2> /dev/null)"; done
    exit;;
reset-failed) exit;;
esac
echo "$*" >> requests
case "$1" in
daemon-reload)
    echo no > NeedDaemonReload
    if grep -q broken etc/systemd/system/x.service 2> /dev/null; then echo bad-setting; else cat good; fi > LoadState;;
mask) echo masked > LoadState;;
unmask) cat good > LoadState;;
start) cat after-start > ActiveState;;
restart|reload-or-restart) echo active > ActiveState;;
stop) echo inactive > ActiveState;;
enable) echo enabled > UnitFileState;;
disable) echo disabled > UnitFileState;;
esac
"#;

fn site(states: [&str; 4]) -> Site {
    let mut site = Site::new();
    let bin = site.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("systemctl"), SYSTEMCTL).unwrap();
    fs::set_permissions(bin.join("systemctl"), PermissionsExt::from_mode(0o755)).unwrap();
    for (name, state) in ["LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload"].iter().zip(states) {
        fs::write(site.at(name), state).unwrap();
    }
    fs::write(site.at("after-start"), "active").unwrap();
    let good = if states[0] == "none" { "loaded" } else { states[0] };
    fs::write(site.at("good"), good).unwrap();
    if states[0] == "none" {
        fs::write(site.at("LoadState"), "not-found").unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", bin.display());
    site.host.environment.env.insert("PATH".to_owned(), path.into());
    site.host.is_whole_host = true;
    site
}

fn requests(site: &Site) -> Vec<String> {
    let requests = fs::read_to_string(site.at("requests")).unwrap_or_default();
    let _ = fs::remove_file(site.at("requests"));
    requests.lines().map(str::to_owned).collect()
}

fn unit(enabled: Option<bool>, state: &str) -> TaskSpec {
    spec(json!({ "systemd": { "unit": "x.service", "enabled": enabled, "state": state } }))
}

#[tokio::test]
async fn started_enabled_restarted_removed() {
    let site = site(["loaded", "inactive", "disabled", "yes"]);
    let up = unit(Some(true), "started");
    assert_eq!(site.job("svc.task", apply(&up, None), Some(Effect::Restart)).await.result, CHANGED);
    assert_eq!(requests(&site), ["daemon-reload", "enable x.service", "start x.service"]);
    assert_eq!(site.create(&up).await, UNCHANGED);
    assert!(requests(&site).is_empty());

    // It was running before, so the restart is still due.
    let finished = site.job("svc.task", apply(&up, None), Some(Effect::Restart)).await;
    assert_eq!(finished.result, effected(Effect::Restart));
    assert_eq!(site.trigger(&up, Effect::Reload).await, effected(Effect::Reload));
    assert_eq!(requests(&site), ["restart x.service", "reload-or-restart x.service"]);

    let down = unit(Some(false), "stopped");
    assert_eq!(site.update(&up, &down).await, CHANGED);
    assert_eq!(requests(&site), ["disable x.service", "stop x.service"]);
    assert_eq!(site.trigger(&down, Effect::Restart).await, UNCHANGED);
    assert_eq!(site.update(&down, &up).await, CHANGED);
    requests(&site);
    assert_eq!(site.remove(&up).await, CHANGED);
    assert_eq!(requests(&site), ["stop x.service", "disable x.service"]);
    assert_eq!(site.remove(&up).await, UNCHANGED);
}

#[tokio::test]
async fn reports_why_a_unit_cannot_be_started() {
    let up = unit(None, "started");
    for (states, error) in [
        (["not-found", "inactive", "", "no"], "there is no unit x.service on this host"),
        (["masked", "inactive", "masked", "no"], "the unit x.service is masked; `masked = false` unmasks it"),
        (["bad-setting", "inactive", "", "no"], "the unit x.service could not be loaded: bad-setting"),
    ] {
        assert_eq!(site(states).create(&up).await, Err(error.to_owned()));
    }
    let site = site(["loaded", "inactive", "static", "no"]);
    fs::write(site.at("after-start"), "failed").unwrap();
    let error = "the unit x.service failed right after its start; see `journalctl -u x.service`";
    assert_eq!(site.create(&up).await, Err(error.to_owned()));
    fs::write(site.at("after-start"), "active").unwrap();
    let error = "the unit x.service cannot be enabled: it has no [Install] section, and no unit pulls it in; \
                 give it `WantedBy=` in a drop-in, or leave `enabled` out";
    assert_eq!(site.create(&unit(Some(true), "started")).await, Err(error.to_owned()));
    fs::write(site.at("WantedBy"), "multi-user.target").unwrap();
    assert_eq!(site.create(&unit(Some(true), "started")).await, CHANGED);
    assert_eq!(site.create(&unit(Some(true), "started")).await, UNCHANGED);

    let mut bare = Site::new();
    bare.host.is_whole_host = true;
    bare.host.environment.env.insert("PATH".to_owned(), "/nowhere".into());
    let error = "this host has no systemctl and so no systemd; use `process` or `command` instead";
    assert_eq!(bare.create(&up).await, Err(error.to_owned()));
    assert_eq!(bare.remove(&up).await, UNCHANGED);
}

/// A unit that ships its file and drop-ins.
fn shipping(content: Option<&str>, more: Value) -> TaskSpec {
    let mut params = json!({ "unit": "x.service" });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    TaskSpec { content: content.map(|c| Shipped::of(c.as_bytes())), ..spec(json!({ "systemd": params })) }
}

/// Runs jobs of one task and keeps its memory between them.
struct TaskMemory(Option<Value>);

impl TaskMemory {
    async fn job(&mut self, site: &Site, work: Work, effect: Option<Effect>) -> Result<JobOutcome, String> {
        let job = job("svc.task", work, effect, self.0.clone());
        let finished = site.host.run(job, Cancel::never()).await;
        self.0 = finished.notes.memory.or(self.0.take());
        finished.result
    }
}

#[tokio::test]
async fn a_shipped_unit_is_read_once_and_restarted_once() {
    let site = site(["none", "inactive", "disabled", "no"]);
    let mut memory = TaskMemory(None);
    let [one, two] = ["[Service]\nExecStart=/one\n", "[Service]\nExecStart=/two\n"]
        .map(|content| shipping(Some(content), json!({ "enabled": true })));
    assert_eq!(memory.job(&site, apply(&one, None), Some(Effect::Restart)).await, CHANGED);
    assert_eq!(requests(&site), ["daemon-reload", "enable x.service", "start x.service"]);
    assert_eq!(memory.job(&site, apply(&one, Some(&one)), None).await, UNCHANGED);
    assert!(requests(&site).is_empty());
    // A trigger that fires together with the task's own change does not restart the unit twice.
    assert_eq!(memory.job(&site, apply(&two, Some(&one)), Some(Effect::Restart)).await, CHANGED);
    assert_eq!(requests(&site), ["daemon-reload", "reenable x.service", "restart x.service"]);
    assert!(!site.at("run/groundplan/restart/x.service").exists());

    // If the agent is interrupted between the change and the restart, the unit is restarted later.
    fs::write(site.at("run/groundplan/restart/x.service"), "").unwrap();
    assert_eq!(memory.job(&site, apply(&two, Some(&two)), None).await, CHANGED);
    assert_eq!(requests(&site), ["restart x.service"]);

    assert_eq!(memory.job(&site, Work::Remove { spec: two }, None).await, CHANGED);
    assert_eq!(requests(&site), ["stop x.service", "disable x.service", "daemon-reload"]);
    assert!(!site.at("etc/systemd/system/x.service").exists());
}

#[tokio::test]
async fn drop_ins_come_and_go() {
    let site = site(["loaded", "active", "enabled", "no"]);
    let mut memory = TaskMemory(None);
    let folder = site.at("etc/systemd/system/x.service.d");
    let limits = |name: &str, limit: u32| {
        shipping(None, json!({ "dropins": { name: format!("[Service]\nLimitNOFILE={limit}") }, "on_change": "reload" }))
    };
    let (one, two) = (limits("10-one.conf", 1), limits("10-two.conf", 1));
    assert_eq!(memory.job(&site, apply(&one, None), None).await, CHANGED);
    assert_eq!(requests(&site), ["daemon-reload", "reload-or-restart x.service"]);
    let text = "# Written by groundplan: changes made here are undone.\n[Service]\nLimitNOFILE=1\n";
    assert_eq!(fs::read_to_string(folder.join("10-one.conf")).unwrap(), text);
    fs::write(folder.join("99-theirs.conf"), "[Service]\n").unwrap();
    assert_eq!(memory.job(&site, apply(&two, Some(&one)), None).await, CHANGED);
    assert_eq!(requests(&site), ["daemon-reload", "reload-or-restart x.service"]);
    let names = |folder: &std::path::Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&folder), ["10-two.conf", "99-theirs.conf"]);
    // It was running before the task existed: it keeps running, without the drop-ins of the task.
    assert_eq!(memory.job(&site, Work::Remove { spec: two.clone() }, None).await, CHANGED);
    assert_eq!(requests(&site), ["daemon-reload", "restart x.service"]);
    assert_eq!(names(&folder), ["99-theirs.conf"]);
    fs::remove_file(folder.join("99-theirs.conf")).unwrap();
    // Of a task that ships none any more, the empty folder does not stay.
    let none = shipping(None, json!({ "on_change": "reload" }));
    assert_eq!(memory.job(&site, apply(&two, None), None).await, CHANGED);
    assert_eq!(memory.job(&site, apply(&none, Some(&two)), None).await, CHANGED);
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_drop_in_that_a_task_left_is_found_by_the_next_one() {
    let site = site(["loaded", "active", "enabled", "no"]);
    let mut memory = TaskMemory(None);
    let folder = site.at("etc/systemd/system/x.service.d");
    fs::create_dir_all(&folder).unwrap();
    let left = "# Written by groundplan: changes made here are undone.\n[Service]\nNice=1\n";
    fs::write(folder.join("10-x.conf"), left).unwrap();
    let read = || fs::read_to_string(folder.join("10-x.conf")).unwrap_or_default();
    let [without, with] = [json!({}), json!({ "dropins": { "10-x.conf": "[Service]\nNice=2" } })];
    let [without, with] = [without, with].map(|more| shipping(Some("[Service]\n# ours\n"), more));
    assert_eq!(memory.job(&site, apply(&without, None), None).await, CHANGED);
    assert_eq!(read(), left);
    // In the way of the task's own, it comes back once the task has no such drop-in any more.
    assert_eq!(memory.job(&site, apply(&with, Some(&without)), None).await, CHANGED);
    assert!(read().contains("Nice=2"));
    assert_eq!(memory.job(&site, apply(&without, Some(&with)), None).await, CHANGED);
    assert_eq!(read(), left);
    assert_eq!(memory.job(&site, apply(&without, Some(&without)), None).await, UNCHANGED);
    assert_eq!(memory.job(&site, Work::Remove { spec: without }, None).await, CHANGED);
    assert_eq!(read(), left);
}

#[tokio::test]
async fn a_removal_that_was_killed_restarts_what_runs_with_files_that_are_gone() {
    let site = site(["loaded", "active", "enabled", "no"]);
    let mut memory = TaskMemory(None);
    let path = site.at("etc/systemd/system/x.service");
    let spec = shipping(Some("[Service]\n# ours\n"), json!({}));
    assert_eq!(memory.job(&site, apply(&spec, None), None).await, CHANGED);
    requests(&site);
    // Killed after the file went and before systemd read its files again.
    fs::remove_file(&path).unwrap();
    let noted = site.at("run/groundplan/restart/x.service");
    fs::create_dir_all(noted.parent().unwrap()).unwrap();
    fs::write(&noted, "").unwrap();
    assert_eq!(memory.job(&site, Work::Remove { spec }, None).await, CHANGED);
    assert_eq!(requests(&site), ["daemon-reload", "restart x.service"]);
    assert!(!noted.exists());
}

#[tokio::test]
async fn a_broken_unit_file_is_rolled_back() {
    let site = site(["loaded", "active", "enabled", "no"]);
    let mut memory = TaskMemory(None);
    let path = site.at("etc/systemd/system/x.service");
    let good = shipping(Some("[Service]\n# good\n"), json!({}));
    assert_eq!(memory.job(&site, apply(&good, None), None).await, CHANGED);
    requests(&site);
    let broken = shipping(Some("[Service]\n# broken\n"), json!({}));
    let error = memory.job(&site, apply(&broken, Some(&good)), None).await.unwrap_err();
    assert!(
        error.starts_with("systemd cannot load the new files of x.service, and they were rolled back: "),
        "{error}"
    );
    assert_eq!(requests(&site), ["daemon-reload", "daemon-reload"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "[Service]\n# good\n");
    assert!(!site.at("run/groundplan/restart/x.service").exists());
    assert_eq!(memory.job(&site, apply(&good, Some(&broken)), None).await, UNCHANGED);
}

#[tokio::test]
async fn masked_and_templates_and_oneshots() {
    let site = site(["loaded", "active", "enabled", "no"]);
    let masked = shipping(None, json!({ "masked": true }));
    assert_eq!(site.create(&masked).await, CHANGED);
    assert_eq!(requests(&site), ["stop x.service", "mask x.service"]);
    assert_eq!(site.create(&masked).await, UNCHANGED);
    let unmasked = shipping(None, json!({ "masked": false }));
    assert_eq!(site.create(&unmasked).await, CHANGED);
    assert_eq!(requests(&site), ["unmask x.service", "start x.service"]);

    // A oneshot unit runs when the task is created, and counts as done from then on.
    fs::write(site.at("Type"), "oneshot").unwrap();
    fs::write(site.at("ActiveState"), "inactive").unwrap();
    fs::write(site.at("after-start"), "inactive").unwrap();
    let unit = unit(None, "started");
    assert_eq!(site.create(&unit).await, CHANGED);
    assert_eq!(requests(&site), ["start x.service"]);
    assert_eq!(site.update(&unit, &unit).await, UNCHANGED);
    fs::write(site.at("ActiveState"), "failed").unwrap();
    assert_eq!(site.update(&unit, &unit).await, CHANGED);
    requests(&site);

    // A template is a file, not a unit.
    let template =
        TaskSpec { content: Some(Shipped::of(b"[Service]\n")), ..spec(json!({ "systemd": { "unit": "y@.service" } })) };
    assert_eq!(site.create(&template).await, CHANGED);
    assert_eq!(requests(&site), ["daemon-reload"]);
    assert_eq!(site.trigger(&template, Effect::Restart).await, UNCHANGED);
    assert_eq!(site.create(&template).await, UNCHANGED);
    assert!(requests(&site).is_empty());
}

#[tokio::test]
async fn drift_checks_report_units_and_shipped_files() {
    let site = site(["loaded", "inactive", "disabled", "no"]);
    let up = unit(Some(true), "started");
    site.create(&up).await.unwrap();
    requests(&site);
    assert_eq!(site.check(&up).await, CheckResult::InSync);
    fs::write(site.at("ActiveState"), "failed").unwrap();
    fs::write(site.at("UnitFileState"), "disabled").unwrap();
    assert_eq!(differences(site.check(&up).await), ["active: active -> failed", "enabled: enabled -> disabled"]);
    fs::write(site.at("LoadState"), "not-found").unwrap();
    assert_eq!(differences(site.check(&up).await), ["unit x.service: present -> -"]);
    assert!(requests(&site).is_empty(), "a check changes nothing");

    // The shipped files, of which the ledger has only the digest.
    let site = systemd::site(["none", "inactive", "disabled", "no"]);
    let dropins = json!({ "unit": "x.service", "dropins": { "a.conf": "[Service]\n" } });
    let shipped = TaskSpec { content: Some(Shipped::of(b"[Service]\n")), ..spec(json!({ "systemd": dropins })) };
    site.create(&shipped).await.unwrap();
    assert_eq!(site.check(&shipped).await, CheckResult::InSync);
    let path = "/etc/systemd/system/x.service";
    fs::write(site.at(path), "[Unit]\n").unwrap();
    fs::write(site.at("/etc/systemd/system/x.service.d/a.conf"), "[Unit]\n").unwrap();
    fs::write(site.at("NeedDaemonReload"), "yes").unwrap();
    let expected = [
        format!("{path}: content: \"[Unit]\\n\""),
        format!("{path}.d/a.conf: content: - -> something else"),
        "loaded: as on the disk -> as before its files changed".to_owned(),
    ];
    assert_eq!(differences(site.check(&shipped).await), expected);
    let unnamed = TaskSpec { content: None, ..shipped };
    assert_eq!(site.check(&unnamed).await, CheckResult::LeftOut, "applied by an agent that recorded no digest");
}

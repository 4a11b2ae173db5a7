//! `systemd`, against a stand-in for `systemctl` that keeps one unit's state in files and notes what it is asked.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;

const SYSTEMCTL: &str = r#"#!/bin/sh
cd "$GROUNDPLAN_ROOT" || exit 9
shift 2
case "$1" in
show)
    for p in LoadState ActiveState UnitFileState NeedDaemonReload; do echo "$p=$(cat $p)"; done
    exit;;
esac
echo "$*" >> asked
case "$1" in
daemon-reload) echo no > NeedDaemonReload;;
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
    let path = format!("{}:/usr/bin:/bin", bin.display());
    site.host.surroundings.env.insert("PATH".to_owned(), path.into());
    site
}

fn asked(site: &Site) -> Vec<String> {
    let asked = fs::read_to_string(site.at("asked")).unwrap_or_default();
    let _ = fs::remove_file(site.at("asked"));
    asked.lines().map(str::to_owned).collect()
}

fn unit(enabled: Option<bool>, state: &str) -> TaskSpec {
    spec(json!({ "systemd": { "unit": "x.service", "enabled": enabled, "state": state } }))
}

#[tokio::test]
async fn started_enabled_restarted_removed() {
    let site = site(["loaded", "inactive", "disabled", "yes"]);
    let up = unit(Some(true), "started");
    assert_eq!(site.job("svc.task", apply(&up, None), Some(Effect::Restart)).await.result, CHANGED);
    assert_eq!(asked(&site), ["daemon-reload", "enable x.service", "start x.service"]);
    assert_eq!(site.create(&up).await, UNCHANGED);
    assert!(asked(&site).is_empty());

    // It runs already, so that a restart is still owed.
    let finished = site.job("svc.task", apply(&up, None), Some(Effect::Restart)).await;
    assert_eq!(finished.result, effected(Effect::Restart));
    assert_eq!(site.trigger(&up, Effect::Reload).await, effected(Effect::Reload));
    assert_eq!(asked(&site), ["restart x.service", "reload-or-restart x.service"]);

    let down = unit(Some(false), "stopped");
    assert_eq!(site.update(&up, &down).await, CHANGED);
    assert_eq!(asked(&site), ["disable x.service", "stop x.service"]);
    assert_eq!(site.trigger(&down, Effect::Restart).await, UNCHANGED);
    assert_eq!(site.update(&down, &up).await, CHANGED);
    asked(&site);
    assert_eq!(site.remove(&up).await, CHANGED);
    assert_eq!(asked(&site), ["stop x.service", "disable x.service"]);
    assert_eq!(site.remove(&up).await, UNCHANGED);
}

#[tokio::test]
async fn what_cannot_be_is_said() {
    let up = unit(None, "started");
    for (states, error) in [
        (["not-found", "inactive", "", "no"], "there is no unit x.service on this host"),
        (
            ["masked", "inactive", "masked", "no"],
            "the unit x.service is masked; `systemctl unmask x.service` lets it be started",
        ),
        (["bad-setting", "inactive", "", "no"], "the unit x.service could not be loaded: bad-setting"),
    ] {
        assert_eq!(site(states).create(&up).await, Err(error.to_owned()));
    }
    let site = site(["loaded", "inactive", "static", "no"]);
    fs::write(site.at("after-start"), "failed").unwrap();
    let error = "the unit x.service failed right after its start; see `journalctl -u x.service`";
    assert_eq!(site.create(&up).await, Err(error.to_owned()));
    fs::write(site.at("after-start"), "active").unwrap();
    assert_eq!(site.create(&unit(Some(true), "started")).await, CHANGED);
    assert_eq!(site.create(&unit(Some(true), "started")).await, UNCHANGED);

    let mut bare = Site::new();
    bare.host.surroundings.env.insert("PATH".to_owned(), "/nowhere".into());
    let error = "this host has no systemctl and so no systemd; use `process` or `command` instead";
    assert_eq!(bare.create(&up).await, Err(error.to_owned()));
    assert_eq!(bare.remove(&up).await, UNCHANGED);
}

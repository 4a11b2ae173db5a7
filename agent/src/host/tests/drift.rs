//! Drift checks: what they report, and that they change nothing.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
};

use groundplan_protocol::{blob::INLINE_LIMIT, drift::Difference};

use super::*;

/// The differences, each as `what: expected -> found`, or with the text or the length of the content found.
pub(super) fn differences(result: CheckResult) -> Vec<String> {
    let CheckResult::Drifted(differences) = result else { return vec![format!("{result:?}")] };
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let line = |Difference { what, expected, found, content }: &Difference| match content {
        Some(Shipped::Text(content)) => format!("{what}: {content:?}"),
        Some(Shipped::Blob(blob)) => {
            format!("{what}: {} bytes{}", blob.size, if found.is_some() { ", hidden" } else { "" })
        }
        _ => format!("{what}: {} -> {}", text(expected), text(found)),
    };
    differences.iter().map(line).collect()
}

#[tokio::test]
async fn reports_an_edited_file() {
    let site = Site::new();
    let spec = file("/etc/app.conf", "one\n");
    site.create(&spec).await.unwrap();
    assert_eq!(site.check(&spec).await, CheckResult::InSync);
    let path = site.at("/etc/app.conf");
    fs::write(&path, "two\n").unwrap();
    assert_eq!(differences(site.check(&spec).await), ["content: \"two\\n\""]);
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    assert_eq!(differences(site.check(&spec).await), ["content: \"two\\n\"", "mode: 0644 -> 0666"]);
    fs::write(&path, "one\n").unwrap();
    assert_eq!(differences(site.check(&spec).await), ["mode: 0644 -> 0666"]);
    fs::write(&path, "x".repeat(INLINE_LIMIT + 1)).unwrap();
    assert_eq!(differences(site.check(&spec).await)[0], format!("content: {} bytes", INLINE_LIMIT + 1));

    // Content that only its owner may read stays on the node.
    fs::write(&path, "secret").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(differences(site.check(&spec).await), ["content: 6 bytes, hidden", "mode: 0644 -> 0600"]);

    fs::remove_file(&path).unwrap();
    assert_eq!(differences(site.check(&spec).await), ["file: present -> -"]);
    symlink("elsewhere", &path).unwrap();
    assert_eq!(differences(site.check(&spec).await), ["file: present -> a symbolic link"]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(differences(site.check(&spec).await), ["file: present -> directory"]);
    assert!(path.is_dir(), "a check repairs nothing");

    let unnamed = TaskSpec { content: None, ..spec };
    assert_eq!(site.check(&unnamed).await, CheckResult::LeftOut, "applied by an agent that recorded no digest");
}

#[tokio::test]
async fn reports_another_owner() {
    if !is_root() {
        eprintln!("SKIPPED: only root may change owners");
        return;
    }
    let site = Site::new();
    let spec = file("/x", "one\n");
    site.create(&spec).await.unwrap();
    std::os::unix::fs::chown(site.at("/x"), Some(1), Some(4_000_000)).unwrap();
    assert_eq!(differences(site.check(&spec).await), ["owner: root -> daemon", "group: root -> 4000000"]);
}

#[tokio::test]
async fn reports_directories_and_links() {
    let site = Site::new();
    let directory = spec(json!({ "directory": { "path": "/srv/app", "mode": "0750" } }));
    site.create(&directory).await.unwrap();
    assert_eq!(site.check(&directory).await, CheckResult::InSync);
    let path = site.at("/srv/app");
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    assert_eq!(differences(site.check(&directory).await), ["mode: 0750 -> 0700"]);
    fs::rename(&path, site.at("/srv/moved")).unwrap();
    assert_eq!(differences(site.check(&directory).await), ["directory: present -> -"]);
    symlink("moved", &path).unwrap();
    assert_eq!(
        differences(site.check(&directory).await),
        ["mode: 0750 -> 0700"],
        "a link to a directory counts as a directory"
    );
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    assert_eq!(differences(site.check(&directory).await), ["directory: present -> file"]);

    let link = spec(json!({ "link": { "path": "/l", "target": "/srv/app" } }));
    site.create(&link).await.unwrap();
    assert_eq!(site.check(&link).await, CheckResult::InSync);
    fs::remove_file(site.at("/l")).unwrap();
    assert_eq!(differences(site.check(&link).await), ["link: /srv/app -> -"]);
    symlink("/other", site.at("/l")).unwrap();
    assert_eq!(differences(site.check(&link).await), ["link: /srv/app -> /other"]);
    fs::remove_file(site.at("/l")).unwrap();
    fs::write(site.at("/l"), "").unwrap();
    assert_eq!(differences(site.check(&link).await), ["link: /srv/app -> file"]);
}

#[tokio::test]
async fn checks_only_commands_whose_guard_describes_their_result() {
    let site = Site::new();
    assert_eq!(site.check(&command("true")).await, CheckResult::LeftOut);
    let only = spec(json!({ "command": { "run": "false", "only_if": "true" } }));
    assert_eq!(site.check(&only).await, CheckResult::LeftOut);
    let creates = spec(json!({ "command": { "run": "touch $GROUNDPLAN_ROOT/made", "creates": "/made" } }));
    site.create(&creates).await.unwrap();
    assert_eq!(site.check(&creates).await, CheckResult::InSync);
    fs::remove_file(site.at("/made")).unwrap();
    assert_eq!(differences(site.check(&creates).await), ["/made: present -> -"]);
    assert!(!site.at("/made").exists(), "it was not run");
    let unless = spec(json!({ "command": { "run": "true", "unless": "test -e $GROUNDPLAN_ROOT/made" } }));
    let what = "unless: exits with 0 -> does not";
    assert_eq!(differences(site.check(&unless).await), [what]);
    let broken = spec(json!({ "command": { "run": "true", "unless": "sleep 60", "timeout": "100ms" } }));
    assert!(matches!(site.check(&broken).await, CheckResult::Failed(why) if why.contains("the command took longer")));
    for params in [json!({ "wait": { "seconds": 1 } }), json!({ "export": { "value": "x" } })] {
        assert_eq!(site.check(&spec(params)).await, CheckResult::LeftOut);
    }
}

#[tokio::test]
async fn a_cancelled_check_ends_its_program() {
    let site = Site::new();
    let guard = format!("echo $$ > {}; exec sleep 60", site.at("/pid").display());
    let spec = spec(json!({ "command": { "run": "true", "unless": guard } }));
    let canceller = crate::host::cancel::Canceller::new();
    let (task, cancel) = (id("svc.task"), canceller.listen());
    let check = site.host.check(&task, &spec, None, &cancel);
    let cancelling = async {
        let pid = || fs::read_to_string(site.at("/pid")).ok()?.trim().parse::<u32>().ok();
        until(|| pid().is_some()).await;
        canceller.cancel();
        pid().unwrap()
    };
    let (result, pid) = tokio::join!(check, cancelling);
    assert!(matches!(result, CheckResult::Failed(_)), "{result:?}");
    assert!(!lives(pid));
    assert!(matches!(site.host.check(&task, &spec, None, &cancel).await, CheckResult::Failed(_)));
}

#[tokio::test]
async fn reports_options_and_lines() {
    let site = Site::new();
    let ini = spec(json!({ "ini": { "path": "/app.ini", "values": { "db": { "host": "a", "port": 1 } } } }));
    site.create(&ini).await.unwrap();
    assert_eq!(site.check(&ini).await, CheckResult::InSync);
    let path = site.at("/app.ini");
    fs::write(&path, "[db]\nhost = b\n").unwrap();
    assert_eq!(differences(site.check(&ini).await), ["[db] host: a -> b", "[db] port: 1 -> -"]);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let hidden = "a value that is not reported";
    let expected = [format!("[db] host: {hidden} -> {hidden}"), format!("[db] port: {hidden} -> -")];
    assert_eq!(differences(site.check(&ini).await), expected);
    fs::remove_file(&path).unwrap();
    assert_eq!(differences(site.check(&ini).await), ["file: present -> -"]);
    fs::write(&path, "no INI\n").unwrap();
    assert!(matches!(site.check(&ini).await, CheckResult::Failed(why) if why.contains("/app.ini is not an INI file")));

    let site = Site::new();
    let line = spec(json!({ "line": { "path": "/hosts", "line": "10.0.0.1 db" } }));
    site.create(&line).await.unwrap();
    assert_eq!(site.check(&line).await, CheckResult::InSync);
    fs::write(site.at("/hosts"), "10.0.0.2 db\n").unwrap();
    assert_eq!(differences(site.check(&line).await), ["line: 10.0.0.1 db -> missing, or changed"]);
    let absent = spec(json!({ "line": { "path": "/hosts", "match": "db$", "state": "absent" } }));
    assert_eq!(differences(site.check(&absent).await), ["line: - -> db$"]);
    assert_eq!(fs::read_to_string(site.at("/hosts")).unwrap(), "10.0.0.2 db\n");
}

#[tokio::test]
async fn reports_changes_to_unpacked_members() {
    let site = Site::new();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in [("bin/app", "one"), ("doc", "two"), ("etc/app.conf", "three")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    fs::write(site.at("/app.tar"), tar.into_inner().unwrap()).unwrap();
    let archive = spec(json!({ "archive": { "path": "/app.tar", "dest": "/opt/app" } }));
    site.create(&archive).await.unwrap();
    fs::remove_file(site.at("/app.tar")).unwrap();
    assert_eq!(site.check(&archive).await, CheckResult::InSync, "the archive itself is no longer needed");
    fs::write(site.at("/opt/app/bin/app"), "ONE").unwrap();
    fs::remove_file(site.at("/opt/app/doc")).unwrap();
    fs::set_permissions(site.at("/opt/app/etc/app.conf"), Permissions::from_mode(0o666)).unwrap();
    let expected = [
        "/opt/app/bin/app: as it was unpacked -> changed",
        "/opt/app/doc: present -> -",
        "/opt/app/etc/app.conf: mode: 0644 -> 0666",
    ];
    assert_eq!(differences(site.check(&archive).await), expected);
    fs::remove_dir_all(site.at("/opt/app")).unwrap();
    assert_eq!(differences(site.check(&archive).await), ["/opt/app: unpacked -> -"]);
}

#[tokio::test]
async fn reports_a_process_that_is_down() {
    let site = Site::new();
    let process = spec(json!({ "process": { "run": "test -e $GROUNDPLAN_ROOT/fail && exit 7; exec sleep 60" } }));
    site.create(&process).await.unwrap();
    assert_eq!(site.check(&process).await, CheckResult::InSync);
    fs::write(site.at("/fail"), "").unwrap();
    let [running] = <[_; 1]>::try_from(site.host.processes()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    // It is restarted, exits each time, and is down in between.
    let mut found = String::new();
    for _ in 0..500 {
        found = differences(site.check(&process).await).concat();
        if found.starts_with("process: up -> down: it ") && found.contains('7') {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(found.starts_with("process: up -> down: it ") && found.contains('7'), "{found}");
    site.host.stop_processes().await;
    assert_eq!(differences(site.check(&process).await), ["process: up -> -"]);
}

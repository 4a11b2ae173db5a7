//! What was there before a task comes back when the task goes.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use serde_json::json;

use super::*;
use crate::host::fs::xattrs;

fn link(path: &str, target: &str) -> TaskSpec {
    spec(json!({ "link": { "path": path, "target": target } }))
}

fn directory(path: &str, mode: &str) -> TaskSpec {
    spec(json!({ "directory": { "path": path, "mode": mode } }))
}

impl Site {
    fn write(&self, path: &str, text: &str, mode: u32) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|e| e.kind().to_string())
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.at(path)).unwrap().mode() & 0o7777
    }

    /// The files of the store.
    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state("found")).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "noted");
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_replaced_file_comes_back_with_owner_mode_and_attributes() {
    let site = Site::new();
    site.write("/etc/motd", "old\n", 0o640);
    let attributes = |site: &Site| xattrs::read(&File::open(site.at("/etc/motd")).unwrap()).unwrap();
    let mut wanted = attributes(&site);
    wanted.insert("user.origin".to_owned(), b"vendor".to_vec());
    let has_attributes = xattrs::write(&File::open(site.at("/etc/motd")).unwrap(), &wanted).is_ok();
    if is_root() {
        std::os::unix::fs::chown(site.at("/etc/motd"), Some(1), Some(2)).unwrap();
    }
    let before = fs::metadata(site.at("/etc/motd")).unwrap();
    let (one, two) = (file("/etc/motd", "one\n"), file("/etc/motd", "two\n"));
    assert_eq!(site.create(&one).await, CHANGED);
    assert_eq!(site.update(&one, &two).await, CHANGED);
    assert_eq!((&*site.read("/etc/motd"), site.kept().len()), ("two\n", 1));
    let store = site.state("found");
    assert_eq!(fs::metadata(&store).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(store.join(&site.kept()[0])).unwrap().mode() & 0o7777, 0o600);

    assert_eq!(site.remove(&two).await, CHANGED);
    let after = fs::metadata(site.at("/etc/motd")).unwrap();
    assert_eq!(site.read("/etc/motd"), "old\n");
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    if has_attributes {
        assert_eq!(attributes(&site), wanted);
    }
    assert!(site.found.lock().unwrap().is_empty(), "no task has the claim");
    site.host.found_settled().unwrap();
    assert_eq!(site.kept(), [""; 0], "no note names the content");
}

#[tokio::test]
async fn a_file_that_was_there_with_equal_content_stays() {
    let site = Site::new();
    site.write("/etc/motd", "same\n", 0o644);
    let same = file("/etc/motd", "same\n");
    assert_eq!(site.create(&same).await, UNCHANGED);
    assert_eq!(site.remove(&same).await, UNCHANGED);
    assert_eq!(site.read("/etc/motd"), "same\n");
    // Also where the task has changed since.
    assert_eq!(site.create(&same).await, UNCHANGED);
    let other = file("/etc/motd", "other\n");
    assert_eq!(site.update(&same, &other).await, CHANGED);
    assert_eq!(site.remove(&other).await, CHANGED);
    assert_eq!(site.read("/etc/motd"), "same\n");
}

#[tokio::test]
async fn what_was_not_there_goes() {
    let site = Site::new();
    for (spec, path) in [(file("/a/x", "x"), "/a/x"), (link("/a/y", "x"), "/a/y"), (directory("/a/z", "0755"), "/a/z")]
    {
        assert_eq!(site.create(&spec).await, CHANGED);
        assert_eq!(site.remove(&spec).await, CHANGED);
        assert!(fs::symlink_metadata(site.at(path)).is_err(), "{path}");
    }
}

#[tokio::test]
async fn links_and_the_modes_of_directories_come_back() {
    let site = Site::new();
    site.write("/run/resolv.conf", "stub\n", 0o644);
    fs::create_dir_all(site.at("/etc")).unwrap();
    symlink("../run/resolv.conf", site.at("/etc/resolv.conf")).unwrap();
    let ours = file("/etc/resolv.conf", "nameserver 192.0.2.1\n");
    assert_eq!(site.create(&ours).await, CHANGED);
    assert_eq!(site.remove(&ours).await, CHANGED);
    assert_eq!(fs::read_link(site.at("/etc/resolv.conf")).unwrap().to_str(), Some("../run/resolv.conf"));
    assert_eq!(site.read("/run/resolv.conf"), "stub\n");

    // A link over a link.
    let other = link("/etc/resolv.conf", "/etc/other");
    assert_eq!(site.create(&other).await, CHANGED);
    assert_eq!(site.remove(&other).await, CHANGED);
    assert_eq!(fs::read_link(site.at("/etc/resolv.conf")).unwrap().to_str(), Some("../run/resolv.conf"));

    fs::create_dir(site.at("/srv")).unwrap();
    fs::set_permissions(site.at("/srv"), fs::Permissions::from_mode(0o2750)).unwrap();
    let srv = directory("/srv", "0755");
    assert_eq!(site.create(&srv).await, CHANGED);
    assert_eq!(site.mode("/srv"), 0o755);
    assert_eq!(site.remove(&srv).await, CHANGED);
    assert_eq!(site.mode("/srv"), 0o2750);
}

#[tokio::test]
async fn a_folder_that_leads_elsewhere_since_is_not_where_things_come_back() {
    let site = Site::new();
    let outside = tempfile::tempdir().unwrap();
    for name in ["file", "link"] {
        site.write(&format!("/dir/{name}"), "old", 0o640);
        fs::write(outside.path().join(name), "precious").unwrap();
    }
    let two = spec(json!({ "link": { "path": "/dir/link", "target": "new", "force": true } }));
    let one = file("/dir/file", "new");
    for (task, spec) in [("svc.one", &one), ("svc.two", &two)] {
        assert_eq!(site.job(task, apply(spec, None), None).await.result, CHANGED);
    }
    // The owner of the folder puts a link in its place.
    fs::rename(site.at("/dir"), site.at("/aside")).unwrap();
    symlink(outside.path(), site.at("/dir")).unwrap();
    let remove = |spec: &TaskSpec| Work::Remove { spec: spec.clone() };
    for (task, spec) in [("svc.one", &one), ("svc.two", &two)] {
        let error = site.job(task, remove(spec), None).await.result.unwrap_err();
        assert!(error.contains("the symbolic link /dir leads out of the root"), "{error}");
    }
    for name in ["file", "link"] {
        let there = outside.path().join(name);
        assert_eq!(fs::read_to_string(&there).unwrap(), "precious");
        assert_eq!(fs::metadata(&there).unwrap().mode() & 0o7777, 0o644);
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
    // It is still known what was there.
    fs::remove_file(site.at("/dir")).unwrap();
    fs::rename(site.at("/aside"), site.at("/dir")).unwrap();
    for (task, spec, path) in [("svc.one", &one, "/dir/file"), ("svc.two", &two, "/dir/link")] {
        assert_eq!(site.job(task, remove(spec), None).await.result, CHANGED);
        assert_eq!((&*site.read(path), site.mode(path)), ("old", 0o640));
    }
}

#[tokio::test]
async fn on_remove_decides() {
    let mut site = Site::new();
    let path = "/etc/motd";
    for (on_remove, left, result) in [
        (OnRemove::Restore, "old", CHANGED),
        (OnRemove::Keep, "new", UNCHANGED),
        (OnRemove::Delete, "entity not found", CHANGED),
    ] {
        site.on_remove = on_remove;
        site.write(path, "old", 0o644);
        let new = file(path, "new");
        assert_eq!(site.create(&new).await, CHANGED);
        assert_eq!(site.remove(&new).await, result, "{on_remove}");
        assert_eq!(site.read(path), left, "{on_remove}");
        assert!(site.found.lock().unwrap().is_empty(), "{on_remove}");
    }
}

#[tokio::test]
async fn a_note_outlasts_the_task_that_made_it() {
    let site = Site::new();
    site.write("/etc/motd", "old", 0o644);
    let (one, two) = (file("/etc/motd", "one"), file("/etc/motd", "two"));
    assert_eq!(site.job("svc.one", apply(&one, None), None).await.result, CHANGED);
    // The other task takes the path before the first one goes.
    assert_eq!(site.job("svc.two", apply(&two, None), None).await.result, CHANGED);
    assert_eq!(site.job("svc.one", Work::Remove { spec: one }, None).await.result, UNCHANGED);
    assert_eq!(site.read("/etc/motd"), "two");
    assert_eq!(site.job("svc.two", Work::Remove { spec: two }, None).await.result, CHANGED);
    assert_eq!(site.read("/etc/motd"), "old");
}

#[tokio::test]
async fn an_update_that_moves_restores_the_old_path() {
    let site = Site::new();
    site.write("/a", "old a", 0o600);
    site.write("/b", "old b", 0o600);
    let (a, b) = (file("/a", "ours"), file("/b", "ours"));
    assert_eq!(site.create(&a).await, CHANGED);
    assert_eq!(site.update(&a, &b).await, CHANGED);
    assert_eq!((&*site.read("/a"), &*site.read("/b"), site.mode("/a")), ("old a", "ours", 0o600));
    assert_eq!(site.remove(&b).await, CHANGED);
    assert_eq!(site.read("/b"), "old b");
}

#[tokio::test]
async fn a_directory_in_place_of_a_file_keeps_the_note_of_it() {
    let site = Site::new();
    site.write("/x", "old", 0o644);
    let (file, directory) = (file("/x", "ours"), directory("/x", "0755"));
    assert_eq!(site.create(&file).await, CHANGED);
    assert_eq!(site.update(&file, &directory).await, CHANGED);
    assert!(site.at("/x").is_dir());
    assert_eq!(site.remove(&directory).await, CHANGED);
    assert_eq!(site.read("/x"), "old");
}

/// The agent is killed after the note and before the change, or after the change and before the end of the job is in the ledger.
#[tokio::test]
async fn a_kill_in_between_loses_nothing() {
    for changed in [false, true] {
        let site = Site::new();
        site.write("/etc/motd", "old", 0o640);
        let ours = file("/etc/motd", "ours");
        let cancel = Cancel::never();
        if changed {
            // The job ends, and its end never reaches the ledger.
            let finished = site.host.run(job("svc.task", apply(&ours, None), None, None), cancel).await;
            assert_eq!(finished.result, CHANGED);
        } else {
            let root = site.host.environment.root.clone();
            let found = site.host.found.find(&root, "/etc/motd", false, OnRemove::Restore).unwrap();
            site.host.found.put("path /etc/motd", &found).unwrap();
        }
        let site = site.after_a_crash();
        assert_eq!(site.create(&ours).await, if changed { UNCHANGED } else { CHANGED });
        assert_eq!(site.remove(&ours).await, CHANGED);
        assert_eq!((&*site.read("/etc/motd"), site.mode("/etc/motd")), ("old", 0o640), "changed: {changed}");
    }
    // Of what was not there as well.
    let site = Site::new();
    let ours = file("/etc/motd", "ours");
    assert_eq!(site.host.run(job("svc.task", apply(&ours, None), None, None), Cancel::never()).await.result, CHANGED);
    let site = site.after_a_crash();
    assert_eq!(site.create(&ours).await, UNCHANGED);
    assert_eq!(site.remove(&ours).await, CHANGED);
    assert!(!site.at("/etc/motd").exists(), "its own file is not what was found");
}

#[tokio::test]
async fn notes_of_running_jobs_survive_when_the_others_are_settled() {
    let site = Site::new();
    site.write("/a", "a", 0o644);
    site.write("/b", "b", 0o644);
    assert_eq!(site.create(&file("/a", "ours")).await, CHANGED);
    // A job for /b runs: its end is not reported yet.
    assert_eq!(
        site.host.run(job("svc.b", apply(&file("/b", "ours"), None), None, None), Cancel::never()).await.result,
        CHANGED
    );
    site.host.found_settled().unwrap();
    assert_eq!(site.kept().len(), 2);
    let site = site.after_a_crash();
    assert_eq!(site.found.lock().unwrap().keys().collect::<Vec<_>>(), ["path /a", "path /b"]);
}

/// After a power loss the note may be missing: what the task itself may have made is not taken for what was found.
#[tokio::test]
async fn what_may_be_the_tasks_own_is_left_alone() {
    let site = Site::new();
    let (one, two) = (file("/x", "one"), file("/x", "two"));
    let unknown = || BTreeMap::from([("path /x".to_owned(), Found::Unknown)]);
    // The first version is there: it may be the task's own.
    site.write("/x", "one", 0o644);
    site.host.adopt_found(&unknown());
    assert_eq!(site.update(&one, &two).await, CHANGED);
    assert_eq!(site.remove(&two).await, UNCHANGED);
    assert_eq!(site.read("/x"), "two", "left in place");
    // Something else is there, which no version of the task has written.
    site.write("/x", "three", 0o644);
    site.host.adopt_found(&unknown());
    assert_eq!(site.update(&one, &two).await, CHANGED);
    assert_eq!(site.remove(&two).await, CHANGED);
    assert_eq!(site.read("/x"), "three");
    // Nothing is there.
    fs::remove_file(site.at("/x")).unwrap();
    site.host.adopt_found(&unknown());
    assert_eq!(site.update(&one, &two).await, CHANGED);
    assert_eq!(site.remove(&two).await, CHANGED);
    assert!(!site.at("/x").exists());
}

#[tokio::test]
async fn what_an_older_agent_applied_goes_as_it_would_have_removed_it() {
    let site = Site::new();
    site.write("/x", "ours", 0o644);
    site.host.adopt_found(&BTreeMap::from([("path /x".to_owned(), Found::Unrecorded)]));
    let (ours, next) = (file("/x", "ours"), file("/x", "next"));
    assert_eq!(site.update(&ours, &next).await, CHANGED);
    assert_eq!(site.remove(&next).await, CHANGED);
    assert!(!site.at("/x").exists());
}

#[tokio::test]
async fn contents_are_kept_once_and_bounded() {
    let mut site = Site::new();
    let mut settings = Settings::new(site.at("/"), site.state(""), "lab".parse().unwrap(), "n0".parse().unwrap());
    settings.max_found = 10;
    site.host = Host::new(settings).unwrap();
    for path in ["/a", "/b"] {
        site.write(path, "12345678", 0o644);
        assert_eq!(site.job(&format!("svc.{}", &path[1..]), apply(&file(path, "x"), None), None).await.result, CHANGED);
    }
    assert_eq!(site.kept().len(), 1, "equal contents are kept once");
    site.write("/c", "other", 0o600);
    let error = site.create(&file("/c", "x")).await.unwrap_err();
    assert!(error.contains("`max_found`") && error.contains("on_remove = \"delete\""), "{error}");
    assert_eq!((&*site.read("/c"), site.mode("/c")), ("other", 0o600), "nothing was changed");
    for on_remove in [OnRemove::Keep, OnRemove::Delete] {
        site.write("/c", "other", 0o600);
        site.on_remove = on_remove;
        assert_eq!(site.create(&file("/c", "x")).await, CHANGED, "{on_remove}");
        site.remove(&file("/c", "x")).await.unwrap();
    }
}

#[tokio::test]
async fn a_directory_with_something_in_it_is_not_replaced_by_what_was_there() {
    let site = Site::new();
    site.write("/x", "old", 0o644);
    let ours = file("/x", "ours");
    assert_eq!(site.create(&ours).await, CHANGED);
    fs::remove_file(site.at("/x")).unwrap();
    site.write("/x/theirs", "theirs", 0o644);
    assert_eq!(site.remove(&ours).await, UNCHANGED);
    assert_eq!(site.read("/x/theirs"), "theirs");
}

#[tokio::test]
async fn a_task_that_came_to_nothing_removes_nothing() {
    let site = Site::new();
    site.write("/x", "theirs", 0o644);
    let external: Ready = serde_json::from_value(json!({ "command": "false", "timeout": "0s" })).unwrap();
    let ours = TaskSpec { external: vec![external], ..file("/x", "ours") };
    assert!(site.create(&ours).await.is_err());
    assert_eq!(site.remove(&ours).await, UNCHANGED);
    assert_eq!(site.read("/x"), "theirs");
}

#[tokio::test]
async fn delete_brings_back_no_line_and_no_option() {
    let mut site = Site::new();
    site.on_remove = OnRemove::Delete;
    site.write("/l", "a = 1\nb = 2\n", 0o644);
    let line = spec(json!({ "line": { "path": "/l", "line": "a = 9", "match": "^a" } }));
    assert_eq!(site.create(&line).await, CHANGED);
    assert_eq!(site.remove(&line).await, CHANGED);
    assert_eq!(site.read("/l"), "b = 2\n");
    site.write("/i", "[s]\na = 1\nb = 2\n", 0o644);
    let ini = spec(json!({ "ini": { "path": "/i", "section": "s", "option": "a", "value": 9 } }));
    assert_eq!(site.create(&ini).await, CHANGED);
    assert_eq!(site.remove(&ini).await, CHANGED);
    assert_eq!(site.read("/i"), "[s]\nb = 2\n");
}

//! `file`, `template`, `directory` and `link`.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use groundplan_protocol::blob::{BlobRef, Content as Shipped};
use serde_json::json;

use super::*;
use crate::host::job::Content;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A tmpfs that is unmounted at the end; `None`, with a message, for users who may not mount.
struct Mount(PathBuf);

impl Mount {
    fn new(at: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        eprintln!("SKIPPED: a tmpfs could not be mounted; this needs root");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_file_is_created_changed_moved_and_removed() {
    let site = Site::new();
    let first = file("/etc/app/x.conf", "one\n");
    assert_eq!(site.create(&first).await, CHANGED);
    let path = site.at("etc/app/x.conf");
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("one\n", 0o644));
    assert_eq!(mode(&site.at("etc/app")), 0o755);
    let inode = fs::metadata(&path).unwrap().ino();
    assert_eq!(site.update(&first, &first).await, UNCHANGED);

    // A mode is changed in place, content by a new file.
    let private = TaskSpec {
        content: first.content.clone(),
        ..spec(json!({ "file": { "path": "/etc/app/x.conf", "mode": "0600" } }))
    };
    assert_eq!(site.update(&first, &private).await, CHANGED);
    assert_eq!((mode(&path), fs::metadata(&path).unwrap().ino()), (0o600, inode));
    let second = TaskSpec { content: Some(Shipped::of(b"two\n")), ..private };
    assert_eq!(site.update(&first, &second).await, CHANGED);
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("two\n", 0o600));

    let moved = file("/etc/other.conf", "two\n");
    assert_eq!(site.update(&second, &moved).await, CHANGED);
    assert!(!path.exists() && site.at("etc/other.conf").exists());
    assert_eq!(site.remove(&moved).await, CHANGED);
    assert_eq!(site.remove(&moved).await, UNCHANGED);
    assert_eq!(names(&site.at("etc")), ["app"]);
    assert!(names(&site.at("etc/app")).is_empty());
}

#[tokio::test]
async fn large_content_is_copied_from_the_blob_store() {
    let site = Site::new();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    let stored = site.state("blob");
    fs::write(&stored, &bytes).unwrap();
    let spec = TaskSpec { content: Some(Shipped::Blob(BlobRef::of(&bytes))), ..file("/srv/large", "") };
    assert_eq!(site.create(&spec).await, Err("the content is missing: it has not been fetched".to_owned()));
    for result in [CHANGED, UNCHANGED] {
        let work = Work::Apply { spec: spec.clone(), content: Some(Content::File(stored.clone())), previous: None };
        assert_eq!(site.job("svc.task", work, None).await.result, result);
    }
    assert!(fs::read(site.at("srv/large")).unwrap() == bytes);
}

#[tokio::test]
async fn owners_by_name() {
    let site = Site::new();
    let spec = |owner: &str| TaskSpec {
        content: Some(Shipped::of(b"")),
        ..spec(json!({ "template": { "path": "/x", "owner": owner, "mode": "4755" } }))
    };
    let error = site.create(&spec("no-such-user")).await.unwrap_err();
    assert_eq!(error, "/x: there is no user `no-such-user` on this host");
    if !is_root() {
        eprintln!("SKIPPED: only root may change owners");
        return;
    }
    assert_eq!(site.create(&spec("1234")).await, CHANGED);
    assert_eq!((fs::metadata(site.at("x")).unwrap().uid(), mode(&site.at("x"))), (1234, 0o4755));
    assert_eq!(site.create(&spec("1234")).await, UNCHANGED);
}

#[tokio::test]
async fn links_out_of_the_root_are_refused() {
    let site = Site::new();
    let outside = site.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("x"), "precious").unwrap();
    symlink(&outside, site.at("evil")).unwrap();
    symlink("../outside", site.at("climbs")).unwrap();
    symlink(outside.join("x"), site.at("x")).unwrap();
    for (path, link) in [("/evil/x", "/evil"), ("/climbs/x", "/climbs")] {
        let error = Err(format!("{path}: the symbolic link {link} leads out of the root"));
        for spec in [
            file(path, "evil"),
            spec(json!({ "link": { "path": path, "target": "a" } })),
            spec(json!({ "directory": { "path": path } })),
        ] {
            assert_eq!(site.create(&spec).await, error);
            assert_eq!(site.remove(&spec).await, UNCHANGED, "it came to nothing");
            // The link came after the task.
            site.host.adopt_found(&[(format!("path {path}"), Found::Absent)].into());
            assert_eq!(site.remove(&spec).await, error);
            site.host.adopt_found(&BTreeMap::new());
        }
    }
    // A link at the place of the file itself is replaced, not followed.
    assert_eq!(site.create(&file("/x", "mine")).await, CHANGED);
    assert_eq!(names(&outside), ["x"]);
    assert_eq!(fs::read_to_string(outside.join("x")).unwrap(), "precious");
    let directory = spec(json!({ "directory": { "path": "/evil", "mode": "0777" } }));
    assert!(site.create(&directory).await.unwrap_err().contains("leads out of the root"));
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_file_and_nothing_else() {
    let site = Site::new();
    let Some(_mount) = Mount::new(site.at("small"), "size=64k") else { return };
    assert_eq!(site.create(&file("/small/x", "old")).await, CHANGED);
    let bytes = vec![7; 300 * 1024];
    fs::write(site.state("blob"), &bytes).unwrap();
    let large = TaskSpec { content: Some(Shipped::Blob(BlobRef::of(&bytes))), ..file("/small/x", "") };
    let work = Work::Apply { spec: large, content: Some(Content::File(site.state("blob"))), previous: None };
    let error = site.job("svc.task", work, None).await.result.unwrap_err();
    assert_eq!(error, "/small/x: cannot write it: No space left on device (os error 28)");
    assert_eq!(names(&site.at("small")), ["x"]);
    assert_eq!(fs::read_to_string(site.at("small/x")).unwrap(), "old");
}

#[tokio::test]
async fn the_error_names_a_read_only_target() {
    let site = Site::new();
    let Some(_mount) = Mount::new(site.at("ro"), "ro") else { return };
    let system = "Read-only file system (os error 30)";
    for (spec, error) in [
        (file("/ro/x", "a"), format!("/ro/x: cannot create it: {system}")),
        (file("/ro/d/x", "a"), format!("/ro/d/x: cannot create the directory /ro/d: {system}")),
        (spec(json!({ "directory": { "path": "/ro/x" } })), format!("/ro/x: cannot create the directory: {system}")),
        (
            spec(json!({ "link": { "path": "/ro/x", "target": "y" } })),
            format!("/ro/x: cannot create the link: {system}"),
        ),
    ] {
        assert_eq!(site.create(&spec).await, Err(error));
    }
}

#[tokio::test]
async fn the_error_names_a_directory_without_permission() {
    if is_root() {
        eprintln!("SKIPPED: permissions do not restrict root");
        return;
    }
    let site = Site::new();
    fs::create_dir(site.at("closed")).unwrap();
    fs::set_permissions(site.at("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let error = site.create(&file("/closed/x", "a")).await.unwrap_err();
    assert_eq!(error, "/closed/x: cannot create it: Permission denied (os error 13)");
}

#[tokio::test]
async fn leftovers_of_interrupted_writes_are_deleted() {
    let site = Site::new();
    let stale = ".groundplan-".to_owned() + &groundplan_protocol::digest::Digest::of(b"x").short() + ".tmp";
    fs::write(site.at(&stale), "half").unwrap();
    assert_eq!(site.create(&file("/x", "whole")).await, CHANGED);
    assert_eq!(names(&site.at("")), ["x"]);
    fs::write(site.at(&stale), "half").unwrap();
    assert_eq!(site.remove(&file("/x", "whole")).await, CHANGED);
    assert!(names(&site.at("")).is_empty());
    let long = format!("/{}", "n".repeat(255));
    assert_eq!(site.create(&file(&long, "")).await, CHANGED);
}

#[tokio::test]
async fn a_directory_is_removed_only_if_it_is_empty() {
    let site = Site::new();
    let closed = spec(json!({ "directory": { "path": "/a/b", "mode": "0700" } }));
    let open = spec(json!({ "directory": { "path": "/a/b" } }));
    assert_eq!(site.create(&closed).await, CHANGED);
    assert_eq!(site.update(&closed, &closed).await, UNCHANGED);
    assert_eq!(site.update(&closed, &open).await, CHANGED);
    assert_eq!((mode(&site.at("a")), mode(&site.at("a/b"))), (0o755, 0o755));
    fs::write(site.at("a/b/x"), "").unwrap();
    let finished = site.job("svc.task", Work::Remove { spec: open.clone() }, None).await;
    assert_eq!(finished.result, UNCHANGED);
    assert_eq!(finished.output.unwrap().head, "/a/b is not empty: left in place\n");
    let site = Site::new();
    assert_eq!(site.create(&open).await, CHANGED);
    assert_eq!(site.remove(&open).await, CHANGED);
    assert!(!site.at("a/b").exists());
}

#[tokio::test]
async fn a_link_is_created_redirected_and_removed() {
    let site = Site::new();
    let [one, two] = ["one", "../two"].map(|to| spec(json!({ "link": { "path": "/a/l", "target": to } })));
    assert_eq!(site.create(&one).await, CHANGED);
    assert_eq!(site.update(&one, &one).await, UNCHANGED);
    assert_eq!(site.update(&one, &two).await, CHANGED);
    assert_eq!(fs::read_link(site.at("a/l")).unwrap(), Path::new("../two"));
    assert_eq!(site.remove(&two).await, CHANGED);
    fs::write(site.at("a/l"), "a file now").unwrap();
    assert_eq!(site.remove(&two).await, UNCHANGED);
    assert_eq!(names(&site.at("a")), ["l"]);
}

#[tokio::test]
async fn the_error_names_what_is_in_the_way() {
    let site = Site::new();
    fs::create_dir_all(site.at("d/full")).unwrap();
    fs::write(site.at("f"), "").unwrap();
    let kept = "is in the way; it is not replaced, because its content may exist nowhere else";
    for (spec, error) in [
        (file("/d", ""), format!("/d: a directory {kept}")),
        (spec(json!({ "link": { "path": "/d", "target": "x" } })), format!("/d: a directory {kept}")),
        (spec(json!({ "directory": { "path": "/f" } })), format!("/f: something that is not a directory {kept}")),
        (file("/f/x", ""), "/f/x: /f is not a directory".to_owned()),
    ] {
        let before = names(&site.at(""));
        assert_eq!(site.create(&spec).await, Err(error));
        assert_eq!(names(&site.at("")), before);
    }
}

#[tokio::test]
async fn what_may_exist_nowhere_else_is_replaced_by_force_only() {
    let site = Site::new();
    let link = |force: bool| spec(json!({ "link": { "path": "/x", "target": "y", "force": force } }));
    let content = |force: bool| TaskSpec {
        content: Some(Shipped::of(b"new")),
        ..spec(json!({ "file": { "path": "/x", "force": force } }))
    };
    let pipe = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let needs = |there: &str| Err(format!("/x: {there} is in the way; remove it, or set `force = true` to replace it"));

    fs::write(site.at("x"), "precious").unwrap();
    assert_eq!(site.create(&link(false)).await, needs("a file"));
    assert_eq!(fs::read_to_string(site.at("x")).unwrap(), "precious");
    assert_eq!(site.create(&link(true)).await, CHANGED);
    // What took the place of the task's own link is not the task's own.
    fs::remove_file(site.at("x")).unwrap();
    fs::write(site.at("x"), "precious").unwrap();
    assert_eq!(site.update(&link(false), &link(false)).await, needs("a file"));
    // A file replaces a file and a link.
    assert_eq!(site.create(&content(false)).await, CHANGED);
    fs::remove_file(site.at("x")).unwrap();
    symlink("nowhere", site.at("x")).unwrap();
    assert_eq!(site.create(&content(false)).await, CHANGED);

    fs::remove_file(site.at("x")).unwrap();
    pipe(&site.at("x"));
    let checked = TaskSpec {
        content: Some(Shipped::of(b"[a]\n")),
        ..spec(json!({ "template": { "path": "/x", "validate": { "command": "true %s" } } }))
    };
    for spec in [content(false), checked, file("/x", "")] {
        assert_eq!(site.create(&spec).await, needs("a named pipe"));
    }
    assert_eq!(site.create(&link(false)).await, needs("something that is not a file"));
    assert!(!fs::symlink_metadata(site.at("x")).unwrap().is_file());
    assert_eq!(site.create(&content(true)).await, CHANGED);
    assert_eq!(fs::read_to_string(site.at("x")).unwrap(), "new");
    let _socket = std::os::unix::net::UnixListener::bind(site.at("s")).unwrap();
    let error = site.create(&file("/s", "")).await.unwrap_err();
    assert!(error.starts_with("/s: a socket is in the way"), "{error}");
}

#[tokio::test]
async fn what_another_task_put_there_needs_no_force() {
    let site = Site::new();
    // The path passes from a task that is about to be removed to one that comes first.
    assert_eq!(site.job("svc.old", apply(&file("/x", "content"), None), None).await.result, CHANGED);
    let link = spec(json!({ "link": { "path": "/x", "target": "y" } }));
    assert_eq!(site.job("svc.new", apply(&link, None), None).await.result, CHANGED);
    assert_eq!(fs::read_link(site.at("x")).unwrap(), Path::new("y"));
}

#[tokio::test]
async fn a_task_changes_its_kind_at_one_path() {
    let site = Site::new();
    let specs = [
        file("/x", "content"),
        spec(json!({ "link": { "path": "/x", "target": "y" } })),
        spec(json!({ "directory": { "path": "/x" } })),
        TaskSpec { content: Some(Shipped::of(b"content")), ..spec(json!({ "template": { "path": "/x" } })) },
        file("/x", "content"),
    ];
    assert_eq!(site.create(&specs[0]).await, CHANGED);
    for (pair, result) in specs.windows(2).zip([CHANGED, CHANGED, CHANGED, UNCHANGED]) {
        assert_eq!(site.update(&pair[0], &pair[1]).await, result);
    }
    assert_eq!(fs::read_to_string(site.at("x")).unwrap(), "content");
    assert_eq!(names(&site.at("")), ["x"]);
}

#[tokio::test]
async fn a_file_that_another_task_claims_is_kept() {
    let site = Site::new();
    let spec = file("/x", "content");
    // The task was renamed: the new one runs first.
    assert_eq!(site.job("svc.old", apply(&spec, None), None).await.result, CHANGED);
    assert_eq!(site.job("svc.new", apply(&spec, None), None).await.result, UNCHANGED);
    let finished = site.job("svc.old", Work::Remove { spec: spec.clone() }, None).await;
    assert_eq!(finished.result, UNCHANGED);
    assert_eq!(finished.output.unwrap().head, "left in place: it belongs to svc.new now\n");
    // The same with claims read from the ledger: one task moves to another path, the other keeps the file.
    let site = site.after_a_crash();
    site.host.adopt(&[(id("svc.new"), spec.params.clone()), (id("svc.old"), spec.params.clone())]).await;
    assert_eq!(site.job("svc.new", apply(&file("/y", "content"), Some(&spec)), None).await.result, CHANGED);
    assert_eq!(names(&site.at("")), ["x", "y"]);
    assert_eq!(site.job("svc.old", Work::Remove { spec }, None).await.result, CHANGED);
    assert_eq!(names(&site.at("")), ["y"]);
}

//! Links of users: a task that works as root is not led elsewhere by them, however quickly they change.

use std::{
    fs,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;

use super::{
    archive::{FILE, tar},
    *,
};

/// Ids that need not be those of anyone on this host.
const USER: u32 = 61_001;
const OTHER: u32 = 61_002;

/// How often a job is to succeed, and how often to fail, while what is on its way is swapped.
const OFTEN: usize = 20;

/// A home of [`USER`] beside a directory of root; `None`, with a message, for those who may not give files away.
fn site() -> Option<Site> {
    if !is_root() {
        eprintln!("SKIPPED: needs root");
        return None;
    }
    let site = Site::new();
    for (dir, owner) in [("home", 0), ("home/user", USER), ("home/user/own", USER), ("etc", 0), ("etc/sub", 0)] {
        fs::create_dir(site.at(dir)).unwrap();
        chown(site.at(dir), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(site.at(dir), fs::Permissions::from_mode(0o750)).unwrap();
    }
    fs::write(site.at("etc/passwd"), "[root]\nx = 0\n").unwrap();
    Some(site)
}

fn link(site: &Site, path: &str, target: &str, owner: u32) {
    symlink(target, site.at(path)).unwrap();
    lchown(site.at(path), Some(owner), Some(owner)).unwrap();
}

/// All in a directory, the directory itself included: owner, mode, and content or target.
fn state(dir: &Path) -> Vec<(PathBuf, u32, u32, String)> {
    let (mut all, mut rest) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(path) = rest.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            rest.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let target = fs::read_link(&path).map(|target| target.display().to_string());
        let content = target.or_else(|_| fs::read_to_string(&path)).unwrap_or_default();
        all.push((path, found.uid(), found.mode(), content));
    }
    all.sort();
    all
}

/// A task of each kind that writes at a path of its own, below `at`.
fn tasks(at: &str) -> Vec<TaskSpec> {
    let content = Some(Shipped::of(&tar(&[("member", FILE, 0o644, "unpacked")])));
    let owner = USER.to_string();
    vec![
        spec(json!({ "directory": { "path": at, "owner": owner, "mode": "0777" } })),
        spec(json!({ "directory": { "path": format!("{at}/sub"), "owner": owner, "mode": "0777" } })),
        spec(json!({ "directory": { "path": format!("{at}/missing/new") } })),
        file(&format!("{at}/new"), "x"),
        file(&format!("{at}/passwd"), "x"),
        file(&format!("{at}/missing/new"), "x"),
        spec(json!({ "link": { "path": format!("{at}/passwd"), "target": "x", "force": true } })),
        spec(json!({ "line": { "path": format!("{at}/passwd"), "line": "x" } })),
        spec(json!({ "ini": { "path": format!("{at}/passwd"), "values": { "root": { "x": 1 } } } })),
        TaskSpec { content: content.clone(), ..spec(json!({ "archive": { "dest": at } })) },
        TaskSpec { content, ..spec(json!({ "archive": { "dest": format!("{at}/sub") } })) },
    ]
}

#[tokio::test]
async fn a_link_of_a_user_to_what_is_not_theirs_is_not_followed() {
    let Some(site) = site() else { return };
    link(&site, "home/user/data", "../../etc", USER);
    link(&site, "home/user/data2", "own/../../../etc", USER);
    link(&site, "home/user/twice", "own/on", USER);
    link(&site, "home/user/own/on", "../../../etc", USER);
    // In a directory of the user the link is the user's to choose, whoever it belongs to: it may be moved or linked there.
    link(&site, "home/user/moved", "../../etc", 0);
    // In one of root, as in /tmp, the owner of the link counts.
    link(&site, "home/shared", "../etc", USER);
    link(&site, "home/user/others", "own", OTHER);
    // What is missing is not made either where such a link leads.
    link(&site, "home/user/nowhere", "../../etc/new", USER);
    let before = state(&site.at("etc"));
    for at in ["user/data", "user/data2", "user/twice", "user/moved", "shared", "user/others", "user/nowhere"] {
        for task in tasks(&format!("/home/{at}")) {
            let result = site.create(&task).await;
            let error = result.expect_err(&format!("{at}: {:?}", task.params));
            assert!(
                error.contains("it is not followed") || error.contains("leads nowhere"),
                "{at}: {:?}: {error}",
                task.params
            );
            assert_eq!(state(&site.at("etc")), before, "{at}: {:?}", task.params);
        }
    }
    let error = site.create(&file("/home/user/data/new", "x")).await.unwrap_err();
    assert_eq!(
        error,
        "/home/user/data/new: the symbolic link /home/user/data to ../../etc is under the control of the user 61001 and leads to \
         what is not theirs: it is not followed; name the path that it leads to, or replace the link"
    );
}

#[tokio::test]
async fn other_links_are_followed() {
    let Some(site) = site() else { return };
    link(&site, "home/user/mine", "own", USER);
    link(&site, "home/user/mine2", "../../home/user/mine", USER);
    link(&site, "home/roots", "user/own", 0);
    link(&site, "config", "etc", 0);
    for at in ["/home/user/mine", "/home/user/mine2", "/home/roots", "/config"] {
        let new = file(&format!("{at}/made/new"), at);
        assert_eq!(site.create(&new).await, CHANGED, "{at}");
        // What was made on the way is root's, and is still there for the next job.
        assert_eq!(site.update(&new, &new).await, UNCHANGED, "{at}");
        assert_eq!(site.remove(&new).await, CHANGED, "{at}");
    }
    let directory = spec(json!({ "directory": { "path": "/home/user/mine2", "owner": OTHER.to_string() } }));
    assert_eq!(site.create(&directory).await, CHANGED);
    assert_eq!(fs::metadata(site.at("home/user/own")).unwrap().uid(), OTHER);
}

#[tokio::test]
async fn a_hard_link_gives_nothing_away() {
    let Some(site) = site() else { return };
    // The user has a second name for a file of root, with the content that the task wants.
    fs::hard_link(site.at("etc/passwd"), site.at("home/user/passwd")).unwrap();
    let before = state(&site.at("etc"));
    let content = Some(Shipped::of(&fs::read(site.at("etc/passwd")).unwrap()));
    let params = json!({ "file": { "path": "/home/user/passwd", "owner": USER.to_string(), "mode": "0666" } });
    assert_eq!(site.create(&TaskSpec { content, ..spec(params) }).await, CHANGED);
    assert_eq!(state(&site.at("etc")), before);
    assert_eq!(fs::metadata(site.at("home/user/passwd")).unwrap().uid(), USER);
}

/// Applies and removes tasks below `/home/user/data` while that is swapped for a link to a directory of root.
fn race(tasks: &[TaskSpec]) {
    let Some(site) = site() else { return };
    let [folder, swapped] = ["home/user/data", "home/user/swapped"].map(|path| site.at(path));
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(USER), Some(USER)).unwrap();
    // With this in it, no removal takes it away.
    fs::write(folder.join("stays"), "").unwrap();
    link(&site, "home/user/swapped", "../../etc", USER);
    fs::set_permissions(site.at("etc/sub"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(site.at("etc/sub/made")).unwrap();
    fs::set_permissions(site.at("etc/sub/made"), fs::Permissions::from_mode(0o700)).unwrap();
    // Wherever it is by then.
    let held = fs::File::open(&folder).unwrap();
    let sub = format!("/proc/self/fd/{}/sub", held.as_raw_fd());
    let (before, done) = (state(&site.at("etc")), AtomicBool::new(false));
    let swapper = || {
        while !done.load(Ordering::Relaxed) {
            renameat2(AT_FDCWD, &folder, AT_FDCWD, &swapped, RenameFlags::RENAME_EXCHANGE).unwrap();
        }
    };
    let (mut here, mut refused) = (vec![0; tasks.len()], vec![0; tasks.len()]);
    thread::scope(|scope| {
        let swapper = scope.spawn(swapper);
        // Not in an async block: the thread must end whatever happens here.
        let applied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            while !swapper.is_finished() && here.iter().chain(&refused).any(|n| *n < OFTEN) {
                for (n, task) in tasks.iter().enumerate() {
                    let result = runtime.block_on(site.create(task));
                    if result.is_ok() {
                        here[n] += 1
                    } else {
                        refused[n] += 1
                    }
                    let _ = runtime.block_on(site.remove(task));
                    // The parents that are missing are so each time.
                    let _ = fs::remove_dir_all(&sub);
                    assert_eq!(state(&site.at("etc")), before, "{:?}: {result:?}", task.params);
                }
            }
        }));
        done.store(true, Ordering::Relaxed);
        applied.unwrap();
    });
    eprintln!("succeeded {here:?}, refused {refused:?}");
}

#[test]
fn a_folder_that_is_swapped_for_a_link_leads_no_task_elsewhere() {
    let owner = USER.to_string();
    let tasks = [
        spec(json!({ "directory": { "path": "/home/user/data", "owner": owner, "mode": "0777" } })),
        spec(json!({ "directory": { "path": "/home/user/data/sub", "owner": owner, "mode": "0777" } })),
        file("/home/user/data/passwd", "x"),
        // With a parent that is missing in the user's folder, and is there elsewhere.
        file("/home/user/data/sub/made/new", "x"),
        spec(json!({ "link": { "path": "/home/user/data/link", "target": "x" } })),
    ];
    race(&tasks);
}

#[test]
fn a_folder_that_is_swapped_for_a_link_leads_no_archive_elsewhere() {
    let bytes = tar(&[("a", FILE, 0o644, "a"), ("passwd", FILE, 0o644, "b"), ("sub/c", FILE, 0o644, "c")]);
    let archive =
        |dest| TaskSpec { content: Some(Shipped::of(&bytes)), ..spec(json!({ "archive": { "dest": dest } })) };
    race(&[archive("/home/user/data"), archive("/home/user/data/sub")]);
}

#[tokio::test]
async fn a_drift_check_reads_nothing_through_a_users_link() {
    let Some(site) = site() else { return };
    let task = |path: &str| file(path, "wanted");
    for path in ["home/user/data", "home/user/own"] {
        fs::create_dir_all(site.at(path)).unwrap();
        chown(site.at(path), Some(USER), Some(USER)).unwrap();
    }
    assert_eq!(site.create(&task("/home/user/data/passwd")).await, CHANGED);
    assert_eq!(site.create(&task("/home/user/own/passwd")).await, CHANGED);
    // The directory becomes a link, and the file another one, to what only root may read.
    fs::set_permissions(site.at("etc/passwd"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_dir_all(site.at("home/user/data")).unwrap();
    link(&site, "home/user/data", "../../etc", USER);
    fs::remove_file(site.at("home/user/own/passwd")).unwrap();
    link(&site, "home/user/own/passwd", "../../../etc/passwd", USER);
    for path in ["/home/user/data/passwd", "/home/user/own/passwd"] {
        let result = site.check(&task(path)).await;
        assert_ne!(result, CheckResult::InSync, "{path}");
        assert!(!format!("{result:?}").contains("x = 0"), "{path}: {result:?}");
    }
}

#[test]
fn a_command_starts_in_no_directory_that_a_user_swaps_for_a_link() {
    let Some(site) = site() else { return };
    let [folder, swapped] = ["home/user/data", "home/user/swapped"].map(|path| site.at(path));
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(USER), Some(USER)).unwrap();
    link(&site, "home/user/swapped", "../../etc", USER);
    // Where the command leaves its mark: beside the file that is only there.
    let task = spec(json!({ "command": { "run": ["sh", "-c", "test ! -e passwd"], "cwd": "/home/user/data" } }));
    let done = AtomicBool::new(false);
    let (mut here, mut refused) = (0, 0);
    thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &folder, AT_FDCWD, &swapped, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            while !swapper.is_finished() && (here < 10 * OFTEN || refused < 10 * OFTEN) {
                match runtime.block_on(site.create(&task)) {
                    Ok(_) => here += 1,
                    Err(error) => {
                        assert!(error.starts_with("cannot run in the directory"), "it ran elsewhere: {error}");
                        refused += 1;
                    }
                }
            }
        }));
        done.store(true, Ordering::Relaxed);
        ran.unwrap();
    });
    eprintln!("ran {here} times, refused {refused} times");
}

#[tokio::test]
async fn what_is_in_the_way_of_a_staging_directory_is_not_emptied() {
    let Some(site) = site() else { return };
    let content = Some(Shipped::of(&tar(&[("member", FILE, 0o644, "unpacked")])));
    let archive = TaskSpec { content, ..spec(json!({ "archive": { "dest": "/home/user/own" } })) };
    // The user may rename a directory of root in their own to the name that the agent uses for a while.
    let digest = groundplan_protocol::digest::Digest::of(b"svc.task").short();
    let there = site.at(&format!("home/user/own/.groundplan-{digest}.tmp"));
    fs::create_dir(&there).unwrap();
    fs::write(there.join("precious"), "x").unwrap();
    site.create(&archive).await.unwrap_err();
    assert!(there.join("precious").exists());
    // What a killed agent left there goes.
    fs::rename(there.join("precious"), there.join("12")).unwrap();
    assert_eq!(site.create(&archive).await, CHANGED);
    assert!(!there.exists());
}

#[test]
fn a_drift_check_reports_no_content_of_a_private_file_that_a_user_swaps_in() {
    let Some(site) = site() else { return };
    let [open, secret] = ["home/user/own/file", "home/user/own/secret"].map(|path| site.at(path));
    let task = file("/home/user/own/file", "wanted");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(site.create(&task)), CHANGED);
    fs::write(&open, "changed").unwrap();
    // Of root, in the directory of the user, who may rename it.
    fs::write(&secret, "precious").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let done = AtomicBool::new(false);
    let mut seen = [0, 0];
    thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &open, AT_FDCWD, &secret, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while !swapper.is_finished() && seen.iter().any(|n| *n < 20 * OFTEN) {
                let found = format!("{:?}", runtime.block_on(site.check(&task)));
                assert!(!found.contains("precious"), "{found}");
                seen[usize::from(found.contains("changed"))] += 1;
            }
        }));
        done.store(true, Ordering::Relaxed);
        checked.unwrap();
    });
    eprintln!("without content {}, with that of the open file {}", seen[0], seen[1]);
}

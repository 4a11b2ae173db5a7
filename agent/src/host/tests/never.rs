//! Removal of what never was, and dropping the record of what is.

use std::{fs, os::unix::fs::symlink};

use super::*;

const NGINX: &str = "user www-data;\nevents {\n    worker_connections 768;\n}\n";

/// Carries out a job of a task of which earlier jobs have, or have not, changed anything.
async fn run(site: &Site, work: Work, touched: bool) -> Finished {
    site.host.run(Job { touched, ..job("svc.task", work, None, None) }, Cancel::never()).await
}

fn printed(finished: &Finished) -> &str {
    finished.output.as_ref().map_or("", |output| &output.head)
}

#[tokio::test]
async fn what_failed_before_its_first_change_has_nothing_to_remove() {
    let path = |kind: &str, more: Value| {
        let mut params = json!({ "path": "/etc/nginx.conf" });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec(json!({ kind: params }))
    };
    let content = |mut spec: TaskSpec, text: &str| {
        spec.content = Some(Shipped::of(text.as_bytes()));
        spec
    };
    let refused = json!({ "validate": { "command": ["/bin/false", "%s"] } });
    let failing = [
        path("ini", json!({ "section": "a", "option": "b", "value": 1 })),
        path("line", json!({ "line": "x", "validate": { "command": ["/bin/false", "%s"] } })),
        content(path("file", refused.clone()), "other"),
        content(path("file", json!({ "validate": "json" })), "other"),
        content(path("file", json!({ "owner": "nobody-of-that-name" })), "other"),
        content(spec(json!({ "file": { "path": "/etc" } })), "other"),
        spec(json!({ "link": { "path": "/etc", "target": "x" } })),
    ];
    for spec in failing {
        let site = Site::new();
        fs::create_dir(site.at("etc")).unwrap();
        fs::write(site.at("etc/nginx.conf"), NGINX).unwrap();
        let failed = run(&site, apply(&spec, None), false).await;
        assert!(failed.result.is_err() && !failed.touched, "{:?}: {failed:?}", spec.params);
        let removal = run(&site, Work::Remove { spec: spec.clone() }, failed.touched).await;
        assert_eq!(removal.result, UNCHANGED, "{:?}", spec.params);
        assert!(printed(&removal).contains("nothing to remove"), "{removal:?}");
        assert_eq!(fs::read_to_string(site.at("etc/nginx.conf")).unwrap(), NGINX, "{:?}", spec.params);
        let task = id("svc.task");
        assert!(!site.host.claims.is_held(&spec.params.subject(&task)[0]), "another task may claim it");
    }
}

#[tokio::test]
async fn what_failed_after_a_change_is_removed() {
    let site = Site::new();
    let mut written = spec(json!({ "link": { "path": "/l", "target": "x" } }));
    written.ready = Some(serde_json::from_value(json!({ "command": ["/bin/false"], "timeout": "10ms" })).unwrap());
    let failed = run(&site, apply(&written, None), false).await;
    assert!(failed.result.is_err() && failed.touched, "{failed:?}");
    let removal = run(&site, Work::Remove { spec: written.clone() }, failed.touched).await;
    assert_eq!(removal.result, CHANGED);
    assert!(!site.at("l").is_symlink());

    // A command cannot tell how far it came.
    let command = spec(json!({ "command": { "run": "exit 1" } }));
    assert!(run(&site, apply(&command, None), false).await.touched);
}

#[tokio::test]
async fn an_update_of_what_never_was_removes_nothing() {
    let site = Site::new();
    symlink("mine", site.at("old")).unwrap();
    let (old, new) = (json!({ "path": "/old", "target": "x" }), json!({ "path": "/new", "target": "x" }));
    let (old, new) = (spec(json!({ "link": old })), spec(json!({ "link": new })));
    assert_eq!(run(&site, apply(&new, Some(&old)), false).await.result, CHANGED);
    assert!(site.at("old").is_symlink(), "the earlier spec was never applied");
}

#[tokio::test]
async fn what_did_nothing_undoes_nothing_whatever_the_file_is_now() {
    let site = Site::new();
    fs::create_dir(site.at("etc")).unwrap();
    fs::write(site.at("etc/app.conf"), "[a]\nb = 1\n").unwrap();
    for params in [
        json!({ "ini": { "path": "/etc/app.conf", "section": "a", "option": "b", "value": 1 } }),
        json!({ "line": { "path": "/etc/app.conf", "line": "b = 1" } }),
    ] {
        let spec = spec(params);
        fs::write(site.at("etc/app.conf"), "[a]\nb = 1\n").unwrap();
        assert_eq!(run(&site, apply(&spec, None), false).await.result, UNCHANGED);
        fs::write(site.at("etc/app.conf"), b"[a\nb = \xff\n").unwrap();
        assert_eq!(run(&site, Work::Remove { spec: spec.clone() }, true).await.result, UNCHANGED, "{:?}", spec.params);
    }
}

#[tokio::test]
async fn a_forgotten_record_leaves_the_host_as_it_is() {
    let site = Site::new();
    let link = spec(json!({ "link": { "path": "/l", "target": "x" } }));
    assert_eq!(run(&site, apply(&link, None), false).await.result, CHANGED);
    let forgotten = run(&site, Work::Forget { spec: link.clone() }, true).await;
    assert_eq!(forgotten.result, UNCHANGED);
    assert!(printed(&forgotten).contains("nothing on the host was changed"));
    assert!(site.at("l").is_symlink());
    let task = id("svc.task");
    assert!(!site.host.claims.is_held(&link.params.subject(&task)[0]), "another task may claim it");

    // A process goes on, and no agent supervises it any more.
    let process = spec(json!({ "process": { "run": "echo $$ > pid; exec sleep 1000" } }));
    assert_eq!(run(&site, apply(&process, None), false).await.result, CHANGED);
    let pid = site.host.processes()[0].pid;
    assert_eq!(run(&site, Work::Forget { spec: process }, true).await.result, UNCHANGED);
    assert!(site.host.processes().is_empty());
    let site = site.after_a_crash();
    site.host.adopt(&[]).await;
    assert!(site.host.processes().is_empty());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it still runs");
}

#[tokio::test]
async fn two_names_of_one_thing_have_one_owner() {
    let site = Site::new();
    fs::create_dir_all(site.at("run")).unwrap();
    fs::create_dir(site.at("var")).unwrap();
    symlink("../run", site.at("var/run")).unwrap();
    let link = |path: &str| spec(json!({ "link": { "path": path, "target": "x" } }));
    let (own, alias) = (link("/run/x"), link("/var/run/x"));
    let other = |work| Job { task: id("svc.other"), ..job("svc.task", work, None, None) };

    assert_eq!(site.create(&own).await, CHANGED);
    let refused = site.host.run(other(apply(&alias, None)), Cancel::never()).await;
    assert!(refused.result.as_ref().is_err_and(|e| e.contains("svc.task owns")), "{refused:?}");
    // Whichever goes leaves it to the other.
    assert_eq!(site.remove(&own).await, UNCHANGED);
    assert!(site.at("run/x").is_symlink());
    assert_eq!(site.host.run(other(Work::Remove { spec: alias.clone() }), Cancel::never()).await.result, CHANGED);

    // A task that names it otherwise from now on has not given it up.
    assert_eq!(site.create(&own).await, CHANGED);
    assert_eq!(site.update(&own, &alias).await, UNCHANGED);
    assert!(site.at("run/x").is_symlink());
    assert_eq!(site.remove(&alias).await, CHANGED);
    assert!(!site.at("run/x").is_symlink());
}

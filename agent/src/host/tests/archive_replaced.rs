//! What members of archives replace, and what comes back when they go.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use serde_json::json;

use super::{
    archive::{FILE, archive, tar, tree},
    *,
};

/// A site with a file, a link and a file of equal content where members are to be.
fn occupied() -> Site {
    let site = Site::new();
    fs::create_dir_all(site.at("opt/app/etc")).unwrap();
    fs::set_permissions(site.at("opt/app/etc"), fs::Permissions::from_mode(0o750)).unwrap();
    for (name, text) in [("etc/a", "theirs"), ("etc/equal", "equal")] {
        fs::write(site.at("opt/app").join(name), text).unwrap();
        fs::set_permissions(site.at("opt/app").join(name), fs::Permissions::from_mode(0o604)).unwrap();
    }
    symlink("etc", site.at("opt/app/link")).unwrap();
    site
}

fn over_occupied() -> TaskSpec {
    let members = [
        ("etc/a", FILE, 0o644, "ours"),
        ("etc/equal", FILE, 0o644, "equal"),
        ("link", FILE, 0o644, ""),
        ("new", FILE, 0o644, ""),
    ];
    archive(&tar(&members), json!({}))
}

/// What is below the directory of the archive, with modes and contents.
fn described(site: &Site) -> Vec<String> {
    let dir = site.at("opt/app");
    let of = |name: String| {
        let path = dir.join(name.split(" -> ").next().unwrap());
        let mode = fs::symlink_metadata(&path).unwrap().mode() & 0o7777;
        format!("{name} {mode:o} {}", fs::read_to_string(path).unwrap_or_default())
    };
    tree(&dir).into_iter().map(of).collect()
}

#[tokio::test]
async fn what_members_replaced_comes_back() {
    let site = occupied();
    let (before, ours) = (described(&site), over_occupied());
    assert_eq!(site.create(&ours).await, CHANGED);
    assert_eq!(tree(&site.at("opt/app")), ["etc/", "etc/a", "etc/equal", "link", "new"]);
    assert_eq!(fs::read_to_string(site.at("opt/app/etc/a")).unwrap(), "ours");
    // Whatever versions there are, and whichever task has the members in the end.
    let [two, three] = ["two", "three"].map(|text| {
        let members = [("etc/a", FILE, 0o600, text), ("etc/equal", FILE, 0o600, text), ("link", FILE, 0o644, text)];
        archive(&tar(&members), json!({}))
    });
    assert_eq!(site.update(&ours, &two).await, CHANGED);
    let heir = Job { others: vec![id("svc.task")], ..job("svc.heir", apply(&three, None), None, None) };
    let finished = site.host.run(heir, Cancel::never()).await;
    site.note("svc.heir", &finished, false);
    assert_eq!(finished.result, CHANGED);
    let removal = job("svc.task", Work::Remove { spec: two }, None, None);
    let finished = site.host.run(Job { others: vec![id("svc.heir")], ..removal }, Cancel::never()).await;
    site.note("svc.task", &finished, true);
    assert_eq!(fs::read_to_string(site.at("opt/app/etc/a")).unwrap(), "three");
    assert_eq!(site.job("svc.heir", Work::Remove { spec: three }, None).await.result, CHANGED);
    assert_eq!(described(&site), before);
    assert!(site.found.lock().unwrap().is_empty(), "{:?}", site.found);
}

#[tokio::test]
async fn what_an_update_has_no_more_gives_back_what_it_replaced() {
    let site = occupied();
    let (before, ours) = (described(&site), over_occupied());
    assert_eq!(site.create(&ours).await, CHANGED);
    let rest = archive(&tar(&[("etc/equal", FILE, 0o644, "changed")]), json!({}));
    assert_eq!(site.update(&ours, &rest).await, CHANGED);
    let left = described(&site);
    assert_eq!([&left[..2], &left[3..]], [&before[..2], &before[3..]]);
    assert_eq!(site.found.lock().unwrap().keys().collect::<Vec<_>>(), ["replaced path /opt/app/etc/equal"]);
    // A directory in place of a file that was there.
    let deep = archive(&tar(&[("etc/equal/x", FILE, 0o644, "deep")]), json!({}));
    assert_eq!(site.update(&rest, &deep).await, CHANGED);
    assert_eq!(site.remove(&deep).await, CHANGED);
    assert_eq!(described(&site), before);
}

#[tokio::test]
async fn two_archives_give_back_what_both_replaced_with_the_last() {
    for order in [["svc.task", "svc.other"], ["svc.other", "svc.task"]] {
        let site = occupied();
        let (before, ours) = (described(&site), over_occupied());
        for task in ["svc.task", "svc.other"] {
            assert_eq!(site.job(task, apply(&ours, None), None).await.result, CHANGED);
        }
        for (at, task) in order.into_iter().enumerate() {
            assert_eq!(fs::read_to_string(site.at("opt/app/etc/a")).unwrap(), "ours", "{at}");
            site.job(task, Work::Remove { spec: ours.clone() }, None).await.result.unwrap();
        }
        assert_eq!(described(&site), before, "{order:?}");
        assert!(site.found.lock().unwrap().is_empty(), "{:?}", site.found);
    }
}

#[tokio::test]
async fn on_remove_decides_about_what_members_replaced() {
    for on_remove in [OnRemove::Keep, OnRemove::Delete] {
        let mut site = occupied();
        site.on_remove = on_remove;
        let ours = over_occupied();
        assert_eq!(site.create(&ours).await, CHANGED);
        let unpacked = described(&site);
        site.remove(&ours).await.unwrap();
        match on_remove {
            OnRemove::Keep => assert_eq!(described(&site), unpacked),
            _ => assert_eq!(described(&site), ["etc/ 750 "]),
        }
        assert!(site.found.lock().unwrap().is_empty(), "{on_remove}: {:?}", site.found);
    }
}

#[tokio::test]
async fn what_members_replace_is_bounded_and_survives_a_kill() {
    let mut site = occupied();
    let mut settings = Settings::new(site.at("/"), site.state(""), "lab".parse().unwrap(), "n0".parse().unwrap());
    settings.max_found = 8;
    site.host = Host::new(settings).unwrap();
    let (before, ours) = (described(&site), over_occupied());
    let error = site.create(&ours).await.unwrap_err();
    assert!(
        error.starts_with("the member `etc/equal` cannot be put in place, and nothing of the archive was: ")
            && error.contains("`max_found`"),
        "{error}"
    );
    assert_eq!(described(&site), before, "nothing was changed");
    site.host.found_settled().unwrap();
    assert_eq!(fs::read_dir(site.state("found")).unwrap().flatten().filter(|e| e.file_name().len() > 20).count(), 0);

    // The job ends, and its end never reaches the ledger.
    site.host = Site::host(&site.dir);
    let finished = site.host.run(job("svc.task", apply(&ours, None), None, None), Cancel::never()).await;
    assert_eq!(finished.result, CHANGED);
    let site = site.after_a_crash();
    assert_eq!(site.create(&ours).await, UNCHANGED);
    assert_eq!(site.remove(&ours).await, CHANGED);
    assert_eq!(described(&site), before);
}

#[tokio::test]
async fn a_file_over_a_member_brings_back_what_was_before_both() {
    for (is_there, is_updated) in [(false, false), (false, true), (true, false), (true, true)] {
        let site = Site::new();
        if is_there {
            fs::create_dir_all(site.at("opt/app")).unwrap();
            fs::write(site.at("opt/app/a"), "theirs").unwrap();
        }
        let [mut ours, two] = ["one", "two"].map(|text| archive(&tar(&[("a", FILE, 0o644, text)]), json!({})));
        assert_eq!(site.create(&ours).await, CHANGED);
        let over = file("/opt/app/a", "over");
        assert_eq!(site.job("svc.file", apply(&over, None), None).await.result, CHANGED);
        if is_updated {
            assert_eq!(site.update(&ours, &two).await, CHANGED);
            ours = two;
        }
        site.remove(&ours).await.unwrap();
        assert_eq!(fs::read_to_string(site.at("opt/app/a")).unwrap(), "over");
        assert_eq!(site.job("svc.file", Work::Remove { spec: over }, None).await.result, CHANGED);
        let left = fs::read_to_string(site.at("opt/app/a")).ok();
        assert_eq!(left.as_deref(), is_there.then_some("theirs"), "updated: {is_updated}");
        assert!(site.found.lock().unwrap().is_empty(), "{:?}", site.found);
    }
}

#[tokio::test]
async fn an_archive_passes_to_another_task_whichever_of_the_two_is_carried_out_first() {
    for (more, former_first) in [(json!({}), false), (json!({}), true), (json!({ "creates": "/opt/app/new" }), true)] {
        let site = occupied();
        let (before, ours) =
            (described(&site), archive(&tar(&[("etc/a", FILE, 0o644, "ours"), ("new", FILE, 0o644, "")]), more));
        assert_eq!(site.job("svc.one", apply(&ours, None), None).await.result, CHANGED);
        assert_eq!(site.job("svc.two", apply(&file("/f", "x"), None), None).await.result, CHANGED);
        let there = described(&site);
        let promise =
            |task: &str, spec: &TaskSpec| Promise { task: id(task), params: spec.params.clone(), plan: Generation(1) };
        site.host.promise(&[promise("svc.one", &file("/f", "x")), promise("svc.two", &ours)]);
        let exchanged = |task: &str, other: &str, after: &TaskSpec, previous: &TaskSpec| {
            let memory = site.memories.lock().unwrap().get(other).cloned();
            let work = Work::Apply { spec: after.clone(), content: None, previous: Some(previous.clone()) };
            Job { others: vec![id(other)], touched: true, ..job(task, work, None, memory) }
        };
        let mut jobs = vec![
            exchanged("svc.two", "svc.one", &ours, &file("/f", "x")),
            exchanged("svc.one", "svc.two", &file("/f", "x"), &ours),
        ];
        if former_first {
            jobs.reverse();
        }
        for job in jobs {
            let task = job.task.to_string();
            let finished = site.host.run(job, Cancel::never()).await;
            site.note(&task, &finished, false);
            finished.result.unwrap();
            assert_eq!(described(&site), there, "after {task}");
        }
        site.host.promise(&[]);
        assert_eq!(site.job("svc.two", Work::Remove { spec: ours.clone() }, None).await.result, CHANGED);
        assert_eq!(described(&site), before, "former first: {former_first}");
    }
}

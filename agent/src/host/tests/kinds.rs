//! A task that becomes one of another kind, or moves below or above where it was: whatever the two are, the host is as if the new one had
//! been applied to it alone, and gets back what was there before the first.

use super::{
    archive::{FILE, tar},
    *,
};

/// What a task may be at `/x`, or right below it.
fn kinds() -> Vec<TaskSpec> {
    let packed = tar(&[("below", FILE, 0o644, "of the archive\n")]);
    let archive = TaskSpec { content: Some(Shipped::of(&packed)), ..spec(json!({ "archive": { "dest": "/x" } })) };
    vec![
        archive,
        file("/x", "a = 1\n"),
        file("/x/below", "b\n"),
        spec(json!({ "link": { "path": "/x", "target": "elsewhere", "force": true } })),
        spec(json!({ "directory": { "path": "/x" } })),
        spec(json!({ "ini": { "path": "/x", "section": "s", "option": "o", "value": "1" } })),
        spec(json!({ "ini": { "path": "/x/below", "section": "s", "option": "o", "value": "1" } })),
        spec(json!({ "line": { "path": "/x", "line": "of the task" } })),
        spec(json!({ "line": { "path": "/x", "match": "^a", "line": "a = 2" } })),
        spec(json!({ "line": { "path": "/x/below", "line": "of the task" } })),
    ]
}

/// What was there before any task.
fn found(site: &Site, what: &str) {
    match what {
        "file" => fs::write(site.at("x"), "# theirs\na = 0\n").unwrap(),
        "directory" => fs::create_dir(site.at("x")).unwrap(),
        "link" => std::os::unix::fs::symlink("theirs", site.at("x")).unwrap(),
        _ => {}
    }
}

#[tokio::test]
async fn a_task_becomes_another_kind_at_one_path() {
    for there in ["nothing", "file", "directory", "link"] {
        for before in kinds() {
            for after in kinds().into_iter().filter(|after| *after != before) {
                let (site, alone) = (Site::new(), Site::new());
                found(&site, there);
                found(&alone, there);
                // Where one of the two cannot be at all, such as a file below a file that is not the task's, there is nothing to compare.
                if alone.create(&after).await.is_err() || site.create(&before).await.is_err() {
                    continue;
                }
                // The directory that was made for a file below stays.
                let is_below = |spec: &TaskSpec| format!("{:?}", spec.params).contains("/x/below");
                if is_below(&before) && !is_below(&after) {
                    continue;
                }
                let what = format!("{there}: {:?} → {:?}", before.params, after.params);
                let updated = site.update(&before, &after).await;
                assert!(updated.is_ok(), "{what}: {updated:?}");
                assert_eq!(tree(&site), tree(&alone), "{what}");
                let again = site.update(&after, &after).await;
                assert_eq!(again, UNCHANGED, "{what}");
                for host in [&site, &alone] {
                    let removed = host.job("svc.task", Work::Remove { spec: after.clone() }, None).await;
                    assert!(removed.result.is_ok(), "{what}: {removed:?}");
                }
                assert_eq!(tree(&site), tree(&alone), "{what}");
                assert!(site.found.lock().unwrap().is_empty(), "{what}");
            }
        }
    }
}

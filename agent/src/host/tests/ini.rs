//! `ini`.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
};

use serde_json::json;

use super::*;

const FOUND: &str = "# Mine.\n[DEFAULT]\ndebug=false\n\n[other]\nx=1\n";

fn ini(more: Value) -> TaskSpec {
    let mut params = json!({ "path": "/etc/app.conf" });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec(json!({ "ini": params }))
}

fn text(site: &Site) -> String {
    fs::read_to_string(site.at("etc/app.conf")).unwrap()
}

fn with(content: &str) -> Site {
    let site = Site::new();
    fs::create_dir(site.at("etc")).unwrap();
    fs::write(site.at("etc/app.conf"), content).unwrap();
    site
}

#[tokio::test]
async fn options_are_set_updated_removed_and_restored() {
    let site = with(FOUND);
    let first = ini(json!({ "values": { "DEFAULT": { "debug": true, "log": "/l" }, "new": { "a": ["1", "2"] } } }));
    assert_eq!(site.create(&first).await, CHANGED);
    let all = "# Mine.\n[DEFAULT]\ndebug=true\nlog=/l\n\n[other]\nx=1\n\n[new]\na=1\na=2\n";
    assert_eq!(text(&site), all);
    assert_eq!(site.update(&first, &first).await, UNCHANGED);

    // Drift.
    fs::write(site.at("etc/app.conf"), all.replace("debug=true", "debug=maybe")).unwrap();
    assert_eq!(site.update(&first, &first).await, CHANGED);
    assert_eq!(text(&site), all);

    // Options that the task no longer has get their earlier values back.
    let second = ini(json!({ "values": { "DEFAULT": { "log": "/m" } } }));
    assert_eq!(site.update(&first, &second).await, CHANGED);
    assert_eq!(text(&site), FOUND.replace("debug=false\n", "debug=false\nlog=/m\n"));
    assert_eq!(site.remove(&second).await, CHANGED);
    assert_eq!(text(&site), FOUND);
    assert_eq!(site.remove(&second).await, UNCHANGED);
}

#[tokio::test]
async fn a_file_created_by_the_task_is_removed_with_it() {
    let site = Site::new();
    let spec = ini(json!({ "section": "a", "option": "b", "value": 1, "mode": "0640" }));
    assert_eq!(site.create(&spec).await, CHANGED);
    assert_eq!(text(&site), "[a]\nb = 1\n");
    assert_eq!(fs::metadata(site.at("etc/app.conf")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(site.remove(&spec).await, CHANGED);
    assert!(!site.at("etc/app.conf").exists());

    let error = site.create(&ini(json!({ "section": "a", "option": "b", "value": 1, "create": false }))).await;
    assert_eq!(error, Err("/etc/app.conf is missing, and the task has `create = false`".to_owned()));
}

#[tokio::test]
async fn changes_by_others_are_kept() {
    let site = with(FOUND);
    let spec = ini(json!({ "section": "DEFAULT", "option": "debug", "value": "true" }));
    assert_eq!(site.create(&spec).await, CHANGED);
    fs::write(site.at("etc/app.conf"), "[DEFAULT]\ndebug=both\n").unwrap();
    let finished = site.job("svc.task", Work::Remove { spec: spec.clone() }, None).await;
    assert_eq!(finished.result, UNCHANGED);
    assert_eq!(finished.output.unwrap().head, "`debug` in [DEFAULT] was changed out of band: left as it is\n");
    assert_eq!(text(&site), "[DEFAULT]\ndebug=both\n");

    // The same where an update gives the option up.
    let site = with(FOUND);
    let two = ini(json!({ "values": { "DEFAULT": { "debug": true, "mine": 1 } } }));
    let one = ini(json!({ "values": { "DEFAULT": { "mine": 1 } } }));
    assert_eq!(site.create(&two).await, CHANGED);
    let edited = text(&site).replace("debug=true", "debug=both");
    fs::write(site.at("etc/app.conf"), &edited).unwrap();
    let finished = site.job("svc.task", apply(&one, Some(&two)), None).await;
    assert_eq!(finished.result, UNCHANGED);
    assert_eq!(finished.output.unwrap().head, "`debug` in [DEFAULT] was changed out of band: left as it is\n");
    assert_eq!(text(&site), edited);

    // Two tasks have options in one file; the second also claims an option of the first.
    let site = with(FOUND);
    let mine = ini(json!({ "values": { "DEFAULT": { "debug": true, "mine": 1 } } }));
    let theirs = ini(json!({ "values": { "DEFAULT": { "debug": true, "theirs": 1 } } }));
    for (task, spec) in [("svc.mine", &mine), ("svc.theirs", &theirs)] {
        assert_eq!(site.job(task, apply(spec, None), None).await.result, CHANGED);
    }
    assert_eq!(site.job("svc.mine", Work::Remove { spec: mine }, None).await.result, CHANGED);
    assert_eq!(text(&site), FOUND.replace("debug=false\n", "debug=true\ntheirs=1\n"));
}

#[tokio::test]
async fn what_a_failed_update_set_is_given_back() {
    let site = with(FOUND);
    let value = |value: &str| ini(json!({ "section": "DEFAULT", "option": "debug", "value": value }));
    site.create(&value("one")).await.unwrap();
    // It was not ready: the record still has the first.
    site.update(&value("two"), &value("one")).await.unwrap();
    assert_eq!(site.remove(&value("one")).await, CHANGED);
    assert_eq!(text(&site), FOUND);
}

#[tokio::test]
async fn options_and_sections_can_be_absent() {
    let site = with(FOUND);
    let option = ini(json!({ "section": "DEFAULT", "option": "debug", "state": "absent" }));
    let section = ini(json!({ "section": "other", "state": "absent" }));
    for (task, spec) in [("svc.o", &option), ("svc.s", &section)] {
        assert_eq!(site.job(task, apply(spec, None), None).await.result, CHANGED);
        assert_eq!(site.job(task, apply(spec, None), None).await.result, UNCHANGED);
    }
    assert_eq!(text(&site), "# Mine.\n[DEFAULT]\n\n");
    for (task, spec) in [("svc.o", option), ("svc.s", section)] {
        assert_eq!(site.job(task, Work::Remove { spec }, None).await.result, CHANGED);
    }
    assert_eq!(text(&site), FOUND);
}

#[tokio::test]
async fn owner_and_mode_are_kept() {
    let site = with(FOUND);
    let path = site.at("etc/app.conf");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    if is_root() {
        std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
    }
    let before = fs::metadata(&path).unwrap();
    let spec = ini(json!({ "section": "DEFAULT", "option": "debug", "value": 1, "mode": "0644" }));
    assert_eq!(site.create(&spec).await, CHANGED);
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.mode(), before.uid(), before.gid()), (after.mode(), after.uid(), after.gid()));
}

#[tokio::test]
async fn all_other_bytes_stay() {
    let site = with("");
    let path = site.at("etc/app.conf");
    let found = b"# caf\xe9\r\n[a]\r\nname = Zo\xeb\r\nport = 1\n[b]\nx = 1\n";
    fs::write(&path, found).unwrap();
    let spec = ini(json!({ "values": { "a": { "port": 2 }, "b": { "y": 1 } } }));
    assert_eq!(site.create(&spec).await, CHANGED);
    let expect = b"# caf\xe9\r\n[a]\r\nname = Zo\xeb\r\nport = 2\n[b]\nx = 1\ny = 1\n";
    assert_eq!(fs::read(&path).unwrap(), expect);
    assert_eq!(site.update(&spec, &spec).await, UNCHANGED);
    assert_eq!(site.remove(&spec).await, CHANGED);
    assert_eq!(fs::read(&path).unwrap(), found);
    // So does the missing line break at the end.
    fs::write(&path, "[a]\nb = 1").unwrap();
    let more = ini(json!({ "values": { "a": { "c": 1 }, "z": { "c": 1 } } }));
    assert_eq!(site.create(&more).await, CHANGED);
    assert_eq!(fs::read(&path).unwrap(), b"[a]\nb = 1\nc = 1\n\n[z]\nc = 1\n");
    assert_eq!(site.remove(&more).await, CHANGED);
    assert_eq!(fs::read(&path).unwrap(), b"[a]\nb = 1");
    fs::write(&path, found).unwrap();
    // A value in Latin-1 comes back as it was.
    let name = ini(json!({ "section": "a", "option": "name", "value": "Zoe" }));
    assert_eq!(site.create(&name).await, CHANGED);
    assert_eq!(site.remove(&name).await, CHANGED);
    assert_eq!(fs::read(&path).unwrap(), found);
}

#[tokio::test]
async fn an_option_that_was_changed_since_is_not_restored_by_an_update() {
    let site = with(FOUND);
    let both = ini(json!({ "values": { "DEFAULT": { "debug": true, "log": "/l" } } }));
    let one = ini(json!({ "section": "DEFAULT", "option": "log", "value": "/l" }));
    assert_eq!(site.create(&both).await, CHANGED);
    fs::write(site.at("etc/app.conf"), text(&site).replace("debug=true", "debug=theirs")).unwrap();
    let finished = site.job("svc.task", apply(&one, Some(&both)), None).await;
    assert_eq!(finished.result, UNCHANGED, "a task that changed nothing fires nothing");
    assert_eq!(finished.output.unwrap().head, "`debug` in [DEFAULT] was changed out of band: left as it is\n");
    assert_eq!(text(&site), FOUND.replace("debug=false\n", "debug=theirs\nlog=/l\n"));
    assert_eq!(site.update(&one, &one).await, UNCHANGED);
}

#[tokio::test]
async fn a_file_that_is_not_ini_is_not_changed() {
    let one = json!({ "section": "DEFAULT", "option": "debug", "value": 1 });
    for (content, fault) in [
        (
            &b"[a]\nno option here\n"[..],
            "/etc/app.conf is not an INI file and was not changed; fix it by hand: line 2: has neither `=` nor `:`: `no option here`",
        ),
        (
            b"a = 1\nb\0 = 1\n",
            "/etc/app.conf is not an INI file and was not changed; fix it by hand: line 2: contains a NUL byte",
        ),
    ] {
        let site = with("");
        fs::write(site.at("etc/app.conf"), content).unwrap();
        assert_eq!(site.create(&ini(one.clone())).await, Err(fault.to_owned()));
        assert_eq!(fs::read(site.at("etc/app.conf")).unwrap(), content);
    }
    let site = with("");
    fs::write(site.at("etc/app.conf"), vec![b'\n'; (4 << 20) + 1]).unwrap();
    let error = site.create(&ini(one.clone())).await.unwrap_err();
    assert_eq!(error, "/etc/app.conf: has more than 4096 KiB; such a file is not edited");

    // Links are not followed, neither at the file itself nor above it.
    let site = Site::new();
    let outside = site.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("app.conf"), FOUND).unwrap();
    symlink(&outside, site.at("etc")).unwrap();
    let error = site.create(&ini(one.clone())).await.unwrap_err();
    assert_eq!(error, "/etc/app.conf: the symbolic link /etc leads out of the root");
    fs::remove_file(site.at("etc")).unwrap();
    fs::create_dir(site.at("etc")).unwrap();
    symlink(outside.join("app.conf"), site.at("etc/app.conf")).unwrap();
    let error = site.create(&ini(one)).await.unwrap_err();
    assert!(error.contains("is a symbolic link to") && error.contains("name the file itself"), "{error}");
    assert_eq!(fs::read_to_string(outside.join("app.conf")).unwrap(), FOUND);
}

#[tokio::test]
async fn the_last_editor_removes_the_file_that_the_first_one_made() {
    let of = |section: &str, option: &str| ini(json!({ "section": section, "option": option, "value": 1 }));
    let tasks = [("svc.a", of("s", "a")), ("svc.b", of("s", "b")), ("svc.c", of("t", "c"))];
    let all = "[s]\na = 1\nb = 1\n\n[t]\nc = 1\n";
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut site = Site::new();
        fs::create_dir(site.at("etc")).unwrap();
        for (task, spec) in &tasks {
            assert_eq!(site.job(task, apply(spec, None), None).await.result, CHANGED);
        }
        assert_eq!(text(&site), all);
        for at in order {
            let (task, spec) = &tasks[at];
            assert_eq!(site.job(task, Work::Remove { spec: spec.clone() }, None).await.result, CHANGED);
            site.host.found_settled().unwrap();
            site = site.after_a_crash();
            for (task, spec) in order.iter().skip_while(|other| **other != at).skip(1).map(|left| &tasks[*left]) {
                site.host.adopt(&[(id(task), spec.params.clone())]).await;
            }
        }
        assert!(!site.at("etc/app.conf").exists(), "{order:?}: {:?}", text(&site));
        assert!(site.found.lock().unwrap().is_empty());
    }

    // Unless others have written into it, or made it.
    let site = Site::new();
    fs::create_dir(site.at("etc")).unwrap();
    for (task, spec) in &tasks {
        site.job(task, apply(spec, None), None).await.result.unwrap();
    }
    fs::write(site.at("etc/app.conf"), format!("{all}theirs = 1\n")).unwrap();
    for (task, spec) in &tasks {
        site.job(task, Work::Remove { spec: spec.clone() }, None).await.result.unwrap();
    }
    assert_eq!(text(&site), "[t]\ntheirs = 1\n");
    for found in ["", "\n", "[s]\n", "# Theirs.\n", "[t]\nz = 1", "# Theirs."] {
        let site = with(found);
        for (task, spec) in &tasks {
            site.job(task, apply(spec, None), None).await.result.unwrap();
        }
        for (task, spec) in &tasks {
            site.job(task, Work::Remove { spec: spec.clone() }, None).await.result.unwrap();
        }
        assert_eq!(text(&site), found);
    }
}

#[tokio::test]
async fn a_file_that_the_task_made_goes_with_its_last_option() {
    let site = Site::new();
    fs::create_dir(site.at("etc")).unwrap();
    let option = json!({ "section": "a", "option": "b", "value": 1 });
    let absent = json!({ "section": "a", "option": "b", "state": "absent" });
    let [option, absent] = [option, absent].map(ini);
    assert_eq!(site.create(&option).await, CHANGED);
    assert_eq!(site.update(&option, &absent).await, CHANGED);
    assert!(!site.at("etc/app.conf").exists(), "as on a host that never had the option");
    assert_eq!(site.update(&absent, &absent).await, UNCHANGED);
    assert_eq!(site.remove(&absent).await, UNCHANGED);
}

#[tokio::test]
async fn what_was_absent_comes_back_at_its_place_and_in_its_bytes() {
    const FOUND: &str = "\
top=0\r\n# Mine.\n[one]\n  first : 1\n\nmulti=a\n# between\nb   =  2\n  and more\nmulti = c\nlast=9\n\n[two]\nx=1\n[three]\ny=1\n[two]\nz=1";
    let absent = |section: &str, option: &str| json!({ "section": section, "option": option, "state": "absent" });
    for (params, left) in [
        (absent("", "top"), FOUND.replace("top=0\r\n", "")),
        (absent("one", "first"), FOUND.replace("  first : 1\n", "")),
        (absent("one", "multi"), FOUND.replace("multi=a\n", "").replace("multi = c\n", "")),
        (absent("one", "b"), FOUND.replace("b   =  2\n  and more\n", "")),
        (absent("one", "last"), FOUND.replace("last=9\n", "")),
        (absent("two", "z"), FOUND.replace("z=1", "")),
        (json!({ "section": "one", "option": "multi", "value": "d" }), {
            FOUND.replace("multi=a\n", "multi=d\n").replace("multi = c\n", "")
        }),
        (json!({ "values": { "one": { "first": [], "b": [], "multi": [], "last": [] } } }), {
            FOUND.replace(
                "  first : 1\n\nmulti=a\n# between\nb   =  2\n  and more\nmulti = c\nlast=9\n",
                "\n# between\n",
            )
        }),
        (json!({ "section": "two", "state": "absent" }), {
            FOUND.replace("[two]\nx=1\n", "").replace("[two]\nz=1", "")
        }),
        (json!({ "section": "one", "state": "absent" }), {
            "top=0\r\n# Mine.\n[two]\nx=1\n[three]\ny=1\n[two]\nz=1".to_owned()
        }),
    ] {
        let (site, spec) = (with(FOUND), ini(params));
        assert_eq!(site.create(&spec).await, CHANGED);
        assert_eq!(text(&site), left);
        assert_eq!(site.update(&spec, &spec).await, UNCHANGED);
        assert_eq!(site.remove(&spec).await, CHANGED);
        assert_eq!(text(&site), FOUND, "{spec:?}");
    }
    // Others have changed what is around it.
    let site = with("[s]\na=1\nb=2\nc=3\nd=4\n");
    let b = ini(absent("s", "b"));
    assert_eq!(site.create(&b).await, CHANGED);
    for (now, expect) in [
        ("[s]\na = x\nc=y\nd=4\n", "[s]\na = x\nb=2\nc=y\nd=4\n"),
        ("[s]\nnew=1\na=1\nd=4\nc=3\n", "[s]\nnew=1\na=1\nb=2\nd=4\nc=3\n"),
        ("[s]\nd=4\nc=3\n", "[s]\nd=4\nb=2\nc=3\n"),
        ("[s]\nd=4\n", "[s]\nd=4\nb=2\n"),
        ("[t]\nd=4\n", "[t]\nd=4\n\n[s]\nb=2\n"),
    ] {
        fs::write(site.at("etc/app.conf"), now).unwrap();
        let memory = site.memories.lock().unwrap().clone();
        assert_eq!(site.remove(&b).await, CHANGED);
        assert_eq!(text(&site), expect);
        *site.memories.lock().unwrap() = memory;
    }
}

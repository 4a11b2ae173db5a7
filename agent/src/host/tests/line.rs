//! `line`, and the validation of new content.

use std::{fs, os::unix::fs::MetadataExt};

use serde_json::json;

use super::*;

const FOUND: &str = "# mine\n#Port 22\nlast\n";

fn line(more: Value) -> TaskSpec {
    let mut params = json!({ "path": "/x.conf" });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec(json!({ "line": params }))
}

fn with(content: &str) -> Site {
    let site = Site::new();
    fs::write(site.at("x.conf"), content).unwrap();
    site
}

fn text(site: &Site) -> String {
    fs::read_to_string(site.at("x.conf")).unwrap()
}

#[tokio::test]
async fn a_line_is_set_updated_and_the_replaced_line_restored() {
    let site = with(FOUND);
    let port = |n: u32| line(json!({ "line": format!("Port {n}"), "match": "^#?Port " }));
    assert_eq!(site.create(&port(23)).await, CHANGED);
    assert_eq!(text(&site), FOUND.replace("#Port 22", "Port 23"));
    assert_eq!(site.update(&port(23), &port(23)).await, UNCHANGED);
    fs::write(site.at("x.conf"), FOUND.replace("#Port 22", "Port 99")).unwrap();
    assert_eq!(site.update(&port(23), &port(23)).await, CHANGED);
    assert_eq!(site.update(&port(23), &port(24)).await, CHANGED);
    assert_eq!(text(&site), FOUND.replace("#Port 22", "Port 24"));
    // Other parameters with the same result are not a change.
    let after = line(json!({ "line": "Port 24", "match": "^#?Port ", "after": "mine" }));
    assert_eq!(site.update(&port(24), &after).await, UNCHANGED);
    assert_eq!(site.remove(&after).await, CHANGED);
    assert_eq!(text(&site), FOUND);
    assert_eq!(site.remove(&after).await, UNCHANGED);
}

#[tokio::test]
async fn an_inserted_line_follows_its_parameters() {
    let site = with(FOUND);
    let [a, b] = ["a", "b"].map(|text| line(json!({ "line": text, "after": "^# mine" })));
    assert_eq!(site.create(&a).await, CHANGED);
    assert_eq!(site.update(&a, &b).await, CHANGED);
    assert_eq!(text(&site), FOUND.replace("mine\n", "mine\nb\n"));
    // Lines that others wrote meanwhile are kept.
    fs::write(site.at("x.conf"), text(&site) + "theirs\n").unwrap();
    assert_eq!(site.update(&b, &b).await, UNCHANGED);
    // A second task claims the same line.
    assert_eq!(site.job("svc.other", apply(&b, None), None).await.result, UNCHANGED);
    let finished = site.job("svc.task", Work::Remove { spec: b.clone() }, None).await;
    assert_eq!(finished.result, UNCHANGED);
    assert_eq!(finished.output.unwrap().head, "`b` in /x.conf is left in place: svc.other claims it, too\n");
}

#[tokio::test]
async fn all_other_bytes_stay() {
    let site = Site::new();
    let path = site.at("x.conf");
    // Line breaks of both kinds, a line in Latin-1, a NUL byte, no line break at the end.
    let found = b"# caf\xe9\r\none\ntwo\r\n\0three\nlast";
    fs::write(&path, found).unwrap();
    assert_eq!(site.create(&line(json!({ "line": "one" }))).await, UNCHANGED);
    assert_eq!(fs::read(&path).unwrap(), found);

    for (params, expect) in [
        (json!({ "line": "2", "match": "^(two|2)$" }), &b"# caf\xe9\r\none\n2\r\n\0three\nlast"[..]),
        (json!({ "line": "new", "after": "^# caf" }), b"# caf\xe9\r\nnew\r\none\ntwo\r\n\0three\nlast"),
        (json!({ "line": "new", "after": "^one$" }), b"# caf\xe9\r\none\nnew\ntwo\r\n\0three\nlast"),
        (json!({ "line": "new" }), b"# caf\xe9\r\none\ntwo\r\n\0three\nlast\nnew\n"),
        (json!({ "match": "^# caf|^two$", "state": "absent" }), b"one\n\0three\nlast"),
        (
            json!({ "block": "1\n2", "marker": "; {mark}", "before": "^two$" }),
            b"# caf\xe9\r\none\n; BEGIN\n1\n2\n; END\ntwo\r\n\0three\nlast",
        ),
    ] {
        let spec = line(params);
        assert_eq!(site.create(&spec).await, CHANGED);
        assert_eq!(fs::read(&path).unwrap(), expect);
        assert_eq!(site.update(&spec, &spec).await, UNCHANGED);
        assert_eq!(site.remove(&spec).await, CHANGED);
        assert_eq!(fs::read(&path).unwrap(), found);
    }
}

#[tokio::test]
async fn blocks_and_files_are_created_and_removed() {
    let site = Site::new();
    let [one, two] = ["1\n2\n", "1\n3\n"].map(|block| line(json!({ "block": block, "mode": "0600" })));
    assert_eq!(site.create(&one).await, CHANGED);
    assert_eq!(fs::metadata(site.at("x.conf")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(site.update(&one, &two).await, CHANGED);
    assert_eq!(text(&site), "# BEGIN groundplan svc.task\n1\n3\n# END groundplan svc.task\n");
    assert_eq!(site.update(&two, &two).await, UNCHANGED);
    assert_eq!(site.remove(&two).await, CHANGED);
    assert!(!site.at("x.conf").exists());

    let site = with(FOUND);
    let absent = line(json!({ "match": "^#", "state": "absent" }));
    assert_eq!(site.create(&absent).await, CHANGED);
    assert_eq!(text(&site), "last\n");
    assert_eq!(site.remove(&absent).await, CHANGED);
    assert_eq!(text(&site), FOUND);
}

#[tokio::test]
async fn invalid_new_content_leaves_the_old_file() {
    let site = Site::new();
    let spec = |content: &str, validate: Value| TaskSpec {
        content: Some(Shipped::of(content.as_bytes())),
        ..spec(json!({ "template": { "path": "/x.conf", "validate": validate } }))
    };
    let good = spec("[a]\nb = c\n", json!("ini"));
    assert_eq!(site.create(&good).await, CHANGED);
    let kept = "and the old file stays as it is";
    let refuses = json!({ "command": "! grep -n b %s >&2" });
    for (bad, error) in [
        (
            spec("[a]\nb = c\n[oh\n", json!("ini")),
            format!("the new content is not valid INI, {kept}: line 3: the section's header is not closed: `[oh`"),
        ),
        (
            spec("{", json!("json")),
            format!("the new content is not valid JSON, {kept}: EOF while parsing an object at line 1 column 1"),
        ),
        (spec("a\nb\n", refuses.clone()), format!("the command refuses the new content, {kept}: 2:b")),
    ] {
        assert_eq!(site.update(&good, &bad).await, Err(format!("/x.conf: {error}")));
        assert_eq!(text(&site), "[a]\nb = c\n");
        assert_eq!(fs::read_dir(site.at("")).unwrap().count(), 1, "nothing is left beside it");
    }
    let good = spec("a\n", json!({ "command": ["grep", "-q", "a", "%s"] }));
    assert_eq!(site.update(&good, &good).await, CHANGED);
    assert_eq!(text(&site), "a\n");
    let none = spec("c\n", json!({ "command": ["no-such-checker", "%s"] }));
    assert_eq!(site.update(&good, &none).await, Err("this host has no `no-such-checker`".to_owned()));

    let line = line(json!({ "line": "b", "validate": refuses }));
    assert!(site.create(&line).await.unwrap_err().contains("refuses the new content"));
    assert_eq!(text(&site), "a\n");
}

#[tokio::test]
async fn the_last_editor_removes_the_file_that_the_first_one_made() {
    let option = spec(json!({ "ini": { "path": "//x.conf", "section": "", "option": "o", "value": 1 } }));
    let tasks = [("svc.a", line(json!({ "line": "a" }))), ("svc.b", line(json!({ "block": "b" }))), ("svc.o", option)];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for found in [None, Some(""), Some("z"), Some("y\nz=1")] {
            let site = Site::new();
            if let Some(found) = found {
                fs::write(site.at("x.conf"), found).unwrap();
            }
            for at in order {
                site.job(tasks[at].0, apply(&tasks[at].1, None), None).await.result.unwrap();
            }
            for (task, spec) in &tasks {
                site.job(task, Work::Remove { spec: spec.clone() }, None).await.result.unwrap();
            }
            let left = fs::read_to_string(site.at("x.conf")).ok();
            assert_eq!(left.as_deref(), found, "{order:?}");
            assert!(site.found.lock().unwrap().is_empty());
        }
    }
    let site = Site::new();
    let [present, absent] = ["present", "absent"].map(|state| line(json!({ "line": "a", "state": state })));
    assert_eq!(site.create(&present).await, CHANGED);
    assert_eq!(site.update(&present, &absent).await, CHANGED);
    assert!(!site.at("x.conf").exists(), "as on a host that never had the line");
    assert_eq!(site.update(&absent, &absent).await, UNCHANGED);
}

#[tokio::test]
async fn lines_that_were_absent_come_back_at_their_places() {
    const FOUND: &str = "a {\n  x\r\n}\n\nb {\n  x\r\n  y\n}\n\nc {\n}\n";
    let block = "# BEGIN m\n1\n# END m\n";
    for (params, found) in [
        (json!({ "line": "  x", "state": "absent" }), FOUND.to_owned()),
        (json!({ "match": "^(  x|})$", "state": "absent" }), FOUND.to_owned()),
        (json!({ "match": "^b", "state": "absent" }), FOUND.to_owned()),
        (json!({ "match": "^$", "state": "absent" }), FOUND.to_owned()),
        (json!({ "match": "y|c", "state": "absent" }), FOUND.to_owned()),
        (json!({ "match": ".", "state": "absent" }), FOUND.to_owned()),
        (json!({ "block": "", "marker": "# {mark} m", "state": "absent" }), {
            FOUND.replacen("}\n\n", &format!("}}\n\n{block}"), 1)
        }),
    ] {
        let (site, spec) = (with(&found), line(params));
        assert_eq!(site.create(&spec).await, CHANGED);
        assert_eq!(site.update(&spec, &spec).await, UNCHANGED);
        assert_eq!(site.remove(&spec).await, CHANGED);
        assert_eq!(text(&site), found, "{spec:?}");
    }
}

#[tokio::test]
async fn a_killed_agent_knows_what_it_did_to_a_file() {
    let ini = spec(json!({ "ini": { "path": "/i", "section": "s", "option": "o", "value": "new" } }));
    let line = spec(json!({ "line": { "path": "/l", "line": "new" } }));
    for (spec, path, before) in [(ini, "i", "[s]\no = old\n"), (line, "l", "old\n")] {
        let site = Site::new();
        fs::write(site.at(path), before).unwrap();
        // The agent is killed after the change, and before the end of the job is in its ledger.
        site.host.run(job("svc.task", apply(&spec, None), None, None), Cancel::never()).await.result.unwrap();
        let site = site.after_a_crash();
        let noted = site.found.lock().unwrap().remove("memory svc.task").expect("a note");
        let Found::Value { value } = noted else { panic!("{noted:?}") };
        let (_, memory): (TaskParams, Value) = serde_json::from_str(&value).unwrap();
        site.memories.lock().unwrap().insert("svc.task".to_owned(), memory);
        assert_eq!(site.job("svc.task", apply(&spec, Some(&spec)), None).await.result, UNCHANGED);
        assert_eq!(site.remove(&spec).await, CHANGED);
        assert_eq!(fs::read_to_string(site.at(path)).unwrap(), before);
    }
}

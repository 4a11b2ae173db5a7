//! `groundplan check` on folders and commits.

use std::{fs, path::Path};

use insta::assert_snapshot;

use super::{Repository, groundplan, quickstart};

#[test]
fn a_good_site_is_summarized() {
    let run = groundplan(&quickstart(), &["check"]);
    assert_eq!(run.text(), "exit 0\n--- stdout\n3 nodes, 3 services, 12 tasks: no errors\n");
    let json = groundplan(&quickstart(), &["check", "--format", "json"]).json();
    let expected =
        serde_json::json!({ "version": 1, "ok": true, "nodes": 3, "services": 3, "tasks": 12, "diagnostics": [] });
    assert_eq!(json, expected);
}

#[test]
fn every_error_is_reported_with_its_place() {
    let site = Repository::quickstart();
    site.edit("services/app/app.conf.j2", "{{ greeting }}", "{{ greting }}");
    site.edit("services/front/service.toml", "requires = [\"app/ready\"]", "requires = [\"application/ready\"]");
    site.edit("inventory/nodes.toml", "services = [\"database\"]", "services = [\"databse\"]");
    site.edit("site.toml", "db_port = 17432", "db_port = ");
    assert_snapshot!(site.groundplan(&["check"]).text());
    // What is committed is still good.
    assert_eq!(site.groundplan(&["check", "HEAD"]).code, 0);
    let json = site.groundplan(&["check", "--format", "json"]).json();
    assert_eq!(json["ok"], false);
    assert!(json["diagnostics"].as_array().unwrap().iter().all(|d| d["file"].is_string()), "{json:#}");
}

#[test]
fn a_folder_without_a_site_gets_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let words = |args: &[&str]| {
        let run = groundplan(dir.path(), args);
        assert_eq!(run.code, 1, "{}", run.text());
        run.stdout + &run.stderr
    };
    assert!(words(&["check"]).contains("this is not a groundplan site"));
    assert!(words(&["check", "nowhere"]).contains("name the top directory of a site, or a revision"));
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(words(&["check", "file"]).contains("is a file"));
    std::os::unix::fs::symlink(quickstart().join("site.toml"), dir.path().join("site.toml")).unwrap();
    assert!(words(&["check"]).contains("symbolic link"));
}

#[test]
fn the_folder_may_be_named_from_elsewhere() {
    let site = Repository::quickstart();
    let path = site.path().to_str().unwrap();
    assert_eq!(groundplan(Path::new("/"), &["check", path]).code, 0);
    assert_eq!(groundplan(Path::new("/"), &["check", "-C", path, "main"]).code, 0);
}

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
    let nowhere = words(&["check", "nowhere"]);
    assert!(nowhere.contains("there is no directory `nowhere`"), "{nowhere}");
    assert!(nowhere.contains("name the top directory of a site, or a revision"), "{nowhere}");
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

#[test]
fn what_is_neither_a_folder_nor_a_commit_is_named() {
    let run = Repository::quickstart().groundplan(&["check", "nonexist"]);
    assert_eq!(
        run.text(),
        "exit 1\n--- stderr\nerror: `nonexist` is no directory, and names no commit of the repository here\n  \
         → name the top directory of a site, or a revision of the repository here\n"
    );
}

#[test]
fn warnings_refuse_nothing_unless_they_are_denied() {
    let site = Repository::quickstart();
    fs::write(site.path().join("hosts.yml"), "all:\n").unwrap();
    fs::write(site.path().join("inventory/hosts.yml"), "all:\n").unwrap();
    let run = site.groundplan(&["check"]);
    assert_eq!(run.code, 0, "{}", run.text());
    for text in [
        "warning: `hosts.yml` is not read",
        "warning: `inventory/hosts.yml` is not read",
        "2 warnings in 2 files",
        "no errors, but warnings",
    ] {
        assert!(run.stdout.contains(text), "{text}: {}", run.text());
    }
    assert_eq!(site.groundplan(&["check", "--deny-warnings"]).code, 1);
    let json = site.groundplan(&["check", "--format", "json"]).json();
    assert_eq!((&json["ok"], &json["diagnostics"][0]["severity"]), (&true.into(), &"warning".into()), "{json:#}");
    // A commit is checked alike.
    site.commit("stray files");
    assert_eq!(site.groundplan(&["check", "--deny-warnings", "HEAD"]).code, 1);
    assert_eq!(site.groundplan(&["check", "--deny-warnings", "HEAD~1"]).code, 0);
}

#[test]
fn a_misspelt_key_of_a_plugin_is_a_warning_where_its_schema_permits_it() {
    let site = Repository::of(&super::examples().join("plugins"));
    let plugin = "plugins/limits.schema.json";
    let described = fs::read_to_string(site.path().join(plugin)).unwrap();
    let open = described.replace(",\n    \"additionalProperties\": false", "");
    assert_ne!(described, open);
    site.edit("services/worker/service.toml", "memory = ", "memry = ");
    let run = site.groundplan(&["check"]);
    assert!(run.code == 1 && run.stdout.contains("error: the limits has no parameter `memry`"), "{}", run.text());
    fs::write(site.path().join(plugin), open).unwrap();
    let run = site.groundplan(&["check"]);
    assert_eq!(run.code, 0, "{}", run.text());
    for text in
        ["warning: the limits has no parameter `memry`", "did you mean `memory`?", "services/worker/service.toml:13:"]
    {
        assert!(run.stdout.contains(text), "{text}: {}", run.text());
    }
    assert_eq!(site.groundplan(&["check", "--deny-warnings"]).code, 1);
}

/// A name that a file gives must not act on the terminal that shows it.
#[test]
fn text_of_a_site_does_not_act_on_a_terminal() {
    let site = Repository::quickstart();
    site.edit(
        "services/front/service.toml",
        "requires = [\"app/ready\"]",
        "requires = [\"app/\\u001b[2Jready\\u202e\"]",
    );
    for format in ["text", "json"] {
        for color in ["always", "never"] {
            let run = site.groundplan(&["--color", color, "check", "--format", format]);
            assert_eq!(run.code, 1);
            assert!(!run.stdout.contains("\u{1b}[2J") && !run.stdout.contains('\u{202e}'), "{:?}", run.stdout);
        }
    }
    let colored = site.groundplan(&["--color", "always", "check"]).stdout;
    assert!(colored.contains("\u{1b}[1m") && !colored.contains('\u{fdd0}'), "{colored:?}");
}

/// What a program in a branch does when a reviewer checks that branch: nothing, until an operator asks for its description.
#[test]
fn a_plugin_runs_only_to_be_described_on_request() {
    let site = Repository::of(&super::examples().join("plugins"));
    let mark = site.path().join("mark");
    let program = format!(
        "#!/bin/sh\ntouch '{}'\necho '{{ \"summary\": \"x\", \"schema\": {{ \"type\": \"object\" }} }}'\n",
        mark.display()
    );
    let path = site.path().join("plugins/clock");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let check = site.groundplan(&["check"]);
    assert_eq!(check.code, 1);
    for text in [
        "error: the plugin has no `plugins/clock.schema.json` beside it, which describes its kind",
        "groundplan plugin schema clock",
    ] {
        assert!(check.stdout.contains(text), "{text}: {}", check.text());
    }
    assert!(!mark.exists());
    let written = site.groundplan(&["plugin", "schema", "clock"]);
    assert!(written.code == 0 && written.stdout.contains("wrote plugins/clock.schema.json"), "{}", written.text());
    assert!(mark.exists());
    fs::remove_file(&mark).unwrap();
    assert_eq!(site.groundplan(&["check", "--deny-warnings"]).code, 0);
    site.commit("a clock");
    assert!(site.groundplan(&["plan", "HEAD"]).code != 1);
    assert!(!mark.exists());
    // Formatted otherwise it is the same.
    let described = site.path().join("plugins/clock.schema.json");
    let text = fs::read_to_string(&described).unwrap();
    fs::write(&described, text.replace('\n', "")).unwrap();
    let again = site.groundplan(&["plugin", "schema", "clock"]);
    assert!(again.code == 0 && again.stdout.contains("up to date"), "{}", again.text());
    // Those of the examples are what their programs print.
    for name in ["limits", "timezone"] {
        let run = site.groundplan(&["plugin", "schema", name]);
        assert!(run.code == 0 && run.stdout.contains("up to date"), "{}", run.text());
    }
    let missing = site.groundplan(&["plugin", "schema", "none"]);
    assert!(missing.code == 1 && missing.text().contains("cannot read plugins/none"), "{}", missing.text());
}

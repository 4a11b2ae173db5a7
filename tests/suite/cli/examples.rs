//! Every example under `docs/examples`: valid, planned, and with the effects that its README describes. `quickstart` is deployed by the suite of that
//! name, `plugins` by that of the hosts, and `keystone` by `tests/run keystone`.

use std::fs;

use super::{Repository, copy, examples};

/// `action task@node` of what a plan would do, in its order.
fn actions(site: &Repository, range: &str) -> Vec<String> {
    let json = site.groundplan(&["plan", range, "--format", "json"]).json();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let action = |a: &serde_json::Value| {
        format!("{} {}.{}@{}", text(&a["action"]), text(&a["service"]), text(&a["task"]), text(&a["node"]))
    };
    json["actions"].as_array().expect("actions").iter().map(action).collect()
}

#[test]
fn each_is_valid_and_plans() {
    let mut seen = Vec::new();
    for entry in fs::read_dir(examples()).expect("the examples") {
        let folder = entry.expect("an entry").path();
        let site = Repository::of(&folder);
        let check = site.groundplan(&["check", "--deny-warnings"]);
        assert_eq!(check.code, 0, "{}: {}", folder.display(), check.text());
        let plan = site.groundplan(&["plan", "--from-nothing"]);
        assert_eq!(plan.code, 2, "{}: {}", folder.display(), plan.text());
        assert!(folder.join("README.md").is_file(), "{} has no README.md", folder.display());
        seen.push(folder.file_name().expect("a name").to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["keystone", "plugins", "quickstart"], "another one? name here the test that deploys it");
}

#[test]
fn keystones_tasks_are_in_order() {
    let site = Repository::of(&examples().join("keystone"));
    let order = actions(&site, "HEAD");
    let place = |task: &str| {
        let task = format!("create {task}");
        order.iter().position(|action| *action == task).unwrap_or_else(|| panic!("{task} is not in {order:#?}"))
    };
    for (before, after) in [
        ("mariadb.server@db-0", "keystone-database.account@db-0"),
        ("keystone-database.account@db-0", "keystone.schema@id-0"),
        ("rabbitmq.server@mq-0", "keystone-messaging.account@mq-0"),
        ("keystone-messaging.bound@mq-0", "keystone.api@id-0"),
        ("memcached.server@mq-0", "keystone.api@id-0"),
        ("keystone.schema@id-0", "keystone.api@id-0"),
        ("keystone.api@id-0", "keystone.bootstrap@id-0"),
    ] {
        assert!(place(before) < place(after), "{before}, {after}: {order:#?}");
    }
}

#[test]
fn keystones_changes_restart_what_its_readme_lists() {
    let site = Repository::of(&examples().join("keystone"));
    for (file, from, to, expected) in [
        (
            "services/keystone/service.toml",
            "token_lifetime = 3600",
            "token_lifetime = 7200",
            &["update keystone.config@id-0", "restart keystone.api@id-0"][..],
        ),
        (
            "services/mariadb/service.toml",
            "max_connections = 200",
            "max_connections = 300",
            &["update mariadb.config@db-0", "restart mariadb.server@db-0", "restart keystone.api@id-0"],
        ),
        (
            "services/memcached/service.toml",
            "megabytes = 64",
            "megabytes = 128",
            &["update memcached.config@mq-0", "restart memcached.server@mq-0"],
        ),
    ] {
        site.edit(file, from, to);
        site.commit(to);
        assert_eq!(actions(&site, "HEAD"), expected);
    }
}

#[test]
fn keystones_database_may_be_external() {
    let site = Repository::of(&examples().join("keystone"));
    // As in the README.
    copy(&site.path().join("variants/external-database"), site.path());
    site.git(&["rm", "-r", "-q", "services/mariadb"]);
    let check = site.groundplan(&["check", "--deny-warnings"]);
    assert_eq!(check.code, 0, "{}", check.text());
    site.commit("an external database");
    let orphan = site.git(&["commit-tree", "HEAD^{tree}", "-m", "from nothing"]);
    let all = actions(&site, &orphan);
    assert!(all.iter().all(|action| !action.ends_with("@db-0")), "{all:#?}");
    assert!(all.contains(&"create keystone.schema@id-0".to_owned()), "{all:#?}");
}

#[test]
fn the_plugins_changes_touch_what_its_readme_lists() {
    let site = Repository::of(&examples().join("plugins"));
    site.edit("services/worker/service.toml", "files = 4096", "files = 8192");
    site.commit("more files");
    let limits = ["update worker.limits@worker-0", "update worker.limits@worker-1"];
    let worker = ["restart worker.worker@worker-0", "restart worker.worker@worker-1"];
    assert_eq!(actions(&site, "HEAD"), [limits, worker].concat());
    // A program is an input of the tasks that use it, and of no others.
    site.edit("plugins/limits", "def main():", "# A comment.\ndef main():");
    site.commit("a comment");
    assert_eq!(actions(&site, "HEAD"), [limits, worker].concat());
    let why = site.groundplan(&["plan", "HEAD"]).text();
    assert!(why.contains("plugin limits changed (plugins/limits)"), "{why}");

    site.edit("site.toml", "Europe/Vienna", "Vienna/Europe?");
    let check = site.groundplan(&["check", "--deny-warnings"]);
    let errors = check.text();
    assert!(
        check.code == 1 && errors.contains("`zone` of the timezone: \"Vienna/Europe?\" does not match"),
        "{errors}"
    );
    assert!(errors.contains("services/clock/service.toml:11") && errors.contains("such as Europe/Vienna"), "{errors}");
}

//! `groundplan plan`: texts, JSON, exit codes.

use insta::assert_snapshot;

use super::Repository;

#[test]
fn an_edit_of_the_applications_configuration_restarts_the_application() {
    let site = Repository::quickstart();
    site.edit("services/app/service.toml", "greeting = \"hello\"", "greeting = \"good morning\"");
    let uncommitted = site.groundplan(&["plan"]);
    site.commit("greeting");
    let text = site.groundplan(&["plan", "HEAD~1..HEAD"]);
    assert_eq!(uncommitted.text(), text.text());
    assert_eq!(site.groundplan(&["plan", "HEAD"]).text(), text.text());
    assert_snapshot!("greeting_text", text.text());
    assert_snapshot!("greeting_json", site.groundplan(&["plan", "HEAD~1..", "--format", "json"]).text());
}

#[test]
fn what_waits_for_facts_is_shown_and_planned_once_they_are_known() {
    let site = Repository::quickstart();
    let when = "id = \"config\"\nwhen = \"facts.os.id == 'debian'\"\n";
    site.edit("services/app/service.toml", "id = \"config\"\n", when);
    site.edit("services/app/service.toml", "\"serve\"]", "\"serve\", \"now\"]");
    site.edit("services/app/service.toml", "source = \"app.pl\"", "mode = \"0700\", source = \"app.pl\"");
    site.commit("when");
    assert_snapshot!("waiting_text", site.groundplan(&["plan", "HEAD"]).text());
    let json = site.groundplan(&["plan", "HEAD", "--format", "json"]).json();
    assert_eq!(json["waiting"][0]["waits_for"], serde_json::json!(["facts of node beta"]), "{json:#}");

    let facts = r#"{ "facts": { "beta": { "os": { "id": "debian" } }, "gamma": { "os": { "id": "alpine" } } } }"#;
    std::fs::write(site.path().join("facts.json"), facts).expect("a file");
    assert_snapshot!("waiting_with_facts", site.groundplan(&["plan", "HEAD", "--facts", "facts.json"]).text());
    std::fs::write(site.path().join("facts.json"), "{ \"facts\": [] }").expect("a file");
    assert_snapshot!("waiting_with_bad_facts", site.groundplan(&["plan", "HEAD", "--facts", "facts.json"]).text());
}

#[test]
fn what_is_renamed_moves_and_what_contends_goes_first() {
    let site = Repository::quickstart();
    let file = site.path().join("services/app/service.toml");
    let text = std::fs::read_to_string(&file).expect("the service");
    for id in ["config", "server"] {
        assert!(text.contains(&format!("id = \"{id}\"")), "{text}");
    }
    let text = text.replace("id = \"config\"", "id = \"settings\"").replace("id = \"server\"", "id = \"daemon\"");
    std::fs::write(&file, text.replace("\"config\"", "\"settings\"")).expect("a file");
    site.commit("renamed");
    assert_snapshot!("renamed_text", site.groundplan(&["plan", "HEAD"]).text());
    assert_snapshot!("renamed_json", site.groundplan(&["plan", "HEAD", "--format", "json"]).text());
}

#[test]
fn a_comment_changes_nothing() {
    let site = Repository::quickstart();
    site.edit("services/app/service.toml", "# This is a comment", "# This is another comment");
    site.commit("comment");
    let run = site.groundplan(&["plan", "HEAD"]);
    assert_eq!(run.text(), "exit 0\n--- stdout\nnothing changes: 3 nodes untouched\n");
    let json = site.groundplan(&["plan", "HEAD", "--format", "json"]);
    assert_eq!(json.code, 0);
    assert_eq!(json.json()["actions"], serde_json::json!([]));
}

#[test]
fn the_databases_port_restarts_what_names_it_in_order() {
    let site = Repository::quickstart();
    site.edit("site.toml", "db_port = 17432", "db_port = 17433");
    site.commit("port");
    assert_snapshot!(site.groundplan(&["plan", "HEAD"]).text());
}

#[test]
fn a_fresh_site_creates_everything_in_order() {
    let site = Repository::quickstart();
    let root = site.groundplan(&["plan", "HEAD"]);
    assert_eq!(root.text(), site.groundplan(&["plan", "--from-nothing"]).text());
    assert_eq!(root.code, 2);
    let json = site.groundplan(&["plan", "HEAD", "--format", "json"]).json();
    let actions: Vec<String> = json["actions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| {
            assert_eq!(a["action"], "create");
            format!(
                "{}.{}@{}",
                a["service"].as_str().unwrap(),
                a["task"].as_str().unwrap(),
                a["node"].as_str().unwrap()
            )
        })
        .collect();
    let at = |name: &str| actions.iter().position(|a| a == name).unwrap_or_else(|| panic!("{name} in {actions:#?}"));
    assert_eq!(actions.len(), 16);
    assert!(at("database.server@alpha") < at("app.schema@beta"));
    assert!(at("app.schema@beta") < at("app.server@beta"));
    assert!(at("app.server@gamma") < at("front.server@alpha"));
}

#[test]
fn errors_exit_with_1_and_name_the_commit_that_has_them() {
    let site = Repository::quickstart();
    site.edit("site.toml", "db_port = 17432", "db_prt = 17432");
    site.commit("broken");
    let target = site.groundplan(&["plan", "HEAD~1..HEAD"]);
    assert_eq!((target.code, target.stdout.as_str()), (1, ""));
    assert!(target.stderr.contains("db_port") && target.stderr.contains("HEAD has"), "{}", target.text());
    site.edit("site.toml", "db_prt = 17432", "db_port = 17432");
    site.commit("fixed");
    let base = site.groundplan(&["plan", "HEAD~1..HEAD"]);
    assert_eq!(base.code, 1);
    assert!(base.stderr.contains("--from-nothing"), "{}", base.text());
    assert_eq!(site.groundplan(&["plan", "HEAD~2..HEAD"]).code, 0);
    for wrong in ["nowhere..HEAD", "HEAD...HEAD~1", "HEAD~99"] {
        let run = site.groundplan(&["plan", wrong]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{wrong}");
        assert!(!run.stderr.is_empty());
    }
}

#[test]
fn a_removal_shows_what_it_does_with_what_was_there() {
    let site = Repository::quickstart();
    let config = "path = \"/srv/front/front.conf\" }";
    site.edit("services/front/service.toml", config, &format!("{config}\non_remove = \"keep\""));
    site.commit("keep");
    let text = site.groundplan(&["plan", "HEAD"]).text();
    assert_eq!(text, "exit 0\n--- stdout\nnothing changes: 3 nodes untouched\n", "the node only records it");
    std::fs::write(site.path().join("services/front/service.toml"), "# Nothing.\n").expect("a file");
    let plan = site.groundplan(&["plan"]);
    let actions: Vec<String> = plan.stdout.lines().filter(|line| line.starts_with("remove")).map(row).collect();
    assert_eq!(
        actions,
        ["remove alpha front.server", "remove (keep) alpha front.config", "remove (restore) alpha front.program"],
        "{}",
        plan.text()
    );
    let json = site.groundplan(&["plan", "--format", "json"]).json();
    assert_eq!(json["actions"][1]["on_remove"], "keep", "{json:#}");
}

/// The action, node and task of a line of the table.
fn row(line: &str) -> String {
    let until = line.find(" task ").unwrap_or(line.len());
    line[..until].split_whitespace().collect::<Vec<_>>().join(" ")
}

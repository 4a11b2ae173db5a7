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
fn each_action_shows_what_it_does_to_what_runs() {
    let site = Repository::quickstart();
    site.edit("services/app/service.toml", "process = { ", "process = { env = { COLOUR = \"red\" }, ");
    site.commit("env");
    let plan = site.groundplan(&["plan", "HEAD"]);
    let columns = |line: &str| {
        line.split("  ").filter(|cell| !cell.is_empty()).take(3).map(str::trim).collect::<Vec<_>>().join(" ")
    };
    let rows = |plan: &str| plan.lines().filter(|line| line.starts_with("update")).map(columns).collect::<Vec<_>>();
    assert_eq!(rows(&plan.stdout), ["update, restarts beta app.server", "update, restarts gamma app.server"]);
    assert!(plan.stdout.contains("2 updates (2 restart) on 2 of 3 nodes"), "{}", plan.text());
    let json = site.groundplan(&["plan", "HEAD", "--format", "json"]).json();
    assert_eq!(json["actions"][0]["effects"], serde_json::json!(["restarts"]), "{json:#}");

    site.edit("services/app/service.toml", "process = { ", "process = { stop_timeout = \"20s\", ");
    site.commit("how it is stopped");
    let plan = site.groundplan(&["plan", "HEAD"]);
    assert_eq!(rows(&plan.stdout), ["update beta app.server", "update gamma app.server"], "{}", plan.text());
    let json = site.groundplan(&["plan", "HEAD", "--format", "json"]).json();
    assert_eq!(json["actions"][0]["effects"], serde_json::json!([]), "{json:#}");
}

/// A site in which an export is read by what a process and another export depend on.
fn with_exports() -> Repository {
    let folder = tempfile::tempdir().expect("a scratch directory");
    let files = [
        ("site.toml", "name = \"demo\"\n\n[vars]\nport = 1\n"),
        ("inventory/nodes.toml", "[groups.all]\nservices = [\"db\", \"app\"]\n\n[nodes.n1]\ngroups = [\"all\"]\n"),
        ("services/db/service.toml", "[[task]]\nid = \"address\"\nexport = { value = \"h:{{ port }}\" }\n"),
        (
            "services/app/service.toml",
            r#"
[service]
requires = ["db.address"]

[[task]]
id = "config"
file = { path = "/srv/conf", content = "{{ exports.db.address['n1'] }}" }

[[task]]
id = "server"
process = { run = ["app"] }
restart_on = ["config"]

[[task]]
id = "status"
export = { command = "status" }
run_on = ["server"]

[[task]]
id = "page"
file = { path = "/srv/page", content = "{{ exports.app.status['n1'] }}" }
"#,
        ),
    ];
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    Repository::of(folder.path())
}

#[test]
fn what_depends_on_a_changed_export_is_known_after_apply() {
    let site = with_exports();
    site.edit("site.toml", "port = 1", "port = 2");
    site.commit("port");
    let facts = site.path().join("facts.json");
    let known = r#"{ "exports": { "db.address": { "n1": "h:1" }, "app.status": { "n1": "up" } } }"#;
    std::fs::write(&facts, known).expect("a file");
    let plan = ["plan", "HEAD", "--facts", "facts.json"];
    assert_snapshot!("export_changed_text", site.groundplan(&plan).text());
    let json = site.groundplan(&[&plan[..], &["--format", "json"]].concat()).json();
    let rows: Vec<String> = json["actions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| format!("{} {} {}", a["action"], a["task"], a["known_after_apply"]).replace('"', ""))
        .collect();
    assert_eq!(
        rows,
        [
            "update address null",
            "update config [export db.address of n1]",
            "restart server [export db.address of n1]",
            "run status [export db.address of n1]",
            "update page [export app.status of n1]"
        ],
        "{json:#}"
    );
    // Where the export stays as it is, what uses it is not listed.
    site.edit("services/app/service.toml", "[\"app\"]", "[\"app\", \"now\"]");
    site.commit("another program");
    assert_snapshot!("export_unchanged_text", site.groundplan(&plan).text());
}

#[test]
fn a_first_plan_shows_the_whole_graph() {
    let site = with_exports();
    let plan = site.groundplan(&["plan", "HEAD"]);
    assert_snapshot!("early_export_text", plan.text());
    let json = site.groundplan(&["plan", "HEAD", "--format", "json"]).json();
    assert_eq!(json["actions"].as_array().map(Vec::len), Some(5), "{json:#}");
    assert_eq!(json["actions"][2]["waits_for"], serde_json::json!(["export db.address of n1"]), "{json:#}");
}

#[test]
fn what_is_created_once_a_value_is_known_is_restarted_by_no_trigger() {
    let site = with_exports();
    let service = "services/app/service.toml";
    site.edit(service, "content = \"{{ exports.db.address['n1'] }}\"", "content = \"x\"");
    site.edit(service, "[\"app\"]", "[\"app\", \"{{ exports.db.address['n1'] }}\"]");
    site.commit("the server reads the export");
    let plan = site.groundplan(&["plan", "HEAD", "--from-nothing"]);
    let row = plan.stdout.lines().find(|line| line.contains("app.server")).unwrap_or_default();
    assert!(
        row.starts_with("may create  n1    app.server  known after apply: export db.address of n1"),
        "{}",
        plan.text()
    );
}

#[test]
fn what_follows_from_a_parked_node_is_known_after_apply() {
    let site = with_exports();
    let nodes = "inventory/nodes.toml";
    site.edit(nodes, "\"db\", \"app\"", "\"app\"");
    site.edit(
        nodes,
        "[nodes.n1]",
        "[groups.db]\nservices = [\"db\"]\n\n[nodes.d1]\ngroups = [\"db\"]\nstate = \"parked\"\n\n[nodes.n1]",
    );
    let config = "[[task]]\nid = \"config\"\nfile = { path = \"/etc/db\", content = \"{{ port }}\" }\n";
    let service =
        format!("{config}\n[[task]]\nid = \"start\"\nprocess = {{ run = [\"db\"] }}\nrestart_on = [\"config\"]\n");
    std::fs::write(site.path().join("services/db/service.toml"), service).expect("a file");
    let app = "[[task]]\nid = \"server\"\nprocess = { run = [\"app\"] }\nrestart_on = [\"db.start\"]\n\n\
               [[task]]\nid = \"warm\"\ncommand = { run = [\"warm\"], unless = [\"true\"] }\nrun_on = [\"server\"]\n";
    std::fs::write(site.path().join("services/app/service.toml"), app).expect("a file");
    site.commit("a database that is parked");
    site.edit("site.toml", "port = 1", "port = 2");
    site.commit("port");
    let plan = site.groundplan(&["plan", "HEAD"]);
    assert_snapshot!("after_parked_text", plan.text());
    let json = site.groundplan(&["plan", "HEAD", "--format", "json"]).json();
    let decided = json["actions"].as_array().expect("actions").iter().filter(|a| a["node"] == "n1");
    let decided: Vec<&serde_json::Value> = decided.map(|action| &action["known_after_apply"]).collect();
    assert_eq!(decided, [&serde_json::json!(["changes on parked node d1"]); 2], "{json:#}");
}

#[test]
fn a_refused_removal_names_what_forbids_it() {
    let site = Repository::quickstart();
    let write = |text: &str| std::fs::write(site.path().join("services/front/service.toml"), text).expect("a file");
    let file = |id: &str, more: &str| {
        format!("[[task]]\nid = \"{id}\"\n{more}file = {{ path = \"/srv/{id}\", content = \"{id}\" }}\n")
    };
    write(&(file("other", "") + &file("data", "prevent_destroy = true\n")));
    site.commit("data");
    let refused = |run: &super::Run, stdout: &str| {
        assert_eq!((run.code, run.stdout.as_str()), (1, stdout), "{}", run.text());
        let stderr = words(&run.stderr);
        for part in [
            "`front.data` on alpha (services/front/service.toml:6)",
            "`prevent_destroy = true` forbids that",
            "first deploy a commit that sets `prevent_destroy = false` there, and then this one",
        ] {
            assert!(stderr.contains(part), "{part}: {}", run.text());
        }
        assert!(!run.text().contains("nothing"), "{}", run.text());
    };
    // The same file, with another text above.
    write(&format!("# A comment.\n# Another.\n{}", file("other", "")));
    refused(&site.groundplan(&["plan"]), "");
    let json = site.groundplan(&["plan", "--format", "json"]).json();
    let by = serde_json::json!([{
        "instance": "front.data@alpha", "file": "services/front/service.toml", "line": 6, "column": 19
    }]);
    assert_eq!((&json["prevented_by"], &json["prevented"]), (&by, &serde_json::json!(["front.data@alpha"])));
    // An update that gives up what the task owns.
    write(&(file("other", "") + &file("data", "prevent_destroy = true\n").replace("/srv/data", "/srv/elsewhere")));
    refused(&site.groundplan(&["plan"]), "");
}

#[test]
fn what_nodes_only_record_is_listed() {
    let site = Repository::quickstart();
    let service = |keys: &str| {
        let file = |id: &str, more: &str| {
            format!("[[task]]\nid = \"{id}\"\nfile = {{ path = \"/srv/{id}\", content = \"{id}\" }}\n{more}\n")
        };
        file("first", "") + &file("second", keys)
    };
    let write = |keys: &str| {
        std::fs::write(site.path().join("services/front/service.toml"), service(keys)).expect("a file");
        site.groundplan(&["plan"])
    };
    write("");
    site.commit("two files");
    for (keys, named) in [
        ("prevent_destroy = true", "prevent_destroy"),
        ("on_remove = \"keep\"\nconflicts = [\"gpu0\"]", "conflicts, on_remove"),
        ("requires = []", "requires"),
    ] {
        let plan = write(keys);
        let line = format!("recorded without any action: {named} of front.second on alpha");
        assert_eq!(plan.stdout, format!("nothing is done on any of 3 nodes\n{line}\n"), "{}", plan.text());
        assert_eq!(plan.code, 0);
    }
    // Beside what is done, an order that follows from it is not listed.
    std::fs::write(
        site.path().join("services/front/service.toml"),
        service("on_remove = \"keep\"").replace(
            "[[task]]\nid = \"second\"",
            "[[task]]\nid = \"between\"\nfile = { path = \"/srv/between\", content = \"\" }\n[[task]]\nid = \"second\"",
        ),
    )
    .expect("a file");
    let plan = site.groundplan(&["plan"]);
    let last = plan.stdout.lines().last().unwrap_or_default();
    assert_eq!(last, "recorded without any action: requires, on_remove of front.second on alpha", "{}", plan.text());
    assert_eq!(plan.stdout.lines().filter(|line| line.starts_with("recorded")).count(), 1, "{}", plan.text());
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
    // The fix of a broken commit is compared with what was deployed before it.
    let base = site.groundplan(&["plan", "HEAD~1..HEAD"]);
    assert_eq!(base.code, 0);
    assert!(base.stderr.contains("the newest commit before it without errors"), "{}", base.text());
    assert_eq!(site.groundplan(&["plan", "HEAD~2..HEAD"]).code, 0);
    for wrong in ["nowhere..HEAD", "nowhere...HEAD", "HEAD~99"] {
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
    assert_eq!(
        text,
        "exit 0\n--- stdout\nnothing is done on any of 3 nodes\nrecorded without any action: on_remove of front.config on alpha\n"
    );
    let json = site.groundplan(&["plan", "HEAD", "--format", "json"]).json();
    let recorded =
        serde_json::json!([{ "node": "alpha", "service": "front", "task": "config", "keys": ["on_remove"] }]);
    assert_eq!((&json["recorded"], &json["actions"]), (&recorded, &serde_json::json!([])));
    // An update that makes another thing of a task gives up what it was.
    site.edit("services/front/service.toml", "path = \"/srv/front/front.conf\"", "path = \"/srv/front/other.conf\"");
    let plan = site.groundplan(&["plan"]);
    assert!(
        plan.stdout.lines().map(words).any(|row| row.starts_with("update (keep) alpha front.config ")),
        "{}",
        plan.text()
    );
    let user = |name: &str| {
        let user = format!("user = {{ name = \"{name}\", remove_home = true }}");
        let text = format!("[[task]]\nid = \"account\"\n{user}\n");
        std::fs::write(site.path().join("services/front/service.toml"), text).expect("a file");
    };
    user("ann");
    site.commit("an account");
    user("bob");
    let plan = site.groundplan(&["plan"]);
    let updated = plan.stdout.lines().map(words).find(|line| line.starts_with("update")).unwrap_or_default();
    assert!(
        updated.starts_with("update (restore)") && updated.contains("destroys the home directory of the user ann"),
        "{}",
        plan.text()
    );
    site.git(&["reset", "-q", "--hard", "HEAD~1"]);
    std::fs::write(site.path().join("services/front/service.toml"), "# Nothing.\n").expect("a file");
    let plan = site.groundplan(&["plan"]);
    let actions: Vec<String> = plan.stdout.lines().filter(|line| line.starts_with("remove")).map(row).collect();
    assert_eq!(
        actions,
        [
            "remove, stops alpha front.server",
            "remove (keep) alpha front.config",
            "remove (restore) alpha front.program"
        ],
        "{}",
        plan.text()
    );
    let json = site.groundplan(&["plan", "--format", "json"]).json();
    assert_eq!(json["actions"][1]["on_remove"], "keep", "{json:#}");
}

/// The action, node and task of a line of the table.
fn row(line: &str) -> String {
    words(&line[..line.find(" task ").unwrap_or(line.len())])
}

/// A line with one space between words.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_site_that_is_renamed_is_refused() {
    let site = Repository::quickstart();
    site.edit("site.toml", "name = \"quickstart\"", "name = \"other\"");
    let refused = |args: &[&str]| {
        let run = site.groundplan(args);
        assert_eq!(
            run.text(),
            "exit 1\n--- stderr\nerror: this change is refused: it renames the site from `quickstart` to `other`\n  \
             → agents know the site by its name: keep `quickstart`, or start a planner with another --state for a new site\n"
        );
    };
    refused(&["plan"]);
    refused(&["plan", "--format", "json"]);
    site.commit("renamed");
    refused(&["plan", "HEAD~1..HEAD"]);
    assert_eq!(site.groundplan(&["plan", "--from-nothing"]).code, 2);
}

/// The README shows what the program prints.
#[test]
fn the_plan_in_the_readme_is_the_one_that_is_printed() {
    let readme =
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let shown = readme.split("groundplan plan -C groundplan-up/site HEAD~1..HEAD\n").nth(1).expect("a transcript");
    let shown = shown.split("```").next().unwrap_or_default();
    let site = Repository::quickstart();
    site.edit("site.toml", "db_port = 17432", "db_port = 17433");
    site.commit("The database moves");
    let run = site.groundplan(&["plan", "HEAD~1..HEAD"]);
    assert_eq!(run.stdout, shown, "{}", run.text());
}

#[test]
fn three_dots_compare_with_the_newest_common_commit() {
    let site = Repository::quickstart();
    site.git(&["checkout", "-q", "-b", "topic"]);
    site.edit("services/app/service.toml", "greeting = \"hello\"", "greeting = \"good morning\"");
    site.commit("topic");
    site.git(&["checkout", "-q", "main"]);
    site.edit("site.toml", "db_port = 17432", "db_port = 17433");
    site.commit("main goes on");
    let run = site.groundplan(&["plan", "main...topic"]);
    assert_eq!(run.code, 2, "{}", run.text());
    assert!(run.stdout.contains("var greeting") && !run.stdout.contains("db_port"), "{}", run.text());
    assert_eq!(run.stderr, "");
    // With two dots, what the branch lacks is taken back, which is said.
    let run = site.groundplan(&["plan", "main..topic"]);
    assert!(run.stdout.contains("db_port 17433 → 17432"), "{}", run.text());
    assert_eq!(
        run.stderr,
        "note: topic is no fast-forward of main: main has 1 commit that topic lacks, which this plan takes back; with three dots, `main...topic`, it shows only \
         what topic adds\n"
    );
    assert_eq!(site.groundplan(&["plan", "main~1..main"]).stderr, "");
    site.git(&["checkout", "-q", "--orphan", "alone"]);
    site.commit("alone");
    assert!(site.groundplan(&["plan", "main...alone"]).stderr.contains("have no commit in common"));
}

#[test]
fn a_base_with_errors_gives_way_to_the_newest_commit_without() {
    let site = Repository::quickstart();
    site.edit("services/app/service.toml", "greeting = \"hello\"", "greeting = ");
    site.commit("broken");
    site.edit("services/app/service.toml", "greeting = ", "greeting = \"good morning\"");
    let fixed = |args: &[&str]| {
        let run = site.groundplan(args);
        assert_eq!(run.code, 2, "{}", run.text());
        assert!(run.stdout.contains("var greeting hello → good morning"), "{}", run.text());
        assert!(run.stderr.contains("has 1 error, so a planner refuses it: compared with"), "{}", run.text());
    };
    fixed(&["plan"]);
    site.git(&["checkout", "-q", "-b", "fix"]);
    site.commit("fixed");
    fixed(&["plan", "HEAD~1..HEAD"]);
    fixed(&["plan", "HEAD"]);
    fixed(&["plan", "main..fix"]);
    // By a short id: the common commit has no name.
    fixed(&["plan", "main...fix"]);
    let broken = site.git(&["rev-parse", "--short=9", "main"]);
    let run = site.groundplan(&["plan", "main...fix"]);
    assert!(run.stderr.starts_with(&format!("note: {broken} has 1 error")), "{}", run.text());
}

#[test]
fn commits_without_errors_are_searched_for_and_subjects_shown_safely() {
    let site = Repository::quickstart();
    site.git(&["commit", "-q", "--allow-empty", "-m", "good \u{1b}[31mold\u{202e}"]);
    site.edit("site.toml", "db_port = 17432", "db_port = ");
    site.commit("broken");
    site.edit("site.toml", "db_port = ", "db_port = 17433");
    let run = site.groundplan(&["plan"]);
    assert!(run.stderr.contains("good ␛[31mold\u{fffd}, the newest commit before it"), "{:?}", run.stderr);
}

/// What is planned of a work tree is what a commit of it would bring.
#[test]
fn a_work_tree_is_planned_as_git_would_commit_it() {
    let site = Repository::quickstart();
    site.edit("services/app/service.toml", "greeting = \"hello\"", "greeting = \"good morning\"");
    std::fs::write(site.path().join(".gitattributes"), "*.j2 text eol=crlf\n").unwrap();
    std::fs::write(site.path().join(".gitignore"), "/inventory/local.toml\n").unwrap();
    site.commit("attributes");
    // Line endings as a checkout on another system has them, and a file that git ignores.
    let template = site.path().join("services/app/app.conf.j2");
    let text = std::fs::read_to_string(&template).unwrap().replace('\n', "\r\n");
    std::fs::write(&template, text).unwrap();
    std::fs::write(site.path().join("inventory/local.toml"), "[nodes.local]\n").unwrap();
    let run = site.groundplan(&["plan"]);
    assert_eq!(run.text(), "exit 0\n--- stdout\nnothing changes: 3 nodes untouched\n");
    // A folder that a sparse checkout leaves out is not removed.
    site.git(&["sparse-checkout", "set", "--no-cone", "/*", "!/services/front/"]);
    assert!(!site.path().join("services/front").exists());
    assert_eq!(site.groundplan(&["plan"]).code, 0);
    // Files that are new count, and nothing of the repository changes.
    let state = || (site.git(&["status", "--porcelain"]), site.git(&["count-objects", "-v"]));
    let before = state();
    std::fs::write(site.path().join("inventory/more.toml"), "[nodes.more]\n").unwrap();
    let run = site.groundplan(&["plan", "--format", "json"]);
    assert_eq!(run.code, 0, "a node without services changes nothing: {}", run.text());
    std::fs::write(
        site.path().join("inventory/more.toml"),
        "[nodes.more]\ngroups = [\"app\"]\naddress = \"127.0.0.14\"\n",
    )
    .unwrap();
    assert_eq!(site.groundplan(&["plan"]).code, 2);
    std::fs::remove_file(site.path().join("inventory/more.toml")).unwrap();
    assert_eq!(state(), before);
}

#[test]
fn a_plan_in_which_everything_waits_exits_with_2() {
    let site = Repository::quickstart();
    site.edit("services/app/service.toml", "id = \"config\"", "id = \"config\"\nwhen = \"facts.os.id == 'debian'\"");
    site.commit("when");
    site.edit("services/app/app.conf.j2", "{{ greeting }}", "{{ greeting }}!");
    site.commit("changes what waits");
    let json = site.groundplan(&["plan", "HEAD", "--format", "json"]);
    let actions = json.json()["actions"].clone();
    let waits = |action: &serde_json::Value| action["known_after_apply"].is_array();
    assert!(actions.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(waits)), "{}", json.text());
    assert_eq!(json.code, 2, "{}", json.text());
    // What waits is not touched by a commit that changes nothing of the site.
    site.git(&["commit", "-q", "--allow-empty", "-m", "nothing"]);
    assert_eq!(site.groundplan(&["plan", "HEAD"]).code, 0);
}

/// The recipes of docs/plan-format.md and of the help print what they promise.
#[test]
fn the_recipes_for_jq_print_something() {
    let docs = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plan-format.md"))
        .unwrap();
    let site = Repository::quickstart();
    site.git(&["checkout", "-q", "-b", "topic"]);
    site.edit("site.toml", "db_port = 17432", "db_port = 17433");
    site.commit("port");
    let folder = groundplan_tests::binaries::groundplan().parent().unwrap().to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let recipes: Vec<&str> =
        docs.lines().filter(|line| line.starts_with("groundplan plan") && line.contains("jq")).collect();
    assert!(recipes.len() >= 2, "{recipes:?}");
    for recipe in recipes {
        let output = std::process::Command::new("sh")
            .args(["-c", recipe])
            .env("PATH", &path)
            .current_dir(site.path())
            .output()
            .unwrap();
        assert!(!output.stdout.is_empty(), "{recipe}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

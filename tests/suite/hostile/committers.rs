//! A committer, or a node whose values a commit uses, tries to run code where it must not, and to pass for another node.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use groundplan_tests::{binaries, brokers::Kind, fleet::Fleet};
use serde_json::Value;

/// The status, once the commit is refused.
fn refused(fleet: &Fleet, commit: &str) -> Value {
    fleet.wait("the commit to be refused", || {
        let status = fleet.ask("one", &["status"])?;
        (status["refused"]["commit"]["id"] == commit).then_some(status)
    })
}

const INVENTORY: &str = "[groups.db]\nservices = [\"db\"]\n[groups.app]\nservices = [\"app\"]\n\n[nodes.evil]\ngroups = [\"db\"]\n\n[nodes.n1]\ngroups = [\"app\"]\n";

/// A service that uses what `evil` publishes in this task.
fn app(task: &str) -> String {
    format!("[service]\nrequires = [\"db.addr\"]\n\n[[task]]\nid = \"use\"\n{task}\n")
}

#[test]
fn what_a_node_publishes_does_not_run_on_another() {
    let db = "[[task]]\nid = \"addr\"\nexport = { path = \"/addr\" }\n";
    let unquoted = app("command = { run = \"echo {{ exports.db.addr['evil'] }}\" }");
    let files = [
        ("site.toml", "name = \"testsite\"\n"),
        ("inventory/nodes.toml", INVENTORY),
        ("services/db/service.toml", db),
        ("services/app/service.toml", &unquoted),
    ];
    let mut fleet = Fleet::new(Kind::Embedded, &files);
    fs::create_dir_all(fleet.root("evil")).expect("a folder");
    fs::write(fleet.root("evil").join("addr"), "127.0.0.1; touch pwned; x='$(touch pwned)'").expect("a file");
    for node in ["evil", "n1"] {
        fleet.start_agent(node);
    }
    fleet.start_planner("one");
    let status = refused(&fleet, &fleet.git(&["rev-parse", "HEAD"]));
    let fault = &status["refused"]["diagnostics"][0];
    assert!(fault["message"].as_str().is_some_and(|text| text.contains("unquoted in a shell line")), "{status:#}");
    assert_eq!(fault["at"]["line"], 6, "{status:#}");

    // Quoted, as an argument, and in a file it is what it is: text.
    let quoted = app("command = { run = \"printf %s {{ exports.db.addr['evil'] | quote }} > said\" }")
        + "\n[[task]]\nid = \"args\"\ncommand = { run = [\"touch\", \"of {{ exports.db.addr['evil'] }}\"] }\n";
    let commit = fleet.commit(&[("services/app/service.toml", &quoted)], "quoted");
    fleet.converged("one", &commit);
    let said = "127.0.0.1; touch pwned; x='$(touch pwned)'";
    assert_eq!(fleet.file("n1", "said").as_deref(), Some(said));
    assert!(fleet.root("n1").join(format!("of {said}")).exists());
    assert_eq!(fleet.file("n1", "pwned"), None);
}

#[test]
fn what_a_node_reports_begins_no_line_of_a_file() {
    let conf = app(
        "file = { path = \"/conf\", content = \"addr {{ exports.db.addr['evil'] }}\\nrole {{ facts.local.role }}\\n\" }",
    );
    let files = [
        ("site.toml", "name = \"testsite\"\n"),
        ("inventory/nodes.toml", INVENTORY),
        ("services/db/service.toml", "[[task]]\nid = \"addr\"\nexport = { path = \"/addr\", pattern = \"[0-9.]+\" }\n"),
        ("services/app/service.toml", &conf),
    ];
    let mut fleet = Fleet::new(Kind::Embedded, &files);
    fs::create_dir_all(fleet.root("evil")).expect("a folder");
    let publish = |fleet: &Fleet, text: &str| {
        fs::write(fleet.root("evil").join("addr"), text).expect("a file");
    };
    publish(&fleet, "10.0.0.1\nroot-command id");
    let facts = fleet.facts_dir("n1");
    fs::create_dir_all(&facts).expect("a folder");
    fs::write(facts.join("role"), "#!/bin/sh\nprintf 'web\\nroot-command id'\n").expect("a program");
    fs::set_permissions(facts.join("role"), fs::Permissions::from_mode(0o755)).expect("an executable");
    for node in ["evil", "n1"] {
        fleet.start_agent(node);
    }
    fleet.start_planner("one");
    // The agent fails what does not fit: a hostile one would not, which the planner's tests cover.
    let head = fleet.git(&["rev-parse", "HEAD"]);
    let status = fleet.failed("one", &head);
    assert!(status.to_string().contains("has several lines"), "{status:#}");

    publish(&fleet, "10.0.0.1");
    let commit = fleet.commit(&[("x", "1")], "again");
    let waits = fleet.wait("the fact to be refused", || {
        let status = fleet.rollout_of("one", &commit)?;
        let text = status.to_string();
        text.contains("what a node reported has a line break in it").then_some(text)
    });
    assert_eq!(fleet.file("n1", "conf"), None, "{waits}");
    let lines = app(
        "file = { path = \"/conf\", content = \"addr {{ exports.db.addr['evil'] }}\\n{% for l in facts.local.role | lines %}role {{ l }}\\n{% endfor %}\" }",
    );
    let commit = fleet.commit(&[("services/app/service.toml", &lines)], "line by line");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("n1", "conf").as_deref(), Some("addr 10.0.0.1\nrole web\nrole root-command id\n"));
}

/// A site with one node, whose key is in the inventory.
fn with_key(key: &str, content: &str) -> [(&'static str, String); 3] {
    [
        ("site.toml", "name = \"testsite\"\n".to_owned()),
        ("inventory/nodes.toml", format!("[groups.all]\nservices = [\"s\"]\n\n[nodes.n1]\nkey = \"{key}\"\n")),
        (
            "services/s/service.toml",
            format!("[[task]]\nid = \"t\"\nfile = {{ path = \"/t\", content = \"{content}\" }}\n"),
        ),
    ]
}

#[test]
fn a_changed_key_is_held_until_an_operator_confirms_it() {
    let (own, other) = (Fleet::node_key("n1").public().to_string(), Fleet::node_key("mallory").public().to_string());
    let site = |key: &str, content: &str| with_key(key, content).map(|(path, text)| (path, text.leak() as &str));
    let mut fleet = Fleet::new(Kind::Embedded, &site(&own, "one"));
    fleet.keep_keys();
    fleet.start_planner("one");
    fleet.start_agent("n1");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));

    // The node is heard as before, and no other key speaks for it: also after a restart, and where it was not declared meanwhile.
    let commit = fleet.commit(&site(&other, "two"), "another key");
    let held = |status: &Value| status["nodes"][0]["held_key"].clone();
    let status = fleet.converged("one", &commit);
    assert_eq!(held(&status), serde_json::json!({ "trusted": own, "declared": other }), "{status:#}");
    assert_eq!(status["troubles"][0]["is"], "held_key", "{status:#}");
    assert_eq!(fleet.file("n1", "t").as_deref(), Some("two"));
    let shown = fleet.text("one", &["status"]);
    assert!(shown.contains("groundplan trust n1") && shown.contains(&other), "{shown}");
    let why = fleet.text("one", &["why", "n1", "s.t"]);
    assert!(why.contains("groundplan trust n1") && why.contains(&other), "{why}");
    let repository = fleet.repository();
    let plan = fleet.output("one", &["plan", "HEAD", "-C", repository.to_str().expect("a path")]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains(&format!("the key of n1 changes from {own} to {other}")), "{plan}");

    fleet.kill_planner("one");
    fleet.start_planner("one");
    let commit = fleet.commit(&[("inventory/nodes.toml", "")], "no node");
    fleet.wait("no node to be declared", || {
        let status = fleet.ask("one", &["status"])?;
        (status["commit"]["id"] == commit.as_str()).then_some(())
    });
    let commit = fleet.commit(&site(&other, "three"), "another key once more");
    let status = fleet.converged("one", &commit);
    assert_eq!(held(&status)["trusted"], own, "{status:#}");
    assert_eq!(fleet.file("n1", "t").as_deref(), Some("three"));

    let trusted = fleet.ask("one", &["trust", "n1"]).expect("an answer");
    assert_eq!((&trusted["key"], &trusted["before"]), (&other.into(), &own.into()), "{trusted:#}");
    fleet.wait("no key to be held", || held(&fleet.ask("one", &["status"])?).is_null().then_some(()));
}

/// Points the branch at another commit, as a force-push does.
fn force(fleet: &Fleet, commit: &str) {
    fleet.git(&["reset", "-q", "--hard", commit]);
}

fn content(text: &str) -> String {
    format!("[[task]]\nid = \"t\"\nfile = {{ path = \"/t\", content = \"{text}\" }}\n")
}

const ONE_NODE: &str = "[groups.all]\nservices = [\"s\"]\n\n[nodes.n1]\n";
const SERVICE: &str = "services/s/service.toml";

#[test]
fn a_force_push_takes_a_fix_back_only_with_an_operators_consent() {
    let only = "name = \"testsite\"\n[source]\nfast_forward_only = true\n";
    let vulnerable = content("vulnerable");
    let files = [("site.toml", only), ("inventory/nodes.toml", ONE_NODE), (SERVICE, vulnerable.as_str())];
    let fleet = Fleet::started(Kind::Embedded, &files, &["n1"]);
    let first = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &first);
    let fixed = fleet.commit(&[(SERVICE, &content("fixed"))], "fix");
    fleet.converged("one", &fixed);

    // Also one that permits itself in the very commit.
    force(&fleet, &first);
    let rolled_back =
        fleet.commit(&[("site.toml", "name = \"testsite\"\n"), (SERVICE, &content("vulnerable again"))], "harmless");
    let status = refused(&fleet, &rolled_back);
    assert_eq!(
        status["refused"]["commit"]["rewinds"],
        serde_json::json!({ "from": fixed, "commits": 1 }),
        "{status:#}"
    );
    assert_eq!(status["commit"]["id"], fixed.as_str());
    let shown = fleet.text("one", &["status"]);
    assert!(shown.contains("this is no fast-forward") && shown.contains("groundplan accept"), "{shown}");
    let history = fleet.text("one", &["history"]);
    assert!(history.contains("no fast-forward: takes back 1 commit of"), "{history}");
    assert_eq!(fleet.file("n1", "t").as_deref(), Some("fixed"));
    // Another commit than the tip is not accepted by this.
    assert!(!fleet.output("one", &["accept", &fixed]).status.success());

    assert!(fleet.output("one", &["accept", &rolled_back[..9]]).status.success());
    let status = fleet.converged("one", &rolled_back);
    assert_eq!(fleet.file("n1", "t").as_deref(), Some("vulnerable again"));
    assert_eq!(status["commit"]["rewinds"]["from"], fixed.as_str(), "{status:#}");
}

#[test]
fn a_force_push_is_shown_where_it_is_accepted() {
    let files =
        [("site.toml", "name = \"testsite\"\n"), ("inventory/nodes.toml", ONE_NODE), (SERVICE, &content("old"))];
    let mut fleet = Fleet::started(Kind::Embedded, &files, &["n1"]);
    let first = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &first);
    let fixed = fleet.commit(&[(SERVICE, &content("fixed"))], "fix");
    fleet.converged("one", &fixed);
    force(&fleet, &first);
    fleet.converged("one", &first);
    assert_eq!(fleet.file("n1", "t").as_deref(), Some("old"));
    // Also after a restart, which reads the commit again.
    for _ in 0..2 {
        for command in ["status", "history"] {
            let shown = fleet.text("one", &[command]);
            assert!(shown.contains(&format!("no fast-forward: takes back 1 commit of {}", &fixed[..7])), "{shown}");
        }
        fleet.kill_planner("one");
        fleet.start_planner("one");
        fleet.converged("one", &first);
    }
    // A commit on top is one again.
    let next = fleet.commit(&[(SERVICE, &content("next"))], "next");
    let status = fleet.converged("one", &next);
    assert!(status["commit"]["rewinds"].is_null(), "{status:#}");
}

#[test]
fn a_plugin_of_a_branch_runs_neither_on_the_planner_nor_at_a_reviewers() {
    let files = [("site.toml", "name = \"testsite\"\n"), ("inventory/nodes.toml", ONE_NODE), (SERVICE, &content("x"))];
    // Without an agent: on a node it runs once it is deployed, which is what a plugin is for.
    let mut fleet = Fleet::new(Kind::Embedded, &files);
    fleet.start_planner("one");
    let mark = fleet.repository().with_file_name("pwned");
    let description = r#"{ "summary": "x", "schema": { "type": "object" } }"#;
    let program = format!("#!/bin/sh\ntouch '{}'\necho '{description}'\n", mark.display());
    let task = format!("{}\n[[task]]\nid = \"p\"\nsteal = {{}}\n", content("x"));
    // Undescribed, then described as it describes itself.
    let described = [("plugins/steal", program.as_str()), ("plugins/steal.schema.json", description), (SERVICE, &task)];
    for files in [vec![described[0], described[2]], described.to_vec()] {
        let hostile = fleet.commit(&files, "a new kind");
        let code = |args: &[&str]| {
            let mut command = Command::new(binaries::groundplan());
            command.args(args).current_dir(fleet.repository()).output().expect("groundplan runs").status.code()
        };
        let refuses = if files.len() == 2 { Some(1) } else { Some(0) };
        let codes = [code(&["check"]), code(&["check", "HEAD"])];
        assert!(!mark.exists(), "it ran at a reviewer's");
        assert_eq!(codes, [refuses; 2]);
        code(&["plan", "HEAD"]);
        fleet.wait("the planner to read the commit", || {
            let status = fleet.ask("one", &["status"])?;
            let read = [&status["refused"]["commit"]["id"], &status["commit"]["id"]];
            read.contains(&&Value::from(hostile.as_str())).then_some(())
        });
        assert!(!mark.exists(), "it ran on the planner");
    }
}

//! Broken plugins: the commit is refused or the task fails, each with the reason, and everything else proceeds.

use groundplan_tests::{
    brokers::Kind,
    fleet::{Fleet, texts},
};

use super::BOTH;

const INVENTORY: &str =
    "[groups.g]\nservices = [\"s\"]\n\n[nodes.n1]\ngroups = [\"g\"]\n\n[nodes.n2]\ngroups = [\"g\"]\n";

const DESCRIPTION: &str = r#"{ "summary": "a line in a file", "schema": { "properties": { "text": { "type": "string" } }, "required": ["text"] }, "timeout": "30s" }"#;

/// The file that describes the kind.
const SCHEMA: &str = "plugins/note.schema.json";

/// A program that runs `body` on any request but `schema`.
fn program(body: &str) -> String {
    format!("#!/bin/sh\n[ $GROUNDPLAN_REQUEST = schema ] && {{ echo '{DESCRIPTION}'; exit; }}\n{body}\n")
}

/// Writes `text` to `/note`, and records its requests in `/asked`.
const GOOD: &str = r#"
note="$GROUNDPLAN_ROOT/note"
echo "$GROUNDPLAN_REQUEST" >> "$GROUNDPLAN_ROOT/asked"
case $GROUNDPLAN_REQUEST in
check) if [ "$(cat "$note" 2>/dev/null)" = "$GROUNDPLAN_PARAM_TEXT" ]; then echo '{"so":true}'; else echo '{"so":false}'; fi ;;
apply) printf %s "$GROUNDPLAN_PARAM_TEXT" > "$note.new" && mv "$note.new" "$note"; echo '{"changed":true}' ;;
remove) rm -f "$note"; echo '{"changed":true}' ;;
esac
"#;

const SERVICE: &str = r#"
[[task]]
id = "note"
note = { text = "hello" }

[[task]]
id = "after"
file = { path = "/after", content = "x" }

[[task]]
id = "beside"
requires = []
file = { path = "/beside", content = "x" }
"#;

fn site(plugin: &str) -> Vec<(&'static str, String)> {
    vec![
        ("site.toml", "name = \"testsite\"\n".to_owned()),
        ("inventory/nodes.toml", INVENTORY.to_owned()),
        ("services/s/service.toml", SERVICE.to_owned()),
        ("plugins/note", plugin.to_owned()),
        (SCHEMA, DESCRIPTION.to_owned()),
    ]
}

fn started(plugin: &str) -> Fleet {
    Fleet::started(Kind::Embedded, &texts(&site(plugin)), &BOTH)
}

#[test]
fn a_commit_with_a_plugin_that_is_not_described_is_refused() {
    let fleet = started(&program(GOOD));
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    for (bad, words) in [
        ("", "the plugin has no `plugins/note.schema.json` beside it"),
        ("Traceback", "cannot be used: it is no JSON, but `Traceback`"),
        ("{ \"summary\": \"x\", \"schema\": { \"type\": 5 } }", "its schema is not a JSON schema"),
        ("{ \"summary\": \"x\", \"schema\": { \"required\": [\"txt\"] } }", "the note has no `txt`"),
    ] {
        let commit = fleet.commit(&[(SCHEMA, bad)], "bad");
        let refused = fleet.wait("the refusal", || {
            let refused = fleet.ask("one", &["status"])?["refused"].to_string();
            refused.contains(&commit).then_some(refused)
        });
        assert!(refused.contains(words), "{bad}: {refused}");
    }
    // Without its mode.
    fleet.commit(&[(SCHEMA, DESCRIPTION)], "good again");
    fleet.git(&["update-index", "--chmod=-x", "plugins/note"]);
    fleet.git(&["commit", "-q", "-m", "no mode"]);
    fleet.wait("the refusal", || {
        let refused = fleet.ask("one", &["status"])?["refused"].to_string();
        refused.contains("git update-index --chmod=+x plugins/note").then_some(())
    });
    fleet.git(&["checkout", "-q", "plugins/note"]);
    // So long that it travels as a blob.
    let long = program(&format!("{GOOD}# {}\n", "comment ".repeat(10_000)));
    let commit = fleet.commit(&[("plugins/note", &long)], "fixed");
    fleet.converged("one", &commit);
    for node in BOTH {
        assert_eq!(fleet.file(node, "note").as_deref(), Some("hello"));
        assert_eq!(fleet.file(node, "asked").as_deref(), Some("check\napply\ncheck\n"), "checked again, not applied");
    }
}

#[test]
fn a_plugin_that_fails_on_the_node_fails_its_task_and_nothing_else() {
    let fleet = started(&program("echo 'disk is on fire' >&2; exit 3"));
    let agent = fleet.agent_pid("n1");
    let mut commit = fleet.git(&["rev-parse", "HEAD"]);
    let apply = |body: &str| {
        program(&format!("[ $GROUNDPLAN_REQUEST = check ] && {{ echo '{{\"so\":false}}'; exit; }}\n{body}"))
    };
    let next = [
        (apply("kill -SEGV $$"), "was killed by SIGSEGV at `apply`"),
        (apply("echo done"), "answered `apply` with something that is not JSON: `done`"),
        (apply("echo '{\"error\":\"no room for a note\"}'"), "the plugin `note`: no room for a note"),
        (apply("yes"), "printed more than 1 MiB at `apply`, and was ended"),
        (apply("sleep 600").replace("30s", "2s"), "did not finish `apply` within 2s and was ended"),
        // One that describes itself otherwise than the commit: nothing else of it runs.
        (
            program("touch $GROUNDPLAN_ROOT/ran").replace("a line in a file", "x"),
            "describes itself otherwise than `plugins/note.schema.json`",
        ),
    ];
    let mut next = next.iter();
    let mut words = "the plugin `note` exited with 3 at `check`: disk is on fire";
    loop {
        fleet.failed("one", &commit);
        for node in BOTH {
            let why =
                |task: &str| fleet.ask("one", &["why", node, task]).expect("an explanation")["record"].to_string();
            assert!(why("s.note").contains(words), "{words}: {}", why("s.note"));
            assert!(why("s.after").contains("blocked"), "{}", why("s.after"));
            assert_eq!((fleet.file(node, "after"), fleet.file(node, "beside").as_deref()), (None, Some("x")));
        }
        let Some((plugin, expected)) = next.next() else { break };
        let described = if plugin.contains("2s") { DESCRIPTION.replace("30s", "2s") } else { DESCRIPTION.to_owned() };
        let files = [("plugins/note", plugin.as_str()), (SCHEMA, &described)];
        (commit, words) = (fleet.commit(&files, "another way to fail"), expected);
    }
    assert_eq!(fleet.file("n1", "ran"), None);
    let commit = fleet.commit(&[("plugins/note", &program(GOOD))], "fixed");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("n1", "note").as_deref(), Some("hello"));
    assert_eq!(fleet.file("n1", "after").as_deref(), Some("x"));
    assert_eq!(fleet.agent_pid("n1"), agent, "the agent lives");

    // Removal needs only what the agent has kept, also after it was killed and restarted.
    let mut fleet = fleet;
    fleet.kill_agent("n1");
    fleet.start_agent("n1");
    let commit = fleet
        .commit(&[("plugins/note", ""), (SCHEMA, ""), ("services/s/service.toml", "# Nothing.\n")], "no more notes");
    fleet.converged("one", &commit);
    for node in BOTH {
        assert_eq!((fleet.file(node, "note"), fleet.file(node, "after")), (None, None));
        assert!(fleet.file(node, "asked").is_some_and(|asked| asked.ends_with("remove\n")));
    }
}

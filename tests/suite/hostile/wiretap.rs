//! Whoever reads all that crosses the broker learns no content: not of files, not of commands, not of what commands print.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use groundplan_tests::{
    between::{Between, Fate},
    brokers::Kind,
    fleet::Fleet,
};
use serde_json::Value;

/// What must not be read on the way.
const SECRETS: [&str; 11] = [
    "planted-in-a-file",
    "planted-in-a-chunk",
    "planted-in-env",
    "planted-in-a-line",
    "planted-in-order",
    "planted-in-output",
    "printed-by-a-task",
    "planted-by-drift",
    "planted-in-an-export",
    "planted-in-a-fact",
    "printed-by-a-failure",
];

/// What is said in clear, the name of a task: by it the test knows that it would find the others.
const SAID: &str = "s.exported";

/// Bytes as they came, and whatever is in them as JSON or base64, at any depth.
fn unwrapped(bytes: &[u8], found: &mut dyn FnMut(&[u8])) {
    found(bytes);
    if let Ok(json) = serde_json::from_slice(bytes) {
        strings(&json, found);
    }
}

fn strings(json: &Value, found: &mut dyn FnMut(&[u8])) {
    match json {
        Value::String(text) => {
            found(text.as_bytes());
            if let Ok(bytes) = BASE64.decode(text) {
                unwrapped(&bytes, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(fields) => fields.values().for_each(|value| strings(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn no_content_crosses_the_broker_in_clear() {
    let chunk = "planted-in-a-chunk ".repeat(20_000);
    let tasks = r#"
[[task]]
id = "file"
file = { path = "/secret", content = "planted-in-a-file", mode = "0600" }

[[task]]
id = "open"
file = { path = "/open", content = "for all to read", mode = "0644" }

[[task]]
id = "large"
file = { path = "/large", source = "large", mode = "0600" }

[[task]]
id = "command"
command = { run = ": planted-in-a-line; echo printed-by-a-task | tee $ROOT/ran", env = { PASSWORD = "planted-in-env" }, creates = "/ran" }

[[task]]
id = "exported"
export = { value = "planted-in-an-export" }
"#;
    let files = [
        ("site.toml", "name = \"testsite\"\n"),
        (
            "inventory/nodes.toml",
            "[groups.g]\nservices = [\"s\"]\n[nodes.n1]\ngroups = [\"g\"]\n[nodes.n2]\ngroups = [\"g\"]\n",
        ),
        ("services/s/service.toml", tasks),
        ("services/s/large", &chunk),
    ];
    let mut fleet = Fleet::new(Kind::Mosquitto, &files);
    let between = Between::start(fleet.broker.address());
    fleet.broker.stand_in(between.address());
    let taken = Arc::new(Mutex::new(Vec::<(String, Vec<u8>)>::new()));
    let tap = taken.clone();
    between.judge(move |topic, payload| {
        tap.lock().expect("the test has not failed").push((topic.to_owned(), payload.to_vec()));
        Fate::Pass
    });
    let fact = fleet.facts_dir("n1").join("fact");
    fs::create_dir_all(fleet.facts_dir("n1")).expect("a directory");
    fs::write(&fact, "#!/bin/sh\necho '\"planted-in-a-fact\"'\n").expect("a program");
    fs::set_permissions(fact, fs::Permissions::from_mode(0o755)).expect("an executable");
    fleet.start_agent("n1");
    fleet.start_agent("n2");
    fleet.start_planner("one");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    assert_eq!(fleet.file("n1", "secret").as_deref(), Some("planted-in-a-file"));
    assert_eq!(fleet.file("n2", "large").as_deref(), Some(&*chunk));
    let line = "echo planted-in-output; test $A = planted-in-order";
    let output = fleet.output("one", &["exec", line, "--env", "A=planted-in-order", "--on", "all"]);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("planted-in-output"),
        "{output:?}"
    );

    // Others may read this file on the node, and so the report of a drift check has its content.
    fs::write(fleet.root("n1").join("open"), "planted-by-drift").expect("a file of the node");
    let drift = fleet.text("one", &["drift", "--on", "n1"]);
    assert!(drift.contains("planted-by-drift"), "{drift}");

    fleet.wait("the fact", || fleet.text("one", &["show", "n1"]).contains("planted-in-a-fact").then_some(()));
    // What has failed and is tried again is degraded meanwhile, with what it printed.
    let fails = format!(
        "[rollout]\nretry = {{ attempts = 2, backoff = \"1s\" }}\n{tasks}\n[[task]]\nid = \"fails\"\n\
         command = {{ run = \"echo printed-by-a-failure; exit 1\", creates = \"/never\" }}\n"
    );
    let commit = fleet.commit(&[("services/s/service.toml", &fails)], "fails");
    fleet.wait("the reason", || fleet.text("one", &["status"]).contains("printed-by-a-failure").then_some(()));
    fleet.failed("one", &commit);

    let taken = taken.lock().expect("the test has not failed");
    let mut leaks = Vec::new();
    let mut said = false;
    for (topic, payload) in &*taken {
        unwrapped(payload, &mut |bytes| {
            let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
            said |= has(SAID);
            leaks.extend(SECRETS.iter().filter(|text| has(text)).map(|text| format!("{text} on {topic}")));
        });
    }
    assert!(said, "what is in clear is found");
    leaks.sort();
    leaks.dedup();
    assert!(leaks.is_empty(), "{leaks:#?}");
    for topic in ["/plan", "/exec", "/output", "/report", "/drift"] {
        assert!(taken.iter().any(|(of, _)| of.ends_with(topic)), "nothing came on {topic}");
    }
    assert!(taken.iter().any(|(of, _)| of.contains("/blob/")), "no chunk came");
}

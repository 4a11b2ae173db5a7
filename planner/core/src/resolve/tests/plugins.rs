//! Kinds that plugins add: parameters by their own schema, the program as an input, and each fault once.

use super::*;

/// What a plugin prints: it takes a text `zone`, and a list of ports. The form of the schema is that of [`ListedParams`].
fn plugin(name: &str, more: &str) -> String {
    format!(
        "=== plugins/{name}\n{{ \"summary\": \"x\"{more}, \"schema\": {{ \"zone\": \"string\", \"ports\": \"integers\" }} }}\n"
    )
}

fn site(services: &[&str], service: &str, plugins: &str) -> String {
    format!("{}=== services/s/service.toml\n{service}\n{plugins}", on_all(services))
}

#[test]
fn a_task_of_a_plugins_kind_is_one_like_any_other() {
    let service = "[vars]\nzone = \"Europe/Vienna\"\n[[task]]\nid = \"clock\"\ntimezone = { zone = \"{{ zone }}\" }\n";
    let more = ", \"effects\": [\"reload\"], \"claims\": [{ \"what\": \"zone\", \"param\": \"zone\" }]";
    let state = state(&site(&["s"], service, &plugin("timezone", more)));
    let instance = instance(&state, "s.clock@n1");
    let spec = serde_json::to_value(&instance.resolved.spec.params).unwrap();
    let [program, description] =
        ["program", "description"].map(|of| spec["plugin"][of].as_str().expect("a digest").to_owned());
    assert_eq!(
        spec,
        serde_json::json!({ "plugin": {
            "name": "timezone", "params": { "zone": "Europe/Vienna" }, "program": program,
            "description": description, "effects": ["reload"],
            "claims": [{ "named": { "what": "zone", "name": "Europe/Vienna", "param": "zone" } }]
        }})
    );
    assert!(instance.resolved.spec.content.is_some());
    let inputs: Vec<_> = instance.resolved.inputs.iter().map(|i| (i.name.as_str(), &*i.at.file)).collect();
    let file = "services/s/service.toml";
    let expected = [("kind", file), ("param zone", file), ("plugin timezone", "plugins/timezone"), ("var zone", file)];
    assert_eq!(inputs, expected);
}

#[test]
fn each_violation_is_reported_once_at_its_place() {
    let task = |params: &str| format!("[[task]]\nid = \"clock\"\ntimezone = {{ {params} }}\n");
    for (params, place, words) in [
        ("", "3 ‹timezone›", "the timezone has no `zone`\n  hint: add it"),
        ("zone = \"UTC\", zoen = 1", "3 ‹1›", "the timezone has no parameter `zoen`\n  hint: use another"),
        ("zone = \"x\"", "3 ‹\"x\"›", "`zone` of the timezone: \"x\" is shorter than 3 characters"),
        (
            "zone = \"{{ node.name }}\"",
            "3 ‹\"{{ node.name }}\"›",
            "`zone` of the timezone: \"n0\" is shorter than 3 characters (on node `n0`)",
        ),
        (
            "zone = \"UTC\", ports = [1, \"x\"]",
            "3 ‹\"x\"›",
            "`ports[1]` of the timezone: \"x\" is not of type \"integer\"",
        ),
    ] {
        for services in [&["s"][..], &[]] {
            // What is a template is seen once there is a node to render it for.
            if services.is_empty() && params.contains("{{") {
                continue;
            }
            let tree = tree(&site(services, &task(params), &plugin("timezone", "")));
            let (_, faults) = resolved(&tree, &mut Cache::default());
            let found = diagnostics(&tree, &faults);
            let first = format!("services/s/service.toml:{place}: {words}");
            assert!(found.starts_with(&first), "{params}: {found}");
            assert_eq!(faults.len(), 1, "{found}");
        }
    }
}

#[test]
fn unknown_keys_and_triggers_that_the_kind_does_not_accept() {
    let service = "[[task]]\nid = \"a\"\ntimezon = { zone = \"UTC\" }\n\
                   [[task]]\nid = \"b\"\ntimezone = { zone = \"UTC\" }\nrestart_on = [\"a\"]\n\
                   [[task]]\nid = \"c\"\nfile = { path = \"/x\", content = \"\" }\ntimezone = { zone = \"UTC\" }\n\
                   [[task]]\nid = \"d\"\nfile = { path = \"/y\", content = \"\" }\nfiel = { path = \"/z\" }\n";
    let tree = tree(&site(&["s"], service, &plugin("timezone", ", \"effects\": [\"run\"]")));
    let (state, faults) = resolved(&tree, &mut Cache::default());
    assert!(state.is_none());
    let found: Vec<_> = faults.iter().map(|f| format!("{}: {}", place(&tree, &f.at), f.message)).collect();
    let at = |line: usize, words: &str| format!("services/s/service.toml:{line} {words}");
    assert_eq!(
        found,
        [
            at(3, "‹timezon›: unknown key `timezon`"),
            at(7, "‹\"a\"›: a `timezone` cannot be acted on by `restart_on`"),
            at(11, "‹timezone›: the task `c` has two kinds"),
            at(15, "‹fiel›: unknown key `fiel`"),
        ]
    );
    let hints: Vec<_> = faults.iter().map(|f| f.hint.as_deref().unwrap_or_default()).collect();
    assert_eq!(hints[0], "did you mean `timezone`?");
    assert_eq!(hints[1], "a `timezone` takes `run_on`");
    assert!(hints[3].starts_with("did you mean `file`?"), "{}", hints[3]);
}

#[test]
fn two_plugins_and_kinds_that_are_built_in_share_claims() {
    let claims = ", \"claims\": [{ \"path\": \"zone\" }, { \"what\": \"clock of\" }]";
    let service = "[[task]]\nid = \"a\"\nfile = { path = \"/etc/x\", content = \"\" }\n\
                   [[task]]\nid = \"b\"\ntimezone = { zone = \"/etc/x\" }\n[[task]]\nid = \"c\"\nclock = { zone = \"/etc/y\" }\n";
    let tree = tree(&site(&["s"], service, &(plugin("timezone", claims) + &plugin("clock", claims))));
    let (_, faults) = resolved(&tree, &mut Cache::default());
    let found: Vec<_> = faults.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(found, ["two tasks own `/etc/x` on node `n0`", "two tasks own the clock of `the host` on node `n0`"]);
}

#[test]
fn another_program_touches_exactly_what_uses_it() {
    let service =
        "[[task]]\nid = \"a\"\ntimezone = { zone = \"UTC\" }\n[[task]]\nid = \"b\"\nclock = { zone = \"UTC\" }\n";
    let both = |more: &str| site(&["s"], service, &(plugin("timezone", more) + &plugin("clock", "")));
    let mut cache = Cache::default();
    let fingerprints = |text: &str, cache: &mut Cache| {
        let (state, _) = resolved(&tree(text), cache);
        let state = state.expect("no faults");
        ["s.a@n0", "s.b@n0"].map(|id| instance(&state, id).resolved.fingerprint)
    };
    let before = fingerprints(&both(""), &mut cache);
    let after = fingerprints(&both(", \"timeout\": \"1s\""), &mut cache);
    assert!(before[0] != after[0] && before[1] == after[1]);
    assert_eq!(
        fingerprints(&both(", \"timeout\": \"1s\""), &mut Cache::default()),
        after,
        "the cache changes no result"
    );
    assert_eq!(fingerprints(&both(""), &mut cache), before);
}

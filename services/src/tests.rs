//! Trees of a few files, and the faults that are reported.

use std::sync::Arc;

use groundplan_inventory::Diagnostic;
use groundplan_protocol::ids::ServiceId;

use crate::{
    plugin::Plugins,
    tree::{self, Model},
};

fn read(files: &[(&str, &str)]) -> (Model, Vec<Diagnostic>) {
    let parsed: Vec<_> = files
        .iter()
        .filter(|(path, _)| tree::wants(path))
        .map(|(path, text)| tree::parse(&Arc::from(*path), text.as_bytes()))
        .collect();
    tree::merge(&parsed, files.iter().map(|(path, _)| *path), &Plugins::default())
}

/// Each fault as `file:line: message`, with the marked text, and its further places.
fn faults(files: &[(&str, &str)]) -> Vec<String> {
    let place = |at: &groundplan_inventory::Location| {
        let text = files.iter().find(|(path, _)| *path == &*at.file).map_or("", |(_, text)| text);
        let line = text[..at.start].matches('\n').count() + 1;
        (format!("{}:{line}", at.file), text[at.span()].to_owned())
    };
    let one = |fault: &Diagnostic| {
        let (at, marked) = place(&fault.at);
        let related: String = fault.related.iter().map(|(at, text)| format!(" ({text}: {})", place(at).0)).collect();
        format!("{at}: {} <{marked}>{related}", fault.message)
    };
    read(files).1.iter().map(one).collect()
}

const SITE: (&str, &str) = ("site.toml", "name = \"s\"\n");

/// Checks the faults of a service's file alone, without the file's name.
fn check(text: &str, expect: &[&str]) {
    let path = "services/web/service.toml";
    let found = faults(&[SITE, (path, text)]);
    let found: Vec<_> = found.iter().map(|line| line.replace(&format!("{path}:"), "")).collect();
    assert_eq!(found, expect, "{text}");
}

fn hint_of(text: &str) -> String {
    let (_, faults) = read(&[SITE, ("services/web/service.toml", text)]);
    faults.into_iter().find_map(|fault| fault.hint).unwrap_or_default()
}

#[test]
fn a_whole_service_reads_as_it_is_written() {
    let text = r#"
[service]
description = "Web"
requires = ["database/ready"]
[vars]
port = 80
since = 2026-01-02
[[task]]
id = "config"
template = { source = "c.j2", path = "/etc/{{ service.name }}.conf", mode = "{{ mode }}" }
[[task]]
id = "run"
process = { run = ["web", "--port", "{{ port }}"], env = { A = "b" } }
requires = []
needed_by = ["front.run@n-1"]
restart_on = ["config"]
reload_on = ["other.cert"]
ready = { http = "http://127.0.0.1:{{ port }}/", timeout = "5s" }
provides = ["web/ready"]
once = true
on_interrupt = "fail"
[rollout]
max_unavailable = 2
"#;
    let (model, faults) = read(&[SITE, ("services/web/service.toml", text)]);
    assert_eq!(faults, []);
    let web = &model.catalog.services[&ServiceId::new("web").unwrap()];
    assert_eq!((web.rollout.max_unavailable, web.folder.as_str()), (Some(2), "services/web"));
    assert_eq!(web.vars["since"].value, "2026-01-02");
    let run = &web.tasks[1];
    assert_eq!((run.triggers.len(), run.once.is_some(), run.requires.as_deref()), (2, true, Some(&[][..])));
    assert_eq!(&text[run.places["run[2]"].span()], "\"{{ port }}\"");
    assert_eq!(&text[run.places["env.A"].span()], "\"b\"");
    assert_eq!(&text[run.places["ready.timeout"].span()], "\"5s\"");
    assert_eq!(&text[run.at.span()], "\"run\"");
}

#[test]
fn every_fault_of_a_task_is_reported_at_its_place() {
    check("[[task]]\nid = \"a\"\nfil = { }\n", &["3: unknown key `fil` <fil>"]);
    check("[[task]]\nid = \"a\"\n", &["1: the task `a` has no kind <[[task]]>"]);
    check("[[task]]\nlink = { path = \"/a\", target = \"b\" }\n", &["1: an element of `task` has no `id` <[[task]]>"]);
    check(
        "[[task]]\nid = \"a\"\nlink = { path = \"/a\", target = \"b\" }\ncommand = { run = \"x\" }\n",
        &["4: the task `a` has two kinds <command> (`link` here: 3)"],
    );
    check(
        "[[task]]\nid = \"a\"\nlink = { pth = \"/a\", target = 5 }\n",
        &["3: unknown key `pth` <pth>", "3: `target` must be text, not a whole number <5>"],
    );
    check(
        "[[task]]\nid = \"a b\"\ncommand = { run = 5 }\n",
        &[
            "2: `a b` is not a valid task id <\"a b\">",
            "3: `run` must be a shell line or a list of arguments, all of them text, not this <5>",
        ],
    );
    check(
        "[[task]]\nid = \"a\"\nrequires = [\"x y\", \"a@n\", \"ok\", 7]\ncommand = { run = \"x\", timeout = \"5\" }\n",
        &[
            "3: `x y` is not a reference <\"x y\">",
            "3: `a@n` is not a reference <\"a@n\">",
            "3: an element of `requires` must be text, not a whole number <7>",
            "4: `5` is not a span of time <\"5\">",
        ],
    );
    check(
        "[[task]]\nid = \"a\"\nfile = { path = \"etc/x\", mode = \"{{ m }}\" }\nrestart_on = [\"b\"]\nrun_on = [\"b\"]\n",
        &[
            "3: the file has neither `source` nor `content` <file>",
            "3: `path` of the file: `etc/x` is not an absolute path in its shortest form <\"etc/x\">",
            "4: a `file` cannot be acted on by `restart_on` <\"b\">",
            "5: a `file` cannot be acted on by `run_on` <\"b\">",
        ],
    );
    check(
        "[[task]]\nid = \"a\"\ncommand = { run = \"x\" }\n[[task]]\nid = \"a\"\ncommand = { run = \"x\" }\n",
        &["5: the task `a` is declared twice <\"a\"> (first declared here: 2)"],
    );
    check(
        "[[task]]\nid = \"a\"\ncommand = { run = \"x\" }\nready = { http = \"https://x/\", tcp = \"x\" }\nprovides = [\"a/b\", \"a/b\", \"c\"]\non_interrupt = \"ask\"\n",
        &[
            "4: `https://x/` is not an http:// URL <\"https://x/\">",
            "4: `x` is not a TCP address <\"x\">",
            "5: the capability `a/b` is listed twice <\"a/b\"> (first listed here: 5)",
            "5: `c` is not a valid capability <\"c\">",
            "6: `on_interrupt` cannot be `ask` <\"ask\">",
        ],
    );
    check(
        "[[task]]\nid = \"a\"\ncommand = { run = \"x\" }\non_remove = \"keep\"\n[[task]]\nid = \"b\"\nfile = { path = \"/x\", content = \"\" }\non_remove = \"purge\"\n",
        &[
            "4: a `command` leaves nothing that a removal could keep <\"keep\">",
            "8: `on_remove` cannot be `purge` <\"purge\">",
        ],
    );
    check(
        "[[task]]\nid = \"a\"\nready = {}\ncommand = { run = \"\" }\n[rollout]\nmax_unavailable = 0\n",
        &[
            "3: the probe probes nothing <{}>",
            "4: `run` of the command is empty <\"\">",
            "6: `max_unavailable` must be a whole number of at least 1, not the number 0 <0>",
        ],
    );
    check(
        "[[task]]\nid = \"a\"\nonce = \"2m\"\ncommand = { run = \"x\" }\n[[task]]\nid = \"b\"\nonce = { failover = \"0s\" }\nretry = { backoff = \
         \"10ms\", attempts = 0, times = 3 }\ncommand = { run = \"x\" }\n[rollout]\nretry = { backoff = \"0s\" }\n",
        &[
            "3: `once` must be `true`, `false` or a table, not the text \"2m\" <\"2m\">",
            "7: a failover after 0s is too soon <\"0s\">",
            "8: a wait of 10ms between two attempts is too short <\"10ms\">",
            "8: `attempts` must be a whole number of at least 1, not the number 0 <0>",
            "8: unknown key `times` <times>",
            "11: a wait of 0s between two attempts is too short <\"0s\">",
        ],
    );
    check(
        "[[task]]\nid = \"a\"\nonce = { failover = \"2m\" }\nprevent_destroy = true\nfile = { path = \"/x\", content = \"\" }\nretry = { \
         backoff = \"2h\" }\n",
        &[
            "4: a task that another node takes over is removed where it was, which `prevent_destroy` forbids <true> (`failover` here: 3)",
            "6: a wait of 2h between two attempts is too long <\"2h\">",
        ],
    );
    check(
        "[vars]\nnode = 1\n\"a-b\" = 2\nif = 3\nfine = nan\nok = [1, { x = inf }]\n",
        &[
            "2: `node` has a meaning of its own in templates <node>",
            "3: `a-b` is not a name for a var <\"a-b\">",
            "4: `if` is a keyword of the template language <if>",
            "5: the number is not finite <nan>",
            "6: the number is not finite <inf>",
        ],
    );
    check("", &[]);
}

#[test]
fn hints_name_what_was_probably_meant() {
    for (text, hint) in [
        ("[[task]]\nid = \"a\"\nfil = {}\n", "did you mean `file`?"),
        ("[[task]]\nid = \"a\"\nquux = {}\n", "known here: `id`"),
        ("[srvice]\n", "did you mean `service`?"),
        ("[[task]]\nid = 5\n", "put it in quotes"),
        ("[[task]]\nid = \"a\"\nlink = {path=\"/a\",target=\"/b\"}\nrun_on = \"b\"\n", "write a list: [\"b\"]"),
        (
            "[[task]]\nid = \"a\"\nprocess = {run=\"x\"}\nrun_on = [\"b\"]\n",
            "a `process` takes `restart_on`, `reload_on`",
        ),
    ] {
        let hinted = hint_of(text);
        assert!(hinted.starts_with(hint), "{text}: {hinted}");
    }
}

#[test]
fn a_fault_leaves_the_rest_of_the_file_which_is_not_read_whole() {
    let text =
        "[[task]]\nid = \"a\"\nlink = 5\nprovides = [\"x/y\"]\n[[task]]\nid = \"b\"\ncommand = { run = \"x\" }\n";
    let (model, faults) = read(&[SITE, ("services/web/service.toml", text)]);
    assert_eq!(faults.len(), 1);
    let web = ServiceId::new("web").unwrap();
    assert_eq!(model.catalog.services[&web].tasks.len(), 1);
    assert_eq!(model.unread.iter().map(|path| &**path).collect::<Vec<_>>(), ["services/web/service.toml"]);
}

#[test]
fn faults_between_files_name_both_places() {
    let site = "name = \"s\"\n[vars]\nport = 1\n[external.\"db/ready\"]\nready = { tcp = 5 }\n";
    let nodes = "[groups.web]\nservices = [\"web\", \"web\"]\nvars = { port = \"x\", a = 1 }\n\
        [groups.db]\nvars = { a = 2 }\n[nodes.n]\ngroups = [\"web\", \"db\", \"bd\", \"web\"]\nvars = { user = 5 }\n";
    let more = "[nodes.n]\n[groups.db]\n";
    let web = "[vars]\nport = true\nuser = \"u\"\n";
    let found = faults(&[
        ("site.toml", site),
        ("inventory/a.toml", nodes),
        ("inventory/z/b.toml", more),
        ("services/web/service.toml", web),
        ("services/empty/x.conf", ""),
        ("services/b.d/service.toml", ""),
        ("services/README.md", ""),
    ]);
    let expect = [
        "inventory/a.toml:2: the service `web` is listed twice <\"web\"> (first listed here: inventory/a.toml:2)",
        "inventory/a.toml:3: the var `port` is text here, but a number where it overrides it <\"x\"> (this is a number: site.toml:3)",
        "inventory/a.toml:3: two groups of `n` give `a` different values <1> (the other: inventory/a.toml:5)",
        "inventory/a.toml:7: the node `n` is in an undeclared group `bd` <\"bd\">",
        "inventory/a.toml:7: the group `web` is listed twice <\"web\"> (first listed here: inventory/a.toml:7)",
        "inventory/a.toml:8: the var `user` is a number here, but text where it overrides it <5> (this is text: services/web/service.toml:3)",
        "inventory/z/b.toml:1: the node `n` is declared twice <n> (first declared here: inventory/a.toml:6)",
        "inventory/z/b.toml:2: the group `db` is declared twice <db> (first declared here: inventory/a.toml:4)",
        "services/b.d/service.toml:1: the name of this folder is not a valid service name <>",
        "services/empty/service.toml:1: the folder `services/empty` has no `service.toml` <>",
        "site.toml:3: the var `port` is a number here, but true or false where it overrides it <1> (this is true or false: services/web/service.toml:2)",
        "site.toml:5: a port alone, and no address that it belongs to <5>",
    ];
    assert_eq!(found, expect);
}

#[test]
fn a_tree_without_site_file_says_so() {
    assert_eq!(faults(&[]), ["site.toml:1: there is no `site.toml`: this is not a groundplan site <>"]);
    let (_, elsewhere) = read(&[("cloud/site.toml", "")]);
    assert!(elsewhere[0].hint.as_ref().is_some_and(|hint| hint.contains("`cloud/site.toml`")));
    assert_eq!(faults(&[("site.toml", "")]), ["site.toml:1: the site has no name <>"]);
    assert_eq!(faults(&[("site.toml", "name = \"a b\"")]), ["site.toml:1: `a b` is not a valid site name <\"a b\">"]);
}

#[test]
fn the_order_of_files_does_not_matter() {
    let nodes =
        [("inventory/a.toml", "[nodes.a]\n[nodes.b]\n"), ("inventory/b.toml", "[nodes.a]\ngroups=[\"x\"]\n"), SITE];
    let mut back = nodes;
    back.reverse();
    assert_eq!(faults(&nodes), faults(&back));
}

#[test]
fn a_table_opened_twice_is_one_fault() {
    let found =
        faults(&[SITE, ("inventory/a.toml", "[groups.n]\n[nodes.n]\naddress = \"a\"\n[nodes.n]\naddress = \"b\"\n")]);
    assert_eq!(found, ["inventory/a.toml:4: `n` is given twice <n> (first given here: inventory/a.toml:2)"]);
    check("[vars]\na = 1\nb = 2\na = 3\n", &["4: `a` is given twice <a> (first given here: 2)"]);
}

/// Bytes, cut and altered at random, never bring the reader down, and every place lies in its file.
#[test]
fn any_bytes_are_read_and_every_place_is_inside() {
    let files: [(&str, &str); 3] = [
        (
            "site.toml",
            "name = \"s\"\n[vars]\na = 1\n[external.\"d/r\"]\naddress = \"h\"\nready = { tcp = 1 }\n[rollout]\nmax_unavailable = 1\n",
        ),
        (
            "inventory/n.toml",
            "[groups.g]\nservices = [\"w\"]\nvars = { r = \"x\", l = [1, [2]] }\n[nodes.n]\ngroups = [\"g\"]\nlabels = { a = \"ü\" }\n",
        ),
        (
            "services/w/service.toml",
            "[service]\nrequires = [\"d/r\"]\n[[task]]\nid = \"c\"\nfile = { content = \"\"\"a\nb\"\"\", path = \"/x\" }\n[[task]]\nid = \"p\"\nprocess = { run = [\"x\"], env = { A = 'b' } }\nrestart_on = [\"c\"]\nprovides = [\"p/q\"]\nready = { tcp = 1 }\n",
        ),
    ];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    let tokens: [&[u8]; 12] =
        [b"\"", b"[", b"]", b"{", b"}", b"=", b"\n", b"[[task]]\n", b"\xff", b"\0", "é".as_bytes(), b"[nodes.n]\n"];
    for _ in 0..3000 {
        let mut parsed = Vec::new();
        let mut lengths = Vec::new();
        for (path, text) in files {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..1 + random(4) {
                let at = random(bytes.len());
                match random(5) {
                    0 => bytes.truncate(at),
                    1 if !bytes.is_empty() => bytes[at] = random(256) as u8,
                    2 if !bytes.is_empty() => drop(bytes.drain(at..(at + random(20)).min(bytes.len()))),
                    3 => bytes.splice(at..at, bytes[..random(40).min(bytes.len())].to_vec()).for_each(drop),
                    _ => bytes.splice(at..at, tokens[random(tokens.len())].iter().copied()).for_each(drop),
                }
            }
            parsed.push(tree::parse(&Arc::from(path), &bytes));
            lengths.push((path, bytes.len()));
        }
        let (_, faults) = tree::merge(&parsed, files.iter().map(|(path, _)| *path), &Plugins::default());
        for fault in faults {
            for at in std::iter::once(&fault.at).chain(fault.related.iter().map(|(at, _)| at)) {
                let length = lengths.iter().find(|(path, _)| *path == &*at.file).map_or(0, |(_, length)| *length);
                assert!(at.start <= at.end && at.end <= length, "{fault:?} in {length} bytes");
            }
        }
    }
}

#[test]
fn keys_that_may_be_a_plugins_are_unknown_without_one() {
    let task = "[[task]]\nid = \"a\"\n";
    check(&format!("{task}fiel = {{ path = \"/x\" }}\n"), &["3: unknown key `fiel` <fiel>"]);
    let beside = format!("{task}file = {{ path = \"/x\", content = \"\" }}\nextra = {{}}\n");
    check(&beside, &["4: unknown key `extra` <extra>"]);
    // What is not a table is not the kind of a plugin.
    check(&format!("{task}fiel = \"/x\"\n"), &["3: unknown key `fiel` <fiel>"]);
    check(&format!("{task}\"fi el\" = {{}}\n"), &["3: unknown key `fi el` <\"fi el\">"]);
    // Keys of a task that is left out are reported as well; after a syntax error they are not.
    let again = "5: the task `a` is declared twice <\"a\"> (first declared here: services/web/service.toml:2)";
    let again = again.replace("services/web/service.toml:", "");
    let two = format!("{task}one = {{}}\n{task}two = {{}}\n");
    check(&two, &["3: unknown key `one` <one>", &again, "6: unknown key `two` <two>"]);
    let syntax = read(&[SITE, ("services/web/service.toml", &format!("{task}fiel = {{ path = }}\n"))]).1;
    assert!(!syntax.is_empty() && syntax.iter().all(|fault| !fault.message.contains("unknown key")), "{syntax:#?}");
}

#[test]
fn the_schema_allows_plugins_and_no_key_beside_a_kind_that_is_built_in() {
    let (_, schema) = crate::schemas().remove(0);
    let schema = jsonschema::validator_for(&schema.to_value()).expect("a schema");
    let allowed = |task: serde_json::Value| schema.is_valid(&serde_json::json!({ "task": [task] }));
    let file = serde_json::json!({ "path": "/x", "content": "" });
    assert!(allowed(serde_json::json!({ "id": "a", "file": file, "requires": [] })));
    assert!(allowed(serde_json::json!({ "id": "a", "timezone": { "zone": "UTC" }, "run_on": ["b"] })));
    for wrong in [
        serde_json::json!({ "id": "a" }),
        serde_json::json!({ "id": "a", "requires": [] }),
        serde_json::json!({ "id": "a", "timezone": "UTC" }),
        serde_json::json!({ "id": "a", "file": file, "fiel": {} }),
        serde_json::json!({ "id": "a", "file": file, "link": { "path": "/y", "target": "x" } }),
        serde_json::json!({ "id": "a", "file": { "path": "/x", "contents": "" } }),
        serde_json::json!({ "timezone": {} }),
    ] {
        assert!(!allowed(wrong.clone()), "{wrong}");
    }
}

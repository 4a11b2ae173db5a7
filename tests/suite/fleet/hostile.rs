//! Templates that would not end, fill the memory or overflow the stack: the commit is refused at the line, the planner answers meanwhile and
//! stops when it is to, and the good commit stays.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use groundplan_tests::{
    brokers::Kind,
    fleet::{Fleet, texts},
};

/// A site whose one service renders a template, on no node that has an agent.
fn site(template: &str, when: &str) -> Vec<(&'static str, String)> {
    let task = format!("[[task]]\nid = \"t\"\nwhen = \"{when}\"\ntemplate = {{ source = \"t\", path = \"/t\" }}\n");
    vec![
        ("site.toml", "name = \"testsite\"\n".to_owned()),
        ("inventory/nodes.toml", "[nodes.n1]\n\n[groups.all]\nservices = [\"s\"]\n".to_owned()),
        ("services/s/service.toml", task),
        ("services/s/t", template.to_owned()),
    ]
}

fn commit(fleet: &Fleet, files: &[(&str, String)], message: &str) -> String {
    fleet.commit(&texts(files), message)
}

/// How long the planner takes to answer, without the start of a program.
fn answered(fleet: &Fleet) -> Duration {
    let asked = Instant::now();
    let mut socket = UnixStream::connect(fleet.planner_state("one").join("planner.sock")).expect("a socket");
    socket.write_all(b"GET /v1/status HTTP/1.1\r\nHost: planner\r\nConnection: close\r\n\r\n").expect("a request");
    let mut reply = String::new();
    socket.read_to_string(&mut reply).expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    asked.elapsed()
}

/// The status, once the commit is refused.
fn refused(fleet: &Fleet, commit: &str) -> serde_json::Value {
    fleet.wait("the commit to be refused", || {
        let status = fleet.ask("one", &["status"])?;
        (status["refused"]["commit"]["id"] == commit).then_some(status)
    })
}

#[test]
fn hostile_templates_are_refused_and_the_planner_answers_meanwhile() {
    let good = site("x", "true");
    let mut fleet = Fleet::new(Kind::Embedded, &texts(&good));
    fleet.start_planner("one");
    let active = fleet.git(&["rev-parse", "HEAD"]);
    fleet.wait("the first commit to be active", || {
        (fleet.ask("one", &["status"])?["commit"]["id"] == active.as_str()).then_some(())
    });
    let nested = (0..60).fold("{{ x }}".to_owned(), |inner, _| {
        format!("{{% with x = {}x{} %}}{inner}{{% endwith %}}", "[".repeat(40), "]".repeat(40))
    });
    let nested = format!("{{% set x = [] %}}{nested}");
    let endless = "a\n{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    let doubled =
        "{% set ns = namespace(s='xxxxxxxx') %}\n{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
    let output =
        "a\n{% for a in range(100000) %}\n0123456789{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}";
    let cyclic = "a\n{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}";
    let not = "not ".repeat(10_000) + "true";
    for (template, when, file, line) in [
        (endless, "true", "services/s/t", 2),
        (doubled, "true", "services/s/t", 2),
        (output, "true", "services/s/t", 3),
        (cyclic, "true", "services/s/t", 2),
        ("x", &*not, "services/s/service.toml", 3),
    ] {
        let hostile = commit(&fleet, &site(template, when), "hostile");
        // The commit is loaded meanwhile. The fastest, because a machine that is busy may hold up any of them.
        let fastest = (0..20).map(|_| answered(&fleet)).min().expect("answers");
        assert!(fastest < Duration::from_secs(1), "{fastest:?}");
        let status = refused(&fleet, &hostile);
        let at = &status["refused"]["diagnostics"][0]["at"];
        assert!(at["file"] == file && at["line"] == line, "{:#}", status["refused"]);
        assert_eq!(status["commit"]["id"], active.as_str());
    }
    // At its start the planner has it as the tip again, and can be stopped meanwhile.
    for _ in 0..2 {
        fleet.terminate_planner("one");
        fleet.start_planner("one");
        fleet.wait("an answer", || fleet.ask("one", &["status"]));
    }
    let hostile = fleet.git(&["rev-parse", "HEAD"]);
    let status = refused(&fleet, &hostile);
    assert_eq!(status["commit"]["id"], active.as_str());
    // What nests as deeply as the limits allow is rendered, and no reason to crash.
    let deep = commit(&fleet, &site(&nested, "node.name != ''"), "deep");
    fleet.wait("the deep commit to be active", || {
        (fleet.ask("one", &["status"])?["commit"]["id"] == deep.as_str()).then_some(())
    });
}

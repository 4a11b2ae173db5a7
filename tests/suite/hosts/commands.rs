//! Commands that misbehave on a real host, and users that do not exist: each fails with a helpful message, what comes after it
//! is blocked with a reason, everything else proceeds.

use groundplan_tests::{hosts::Hosts, needs_hosts};

const TASKS: &str = r#"
[[task]]
id = "hangs"
requires = []
command = { run = "sleep 100000 & echo about to hang; sleep 100000", timeout = "2s" }

[[task]]
id = "after-it"
file = { path = "/etc/after-it", content = "" }

[[task]]
id = "after-that"
file = { path = "/etc/after-that", content = "" }

[[task]]
id = "deaf"
requires = []
command = { run = "trap '' TERM; while true; do sleep 1; done", timeout = "1s" }

[[task]]
id = "forks-away"
requires = []
command = { run = "echo begun; setsid sh -c 'echo $$ > /run/daemon; exec sleep 1000' & echo done" }

[[task]]
id = "floods"
requires = []
command = { run = "echo first; head -c 1073741824 /dev/zero | tr '\\0' x; echo; echo last" }

[[task]]
id = "floods-and-fails"
requires = []
command = { run = "yes no | head -c 50000000; echo the disk is on fire >&2; exit 3" }

[[task]]
id = "as-an-unknown-user"
requires = []
command = { run = "true", user = "ghost" }

[[task]]
id = "owned-by-an-unknown-user"
requires = []
file = { path = "/etc/owned", content = "", owner = "ghost" }

[[task]]
id = "good"
requires = []
file = { path = "/etc/good", content = "" }
"#;

#[test]
fn what_misbehaves_fails_alone() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(TASKS);
    let status = hosts.settled(&hosts.head());
    assert_eq!(status["rollout"]["result"], "failed", "{status:#}");
    let expect = |task: &str, words: &[&str]| {
        let report = hosts.report(task, "h1");
        for word in words {
            assert!(report.outcome.contains(word), "{task}: {}", report.outcome);
        }
        report
    };

    let hangs = expect("s.hangs", &["failed", "took longer than 2s"]);
    assert_eq!(hangs.output, "about to hang\n");
    expect("s.deaf", &["failed", "took longer than 1s"]);
    assert_eq!(hosts.out("h1", "pgrep -c sleep || true"), "1", "only the process that left its group still runs");
    expect("s.after-it", &["blocked by s.hangs"]);
    expect("s.after-that", &["blocked by s.hangs"]);
    assert_eq!(hosts.file("h1", "/etc/after-that"), None);
    let why = hosts.ask(&["why", "h1", "s.after-that"]).expect("an explanation");
    assert!(why.to_string().contains("s.hangs"), "{why:#}");

    let forks = expect("s.forks-away", &["changed"]);
    assert_eq!(forks.output, "begun\ndone\n");
    hosts.out("h1", "kill -0 $(cat /run/daemon)");

    let floods = expect("s.floods", &["changed"]);
    // The planner keeps the end of it.
    assert!(floods.output.ends_with("last\n") && floods.output.len() <= 16 * 1024, "{}", floods.record);
    assert!(
        floods.record["output"]["omitted"].as_u64() > Some(1_073_000_000),
        "{}",
        floods.record["output"]["omitted"]
    );
    expect("s.floods-and-fails", &["failed", "exited with 3", "the disk is on fire"]);
    let memory = hosts.agent_memory("h1");
    assert!(memory.peak < 32 * 1024, "a gigabyte of output is never held: {memory:?}");

    expect("s.as-an-unknown-user", &["failed", "there is no user `ghost` on this host"]);
    expect("s.owned-by-an-unknown-user", &["failed", "/etc/owned", "there is no user `ghost` on this host"]);
    assert!(hosts.file("h1", "/etc/good").is_some());

    // Fixed in one commit: only what failed or was blocked is done.
    let good = TASKS
        .replace("sleep 100000 & echo about to hang; sleep 100000", "true")
        .replace("trap '' TERM; while true; do sleep 1; done", "true")
        .replace("yes no | head -c 50000000; echo the disk is on fire >&2; exit 3", "true")
        .replace("ghost", "daemon");
    hosts.converged(&hosts.change(&good));
    assert!(hosts.file("h1", "/etc/after-that").is_some());
}

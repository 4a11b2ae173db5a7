//! `groundplan exec`: output is shown as it is printed, every kind of end is distinguished, and nothing is left running.

use std::{collections::BTreeMap, fs, process::Command};

use groundplan_protocol::{
    VERSION,
    duration::Span,
    exec::{Exec, Order, RunOrder},
    ids::{ExecId, NodeId, SessionId, SiteName},
    kinds::Run,
};
use groundplan_tests::{
    binaries,
    brokers::Kind,
    fleet::{Fleet, SITE},
    live::{Ended, Live},
    processes::Identity,
    publish::{encrypted, publish},
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::with_both_brokers;

with_both_brokers!(
    output_is_live_and_ends_are_distinguished,
    nothing_is_left_running,
    output_of_nodes_is_shown_safely,
    commands_without_a_client_are_stopped,
    an_agent_that_does_not_answer_is_reported_and_runs_nothing_later,
    some_at_a_time_within_limits,
    bad_input,
);

/// `n1` and `n2` in group `web`, and `n3`, whose agent no test starts.
const FILES: [(&str, &str); 2] = [
    ("site.toml", "name = \"testsite\"\n"),
    (
        "inventory/nodes.toml",
        "[groups.web]\n\n[nodes.n1]\ngroups = [\"web\"]\n\n[nodes.n2]\ngroups = [\"web\"]\n\n[nodes.n3]\n",
    ),
];

/// The fleet once both agents are connected.
fn fleet(kind: Kind) -> Fleet {
    let fleet = Fleet::started(kind, &FILES, &["n1", "n2"]);
    there(&fleet);
    fleet
}

fn there(fleet: &Fleet) {
    fleet.wait("both agents", || {
        let status = fleet.ask("one", &["status"])?;
        let online = |node: &&Value| node["presence"] == "online" && !node["session"].is_null();
        let planning = status["planner"]["role"]["is"] == "planning";
        (planning && status["nodes"].as_array()?.iter().filter(online).count() == 2).then_some(())
    });
}

/// The connection of a node's agent, as the planner has it.
fn session(fleet: &Fleet, node: &str) -> Option<String> {
    let status = fleet.ask("one", &["status"])?;
    let node = status["nodes"].as_array()?.iter().find(|of| of["node"] == node)?.clone();
    (node["presence"] == "online").then(|| node["session"].as_str().map(str::to_owned))?
}

/// Starts the agent of a node again, which had the connection `before`, and waits until the planner has the new one.
fn start_again(fleet: &mut Fleet, node: &str, before: &str) {
    fleet.start_agent(node);
    fleet.wait("the agent's next connection", || session(fleet, node).filter(|session| session != before));
}

fn end(fleet: &Fleet, live: &mut Live) -> Ended {
    fleet.wait("the command to end", || live.ended())
}

fn run(fleet: &Fleet, args: &[&str]) -> Ended {
    end(fleet, &mut fleet.run("one", args))
}

/// The processes whose ids a command wrote to `pids` on the nodes.
fn processes(fleet: &Fleet) -> Vec<Identity> {
    let lines = ["n1", "n2"].map(|node| fleet.file(node, "pids").unwrap_or_default()).concat();
    lines.lines().filter_map(|pid| Identity::of(pid.parse().ok()?)).collect()
}

fn forget(fleet: &Fleet, nodes: &[&str]) {
    for node in nodes {
        match fs::remove_file(fleet.root(node).join("pids")) {
            // The command ended before it could write it.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
}

fn wait_ended(fleet: &Fleet, processes: &[Identity]) {
    fleet.wait("the processes to end", || processes.iter().all(|process| !process.is_alive()).then_some(()));
}

/// The latest command in the history.
fn latest(fleet: &Fleet) -> Option<Value> {
    let history = fleet.ask("one", &["history", "--kind", "commands"])?;
    let id = history["execs"][0]["id"].as_str()?.to_owned();
    fleet.ask("one", &["show", &id])
}

const SLEEP: &str = "echo $$ >> pids; echo begun; exec sleep 100000";

/// Waits until a command that prints `begun` once it has written its id to `pids` runs on so many nodes, and the client has their first output: so
/// the planner has it too.
fn begun(fleet: &Fleet, live: &Live, nodes: usize) -> Vec<Identity> {
    fleet.wait("the command to run", || {
        (live.out().lines().filter(|line| line.ends_with(" | begun")).count() == nodes).then_some(())
    });
    let running = processes(fleet);
    assert_eq!(running.len(), nodes);
    running
}

fn output_is_live_and_ends_are_distinguished(kind: Kind) {
    let fleet = fleet(kind);
    let line =
        "echo first; until test -e go; do sleep 0.02; done; printf 'a\\nb' ; echo bad >&2; test $GROUNDPLAN_NODE = n1";
    let mut live = fleet.run("one", &["exec", line, "--on", "all"]);
    fleet.wait("the first lines", || {
        (live.out() == "n1 | first\nn2 | first\n" || live.out() == "n2 | first\nn1 | first\n").then_some(())
    });
    fs::write(fleet.root("n1").join("go"), "").expect("a file");
    fleet.wait("the last line of one", || live.out().ends_with("n1 | a\nn1 | b\n").then_some(()));
    assert!(live.ended().is_none(), "the other runs on");
    fs::write(fleet.root("n2").join("go"), "").expect("a file");
    let ended = end(&fleet, &mut live);
    assert_eq!(ended.code, Some(4), "one was never reached: {ended:?}");
    assert!(ended.err.contains("n1 | bad\n") && ended.err.contains("n2 | bad\n"), "{ended:?}");
    assert!(ended.out.contains("on 3 nodes"), "{ended:?}");
    for line in ["exited with 0: 1 node (n1)", "exited with 1: 1 node (n2)", "offline: never reached: 1 node (n3)"] {
        assert!(ended.out.contains(&format!("  {line}\n")), "{ended:?}");
    }
    let record = latest(&fleet).expect("a record");
    assert_eq!((record["result"].as_str(), record["on"].as_str()), (Some("finished"), Some("all")));
    assert_eq!(record["nodes"]["n2"]["outcome"], serde_json::json!({ "is": "exited", "code": 1 }));
    assert_eq!(record["nodes"]["n3"]["outcome"], serde_json::json!({ "is": "offline" }));
    let head = record["nodes"]["n1"]["output"]["head"].as_str().expect("what it printed");
    assert!(head.starts_with("first\n") && head.contains("a\nb") && head.contains("bad\n"), "{head}");
    assert!(record["by"].as_str().is_some_and(|by| !by.is_empty()));

    // A program without a shell, live events, and success on all nodes.
    let ended =
        run(&fleet, &["exec", "--on", "web", "--format", "json", "--env", "A=b c", "--", "sh", "-c", "echo \"$A\""]);
    let events: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((ended.code, events[0]["event"].as_str()), (Some(0), Some("started")), "{ended:?}");
    assert_eq!(events.iter().filter(|event| event["event"] == "output" && event["text"] == "b c\n").count(), 2);
    let last = events.last().expect("an event");
    assert_eq!((last["event"].as_str(), last["record"]["env"][0].as_str()), (Some("finished"), Some("A")));
    assert!(!last.to_string().contains("b c"), "values of the environment and output are not repeated");
}

fn nothing_is_left_running(kind: Kind) {
    let fleet = fleet(kind);
    let ended = run(&fleet, &["exec", SLEEP, "--on", "n1", "--timeout", "300ms", "--quiet"]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.out.contains("timed out: 1 node (n1)"), "{ended:?}");
    assert!(processes(&fleet).is_empty(), "it has ended");

    // Ctrl-C, with one that ignores TERM for a while.
    forget(&fleet, &["n1"]);
    let stubborn = "trap 'sleep 0.3; exit 9' TERM; echo $$ >> pids; echo begun; while :; do sleep 0.05; done";
    let mut live = fleet.run("one", &["exec", stubborn, "--on", "web"]);
    let running = begun(&fleet, &live, 2);
    live.signal(Signal::SIGINT);
    let ended = end(&fleet, &mut live);
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.err.contains("stopping the command") && ended.out.contains("stopped: 2 nodes (n1, n2)"), "{ended:?}");
    assert!(running.iter().all(|process| !process.is_alive()), "they had ended when it was printed");
    assert_eq!(latest(&fleet).expect("a record")["result"], "stopped");

    // A reader that has read enough, of a command that prints nothing more.
    forget(&fleet, &["n1", "n2"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "{ \"$0\" exec --state \"$1\" --on n1 \"$2\"; echo $? >&2; } | head -n 1"]);
    shell.arg(binaries::groundplan()).arg(fleet.planner_state("one")).arg(SLEEP);
    let mut live = Live::start(shell);
    let running = begun(&fleet, &live, 1);
    let ended = end(&fleet, &mut live);
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "n1 | begun\n"), "{ended:?}");
    assert!(ended.err.contains("not read any more: stopping the command") && ended.err.ends_with("\n3\n"), "{ended:?}");
    assert!(running.iter().all(|process| !process.is_alive()));
    assert_eq!(latest(&fleet).expect("a record")["result"], "stopped");
}

/// What a node prints is data for a file, and acts on no terminal.
fn output_of_nodes_is_shown_safely(kind: Kind) {
    let fleet = fleet(kind);
    let hostile = "printf '\\033[2Jcleared\\342\\200\\256\\n'";
    let ended = run(&fleet, &["exec", hostile, "--on", "n1"]);
    assert!(ended.out.starts_with("n1 | \u{1b}[2Jcleared\u{202e}\n"), "{ended:?}");
    let record = latest(&fleet).expect("a record");
    let id = record["id"].as_str().expect("an id");
    let shown = run(&fleet, &["show", id]);
    assert!(shown.out.contains("␛[2Jcleared\u{fffd}"), "{shown:?}");
    let json = run(&fleet, &["show", id, "--format", "json"]);
    assert!(!json.out.contains('\u{202e}') && json.out.contains("\\u202e"), "{json:?}");
    // And what is written in a commit.
    let commit = fleet.commit(&[("site.toml", "name = \"testsite\"\nvars = { a = 1 }\n")], "\u{1b}]0;title\u{7}");
    fleet.wait("the commit", || {
        let status = fleet.ask("one", &["status"])?;
        (status["commit"]["id"] == commit.as_str()).then_some(())
    });
    let status = run(&fleet, &["status"]);
    assert!(status.out.contains("␛]0;title␇") && !status.out.contains('\u{1b}'), "{status:?}");
}

fn commands_without_a_client_are_stopped(kind: Kind) {
    let mut fleet = fleet(kind);
    // The client is killed.
    let live = fleet.run("one", &["exec", SLEEP, "--on", "web"]);
    let running = begun(&fleet, &live, 2);
    live.signal(Signal::SIGKILL);
    wait_ended(&fleet, &running);
    fleet.wait("the record", || (latest(&fleet)?["result"] == "stopped").then_some(()));

    // The planner is killed: its successor reads from the store what was started, and stops it.
    forget(&fleet, &["n1", "n2"]);
    let mut live = fleet.run("one", &["exec", SLEEP, "--on", "web"]);
    let running = begun(&fleet, &live, 2);
    fleet.kill_planner("one");
    let ended = end(&fleet, &mut live);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.out.contains("interrupted: the planner ended first: 2 nodes (n1, n2)"), "{ended:?}");
    assert!(running.iter().all(|process| process.is_alive()), "no planner has stopped them yet");
    fleet.start_planner("one");
    wait_ended(&fleet, &running);
    assert_eq!(latest(&fleet).expect("a record")["result"], "interrupted");

    // The agent ends: its commands end with it, which is reported.
    there(&fleet);
    let before = session(&fleet, "n1").expect("a connection");
    forget(&fleet, &["n1", "n2"]);
    let mut live = fleet.run("one", &["exec", SLEEP, "--on", "n1"]);
    let running = begun(&fleet, &live, 1);
    fleet.terminate_agent("n1");
    let ended = end(&fleet, &mut live);
    assert!(running.iter().all(|process| !process.is_alive()));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.out.contains("the agent is shutting down"), "{ended:?}");
    // Killed, it cannot report that; its command ends with it nevertheless.
    start_again(&mut fleet, "n1", &before);
    forget(&fleet, &["n1"]);
    let mut live = fleet.run("one", &["exec", SLEEP, "--on", "n1"]);
    let running = begun(&fleet, &live, 1);
    fleet.kill_agent("n1");
    wait_ended(&fleet, &running);
    let ended = end(&fleet, &mut live);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.out.contains("cut off while it ran: 1 node (n1)"), "{ended:?}");
}

fn an_agent_that_does_not_answer_is_reported_and_runs_nothing_later(kind: Kind) {
    let fleet = fleet(kind);
    let agent = nix::unistd::Pid::from_raw(fleet.agent_pid("n2").cast_signed());
    nix::sys::signal::kill(agent, Signal::SIGSTOP).expect("an agent");
    let ended = run(&fleet, &["exec", SLEEP, "--on", "web", "--timeout", "200ms"]);
    nix::sys::signal::kill(agent, Signal::SIGCONT).expect("an agent");
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        ended.out.contains("timed out: 1 node (n1)") && ended.out.contains("cut off: not run: 1 node (n2)"),
        "{ended:?}"
    );
    // The order that had waited for it is answered, and no go follows.
    let ended = run(&fleet, &["exec", "true", "--on", "n2"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    wait_ended(&fleet, &processes(&fleet));

    // An order for another connection, as one that the broker kept, is refused.
    let status = fleet.ask("one", &["status"]).expect("a status");
    let sessions: BTreeMap<&str, &str> = status["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter_map(|node| Some((node["node"].as_str()?, node["session"].as_str()?)))
        .collect();
    let order = |id: &str, session: &str| {
        let run = RunOrder {
            session: SessionId::new(session).expect("a session"),
            run: Run::Shell(format!("touch ran-{id}; sleep 100000")),
            user: None,
            cwd: None,
            env: BTreeMap::new(),
            timeout: Span::secs(60),
            output_limit: 1000,
        };
        let exec = Exec {
            version: VERSION,
            site: SiteName::new(SITE).expect("a site"),
            node: NodeId::new("n1").expect("a node"),
            id: ExecId::new(id).expect("an id"),
            order: Order::Run(Box::new(run)),
        };
        let topic = format!("groundplan/1/{SITE}/node/n1/exec");
        let exec = encrypted(&Fleet::planner_key(), &Fleet::node_key("n1"), &exec);
        publish(fleet.broker.address(), &topic, exec, false);
    };
    order("00000001", "0123456789abcdef");
    order("00000002", sessions["n1"]);
    // The planner sent neither: it has the one that fits stopped when that is ready.
    fleet.wait("the order that fits to be stopped", || {
        let log = fleet.logged("n1");
        log.contains("command 00000002 is refused: it was stopped before it began").then_some(())
    });
    assert!(fleet.logged("n1").contains("command 00000001 is refused: the order was for an earlier connection"));
    let ran = |id: &str| fleet.file("n1", &format!("ran-{id}"));
    assert_eq!((ran("00000001"), ran("00000002")), (None, None));
}

fn some_at_a_time_within_limits(kind: Kind) {
    let fleet = fleet(kind);
    let ended = run(
        &fleet,
        &[
            "exec",
            "seq 100000; false",
            "--on",
            "web",
            "--at-once",
            "1",
            "--max-failures",
            "1",
            "--output-limit",
            "1000",
            "--group",
        ],
    );
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended.out.contains("exited with 1: 1 node (n1)") && ended.out.contains("stopped: 1 node (n2)"),
        "{ended:?}"
    );
    let lines: Vec<&str> = ended.out.lines().filter(|line| line.starts_with("n1 | ")).collect();
    let bytes: usize = lines.iter().map(|line| line.len() - "n1 | ".len() + 1).sum();
    assert_eq!(bytes, 1000);
    assert!(ended.err.contains("587895 bytes of output omitted"), "{ended:?}");

    // All of a long output, in order.
    let ended = run(&fleet, &["exec", "seq 100000", "--on", "web"]);
    for node in ["n1", "n2"] {
        let prefix = format!("{node} | ");
        let numbers: Vec<usize> =
            ended.out.lines().filter_map(|line| line.strip_prefix(&prefix)?.parse().ok()).collect();
        assert!(numbers.iter().copied().eq(1..=100_000), "{} lines of {node}", numbers.len());
    }
}

fn bad_input(kind: Kind) {
    let fleet = fleet(kind);
    for (args, words) in [
        (vec!["exec", "true", "--on", "wbe"], vec!["the site has no node or group `wbe`", "did you mean `web`?"]),
        (vec!["exec", "true", "--on", "n1&n3"], vec!["the selector `n1&n3` matches no node", "`n1` matches 1 node"]),
        (vec!["exec", "true", "--on", "db-*"], vec!["no node's name matches `db-*`", "`n1`, `n2`, `n3`"]),
        (vec!["exec", "true", "--on", "n1,"], vec!["expected a node, a group, a label or a service after `n1,`"]),
        (vec!["exec", "true"], vec!["--on <SELECTOR>"]),
        (vec!["exec", "--on", "all"], vec!["<LINE>"]),
        (vec!["exec", " ", "--on", "all"], vec!["there is no command to run"]),
        (vec!["exec", "true", "--on", "all", "--cwd", "srv"], vec!["`srv` is no absolute path"]),
        (vec!["exec", "true", "--on", "all", "--timeout", "25h"], vec!["a time limit of 25h is not possible"]),
        (vec!["exec", "true", "--on", "all", "--env", "A"], vec!["NAME=VALUE"]),
    ] {
        let ended = run(&fleet, &args);
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{args:?}: {ended:?}");
        words.iter().for_each(|word| assert!(ended.err.contains(word), "{args:?}: {ended:?}"));
    }
    let history = fleet.ask("one", &["history"]).expect("a history");
    assert_eq!(history["execs"], serde_json::json!([]), "nothing was begun");
    let ended = run(&fleet, &["exec", "true", "--on", "n1", "--user", "no-such-user"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.out.contains("there is no user `no-such-user`"), "{ended:?}");
}

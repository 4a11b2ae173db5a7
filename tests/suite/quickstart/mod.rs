//! The sample site under `groundplan up`, with real processes on loopback: it converges, its edits restart what its README lists and
//! nothing else, and nothing of it survives its end.

mod site;

use std::collections::BTreeMap;

use groundplan_tests::needs_hosts;
use nix::sys::signal::Signal;

use self::site::Up;

/// Process ids by node and program.
type Pids = BTreeMap<(String, String), u32>;

fn kept(before: &Pids, after: &Pids) -> Vec<String> {
    let same = before.iter().filter(|(key, pid)| after.get(*key) == Some(*pid));
    same.map(|((node, program), _)| format!("{program}@{node}")).collect()
}

#[test]
fn edits_restart_what_the_readme_lists_and_nothing_else() {
    let up = Up::start();
    let first = up.converged();
    // The front end asks one after the other, and the next one if a loaded machine makes one too slow.
    for greeting in ["hello from beta", "hello from gamma"] {
        up.wait(greeting, || up.try_get("11", 17400).filter(|answer| answer.contains(greeting)));
    }
    let pids = up.pids();
    let programs: Vec<String> = pids.keys().map(|(node, program)| format!("{program}@{node}")).collect();
    assert_eq!(programs, ["database.pl@alpha", "front.pl@alpha", "app.pl@beta", "app.pl@gamma"]);

    // The application's configuration: the application on its nodes, one after the other, and nothing else.
    let commit = up.edit("services/app/service.toml", "greeting = \"hello\"", "greeting = \"good morning\"");
    let second = up.deployed(&commit, first);
    assert_eq!(
        up.actions(),
        ["update app.config@beta", "update app.config@gamma", "restart app.server@beta", "restart app.server@gamma"]
    );
    let after = up.pids();
    assert_eq!(kept(&pids, &after), ["database.pl@alpha", "front.pl@alpha"]);
    assert_eq!(after.len(), 4);
    assert!(up.get("11", 17400).contains("good morning from"));

    // As the README shows it.
    let reason = "app.config@beta ← var greeting hello → good morning (services/app/service.toml:7)";
    up.wait(reason, || up.output().contains(reason).then_some(()));

    // A comment: nothing.
    let commit = up.edit("services/app/service.toml", "# This is a comment", "# This is another comment");
    up.planned(&commit);
    assert_eq!(up.rollout(), second, "a comment made a rollout");
    assert_eq!(up.pids(), after);

    // The database's port: what names it, in order; the front end stays.
    let commit = up.edit("site.toml", "db_port = 17432", "db_port = 17433");
    up.deployed(&commit, second);
    let last = up.pids();
    assert_eq!(kept(&after, &last), ["front.pl@alpha"]);
    let spans = up.spans();
    let (database, applications) =
        (spans["database.server@alpha"], [spans["app.server@beta"], spans["app.server@gamma"]]);
    assert!(applications.iter().all(|application| database.1 <= application.0), "{spans:#?}");
    assert!(up.get("11", 17400).contains("the database says"));

    up.end(Signal::SIGINT);
}

#[test]
fn nothing_survives_sigkill() {
    let up = Up::start();
    up.converged();
    assert_eq!(up.pids().len(), 4);
    up.end(Signal::SIGKILL);
}

#[test]
fn a_node_that_is_added_gets_an_agent_and_one_that_is_removed_loses_it() {
    let up = Up::start();
    let first = up.converged();
    let front = up.pids()[&("alpha".to_owned(), "front.pl".to_owned())];
    let nodes = up.read("inventory/nodes.toml");
    let delta = format!("{nodes}\n[nodes.delta]\naddress = \"{}\"\ngroups = [\"app\"]\n", up.address("14"));
    up.write("inventory/nodes.toml", &delta);
    up.deployed(&up.commit("delta"), first);
    // A node gets its part when its agent reports for the first time, which may be after the others have theirs.
    up.wait("an application on delta", || {
        up.pids().contains_key(&("delta".to_owned(), "app.pl".to_owned())).then_some(())
    });
    up.wait("an answer from delta", || up.try_get("11", 17400).filter(|answer| answer.contains("from delta")));
    // The front end read its configuration again with the same process.
    assert_eq!(up.pids()[&("alpha".to_owned(), "front.pl".to_owned())], front);
    let second = up.converged();
    up.write("inventory/nodes.toml", &nodes);
    up.deployed(&up.commit("no delta"), second);
    up.wait("delta's processes to end", || (!up.pids().keys().any(|(node, _)| node == "delta")).then_some(()));
    up.end(Signal::SIGTERM);
}

#[test]
fn up_continues_where_it_was() {
    let mut up = Up::start();
    let first = up.converged();
    up.stop(Signal::SIGINT);
    up.start_again();
    up.planned(&up.head());
    up.wait("the processes to be back", || (up.pids().len() == 4).then_some(()));
    up.wait("the front end to answer", || up.try_get("11", 17400).filter(|a| a.contains("hello from")));
    assert_eq!(up.rollout(), first, "what was applied was planned again");
    up.end(Signal::SIGINT);
}

#[test]
fn without_a_site_it_lays_out_the_sample_and_prints_what_to_try() {
    let up = Up::sample();
    up.converged();
    let output = up.wait("what to try", || Some(up.output()).filter(|text| text.contains("Ctrl-C stops everything")));
    for words in ["converged in", "sed -i", "git -C", &format!("site {}/site, branch", up.dir().display())] {
        assert!(output.contains(words), "{words} is not in\n{output}");
    }
    // The usual port, or another one where that is in use.
    let port = output.split("curl http://127.0.0.11:").nth(1).and_then(|rest| rest.split('/').next()?.parse().ok());
    assert!(up.get("11", port.expect("the front end's port")).contains("hello from"), "{output}");
    up.end(Signal::SIGINT);
}

#[test]
fn a_second_one_in_the_same_directory_is_refused() {
    let up = Up::start();
    up.converged();
    let again = up.command().output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    let words = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(words.contains("another `groundplan up` is running in"), "{words}");
    up.end(Signal::SIGINT);
}

#[test]
fn without_a_site_it_runs_the_one_of_the_folder_and_every_command_finds_it() {
    let up = Up::here();
    up.converged();
    assert!(up.output().contains("site ., branch main"), "{}", up.output());
    let ignored = std::fs::read_to_string(up.dir().join(".gitignore")).expect("the folder ignores itself");
    assert_eq!(ignored, "*\n");
    for command in [&["status"][..], &["history"], &["key"], &["why", "beta", "app.server"]] {
        let run = std::process::Command::new(groundplan_tests::binaries::groundplan())
            .args(command)
            .current_dir("/")
            .env("GROUNDPLAN_UP_DIR", up.dir())
            .env_remove("GROUNDPLAN_STATE")
            .output()
            .expect("groundplan runs");
        assert!(run.status.success(), "{command:?}: {}", String::from_utf8_lossy(&run.stderr));
    }
    up.end(Signal::SIGINT);
}

#[test]
fn what_acts_on_a_host_as_a_whole_is_skipped_with_a_message() {
    let up = Up::start();
    let first = up.converged();
    let tasks = "\n[[task]]\nid = \"zone\"\nrequires = []\nsysctl = { \"net.ipv4.ip_forward\" = 1 }\n\
                 \n[[task]]\nid = \"unit\"\nrequires = []\nsystemd = { unit = \"nginx.service\" }\n";
    let service = up.read("services/front/service.toml");
    up.write("services/front/service.toml", &format!("{service}{tasks}"));
    let commit = up.commit("zone");
    up.deployed(&commit, first);
    for kind in ["sysctl", "systemd"] {
        let skipped = format!("skipped: `{kind}` acts on the host as a whole");
        up.wait(&skipped, || up.output().contains(&skipped).then_some(()));
    }
    up.end(Signal::SIGINT);
}

/// Its broker is part of it and admits everything, so what can go wrong with it is its start.
#[test]
fn a_broker_that_cannot_start_is_named_with_the_next_step() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let up = Up::waiting();
    let run = up.command().args(["--broker-port", &port]).output().expect("groundplan runs");
    let error = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{error}");
    for part in ["cannot start the embedded broker", "in use", "→ choose another port"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_first_commit_that_is_refused_is_printed_once() {
    let up = Up::broken();
    let output = up.wait("the refusal", || Some(up.output()).filter(|text| text.contains("is refused: 1 error")));
    assert!(output.contains("no commit is active: nothing is deployed"), "{output}");
    up.write("site.toml", &up.read("site.toml").replace("nmae = ", "name = "));
    up.commit("fixed");
    up.converged();
    assert_eq!(up.output().matches("is refused").count(), 1, "{}", up.output());
    up.end(Signal::SIGINT);
}

#[test]
fn it_prints_that_a_disk_is_full_and_that_it_has_room_again() {
    // It needs root, as real hosts do.
    needs_hosts!();
    for (place, full) in [
        ("planner", "the planner's store cannot be written; nothing is published until it can: "),
        ("nodes/beta/state", "beta: its agent cannot go on: "),
    ] {
        let (up, disk) = Up::on_small_disk(place);
        up.converged();
        disk.fill();
        let service = up.read("services/app/service.toml");
        // More than the room that a store or a ledger has in its own file.
        let failed = (0..40).any(|round| {
            let content = format!("{round} {}", "x".repeat(20_000));
            let task = format!("[[task]]\nid = \"note\"\nfile = {{ content = \"{content}\", path = \"/srv/note\" }}\n");
            up.write("services/app/service.toml", &format!("{service}\n{task}"));
            up.commit("more");
            up.wait("the commit to be carried out, or the disk to be reported", || {
                let failed = up.output().contains(full);
                let note = std::fs::read_to_string(up.dir().join("nodes/beta/root/srv/note")).unwrap_or_default();
                (failed || note.starts_with(&format!("{round} "))).then_some(failed)
            })
        });
        assert!(failed, "{}", up.output());
        disk.empty();
        up.wait("it to go on", || up.output().contains(&format!("no longer: {full}")).then_some(()));
        up.end(Signal::SIGTERM);
    }
}

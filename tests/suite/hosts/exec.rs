//! A command on ten hosts: output as it comes, every kind of end distinguished, and nothing left running.

use groundplan_tests::{
    hosts::Hosts,
    live::{Ended, Live},
    needs_hosts,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::NOTHING;

const TEN: [&str; 10] = ["h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8", "h9"];

fn online(hosts: &Hosts, wanted: usize) {
    hosts.wait(&format!("{wanted} hosts to be online"), || {
        let status = hosts.ask(&["status"])?;
        let online = |node: &&Value| node["presence"] == "online" && !node["session"].is_null();
        (status["nodes"].as_array()?.iter().filter(online).count() == wanted).then_some(())
    });
}

fn end(hosts: &Hosts, live: &mut Live) -> Ended {
    hosts.wait("the command to end", || live.ended())
}

/// On which hosts a line was printed.
fn printed(out: &str, line: &str) -> Vec<String> {
    let of = |text: &str| Some(text.strip_suffix(line)?.strip_suffix(" | ")?.to_owned());
    let mut hosts: Vec<String> = out.lines().filter_map(of).collect();
    hosts.sort();
    hosts
}

/// Whether the sleep that a command left in `/run/pid` still runs on a host.
fn sleeps(hosts: &Hosts, host: &str) -> bool {
    hosts.sh(host, "kill -0 $(cat /run/pid)").status == Some(0)
}

#[test]
fn ten_hosts_and_every_way_to_end() {
    needs_hosts!();
    let hosts = Hosts::site(&TEN).serve(NOTHING);
    online(&hosts, 10);

    // h3 fails, h5 hangs, h7 is cut off in the middle; the others wait for a file of the test and end.
    let line = "echo begun; case $GROUNDPLAN_NODE in \
                h3) echo broken >&2; exit 7;; h5 | h7) echo $$ > /run/pid; exec sleep 100000;; esac; \
                until test -e /run/go; do sleep 0.05; done; echo done";
    let mut live = hosts.fleet.run("one", &["exec", line, "--on", "all", "--timeout", "40s"]);
    hosts.wait("the first line of all", || (printed(&live.out(), "begun").len() == 10).then_some(()));
    hosts.wait("the error of one", || live.err().contains("h3 | broken\n").then_some(()));
    assert!(printed(&live.out(), "done").is_empty() && live.ended().is_none(), "output comes before the end");
    hosts.cut("h7");
    hosts.wait("the report of the cut", || live.err().contains("h7 | … cut off while it ran\n").then_some(()));
    assert!(sleeps(&hosts, "h7"), "what was cut off runs on");
    for host in ["h0", "h1", "h2", "h4", "h6", "h8", "h9"] {
        hosts.out(host, "touch /run/go");
        hosts.wait("its last line, while others run on", || {
            printed(&live.out(), "done").contains(&host.to_owned()).then_some(())
        });
    }
    let ended = end(&hosts, &mut live);
    for words in [
        "exited with 0: 7 nodes (h0, h1, h2, h4, h6, h8, h9)",
        "exited with 7: 1 node (h3)",
        "timed out: 1 node (h5)",
        "cut off while it ran: 1 node (h7)",
    ] {
        assert!(ended.out.contains(&format!("  {words}\n")), "{words} in {ended:?}");
    }
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(!sleeps(&hosts, "h5"), "what took too long was ended");

    // It is recorded, and shown again.
    let history = hosts.ask(&["history", "--kind", "commands"]).expect("a history");
    let id = history["execs"][0]["id"].as_str().expect("an id");
    let record = hosts.ask(&["show", id]).expect("a record");
    assert_eq!(record["nodes"]["h3"]["outcome"], serde_json::json!({ "is": "exited", "code": 7 }));
    // Two streams: which of the two is read first is not defined.
    let head = record["nodes"]["h3"]["output"]["head"].as_str().unwrap_or_default();
    assert!(["begun\nbroken\n", "broken\nbegun\n"].contains(&head), "{head}");
    assert_eq!(record["nodes"]["h7"]["outcome"], serde_json::json!({ "is": "cut_off", "began": true }));

    // Cut off with hours to run: it continues there, and the client does not wait for it.
    hosts.join("h7");
    online(&hosts, 10);
    let line = "rm -f /run/pid; echo $$ > /run/pid; exec sleep 100000";
    hosts.out("h7", "rm /run/pid");
    let mut live = hosts.fleet.run("one", &["exec", line, "--on", "h7", "--timeout", "24h"]);
    hosts.wait("it to run", || sleeps(&hosts, "h7").then_some(()));
    hosts.cut("h7");
    let ended = end(&hosts, &mut live);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(sleeps(&hosts, "h7"));
    // A node that is offline is reported at once, and nothing waits for it.
    let mut live = hosts.fleet.run("one", &["exec", "touch /run/late", "--on", "h6,h7", "--quiet"]);
    let ended = end(&hosts, &mut live);
    assert!(ended.out.contains("offline: never reached: 1 node (h7)") && ended.code == Some(4), "{ended:?}");
    // Back again, it stops what no client waits for any more, and runs nothing late.
    hosts.join("h7");
    online(&hosts, 10);
    hosts.wait("what was cut off to end", || (!sleeps(&hosts, "h7")).then_some(()));
    assert_eq!((hosts.file("h7", "/run/late"), hosts.file("h6", "/run/late").as_deref()), (None, Some("")));

    // Ctrl-C.
    let mut live = hosts.fleet.run("one", &["exec", line, "--on", "!h0"]);
    hosts.wait("all but one to run", || TEN[1..].iter().all(|host| sleeps(&hosts, host)).then_some(()));
    live.signal(Signal::SIGINT);
    let ended = end(&hosts, &mut live);
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.out.contains("  stopped: 9 nodes (h1, h2, h3, h4, h5, h6, h7, h8, h9)\n"), "{ended:?}");
    assert!(TEN[1..].iter().all(|host| !sleeps(&hosts, host)), "nothing runs any more");

    // A selector that matches nothing.
    let ended = end(&hosts, &mut hosts.fleet.run("one", &["exec", "touch /run/never", "--on", "h1&h2"]));
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.err.contains("the selector `h1&h2` matches no node"), "{ended:?}");
}

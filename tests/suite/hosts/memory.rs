//! What the agent takes of memory on a real host: the released program, static, under systemd.

use groundplan_tests::{
    binaries,
    hosts::{Hosts, Memory},
    needs_hosts,
};

/// A plan of a thousand tasks: files and commands, half and half.
fn thousand() -> String {
    let task = |n: usize| match n % 2 {
        0 => format!("[[task]]\nid = \"t{n}\"\nfile = {{ path = \"/srv/{n}\", content = \"{n}\\n\" }}\n\n"),
        _ => format!("[[task]]\nid = \"t{n}\"\ncommand = {{ run = \"echo {n}\" }}\n\n"),
    };
    (0..1000).map(task).collect()
}

#[test]
fn agent_memory_before_and_after_a_thousand_tasks() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"])
        .agent(binaries::static_agent())
        .serve("[[task]]\nid = \"first\"\nfile = { path = \"/srv/first\", content = \"1\\n\" }\n");
    hosts.converged(&hosts.head());
    let before = hosts.agent_memory("h1");
    hosts.converged(&hosts.change(&thousand()));
    assert_eq!(hosts.out("h1", "ls /srv | wc -l"), "500");
    let after = hosts.agent_memory("h1");
    let mib = |kib: u64| kib as f64 / 1024.0;
    let line =
        |when: &str, m: Memory| format!("{when}: {:.1} MiB, at its peak {:.1} MiB", mib(m.resident), mib(m.peak));
    println!("agent on a host; {}; {}", line("idle", before), line("after a thousand tasks", after));
    // The released agent's target is 4 MiB idle; a plan of a thousand tasks is held, and given back.
    assert!(before.resident < 6 * 1024, "{before:?}");
    assert!(after.peak < 16 * 1024 && after.resident < 12 * 1024, "{after:?}");
}

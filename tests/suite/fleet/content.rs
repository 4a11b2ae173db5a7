//! Files that are too long to be held: streamed by the planner, limited by it and by agents.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use groundplan_tests::{binaries, brokers::Kind, fleet::Fleet};

const INVENTORY: &str = "[groups.g]\nservices = [\"s\"]\n\n[nodes.n1]\ngroups = [\"g\"]\n";
const SERVICE: &str = "[[task]]\nid = \"big\"\nfile = { path = \"/srv/big\", source = \"big\" }\n";
const FIRST: &str = "[[task]]\nid = \"first\"\nfile = { path = \"/srv/first\", content = \"\" }\n";
const MIB: usize = 1 << 20;

fn site(service: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![
        ("site.toml", "name = \"testsite\"\n"),
        ("inventory/nodes.toml", INVENTORY),
        ("services/s/service.toml", service),
    ]
}

/// The greatest resident memory of a process so far, in bytes (proc(5)).
fn peak(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// Writes a file of that many MiB, none of which is like another.
fn write(fleet: &Fleet, mib: usize) {
    let mut file = File::create(fleet.repository().join("services/s/big")).expect("a file");
    for n in 0..mib {
        file.write_all(&n.to_string().repeat(MIB).as_bytes()[..MIB]).expect("a disk with room");
    }
}

#[test]
fn a_long_file_is_streamed() {
    const LENGTH: usize = 100;
    // With the broker in the planner's own process: what waits there counts as well.
    let mut fleet = Fleet::new(Kind::Embedded, &site(FIRST));
    fleet.embed_broker();
    fleet.start_planner("one");
    fleet.start_agent("n1");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let before = peak(fleet.planner_pid("one"));
    write(&fleet, LENGTH);
    let commit = fleet.commit(&[("services/s/service.toml", SERVICE)], "a long file");
    let shipped = || (fleet.planned("one", &commit)?["rollout"]["result"] == "succeeded").then_some(());
    fleet
        .attempt("the file to be shipped", Duration::from_secs(300), shipped)
        .unwrap_or_else(|error| panic!("{error}"));
    let copy = fs::metadata(fleet.root("n1").join("srv/big")).expect("the file on the node");
    assert_eq!(copy.len(), (LENGTH * MIB) as u64);
    let after = peak(fleet.planner_pid("one"));
    println!("planner's peak: {} MiB before, {} MiB after a file of {LENGTH} MiB", before / MIB, after / MIB);
    assert!(after - before < LENGTH / 2 * MIB, "it holds no more than what is on its way");

    // One that no agent would take is refused with its place, and by `check` as well.
    write(&fleet, 257);
    let commit = fleet.commit(&[], "too long");
    let faults = fleet.wait("the refusal", || {
        let refused = fleet.ask("one", &["status"])?["refused"].clone();
        (refused["commit"]["id"].as_str() == Some(&*commit)).then(|| refused.to_string())
    });
    assert!(faults.contains("`big` has 257.0 MiB; at most 256 may be shipped"), "{faults}");
}

#[test]
fn a_plan_that_an_agent_refuses_ends_the_rollout() {
    let mut fleet = Fleet::new(Kind::Embedded, &site(FIRST));
    // An agent that is configured to take less than the planner allows.
    let program = fleet.repository().parent().expect("a folder").join("small-agent");
    let line = format!("#!/bin/sh\nexec {} \"$@\" --max-blob 1000000\n", binaries::agent().display());
    fs::write(&program, line).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    fleet.use_agent(program);
    fleet.start_planner("one");
    fleet.start_agent("n1");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));

    write(&fleet, 2);
    fleet.failed("one", &fleet.commit(&[("services/s/service.toml", SERVICE)], "a file that is too long for it"));
    let why = fleet.ask("one", &["why", "n1", "s.big"]).expect("an explanation")["record"].to_string();
    assert!(why.contains("the agent refuses the plan: names a blob of 2 MiB; the limit is "), "{why}");

    // The planner that comes after it knows it too; and the next commit is carried out.
    fleet.kill_planner("one");
    fleet.start_planner("one");
    fleet.failed("one", &fleet.git(&["rev-parse", "HEAD"]));
    fs::write(fleet.repository().join("services/s/big"), "short").expect("a file");
    fleet.converged("one", &fleet.commit(&[], "a short file"));
    assert_eq!(fleet.file("n1", "srv/big").as_deref(), Some("short"));
}

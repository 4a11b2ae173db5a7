//! Full disks: a planner or an agent does nothing that it could not write down, says so in the status, and goes on once there is room.

use groundplan_tests::{brokers::Kind, fleet::Fleet, needs_hosts, small_disk::SmallDisk};

use super::web;

#[test]
fn a_planner_goes_on_when_its_disk_has_room_again() {
    // It needs root, as real hosts do.
    needs_hosts!();
    let mut fleet = Fleet::new(Kind::Embedded, &web());
    let disk = SmallDisk::mount(fleet.planner_state("one"), 2);
    for node in ["n1", "n2"] {
        fleet.start_agent(node);
    }
    fleet.start_planner("one");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));

    disk.fill();
    // More than the room that the store has in its own file.
    let mut last = String::new();
    for round in 0..40 {
        let site = format!("name = \"testsite\"\n[vars]\ngreeting = \"{round} {}\"\n", "x".repeat(20_000));
        last = fleet.commit(&[("site.toml", &site)], "more");
        let failed = fleet.wait("the commit to be taken up, or the store to fail", || {
            let taken = fleet.ask("one", &["status"]).is_some_and(|status| status["commit"]["id"] == last.as_str());
            let failed = fleet.logged("planner-one").contains("the store cannot be written");
            (taken || failed).then_some(failed)
        });
        if failed {
            break;
        }
    }
    fleet.wait("the store to fail", || {
        fleet.logged("planner-one").contains("the store cannot be written").then_some(())
    });
    let status = fleet.ask("one", &["status"]).expect("an answer");
    assert_eq!(status["troubles"][0]["is"], "store", "{status:#}");
    assert_eq!(fleet.output("one", &["status", "--exit-code"]).status.code(), Some(2));
    let text = fleet.text("one", &["status"]);
    assert!(text.contains("its store cannot be written"), "{text}");
    disk.empty();
    fleet.wait("the store to work", || fleet.logged("planner-one").contains("the store works again").then_some(()));
    let status = fleet.converged("one", &last);
    assert_eq!(status["troubles"], serde_json::json!([]), "{status:#}");
}

#[test]
fn an_agent_reports_that_it_cannot_write_its_ledger_and_goes_on_when_it_can() {
    // It needs root, as real hosts do.
    needs_hosts!();
    let mut fleet = Fleet::new(Kind::Embedded, &web());
    let disk = SmallDisk::mount(fleet.agent_state("n1"), 2);
    for node in ["n1", "n2"] {
        fleet.start_agent(node);
    }
    fleet.start_planner("one");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));

    disk.fill();
    let trouble = || {
        let status = fleet.ask("one", &["status"])?;
        status["troubles"].as_array()?.iter().find(|trouble| trouble["is"] == "agent").cloned()
    };
    let found = (0..40).find_map(|round| {
        let site = format!("name = \"testsite\"\n[vars]\ngreeting = \"{round} {}\"\n", "x".repeat(20_000));
        fleet.commit(&[("site.toml", &site)], "more");
        fleet.wait("the commit to be carried out, or the ledger to fail", || {
            let taken = fleet.file("n1", "etc/web.conf")?.starts_with(&format!("greeting = {round} "));
            trouble().map(Some).or(taken.then_some(None))
        })
    });
    let found = found.expect("the disk is full");
    assert_eq!(found["node"], "n1", "{found}");
    assert_eq!(fleet.output("one", &["status", "--exit-code"]).status.code(), Some(2));
    disk.empty();
    fleet.wait("the agent to go on", || trouble().is_none().then_some(()));
    // What could not be written as part of a task has failed, and is tried again with the next commit.
    let last = fleet.commit(&[], "again");
    fleet.converged("one", &last);
}

//! A second planner stands by and takes over; a planner that lost its disk continues from git and the agents.

use groundplan_tests::{brokers::Kind, fleet::Fleet};

use super::{BOTH, greeting, web, with_both_brokers};

with_both_brokers!(second_planner_takes_over, planner_that_lost_its_disk);

fn second_planner_takes_over(kind: Kind) {
    let mut fleet = Fleet::started(kind, &web(), &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fleet.start_planner("two");
    fleet.wait("the second planner to stand by", || {
        (fleet.ask("two", &["status"])?["planner"]["role"]["is"].as_str()? == "standby").then_some(())
    });
    let commit = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    fleet.converged("one", &commit);
    for node in BOTH {
        assert_eq!(fleet.lines(node, "starts"), 2, "two planners, one restart");
    }
    fleet.kill_planner("one");
    fleet.wait("the second planner to take over", || {
        (fleet.ask("two", &["status"])?["planner"]["role"]["is"].as_str()? == "planning").then_some(())
    });
    let commit = fleet.commit(&[("site.toml", &greeting("three"))], "three");
    fleet.converged("two", &commit);
    for node in BOTH {
        assert_eq!(fleet.lines(node, "starts"), 3, "the new planner started from what was applied");
    }
}

fn planner_that_lost_its_disk(kind: Kind) {
    let mut fleet = Fleet::started(kind, &web(), &BOTH);
    let first = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &first);
    fleet.kill_planner("one");
    std::fs::remove_dir_all(fleet.planner_state("one")).expect("the planner's disk");
    fleet.start_planner("one");
    let commit = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    fleet.converged("one", &commit);
    for node in BOTH {
        assert_eq!(fleet.lines(node, "starts"), 2, "nothing but the change was done");
    }
}

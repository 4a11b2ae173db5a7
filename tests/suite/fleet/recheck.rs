//! `groundplan recheck`: what was changed out of band is repaired, with only the restarts that follow from it.

use std::fs;

use groundplan_tests::{brokers::Kind, fleet::Fleet};
use serde_json::Value;

use super::{web, with_both_brokers};

with_both_brokers!(drift_is_repaired, what_cannot_be_checked_is_left_out);

/// Outcome of each instance of the rollout that a recheck made.
fn outcomes(answer: &Value) -> Vec<(String, bool)> {
    let of = |record: &Value| {
        let changed = record["outcome"]["changed"].as_bool().unwrap_or_else(|| panic!("not done: {record}"));
        (record["instance"].as_str().unwrap_or_default().to_owned(), changed)
    };
    answer["rollout"]["instances"].as_array().expect("instances").iter().map(of).collect()
}

fn drift_is_repaired(kind: Kind) {
    let fleet = Fleet::started(kind, &web(), &["n1", "n2"]);
    let head = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &head);

    let answer = fleet.ask("one", &["recheck"]).expect("an answer");
    assert_eq!(answer["rollout"]["result"], "succeeded");
    let all = outcomes(&answer);
    assert_eq!(all.iter().filter(|(_, changed)| *changed).count(), 0, "{all:?}");
    assert_eq!(all.len(), 4, "{all:?}");

    fs::write(fleet.root("n1").join("etc/web.conf"), "greeting = another\n").expect("a file");
    let answer = fleet.ask("one", &["recheck", "web.config", "--on", "n1"]).expect("an answer");
    let changed: Vec<String> = outcomes(&answer).into_iter().filter(|(_, c)| *c).map(|(i, _)| i).collect();
    assert_eq!(changed, ["web.config@n1", "web.server@n1"]);
    let others = outcomes(&answer).into_iter().filter(|(i, _)| i.ends_with("@n2")).count();
    assert_eq!(others, 0, "what has been checked is not checked again: {answer:#}");
    assert_eq!(fleet.file("n1", "etc/web.conf").as_deref(), Some("greeting = one\n"));
    assert_eq!((fleet.lines("n1", "starts"), fleet.lines("n2", "starts")), (2, 1));
}

fn what_cannot_be_checked_is_left_out(kind: Kind) {
    let files = [
        ("site.toml", "name = \"testsite\"\n"),
        ("inventory/nodes.toml", "[groups.all]\nservices = [\"job\"]\n\n[nodes.n1]\n"),
        (
            "services/job/service.toml",
            "[[task]]\nid = \"bare\"\ncommand = { run = \"echo ran >> runs\" }\n\n\
             [[task]]\nid = \"guarded\"\ncommand = { run = \"touch there\", creates = \"/there\" }\n",
        ),
    ];
    let fleet = Fleet::started(kind, &files, &["n1"]);
    let head = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &head);
    let answer = fleet.ask("one", &["recheck"]).expect("an answer");
    assert_eq!(answer["left_out"], serde_json::json!(["job.bare@n1"]));
    assert_eq!(outcomes(&answer), [("job.guarded@n1".to_owned(), false)]);
    assert_eq!(fleet.lines("n1", "runs"), 1);
    assert!(fleet.ask("one", &["recheck", "nothing"]).is_none(), "the site has no such service");
}

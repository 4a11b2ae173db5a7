//! What a failed comparison has to be explained by: what planner and agent did with the tasks that differ.
//!
//! In: the hosts as they are after the failure, the sites of the last step, and the differences. Out: text for people. Nothing on the hosts
//! is changed by it.

use std::collections::BTreeSet;

use groundplan_protocol::ids::TaskId;
use serde_json::Value;

use super::{expectation::owner, site::Site};
use crate::hosts::Hosts;

/// How many of the latest rollouts are shown.
const ROLLOUTS: usize = 8;
/// How many lines of the agent's journal are shown.
const JOURNAL: usize = 80;

/// The host that has lived through all commits.
const LIVED: &str = "lived";

/// What became of each task of these sites on the lived-in host, with what it reported last; also of those that only a superseded commit had.
pub(super) fn reports(hosts: &Hosts, sites: &[Site]) -> String {
    let tasks: BTreeSet<TaskId> = sites.iter().flat_map(Site::ids).collect();
    let line = |task: &TaskId| {
        let record = hosts.ask(&["why", LIVED, &task.to_string()])?["record"].take();
        Some(format!("{task}: {} {} {}", record["action"], record["outcome"], record["output"]["head"]))
    };
    tasks.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

/// The tasks of these sites that have, or had, what the differences are about.
fn concerned(sites: &[Site], differences: &[String]) -> BTreeSet<TaskId> {
    let key = |difference: &String| difference.split(": ").next().unwrap_or_default().to_owned();
    let keys: Vec<String> = differences.iter().map(key).collect();
    sites
        .iter()
        .flat_map(|site| {
            let owners = site.owners();
            let tasks: Vec<TaskId> = keys.iter().filter_map(|key| Some(owner(&owners, key)?.task.clone())).collect();
            tasks
        })
        .collect()
}

/// The latest rollouts with all that they did to the tasks that the differences are about; what the node reports of itself, and the log of
/// its agent.
pub(super) fn history(hosts: &Hosts, sites: &[Site], differences: &[String]) -> String {
    let tasks = concerned(sites, differences);
    let mut text = format!("tasks: {tasks:?}\n");
    let list = hosts.ask(&["history", "--kind", "rollouts", "--limit", &ROLLOUTS.to_string()]).unwrap_or_default();
    let mut generations = generations(&list);
    generations.sort_unstable();
    for generation in generations {
        let Some(rollout) = hosts.ask(&["show", &generation.to_string()]) else { continue };
        let of = |name: &str| &rollout[name];
        text += &format!(
            "rollout {generation} to {}: {}, from {} to {}\n",
            of("commit")["id"],
            of("result"),
            of("started_ms"),
            of("finished_ms")
        );
        for instance in of("instances").as_array().into_iter().flatten() {
            let name = instance["instance"].as_str().unwrap_or_default();
            let is_concerned = name.split_once('@').is_some_and(|(task, node)| {
                node == LIVED && task.parse().is_ok_and(|task: TaskId| tasks.contains(&task))
            });
            if is_concerned {
                text += &format!("    {instance}\n");
            }
        }
    }
    let mut node = hosts.ask(&["show", LIVED]).unwrap_or_default();
    if let Some(node) = node.as_object_mut() {
        node.remove("facts");
    }
    text += &format!("--- the node\n{node:#}\n--- its agent\n");
    text + &hosts
        .out(LIVED, &format!("journalctl --no-pager --lines {JOURNAL} --output short-precise --unit groundplan-agent"))
}

/// The generations of all rollouts in an answer.
fn generations(history: &Value) -> Vec<u64> {
    match history {
        Value::Object(fields) => {
            let own = fields.get("generation").and_then(Value::as_u64);
            own.into_iter().chain(fields.values().flat_map(generations)).collect()
        }
        Value::Array(items) => items.iter().flat_map(generations).collect(),
        _ => Vec::new(),
    }
}

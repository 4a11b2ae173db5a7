//! On real hosts: Debian with systemd, each with its own address, reached only over MQTT. Run by `tests/run hosts`; needs root.

mod accounts;
mod bootstrap;
mod commands;
mod containers;
mod cron;
mod drift;
mod exec;
mod exports;
mod hand_over;
mod kernel;
mod killed;
mod memory;
mod mounts;
mod packages;
mod plugins;
mod property;
mod reboot;
mod restored;
mod rpm_packages;
mod survival;
mod texts;
mod unit_states;
mod units;
mod up;

use groundplan_tests::{
    hosts::{Hosts, Image},
    needs_hosts,
};
use serde_json::Value;

/// Run first by `tests/run`, so that its progress is visible.
#[test]
fn image_is_built() {
    needs_hosts!();
    let image = Image::Base.directory().expect("an image");
    let sources = std::fs::read_to_string(image.join("etc/apt/sources.list")).expect("a list of sources");
    assert_eq!(sources, "", "no name of a registry is kept");
    assert!(image.join("usr/bin/systemctl").exists() && image.join("sbin/init").exists());
}

/// A service without tasks.
const NOTHING: &str = "# Nothing.\n";

/// Has all hosts check again what they applied, and waits for the end; they find nothing that drifted after it.
fn recheck(hosts: &Hosts) {
    assert!(hosts.ask(&["recheck"]).is_some(), "all is as it should be in the end");
    assert_eq!(drifted(hosts), [""; 0]);
}

/// Has all hosts check for drift; what differs, each as `task what: expected -> found`.
fn drifted(hosts: &Hosts) -> Vec<String> {
    differences(&hosts.drift(&[]))
}

/// The same of the output of `groundplan drift`.
fn differences(drift: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let nodes = || drift["nodes"].as_array().into_iter().flatten();
    nodes().for_each(|node| assert_eq!(node["failed"], Value::Null, "{drift:#}"));
    let tasks = nodes().flat_map(|node| node["drifted"].as_object().into_iter().flatten());
    let lines = tasks.flat_map(|(task, drifted)| {
        let differences = drifted["differences"].as_array().cloned().unwrap_or_default();
        assert!(!differences.is_empty(), "{task} names what differs");
        let line =
            move |d: &Value| format!("{task} {}: {} -> {}", text(&d["what"]), text(&d["expected"]), text(&d["found"]));
        differences.iter().map(line).collect::<Vec<_>>()
    });
    lines.collect()
}

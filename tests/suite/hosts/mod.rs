//! On real hosts: Debian with systemd, each with its own address, reached only over MQTT. Run by `tests/run hosts`; needs root.

mod accounts;
mod bootstrap;
mod commands;
mod containers;
mod cron;
mod drift;
mod exports;
mod kernel;
mod keystone;
mod memory;
mod packages;
mod plugins;
mod reboot;
mod survival;
mod texts;
mod units;

use groundplan_tests::{
    hosts::{Hosts, Image},
    needs_hosts,
};

/// By itself what `tests/run` runs first, so that its progress is seen.
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

/// Has all hosts check again what they applied, and waits for the end.
fn recheck(hosts: &Hosts) {
    assert!(hosts.ask(&["recheck"]).is_some(), "all is as it should be in the end");
}

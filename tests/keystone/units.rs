//! When the services of hosts were started, from systemd itself: what was restarted is what has another start time, and nothing else.

use std::collections::BTreeMap;

use groundplan_tests::hosts::Hosts;

/// By host and unit: the start in microseconds since the host's boot, and the same for people.
pub(super) struct Units(BTreeMap<(String, String), (u64, String)>);

impl Units {
    /// Every service that runs on the hosts, the system's own included.
    pub(super) fn of(hosts: &Hosts, nodes: &[&str]) -> Self {
        let line = "systemctl list-units --type service --state running --plain --no-legend | cut -d ' ' -f 1 | \
                    xargs systemctl show --property Id,ExecMainStartTimestamp,ExecMainStartTimestampMonotonic";
        let mut units = BTreeMap::new();
        for node in nodes {
            for unit in hosts.out(node, line).split("\n\n") {
                let get = |key: &str| {
                    let mut pairs = unit.lines().filter_map(|line| line.split_once('='));
                    pairs.find_map(|(name, value)| (name == key).then(|| value.to_owned())).expect("a property")
                };
                let start = get("ExecMainStartTimestampMonotonic").parse().expect("a time");
                units.insert(((*node).to_owned(), get("Id")), (start, get("ExecMainStartTimestamp")));
            }
        }
        Self(units)
    }

    /// What was started again by `after`, by host and unit. What runs only for a while, such as a service that answers on the bus, may
    /// have come; nothing may have gone.
    pub(super) fn restarted<'a>(&self, after: &'a Self) -> Vec<(&'a str, &'a str)> {
        let gone: Vec<_> = self.0.keys().filter(|unit| !after.0.contains_key(*unit)).collect();
        assert!(gone.is_empty(), "no longer running: {gone:?}");
        let differs = |(unit, now): &(&'a (String, String), &'a (u64, String))| {
            self.0.get(*unit).is_some_and(|before| before.0 != now.0)
        };
        after.0.iter().filter(differs).map(|((host, unit), _)| (host.as_str(), unit.as_str())).collect()
    }

    /// The services of the stack, before and after.
    pub(super) fn table(&self, after: &Self, what: &str) -> String {
        let mut table = format!("| {what} changed | started before | started after | |\n|---|---|---|---|\n");
        for ((host, unit), (start, time)) in &self.0 {
            let stack = ["mariadb", "rabbitmq-server", "memcached", "keystone"];
            if !stack.iter().any(|name| unit.strip_suffix(".service") == Some(name)) {
                continue;
            }
            let now = after.0.get(&(host.clone(), unit.clone()));
            let clock = |time: &str| time.split(' ').nth(2).unwrap_or_default().to_owned();
            let (then, note) = match now {
                Some((again, time)) if again != start => (clock(time), "**restarted**"),
                Some((_, time)) => (clock(time), ""),
                None => (String::new(), "gone"),
            };
            table.push_str(&format!("| {host} `{unit}` | {} | {then} | {note} |\n", clock(time)));
        }
        table
    }
}

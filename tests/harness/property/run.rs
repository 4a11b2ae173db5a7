//! Running the property: two hosts of one site, one that lives through all commits and one that is made for each.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use groundplan_protocol::ids::TaskId;
use serde_json::Value;

use super::{
    PRINTS,
    expectation::Expectation,
    explain,
    fingerprint::Fingerprint,
    generator::{Generator, Step},
    prepare::prepare,
    site::Site,
};
use crate::{
    fleet::{Fleet, SITE},
    hosts::{Hosts, Image},
};

/// How many steps a failure shows.
const SHOWN: usize = 6;
/// How many differences a failure shows.
const DIFFERENCES: usize = 25;

/// What to run.
#[derive(Debug, Clone)]
pub struct Property {
    /// What everything follows from.
    pub seed: u64,
    /// How many times hosts are compared.
    pub commits: u32,
    /// The first commit after which hosts are compared: they are brought to the one before it at once.
    pub from: u32,
    /// Whether tasks may fail.
    pub faults: bool,
    /// Whether agents are killed. The sites are the same either way.
    pub kills: bool,
    /// Kinds that no site has, in small letters, such as `image`.
    pub without: Vec<String>,
    /// Whether each commit is printed.
    pub verbose: bool,
}

impl Default for Property {
    fn default() -> Self {
        Self { seed: 1, commits: 200, from: 1, faults: true, kills: true, without: Vec::new(), verbose: true }
    }
}

/// What a run that held has done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Comparisons.
    pub commits: u32,
    /// Commits that no planner saw, or that were superseded.
    pub passed_over: u32,
    /// Comparisons while tasks failed.
    pub failing: u32,
    /// Kills of the agent.
    pub kills: u32,
    /// Keys that were compared, in all.
    pub keys: usize,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commits, passed_over, failing, kills, keys, took } = self;
        write!(
            f,
            "{commits} commits held ({failing} with failed tasks, {passed_over} more passed over, {kills} kills): "
        )?;
        write!(f, "{keys} things compared in {:.0} s", took.as_secs_f64())
    }
}

/// Prints the seed if the run panics, such as when a host does not answer.
struct Announced<'a>(u64, &'a Cell<u32>);

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, commit {}: tests/run property --seed {}", self.0, self.1.get(), self.0);
        }
    }
}

impl Property {
    /// Runs it, as root.
    ///
    /// # Errors
    /// If it does not hold: with the seed, what was done last, and all differences.
    ///
    /// # Panics
    /// If a host or the planner cannot be reached; with the seed and all logs.
    pub fn run(self) -> Result<Totals, String> {
        let at = Cell::new(0);
        let _announced = Announced(self.seed, &at);
        let (begun, mut totals) = (Instant::now(), Totals::default());
        let mut generator = Generator::new(self.seed, self.faults, &self.without);
        let mut world = World::start();
        let mut done: Vec<String> = Vec::new();
        for number in 1..=self.commits {
            at.set(number);
            let (mut step, began) = (generator.step(), Instant::now());
            if number + 1 < self.from {
                continue;
            }
            if number < self.from {
                step = Step { skipped: Vec::new(), superseded: None, kill: None, ..step };
            }
            if !self.kills && step.kill.take().is_some() {
                step.done.pop();
            }
            done.push(format!("{number}: {}", step.done.join("\n     ")));
            let (differences, keys) = world.take(&step, number);
            if self.verbose {
                println!("{} [{:.1} s]", done[done.len() - 1], began.elapsed().as_secs_f64());
            }
            if !differences.is_empty() {
                return Err(self.report(number, &done, &differences, &mut world));
            }
            totals.commits += 1;
            totals.passed_over += step.skipped.len() as u32 + u32::from(step.superseded.is_some());
            totals.failing += u32::from(step.site.has_faults());
            totals.kills += u32::from(step.kill.is_some());
            totals.keys += keys;
        }
        totals.took = begun.elapsed();
        Ok(totals)
    }

    fn report(self, number: u32, done: &[String], differences: &[String], world: &mut World) -> String {
        let steps = done[done.len().saturating_sub(SHOWN)..].join("\n");
        let shown = differences[..differences.len().min(DIFFERENCES)].join("\n");
        let site: Vec<String> =
            world.site.files(&[]).iter().map(|(path, text)| format!("=== {path}\n{text}")).collect();
        // A difference that goes by itself is one that the planner has not finished with.
        let later = world.compare_again();
        let still = differences.iter().filter(|difference| later.contains(difference)).count();
        let without =
            if self.without.is_empty() { String::new() } else { format!(" --without {}", self.without.join(",")) };
        format!(
            "seed {}, commit {number}: {} differences, {still} of them at a second comparison\n{shown}\n--- what was done last\n{steps}\n\
             --- the site\n{}\n--- what the tasks reported last\n{}\n--- what was done about the differences\n{}\n\
             --- again: tests/run property --seed {} --commits {number}{}{}{}{}",
            self.seed,
            differences.len(),
            site.join("\n"),
            explain::reports(&world.hosts, &world.recent),
            explain::history(&world.hosts, &world.recent, differences),
            self.seed,
            if self.from > 1 { format!(" --from {}", self.from) } else { String::new() },
            if self.faults { "" } else { " --no-faults" },
            if self.kills { "" } else { " --no-kills" },
            without
        )
    }
}

/// The hosts and what is expected of them.
struct World {
    hosts: Hosts,
    /// Addresses of both hosts.
    addresses: [String; 2],
    site: Site,
    /// All sites of the latest step, with the one before it.
    recent: Vec<Site>,
    /// The files of the latest commit.
    files: BTreeMap<String, String>,
    expectation: Expectation,
    /// The lived-in host after the latest commit.
    last: Fingerprint,
    /// The latest commit.
    commit: String,
    /// The node of the fresh host after the latest commit.
    fresh: String,
}

impl World {
    fn start() -> Self {
        let builder = Hosts::site(&["lived", "fresh"]).image(Image::Podman).prepared(prepare);
        let addresses = ["lived", "fresh"].map(|node| builder.address(node).to_string());
        let files = Site::default().files(&[node("lived", &addresses[0]), node("fresh", &addresses[1])]);
        let mut first: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let name = format!("name = {SITE:?}\n");
        first.push(("site.toml", &name));
        let hosts = builder.start(&first);
        hosts.converged(&hosts.head());
        let last = fingerprint(&hosts, "lived");
        Self {
            hosts,
            addresses,
            site: Site::default(),
            recent: Vec::new(),
            files,
            expectation: Expectation::new(last.clone()),
            last,
            commit: String::new(),
            fresh: "fresh".to_owned(),
        }
    }

    /// Takes a step; all differences after it, and how much was compared.
    fn take(&mut self, step: &Step, number: u32) -> (Vec<String>, usize) {
        // Another node each time: one of the same name would be given the plans that the former one had.
        let fresh = format!("fresh-{number}");
        self.hosts.renew_as("fresh", &fresh);
        let nodes = [node("lived", &self.addresses[0]), node(&fresh, &self.addresses[1])];
        self.recent = [&self.site].into_iter().chain(&step.superseded).chain([&step.site]).cloned().collect();
        let mut before = self.site.clone();
        for site in step.superseded.iter().chain([&step.site]) {
            self.expectation.deploy(&before, site, &self.last);
            before.clone_from(site);
        }
        if let Some(superseded) = &step.superseded {
            let commit = self.commit(superseded, &nodes[..1]);
            // Its plan may be under way, or not be made yet.
            self.hosts.wait("the commit that is superseded", || self.is_active(&commit).then_some(()));
        }
        let commit = self.push(step, &nodes);
        if let Some(after) = step.kill {
            // No condition: whatever moment this is, the next agent must go on from it. What the agent has started runs on.
            std::thread::sleep(Duration::from_millis(after));
            self.hosts.out(
                "lived",
                "systemctl kill --kill-whom main -s KILL groundplan-agent; systemctl start groundplan-agent",
            );
        }
        // A node for which nothing is to be done is sent no plan.
        let is_there = || {
            let shown = self.hosts.ask(&["show", &fresh])?;
            (shown["commit"] == commit.as_str() || self.site.services.is_empty()).then_some(())
        };
        self.hosts.wait("the fresh host to have the plan", is_there);
        (self.commit, self.fresh) = (commit, fresh);
        let differences = self.compare();
        (differences, self.last.all.len())
    }

    /// Waits until the latest commit is carried out; all differences.
    fn compare(&mut self) -> Vec<String> {
        let status = self.hosts.settled(&self.commit);
        let (unsettled, mut differences) = self.outcomes(&status, &self.fresh);
        let (lived, fresh) = (fingerprint(&self.hosts, "lived"), fingerprint(&self.hosts, "fresh"));
        differences.extend(self.expectation.differences(&self.site, &unsettled, &lived, &fresh));
        self.last = lived;
        differences
    }

    /// All differences once the planner has had every reason to make another plan: the node has checked all that it has, and that is carried out.
    fn compare_again(&mut self) -> Vec<String> {
        self.hosts.ask(&["drift"]);
        self.compare()
    }

    fn is_active(&self, commit: &str) -> bool {
        let status = self.hosts.ask(&["status"]).unwrap_or_default();
        assert_ne!(
            status["refused"]["commit"]["id"].as_str(),
            Some(commit),
            "the commit is refused: {:#}",
            status["refused"]
        );
        status["commit"]["id"].as_str() == Some(commit)
    }

    /// Commits the step's sites so that a planner sees only the last of them; returns that one.
    fn push(&mut self, step: &Step, nodes: &[String]) -> String {
        self.hosts.fleet.git(&["checkout", "-q", "--detach"]);
        for site in &step.skipped {
            self.commit(site, nodes);
        }
        let commit = self.commit(&step.site, nodes);
        self.hosts.fleet.git(&["branch", "-q", "-f", "main", "HEAD"]);
        self.hosts.fleet.git(&["checkout", "-q", "main"]);
        commit
    }

    fn commit(&mut self, site: &Site, nodes: &[String]) -> String {
        let files = site.files(nodes);
        let gone = self.files.keys().filter(|path| !files.contains_key(*path)).map(|path| (path.as_str(), ""));
        let new = files.iter().filter(|(path, text)| self.files.get(*path) != Some(*text));
        let changes: Vec<(&str, &str)> = gone.chain(new.map(|(path, text)| (path.as_str(), text.as_str()))).collect();
        let commit = self.hosts.commit(&changes, "next");
        (self.files, self.site) = (files, site.clone());
        commit
    }

    /// Which tasks did not succeed; and which of these should have, or the other way round.
    fn outcomes(&self, status: &Value, fresh: &str) -> (BTreeSet<TaskId>, Vec<String>) {
        let (mut unsettled, mut wrong) = (BTreeSet::new(), Vec::new());
        if matches!(status["rollout"]["result"].as_str(), Some("succeeded") | None) && !self.site.has_faults() {
            return (unsettled, wrong);
        }
        let failing: BTreeSet<TaskId> =
            self.site.tasks().filter(|(_, task)| task.fails()).map(|(service, task)| task.full_id(service)).collect();
        let rollout = self.hosts.wait("the rollout", || self.hosts.ask(&["show"]));
        let mut bad = BTreeSet::new();
        for instance in rollout["instances"].as_array().into_iter().flatten() {
            let outcome = &instance["outcome"];
            let name = instance["instance"].as_str().unwrap_or_default();
            let task: TaskId = name.split('@').next().unwrap_or_default().parse().expect("a task's id");
            match outcome["is"].as_str() {
                Some("done" | "skipped") => continue,
                Some("failed") if !failing.contains(&task) => wrong.push(format!("{name} failed: {outcome}")),
                Some("failed" | "blocked") if !failing.is_empty() => {}
                _ => wrong.push(format!("{name} is {outcome}")),
            }
            bad.insert(name.to_owned());
            unsettled.insert(task);
        }
        // Where its probe alone is new, nothing is carried out on a host that has it already.
        let succeeded = failing.iter().filter(|task| !bad.contains(&format!("{task}@{fresh}")));
        wrong.extend(succeeded.map(|task| format!("{task} was to fail on {fresh}, and did not")));
        (unsettled, wrong)
    }
}

/// A node's entry in the inventory.
fn node(name: &str, address: &str) -> String {
    let key = Fleet::node_key(name).public();
    format!("\n[nodes.{name}]\ngroups = [\"g\"]\naddress = \"{address}\"\nkey = \"{key}\"\n")
}

fn fingerprint(hosts: &Hosts, host: &str) -> Fingerprint {
    let printed = hosts.out(host, PRINTS);
    let read = || Fingerprint::read(&hosts.root(host)?, &printed).ok();
    // A file may go while the host is read, such as one that systemd is about to replace.
    hosts.wait("the host to be read", read)
}

//! A site of real hosts: Debian with systemd, booted in containers of our own, with a planner and a broker on this machine.
//!
//! ```ignore
//! let hosts = Hosts::site(&["h1"]).serve("[[task]]\nid = \"motd\"\nfile = { path = \"/etc/motd\", content = \"hello\" }\n");
//! hosts.converged(&hosts.head());
//! hosts.sh("h1", "echo drifted > /etc/motd");
//! hosts.converged(&hosts.change("[[task]]\n…"));
//! ```
//!
//! In: hosts' names, site files. Out: handles to commit, to inspect hosts and to break them. Hosts reach the planner only over MQTT,
//! and nothing else unless a test wants it. Needs root; everything ends with the handle. Waits for conditions, never for a time.

mod image;
mod machine;
mod network;
mod reach;
mod slot;
mod ssh;

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use groundplan_broker::ServerTls;
use serde_json::Value;

pub use self::{image::Image, machine::Output};
use self::{machine::Machine, slot::Slot};
use crate::{
    binaries,
    brokers::{Kind, Options, TestBroker},
    fleet::{Fleet, SITE, is_planned},
};

/// The planner's name in a site of hosts.
const PLANNER: &str = "one";
/// The unit that packages install.
const UNIT: &str = include_str!("../../packaging/systemd/groundplan-agent.service");

/// Podman on a host that is a container itself: fewer limits than it would like to set,
const CONTAINERS: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n\
                          [engine]\nruntime = \"runc\"\n";
/// no overlay on the host's own overlay,
const STORAGE: &str = "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\n\
                       graphroot = \"/var/lib/containers/storage\"\n";
/// and control groups that it may write to.
const GROUPS: &str = "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n[Service]\nType=oneshot\n\
                      ExecStart=sh -c 'for m in /sys/fs/cgroup/*; do mount -o remount,bind,rw \"$m\" || true; done'\n";

/// Why hosts cannot be booted here, if they cannot. The test then prints this and returns.
pub fn impossible() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some(
            "hosts are containers with a network of their own: run as root, such as `sudo tests/run hosts`".to_owned(),
        );
    }
    let missing: Vec<&str> = ["systemd-nspawn", "debootstrap", "ip", "iptables", "nsenter", "ssh"]
        .into_iter()
        .filter(|program| {
            !std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|at| at.join(program).exists())
        })
        .collect();
    (!missing.is_empty()).then(|| format!("{} missing: `tests/run` installs what is needed", missing.join(", ")))
}

/// Returns from the test where hosts cannot be booted, and prints why past the test runner's capture.
#[macro_export]
macro_rules! needs_hosts {
    () => {
        if let Some(why) = $crate::hosts::impossible() {
            use std::io::Write;
            let _ =
                writeln!(std::io::stderr(), "NOT RUN: {}: {why}", std::thread::current().name().unwrap_or("a test"));
            return;
        }
    };
}

/// A site that is about to be started.
pub struct Builder {
    slot: Slot,
    nodes: Vec<String>,
    image: Image,
    internet: bool,
    broker: Kind,
    agent: Option<PathBuf>,
    bare: bool,
    tls: Option<Arc<ServerTls>>,
    prepare: Option<fn(&Path) -> io::Result<()>>,
}

/// What became of a task.
#[derive(Debug, Clone)]
pub struct Report {
    /// As text: `changed`, `unchanged`, `restarted`, `failed: …`, `blocked by …`, or `pending`, `waiting`, `running`.
    pub outcome: String,
    /// Whether it changed anything.
    pub changed: bool,
    /// What it printed.
    pub output: String,
    /// The planner's record as it stands.
    pub record: Value,
}

/// The result of a recheck.
#[derive(Debug, Clone)]
pub struct Rechecked {
    /// Instances that were out of sync, as `service.task@node`, and were repaired.
    pub changed: Vec<String>,
    /// Instances that were in sync.
    pub unchanged: Vec<String>,
    /// The others, with their outcomes.
    pub failed: Vec<String>,
}

/// Resident memory of a process in KiB (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Now: `VmRSS`.
    pub resident: u64,
    /// At its peak: `VmHWM`.
    pub peak: u64,
}

/// A site of hosts.
pub struct Hosts {
    // In this order they end: planner and broker, and with the slot the hosts.
    /// Repository, broker and planner.
    pub fleet: Fleet,
    machines: BTreeMap<String, Machine>,
    agent: PathBuf,
    bare: bool,
    internet: bool,
    patience: Duration,
    slot: Slot,
}

impl Builder {
    /// The address that a host will have.
    pub fn address(&self, host: &str) -> Ipv4Addr {
        let index = self.nodes.iter().position(|node| node == host).expect("a host of this site");
        self.slot.address(Some(index))
    }

    /// This machine's address as the hosts see it.
    pub fn own_address(&self) -> Ipv4Addr {
        self.slot.address(None)
    }

    /// Gives the embedded broker a second listener, with TLS: `hosts.fleet.broker.tls_address()`.
    pub fn tls(mut self, config: Arc<ServerTls>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Lets the hosts reach what this machine reaches, and gives them its package sources and name servers.
    pub fn with_internet(mut self) -> Self {
        self.internet = true;
        self
    }

    /// Uses another image.
    pub fn image(mut self, image: Image) -> Self {
        self.image = image;
        self
    }

    /// Makes them with nothing but sshd, which admits the holder of [`Hosts::ssh`]'s key as root: without an agent, and without trusted node keys.
    pub fn bare(mut self) -> Self {
        self.image = Image::With(vec!["openssh-server".to_owned(), "sudo".to_owned()]);
        self.bare = true;
        self
    }

    /// Uses another broker.
    pub fn broker(mut self, kind: Kind) -> Self {
        self.broker = kind;
        self
    }

    /// Uses another build of the agent, such as [`binaries::static_agent`].
    pub fn agent(mut self, program: PathBuf) -> Self {
        self.agent = Some(program);
        self
    }

    /// Makes all hosts, also those that are wiped, from a copy of the image that `prepare` changed once; it is given the copy's root.
    pub fn prepared(mut self, prepare: fn(&Path) -> io::Result<()>) -> Self {
        self.prepare = Some(prepare);
        self
    }

    /// Starts it with one service, `s`, on every host; `text` is its `service.toml`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn serve(self, text: &str) -> Hosts {
        let mut inventory = "[groups.g]\nservices = [\"s\"]\n".to_owned();
        for node in &self.nodes {
            let address = self.address(node);
            inventory.push_str(&format!("\n[nodes.{node}]\ngroups = [\"g\"]\naddress = \"{address}\"\n"));
        }
        let site = format!("name = {SITE:?}\n");
        self.start(&[("site.toml", &site), ("inventory/nodes.toml", &inventory), ("services/s/service.toml", text)])
    }

    /// Boots the hosts in parallel, each with its agent, and starts the planner. The site's name is [`SITE`].
    ///
    /// # Panics
    /// If one does not boot; with its console.
    pub fn start(self, files: &[(&str, &str)]) -> Hosts {
        let Self { slot, nodes, image, internet, broker, agent, bare, tls, prepare } = self;
        let mut image = image.directory().expect("an image for the hosts");
        if let Some(prepare) = prepare {
            let copy = slot.scratch().join("prepared");
            image = machine::clone_of(&image, &copy).expect("a copy of the image");
            prepare(&image).expect("a prepared image");
        }
        network::make(slot.number(), slot.address(None)).expect("a bridge");
        if internet {
            network::open(slot.number()).expect("a way out");
        }
        let broker =
            TestBroker::start_with(broker, Options { ip: Some(slot.address(None).into()), tls, ..Options::default() });
        if let Some(pid) = broker.pid() {
            slot.adopt(pid).expect("a control group");
        }
        let mut fleet = Fleet::around(broker, files);
        if bare {
            fleet.keep_keys();
            ssh::make(&slot).expect("a key for ssh");
        }
        let machine = |(index, node): (usize, &String)| (node.clone(), Machine::new(&slot, index, node, image.clone()));
        let machines = nodes.iter().enumerate().map(machine).collect();
        let agent = agent.unwrap_or_else(binaries::agent);
        let mut hosts = Hosts { fleet, machines, agent, bare, internet, patience: Duration::from_secs(120), slot };
        for node in &nodes {
            hosts.format(node);
            if bare {
                hosts.know(node);
            }
            hosts.power_on(node);
        }
        hosts.start_planner();
        hosts.machines.values().for_each(|machine| machine.wait_up().expect("a host that boots"));
        hosts
    }
}

impl Hosts {
    /// A site with hosts of these names, to be started.
    ///
    /// # Panics
    /// Where hosts cannot be booted: [`needs_hosts`](crate::needs_hosts) comes first.
    pub fn site(nodes: &[&str]) -> Builder {
        if let Some(why) = impossible() {
            panic!("{why}");
        }
        Builder {
            slot: Slot::claim().expect("a slot for a site of hosts"),
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            image: Image::Base,
            internet: false,
            broker: Kind::Embedded,
            agent: None,
            bare: false,
            tls: None,
            prepare: None,
        }
    }

    /// The same, started with `files`.
    pub fn start(nodes: &[&str], files: &[(&str, &str)]) -> Self {
        Self::site(nodes).start(files)
    }

    /// How long waits may last from now on; 120 s by default.
    pub fn patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    fn machine(&self, host: &str) -> &Machine {
        self.machines.get(host).unwrap_or_else(|| panic!("no host `{host}` in this site"))
    }

    fn machine_mut(&mut self, host: &str) -> &mut Machine {
        self.machines.get_mut(host).unwrap_or_else(|| panic!("no host `{host}` in this site"))
    }

    fn format(&self, host: &str) {
        let names: String = self.machines.values().map(|m| format!("{} {}\n", m.address, m.node)).collect();
        let machine = self.machine(host);
        machine.format(&names, self.internet.then(|| self.slot.address(None))).expect("a disk for the host");
        let root = machine.root();
        if self.bare {
            return ssh::admit(&self.slot, machine).expect("a host that lets us in");
        }
        machine::install_program(&self.agent, &root.join("usr/bin/groundplan-agent")).expect("the agent on it");
        // Planner and agent notice within seconds that a host is cut off.
        let node = &machine.node;
        let config = self.fleet.agent_config(node) + "key = \"/etc/groundplan/node.key\"\nkeep_alive = \"5s\"\n";
        let unit = "etc/systemd/system/multi-user.target.wants/groundplan-agent.service";
        let wrote = machine
            .write("etc/groundplan/agent.toml", &config, 0o600)
            .and_then(|()| machine.write("etc/groundplan/node.key", &Fleet::node_key(node).secret_text(), 0o600))
            .and_then(|()| machine.write("lib/systemd/system/groundplan-agent.service", UNIT, 0o644))
            .and_then(|()| {
                std::fs::create_dir_all(root.join(unit).parent().expect("a folder"))?;
                std::os::unix::fs::symlink("/lib/systemd/system/groundplan-agent.service", root.join(unit))
            });
        wrote.expect("the agent's files on it");
        if root.join("usr/bin/podman").exists() {
            machine.write("etc/containers/containers.conf", CONTAINERS, 0o644).expect("podman's settings");
            machine.write("etc/containers/storage.conf", STORAGE, 0o644).expect("podman's settings");
            machine.write("etc/systemd/system/container-groups.service", GROUPS, 0o644).expect("a unit");
            let wants = root.join("etc/systemd/system/sysinit.target.wants");
            let linked = std::fs::create_dir_all(&wants).and_then(|()| {
                std::os::unix::fs::symlink("../container-groups.service", wants.join("container-groups.service"))
            });
            linked.expect("a unit that starts");
        }
    }

    fn power_on(&mut self, host: &str) {
        let machine = self.machines.get_mut(host).expect("a host of this site");
        machine.power_on(&self.slot).expect("a host that starts");
    }

    /// Starts the planner, after `hosts.fleet.kill_planner("one")`.
    pub fn start_planner(&mut self) {
        self.fleet.start_planner(PLANNER);
        self.slot.adopt(self.fleet.planner_pid(PLANNER)).expect("a control group");
    }

    /// A host's address.
    pub fn address(&self, host: &str) -> Ipv4Addr {
        self.machine(host).address
    }

    /// The latest commit.
    pub fn head(&self) -> String {
        self.fleet.git(&["rev-parse", "HEAD"])
    }

    /// Writes site files, commits them and returns the commit. An empty text removes the file.
    pub fn commit(&self, files: &[(&str, &str)], message: &str) -> String {
        self.fleet.commit(files, message)
    }

    /// Commits another `service.toml` of the one service of [`Builder::serve`].
    pub fn change(&self, text: &str) -> String {
        self.commit(&[("services/s/service.toml", text)], "change")
    }

    /// The output of `groundplan <args> --format json`; `None` while the planner does not answer.
    pub fn ask(&self, args: &[&str]) -> Option<Value> {
        self.fleet.ask(PLANNER, args)
    }

    /// Waits until a condition holds.
    ///
    /// # Panics
    /// When it does not in time: with the logs of planner and agents.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        self.fleet.attempt(what, self.patience, condition).unwrap_or_else(|error| panic!("{error}{}", self.journals()))
    }

    fn journals(&self) -> String {
        let journal = |machine: &Machine| {
            let log = machine.sh("journalctl --no-pager --lines 40 --output cat --unit groundplan-agent");
            format!("--- agent of {}\n{}\n", machine.node, log.map_or_else(|e| e.to_string(), |log| log.out))
        };
        self.machines.values().map(journal).collect()
    }

    /// Waits until `commit` is deployed without a failure; returns the planner's status.
    ///
    /// # Panics
    /// As soon as something failed, or the commit is refused.
    pub fn converged(&self, commit: &str) -> Value {
        let status = self.settled(commit);
        if matches!(status["rollout"]["result"].as_str(), Some("succeeded") | None) {
            return status;
        }
        let rollout = self.ask(&["show"]).unwrap_or_default();
        let bad = |i: &&Value| !matches!(i["outcome"]["is"].as_str(), Some("done" | "skipped"));
        let bad: Vec<&Value> = rollout["instances"].as_array().into_iter().flatten().filter(bad).collect();
        panic!("{commit} was not deployed: {bad:#?}{}", self.journals());
    }

    /// Waits until the rollout to `commit` is over, failed or not; returns the planner's status.
    ///
    /// # Panics
    /// If the commit is refused.
    pub fn settled(&self, commit: &str) -> Value {
        self.wait(&format!("the rollout to {commit} to end"), || {
            let status = self.ask(&["status"])?;
            let refused = &status["refused"];
            assert_ne!(refused["commit"]["id"].as_str(), Some(commit), "the commit is refused: {refused:#}");
            // A bare host may have no agent.
            let nodes = self.machines.keys().filter(|_| !self.bare).map(String::as_str);
            let planned = is_planned(&status, &nodes.collect::<Vec<_>>());
            let active = status["commit"]["id"].as_str() == Some(commit);
            (active && planned && status["rollout"]["result"].as_str() != Some("running")).then_some(status)
        })
    }

    /// The outcome of a task on a host in the latest rollout that contained it.
    ///
    /// # Panics
    /// If no rollout contained it.
    pub fn report(&self, task: &str, host: &str) -> Report {
        let why = self.wait("the planner's answer", || self.ask(&["why", host, task]));
        let record = why["record"].clone();
        assert!(!record.is_null(), "no rollout had {task} on {host}: {why:#}");
        let state: groundplan::api::types::InstanceState =
            serde_json::from_value(record.clone()).expect("a state as the planner writes it");
        use groundplan::api::types::InstanceState::{Finished, Pending, Running, Waiting};
        let (outcome, changed) = match state {
            Finished { outcome } => (outcome.to_string(), outcome.fires()),
            Pending => ("pending".to_owned(), false),
            Waiting { .. } => ("waiting".to_owned(), false),
            Running => ("running".to_owned(), false),
        };
        let text = |key: &str| record["output"][key].as_str().unwrap_or_default().to_owned();
        Report { outcome, changed, output: text("head") + &text("tail"), record }
    }

    /// The output of `groundplan drift <args> --format json`: all hosts check now, unless `--last` is among the arguments.
    ///
    /// # Panics
    /// If the planner cannot be asked, or a host does not answer.
    pub fn drift(&self, args: &[&str]) -> Value {
        let (_, output) = self.fleet.run_json(PLANNER, &[&["drift"], args].concat());
        output.unwrap_or_else(|| panic!("`groundplan drift` failed{}", self.journals()))
    }

    /// Has services (`s`) or tasks (`s.config`) checked again, or everything if none is named, on these hosts, or on all if none is
    /// named; and waits for the result.
    ///
    /// # Panics
    /// If the planner cannot be asked.
    pub fn recheck(&self, what: &[&str], on: &[&str]) -> Rechecked {
        let mut args = vec!["recheck"];
        args.extend(what);
        on.iter().for_each(|host| args.extend(["--on", host]));
        let (success, output) = self.fleet.run_json(PLANNER, &args);
        let output = output.unwrap_or_else(|| panic!("`groundplan recheck` failed{}", self.journals()));
        let mut rechecked = Rechecked { changed: Vec::new(), unchanged: Vec::new(), failed: Vec::new() };
        for instance in output["rollout"]["instances"].as_array().into_iter().flatten() {
            let name = instance["instance"].as_str().expect("an instance").to_owned();
            match (instance["outcome"]["is"].as_str(), instance["outcome"]["changed"].as_bool()) {
                (Some("done"), Some(true)) => rechecked.changed.push(name),
                (Some("done"), _) => rechecked.unchanged.push(name),
                // No trigger fired.
                (Some("skipped"), _) => {}
                _ => rechecked.failed.push(format!("{name}: {}", instance["outcome"])),
            }
        }
        assert_eq!(success, rechecked.failed.is_empty(), "{output:#}");
        rechecked
    }

    /// Runs a shell line in a host, as root: to inspect it, and to change things out of band.
    ///
    /// # Panics
    /// If the host is off.
    pub fn sh(&self, host: &str, line: &str) -> Output {
        self.machine(host).sh(line).expect("a shell in the host")
    }

    /// What a shell line in a host prints.
    ///
    /// # Panics
    /// If it fails.
    pub fn out(&self, host: &str, line: &str) -> String {
        let Output { status, out, err } = self.sh(host, line);
        assert_eq!(status, Some(0), "`{line}` on {host}: {out}\n{err}");
        out
    }

    /// A file of a host, if it is there.
    pub fn file(&self, host: &str, path: &str) -> Option<String> {
        let quoted = path.replace('\'', "'\\''");
        let Output { status, out, .. } = self.sh(host, &format!("cat -- '{quoted}' && echo ."));
        // The dot keeps the end of the last line.
        (status == Some(0)).then(|| out.strip_suffix('.').expect("the dot").to_owned())
    }

    /// Cuts a host off: its link is down, it runs on.
    pub fn cut(&self, host: &str) {
        network::set_link(&self.machine(host).machine, false).expect("its link");
    }

    /// Joins a host that was cut off.
    pub fn join(&self, host: &str) {
        network::set_link(&self.machine(host).machine, true).expect("its link");
    }

    /// Ends a host as a power cut does. Its disk stays.
    pub fn kill(&mut self, host: &str) {
        let machine = self.machines.get_mut(host).expect("a host of this site");
        machine.power_off(&self.slot);
    }

    /// Boots a host that was killed, or that shut itself down.
    pub fn boot(&mut self, host: &str) {
        self.kill(host);
        self.power_on(host);
        self.machine_mut(host).wait_up().expect("a host that boots");
    }

    /// Which boot a host is in; `None` while it is off or between two.
    pub fn boot_id(&self, host: &str) -> Option<String> {
        self.machine(host).boot_id()
    }

    /// Reboots a host in an orderly way and waits until it is up again.
    pub fn reboot(&self, host: &str) {
        let before = self.boot_id(host).expect("a host that is on");
        // The shell goes down with the host, so its status means nothing.
        let _ = self.sh(host, "systemctl reboot");
        self.wait("another boot", || self.boot_id(host).filter(|now| *now != before));
        self.machine(host).wait_up().expect("a host that boots");
    }

    /// Replaces a host by a fresh one with the same name, address and key, and boots it.
    pub fn wipe(&mut self, host: &str) {
        self.renew(host);
        self.machine(host).wait_up().expect("a host that boots");
    }

    /// The same without waiting until it is up.
    fn renew(&mut self, host: &str) {
        self.kill(host);
        self.format(host);
        self.power_on(host);
    }

    /// Replaces a host by a fresh one at the same address that is another node, of which no planner and no broker knows anything, and
    /// begins to boot it. The host keeps its name in this site; the inventory is to have the node's key.
    pub fn renew_as(&mut self, host: &str, node: &str) {
        self.kill(host);
        node.clone_into(&mut self.machine_mut(host).node);
        self.format(host);
        self.power_on(host);
    }

    /// The root directory of a host that runs, with all that is mounted in it, as this machine sees it. Links in it that are absolute
    /// lead to this machine's own files. `None` while it is off.
    pub fn root(&self, host: &str) -> Option<PathBuf> {
        self.machine(host).live_root()
    }

    /// The memory of a host's agent.
    pub fn agent_memory(&self, host: &str) -> Memory {
        let status = self.out(host, "cat /proc/$(systemctl show --property MainPID --value groundplan-agent)/status");
        let number = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("a line of the status");
            line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
        };
        Memory { resident: number("VmRSS:"), peak: number("VmHWM:") }
    }
}

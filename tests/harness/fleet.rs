//! A whole site on this machine: a broker, a repository, a planner and agents, each a real process, in a scratch directory.
//!
//! In: site files and which broker. Out: handles to commit, to kill and start each part, and to inspect the result: files and
//! processes below each node's root, and the planner's answers. Everything ends with the handle, also after a panic. Waits for
//! conditions, never for a time.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use groundplan_protocol::envelope::SigningKey;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    authority::Authority,
    binaries,
    brokers::{Kind, TestBroker},
    live::Live,
    loopback::Loopback,
    processes::{Identity, descendants, supervised},
    secured::{Secured, SecuredBroker},
};

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The site's name in every fleet.
pub const SITE: &str = "testsite";

/// A site with all its processes.
pub struct Fleet {
    directory: TempDir,
    /// The broker; tests stop, wipe and start it.
    pub broker: TestBroker,
    planners: BTreeMap<String, Child>,
    agents: BTreeMap<String, Child>,
    /// Processes that killed agents left running, besides those that they supervised.
    orphans: Vec<Identity>,
    planner_key: SigningKey,
    agent_program: Option<PathBuf>,
    /// Where the planner's own broker listens, instead of `broker`, and the claim on that address.
    embedded: Option<(SocketAddr, Loopback)>,
    /// The authority of the embedded broker's clients, if that has TLS.
    authority: Option<Authority>,
    /// A broker with TLS, instead of `broker`.
    secured: Option<SecuredBroker>,
    /// How many file descriptors planners may have.
    descriptors: Option<usize>,
    /// Whether planners get the nodes' keys.
    trusting: bool,
    /// How planners are given the repository, with more of their environment.
    source: Source,
}

/// How planners are given the repository.
#[derive(Default)]
struct Source {
    /// Instead of the path of the work tree and its branch.
    args: Option<Vec<String>>,
    env: Vec<(String, String)>,
}

impl Fleet {
    /// A fleet whose repository holds `files` in its first commit; broker and repository run, planner and agents do not yet.
    pub fn new(kind: Kind, files: &[(&str, &str)]) -> Self {
        Self::around(TestBroker::start(kind), files)
    }

    /// The same around a broker that runs already.
    pub fn around(broker: TestBroker, files: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new().prefix("groundplan-fleet-").tempdir().expect("a scratch directory");
        let fleet = Self {
            directory,
            broker,
            planners: BTreeMap::new(),
            agents: BTreeMap::new(),
            orphans: Vec::new(),
            planner_key: Self::planner_key(),
            agent_program: None,
            embedded: None,
            authority: None,
            secured: None,
            descriptors: None,
            trusting: true,
            source: Source::default(),
        };
        fs::create_dir_all(fleet.repository()).expect("a folder");
        fleet.git(&["init", "-q", "-b", "main"]);
        fleet.commit(files, "first");
        fleet
    }

    /// The same with a planner and an agent for each of `nodes` started.
    pub fn started(kind: Kind, files: &[(&str, &str)], nodes: &[&str]) -> Self {
        let mut fleet = Self::new(kind, files);
        for node in nodes {
            fleet.start_agent(node);
        }
        fleet.start_planner("one");
        fleet
    }

    /// Uses another build of the agent for those that are started from now on.
    pub fn use_agent(&mut self, program: PathBuf) {
        self.agent_program = Some(program);
    }

    /// Leaves planners that are started from now on without the nodes' keys; bootstrap adds them.
    pub fn keep_keys(&mut self) {
        self.trusting = false;
    }

    /// Has planners that are started from now on get the repository by these arguments, such as `--repo URL`, and with this environment.
    pub fn serve_from(&mut self, args: &[&str], env: &[(&str, &str)]) {
        self.source.args = Some(args.iter().map(|arg| (*arg).to_owned()).collect());
        self.source.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// Lets planners that are started from now on run the broker themselves, and agents connect to that one.
    pub fn embed_broker(&mut self) {
        let net = Loopback::claim();
        self.embedded = Some(((net.address(1), 1883).into(), net));
    }

    /// Starts a broker with the configuration that groundplan writes for this site, for planners and agents that are started from now on.
    pub fn secure_broker(&mut self, kind: Secured) {
        self.secured = Some(SecuredBroker::start(kind, &self.repository()));
    }

    /// The broker of [`Self::secure_broker`].
    pub fn secured(&self) -> &SecuredBroker {
        self.secured.as_ref().expect("a secured broker")
    }

    /// Replaces its authority and all certificates, in their files; planners and agents run on.
    pub fn renew_certificates(&mut self) {
        let nodes: Vec<String> = self.agents.keys().cloned().collect();
        let names: Vec<&str> = nodes.iter().map(String::as_str).chain(["planner"]).collect();
        self.secured.as_mut().expect("a secured broker").renew(&names);
    }

    /// Has planners that are started from now on run the broker with mutual TLS.
    pub fn embed_broker_with_certificates(&mut self) {
        self.embed_broker();
        let (authority, ip) = (Authority::new(), self.embedded_address().expect("just set").ip().to_string());
        let dir = self.directory.path();
        fs::write(dir.join("ca.pem"), authority.pem()).expect("a file");
        authority.write_as(dir, "broker", &ip);
        self.authority = Some(authority);
    }

    /// Where the broker of [`Self::embed_broker`] listens.
    pub fn embedded_address(&self) -> Option<SocketAddr> {
        self.embedded.as_ref().map(|(address, _)| *address)
    }

    /// Gives planners that are started from now on that many file descriptors at most.
    pub fn limit_descriptors(&mut self, most: usize) {
        self.descriptors = Some(most);
    }

    /// The repository's work tree.
    pub fn repository(&self) -> PathBuf {
        self.directory.path().join("site")
    }

    /// The folder below which a node's paths lie.
    pub fn root(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("root")
    }

    /// The folder of the programs that print a node's own facts.
    pub fn facts_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("facts.d")
    }

    /// An agent's state directory.
    pub fn agent_state(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("state")
    }

    /// A planner's state directory.
    pub fn planner_state(&self, planner: &str) -> PathBuf {
        self.directory.path().join(format!("planner-{planner}"))
    }

    fn node_dir(&self, node: &str) -> PathBuf {
        self.directory.path().join("nodes").join(node)
    }

    /// The key of a node's agent, the same in every fleet.
    pub fn node_key(node: &str) -> SigningKey {
        SigningKey::from_seed(*groundplan_protocol::digest::Digest::of(node.as_bytes()).as_bytes())
    }

    /// The key of all planners, in every fleet.
    pub fn planner_key() -> SigningKey {
        SigningKey::from_seed([7; 32])
    }

    /// Runs git in the repository and returns what it printed.
    ///
    /// # Panics
    /// If git fails.
    pub fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"])
            .args(args)
            .current_dir(self.repository())
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Writes files into the work tree, commits them and returns the commit. An empty text removes the file; a program (`#!`) in `plugins/`
    /// may be run.
    pub fn commit(&self, files: &[(&str, &str)], message: &str) -> String {
        for (path, text) in files {
            let path = self.repository().join(path);
            if text.is_empty() {
                fs::remove_file(&path).expect("a file to remove");
                continue;
            }
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(&path, text).expect("a file");
            if text.starts_with("#!") && path.starts_with(self.repository().join("plugins")) {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
            }
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Starts a planner of that name with a state directory of its own.
    pub fn start_planner(&mut self, planner: &str) {
        let state = self.planner_state(planner);
        fs::create_dir_all(state.join("trusted")).expect("a folder");
        fs::write(state.join("planner.key"), self.planner_key.secret_text()).expect("a key file");
        private(&state.join("planner.key"));
        for node in self.declared_nodes().into_iter().filter(|_| self.trusting) {
            let key = Self::node_key(&node).public().to_string();
            fs::write(state.join("trusted").join(format!("{node}.pub")), key).expect("a key file");
        }
        let mut command = match self.descriptors {
            None => Command::new(binaries::groundplan()),
            Some(most) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={most}:{most}")).arg(binaries::groundplan());
                command
            }
        };
        command.arg("serve").arg("--state").arg(&state).envs(self.source.env.iter().cloned());
        match &self.source.args {
            Some(args) => command.args(args),
            None => command.arg("--repo").arg(self.repository()).args(["--branch", "main"]),
        };
        match &self.embedded {
            Some((address, _)) => command.args(["--embedded-broker", &address.to_string()]),
            None => command.args(["--broker", &self.broker_url()]),
        };
        if self.authority.is_some() {
            for (flag, file) in [("ca", "ca.pem"), ("cert", "broker.pem"), ("key", "broker-key.pem")] {
                command.arg(format!("--embedded-broker-{flag}")).arg(self.directory.path().join(file));
            }
        }
        if let Some(secured) = &self.secured {
            command.arg("--broker-ca").arg(secured.ca());
            if let Some((cert, key)) = secured.certificate("planner") {
                command.arg("--broker-cert").arg(cert).arg("--broker-key").arg(key);
            }
            if let Some(file) = secured.password_file("planner") {
                command.arg("--broker-password-file").arg(file);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(self.log(&format!("planner-{planner}")))
            .stderr(self.log(&format!("planner-{planner}")))
            .spawn()
            .expect("the planner starts");
        self.planners.insert(planner.to_owned(), child);
    }

    /// Nodes for which the planner is to trust a key: every name in an inventory file of the work tree.
    fn declared_nodes(&self) -> Vec<String> {
        let inventory = fs::read_to_string(self.repository().join("inventory/nodes.toml")).unwrap_or_default();
        inventory.lines().filter_map(|line| Some(line.strip_prefix("[nodes.")?.strip_suffix(']')?.to_owned())).collect()
    }

    /// Starts the agent of a node.
    pub fn start_agent(&mut self, node: &str) {
        let (root, state) = (self.root(node), self.agent_state(node));
        fs::create_dir_all(&root).expect("a folder");
        fs::create_dir_all(&state).expect("a folder");
        let key = state.join("node.key");
        fs::write(&key, Self::node_key(node).secret_text()).expect("a key file");
        private(&key);
        let config = self.node_dir(node).join("agent.toml");
        let facts = self.facts_dir(node);
        let places = format!("root = {root:?}\nstate_dir = {state:?}\nkey = {key:?}\nfacts_dir = {facts:?}\n");
        let mut text = self.agent_config(node) + &places;
        if let Some(authority) = &self.authority {
            let (cert, key) = authority.write(&self.node_dir(node), node);
            let ca = self.directory.path().join("ca.pem");
            text += &format!("[tls]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n");
        } else if self.embedded.is_some() {
            let file = self.node_dir(node).join("broker.password");
            fs::write(&file, self.password(node)).expect("a password file");
            private(&file);
            text += &format!("password_file = {file:?}\n");
        }
        if let Some(secured) = &self.secured {
            if let Some(file) = secured.password_file(node) {
                text += &format!("password_file = {file:?}\n");
            }
            text += &format!("[tls]\nca = {:?}\n", secured.ca());
            if let Some((cert, key)) = secured.certificate(node) {
                text += &format!("cert = {cert:?}\nkey = {key:?}\n");
            }
        }
        fs::write(&config, text).expect("a configuration");
        let child = Command::new(self.agent_program.clone().unwrap_or_else(binaries::agent))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(self.log(node))
            .stderr(self.log(node))
            .spawn()
            .expect("the agent starts");
        self.agents.insert(node.to_owned(), child);
    }

    /// The password of a node at the broker of [`Self::embed_broker`].
    pub fn password(&self, node: &str) -> String {
        let mut command = Command::new(binaries::groundplan());
        command.args(["broker", "password", node, "--state"]).arg(self.planner_state("one"));
        let output = command.output().expect("groundplan runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("a password of text").trim().to_owned()
    }

    /// The configuration of a node's agent, without the paths on its host.
    pub fn agent_config(&self, node: &str) -> String {
        let planner = self.planner_key.public().to_string();
        let broker = self.broker_url();
        format!("site = {SITE:?}\nnode = {node:?}\nbroker = {broker:?}\nplanner_keys = [{planner:?}]\n")
    }

    fn broker_url(&self) -> String {
        if let Some(secured) = &self.secured {
            return secured.url();
        }
        let scheme = if self.authority.is_some() { "mqtts" } else { "mqtt" };
        format!("{scheme}://{}", self.embedded.as_ref().map_or_else(|| self.broker.address(), |(address, _)| *address))
    }

    fn log(&self, name: &str) -> Stdio {
        let path = self.directory.path().join(format!("{name}.log"));
        fs::File::options().create(true).append(true).open(path).expect("a log file").into()
    }

    /// The log of a process by its name: `planner-<name>` for a planner, the node for an agent.
    pub fn logged(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Kills the agent of a node with SIGKILL. The processes that it supervises continue.
    pub fn kill_agent(&mut self, node: &str) {
        let agent = self.agents.remove(node).expect("a running agent");
        self.orphans.extend(descendants(agent.id()));
        end(agent);
    }

    /// Stops the agent of a node with SIGTERM, and waits for its end.
    pub fn terminate_agent(&mut self, node: &str) {
        let mut agent = self.agents.remove(node).expect("a running agent");
        self.orphans.extend(descendants(agent.id()));
        let pid = nix::unistd::Pid::from_raw(agent.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a running agent");
        agent.wait().expect("a child can be waited for");
    }

    /// Kills a planner with SIGKILL.
    pub fn kill_planner(&mut self, planner: &str) {
        end(self.planners.remove(planner).expect("a running planner"));
    }

    /// Sends a planner a signal.
    pub fn signal_planner(&self, planner: &str, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.planner_pid(planner).cast_signed());
        nix::sys::signal::kill(pid, signal).expect("a running planner");
    }

    /// Stops a planner with SIGTERM, and waits for its end.
    pub fn terminate_planner(&mut self, planner: &str) {
        self.signal_planner(planner, nix::sys::signal::Signal::SIGTERM);
        let mut child = self.planners.remove(planner).expect("a running planner");
        let ended = self.attempt("the planner to end", PATIENCE, || child.try_wait().expect("a child"));
        let _ = child.kill();
        assert!(ended.expect("an end on SIGTERM").success());
    }

    /// A running agent's process id.
    pub fn agent_pid(&self, node: &str) -> u32 {
        self.agents[node].id()
    }

    /// A running planner's process id.
    pub fn planner_pid(&self, planner: &str) -> u32 {
        self.planners[planner].id()
    }

    /// Starts `groundplan <args>` with that planner, to be observed while it runs.
    pub fn run(&self, planner: &str, args: &[&str]) -> Live {
        let mut command = Command::new(binaries::groundplan());
        // First, because nothing may be added after a `--`.
        let (name, rest) = args.split_first().expect("a subcommand");
        command.arg(name).arg("--state").arg(self.planner_state(planner)).args(rest);
        Live::start(command)
    }

    /// The output of `groundplan <args> --format json` with that planner; `None` if it fails, as while the planner does not answer.
    pub fn ask(&self, planner: &str, args: &[&str]) -> Option<Value> {
        let (success, output) = self.run_json(planner, args);
        if success { Some(output.expect("JSON")) } else { None }
    }

    /// The same for commands whose exit code is part of the answer: whether it was 0, and the output.
    pub fn run_json(&self, planner: &str, args: &[&str]) -> (bool, Option<Value>) {
        let output = self.output(planner, &[args, &["--format", "json"]].concat());
        (output.status.success(), serde_json::from_slice(&output.stdout).ok())
    }

    /// Exit code and output of `groundplan <args>` with that planner.
    pub fn output(&self, planner: &str, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(binaries::groundplan());
        command.args(args).arg("--state").arg(self.planner_state(planner)).output().expect("groundplan runs")
    }

    /// What `groundplan <args>` with that planner prints for people.
    pub fn text(&self, planner: &str, args: &[&str]) -> String {
        String::from_utf8_lossy(&self.output(planner, args).stdout).into_owned()
    }

    /// Waits until `commit` is deployed on every node whose agent runs, and nothing is left to be planned; returns the planner's status.
    pub fn converged(&self, planner: &str, commit: &str) -> Value {
        self.ended(planner, commit, "succeeded")
    }

    /// Waits until the rollout to `commit` has ended with a failure, and nothing is left to be planned; returns the planner's status.
    pub fn failed(&self, planner: &str, commit: &str) -> Value {
        self.ended(planner, commit, "failed")
    }

    fn ended(&self, planner: &str, commit: &str, result: &str) -> Value {
        self.wait(&format!("the rollout to {commit} to have {result}"), || {
            let status = self.planned(planner, commit)?;
            (status["rollout"]["result"].as_str() == Some(result)).then_some(status)
        })
    }

    /// The planner's status once `commit` is active and planned for every node whose agent runs. Without this, a rollout may have ended only
    /// because it leaves out a node that the planner has no state of yet.
    pub fn planned(&self, planner: &str, commit: &str) -> Option<Value> {
        let nodes: Vec<&str> = self.agents.keys().map(String::as_str).collect();
        self.rollout_of(planner, commit).filter(|status| is_planned(status, &nodes))
    }

    /// The planner's status once `commit` is active.
    pub fn rollout_of(&self, planner: &str, commit: &str) -> Option<Value> {
        let status = self.ask(planner, &["status"])?;
        // A commit is active a moment before its rollout begins: until then the rollout is that of an earlier one.
        let planned = status["planner"]["due"] == false;
        (planned && status["commit"]["id"].as_str() == Some(commit)).then_some(status)
    }

    /// Waits until a condition holds.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`]: with all logs.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        self.attempt(what, PATIENCE, condition).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits as [`Self::wait`] does for a condition that costs nothing, and returns within a fraction of a millisecond after it holds.
    ///
    /// # Panics
    /// When it does not hold within [`PATIENCE`]: with all logs.
    pub fn wait_closely<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(value) = condition() {
                return value;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        self.wait(what, condition)
    }

    /// Waits until a condition holds; an error, with all logs, when it does not within `patience`.
    pub fn attempt<T>(
        &self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(10);
        loop {
            if let Some(value) = condition() {
                return Ok(value);
            }
            if Instant::now() > deadline {
                return Err(format!("waited {patience:?} in vain for {what}\n{}", self.all_logs()));
            }
            std::thread::sleep(pause);
            // A query slows down what it waits for: the longer that takes, the fewer queries.
            pause = (pause * 5 / 4).min(Duration::from_millis(200));
        }
    }

    fn all_logs(&self) -> String {
        let mut out = String::new();
        for name in self.planners.keys().map(|p| format!("planner-{p}")).chain(self.agents.keys().cloned()) {
            let log = self.logged(&name);
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            out.push_str(&format!("--- {name}\n"));
            tail.iter().rev().for_each(|line| out.push_str(&format!("{line}\n")));
        }
        for planner in self.planners.keys() {
            out.push_str(&format!(
                "--- status of {planner}\n{:#}\n",
                self.ask(planner, &["status"]).unwrap_or_default()
            ));
        }
        out
    }

    /// A file below a node's root, if it is there.
    pub fn file(&self, node: &str, path: &str) -> Option<String> {
        fs::read_to_string(self.root(node).join(path)).ok()
    }

    /// How many lines a file below a node's root has; none if it is not there. Tests count starts this way.
    pub fn lines(&self, node: &str, path: &str) -> usize {
        self.file(node, path).map_or(0, |text| text.lines().count())
    }
}

/// Files of a site whose texts were made, as a commit takes them.
pub fn texts<'a>(files: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    files.iter().map(|(path, text)| (*path, text.as_str())).collect()
}

/// Whether nothing that the planner has received waits to be planned, and it has received the state of each of these nodes that is declared.
pub fn is_planned(status: &Value, nodes: &[&str]) -> bool {
    let all = status["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_known = |node: &&str| all.iter().find(|of| of["node"] == **node).is_none_or(|of| !of["phase"].is_null());
    status["planner"]["due"] == false && nodes.iter().all(is_known)
}

/// Keys are refused when others may read them.
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the mode of a key file");
}

fn end(mut child: Child) {
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (_, planner) in std::mem::take(&mut self.planners) {
            end(planner);
        }
        for (_, agent) in std::mem::take(&mut self.agents) {
            self.orphans.extend(descendants(agent.id()));
            end(agent);
        }
        self.orphans.iter().for_each(|process| process.end());
        // Supervised processes outlive their agents, which recorded them.
        for node in fs::read_dir(self.directory.path().join("nodes")).into_iter().flatten().flatten() {
            supervised(&node.path().join("state/process")).into_iter().for_each(Identity::end_group);
        }
    }
}

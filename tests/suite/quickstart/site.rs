//! A `groundplan up` on a copy of the sample site, on loopback addresses of its own so that tests run in parallel.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use groundplan_tests::{
    binaries,
    fleet::{PATIENCE, is_planned},
    loopback::Loopback,
    small_disk::SmallDisk,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use super::Pids;

/// How long another run of the tests may have the sample site's addresses.
const SAMPLE_PATIENCE: Duration = Duration::from_secs(300);

pub(super) struct Up {
    scratch: TempDir,
    net: Loopback,
    site: Option<PathBuf>,
    /// Whether it is called in the folder of the site, without any argument.
    here: bool,
    child: Option<Child>,
}

impl Up {
    /// Runs on a copy of the sample site.
    pub(super) fn start() -> Self {
        Self::copied(false)
    }

    /// Runs in a copy of the sample site, without naming it.
    pub(super) fn here() -> Self {
        Self::copied(true)
    }

    /// With a copy of the sample site, not started.
    pub(super) fn waiting() -> Self {
        Self::prepared(false)
    }

    /// Runs on a copy of the sample site whose only commit has a mistake.
    pub(super) fn broken() -> Self {
        let mut up = Self::prepared(false);
        up.write("site.toml", &up.read("site.toml").replace("name = ", "nmae = "));
        up.commit("broken");
        up.git(&["checkout", "-q", "--orphan", "only"]);
        up.commit("only");
        up.git(&["branch", "-q", "-M", "main"]);
        up.start_again();
        up
    }

    /// Runs on a copy of the sample site, with a small disk at a place below its directory.
    pub(super) fn on_small_disk(place: &str) -> (Self, SmallDisk) {
        let mut up = Self::prepared(false);
        let disk = SmallDisk::mount(up.dir().join(place), 2);
        up.start_again();
        (up, disk)
    }

    fn copied(here: bool) -> Self {
        let mut up = Self::prepared(here);
        up.start_again();
        up
    }

    fn prepared(here: bool) -> Self {
        let (scratch, net) = (scratch(), Loopback::claim());
        let site = scratch.path().join("site");
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/quickstart"), &site);
        let up = Self { scratch, net, site: Some(site), here, child: None };
        let nodes = up.read("inventory/nodes.toml").replace("127.0.0", &up.net.prefix());
        up.write("inventory/nodes.toml", &nodes);
        up.git(&["init", "-q", "-b", "main"]);
        up.commit("first");
        up
    }

    /// Runs without a site: on the sample, at its own addresses, once no other test has them.
    pub(super) fn sample() -> Self {
        let deadline = Instant::now() + SAMPLE_PATIENCE;
        let net = loop {
            match Loopback::sample() {
                Ok(net) => break net,
                Err(error) => {
                    assert!(Instant::now() < deadline, "the addresses of the sample site are in use: {error}")
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let mut up = Self { scratch: scratch(), net, site: None, here: false, child: None };
        up.start_again();
        up
    }

    pub(super) fn start_again(&mut self) {
        binaries::agent();
        let log = fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        let child = self.command().stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).spawn();
        self.child = Some(child.expect("groundplan runs"));
    }

    /// `groundplan up` as this one was called.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(binaries::groundplan());
        if self.here {
            command.arg("up").current_dir(self.site()).env("GROUNDPLAN_UP_DIR", self.dir());
        } else {
            command.arg("up").args(&self.site).arg("--dir").arg(self.dir());
        }
        command
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.scratch.path().join("up")
    }

    fn log(&self) -> PathBuf {
        self.scratch.path().join("up.log")
    }

    /// What it has printed so far.
    pub(super) fn output(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn site(&self) -> PathBuf {
        self.site.clone().unwrap_or_else(|| self.dir().join("site"))
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.site().join(path)).expect("a file")
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        fs::write(self.site().join(path), text).expect("a file");
    }

    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"])
            .args(args)
            .current_dir(self.site())
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(super) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    pub(super) fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.head()
    }

    /// Replaces a text in a file and commits.
    pub(super) fn edit(&self, path: &str, before: &str, after: &str) -> String {
        let text = self.read(path);
        assert_eq!(text.matches(before).count(), 1, "{before:?} in {path}");
        self.write(path, &text.replace(before, after));
        self.commit(after)
    }

    /// An address of this site by its last number.
    pub(super) fn address(&self, last: &str) -> String {
        format!("{}.{last}", self.net.prefix())
    }

    /// The body of an HTTP answer.
    pub(super) fn get(&self, last: &str, port: u16) -> String {
        self.try_get(last, port).unwrap_or_else(|| panic!("{} does not answer\n{}", self.address(last), self.output()))
    }

    pub(super) fn try_get(&self, last: &str, port: u16) -> Option<String> {
        let mut stream = TcpStream::connect((self.address(last), port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    }

    fn ask(&self, args: &[&str]) -> Option<Value> {
        let mut command = Command::new(binaries::groundplan());
        let output = command.args(args).args(["--format", "json", "--state"]).arg(self.dir()).output();
        let output = output.expect("groundplan runs");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// The number of the latest rollout.
    pub(super) fn rollout(&self) -> u64 {
        let status = self.ask(&["status"]).expect("a planner that answers");
        status["rollout"]["generation"].as_u64().expect("a rollout")
    }

    /// The planner's status once it has planned the active commit with the states of all nodes, whose agents are connected.
    fn status(&self) -> Option<Value> {
        let status = self.ask(&["status"])?;
        let nodes = status["nodes"].as_array()?.iter().filter(|node| node["declared"] == true);
        let is_connected = |node: &&Value| node["presence"] == "online";
        let names: Vec<&str> = nodes.clone().filter_map(|node| node["node"].as_str()).collect();
        (nodes.clone().all(|node| is_connected(&node)) && is_planned(&status, &names)).then_some(status)
    }

    /// Waits for the first rollout to succeed; returns its number.
    pub(super) fn converged(&self) -> u64 {
        self.wait("the site to converge", || {
            let status = self.status()?;
            (status["rollout"]["result"] == "succeeded").then(|| status["rollout"]["generation"].as_u64())?
        })
    }

    /// Waits until a commit is active and planned: if that made no rollout, none follows.
    pub(super) fn planned(&self, commit: &str) {
        self.wait(commit, || (self.status()?["commit"]["id"] == commit).then_some(()));
    }

    /// Waits until a commit's rollout, another than `before`, has succeeded; returns its number.
    pub(super) fn deployed(&self, commit: &str, before: u64) -> u64 {
        self.wait(commit, || {
            let status = self.status()?;
            let rollout = &status["rollout"];
            let done = status["commit"]["id"] == commit && rollout["result"] == "succeeded";
            rollout["generation"].as_u64().filter(|n| done && *n > before)
        })
    }

    /// What the latest rollout did, in name order.
    pub(super) fn actions(&self) -> Vec<String> {
        let detail = self.ask(&["show"]).expect("a rollout");
        let instances = detail["instances"].as_array().expect("instances");
        let words = |i: &Value| Some(format!("{} {}", i["action"].as_str()?, i["instance"].as_str()?));
        let mut actions: Vec<(bool, String)> =
            instances.iter().filter_map(words).map(|text| (text.starts_with("restart"), text)).collect();
        actions.sort();
        actions.into_iter().map(|(_, text)| text).collect()
    }

    /// When each task of the latest rollout began and ended, in milliseconds.
    pub(super) fn spans(&self) -> BTreeMap<String, (u64, u64)> {
        let detail = self.ask(&["show"]).expect("a rollout");
        let instances = detail["instances"].as_array().expect("instances");
        let span = |i: &Value| {
            let start = i["started_ms"].as_u64()?;
            Some((i["instance"].as_str()?.to_owned(), (start, start + i["duration_ms"].as_u64()?)))
        };
        instances.iter().filter_map(span).collect()
    }

    /// The sample's programs that run below this directory.
    pub(super) fn pids(&self) -> Pids {
        let nodes = format!("GROUNDPLAN_ROOT={}/", self.dir().join("nodes").display());
        let mut pids = Pids::new();
        for (pid, variables, arguments) in processes() {
            let Some(node) = variables.iter().find_map(|v| v.strip_prefix(&nodes)?.strip_suffix("/root")) else {
                continue;
            };
            let program =
                arguments.iter().find_map(|a| Path::new(a).file_name()?.to_str().filter(|n| n.ends_with(".pl")));
            // `seed` is no server; it ends by itself.
            if let Some(program) = program.filter(|_| !arguments.iter().any(|a| a == "seed")) {
                pids.insert((node.to_owned(), program.to_owned()), pid);
            }
        }
        pids
    }

    /// Everything that runs here: servers, agents, and what they left behind.
    fn survivors(&self) -> Vec<String> {
        let dir = self.dir().display().to_string();
        let ours = processes().into_iter().filter(|(_, variables, arguments)| {
            arguments.iter().any(|a| a.contains(&dir)) || variables.iter().any(|v| v.contains(&dir))
        });
        ours.map(|(pid, _, arguments)| format!("{pid} {}", arguments.join(" "))).collect()
    }

    /// Sends a signal and waits for the end.
    pub(super) fn stop(&mut self, signal: Signal) {
        let mut child = self.child.take().expect("it runs");
        kill(Pid::from_raw(child.id() as i32), signal).expect("a signal");
        let status = child.wait().expect("a child");
        assert!(signal == Signal::SIGKILL || status.success(), "{status}\n{}", self.output());
    }

    /// Ends it; nothing may survive.
    pub(super) fn end(mut self, signal: Signal) {
        self.stop(signal);
        if signal != Signal::SIGKILL {
            assert_eq!(self.survivors(), Vec::<String>::new(), "{}", self.output());
        }
        self.wait("everything to end", || self.survivors().is_empty().then_some(()));
    }

    /// Waits until a condition holds.
    pub(super) fn wait<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}\n{}\n{:#?}\n{:#}",
                self.output(),
                self.survivors(),
                self.ask(&["show"]).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(25));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // After a failed assertion: agents end what they run when their parent has ended.
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            let deadline = Instant::now() + Duration::from_secs(10);
            while !self.survivors().is_empty() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn scratch() -> TempDir {
    // Canonical, because it is searched for in the environment of processes.
    let tmp = std::env::temp_dir().canonicalize().expect("a temporary directory");
    tempfile::Builder::new().prefix("groundplan-up-").tempdir_in(tmp).expect("a scratch directory")
}

/// Every process with its environment and arguments, as far as they may be read.
fn processes() -> Vec<(u32, Vec<String>, Vec<String>)> {
    let list = |path: PathBuf| -> Vec<String> {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.split(|b| *b == 0).filter(|s| !s.is_empty()).map(|s| String::from_utf8_lossy(s).into_owned()).collect()
    };
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.map(|pid: u32| {
        let dir = Path::new("/proc").join(pid.to_string());
        (pid, list(dir.join("environ")), list(dir.join("cmdline")))
    })
    .collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}

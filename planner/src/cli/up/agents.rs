//! The agents of a `groundplan up`: one child process for each node, restarted when it exits.
//!
//! Each child is owned by a task of its own. An agent exits when its standard input is closed: that is how it is stopped, and why it
//! stops when this process ends, whatever the cause.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use groundplan_protocol::ids::NodeId;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{private, terminal::Failure};

const PROGRAM: &str = "groundplan-agent";
/// The pause before an agent is restarted: the first, which doubles with each exit, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// An agent that ran for this long resets the pause.
const GOOD_RUN: Duration = Duration::from_secs(20);

/// The desired state of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Running,
    Stopped,
    Killed,
}

/// An agent exited by itself, or could not be started.
#[derive(Debug)]
pub(super) struct AgentExit {
    /// The node of the agent.
    pub(super) node: NodeId,
    /// The cause as a predicate: `exited: …; its log is …`.
    pub(super) how: String,
}

struct Agent {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
}

/// The agents of all nodes.
pub(super) struct Agents {
    program: PathBuf,
    running: BTreeMap<NodeId, Agent>,
    exits: mpsc::UnboundedSender<AgentExit>,
}

/// Finds the agent's program: beside this one, or in PATH.
pub(super) fn find_program() -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROGRAM)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        beside.into_iter().chain(std::env::split_paths(&path).map(|dir| dir.join(PROGRAM))).find(|p| p.is_file());
    found.ok_or_else(|| {
        Failure::new(format!("cannot find `{PROGRAM}` beside this program or in PATH"))
            .hint("in a source tree: cargo build -p groundplan -p groundplan-agent")
    })
}

impl Agents {
    /// Starts without agents. Exits are sent to `exits`, which stays small because a pause follows each of them.
    pub(super) fn new(program: PathBuf, exits: mpsc::UnboundedSender<AgentExit>) -> Self {
        Self { program, running: BTreeMap::new(), exits }
    }

    /// Whether a node has an agent, running or about to be restarted.
    pub(super) fn has(&self, node: &NodeId) -> bool {
        self.running.contains_key(node)
    }

    /// The nodes that have an agent.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.running.keys().cloned().collect()
    }

    /// Starts a node's agent with this configuration file; its output is appended to `log`.
    pub(super) fn start(&mut self, node: NodeId, config: PathBuf, log: PathBuf) {
        let (wanted, changes) = watch::channel(Wanted::Running);
        let monitor =
            Monitor { program: self.program.clone(), node: node.clone(), config, log, exits: self.exits.clone() };
        self.running.insert(node, Agent { wanted, task: tokio::spawn(monitor.run(changes)) });
    }

    /// Stops a node's agent, and waits until it has stopped.
    pub(super) async fn stop(&mut self, node: &NodeId) {
        if let Some(agent) = self.running.remove(node) {
            agent.wanted.send_replace(Wanted::Stopped);
            // A task that panicked has dropped its child, which kills it.
            let _ = agent.task.await;
        }
    }

    /// Begins to stop all agents.
    pub(super) fn stop_all(&self) {
        self.set_all(Wanted::Stopped);
    }

    /// Kills all agents that still run.
    pub(super) fn kill_all(&self) {
        self.set_all(Wanted::Killed);
    }

    fn set_all(&self, wanted: Wanted) {
        for agent in self.running.values() {
            agent.wanted.send_replace(wanted);
        }
    }

    /// Waits until all agents have exited. May be dropped and called again.
    pub(super) async fn ended(&mut self) {
        while let Some(mut entry) = self.running.first_entry() {
            let _ = (&mut entry.get_mut().task).await;
            entry.remove();
        }
    }
}

/// Runs one agent, and restarts it, until it is to stop.
struct Monitor {
    program: PathBuf,
    node: NodeId,
    config: PathBuf,
    log: PathBuf,
    exits: mpsc::UnboundedSender<AgentExit>,
}

impl Monitor {
    async fn run(self, mut changes: watch::Receiver<Wanted>) {
        let mut pause = BACK_OFF.0;
        while *changes.borrow_and_update() == Wanted::Running {
            let began = Instant::now();
            let how = match self.spawn() {
                Ok(child) => match supervise(child, &mut changes).await {
                    None => return,
                    Some(Ok(status)) => format!("exited: {status}; its log is {}", self.log.display()),
                    Some(Err(e)) => format!("cannot be waited for: {e}"),
                },
                Err(e) => format!("cannot be started: {}: {e}", self.program.display()),
            };
            // The receiver is dropped while everything is being stopped.
            let _ = self.exits.send(AgentExit { node: self.node.clone(), how });
            pause = if began.elapsed() > GOOD_RUN { BACK_OFF.0 } else { (pause * 2).min(BACK_OFF.1) };
            tokio::select! {
                () = sleep(pause) => {}
                _ = changes.changed() => {}
            }
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = private::append(&self.log)?;
        Command::new(&self.program)
            .arg("--config")
            .arg(&self.config)
            .arg("--exit-with-parent")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Its own process group: Ctrl-C on the terminal must not stop agents before the loop does it in its order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// Waits until the child has exited: returns its status if it exited by itself, `None` if it was stopped.
async fn supervise(mut child: Child, changes: &mut watch::Receiver<Wanted>) -> Option<io::Result<ExitStatus>> {
    let mut stdin = child.stdin.take();
    loop {
        tokio::select! {
            status = child.wait() => return stdin.is_some().then_some(status),
            changed = changes.changed() => {
                let wanted = if changed.is_ok() { *changes.borrow_and_update() } else { Wanted::Killed };
                if wanted != Wanted::Running {
                    stdin = None;
                }
                if wanted == Wanted::Killed {
                    // It may have exited just now.
                    let _ = child.start_kill();
                    let _ = child.wait().await;
                    return None;
                }
            }
        }
    }
}

/// Kills supervised processes that their agents have not stopped, and returns how many there were. They are recognized by the agent's
/// root in their environment, which is below the directory of all nodes.
pub(super) fn sweep(nodes: &Path) -> usize {
    let mark = format!("GROUNDPLAN_ROOT={}/", nodes.display());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|variable| variable.starts_with(mark.as_bytes()))
    });
    // A process that exited in between cannot be killed, and is not counted.
    ours.filter(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok()).count()
}

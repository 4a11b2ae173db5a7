//! The agents of a `groundplan up`: one child process for each node, started again when it dies.
//!
//! Each has a task of its own that owns the child. An agent ends when its standard input does: so it is told to stop, and so it
//! stops when this process is gone, whatever the cause.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
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

use crate::terminal::Failure;

const PROGRAM: &str = "groundplan-agent";
/// Pause before an agent that died is started again: doubled each time, up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// One that ran for so long had a good start.
const GOOD_RUN: Duration = Duration::from_secs(20);

/// What is wanted of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Running,
    Stopped,
    Killed,
}

/// An agent that ended by itself, or could not be started.
#[derive(Debug)]
pub(super) struct Died {
    /// Its node.
    pub(super) node: NodeId,
    /// How.
    pub(super) how: String,
}

struct Agent {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
}

/// All agents.
pub(super) struct Agents {
    program: PathBuf,
    running: BTreeMap<NodeId, Agent>,
    died: mpsc::UnboundedSender<Died>,
}

/// The agent's program: beside this one, or in PATH.
pub(super) fn find_program() -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROGRAM)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        beside.into_iter().chain(std::env::split_paths(&path).map(|dir| dir.join(PROGRAM))).find(|p| p.is_file());
    found.ok_or_else(|| {
        Failure::new(format!("there is no `{PROGRAM}` beside this program or in PATH"))
            .hint("in a source tree: cargo build -p groundplan -p groundplan-agent")
    })
}

impl Agents {
    /// None yet. Those that die are told to `died`; it stays small, because each death is followed by a pause.
    pub(super) fn new(program: PathBuf, died: mpsc::UnboundedSender<Died>) -> Self {
        Self { program, running: BTreeMap::new(), died }
    }

    /// Whether a node has one.
    pub(super) fn has(&self, node: &NodeId) -> bool {
        self.running.contains_key(node)
    }

    /// The nodes that have one.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.running.keys().cloned().collect()
    }

    /// Starts a node's agent with this configuration.
    pub(super) fn start(&mut self, node: NodeId, config: PathBuf, log: PathBuf) {
        let (wanted, orders) = watch::channel(Wanted::Running);
        let keeper = Keeper { program: self.program.clone(), node: node.clone(), config, log, died: self.died.clone() };
        self.running.insert(node, Agent { wanted, task: tokio::spawn(keeper.run(orders)) });
    }

    /// Stops a node's agent, and waits until it has stopped.
    pub(super) async fn stop(&mut self, node: &NodeId) {
        if let Some(agent) = self.running.remove(node) {
            agent.wanted.send_replace(Wanted::Stopped);
            // A task that panicked has dropped its child, which kills it.
            let _ = agent.task.await;
        }
    }

    /// Asks all to stop.
    pub(super) fn stop_all(&self) {
        self.order_all(Wanted::Stopped);
    }

    /// Kills all that still run.
    pub(super) fn kill_all(&self) {
        self.order_all(Wanted::Killed);
    }

    fn order_all(&self, wanted: Wanted) {
        for agent in self.running.values() {
            agent.wanted.send_replace(wanted);
        }
    }

    /// Waits until all have ended. May be dropped and called again.
    pub(super) async fn ended(&mut self) {
        while let Some(mut entry) = self.running.first_entry() {
            let _ = (&mut entry.get_mut().task).await;
            entry.remove();
        }
    }
}

/// Keeps one agent running.
struct Keeper {
    program: PathBuf,
    node: NodeId,
    config: PathBuf,
    log: PathBuf,
    died: mpsc::UnboundedSender<Died>,
}

impl Keeper {
    async fn run(self, mut orders: watch::Receiver<Wanted>) {
        let mut pause = BACK_OFF.0;
        while *orders.borrow_and_update() == Wanted::Running {
            let began = Instant::now();
            let how = match self.spawn() {
                Ok(child) => match supervise(child, &mut orders).await {
                    None => return,
                    Some(Ok(status)) => format!("ended: {status}; its log is {}", self.log.display()),
                    Some(Err(e)) => format!("cannot be waited for: {e}"),
                },
                Err(e) => format!("cannot be started: {}: {e}", self.program.display()),
            };
            // Nobody listens any more when all is being stopped.
            let _ = self.died.send(Died { node: self.node.clone(), how });
            pause = if began.elapsed() > GOOD_RUN { BACK_OFF.0 } else { (pause * 2).min(BACK_OFF.1) };
            tokio::select! {
                () = sleep(pause) => {}
                _ = orders.changed() => {}
            }
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        Command::new(&self.program)
            .arg("--config")
            .arg(&self.config)
            .arg("--exit-with-parent")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // The terminal's Ctrl-C is for us: we stop agents in our own order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// Waits until the child ends by itself, which is returned, or until it was told to and has.
async fn supervise(mut child: Child, orders: &mut watch::Receiver<Wanted>) -> Option<io::Result<ExitStatus>> {
    let mut stdin = child.stdin.take();
    loop {
        tokio::select! {
            status = child.wait() => return stdin.is_some().then_some(status),
            changed = orders.changed() => {
                let wanted = if changed.is_ok() { *orders.borrow_and_update() } else { Wanted::Killed };
                if wanted != Wanted::Running {
                    stdin = None;
                }
                if wanted == Wanted::Killed {
                    // It may have ended just now.
                    let _ = child.start_kill();
                    let _ = child.wait().await;
                    return None;
                }
            }
        }
    }
}

/// Kills what still runs below the nodes' directory, known by the root in its environment: processes of agents that could not
/// stop them. Returns how many there were.
pub(super) fn sweep(nodes: &Path) -> usize {
    let mark = format!("GROUNDPLAN_ROOT={}/", nodes.display());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|variable| variable.starts_with(mark.as_bytes()))
    });
    // One that ended in between is no longer there to be killed.
    ours.filter(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok()).count()
}

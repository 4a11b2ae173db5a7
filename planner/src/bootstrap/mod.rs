//! Giving hosts their agents over `ssh`: the program, its unit, its configuration and certificates; and the planner its key.
//!
//! In: targets and how to reach them. Out: for each, what was done, or why not and how the host was left. A host is looked at first,
//! and what is decided from that is pure (`decide`); a second round trip puts all files in place at once or none; then the agent is
//! started, and kept only if the planner hears of it. Nothing here touches what the agent supervises, its ledger or another node.
//! Never asks for a password, never weakens how host keys are checked, never lets a private key of an agent leave its host.

mod config;
mod decide;
mod look;
mod node;
mod presence;
pub mod program;
mod ssh;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use groundplan_protocol::{envelope::PublicKey, ids::NodeId};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

pub use self::{
    decide::{Bytes, Refusal, Target},
    ssh::{Ssh, SshError},
};
use self::{node::Host, presence::Presence};
use crate::api::ClientError;

/// How the work is done.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How hosts are reached.
    pub ssh: Ssh,
    /// The planner's socket.
    pub socket: PathBuf,
    /// On how many hosts at a time.
    pub at_once: usize,
    /// How long each may take.
    pub timeout: Duration,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

/// What is being done on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    Queued,
    /// Finding out what is there.
    Looking,
    /// Sending files.
    Uploading {
        /// How many bytes.
        bytes: u64,
    },
    /// Telling the planner its key.
    Trusting,
    /// Having systemd start it; one that runs may end its tasks first.
    Starting,
    /// Until the planner hears of it.
    Waiting,
    /// That it is the right program.
    Checking,
    /// What was there before.
    PuttingBack,
}

impl Step {
    /// In a few words.
    pub fn words(self) -> String {
        match self {
            Self::Queued => "waits for its turn".to_owned(),
            Self::Looking => "looking".to_owned(),
            Self::Uploading { bytes } => format!("sending {} KiB", bytes.div_ceil(1024)),
            Self::Trusting => "telling the planner its key".to_owned(),
            Self::Starting => "starting".to_owned(),
            Self::Waiting => "waiting for its agent".to_owned(),
            Self::Checking => "checking what runs".to_owned(),
            Self::PuttingBack => "putting back what was there".to_owned(),
        }
    }

    /// How a host is left when it is broken off there.
    fn left(self) -> &'static str {
        match self {
            Self::Queued | Self::Looking => "nothing was changed on the host",
            Self::Uploading { .. } => {
                "either nothing was replaced on the host or all of it: the same again finds out and goes on"
            }
            _ => "its files are in place, and the agent may run already: the same again finds out and finishes",
        }
    }
}

/// What came of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All was as it should be.
    AsItWas,
    /// It has an agent now.
    Installed,
    /// It runs another program now.
    Upgraded,
    /// The same, of an earlier version.
    Downgraded,
    /// Something else of it was changed.
    Changed,
    /// It was started.
    Started,
    /// Something would be done.
    Would,
    /// Nothing was done, and why.
    Refused,
    /// It went wrong.
    Failed,
    /// It was broken off.
    Interrupted,
}

impl State {
    /// Whether the host is as it should be, or would be.
    pub fn is_good(self) -> bool {
        !matches!(self, Self::Refused | Self::Failed | Self::Interrupted)
    }
}

/// What was done on a host.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// The node.
    pub node: NodeId,
    /// Where it was reached.
    pub address: String,
    /// What came of it.
    pub state: State,
    /// Why anything was done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// The version that was there.
    pub had: Option<String>,
    /// The version that is there.
    pub version: Option<String>,
    /// The key that its agent signs with.
    pub key: Option<PublicKey>,
    /// Where the state of another site's agent went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How the host was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The last lines of the agent's journal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub journal: Vec<String>,
}

impl Done {
    fn new(target: &Target) -> Self {
        Self {
            node: target.node.clone(),
            address: target.address.clone(),
            state: State::AsItWas,
            because: Vec::new(),
            had: None,
            version: None,
            key: None,
            moved: None,
            error: None,
            left: None,
            hint: None,
            journal: Vec::new(),
        }
    }
}

/// Why a host has no agent as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Ssh(SshError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("its answer is not whole; does its shell end early?")]
    Answer,
    #[error("another bootstrap is at work there")]
    Busy,
    #[error("there is no space left: {0}")]
    Full(String),
    #[error("cannot write there: {0}")]
    Write(String),
    #[error("not all of a file arrived")]
    Cut,
    #[error("the program does not run there: {0}")]
    DoesNotRun(String),
    #[error("the agent has no key: {0}")]
    NoKey(String),
    #[error("the planner does not take its key: {}", match .0 { ClientError::Refused { problem } => problem.error.clone(), e => e.to_string() })]
    Api(ClientError),
    #[error("its agent does not start: {0}")]
    Unit(String),
    #[error("its agent runs, and the planner did not hear of it in time")]
    Absent,
    #[error("its agent was started, and the planner no longer answers")]
    Planner,
    #[error("another program runs as the agent than the one that was put there")]
    OtherProgram,
    #[error("it took longer than the time limit")]
    Time,
    #[error("{fault}")]
    Left { fault: Box<Fault>, left: &'static str, journal: Vec<String> },
}

impl Fault {
    fn hint(&self, ssh: &Ssh, address: &str) -> Option<String> {
        match self {
            Self::Ssh(e) => Some(e.hint(&ssh.target(address), &ssh.known_as(address))),
            Self::Refused(refusal) => Some(refusal.hint()),
            Self::Left { fault, .. } => fault.hint(ssh, address),
            Self::Api(e) => e.hint(),
            Self::Busy => Some("wait for its end".to_owned()),
            Self::Full(_) => Some("make room there".to_owned()),
            Self::Write(_) => Some("is the file system read-only? see docs/bootstrap.md for such hosts".to_owned()),
            Self::Answer | Self::Cut | Self::Planner => Some("run the same again".to_owned()),
            Self::DoesNotRun(_) => Some("is it the right agent for that host (--agent)?".to_owned()),
            Self::NoKey(_) | Self::Unit(_) => Some("its journal's last lines say more".to_owned()),
            Self::Absent => Some("can the host reach the broker (--broker), with these certificates? `groundplan status` tells messages that are refused".to_owned()),
            Self::OtherProgram => Some("does something else replace or start groundplan-agent there?".to_owned()),
            Self::Time => Some("give more with --timeout".to_owned()),
        }
    }

    /// What is told of a host.
    fn done(self, target: &Target, ssh: &Ssh, step: Step) -> Done {
        let hint = self.hint(ssh, &target.address);
        let state = if matches!(self, Self::Refused(_)) { State::Refused } else { State::Failed };
        let error = Some(self.to_string());
        let (left, journal) = match self {
            Self::Left { left, journal, .. } => (left, journal),
            Self::Refused(_) => (Step::Looking.left(), Vec::new()),
            // What the script that puts files there says of itself, it says after it has cleaned up.
            Self::Full(_) | Self::Write(_) | Self::Cut | Self::DoesNotRun(_) | Self::Busy
                if matches!(step, Step::Uploading { .. }) =>
            {
                (Step::Looking.left(), Vec::new())
            }
            Self::NoKey(_) => ("what was there before is there again", Vec::new()),
            _ => (step.left(), Vec::new()),
        };
        Done { state, error, hint, left: Some(left.to_owned()), journal, ..Done::new(target) }
    }
}

/// Something to show.
#[derive(Debug)]
pub enum Told {
    /// What is being done on a host.
    Step(NodeId, Step),
    /// What came of it.
    Done(Box<Done>),
}

/// Does it, on `at_once` hosts at a time, until all are done or `stop` becomes true. What comes of it, in the targets' order.
pub async fn run(
    settings: Settings,
    targets: Vec<Target>,
    tell: mpsc::UnboundedSender<Told>,
    stop: watch::Receiver<bool>,
) -> Vec<Done> {
    let presence = Presence::start(&settings.socket);
    let turns = Arc::new(Semaphore::new(settings.at_once.max(1)));
    let settings = Arc::new(settings);
    let mut hosts = JoinSet::new();
    for (n, target) in targets.into_iter().enumerate() {
        let (settings, presence, turns) = (settings.clone(), presence.clone(), turns.clone());
        let (tell, stop) = (tell.clone(), stop.clone());
        hosts.spawn(async move { (n, one(&settings, target, presence, &turns, tell, stop).await) });
    }
    let mut all = Vec::new();
    while let Some(ended) = hosts.join_next().await {
        match ended {
            Ok(done) => all.push(done),
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }
    all.sort_by_key(|(n, _)| *n);
    all.into_iter().map(|(_, done)| done).collect()
}

async fn one(
    settings: &Settings,
    target: Target,
    presence: Presence,
    turns: &Semaphore,
    tell: mpsc::UnboundedSender<Told>,
    mut stop: watch::Receiver<bool>,
) -> Done {
    let step = Mutex::new(Step::Queued);
    let now = || *step.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever listened may have gone.
    let say = |step: Step| drop(tell.send(Told::Step(target.node.clone(), step)));
    let work = async {
        let _turn = turns.acquire().await;
        let (dry_run, until) = (settings.dry_run, Instant::now() + settings.timeout);
        let (ssh, socket) = (&settings.ssh, settings.socket.as_path());
        Host { target: &target, ssh, socket, presence, until, dry_run, step: &step, tell: &say }.work().await
    };
    let ended = tokio::select! {
        ended = work => Some(ended),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let done = match ended {
        Some(Ok(done)) => done,
        Some(Err(fault)) => fault.done(&target, &settings.ssh, now()),
        None => Done {
            state: State::Interrupted,
            error: Some("broken off".to_owned()),
            left: Some(now().left().to_owned()),
            ..Done::new(&target)
        },
    };
    drop(tell.send(Told::Done(Box::new(done.clone()))));
    done
}

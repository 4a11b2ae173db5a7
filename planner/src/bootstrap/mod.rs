//! Giving hosts their agents over `ssh`: the program, its unit, its configuration and certificates; and the planner its key.
//!
//! In: targets and how to reach them. Out: for each, what was done, or why not and how the host was left. A host is looked at first,
//! and what is decided from that is pure (`decide`); a second round trip puts all files in place at once or none; then the agent is
//! started, and kept only if the planner hears of it. Nothing here touches what the agent supervises, its ledger or another node.
//! Never asks for a password, never weakens how host keys are checked, never lets a private key of an agent leave its host.

mod config;
mod decide;
mod fault;
mod host;
mod outcome;
mod paths;
mod presence;
mod probe;
pub mod program;
mod refusal;
mod ssh;
mod target;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use self::{host::Host, presence::Presence};
pub use self::{
    outcome::{Done, State, Step, Told},
    refusal::Refusal,
    ssh::{Ssh, SshError},
    target::{Bytes, Target},
};

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

//! Installs agents on hosts over `ssh`: program, unit, configuration and certificates; and registers the agents' keys with the planner.
//!
//! In: targets and how to reach them. Out: a result for each host. The host probe is the first round trip, and the decision that follows
//! from it is pure (`decide`). A second round trip replaces either all files or none. Then the agent is started, and the new files are
//! kept only if the agent connects to the planner. Never touches supervised processes, the ledger or another node; never asks for a
//! password, never weakens the checks of host keys, and no private key of an agent leaves its host.

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
    outcome::{HostResult, HostState, ProgressEvent, Step},
    refusal::Refusal,
    ssh::{Ssh, SshError},
    target::{Bytes, Target},
};

/// Settings that are the same for all hosts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How to reach and log in to hosts.
    pub ssh: Ssh,
    /// The socket of the planner that registers the agents' keys.
    pub socket: PathBuf,
    /// How many hosts are in progress at a time; at least 1.
    pub at_once: usize,
    /// The time limit of each host, from the moment that it is no longer queued.
    pub timeout: Duration,
    /// Whether to stop after the decision, which changes nothing.
    pub dry_run: bool,
}

/// Works on `at_once` hosts at a time until all are finished or `stop` becomes true. Returns the results in the order of the targets.
pub async fn run(
    settings: Settings,
    targets: Vec<Target>,
    progress: mpsc::UnboundedSender<ProgressEvent>,
    stop: watch::Receiver<bool>,
) -> Vec<HostResult> {
    let presence = Presence::start(&settings.socket);
    let turns = Arc::new(Semaphore::new(settings.at_once.max(1)));
    let settings = Arc::new(settings);
    let mut hosts = JoinSet::new();
    for (n, target) in targets.into_iter().enumerate() {
        let (settings, presence, turns) = (settings.clone(), presence.clone(), turns.clone());
        let (progress, stop) = (progress.clone(), stop.clone());
        hosts.spawn(async move { (n, one(&settings, target, presence, &turns, progress, stop).await) });
    }
    let mut all = Vec::new();
    while let Some(ended) = hosts.join_next().await {
        match ended {
            Ok(result) => all.push(result),
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }
    all.sort_by_key(|(n, _)| *n);
    all.into_iter().map(|(_, result)| result).collect()
}

async fn one(
    settings: &Settings,
    target: Target,
    presence: Presence,
    turns: &Semaphore,
    progress: mpsc::UnboundedSender<ProgressEvent>,
    mut stop: watch::Receiver<bool>,
) -> HostResult {
    let step = Mutex::new(Step::Queued);
    let now = || *step.lock().unwrap_or_else(PoisonError::into_inner);
    // The receiver is dropped when the display has ended; the work goes on.
    let report = |step: Step| drop(progress.send(ProgressEvent::Step(target.node.clone(), step)));
    let work = async {
        let _turn = turns.acquire().await;
        let (dry_run, until) = (settings.dry_run, Instant::now() + settings.timeout);
        let (ssh, socket) = (&settings.ssh, settings.socket.as_path());
        Host { target: &target, ssh, socket, presence, until, dry_run, step: &step, report: &report }.work().await
    };
    let ended = tokio::select! {
        ended = work => Some(ended),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let result = match ended {
        Some(Ok(result)) => result,
        Some(Err(fault)) => fault.result(&target, &settings.ssh, now()),
        None => HostResult {
            state: HostState::Interrupted,
            error: Some("interrupted".to_owned()),
            left: Some(now().left().to_owned()),
            ..HostResult::new(&target)
        },
    };
    drop(progress.send(ProgressEvent::Finished(Box::new(result.clone()))));
    result
}

//! One host, from the host probe to the connection of its agent.
//!
//! In: a target, `ssh` and the planner's socket. Out: the result, or a fault with the state in which the host was left. `decide` decides
//! and the scripts in `sh/` act; this file runs them in order. If the agent does not come up, the previous files are restored.

use std::{future::Future, path::Path, sync::Mutex, time::Duration};

use groundplan_protocol::envelope::PublicKey;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    decide::{self, Decision, RestartReason, decide},
    fault::Fault,
    outcome::{HostResult, HostState, Step},
    paths::{CA, CERT, CONFIG, KEY, PROGRAM, STATE},
    presence::Presence,
    probe,
    ssh::{Payload, Ssh},
    target::Target,
};
use crate::api::{Client, hosts::TrustRequest};

const COMMON: &str = include_str!("sh/common.sh");
const PROBE: &str = include_str!("sh/probe.sh");
const PUT: &str = include_str!("sh/put.sh");
const START: &str = include_str!("sh/start.sh");
const KEEP: &str = include_str!("sh/keep.sh");
const UNDO: &str = include_str!("sh/undo.sh");

/// How long restoring the previous files may take, whatever the time limit: it waits for a start in progress, and the unit has a minute
/// to stop.
const RESTORE: Duration = Duration::from_secs(180);
/// How many restarts by systemd count as a failed start.
const RESTARTS: u32 = 3;

/// The work on one host.
pub(super) struct Host<'a> {
    pub(super) target: &'a Target,
    pub(super) ssh: &'a Ssh,
    pub(super) socket: &'a Path,
    pub(super) presence: Presence,
    /// When the time limit passes.
    pub(super) until: Instant,
    pub(super) dry_run: bool,
    /// The current step, which the caller reads if it drops the work.
    pub(super) step: &'a Mutex<Step>,
    pub(super) report: &'a (dyn Fn(Step) + Send + Sync),
}

/// A script with its values as shell assignments before it.
fn script(values: &[(&str, &str)], body: &str) -> String {
    let mut text = String::new();
    for (name, value) in values {
        text.push_str(&format!("{name}='{}'\n", value.replace('\'', "'\\''")));
    }
    text + COMMON + body
}

/// How a start of the agent ended.
enum Start {
    /// The agent has a new session with the planner.
    Present,
    /// The unit failed: the error.
    Failed(String),
    /// The time limit has passed without a connection.
    Absent,
}

impl Host<'_> {
    fn step(&self, step: Step) {
        *self.step.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = step;
        (self.report)(step);
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        timeout_at(self.until, work).await.unwrap_or(Err(Fault::Time))
    }

    /// Runs a script and returns the lines of its answer.
    async fn run(&self, script: &str, files: &[Payload]) -> Result<Vec<String>, Fault> {
        let mut lines = Vec::new();
        let ran = self.ssh.run(&self.target.address, script, files, |line| lines.push(line.to_owned())).await;
        match lines.iter().find_map(|line| line.strip_prefix("failed ")) {
            // The script's error is more precise than that of the connection, which usually follows from it.
            Some(why) => Err(script_fault(why)),
            None => ran.map(|()| lines).map_err(Fault::Ssh),
        }
    }

    /// Runs all steps on the host, and stops at the first that fails.
    pub(super) async fn work(&self) -> Result<HostResult, Fault> {
        self.step(Step::Probing);
        let paths = [PROGRAM, CONFIG, CA, CERT, KEY].join(" ");
        let dirs = ["/usr/bin", "/etc/groundplan", STATE].join(" ");
        let probe_script = script(&[("paths", &paths), ("dirs", &dirs)], PROBE);
        let lines = self.in_time(self.run(&probe_script, &[])).await?;
        let found = probe::read(lines.iter().map(String::as_str)).ok_or(Fault::Answer)?;
        let decision = decide(self.target, &found)?;
        let mut result = self.planned(&decision);
        if self.dry_run {
            return Ok(result);
        }
        if decision.put.is_empty() && decision.because.is_empty() {
            self.step(Step::Waiting);
            return match self.present(None).await {
                true => Ok(HostResult { key: self.target.key, ..result }),
                false => Err(self.undo(Fault::Absent, None).await),
            };
        }
        // Without new files the probe has the agent's key; else the upload script reports it, which may have made the agent create one.
        let key = match found.key.filter(|_| decision.put.is_empty()) {
            Some(key) => key,
            None => self.put(&decision, &mut result).await?,
        };
        result.key = Some(key);
        if self.target.key != Some(key) {
            self.step(Step::Trusting);
            if let Err(fault) = self.in_time(self.trust(key, self.target.replace_key)).await {
                return Err(self.undo(fault, key).await);
            }
        }
        self.step(Step::Starting);
        match self.start().await {
            Start::Present => {}
            Start::Failed(why) => return Err(self.undo(Fault::Unit(why), key).await),
            // Whether the agent connected is unknown: restoring could take away an agent that works. The next run decides.
            Start::Absent if !self.presence.answers() => return Err(Fault::Planner),
            Start::Absent => return Err(self.undo(Fault::Absent, key).await),
        }
        self.step(Step::Checking);
        let keep = script(&[("digest", &decision.program)], KEEP);
        match timeout(RESTORE, self.run(&keep, &[])).await.unwrap_or(Err(Fault::Time)) {
            Ok(_) => Ok(result),
            Err(Fault::OtherProgram) => Err(self.undo(Fault::OtherProgram, key).await),
            Err(fault) => Err(fault),
        }
    }

    /// The result if all goes well.
    fn planned(&self, decision: &Decision) -> HostResult {
        let has = |reason: &RestartReason| decision.because.contains(reason);
        let state = match decision.because.first() {
            None => HostState::UpToDate,
            Some(_) if self.dry_run => HostState::WouldChange,
            Some(RestartReason::New | RestartReason::TakenOver(_)) => HostState::Installed,
            Some(_) if has(&RestartReason::Program) => HostState::Upgraded,
            Some(_) if !decision.put.is_empty() => HostState::Changed,
            Some(_) => HostState::Restarted,
        };
        let because = decision.because.iter().map(ToString::to_string).collect();
        let moved = decision.aside.as_ref().map(|(_, to)| to.clone());
        HostResult {
            state,
            because,
            previous_version: decision.previous_version.clone(),
            moved,
            ..HostResult::new(self.target)
        }
    }

    /// Replaces the files, all or none, and returns the agent's key.
    async fn put(&self, decision: &Decision, result: &mut HostResult) -> Result<PublicKey, Fault> {
        let bytes = decision.put.iter().map(|file| file.bytes.len() as u64).sum();
        self.step(Step::Uploading { bytes });
        let (state, aside) = decision.aside.clone().unwrap_or_default();
        let keep_old = if decision.keep_old { "yes" } else { "no" };
        let mut put = script(&[("keep_old", keep_old), ("state", &state), ("aside", &aside)], PUT);
        for file in &decision.put {
            put.push_str(&format!("put {} {} {} {}\n", file.path, file.mode, file.bytes.len(), file.digest));
        }
        put.push_str("commit\n");
        let files: Vec<Payload> = decision.put.iter().map(|file| Payload(file.bytes.clone())).collect();
        let lines = self.in_time(self.run(&put, &files)).await?;
        let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
        result.version = value("version ").and_then(probe::version).or(decision.previous_version.clone());
        if decide::is_older(result.version.as_deref(), decision.previous_version.as_deref()) {
            result.state = HostState::Downgraded;
        }
        value("key ").and_then(|key| key.parse().ok()).ok_or(Fault::Answer)
    }

    async fn trust(&self, key: PublicKey, replace: bool) -> Result<(), Fault> {
        let request = TrustRequest { node: self.target.node.clone(), key: Some(key), replace };
        let mut client = Client::connect(self.socket).await.map_err(Fault::Api)?;
        client.ask(&request).await.map(|_| ()).map_err(Fault::Api)
    }

    /// Whether the agent has another session than `before` within the time limit.
    async fn present(&self, before: Option<&str>) -> bool {
        let mut presence = self.presence.clone();
        timeout_at(self.until, presence.comes(&self.target.node, before)).await.is_ok()
    }

    /// Starts the agent, and watches its unit until the agent is connected.
    async fn start(&self) -> Start {
        let mut presence = self.presence.clone();
        let before = presence.session(&self.target.node).await;
        let (sender, mut lines) = mpsc::unbounded_channel();
        let start = script(&[], START);
        let on_line = move |line: &str| drop(sender.send(line.to_owned()));
        let mut ssh = std::pin::pin!(self.ssh.run(&self.target.address, &start, &[], on_line));
        let (mut connected, mut started, mut first) = (true, false, None);
        loop {
            tokio::select! {
                // Lines first: a failure that the unit reported explains the absence better than the time limit does.
                biased;
                Some(line) = lines.recv() => match line.split(' ').collect::<Vec<_>>().as_slice() {
                    ["started"] => {
                        started = true;
                        self.step(Step::Waiting);
                    }
                    ["failed", why @ ..] => return Start::Failed(why.join(" ")),
                    ["unit", "failed", ..] => return Start::Failed("the unit has failed".to_owned()),
                    ["unit", _, restarts] => {
                        // The counter may include restarts from before this start.
                        let restarts: u32 = restarts.parse().unwrap_or(0);
                        if restarts >= *first.get_or_insert(restarts) + RESTARTS {
                            return Start::Failed("it exits again and again".to_owned());
                        }
                    }
                    _ => {}
                },
                // `ssh` ended first: only the agent's connection to the planner shows how the start went.
                _ = &mut ssh, if connected => (connected, started) = (false, true),
                () = presence.comes(&self.target.node, before.as_deref()), if started => return Start::Present,
                () = sleep_until(self.until) => return Start::Absent,
            }
        }
    }

    /// Restores the previous files, and the key that the planner trusted before `key`. Adds to the fault in which state the host was left.
    async fn undo(&self, fault: Fault, key: impl Into<Option<PublicKey>>) -> Fault {
        self.step(Step::Restoring);
        if let Some(known) = self.target.key.filter(|known| key.into().is_some_and(|key| key != *known)) {
            // If this fails too, the next run is refused because the planner trusts another key, with the hint to replace it.
            let _ = timeout(RESTORE, self.trust(known, true)).await;
        }
        let mut lines = Vec::new();
        let undo = script(&[], UNDO);
        let ran = self.ssh.run(&self.target.address, &undo, &[], |line| lines.push(line.to_owned()));
        let ended = matches!(timeout(RESTORE, ran).await, Ok(Ok(())));
        let ended = ended && lines.iter().any(|line| line == "end");
        let values = |name: &'static str| lines.iter().filter_map(move |line| line.strip_prefix(name));
        let journal = values("journal ").map(str::to_owned).collect();
        let left = match values("undone ").next() {
            Some("running") => "the previous files were restored, and the previous agent runs",
            Some("stopped") => "the previous files were restored",
            Some(_) => "the previous files were restored, but the previous agent does not start",
            None if ended => "nothing was changed on the host",
            None => "the previous files could not be restored: run the same command again",
        };
        Fault::Left { fault: Box::new(fault), left, journal }
    }
}

/// The fault for a line `failed …` of a script.
fn script_fault(why: &str) -> Fault {
    let (name, rest) = why.split_once(' ').unwrap_or((why, ""));
    match name {
        "busy" => Fault::Busy,
        "other" => Fault::OtherProgram,
        "cut" => Fault::Cut,
        "run" => Fault::DoesNotRun(rest.to_owned()),
        "key" => Fault::NoKey(rest.to_owned()),
        "write" if rest.contains("No space left") || rest.contains("Disk quota") => Fault::Full(rest.to_owned()),
        "write" => Fault::Write(rest.to_owned()),
        _ => Fault::Unit(why.to_owned()),
    }
}

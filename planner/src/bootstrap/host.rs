//! One host, from the first look to its agent's presence.
//!
//! In: a target, `ssh`, and the planner to ask. Out: what was done, or what went wrong and how the host was left. Decisions are
//! `decide`'s, what is done on the host is the scripts': here they follow each other. What does not come up is put back.

use std::{future::Future, path::Path, sync::Mutex, time::Duration};

use groundplan_protocol::envelope::PublicKey;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    decide::{self, Because, Decision, decide},
    fault::Fault,
    outcome::{Done, State, Step},
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

/// How long putting back may take, whatever the time limit: a start under way is waited for, and the unit gets a minute to stop.
const PUT_BACK: Duration = Duration::from_secs(180);
/// How often systemd may start an agent again before we no longer believe in it.
const RESTARTS: u32 = 3;

/// A host at work.
pub(super) struct Host<'a> {
    pub(super) target: &'a Target,
    pub(super) ssh: &'a Ssh,
    pub(super) socket: &'a Path,
    pub(super) presence: Presence,
    pub(super) until: Instant,
    pub(super) dry_run: bool,
    /// What is being done at this moment.
    pub(super) step: &'a Mutex<Step>,
    pub(super) tell: &'a (dyn Fn(Step) + Send + Sync),
}

/// A script, with values before it.
fn script(values: &[(&str, &str)], body: &str) -> String {
    let mut text = String::new();
    for (name, value) in values {
        text.push_str(&format!("{name}='{}'\n", value.replace('\'', "'\\''")));
    }
    text + COMMON + body
}

/// What comes of a start.
enum Start {
    /// The agent is there, on another connection than before.
    Present,
    /// Its unit does not hold, in these words.
    Failed(String),
    /// Nobody heard of it in time.
    Absent,
}

impl Host<'_> {
    fn step(&self, step: Step) {
        *self.step.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = step;
        (self.tell)(step);
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        timeout_at(self.until, work).await.unwrap_or(Err(Fault::Time))
    }

    /// Runs a script and returns its answer.
    async fn run(&self, script: &str, files: &[Payload]) -> Result<Vec<String>, Fault> {
        let mut lines = Vec::new();
        let ran = self.ssh.run(&self.target.address, script, files, |line| lines.push(line.to_owned())).await;
        match lines.iter().find_map(|line| line.strip_prefix("failed ")) {
            // Its own word says more than the connection's.
            Some(why) => Err(script_fault(why)),
            None => ran.map(|()| lines).map_err(Fault::Ssh),
        }
    }

    /// All of it.
    pub(super) async fn work(&self) -> Result<Done, Fault> {
        self.step(Step::Looking);
        let paths = [PROGRAM, CONFIG, CA, CERT, KEY].join(" ");
        let dirs = ["/usr/bin", "/etc/groundplan", STATE].join(" ");
        let probe = script(&[("paths", &paths), ("dirs", &dirs)], PROBE);
        let lines = self.in_time(self.run(&probe, &[])).await?;
        let seen = probe::read(lines.iter().map(String::as_str)).ok_or(Fault::Answer)?;
        let decision = decide(self.target, &seen)?;
        let mut done = self.done(&decision);
        if self.dry_run {
            return Ok(done);
        }
        if decision.put.is_empty() && decision.because.is_empty() {
            self.step(Step::Waiting);
            return match self.present(None).await {
                true => Ok(Done { key: self.target.key, ..done }),
                false => Err(self.undo(Fault::Absent, None).await),
            };
        }
        let key = match seen.key.filter(|_| decision.put.is_empty()) {
            Some(key) => key,
            None => self.put(&decision, &mut done).await?,
        };
        done.key = Some(key);
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
            // It runs, and whether it got there nobody can say: it is left to the next run.
            Start::Absent if !self.presence.answers() => return Err(Fault::Planner),
            Start::Absent => return Err(self.undo(Fault::Absent, key).await),
        }
        self.step(Step::Checking);
        let keep = script(&[("digest", &decision.program)], KEEP);
        match timeout(PUT_BACK, self.run(&keep, &[])).await.unwrap_or(Err(Fault::Time)) {
            Ok(_) => Ok(done),
            Err(Fault::OtherProgram) => Err(self.undo(Fault::OtherProgram, key).await),
            Err(fault) => Err(fault),
        }
    }

    fn done(&self, decision: &Decision) -> Done {
        let has = |because: &Because| decision.because.contains(because);
        let state = match decision.because.first() {
            None => State::AsItWas,
            Some(_) if self.dry_run => State::Would,
            Some(Because::New | Because::TakenOver(_)) => State::Installed,
            Some(_) if has(&Because::Program) => State::Upgraded,
            Some(_) if !decision.put.is_empty() => State::Changed,
            Some(_) => State::Started,
        };
        let because = decision.because.iter().map(ToString::to_string).collect();
        let moved = decision.aside.as_ref().map(|(_, to)| to.clone());
        Done { state, because, had: decision.had.clone(), moved, ..Done::new(self.target) }
    }

    /// Puts the files in place; the agent's key.
    async fn put(&self, decision: &Decision, done: &mut Done) -> Result<PublicKey, Fault> {
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
        let word = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name));
        done.version = word("version ").and_then(probe::version).or(decision.had.clone());
        if decide::older(done.version.as_deref(), decision.had.as_deref()) {
            done.state = State::Downgraded;
        }
        word("key ").and_then(|key| key.parse().ok()).ok_or(Fault::Answer)
    }

    async fn trust(&self, key: PublicKey, replace: bool) -> Result<(), Fault> {
        let request = TrustRequest { node: self.target.node.clone(), key, replace };
        let mut client = Client::connect(self.socket).await.map_err(Fault::Api)?;
        client.ask(&request).await.map(|_| ()).map_err(Fault::Api)
    }

    /// Whether the agent is there, on another connection than `before`, before time is up.
    async fn present(&self, before: Option<&str>) -> bool {
        let mut presence = self.presence.clone();
        timeout_at(self.until, presence.comes(&self.target.node, before)).await.is_ok()
    }

    /// Starts the agent, and watches its unit until it is there.
    async fn start(&self) -> Start {
        let mut presence = self.presence.clone();
        let before = presence.session(&self.target.node).await;
        let (heard, mut lines) = mpsc::unbounded_channel();
        let start = script(&[], START);
        let hear = move |line: &str| drop(heard.send(line.to_owned()));
        let mut ssh = std::pin::pin!(self.ssh.run(&self.target.address, &start, &[], hear));
        let (mut connected, mut started, mut first) = (true, false, None);
        loop {
            tokio::select! {
                biased;
                Some(line) = lines.recv() => match line.split(' ').collect::<Vec<_>>().as_slice() {
                    ["started"] => {
                        started = true;
                        self.step(Step::Waiting);
                    }
                    ["failed", why @ ..] => return Start::Failed(why.join(" ")),
                    ["unit", "failed", ..] => return Start::Failed("its unit has failed".to_owned()),
                    ["unit", _, restarts] => {
                        let restarts: u32 = restarts.parse().unwrap_or(0);
                        if restarts >= *first.get_or_insert(restarts) + RESTARTS {
                            return Start::Failed("it ends again and again".to_owned());
                        }
                    }
                    _ => {}
                },
                // Without the connection, its presence alone tells how it went.
                _ = &mut ssh, if connected => (connected, started) = (false, true),
                () = presence.comes(&self.target.node, before.as_deref()), if started => return Start::Present,
                () = sleep_until(self.until) => return Start::Absent,
            }
        }
    }

    /// Puts back what was there before, and the key that the planner knew in place of `key`; adds to a fault how the host was left.
    async fn undo(&self, fault: Fault, key: impl Into<Option<PublicKey>>) -> Fault {
        self.step(Step::PuttingBack);
        if let Some(known) = self.target.key.filter(|known| key.into().is_some_and(|key| key != *known)) {
            // If this fails too, the next run says that the planner knows the node by another key.
            let _ = timeout(PUT_BACK, self.trust(known, true)).await;
        }
        let mut lines = Vec::new();
        let undo = script(&[], UNDO);
        let ran = self.ssh.run(&self.target.address, &undo, &[], |line| lines.push(line.to_owned()));
        let ended = matches!(timeout(PUT_BACK, ran).await, Ok(Ok(())));
        let ended = ended && lines.iter().any(|line| line == "end");
        let word = |name: &'static str| lines.iter().filter_map(move |line| line.strip_prefix(name));
        let journal = word("journal ").map(str::to_owned).collect();
        let left = match word("undone ").next() {
            Some("running") => "what was there before is there again, and its agent runs",
            Some("stopped") => "what was there before is there again",
            Some(_) => "what was there before is there again, but its agent does not start",
            None if ended => "nothing was changed on the host",
            None => "it could not be put back: run the same again",
        };
        Fault::Left { fault: Box::new(fault), left, journal }
    }
}

/// What a script's failure means.
fn script_fault(why: &str) -> Fault {
    let (word, rest) = why.split_once(' ').unwrap_or((why, ""));
    match word {
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

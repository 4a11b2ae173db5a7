//! The machine under test, with a simple disk, journal and host, and one place that carries out its effects.

mod hand_over;
mod kills;
mod obligations;
mod offers;
mod removals;
mod retry;
mod scenarios;
mod simulation;

use std::{collections::BTreeMap, time::Duration};

use groundplan_protocol::{
    VERSION,
    digest::{Digest, Fingerprint},
    effect::{self, Action},
    envelope::SigningKey,
    ids::{CommitId, GateId, Generation, LedgerId, NodeId, Sequence, SiteName, TaskId},
    kinds::TaskParams,
    plan::{Gates, NodePlan, OpenGate, PlanOffer, PlanText, PlannedTask, TaskSpec, Trigger, TriggerSource},
    report::{Outcome, TaskReport},
    state::NodeState,
    time::Now,
};

use super::*;

pub(super) const CHANGED: Result<JobOutcome, &str> = Ok(JobOutcome { changed: true, effect: None });
pub(super) const UNCHANGED: Result<JobOutcome, &str> = Ok(JobOutcome { changed: false, effect: None });
pub(super) const RESTARTED: Result<JobOutcome, &str> =
    Ok(JobOutcome { changed: true, effect: Some(effect::Effect::Restart) });

pub(super) fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.handle(Event::Connected { session_present: false });
    bench
}

pub(super) fn offer(bench: &mut Bench, generation: u64, tasks: Vec<PlannedTask>) {
    bench.offer(&node_plan(generation, tasks));
}

/// A bench with `names` applied in version 1 at generation 1.
pub(super) fn applied(names: &[&str]) -> Bench {
    let mut bench = bench();
    offer(&mut bench, 1, names.iter().map(|name| planned(name, Action::Create, 1, &[])).collect());
    while let Some(task) = bench.jobs.keys().next().cloned() {
        bench.finish(task.task.as_str(), CHANGED);
    }
    bench.reported();
    bench
}

pub(super) fn kill(bench: &mut Bench) {
    bench.restart();
    bench.handle(Event::Connected { session_present: false });
}

pub(super) fn task(name: &str) -> TaskId {
    format!("s.{name}").parse().unwrap()
}

pub(super) fn gate(name: &str) -> GateId {
    GateId::new(name).unwrap()
}

pub(super) fn spec(json: &str) -> TaskSpec {
    let params: TaskParams = serde_json::from_str(json).unwrap();
    TaskSpec { params, content: None, ready: None, external: Vec::new(), on_interrupt: Default::default() }
}

/// A spec that differs with `version`, and its fingerprint.
pub(super) fn versioned(version: u32) -> (TaskSpec, Fingerprint) {
    let spec = spec(&format!(r#"{{"link":{{"path":"/l","target":"{version}"}}}}"#));
    (spec, Fingerprint(Digest::of(&version.to_be_bytes())))
}

pub(super) fn version_of(spec: &TaskSpec) -> u32 {
    match &spec.params {
        TaskParams::Link(link) => link.target.parse().unwrap(),
        _ => 0,
    }
}

/// A planned task: the action, the version, and the tasks that it comes after.
pub(super) fn planned(name: &str, action: Action, version: u32, after: &[&str]) -> PlannedTask {
    let (mut spec, fingerprint) = versioned(version);
    if let TaskParams::Link(link) = &mut spec.params {
        link.path = format!("/{name}");
    }
    let there = !matches!(action, Action::Remove | Action::Forget);
    PlannedTask {
        task: task(name),
        action,
        spec: there.then_some(spec),
        fingerprint: there.then_some(fingerprint),
        inputs: BTreeMap::new(),
        edges: Default::default(),
        after: after.iter().map(|a| task(a)).collect(),
        gates: Vec::new(),
        triggers: Vec::new(),
        obligation: None,
        since: None,
        from: Vec::new(),
        into: Vec::new(),
        retry: None,
    }
}

/// A planned task that comes after `sources` and is restarted if one of them changes.
pub(super) fn restarted(name: &str, action: Action, version: u32, sources: &[&str]) -> PlannedTask {
    let triggers =
        sources.iter().map(|s| Trigger { effect: effect::Effect::Restart, on: TriggerSource::Task(task(s)) });
    PlannedTask { triggers: triggers.collect(), ..planned(name, action, version, sources) }
}

pub(super) fn node_plan(generation: u64, tasks: Vec<PlannedTask>) -> NodePlan {
    NodePlan {
        version: VERSION,
        site: SiteName::new("site").unwrap(),
        node: NodeId::new("node").unwrap(),
        generation: Generation(generation),
        commit: CommitId::new("c".repeat(40)).unwrap(),
        tasks,
        edges: BTreeMap::new(),
        ledger: Some(ledger()),
    }
}

pub(super) fn gates(plan: Digest, generation: u64, open: &[(&str, bool)]) -> Gates {
    Gates {
        plan,
        version: VERSION,
        site: SiteName::new("site").unwrap(),
        node: NodeId::new("node").unwrap(),
        generation: Generation(generation),
        open: open.iter().map(|(name, fired)| (gate(name), OpenGate { fired: *fired })).collect(),
    }
}

/// What a planner in term 1 offers, whatever the time.
pub(super) fn offered(plan: &NodePlan) -> PlanOffer {
    let of = (plan.site.clone(), plan.node.clone(), plan.generation);
    PlanOffer::new(&SigningKey::from_seed([1; 32]), 1, of, PlanText::of(plan), (0, u64::MAX))
}

pub(super) fn ledger() -> LedgerId {
    LedgerId::new("0".repeat(32)).unwrap()
}

fn settings(boot: &str) -> Settings {
    Settings {
        site: SiteName::new("site").unwrap(),
        node: NodeId::new("node").unwrap(),
        agent: "0".to_owned(),
        encryption_key: SigningKey::from_seed([1; 32]).decryption().public(),
        max_parallel: 3,
        max_blob: 1000,
        max_blobs: 2000,
        boot: boot.to_owned(),
    }
}

/// The machine, what survives a crash, and what it has sent.
pub(super) struct Bench {
    pub(super) machine: Machine,
    pub(super) disk: Snapshot,
    pub(super) boot: String,
    pub(super) now: Now,
    /// Running jobs.
    pub(super) jobs: BTreeMap<TaskId, Start>,
    /// For which plan each of them, and each before it, was started.
    pub(super) started_for: BTreeMap<TaskId, Generation>,
    /// All reports that ever reached the disk.
    pub(super) reports: Vec<TaskReport>,
    pub(super) states: Vec<NodeState>,
    pub(super) fetched: Vec<Digest>,
    /// What was promised last.
    pub(super) promised: Vec<Promise>,
    /// The last report that was sent.
    pub(super) sent: Sequence,
    /// The number of effects until the agent is killed.
    pub(super) fuel: Option<usize>,
    /// How often the journal was emptied.
    pub(super) resets: usize,
    last_revision: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        let disk = Snapshot::empty(ledger());
        let (machine, effects) = Machine::restore(settings("boot"), disk.clone(), Now::default()).unwrap();
        let mut bench = Self {
            machine,
            disk,
            boot: "boot".to_owned(),
            now: Now::default(),
            jobs: BTreeMap::new(),
            started_for: BTreeMap::new(),
            reports: Vec::new(),
            states: Vec::new(),
            fetched: Vec::new(),
            promised: Vec::new(),
            sent: Sequence(0),
            fuel: None,
            resets: 0,
            last_revision: 0,
        };
        bench.carry_out(effects);
        bench
    }

    /// Handles an event and carries out the effects; false if the agent was killed meanwhile.
    pub(super) fn handle(&mut self, event: Event) -> bool {
        let effects = self.machine.handle(event, self.now);
        self.carry_out(effects)
    }

    /// Advances the time, with ticks when they are due.
    /// The id of the active plan.
    pub(super) fn plan(&self) -> Digest {
        self.machine.active.as_ref().map_or(Digest::of(b""), |active| active.digest)
    }

    /// A planner offers a plan. False if the agent was killed.
    pub(super) fn offer(&mut self, plan: &NodePlan) -> bool {
        self.handle(Event::Plan(Box::new(offered(plan))))
    }

    pub(super) fn wait(&mut self, time: Duration) -> bool {
        let until = self.now.mono + time;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= until) {
            self.now.mono = self.now.mono.max(at);
            if !self.handle(Event::Tick) {
                return false;
            }
        }
        self.now.mono = until;
        self.now.wall_ms += time.as_millis() as u64;
        true
    }

    /// Starts the agent again from what is on disk.
    pub(super) fn restart(&mut self) {
        self.fuel = None;
        self.jobs.clear();
        self.promised.clear();
        let (machine, effects) = Machine::restore(settings(&self.boot), self.disk.clone(), self.now).unwrap();
        self.machine = machine;
        self.carry_out(effects);
        self.handle(Event::Tick);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> bool {
        for effect in effects {
            if let Some(fuel) = &mut self.fuel {
                if *fuel == 0 {
                    return false;
                }
                *fuel -= 1;
            }
            match effect {
                Effect::Persist { writes, .. } => writes.into_iter().for_each(|write| self.write(write)),
                Effect::ResetJournal => {
                    self.disk.started.clear();
                    self.resets += 1;
                }
                Effect::Start(generation, starts) => {
                    for start in starts {
                        self.check_start(&start);
                        self.disk.started.push((generation, start.task.clone()));
                        self.started_for.insert(start.task.clone(), generation);
                        let before = self.jobs.insert(start.task.clone(), start);
                        assert!(before.is_none(), "two jobs of one task");
                    }
                }
                Effect::State(state) => {
                    assert!(state.revision > self.last_revision, "revisions grow, over restarts too");
                    assert!(state.sequence <= self.disk.sequence, "a state contains only what is on disk");
                    self.last_revision = state.revision;
                    self.states.push(*state);
                }
                Effect::Reports { from, to } => {
                    assert!(to <= self.disk.sequence, "reports are stored before they are sent");
                    if from <= to {
                        assert!(from.0 <= self.sent.0 + 1, "no gap");
                        self.sent = self.sent.max(to);
                    }
                }
                Effect::Fetch(blobs) => self.fetched.extend(blobs.into_iter().map(|b| b.sha256)),
                Effect::Promise(promises) => self.promised = promises,
                Effect::FetchPlan(_) | Effect::KeepBlobs(_) | Effect::Log(_) | Effect::Stopped => {}
            }
        }
        true
    }

    /// No task starts before the tasks that it comes after have succeeded.
    fn check_start(&self, start: &Start) {
        let queue = &self.machine.active.as_ref().unwrap().queue;
        let node = queue.get(queue.find(&start.task).unwrap());
        for after in &node.planned.after {
            let outcome = queue.get(queue.find(after).unwrap()).outcome();
            let failed_removal =
                queue.get(queue.find(after).unwrap()).planned.action == Action::Remove && outcome.is_some();
            assert!(
                failed_removal || outcome.is_some_and(Outcome::is_success),
                "{} starts before {after}: {outcome:?}",
                start.task
            );
        }
    }

    fn write(&mut self, write: Write) {
        match &write {
            Write::Plan(plan) => {
                let before = self.disk.plan.as_ref().map_or(Generation(0), |p| p.generation);
                assert!(plan.generation > before, "an agent never goes back to an older plan");
            }
            Write::Report(number, report) => {
                assert_eq!(number.0, self.disk.sequence.0 + 1, "numbers without gaps");
                self.reports.push((**report).clone());
            }
            _ => {}
        }
        self.disk.apply(&write);
    }

    /// Ends a running job, which failed before it changed anything.
    pub(super) fn fail_untouched(&mut self, name: &str, error: &str) -> bool {
        self.end(name, Err(error), false, Vec::new())
    }

    /// Ends a running job.
    pub(super) fn finish(&mut self, name: &str, result: Result<JobOutcome, &str>) -> bool {
        self.end(name, result, true, Vec::new())
    }

    /// Ends a running job that found something, or gave claims up.
    pub(super) fn finish_with(
        &mut self,
        name: &str,
        result: Result<JobOutcome, &str>,
        found: Vec<(String, Option<Found>)>,
    ) -> bool {
        self.end(name, result, true, found)
    }

    fn end(
        &mut self,
        name: &str,
        result: Result<JobOutcome, &str>,
        touched: bool,
        found: Vec<(String, Option<Found>)>,
    ) -> bool {
        let task = task(name);
        assert!(self.jobs.remove(&task).is_some(), "{task} does not run");
        let result = result.map_err(str::to_owned);
        self.handle(Event::Finished(Box::new(JobDone {
            task,
            result,
            touched,
            output: None,
            memory: None,
            export: None,
            found,
            started_ms: 0,
            duration_ms: 0,
        })))
    }

    /// The running jobs with their effects, in one line.
    pub(super) fn running(&self) -> String {
        let words = self.jobs.values().map(|start| {
            let work = match start.work {
                Work::Apply { .. } => "apply",
                Work::Remove { .. } => "remove",
                Work::Forget { .. } => "forget",
                Work::Trigger { .. } => "only",
            };
            let effect = start.effect.map(|e| format!("+{e}")).unwrap_or_default();
            format!("{}:{work}{effect}", start.task.task)
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// The outcomes reported since the last call, in one line.
    pub(super) fn reported(&mut self) -> String {
        let words = self.reports.drain(..).map(|r| format!("{}@{}={}", r.task.task, r.generation, r.outcome));
        words.collect::<Vec<_>>().join("; ")
    }
}

//! A random test with failures, kills between any two effects, and plans that supersede plans.
//!
//! It checks against a model that does not use the machine's own data: for each task the version in place, and whether it was
//! restarted since the last change that triggers it. Whatever happened, once plans arrive again, every task has the desired
//! version and no restart is missing.

use groundplan_protocol::{duration::Span, plan::Retry, state::Phase};
use proptest::prelude::*;

use super::*;

const TASKS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// For each task the tasks that trigger it; all come before it.
const EDGES: [&[usize]; 6] = [&[], &[0], &[], &[0, 2], &[3], &[1, 2]];

struct World {
    bench: Bench,
    /// The version of each task in place; 0 for none.
    host: [u32; 6],
    /// For each task the changes that trigger it, and how many of them its last restart came after.
    dirt: [u32; 6],
    clean: [u32; 6],
    /// The running jobs, with the value of `dirt` when they began: a job cannot have seen later changes.
    began: BTreeMap<TaskId, u32>,
    desired: [u32; 6],
    generation: u64,
    /// The generations for which gates caused obligations, until a report fulfils them.
    gate_fired: [Option<Generation>; 6],
    /// The generation, and its open gates.
    open: (u64, BTreeMap<String, bool>),
    seen: usize,
    /// A plan came while a job ran, so that its restart may be needed or not.
    overlapped: bool,
    kills: usize,
    failures: usize,
    restarts_for_nothing: usize,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            bench: Bench::new(),
            host: [0; 6],
            dirt: [0; 6],
            clean: [0; 6],
            began: BTreeMap::new(),
            desired: [1; 6],
            generation: 0,
            gate_fired: [None; 6],
            open: Default::default(),
            seen: 0,
            overlapped: false,
            kills: 0,
            failures: 0,
            restarts_for_nothing: 0,
        };
        world.bench.handle(Event::Connected { session_present: false });
        world
    }

    /// Notes a change of task `i`.
    fn changed(&mut self, i: usize) {
        for (target, sources) in EDGES.iter().enumerate() {
            if sources.contains(&i) && self.host[target] != 0 {
                self.dirt[target] += 1;
            }
        }
    }

    fn apply(&mut self, i: usize, version: u32) -> bool {
        let change = self.host[i] != version;
        if change {
            self.host[i] = version;
            self.clean[i] = self.clean[i].max(self.seen_by(i));
            self.changed(i);
        }
        change
    }

    fn restart_task(&mut self, i: usize) {
        let seen = self.seen_by(i);
        if self.clean[i] >= seen {
            self.restarts_for_nothing += 1;
        }
        self.clean[i] = self.clean[i].max(seen);
        self.changed(i);
    }

    /// The value of `dirt` when the job of task `i` began.
    fn seen_by(&self, i: usize) -> u32 {
        self.began[&task(TASKS[i])]
    }

    /// Notes `dirt` for new jobs; called before the next change.
    fn note_starts(&mut self) {
        let jobs: Vec<TaskId> = self.bench.jobs.keys().cloned().collect();
        self.began.retain(|id, _| jobs.contains(id));
        for (i, name) in TASKS.iter().enumerate() {
            let id = task(name);
            if jobs.contains(&id) {
                self.began.entry(id).or_insert(self.dirt[i]);
            }
        }
    }

    /// Does the first `steps` of a job: 0 for none, 1 for the change, 2 for the effect, too.
    fn work(&mut self, start: &Start, steps: u32) -> JobOutcome {
        let i = TASKS.iter().position(|t| task(t) == start.task).unwrap();
        let mut did = JobOutcome::default();
        self.note_starts();
        if steps == 0 {
            return did;
        }
        if let Work::Apply { spec, .. } = &start.work {
            did.changed = self.apply(i, version_of(spec));
        }
        // A change restarts the task anyway.
        if start.effect.is_some() && steps > 1 && !did.changed {
            self.restart_task(i);
            did = JobOutcome { changed: true, effect: start.effect };
        }
        did
    }

    /// The plan that the planner would make from `state`: changes, tasks that they trigger, and obligations.
    fn plan(&mut self, state: &NodeState, mention_obligations: bool, gated: u32) -> NodePlan {
        self.generation += 1;
        let mut tasks: Vec<PlannedTask> = Vec::new();
        for (i, name) in TASKS.iter().enumerate() {
            let (_, fingerprint) = versioned(self.desired[i]);
            let applied = state.applied.get(&task(name));
            let sources: Vec<&str> =
                EDGES[i].iter().map(|s| TASKS[*s]).filter(|s| tasks.iter().any(|t| t.task == task(s))).collect();
            let action = match applied {
                None => Action::Create,
                Some(a) if a.fingerprint != fingerprint => Action::Update,
                Some(_) => Action::Restart,
            };
            let reported =
                state.obligations.get(&task(name)).filter(|o| o.fired && mention_obligations).map(|o| o.effect);
            let since = reported.map(|_| state.generation).max(self.gate_fired[i]);
            let reported = reported.max(self.gate_fired[i].map(|_| effect::Effect::Restart));
            if action == Action::Restart && sources.is_empty() && reported.is_none() {
                continue;
            }
            let mut planned = restarted(name, action, self.desired[i], &sources);
            (planned.obligation, planned.since) = (reported, since);
            if gated & (1 << i) != 0 {
                let id = gate(&format!("g.{name}"));
                planned.gates.push(id.clone());
                planned.triggers.push(Trigger { effect: effect::Effect::Restart, on: TriggerSource::Gate(id) });
            }
            if self.desired[i].is_multiple_of(2) {
                planned.retry = Some(Retry { attempts: 1 + i as u32 % 3, backoff: Span::millis(700) });
            }
            tasks.push(planned);
        }
        node_plan(self.generation, tasks)
    }

    /// The planner receives the reports that have been persisted.
    fn read_reports(&mut self) {
        for report in &self.bench.reports[self.seen..] {
            let i = TASKS.iter().position(|t| task(t) == report.task).unwrap();
            if matches!(report.outcome, Outcome::Done { .. }) {
                self.gate_fired[i] = None;
            }
        }
        self.seen = self.bench.reports.len();
    }

    fn open_gates(&mut self, mask: u32) {
        self.note_starts();
        let Some(active) = &self.bench.machine.active else { return };
        let generation = active.generation.0;
        if self.open.0 != generation {
            self.open = (generation, BTreeMap::new());
        }
        for node in active.queue.iter().filter(|n| n.outcome().is_none()) {
            let i = TASKS.iter().position(|t| task(t) == node.planned.task).unwrap();
            let name = format!("g.{}", TASKS[i]);
            if node.planned.gates.is_empty() || mask & (1 << i) == 0 || self.open.1.contains_key(&name) {
                continue;
            }
            let fired = mask & (64 << i) != 0;
            if fired && self.host[i] != 0 {
                self.gate_fired[i] = Some(active.generation);
                self.dirt[i] += 1;
            }
            self.open.1.insert(name, fired);
        }
        let open: Vec<(&str, bool)> = self.open.1.iter().map(|(g, f)| (g.as_str(), *f)).collect();
        let message = gates(self.bench.plan(), generation, &open);
        let alive = self.bench.handle(Event::Gates(message));
        self.after(alive, 0);
    }

    /// Ends the `n`th running job, with a failure after so many steps or with success.
    fn finish(&mut self, n: u32, fail: Option<u32>) {
        let Some(start) = self.bench.jobs.values().nth(n as usize % self.bench.jobs.len().max(1)).cloned() else {
            return;
        };
        let result = match fail {
            Some(steps) => {
                self.failures += 1;
                self.work(&start, steps);
                Err("failed by the test")
            }
            None => Ok(self.work(&start, 2)),
        };
        self.began.remove(&start.task);
        let alive = self.bench.finish(start.task.task.as_str(), result);
        self.after(alive, n);
    }

    /// If the agent was killed, starts it again; `progress` determines how far each running job came.
    fn after(&mut self, alive: bool, progress: u32) {
        if alive {
            return;
        }
        self.kills += 1;
        let jobs: Vec<Start> = self.bench.jobs.values().cloned().collect();
        for (n, start) in jobs.iter().enumerate() {
            self.work(start, (progress >> n) % 3);
        }
        if progress.is_multiple_of(7) {
            self.bench.boot.push('+');
        }
        self.began.clear();
        self.bench.restart();
        self.bench.handle(Event::Connected { session_present: false });
    }

    fn step(&mut self, op: u32, quiet: bool) {
        let (what, rest) = (op % 16, op / 16);
        self.read_reports();
        match what {
            0..=6 => self.finish(rest, None),
            7 if !quiet => self.finish(rest / 3, Some(rest % 3)),
            8 if !quiet => {
                // Killed between two of the next effects.
                self.bench.fuel = Some(rest as usize % 4);
                self.finish(rest / 4, None);
                self.bench.fuel = None;
            }
            9 if !quiet => self.after(false, rest),
            10 | 11 => {
                let i = rest as usize % 6;
                self.overlapped |= !self.bench.jobs.is_empty();
                self.desired[i] = 1 + rest / 8 % 4;
                // The planner may know only an older state of the node.
                let state = match self.bench.states.iter().rev().nth(rest as usize / 64 % 3) {
                    Some(state) if !quiet => state.clone(),
                    _ => self.bench.machine.node_state(),
                };
                let gated = if rest.is_multiple_of(3) { rest / 16 } else { 0 };
                let plan = self.plan(&state, rest & 1 == 0, gated);
                if !quiet && rest.is_multiple_of(5) {
                    self.bench.fuel = Some(rest as usize / 5 % 5);
                }
                let alive = self.bench.offer(&plan);
                self.bench.fuel = None;
                self.after(alive, rest);
                // The broker repeats a message that was not acknowledged.
                let alive = self.bench.offer(&plan);
                assert!(alive);
            }
            12 => self.open_gates(rest),
            13 => {
                let old = node_plan(rest as u64 % self.generation.max(1), Vec::new());
                let before = self.bench.disk.plan.clone();
                self.bench.offer(&old);
                assert_eq!(self.bench.disk.plan, before, "an older plan changes nothing");
            }
            14 => {
                let alive = self.bench.wait(Duration::from_millis(u64::from(rest % 2000)));
                assert!(alive);
            }
            _ => {
                self.bench.handle(Event::Disconnected);
                self.bench.handle(Event::Connected { session_present: rest & 1 == 0 });
            }
        }
    }

    /// Runs until nothing is left to do, with all gates open and without failures.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.read_reports();
            self.open_gates(63);
            if !self.bench.jobs.is_empty() {
                self.finish(0, None);
            }
            self.bench.wait(Duration::from_millis(40));
            if self.bench.jobs.is_empty() && self.bench.machine.phase() == Phase::Idle {
                return;
            }
        }
        panic!("does not become idle: {:?}", self.bench.machine);
    }

    /// Carries out one plan from the current state without faults, and checks the result.
    fn converge(&mut self) {
        self.settle();
        self.read_reports();
        let state = self.bench.machine.node_state();
        let plan = self.plan(&state, true, 0);
        self.bench.offer(&plan);
        self.settle();
        assert_eq!(self.host, self.desired, "the host is as desired");
        assert_eq!(self.clean, self.dirt, "no restart is missing: {:?}", self.bench.disk.obligations);
        assert!(self.bench.disk.obligations.is_empty(), "obligations are left: {:?}", self.bench.disk.obligations);
        self.read_reports();
        let state = self.bench.machine.node_state();
        assert!(self.plan(&state, true, 0).tasks.is_empty(), "a plan for what is applied is empty");
        assert_eq!(self.bench.sent, self.bench.disk.sequence, "every report was sent");
    }
}

proptest! {
    #[test]
    fn no_restart_is_lost(ops in prop::collection::vec(any::<u32>(), 1..80)) {
        let mut world = World::new();
        ops.iter().for_each(|op| world.step(*op, false));
        world.converge();
    }

    #[test]
    fn without_faults_no_restart_is_unneeded(ops in prop::collection::vec(any::<u32>(), 1..80)) {
        let mut world = World::new();
        ops.iter().for_each(|op| world.step(*op, true));
        world.converge();
        prop_assert_eq!((world.kills, world.failures), (0, 0));
        prop_assert!(world.overlapped || world.restarts_for_nothing == 0);
    }
}

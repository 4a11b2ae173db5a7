//! Rollouts of a scenario: commands in, and the gates that open.
//!
//! Commands: `> changed|unchanged|restarted|reloaded|ran|skipped|superseded|interrupted INSTANCE`, `> failed INSTANCE: ERROR`, each a
//! report, with `late` in front one of the generation before, with `late late` of the one before that; `> online|offline NODE`;
//! `> status`, `> verdict`, `> why INSTANCE`. All nodes are online at first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use groundplan_core::{
    AppliedState, Belief, DesiredState, Plan, Rollout,
    plan::PlanTask,
    rollout::{Status, Verdict, Wait},
};
use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{Generation, InstanceId, LedgerId, NodeId, Sequence},
    report::{Outcome, TaskReport},
};

use crate::world::World;

/// A plan that is being carried out.
pub(crate) struct Run {
    plan: Plan,
    rollout: Rollout,
    beliefs: BTreeMap<NodeId, Belief>,
    sequence: u64,
    open: BTreeSet<(NodeId, String)>,
}

fn ledger() -> LedgerId {
    LedgerId::new("00000000000000000000000000000001").expect("a ledger id")
}

impl Run {
    pub(crate) fn of(plan: &Plan, world: &World) -> Self {
        let belief = |applied: &groundplan_core::NodeApplied| Belief {
            ledger: Some(ledger()),
            revision: 1,
            applied: applied.clone(),
            ..Belief::default()
        };
        let beliefs = world.applied.nodes.iter().map(|(node, applied)| (node.clone(), belief(applied))).collect();
        Self::start(plan.clone(), Generation(1), beliefs, None)
    }

    fn start(
        plan: Plan,
        generation: Generation,
        beliefs: BTreeMap<NodeId, Belief>,
        before: Option<(&Rollout, &DesiredState)>,
    ) -> Self {
        let mut rollout = Rollout::new(&plan, generation);
        plan.nodes.keys().for_each(|node| rollout.presence(node, true));
        if let Some((before, desired)) = before {
            rollout.take_over_turns(before, desired);
        }
        Self { plan, rollout, beliefs, sequence: 0, open: BTreeSet::new() }
    }

    /// The plan for a newer commit, from what is known by now, and its rollout.
    pub(crate) fn superseded_by(self, next: &World) -> (Plan, Self) {
        let mut known = AppliedState::default();
        self.beliefs.iter().for_each(|(node, belief)| known.insert(node.clone(), belief));
        for node in &next.head.desired.nodes {
            known.nodes.entry(node.clone()).or_default();
        }
        self.rollout.carry_obligations(&mut known, |_| true);
        self.rollout.carry_late_changes(&next.head.desired, &mut known);
        let plan = next.plan_from(&known);
        let generation = Generation(self.rollout.generation().0 + 1);
        let run = Self::start(plan.clone(), generation, self.beliefs, Some((&self.rollout, &next.head.desired)));
        (plan, run)
    }

    /// Carries out a script: its commands, each with what came of it.
    pub(crate) fn play(&mut self, script: &str) -> String {
        let mut out = self.advance();
        for command in script.lines().filter_map(|line| line.strip_prefix("> ")) {
            writeln!(out, "> {command}").unwrap();
            out += &self.command(command);
            out += &self.advance();
        }
        out
    }

    fn command(&mut self, command: &str) -> String {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        match verb {
            "online" | "offline" => self.rollout.presence(&NodeId::new(rest).unwrap(), verb == "online"),
            "status" => return self.rollout.statuses().map(|(i, _, s)| format!("  {i} {}\n", status(&s))).collect(),
            "verdict" => return format!("  {}\n", verdict(&self.rollout.verdict())),
            "why" => {
                let chain = self.rollout.why(&rest.parse().unwrap());
                return chain.iter().map(|(i, s)| format!("  {i} {}\n", status(s))).collect();
            }
            "late" => match rest.strip_prefix("late ") {
                Some(rest) => self.report(rest, 2),
                None => self.report(rest, 1),
            },
            _ => self.report(command, 0),
        }
        String::new()
    }

    /// Takes a report of a generation that is so many before the current one.
    fn report(&mut self, report: &str, late: u64) {
        let (verb, of) = report.split_once(' ').unwrap_or_else(|| panic!("no command: {report}"));
        let (of, error) = of.split_once(": ").unwrap_or((of, ""));
        let InstanceId { task, node } = of.parse().unwrap_or_else(|e| panic!("{report}: {e}"));
        let done = |changed, effect| Outcome::Done { changed, effect };
        let outcome = match verb {
            "changed" => done(true, None),
            "unchanged" => done(false, None),
            "restarted" => done(true, Some(Effect::Restart)),
            "reloaded" => done(true, Some(Effect::Reload)),
            "ran" => done(true, Some(Effect::Run)),
            "skipped" => Outcome::Skipped,
            "superseded" => Outcome::Superseded,
            "interrupted" => Outcome::Interrupted,
            "failed" => Outcome::Failed { error: error.to_owned() },
            _ => panic!("no command: {report}"),
        };
        let planned = self.plan.nodes.get(&node).and_then(|part| part.tasks.iter().find(|t| t.task == task));
        let belief = self.beliefs.entry(node.clone()).or_default();
        let known = belief.applied.tasks.get(&task).map(|applied| applied.fingerprint);
        let fingerprint = if outcome.is_success() { planned.map_or(known, PlanTask::fingerprint) } else { known };
        let generation = Generation(self.rollout.generation().0 - late);
        let applied = planned.and_then(PlanTask::applied);
        let (claims, contends) = applied.map(|applied| (applied.claims, applied.contends)).unwrap_or_default();
        let report = TaskReport {
            generation,
            plan: None,
            task,
            action: planned.map_or(Action::Update, |planned| planned.action),
            outcome,
            fingerprint,
            claims,
            contends,
            started_ms: 0,
            duration_ms: 0,
            output: None,
            export: None,
        };
        self.sequence += 1;
        belief.fold_report(&ledger(), Sequence(self.sequence), &report, planned.filter(|_| late == 0));
        self.rollout.fold(&node, &report);
    }

    /// Opens the gates whose time has come.
    fn advance(&mut self) -> String {
        let mut out = String::new();
        for node in self.rollout.advance().unwrap_or_default() {
            for (gate, open) in self.rollout.open_gates(&node) {
                if self.open.insert((node.clone(), gate.to_string())) {
                    let fired = if open.fired { " and fires" } else { "" };
                    writeln!(out, "  gate {gate} opens for {node}{fired}").unwrap();
                }
            }
        }
        // What is kept as reports come is what would be found by going through all of it.
        let verdict = self.rollout.verdict();
        assert_eq!(self.rollout.has_run(), matches!(verdict, Verdict::Succeeded | Verdict::Failed), "{verdict:?}");
        out
    }
}

fn status(status: &Status) -> String {
    let wait = |wait: &Wait| match wait {
        Wait::Offline => "its node, which is offline".to_owned(),
        Wait::Instance { instance, offline: false } => instance.to_string(),
        Wait::Instance { instance, offline: true } => format!("{instance}, whose node is offline"),
        Wait::Others { count } => format!("{count} more"),
        Wait::Unknown(unknown) => unknown.to_string(),
        Wait::Turn { holders } => {
            let holders: Vec<_> = holders.iter().map(NodeId::as_str).collect();
            format!("a turn, held by {}", holders.join(", "))
        }
    };
    match status {
        Status::Waiting(waits) => {
            format!("waits for {}", waits.iter().map(wait).collect::<Vec<_>>().join("; "))
        }
        Status::Running => "can run".to_owned(),
        Status::Done { changed, effect } => Outcome::Done { changed: *changed, effect: *effect }.to_string(),
        Status::Skipped => "was not needed".to_owned(),
        Status::Failed { error } => format!("failed: {error}"),
        Status::Blocked { by } => format!("is blocked by {by}"),
        Status::Superseded => "was superseded".to_owned(),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Running => "running".to_owned(),
        Verdict::Offline(nodes) => {
            let nodes: Vec<_> = nodes.iter().map(NodeId::as_str).collect();
            format!("waits for {}, offline", nodes.join(", "))
        }
        Verdict::Waiting => "waits for what no node has reported".to_owned(),
        Verdict::Succeeded => "succeeded".to_owned(),
        Verdict::Failed => "failed".to_owned(),
    }
}

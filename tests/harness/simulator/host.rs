//! A simulated host: what is in place, and for which changes something has yet to be restarted. The truth that all is measured by.
//!
//! In: jobs of an agent, changes elsewhere that trigger something here. Out: what a job did. Holds no books of the agent's.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_agent::machine::{JobOutcome, Start, Work};
use groundplan_protocol::{
    effect::Effect,
    ids::{Generation, InstanceId, TaskId},
    kinds::TaskParams,
};

/// A change that a task has yet to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dirt {
    /// Number of the change.
    pub(super) number: u64,
    /// What it calls for.
    pub(super) effect: Effect,
    /// Whether it must be acted on. One that no one but a planner without memory could know of may be.
    pub(super) must: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) tasks: BTreeMap<TaskId, TaskParams>,
    /// The targets of links, by path: whichever tasks they are of.
    pub(super) links: BTreeMap<String, String>,
    /// Paths that tasks have, or have had as long as no job has given them up: as in the agent, they are another's only after that.
    held: BTreeSet<(TaskId, String)>,
    /// Paths that tasks are about to take over, each with the plan by which: the agent states them before any job.
    pub(super) promised: BTreeMap<(TaskId, String), Generation>,
    /// By task, and by the instance that changed.
    pub(super) dirt: BTreeMap<TaskId, BTreeMap<InstanceId, Dirt>>,
}

/// What a job did.
#[derive(Debug, Default, Clone)]
pub(super) struct Did {
    pub(super) outcome: JobOutcome,
    pub(super) export: Option<String>,
    /// An effect was carried out that nothing called for.
    pub(super) needless: bool,
    /// The paths of links that it took away.
    pub(super) took_away: Vec<String>,
    /// Whether it began to act on the host at all.
    pub(super) touched: bool,
}

/// How far a job came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Nothing,
    Applied,
    All,
}

impl Host {
    /// Carries out a job of the plan `plan` that began when `seen` changes had happened.
    pub(super) fn run(&mut self, start: &Start, plan: Generation, seen: u64, progress: Progress) -> Did {
        let mut did = Did::default();
        if progress == Progress::Nothing {
            return did;
        }
        did.touched = true;
        let task = &start.task;
        let (params, applies) = match &start.work {
            // As the agent's host does: what no job has touched is not there.
            Work::Remove { .. } if !start.touched => return did,
            Work::Remove { spec, .. } => {
                let known = self.tasks.remove(task);
                did.outcome.changed = known.is_some();
                self.dirt.remove(task);
                let earlier = start.earlier.iter().filter_map(|earlier| link(&earlier.params));
                let known = known.as_ref().and_then(link).into_iter().chain(link(&spec.params));
                let paths: BTreeSet<&str> = known.chain(earlier).collect();
                if !paths.is_empty() {
                    did.took_away = paths.iter().filter_map(|path| self.take_away(task, path)).collect();
                    self.promised
                        .retain(|(other, path), by| other != task || !paths.contains(path.as_str()) || *by > plan);
                    did.outcome.changed = !did.took_away.is_empty();
                }
                return did;
            }
            Work::Forget { .. } => return did,
            Work::Apply { spec, .. } => (&spec.params, true),
            Work::Trigger { spec } => (&spec.params, false),
        };
        if applies {
            // A command without a guard cannot find out whether it was run before.
            let always = matches!(params, TaskParams::Command(_)) && !params.can_check();
            let before = self.tasks.insert(task.clone(), params.clone());
            self.held.extend(link(params).map(|path| (task.clone(), path.to_owned())));
            let changed = before.as_ref() != Some(params) || always;
            let earlier = start.earlier.iter().filter_map(|earlier| link(&earlier.params));
            // Also what the agent's record has of it, which may come from a job that never was.
            let previous = match &start.work {
                Work::Apply { previous, .. } => {
                    previous.as_ref().filter(|_| start.touched).and_then(|p| link(&p.params))
                }
                _ => None,
            };
            let given_up = before.as_ref().and_then(link).into_iter().chain(previous).chain(earlier);
            let given_up = given_up.filter(|path| Some(*path) != link(params));
            let given_up: Vec<&str> = given_up.collect();
            did.took_away = given_up.iter().filter_map(|path| self.take_away(task, path)).collect();
            let earlier: Vec<&str> = start.earlier.iter().filter_map(|earlier| link(&earlier.params)).collect();
            let is_kept = |path: &str| Some(path) == link(params) || !earlier.contains(&path);
            self.promised.retain(|(other, path), by| other != task || is_kept(path) || *by > plan);
            did.outcome.changed = match params {
                TaskParams::Link(link) => {
                    self.links.insert(link.path.clone(), link.target.clone()).as_ref() != Some(&link.target)
                }
                _ => changed,
            };
            if did.outcome.changed {
                self.clean(task, seen, None);
            }
        }
        let effect = start.effect.filter(|_| progress == Progress::All);
        if let TaskParams::Export(export) = params {
            let value = export.value.clone().unwrap_or_else(|| self.computed(task));
            let same = start.memory.as_ref().and_then(|memory| memory.as_str()) == Some(&value);
            did.outcome = JobOutcome { changed: !same, effect: effect.filter(|_| !same) };
            did.export = Some(value);
            if applies || effect.is_some() {
                self.clean(task, seen, effect.filter(|_| !applies));
            }
            return did;
        }
        if let Some(effect) = effect.filter(|_| !did.outcome.changed) {
            let waiting = self.dirt.get(task).is_some_and(|dirt| dirt.values().any(|dirt| dirt.number <= seen));
            did.needless = !waiting;
            self.clean(task, seen, Some(effect));
            did.outcome = JobOutcome { changed: true, effect: Some(effect) };
        }
        did
    }

    /// The agent starts: it knows what its ledger has.
    pub(super) fn adopt<'a>(&mut self, applied: impl Iterator<Item = (&'a TaskId, &'a TaskParams)>) {
        let paths = applied.filter_map(|(task, params)| Some((task.clone(), link(params)?.to_owned())));
        self.held = paths.collect();
    }

    /// A job has ended well: its task has what the job made, and nothing else.
    pub(super) fn settle(&mut self, start: &Start) {
        let kept = match &start.work {
            Work::Apply { spec, .. } => link(&spec.params),
            Work::Remove { .. } | Work::Forget { .. } => None,
            Work::Trigger { .. } => return,
        };
        self.held.retain(|(task, path)| *task != start.task || Some(path.as_str()) == kept);
    }

    /// Takes a link away, unless another task has it as well.
    fn take_away(&mut self, task: &TaskId, path: &str) -> Option<String> {
        let mut claimed = self.held.iter().chain(self.promised.keys());
        let is_shared = claimed.any(|(other, claimed)| other != task && claimed == path);
        if is_shared {
            return None;
        }
        self.links.remove_entry(path).map(|(path, _)| path)
    }

    /// A value that depends on what else the host has of the service.
    fn computed(&self, task: &TaskId) -> String {
        let others = self.tasks.iter().filter(|(other, _)| other.service == task.service && *other != task);
        let text: String = others.map(|(_, params)| format!("{params:?}")).collect();
        let sum = text.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        format!("x{}", sum % 1000)
    }

    /// What changed before `seen` and calls for no more than this effect, or for anything, is acted on.
    fn clean(&mut self, task: &TaskId, seen: u64, effect: Option<Effect>) {
        if let Some(dirt) = self.dirt.get_mut(task) {
            dirt.retain(|_, dirt| dirt.number > seen || effect.is_some_and(|effect| dirt.effect > effect));
            if dirt.is_empty() {
                self.dirt.remove(task);
            }
        }
    }
}

/// The path of a link.
pub(super) fn link(params: &TaskParams) -> Option<&str> {
    match params {
        TaskParams::Link(link) => Some(&link.path),
        _ => None,
    }
}

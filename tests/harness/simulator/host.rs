//! A simulated host: what is in place, and for which changes something has yet to be restarted. The truth that all is measured by.
//!
//! In: jobs of an agent, changes elsewhere that trigger something here. Out: what a job did. Holds no books of the agent's.

use std::collections::BTreeMap;

use groundplan_agent::machine::{JobOutcome, Start, Work};
use groundplan_protocol::{
    effect::Effect,
    ids::{InstanceId, TaskId},
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
    /// The path of a link that it took away.
    pub(super) took_away: Option<String>,
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
    /// Carries out a job that began when `seen` changes had happened.
    pub(super) fn run(&mut self, start: &Start, seen: u64, progress: Progress) -> Did {
        let mut did = Did::default();
        if progress == Progress::Nothing {
            return did;
        }
        did.touched = true;
        let task = &start.task;
        let (params, applies) = match &start.work {
            // As the agent's host does: what no job has touched is not there.
            Work::Remove { .. } if !start.touched => return did,
            Work::Remove { .. } => {
                let known = self.tasks.remove(task);
                did.outcome.changed = known.is_some();
                self.dirt.remove(task);
                if let Some(path) = known.as_ref().and_then(link) {
                    did.took_away = self.take_away(path);
                    did.outcome.changed = did.took_away.is_some();
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
            let changed = before.as_ref() != Some(params) || always;
            if let Some(given_up) = before.as_ref().and_then(link).filter(|path| Some(*path) != link(params)) {
                self.take_away(given_up);
            }
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

    /// Takes a link away, unless another task has it as well.
    fn take_away(&mut self, path: &str) -> Option<String> {
        let is_shared = self.tasks.values().any(|other| link(other) == Some(path));
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

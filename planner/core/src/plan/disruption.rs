//! What an action does to what runs on its node, beside the change itself.
//!
//! In: an action with its part of the node's plan, and what the base had of it. Out: what it may restart, reload or stop, and what it destroys.
//! Each is said of what is there as it was applied: a process that has died is started, not restarted. Where it is not known what is applied,
//! the answer is what may be. By kind, because only the agent's counterpart of a kind decides it: see `apply`, `effect` and `remove` there.

use std::collections::BTreeSet;

use groundplan_protocol::{
    effect::{Action, Effect},
    ids::TaskId,
    kinds::{Container, OnChange, Pod, Process, Systemd, TaskParams, UnitState},
    plan::{OnRemove, TaskSpec},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::{NodePart, PlanTask, PlannedAction};
use crate::reason::Reason;

/// What an action does to what runs on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Disruption {
    /// What the task runs is stopped and started again; of a `reboot`, the host.
    Restarts,
    /// What the task runs reads its configuration again. What cannot, or does not run, is restarted.
    Reloads,
    /// What the task runs is stopped.
    Stops,
    /// Something is lost for good.
    Destroys,
}

impl Disruption {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restarts => "restarts",
            Self::Reloads => "reloads",
            Self::Stops => "stops",
            Self::Destroys => "destroys",
        }
    }

    /// What it is to a task that takes this effect.
    fn of(effect: Effect) -> Option<Self> {
        match effect {
            Effect::Restart => Some(Self::Restarts),
            Effect::Reload => Some(Self::Reloads),
            Effect::Run => None,
        }
    }
}

/// What was applied of an instance.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    pub(super) spec: &'a TaskSpec,
    pub(super) on_remove: OnRemove,
}

/// What an action does, and what it destroys, in words.
#[derive(Default)]
pub(super) struct Disrupted {
    pub(super) all: BTreeSet<Disruption>,
    pub(super) destroys: Option<String>,
}

/// What `action` does, which is `task` of the node's `part`. `before` gives what was applied of a task on that node, where that is known.
pub(super) fn of<'a>(
    action: &PlannedAction,
    task: &PlanTask,
    part: &NodePart,
    before: &dyn Fn(&TaskId) -> Option<Before<'a>>,
) -> Disrupted {
    let mut found = Disrupted { all: BTreeSet::new(), destroys: action.destroys.clone() };
    let own = before(&task.task);
    match (action.action, &task.resolved) {
        (Action::Remove, _) => {
            let whole = matches!(action.reasons.first(), Some(Reason::HandsOver { whole: true, .. }));
            found.all.extend(own.filter(|_| !whole).and_then(removal));
        }
        (Action::Create | Action::Update, Some(resolved)) => {
            let after = &resolved.spec;
            let replaced = own.filter(|before| {
                before.spec.params.kind() != after.params.kind()
                    || before.spec.params.gives_up_all(&after.params, &task.task)
            });
            // A new task may take over what another one had applied.
            let earlier = own.or_else(|| {
                let same = |before: &Before<'_>| before.spec.params.kind() == after.params.kind();
                task.from.iter().filter_map(before).find(same)
            });
            match replaced {
                Some(before) => {
                    found.all.extend(creation(after));
                    if !is_taken_over(&before.spec.params, task, part) {
                        found.all.extend(removal(before));
                        let lost = || before.spec.params.destroyed_by_removal();
                        found.destroys =
                            found.destroys.or_else(|| lost().filter(|_| before.on_remove != OnRemove::Keep));
                    }
                }
                None if earlier.is_none() && action.action == Action::Create => found.all.extend(creation(after)),
                None => found.all.extend(change(earlier.map(|before| before.spec), after)),
            }
        }
        _ => {}
    }
    found.all.extend(triggered(action.action, task));
    if found.destroys.is_some() {
        found.all.insert(Disruption::Destroys);
    }
    // A restart also reloads.
    if found.all.contains(&Disruption::Restarts) {
        found.all.remove(&Disruption::Reloads);
    }
    found
}

/// Whether another task of the part owns something of what `task` had applied: then it is not removed.
fn is_taken_over(before: &TaskParams, task: &PlanTask, part: &NodePart) -> bool {
    let mut had = Vec::new();
    before.identity(&task.task, &mut |claim| had.push(claim));
    part.tasks
        .iter()
        .filter(|other| other.task != task.task)
        .filter_map(|other| Some((other, other.resolved.as_ref()?)))
        .any(|(other, resolved)| {
            let mut takes = false;
            resolved.spec.params.identity(&other.task, &mut |claim| takes |= had.contains(&claim));
            takes
        })
}

/// What triggers that may fire do, or what is due to the task since an earlier plan.
fn triggered(action: Action, task: &PlanTask) -> Option<Disruption> {
    let effects = task.triggers.iter().map(|trigger| trigger.effect).chain(task.obligation.map(|due| due.effect));
    let effect = effects.max()?;
    match &task.resolved {
        Some(resolved) => taken(effect, action, &resolved.spec),
        None => Disruption::of(effect),
    }
}

/// What an effect of a trigger does to a task with this action.
fn taken(effect: Effect, action: Action, spec: &TaskSpec) -> Option<Disruption> {
    match &spec.params {
        TaskParams::Systemd(unit) if !may_run(unit) => None,
        // What was just started has met its triggers. A unit that the task does not ship may run already.
        TaskParams::Systemd(_) if action == Action::Create && spec.content.is_some() => None,
        TaskParams::Process(_) | TaskParams::Container(_) | TaskParams::Pod(_) if action == Action::Create => None,
        TaskParams::Container(container) if container.state == Some(UnitState::Stopped) => None,
        TaskParams::Pod(pod) if pod.state == Some(UnitState::Stopped) => None,
        // What of a pod does not fit its definition is restarted.
        TaskParams::Pod(_) | TaskParams::Reboot(_) => Some(Disruption::Restarts),
        _ => Disruption::of(effect),
    }
}

/// What an action may do to a task of this kind, whose parameters may be others, if a trigger with that effect leads to it as well.
pub(super) fn possible(spec: &TaskSpec, action: Action, effect: Option<Effect>) -> BTreeSet<Disruption> {
    let own = match action {
        Action::Create => creation(spec),
        Action::Update => change(None, spec),
        _ => None,
    };
    own.into_iter().chain(effect.and_then(|effect| taken(effect, action, spec))).collect()
}

/// What applying a task does that was not applied before.
fn creation(after: &TaskSpec) -> Option<Disruption> {
    match &after.params {
        TaskParams::Systemd(unit) if !may_run(unit) => (!unit.is_template()).then_some(Disruption::Stops),
        // A unit that others ship may run already, and is then restarted for its drop-ins.
        TaskParams::Systemd(unit) if after.content.is_none() && !unit.dropins.is_empty() => on_change(unit),
        TaskParams::Reboot(_) => Some(Disruption::Restarts),
        _ => None,
    }
}

/// The same of a container or a pod. `was`: the state that it was to have, and whether it is defined as it was.
fn supervised(now: Option<UnitState>, was: Option<(Option<UnitState>, bool)>) -> Option<Disruption> {
    match (now.unwrap_or_default(), was) {
        (UnitState::Stopped, Some((before, _))) if before == now => None,
        (UnitState::Stopped, _) => Some(Disruption::Stops),
        (_, Some((before, same))) => (before != Some(UnitState::Stopped) && !same).then_some(Disruption::Restarts),
        _ => Some(Disruption::Restarts),
    }
}

/// What applying a task does over what was applied of it before, if that is known.
fn change(before: Option<&TaskSpec>, after: &TaskSpec) -> Option<Disruption> {
    let restarts = |changed: bool| changed.then_some(Disruption::Restarts);
    let was = before.map(|before| &before.params);
    match (&after.params, was) {
        (TaskParams::Process(now), Some(TaskParams::Process(was))) => restarts(Process::must_restart(was, now)),
        (TaskParams::Container(now), was) => {
            let was = match was {
                Some(TaskParams::Container(was)) => Some(was),
                _ => None,
            };
            // When a registry is asked for the image is no part of the definition, but may bring another image.
            let same = |was: &Container| Container { enabled: now.enabled, state: now.state, ..was.clone() } == *now;
            supervised(now.state, was.map(|was| (was.state, same(was))))
        }
        (TaskParams::Pod(now), was) => {
            let was = match was {
                Some(TaskParams::Pod(was)) => Some(was),
                _ => None,
            };
            let same = |was: &Pod| Pod { enabled: now.enabled, state: now.state, ..was.clone() } == *now;
            supervised(now.state, was.map(|was| (was.state, same(was))))
        }
        (TaskParams::Systemd(now), was) => {
            let was = match was {
                Some(TaskParams::Systemd(was)) => Some(was),
                _ => None,
            };
            let ran = was.is_none_or(may_run);
            if !may_run(now) {
                return (ran && !now.is_template()).then_some(Disruption::Stops);
            }
            let same = was.is_some_and(|was| was.dropins == now.dropins)
                && before.is_some_and(|before| before.content == after.content);
            if ran && !same { on_change(now) } else { None }
        }
        (TaskParams::Process(_) | TaskParams::Reboot(_), _) => restarts(true),
        // Only the program itself decides; what it cannot restart it has not declared.
        (TaskParams::Plugin(_), _) => after.params.effects().iter().max().and_then(|effect| Disruption::of(*effect)),
        _ => None,
    }
}

/// What a removal does.
fn removal(before: Before<'_>) -> Option<Disruption> {
    let runs = match &before.spec.params {
        // A process is stopped whatever becomes of what a task leaves.
        TaskParams::Process(_) => return Some(Disruption::Stops),
        TaskParams::Container(container) => container.state != Some(UnitState::Stopped),
        TaskParams::Pod(pod) => pod.state != Some(UnitState::Stopped),
        TaskParams::Systemd(unit) => may_run(unit),
        _ => false,
    };
    (runs && before.on_remove != OnRemove::Keep).then_some(Disruption::Stops)
}

/// Whether a unit may run by its task.
fn may_run(unit: &Systemd) -> bool {
    !unit.is_template() && unit.state() != UnitState::Stopped
}

/// What other files of a unit do to it.
fn on_change(unit: &Systemd) -> Option<Disruption> {
    match unit.on_change.unwrap_or_default() {
        OnChange::Restart => Some(Disruption::Restarts),
        OnChange::Reload => Some(Disruption::Reloads),
        OnChange::Nothing => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(kind: &str, params: Value) -> TaskSpec {
        serde_json::from_value(json!({ "params": { kind: params } })).expect("a task")
    }

    fn name(found: Option<Disruption>) -> &'static str {
        found.map_or("nothing", Disruption::as_str)
    }

    #[test]
    fn a_change_disrupts_what_the_agent_would_restart() {
        let image = |more: Value| {
            let mut all = json!({ "name": "web", "image": "web:1" });
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let unit = |more: Value| {
            let mut all = json!({ "unit": "a.service" });
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let drop_in = json!({ "10-a.conf": "[Service]\n" });
        let cases = [
            ("process", json!({ "run": "a" }), json!({ "run": "a", "env": { "A": "1" } }), "restarts"),
            ("process", json!({ "run": "a" }), json!({ "run": "a", "stop_timeout": "1s" }), "nothing"),
            ("container", image(json!({})), image(json!({ "env": { "A": "1" } })), "restarts"),
            ("container", image(json!({})), image(json!({ "enabled": false })), "nothing"),
            ("container", image(json!({})), image(json!({ "state": "stopped" })), "stops"),
            ("container", image(json!({ "state": "stopped" })), image(json!({ "memory": "1g" })), "nothing"),
            ("systemd", unit(json!({})), unit(json!({ "enabled": true })), "nothing"),
            ("systemd", unit(json!({})), unit(json!({ "dropins": drop_in })), "restarts"),
            ("systemd", unit(json!({})), unit(json!({ "dropins": drop_in, "on_change": "reload" })), "reloads"),
            ("systemd", unit(json!({})), unit(json!({ "dropins": drop_in, "on_change": "nothing" })), "nothing"),
            ("systemd", unit(json!({})), unit(json!({ "masked": true })), "stops"),
            ("systemd", unit(json!({ "state": "stopped" })), unit(json!({ "dropins": drop_in })), "nothing"),
            ("reboot", json!({}), json!({ "needed": true }), "restarts"),
            ("link", json!({ "path": "/a", "target": "b" }), json!({ "path": "/a", "target": "c" }), "nothing"),
        ];
        for (kind, before, after, expected) in cases {
            let case = format!("{kind} {before} → {after}");
            let (before, after) = (spec(kind, before), spec(kind, after));
            assert_eq!(name(change(Some(&before), &after)), expected, "{case}");
        }
    }

    #[test]
    fn what_is_not_known_may_be_running() {
        for (kind, params) in [("process", json!({ "run": "a" })), ("systemd", json!({ "unit": "a.service" }))] {
            assert_eq!(name(change(None, &spec(kind, params))), "restarts", "{kind}");
        }
    }

    #[test]
    fn a_removal_stops_what_runs_unless_it_is_kept() {
        let unit = json!({ "unit": "a.service" });
        let cases = [
            ("process", json!({ "run": "a" }), OnRemove::Keep, "stops"),
            ("systemd", unit.clone(), OnRemove::Restore, "stops"),
            ("systemd", unit, OnRemove::Keep, "nothing"),
            ("systemd", json!({ "unit": "a.service", "masked": true }), OnRemove::Restore, "nothing"),
            ("link", json!({ "path": "/a", "target": "b" }), OnRemove::Restore, "nothing"),
        ];
        for (kind, params, on_remove, expected) in cases {
            let spec = spec(kind, params);
            assert_eq!(name(removal(Before { spec: &spec, on_remove })), expected, "{kind} {on_remove}");
        }
    }
}

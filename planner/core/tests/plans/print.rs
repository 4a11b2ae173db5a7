//! Plans as the text of a scenario.

use std::fmt::Write as _;

use groundplan_core::{
    Plan, Reason, Unknown,
    locate::Locator,
    plan::{Gate, PlanTask},
};
use groundplan_protocol::{
    ids::InstanceId,
    plan::{OnRemove, TriggerSource},
};

/// Every action with its chain of reasons, and the edges that are recorded without one.
pub(crate) fn plan(plan: &Plan, locator: &mut Locator<'_>) -> String {
    let mut out = String::new();
    for action in &plan.actions {
        let reasons: Vec<_> = action.reasons.iter().map(|reason| self::reason(reason, locator)).collect();
        let on_remove = action.on_remove.filter(|on_remove| *on_remove != OnRemove::Restore);
        let on_remove = on_remove.map(|on_remove| format!(" ({on_remove})")).unwrap_or_default();
        write!(out, "{}{on_remove} {}: {}", action.action, action.instance, reasons.join(" ← ")).unwrap();
        if !action.waits_for.is_empty() {
            write!(out, " [waits for {}]", unknown(&action.waits_for)).unwrap();
        }
        out.push('\n');
    }
    for (node, part) in &plan.nodes {
        for task in part.edges.keys() {
            writeln!(out, "record the edges of {}", task.at(node)).unwrap();
        }
    }
    if out.is_empty() { "nothing to do\n".to_owned() } else { out }
}

fn reason(reason: &Reason, locator: &mut Locator<'_>) -> String {
    let Some(at) = reason.place() else { return reason.to_string() };
    match locator.find(&at) {
        Some(found) => format!("{reason} ({}:{})", at.file, found.line),
        None => format!("{reason} ({})", at.file),
    }
}

/// What cannot be planned.
pub(crate) fn pending(plan: &Plan) -> String {
    let line = |(instance, waits): (&InstanceId, &[Unknown])| format!("{instance} waits for {}\n", unknown(waits));
    plan.pending.iter().map(|pending| line((&pending.instance, &pending.waits_for))).collect()
}

fn unknown(waits: &[Unknown]) -> String {
    waits.iter().map(Unknown::to_string).collect::<Vec<_>>().join(", ")
}

/// What each task of the plan waits for and what may fire on it, in the order of the actions.
pub(crate) fn waits(plan: &Plan) -> String {
    let task = |instance: &InstanceId| {
        let part = &plan.nodes[&instance.node];
        part.tasks.iter().find(|task| task.task == instance.task).expect("an action has its task")
    };
    plan.actions.iter().filter_map(|action| links(&action.instance, task(&action.instance))).collect()
}

fn links(instance: &InstanceId, task: &PlanTask) -> Option<String> {
    let mut links = Vec::new();
    if !task.after.is_empty() {
        links.push(format!("after {}", task.after.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
    }
    if !task.gates.is_empty() {
        links.push(format!("behind {}", task.gates.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
    }
    for trigger in &task.triggers {
        links.push(match &trigger.on {
            TriggerSource::Task(source) => format!("{} if {source} changed", trigger.effect),
            TriggerSource::Gate(gate) => format!("{} if gate {gate} fired", trigger.effect),
        });
    }
    links.extend(task.obligation.map(|due| match due.since {
        Some(since) => format!("{} unless done for generation {since} or later", due.effect),
        None => format!("{} in any case", due.effect),
    }));
    (!links.is_empty()).then(|| format!("{instance}: {}\n", links.join("; ")))
}

/// What opens each gate.
pub(crate) fn gates(plan: &Plan) -> String {
    let line = |gate: &Gate| match gate {
        Gate::Done { waits_for, fires_on } => {
            let mut instances: Vec<_> = waits_for.iter().map(ToString::to_string).collect();
            instances.sort();
            let fires = fires_on.as_ref().map(|task| format!("; fires if {task} changed")).unwrap_or_default();
            format!("opens after {}{fires}", instances.join(", "))
        }
        Gate::Unknown => "stays closed in this plan".to_owned(),
        Gate::Turn { service, limit } => format!("opens when its node has a turn of {service}, {limit} at a time"),
    };
    plan.gates.iter().map(|(id, gate)| format!("{id} {}\n", line(gate))).collect()
}

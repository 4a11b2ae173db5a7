//! A plan as a table: each action with its node, task and chain of reasons, in execution order, and a summary.

use std::collections::BTreeSet;

use groundplan_core::plan::{ActionReport, PlanReport, WaitReport};
use groundplan_protocol::{effect::Action, ids::NodeId};

use super::{Cell, Style, Table, format::count, reason};

/// The plan as text. `nodes` are those that the target commit declares.
pub(crate) fn render(report: &PlanReport, nodes: &[NodeId], color: bool) -> String {
    let waiting = waiting(&report.waiting, color);
    if report.actions.is_empty() {
        let changes = if waiting.is_empty() { "nothing changes" } else { "nothing changes yet" };
        return format!("{waiting}{changes}: {} untouched\n", count(nodes.len(), "node"));
    }
    let mut table = Table::new(&["ACTION", "NODE", "TASK", "BECAUSE"]);
    for action in &report.actions {
        table.row([
            Cell::styled(action.action.to_string(), style(action.action)),
            action.node.to_string().into(),
            format!("{}.{}", action.service, action.task).into(),
            match &action.destroys {
                Some(what) => Cell::styled(format!("destroys {what} ← {}", reason::chain(&action.reasons)), Style::Bad),
                None => Cell::styled(reason::chain(&action.reasons), Style::Dim),
            },
        ]);
    }
    format!("{}\n{waiting}{}\n", table.render(color), summary(&report.actions, nodes))
}

/// The instances that cannot be planned yet, with the facts and exports that are missing; empty if there are none.
fn waiting(waiting: &[WaitReport], color: bool) -> String {
    if waiting.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["LATER", "NODE", "TASK", "WAITS FOR"]);
    for wait in waiting {
        table.row([
            Cell::styled(wait.action.map_or_else(|| "?".to_owned(), |action| action.to_string()), Style::Dim),
            wait.node.to_string().into(),
            format!("{}.{}", wait.service, wait.task).into(),
            Cell::styled(wait.waits_for.join(", "), Style::Warn),
        ]);
    }
    format!("{}\n", table.render(color))
}

fn style(action: Action) -> Style {
    match action {
        Action::Create | Action::Update => Style::Good,
        Action::Remove => Style::Bad,
        Action::Restart | Action::Reload | Action::Run | Action::Forget => Style::Warn,
    }
}

/// `2 updates, 2 restarts on 2 of 3 nodes; 1 node untouched`.
fn summary(actions: &[ActionReport], nodes: &[NodeId]) -> String {
    const ORDER: [Action; 7] =
        [Action::Create, Action::Update, Action::Remove, Action::Forget, Action::Restart, Action::Reload, Action::Run];
    let counted = ORDER.iter().filter_map(|action| {
        let n = actions.iter().filter(|a| a.action == *action).count();
        (n > 0).then(|| count(n, action.as_str()))
    });
    let touched: BTreeSet<&NodeId> = actions.iter().map(|a| &a.node).collect();
    let all: BTreeSet<&NodeId> = nodes.iter().chain(touched.iter().copied()).collect();
    let untouched = match all.len() - touched.len() {
        0 => String::new(),
        n => format!("; {} untouched", count(n, "node")),
    };
    let counted: Vec<String> = counted.collect();
    format!("{} on {} of {}{untouched}", counted.join(", "), touched.len(), count(all.len(), "node"))
}

//! A plan as a table: each action with its node, task and chain of reasons, in execution order, and a summary.

use std::collections::BTreeSet;

use groundplan_core::plan::{ActionReport, PlanReport, ReasonReport, WaitReport};
use groundplan_protocol::{
    effect::Action,
    ids::{NodeId, TaskId},
};

use super::{Cell, Style, Table, format::count, reason};

/// The plan as text. `nodes` are those that the target commit declares.
pub(crate) fn render(report: &PlanReport, nodes: &[NodeId], color: bool) -> String {
    let waiting = waiting(&report.waiting, color);
    if report.actions.is_empty() {
        let changes = if waiting.is_empty() { "nothing changes" } else { "nothing changes yet" };
        return format!("{waiting}{changes}: {} untouched\n", count(nodes.len(), "node"));
    }
    let mut table = Table::new(&["ACTION", "NODE", "TASK", "BECAUSE"]);
    let rows = rows(&report.actions);
    for row in &rows {
        table.row([
            Cell::styled(row.words.clone(), row.style),
            row.action.node.to_string().into(),
            row.task.clone().into(),
            match &row.action.destroys {
                Some(what) => {
                    Cell::styled(format!("destroys {what} ← {}", reason::chain(&row.action.reasons)), Style::Bad)
                }
                None => Cell::styled(reason::chain(&row.action.reasons), Style::Dim),
            },
        ]);
    }
    format!("{}\n{waiting}{}\n", table.render(color), summary(&rows, nodes))
}

/// What a person sees of an action.
struct Row<'a> {
    action: &'a ActionReport,
    /// What it counts as in the summary.
    verb: &'static str,
    /// The same with what a removal does.
    words: String,
    style: Style,
    task: String,
}

/// What moves from one task to another.
const MOVE: &str = "move";

/// The actions as rows. What changes hands is one row: the two actions, under the old name and the new one, are one step for people.
fn rows(actions: &[ActionReport]) -> Vec<Row<'_>> {
    let taken: BTreeSet<(&NodeId, &TaskId)> =
        actions.iter().flat_map(|a| taken_over(a).iter().map(|t| (&a.node, t))).collect();
    let row = |action| {
        let id = task(action);
        let (verb, style, task) = match action.reasons.first() {
            Some(ReasonReport::TakesOver { from, .. }) => (MOVE, Style::Good, format!("{} → {id}", reason::list(from))),
            Some(ReasonReport::Replaces { from, .. }) => {
                (Action::Restart.as_str(), Style::Warn, format!("{} → {id}", reason::list(from)))
            }
            Some(ReasonReport::HandsOver { whole: true, .. } | ReasonReport::Removed { .. })
                if taken.contains(&(&action.node, &id)) =>
            {
                return None;
            }
            Some(ReasonReport::HandsOver { to, whole: true, .. }) => {
                (MOVE, Style::Good, format!("{id} → {}", reason::list(to)))
            }
            _ => (action.action.as_str(), style(action.action), id.to_string()),
        };
        let words = if verb == action.action.as_str() { words(action) } else { verb.to_owned() };
        Some(Row { action, verb, words, style, task })
    };
    actions.iter().filter_map(row).collect()
}

fn task(action: &ActionReport) -> TaskId {
    TaskId { service: action.service.clone(), task: action.task.clone() }
}

/// The tasks that the task of an action takes over from, or replaces.
fn taken_over(action: &ActionReport) -> &[TaskId] {
    match action.reasons.first() {
        Some(ReasonReport::TakesOver { from, .. } | ReasonReport::Replaces { from, .. }) => from,
        _ => &[],
    }
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

/// The action; for a removal also what it does with what the task changed: `remove (restore)`.
fn words(action: &ActionReport) -> String {
    match action.on_remove {
        Some(on_remove) => format!("{} ({on_remove})", action.action),
        None => action.action.to_string(),
    }
}

fn style(action: Action) -> Style {
    match action {
        Action::Create | Action::Update => Style::Good,
        Action::Remove => Style::Bad,
        Action::Restart | Action::Reload | Action::Run | Action::Forget => Style::Warn,
    }
}

/// `2 updates, 2 restarts on 2 of 3 nodes; 1 node untouched`.
fn summary(rows: &[Row<'_>], nodes: &[NodeId]) -> String {
    const ORDER: [Action; 7] =
        [Action::Create, Action::Update, Action::Remove, Action::Forget, Action::Restart, Action::Reload, Action::Run];
    let counted = ORDER.into_iter().map(Action::as_str).chain([MOVE]).filter_map(|verb| {
        let n = rows.iter().filter(|row| row.verb == verb).count();
        (n > 0).then(|| count(n, verb))
    });
    let touched: BTreeSet<&NodeId> = rows.iter().map(|row| &row.action.node).collect();
    let all: BTreeSet<&NodeId> = nodes.iter().chain(touched.iter().copied()).collect();
    let untouched = match all.len() - touched.len() {
        0 => String::new(),
        n => format!("; {} untouched", count(n, "node")),
    };
    let counted: Vec<String> = counted.collect();
    format!("{} on {} of {}{untouched}", counted.join(", "), touched.len(), count(all.len(), "node"))
}

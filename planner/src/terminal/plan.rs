//! A plan as a table: each action with its node, task and chain of reasons, in execution order, and a summary.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_core::plan::{
    ActionReport, Disruption, KeyReport, OrphanReport, PlanReport, ReasonReport, RecordReport,
};
use groundplan_protocol::{
    effect::Action,
    ids::{NodeId, TaskId},
};

use super::{Cell, Style, Table, format::count, reason};

/// The plan as text. `nodes` are those that the target commit declares.
pub(crate) fn render(report: &PlanReport, nodes: &[NodeId], color: bool) -> String {
    let besides = recorded(report) + &notes(report, color);
    if report.actions.is_empty() && !report.prevented.is_empty() {
        // It is refused: what it does not do is of no interest.
        return String::new();
    }
    if report.actions.is_empty() && besides.is_empty() {
        return format!("nothing changes: {} untouched\n", count(nodes.len(), "node"));
    }
    if report.actions.is_empty() {
        return format!("nothing is done on any of {}\n{besides}", count(nodes.len(), "node"));
    }
    let mut table = Table::new(&["ACTION", "NODE", "TASK", "BECAUSE"]);
    let rows = rows(&report.actions);
    for row in &rows {
        let because = because(row.action);
        table.row([
            Cell::styled(row.words.clone(), row.style),
            row.action.node.to_string().into(),
            row.task.clone().into(),
            match &row.action.destroys {
                None if !row.action.restores.is_empty() => {
                    Cell::styled(format!("brings back {} ← {because}", row.action.restores.join(", ")), Style::Dim)
                }
                Some(what) => Cell::styled(format!("destroys {what} ← {because}"), Style::Bad),
                None => Cell::styled(because, Style::Dim),
            },
        ]);
    }
    format!("{}\n{}\n{besides}", table.render(color), summary(&rows, nodes))
}

/// What nodes record and do nothing else for: `recorded without any action: on_remove of app.config on alpha, beta`.
fn recorded(report: &PlanReport) -> String {
    // Where something is done, the order of other tasks changes by itself: of a task, the one before it in the file may be new.
    let is_order = |key: &String| key == "requires";
    let is_shown = |record: &&RecordReport| report.actions.is_empty() || !record.keys.iter().all(is_order);
    let mut nodes: BTreeMap<String, Vec<&NodeId>> = BTreeMap::new();
    for record in report.recorded.iter().filter(is_shown) {
        let what = format!("{} of {}.{}", record.keys.join(", "), record.service, record.task);
        nodes.entry(what).or_default().push(&record.node);
    }
    let line = |(what, nodes): (String, Vec<&NodeId>)| {
        let on = match &*nodes {
            [] | [_] | [_, _] | [_, _, _] => nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            more => count(more.len(), "node"),
        };
        format!("recorded without any action: {what} on {on}\n")
    };
    nodes.into_iter().map(line).collect()
}

/// What is to be known of nodes besides, each on its own line.
fn notes(report: &PlanReport, color: bool) -> String {
    let mut out = String::new();
    for OrphanReport { node, tasks, renamed_to } in &report.orphaned {
        let left = format!("{node} is orphaned, with {} left running", count(*tasks, "task"));
        let next = match renamed_to {
            Some(to) => format!(
                "its host is declared as {to} now, which starts from nothing: its agent goes by the old name until it is set up again"
            ),
            None => "to have them removed first, keep it with `state = \"decommissioned\"` for one commit".to_owned(),
        };
        out += &format!("{}\n  → {next}\n", Style::Warn.paint(&left, color));
    }
    for KeyReport { node, before, after } in &report.keys {
        let text =
            format!("the key of {node} changes from {before} to {after}: it is held, and the former stays trusted");
        let next = format!(
            "if its host was set up again, and this is its new key: `groundplan trust {node}` once the commit is active"
        );
        out += &format!("{}\n  → {next}\n", Style::Bad.paint(&text, color));
    }
    for node in &report.parked {
        let text = format!("{node} is parked: nothing on other nodes waits for it");
        out += &format!("{}\n", Style::Warn.paint(&text, color));
    }
    out
}

/// Why something is done, and which values it waits for or depends on.
fn because(action: &ActionReport) -> String {
    let chain = reason::chain(&action.reasons);
    let values = action.known_after_apply.join(", ");
    match (action.is_outcome(), action.reasons.is_empty()) {
        (true, true) => format!("known after apply: {values}"),
        (true, false) => format!("{chain} ← known after apply: {values}"),
        (false, _) if !values.is_empty() => format!("{chain}; the rest is known after apply: {values}"),
        (false, _) if !action.waits_for.is_empty() => format!("{chain}; waits for {}", action.waits_for.join(", ")),
        (false, _) => chain,
    }
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
        let words = with_effects(words, verb, &action.effects);
        let words = if action.is_outcome() { format!("may {words}") } else { words };
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

/// The action; for a removal also what it does with what the task changed: `remove (restore)`.
fn words(action: &ActionReport) -> String {
    match action.on_remove {
        Some(on_remove) => format!("{} ({on_remove})", action.action),
        None => action.action.to_string(),
    }
}

/// What an action does with its effects, such as `update, restarts`; without those that its name states already, and without what it
/// destroys, which is described with the reasons.
fn with_effects(words: String, verb: &str, effects: &[Disruption]) -> String {
    let stated = |effect: &Disruption| match effect {
        Disruption::Restarts => verb == Action::Restart.as_str(),
        Disruption::Reloads => verb == Action::Reload.as_str(),
        Disruption::Destroys => true,
        Disruption::Stops => false,
    };
    let effects = effects.iter().filter(|effect| !stated(effect)).map(|effect| effect.as_str().to_owned());
    [words].into_iter().chain(effects).collect::<Vec<_>>().join(", ")
}

fn style(action: Action) -> Style {
    match action {
        Action::Create | Action::Update => Style::Good,
        Action::Remove => Style::Bad,
        Action::Restart | Action::Reload | Action::Run | Action::Forget => Style::Warn,
    }
}

/// `2 updates (1 restarts), 2 restarts on 2 of 3 nodes; 1 node untouched`.
fn summary(rows: &[Row<'_>], nodes: &[NodeId]) -> String {
    const ORDER: [Action; 7] =
        [Action::Create, Action::Update, Action::Remove, Action::Forget, Action::Restart, Action::Reload, Action::Run];
    let (later, sure): (Vec<&Row<'_>>, Vec<_>) = rows.iter().partition(|row| row.action.is_outcome());
    let counted = ORDER.into_iter().map(Action::as_str).chain([MOVE]).filter_map(|verb| {
        let of_verb = || sure.iter().filter(|row| row.verb == verb);
        let restarting = of_verb().filter(|row| row.action.effects.contains(&Disruption::Restarts)).count();
        let restarting = match restarting {
            _ if verb == Action::Restart.as_str() => String::new(),
            0 => String::new(),
            1 => " (1 restarts)".to_owned(),
            n => format!(" ({n} restart)"),
        };
        let n = of_verb().count();
        (n > 0).then(|| format!("{}{restarting}", count(n, verb)))
    });
    let counted: Vec<String> = counted.collect();
    let touched: BTreeSet<&NodeId> = sure.iter().map(|row| &row.action.node).collect();
    let listed: BTreeSet<&NodeId> = rows.iter().map(|row| &row.action.node).collect();
    let all: BTreeSet<&NodeId> = nodes.iter().chain(listed.iter().copied()).collect();
    let mut parts = vec![match counted.is_empty() {
        true => "nothing changes yet".to_owned(),
        false => format!("{} on {} of {}", counted.join(", "), touched.len(), count(all.len(), "node")),
    }];
    let waiting = sure.iter().filter(|row| !row.action.waits_for.is_empty()).count();
    if waiting > 0 {
        parts.push(format!(
            "{} for values that are not known yet",
            if waiting == 1 { "1 waits".to_owned() } else { format!("{waiting} wait") }
        ));
    }
    if !later.is_empty() {
        parts.push(format!("{} known after apply", count(later.len(), "action")));
    }
    let untouched = all.len() - listed.len();
    if untouched > 0 {
        parts.push(format!("{} untouched", count(untouched, "node")));
    }
    parts.join("; ")
}

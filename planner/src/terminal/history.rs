//! Rollouts, refused commits and commands in one table, newest first.

use super::{
    Cell, Style, Table, exec,
    format::{ago, count, first_line, took},
    reason, rollout,
};
use crate::api::{history::History, types::RolloutSummary};

/// The table; its headings depend on which kinds of entries it has.
pub(crate) fn text(history: &History, now_ms: u64, color: bool) -> String {
    let mut rows: Vec<(u64, Vec<Cell>)> = Vec::new();
    for rollout in &history.rollouts {
        let (word, style) = rollout::result(rollout.result);
        let cells = [
            rollout.generation.to_string().into(),
            Cell::styled(word, style),
            ago(rollout.started_ms, now_ms).into(),
            took(rollout.finished_ms.unwrap_or(now_ms).saturating_sub(rollout.started_ms)).into(),
            count(rollout.nodes, "node").into(),
            rollout::counts(&rollout.counts).into(),
            what(rollout).into(),
        ];
        rows.push((rollout.started_ms, cells.into()));
    }
    for exec in &history.execs {
        let (word, style) = exec::result(exec);
        let cells = [
            exec.id.to_string().into(),
            Cell::styled(word, style),
            ago(exec.started_ms, now_ms).into(),
            took(exec.finished_ms.unwrap_or(now_ms).saturating_sub(exec.started_ms)).into(),
            count(exec.nodes.len(), "node").into(),
            exec::counts(exec).into(),
            exec::what(exec).into(),
        ];
        rows.push((exec.started_ms, cells.into()));
    }
    for refusal in &history.refusals {
        let faults = &refusal.refused.diagnostics;
        let first = faults.first().map_or(String::new(), |fault| format!(": {}", first_line(&fault.message)));
        let cells = [
            "-".into(),
            Cell::styled("refused", Style::Bad),
            ago(refusal.at_ms, now_ms).into(),
            "-".into(),
            "-".into(),
            count(faults.len(), "error").into(),
            (rollout::commit(&refusal.refused.commit) + &first).into(),
        ];
        rows.push((refusal.at_ms, cells.into()));
    }
    rows.sort_by_key(|(started, _)| std::cmp::Reverse(*started));
    let (first, tasks, last) = match (history.rollouts.is_empty(), history.execs.is_empty()) {
        (true, true) => ("ID", "ERRORS", "COMMIT"),
        (false, true) => ("ROLLOUT", "TASKS", "COMMIT"),
        (true, false) if history.refusals.is_empty() => ("COMMAND", "ON NODES", "WHAT"),
        _ => ("ID", "TASKS OR NODES", "COMMIT OR COMMAND"),
    };
    let mut table = Table::new(&[first, "RESULT", "STARTED", "TOOK", "NODES", tasks, last]);
    rows.into_iter().for_each(|(_, cells)| table.row(cells));
    table.render(color)
}

/// The commit of a rollout, and the records that it drops.
fn what(rollout: &RolloutSummary) -> String {
    let mut text = rollout::commit(&rollout.commit);
    for forgotten in &rollout.forgotten {
        let asked = reason::asked(&forgotten.by, &forgotten.why);
        text += &format!("; drops the record of {}: {}", forgotten.instance, first_line(&asked));
    }
    text
}

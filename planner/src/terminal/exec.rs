//! Commands that were run on nodes as text, shared by `exec`, `history` and `show`.

use std::{collections::BTreeMap, fmt::Write as _};

use groundplan_protocol::ids::NodeId;

use super::{
    Cell, Style, Table,
    format::{ago, count, indent, printed, took},
};
use crate::api::exec::{ExecRecord, ExecResult, NodeOutcome, Standing};

/// How many of the nodes that succeeded are named; all others are always named.
const NAMED: usize = 20;
/// The longest command line in a list, in characters.
const EXCERPT: usize = 60;

/// The colour of a node's outcome.
fn style(outcome: &NodeOutcome) -> Style {
    match outcome.standing() {
        Standing::Good => Style::Good,
        Standing::Open | Standing::Ended => Style::Warn,
        Standing::Bad | Standing::Unknown => Style::Bad,
    }
}

/// One line for each outcome, with the nodes that had it; the best outcome first.
pub(crate) fn summary(record: &ExecRecord, color: bool) -> String {
    let mut groups: BTreeMap<(Standing, String), Vec<(&NodeId, &NodeOutcome)>> = BTreeMap::new();
    for (node, entry) in &record.nodes {
        let key = (entry.outcome.standing(), entry.outcome.to_string());
        groups.entry(key).or_default().push((node, &entry.outcome));
    }
    let span = record.finished_ms.unwrap_or(record.started_ms).saturating_sub(record.started_ms);
    let nodes = count(record.nodes.len(), "node");
    let mut out = format!("{} on {nodes}, {}\n", Style::Bold.paint(&format!("exec {}", record.id), color), took(span));
    for ((standing, text), nodes) in groups {
        let most = if standing == Standing::Good { NAMED } else { usize::MAX };
        let mut names: Vec<&str> = nodes.iter().take(most).map(|(node, _)| node.as_str()).collect();
        let more = format!("{} more", nodes.len().saturating_sub(most));
        if nodes.len() > most {
            names.push(&more);
        }
        let text = style(nodes[0].1).paint(&text, color);
        let _ = writeln!(out, "  {text}: {} ({})", count(nodes.len(), "node"), names.join(", "));
    }
    out
}

/// The state of the command on all nodes together, in one word.
pub(crate) fn result(record: &ExecRecord) -> (&'static str, Style) {
    let good = record.nodes.values().all(|node| node.outcome.standing() == Standing::Good);
    match record.result {
        ExecResult::Running => ("running", Style::Warn),
        ExecResult::Stopped => ("stopped", Style::Warn),
        ExecResult::Interrupted => ("interrupted", Style::Bad),
        ExecResult::Finished if good => ("succeeded", Style::Good),
        ExecResult::Finished => ("failed", Style::Bad),
    }
}

/// On how many nodes it ended how: `1 failed, 7 succeeded`.
pub(crate) fn counts(record: &ExecRecord) -> String {
    let names = [
        (Standing::Bad, "failed"),
        (Standing::Unknown, "unknown"),
        (Standing::Ended, "timed out or stopped"),
        (Standing::Open, "running"),
        (Standing::Good, "succeeded"),
    ];
    let counted = names.into_iter().map(|(standing, name)| (record.count(standing), name)).filter(|(n, _)| *n > 0);
    counted.map(|(n, name)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
}

/// The user and the first line of the command, cut to the width of a list.
pub(crate) fn what(record: &ExecRecord) -> String {
    let line = record.run.to_string();
    let first = line.lines().next().unwrap_or_default();
    let short: String = first.chars().take(EXCERPT).collect();
    let more = if short.len() < line.len() { "…" } else { "" };
    format!("{}: {short}{more}", record.by)
}

/// A command with all its settings, a table of nodes, and each node's output.
pub(crate) fn text(record: &ExecRecord, now_ms: u64, color: bool) -> String {
    let (word, word_style) = result(record);
    let span = record.finished_ms.unwrap_or(now_ms).saturating_sub(record.started_ms);
    let mut out = format!(
        "exec {}  {}  {}, took {}\n",
        record.id,
        word_style.paint(word, color),
        ago(record.started_ms, now_ms),
        took(span)
    );
    let env: Vec<&str> = record.env.iter().map(String::as_str).collect();
    let lines = [
        ("by", Some(record.by.clone())),
        ("on", Some(record.on.clone())),
        ("run", Some(record.run.to_string())),
        ("user", record.user.clone()),
        ("in", record.cwd.clone()),
        ("with", (!env.is_empty()).then(|| env.join(", "))),
        ("limit", Some(record.timeout.to_string())),
    ];
    for (name, value) in lines {
        let Some(value) = value else { continue };
        let mut rows = value.lines();
        let _ = writeln!(out, "{}  {}", Style::Dim.paint(&format!("{name:5}"), color), rows.next().unwrap_or_default());
        rows.for_each(|row| _ = writeln!(out, "       {row}"));
    }
    out.push('\n');
    let mut table = Table::new(&["NODE", "OUTCOME", "TOOK"]);
    for (node, entry) in &record.nodes {
        table.row([
            node.to_string().into(),
            Cell::styled(entry.outcome.to_string(), style(&entry.outcome)),
            entry.duration_ms.map(took).unwrap_or_default().into(),
        ]);
    }
    out.push_str(&table.render(color));
    for (node, entry) in &record.nodes {
        if let Some(output) = &entry.output {
            let _ = write!(out, "\n{}\n{}", Style::Bold.paint(node.as_str(), color), indent(&printed(output)));
        }
        if entry.omitted > 0 {
            let _ = writeln!(out, "  … {} bytes omitted by its agent", entry.omitted);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::{ids::ExecId, kinds::Run};

    use super::*;
    use crate::api::exec::{ExecNode, TIMEOUT};

    fn record(nodes: &[(&str, NodeOutcome)]) -> ExecRecord {
        let node = |outcome: &NodeOutcome| ExecNode {
            outcome: outcome.clone(),
            duration_ms: Some(1200),
            omitted: 0,
            output: Some(groundplan_protocol::report::Output { head: "hi\n".to_owned(), ..Default::default() }),
        };
        ExecRecord {
            version: 1,
            id: ExecId::new("0123abcd").unwrap(),
            by: "root".to_owned(),
            on: "all".to_owned(),
            run: Run::Shell("echo hi\nexit 3".to_owned()),
            user: None,
            cwd: Some("/srv".to_owned()),
            env: ["A".to_owned()].into(),
            timeout: TIMEOUT,
            started_ms: 1000,
            finished_ms: Some(5100),
            result: ExecResult::Finished,
            nodes: nodes.iter().map(|(name, outcome)| (NodeId::new(*name).unwrap(), node(outcome))).collect(),
        }
    }

    #[test]
    fn the_summary_groups_nodes_by_outcome() {
        let record = record(&[
            ("a", NodeOutcome::Exited { code: 0 }),
            ("b", NodeOutcome::Exited { code: 3 }),
            ("c", NodeOutcome::TimedOut),
            ("d", NodeOutcome::CutOff { began: true }),
            ("e", NodeOutcome::Exited { code: 0 }),
            ("f", NodeOutcome::Offline),
            ("g", NodeOutcome::MayHaveRun),
        ]);
        assert_eq!(
            summary(&record, false),
            "exec 0123abcd on 7 nodes, 4.1 s\n  exited with 0: 2 nodes (a, e)\n  exited with 3: 1 node (b)\n  timed out: 1 node (c)\n  \
             cut off while it ran: 1 node (d)\n  cut off: may have run: 1 node (g)\n  offline: never reached: 1 node (f)\n"
        );
        assert_eq!(counts(&record), "1 failed, 3 unknown, 1 timed out or stopped, 2 succeeded");
        assert_eq!((what(&record).as_str(), result(&record).0), ("root: echo hi…", "failed"));
    }

    #[test]
    fn a_record_with_settings_and_output() {
        let record = record(&[("a", NodeOutcome::Exited { code: 3 })]);
        assert_eq!(
            text(&record, 61_000, false),
            "exec 0123abcd  failed  60 s ago, took 4.1 s\nby     root\non     all\nrun    echo hi\n       exit 3\nin     /srv\n\
             with   A\nlimit  5m\n\nNODE  OUTCOME        TOOK\na     exited with 3  1.2 s\n\na\n  hi\n"
        );
    }
}

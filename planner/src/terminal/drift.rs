//! What has drifted on each node, and how it differs from what was applied.

use std::fmt::Write as _;

use groundplan_inventory::DriftPolicy;
use groundplan_protocol::ids::TaskId;

use groundplan_machine::drift::{one_line, plain};

use super::{
    Style,
    format::{ago, count},
};
use crate::api::{
    drift::{Difference, Drift, NodeDrift, TaskDrift},
    types::NodePresence,
};

/// The longest value that is shown on a line, in characters.
const VALUE: usize = 200;

/// All nodes with what has drifted on them, and a summary.
pub(crate) fn text(drift: &Drift, now_ms: u64, color: bool) -> String {
    let mut out = String::new();
    drift.nodes.iter().for_each(|node| node_text(&mut out, node, now_ms, color));
    let nodes = drift.nodes.iter().filter(|node| !node.drifted.is_empty()).count();
    let tasks: usize = drift.nodes.iter().map(|node| node.drifted.len()).sum();
    match tasks {
        0 if drift.nodes.is_empty() => out.push_str("no node is declared\n"),
        0 => out.push_str("\nnothing has drifted, as of these checks\n"),
        _ => {
            let left = drift.nodes.iter().flat_map(|node| node.drifted.values()).filter(|task| !task.healing).count();
            let summary = format!("\n{} on {} drifted", count(tasks, "task"), count(nodes, "node"));
            out.push_str(&summary);
            out.push_str(if left > 0 { "; `groundplan recheck` repairs what is not healing\n" } else { "\n" });
        }
    }
    out
}

fn node_text(out: &mut String, node: &NodeDrift, now_ms: u64, color: bool) {
    let name = Style::Bold.paint(node.node.as_str(), color);
    let presence = match node.presence {
        NodePresence::Online => "",
        NodePresence::Offline => "offline; ",
        NodePresence::Unknown => "never reported; ",
    };
    let Some(check) = &node.check else {
        let _ = writeln!(out, "{name}  {presence}{}", Style::Warn.paint("no drift check yet", color));
        return;
    };
    let (word, style) = match node.drifted.len() {
        0 => ("nothing drifted".to_owned(), Style::Good),
        n => (format!("{} drifted", count(n, "task")), Style::Bad),
    };
    let checked = count(check.checked as usize, "task");
    let _ = writeln!(
        out,
        "{name}  {presence}{}, {checked} checked {}",
        style.paint(&word, color),
        ago(check.at_ms, now_ms)
    );
    for (task, drifted) in &node.drifted {
        task_text(out, task, drifted, now_ms, color);
    }
    for (task, why) in &node.failed {
        let why = plain(why);
        let _ = writeln!(out, "  {task}  {}: {why}", Style::Bad.paint("cannot be checked", color));
    }
}

fn task_text(out: &mut String, task: &TaskId, drifted: &TaskDrift, now_ms: u64, color: bool) {
    let outlook = match (drifted.healing, drifted.policy, drifted.tried_ms) {
        (true, ..) => "healing".to_owned(),
        (false, DriftPolicy::Heal, Some(tried)) => {
            format!("healed {}, and drifted again: paused for a while", ago(tried, now_ms))
        }
        (false, DriftPolicy::Heal, None) => "not healed: the active commit changes this task".to_owned(),
        (false, DriftPolicy::Report, _) => "reported only".to_owned(),
    };
    let since = ago(drifted.since_ms, now_ms);
    let _ = writeln!(out, "  {}  since {since}, {outlook}", Style::Warn.paint(&task.to_string(), color));
    if drifted.differences.is_empty() {
        out.push_str("    no longer differs\n");
    }
    for Difference { what, expected, found, diff, .. } in &drifted.differences {
        let is = match (expected, found) {
            (Some(expected), Some(found)) => format!("{expected} → {found}"),
            (Some(expected), None) => format!("{expected} → nothing"),
            (None, Some(found)) => found.clone(),
            (None, None) => "differs".to_owned(),
        };
        let _ = writeln!(out, "    {}: {}", one_line(what, VALUE), one_line(&is, VALUE));
        for line in diff.iter().flat_map(|diff| diff.lines()) {
            let style = match line.as_bytes().first() {
                Some(b'+') => Style::Good,
                Some(b'-') => Style::Bad,
                _ => Style::Plain,
            };
            let _ = writeln!(out, "      {}", style.paint(&plain(line), color));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use groundplan_protocol::ids::NodeId;

    use super::*;
    use crate::api::drift::DriftCheck;

    fn drift() -> Drift {
        let content = Difference {
            what: "content".into(),
            expected: None,
            found: None,
            diff: Some("--- applied\n+++ found\n@@ -1 +1 @@\n-a\n+b\n".into()),
            contents: None,
        };
        let mode = Difference {
            what: "mode".into(),
            expected: Some("0644".into()),
            found: Some("0600".into()),
            diff: None,
            contents: None,
        };
        let drifted = TaskDrift {
            policy: DriftPolicy::Report,
            healing: false,
            tried_ms: None,
            since_ms: 0,
            differences: vec![content, mode],
        };
        let check = DriftCheck { asked: 7, at_ms: 60_000, duration_ms: 3, checked: 4, left_out: 0 };
        let node = |name: &str, presence, check, drifted: Vec<(&str, TaskDrift)>| NodeDrift {
            node: NodeId::new(name).unwrap(),
            presence,
            check,
            drifted: drifted.into_iter().map(|(task, drifted)| (task.parse().unwrap(), drifted)).collect(),
            failed: BTreeMap::new(),
        };
        let nodes = vec![
            node("a", NodePresence::Online, Some(check.clone()), vec![("web.config", drifted)]),
            node("b", NodePresence::Offline, Some(check), vec![]),
            node("c", NodePresence::Unknown, None, vec![]),
        ];
        Drift { version: 1, nodes }
    }

    #[test]
    fn a_diff_is_shown_below_its_task() {
        insta::assert_snapshot!(text(&drift(), 120_000, false), @r"
        a  1 task drifted, 4 tasks checked 60 s ago
          web.config  since 2 min ago, reported only
            content: differs
              --- applied
              +++ found
              @@ -1 +1 @@
              -a
              +b
            mode: 0644 → 0600
        b  offline; nothing drifted, 4 tasks checked 60 s ago
        c  never reported; no drift check yet

        1 task on 1 node drifted; `groundplan recheck` repairs what is not healing
        ");
    }
}

//! One node with what does not work there, the facts and exports that it reported, and with what it keeps of what was there before.

use std::fmt::Write as _;

use groundplan_protocol::state::{FoundList, FoundThing};

use super::{
    Style,
    format::{ago, bytes, first_line},
    status::{failures, faults},
};
use crate::api::types::NodeStatus;

/// When the node was last seen, what does not work there, and a section each for its facts, its exports, and what it keeps to be restored.
pub(crate) fn text(node: &NodeStatus, now_ms: u64, color: bool) -> String {
    let seen = node.last_seen_ms.map_or("never reported".to_owned(), |ms| format!("last seen {}", ago(ms, now_ms)));
    let mut out = format!("{}  {seen}\n", Style::Bold.paint(node.node.as_str(), color));
    for fault in faults(node).chain(failures(node)) {
        let _ = writeln!(out, "  {}", Style::Bad.paint(&fault, color));
    }
    let mut section = |title: &str, lines: &[(String, String)]| {
        if !lines.is_empty() {
            let _ = writeln!(out, "\n{}", Style::Dim.paint(title, color));
            let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
            lines.iter().for_each(|(name, value)| {
                let _ = writeln!(out, "  {name:width$}  {value}");
            });
        }
    };
    let mut facts = Vec::new();
    node.facts.iter().for_each(|(name, value)| flat(name.clone(), value, &mut facts));
    section("facts", &facts);
    let exports: Vec<_> = node.exports.iter().map(|(task, value)| (task.to_string(), first_line(value))).collect();
    section("exports", &exports);
    section("kept to be restored", &found(&node.found));
    if node.facts.is_empty() {
        out.push_str("\nno facts reported yet\n");
    }
    out
}

/// What was there before tasks took it, by claim, and how much of it is not listed.
fn found(found: &FoundList) -> Vec<(String, String)> {
    let thing = |thing: &FoundThing| {
        let size = if thing.size > 0 { format!(", {}", bytes(thing.size)) } else { String::new() };
        (thing.claim.clone(), first_line(&format!("{}{size}", thing.what)))
    };
    let mut lines: Vec<_> = found.first.iter().map(thing).collect();
    let more = found.total.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push((format!("and {more} more"), format!("{} in all", bytes(found.bytes))));
    }
    lines
}

/// Flattens a fact into lines, named as templates name them: `os.version`.
fn flat(name: String, value: &serde_json::Value, out: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(parts) => {
            parts.iter().for_each(|(part, value)| flat(format!("{name}.{part}"), value, out));
        }
        serde_json::Value::String(text) => out.push((name, first_line(text))),
        value => out.push((name, value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_lists_what_it_keeps() {
        let thing = |claim: &str, what: &str, size| FoundThing { claim: claim.to_owned(), what: what.to_owned(), size };
        let first = vec![
            thing("kernel parameter vm.swappiness", "60", 0),
            thing("path /etc/motd", "file", 286),
            thing("path /etc/resolv.conf", "link to ../run/systemd/resolve/stub-resolv.conf", 0),
            thing("path /usr/local/bin/tool", "file", 5 << 20),
        ];
        let node = serde_json::json!({
            "node": "n1", "declared": true, "presence": "online", "generation": 1, "commit": null, "planned": 1, "phase": "idle",
            "counts": {
                "pending": 0, "waiting": 0, "running": 0, "changed": 0, "unchanged": 0, "failed": 0, "blocked": 0, "superseded": 0
            },
            "applied": 4, "refused": null, "ignored": 0, "rejected": null, "last_seen_ms": 60_000, "agent": null,
            "facts": { "arch": "x86_64" }
        });
        let mut node: NodeStatus = serde_json::from_value(node).unwrap();
        node.found = FoundList { total: 207, bytes: 7 << 20, first };
        node.degraded.insert("web.server".parse().unwrap(), "the process exited with status 3".to_owned());
        insta::assert_snapshot!(text(&node, 120_000, false), @r"
        n1  last seen 60 s ago
          web.server is degraded: the process exited with status 3

        facts
          arch  x86_64

        kept to be restored
          kernel parameter vm.swappiness  60
          path /etc/motd                  file, 286 bytes
          path /etc/resolv.conf           link to ../run/systemd/resolve/stub-resolv.conf
          path /usr/local/bin/tool        file, 5.0 MiB
          and 203 more                    7.0 MiB in all
        ");
    }
}

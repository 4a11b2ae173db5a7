//! One node with the facts and exports that it reported.

use std::fmt::Write as _;

use super::{
    Style,
    format::{ago, first_line},
};
use crate::api::types::NodeStatus;

/// When the node was last seen, and a section each for its facts and exports.
pub(crate) fn text(node: &NodeStatus, now_ms: u64, color: bool) -> String {
    let seen = node.last_seen_ms.map_or("never reported".to_owned(), |ms| format!("last seen {}", ago(ms, now_ms)));
    let mut out = format!("{}  {seen}\n", Style::Bold.paint(node.node.as_str(), color));
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
    if node.facts.is_empty() {
        out.push_str("\nno facts reported yet\n");
    }
    out
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

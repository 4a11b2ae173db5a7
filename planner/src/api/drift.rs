//! Drift in the local API: requests for checks, and what the checks found. `VERSION` of the API covers these types.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use groundplan_core::desired::Resolved;
use groundplan_inventory::DriftPolicy;
use groundplan_protocol::{
    blob::Content,
    ids::{NodeId, ServiceId, TaskId},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use similar::TextDiff;

use super::types::NodePresence;
use crate::select::Selector;

/// Lines around a change in a text diff.
const CONTEXT: usize = 3;
/// How long texts are compared before the diff need not be the smallest.
const PATIENCE: Duration = Duration::from_millis(200);

/// `POST /v1/drift`: have nodes check for drift now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DriftCheckRequest {
    /// On the nodes that any of these selectors means; none: on all.
    #[serde(default)]
    pub on: Vec<Selector>,
    /// Services of interest. Every node checks all that it has applied; these only have to exist.
    #[serde(default)]
    pub services: BTreeSet<ServiceId>,
    /// Tasks of interest, as above.
    #[serde(default)]
    pub tasks: BTreeSet<TaskId>,
    /// Only answer which nodes are meant, and have none of them check.
    #[serde(default)]
    pub name_only: bool,
}

/// What was asked upon a [`DriftCheckRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftChecksRequested {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The nodes that are meant, each with the number that its report will answer at least; 0 where it was not asked.
    pub asked: BTreeMap<NodeId, u64>,
}

/// `GET /v1/drift/answered`: which request each node has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftAnswers {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// Every node that is declared.
    pub nodes: BTreeMap<NodeId, DriftAnswer>,
}

/// What a node has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftAnswer {
    /// Whether its agent is connected.
    pub presence: NodePresence,
    /// The request that its last report answers; 0 if there was none.
    pub asked: u64,
}

/// `GET /v1/drift`, or `GET /v1/drift?nodes=NODE,NODE`: what the last drift check of each node found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// Every node that is declared, in name order.
    pub nodes: Vec<NodeDrift>,
}

/// What the last drift check of one node found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeDrift {
    /// The node's id in the inventory.
    pub node: NodeId,
    /// Whether its agent is connected.
    pub presence: NodePresence,
    /// Its last drift check; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<DriftCheck>,
    /// What has drifted, by task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drifted: BTreeMap<TaskId, TaskDrift>,
    /// What could not be checked, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<TaskId, String>,
}

/// A finished drift check of all applied tasks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftCheck {
    /// The request that it answers, or the last that was answered.
    pub asked: u64,
    /// When it began, by the node's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How many tasks were checked.
    pub checked: u64,
    /// How many cannot be checked, or were at work.
    pub left_out: u64,
}

/// A task that is no longer as it was applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskDrift {
    /// Whether it is repaired.
    pub policy: DriftPolicy,
    /// Whether a plan repairs it, or is about to.
    pub healing: bool,
    /// When its repair was last tried, in milliseconds since the Unix epoch, as far as this planner has seen: it rests until the next
    /// check at an interval, or for a minute where nodes check only on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_ms: Option<u64>,
    /// When it was first found out of sync, by the node's clock, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// What differs; none where its kind can only detect that something does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// What, such as `mode`.
    pub what: String,
    /// The state that was applied, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The state that was found, as text; absent where there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// For texts: a unified diff from what was applied to what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// What the diff is made of: what was applied, where it is known, and what is there.
    #[serde(skip)]
    pub(crate) contents: Option<(Option<Arc<Resolved>>, Content)>,
}

impl Drift {
    /// Computes the diffs. Takes up to `PATIENCE` for each text: not for the loop, which all clients share.
    pub(crate) fn compare(&mut self) {
        let tasks = self.nodes.iter_mut().flat_map(|node| node.drifted.values_mut());
        for difference in tasks.flat_map(|task| &mut task.differences) {
            let Some((applied, found)) = difference.contents.take() else { continue };
            match diff(applied.as_ref().and_then(|applied| applied.spec.content.as_ref()), &found) {
                Ok(text) => difference.diff = Some(text),
                Err(why) => _ = difference.found.get_or_insert_with(|| why.to_owned()),
            }
        }
    }
}

/// A unified diff, or why there is none.
fn diff(applied: Option<&Content>, found: &Content) -> Result<String, &'static str> {
    let applied = match applied {
        None => return Err("something else; what was applied is not in the active commit"),
        Some(Content::Blob(_)) => return Err("something else; what was applied is too long to be compared"),
        Some(Content::Base64(_)) => return Err("something else; what was applied is no text"),
        Some(Content::Text(applied)) => applied,
    };
    let found = match found {
        Content::Text(found) => found,
        Content::Base64(_) => return Err("something else, which is no text"),
        Content::Blob(_) => return Err("something else, too long to be shown"),
    };
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(applied, found);
    Ok(diff.unified_diff().context_radius(CONTEXT).header("applied", "found").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Content {
        Content::Text(text.to_owned())
    }

    #[test]
    fn texts_are_compared_line_by_line() {
        let text_diff = diff(Some(&text("a\nb\nc\n")), &text("a\nB\nc\n")).unwrap();
        assert_eq!(text_diff, "--- applied\n+++ found\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n");
        assert!(diff(Some(&text("a\n")), &text("a")).unwrap().contains("No newline at end of file"));
    }

    #[test]
    fn what_is_no_text_is_told_in_words() {
        let long = Content::of(&vec![b'x'; 1 << 20]);
        assert!(diff(Some(&text("a")), &Content::of(&[0xff, 0xfe])).unwrap_err().contains("no text"));
        assert!(diff(Some(&text("a")), &long).unwrap_err().contains("too long"));
        assert!(diff(Some(&long), &text("a")).unwrap_err().contains("too long"));
        assert!(diff(None, &text("")).unwrap_err().contains("not in the active commit"));
    }
}

//! Nodes that contradict themselves: what they report otherwise than before is acted on more and more rarely.

use std::fmt;

use groundplan_protocol::ids::TaskId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A node that contradicts itself again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unsteady {
    /// How often in a row it has done so.
    pub times: u32,
    /// Until when the planner goes on with what the node reported before, in milliseconds since the Unix epoch; or until a commit changes it.
    pub until_ms: u64,
    /// The tasks that it reports otherwise, or publishes other values of.
    pub tasks: Vec<TaskId>,
}

impl fmt::Display for Unsteady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: Vec<String> = self.tasks.iter().take(3).map(ToString::to_string).collect();
        let more = if self.tasks.len() > tasks.len() { ", …" } else { "" };
        write!(
            f,
            "contradicts itself, {} times in a row: what it reports about {}{more} waits",
            self.times,
            tasks.join(", ")
        )
    }
}

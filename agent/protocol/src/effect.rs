//! What a plan does to an instance, and what a trigger edge does to its target.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a plan does to an instance.
///
/// An instance that changes and also has triggers shows the change: `create`, `update` or `remove`. Agents of release 0.1 refuse a plan
/// with `forget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Apply what was not applied before.
    Create,
    /// Apply it with other inputs than before.
    Update,
    /// Remove what is no longer desired.
    Remove,
    /// Drop the record of it, and leave the host as it is: an operator asked for that.
    Forget,
    /// Unchanged itself; restart it if a trigger fires.
    Restart,
    /// Unchanged itself; reload it if a trigger fires.
    Reload,
    /// Unchanged itself; run it again if a trigger fires.
    Run,
}

impl Action {
    /// Its name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Remove => "remove",
            Self::Forget => "forget",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Run => "run",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a trigger edge does to its target. The greater one includes the lesser: a restart also reloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Run a command again.
    Run,
    /// Make it read its configuration again.
    Reload,
    /// Stop it and start it.
    Restart,
}

impl Effect {
    /// The action of an instance that only a trigger brought into the plan.
    pub fn action(self) -> Action {
        match self {
            Self::Run => Action::Run,
            Self::Reload => Action::Reload,
            Self::Restart => Action::Restart,
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.action().as_str())
    }
}

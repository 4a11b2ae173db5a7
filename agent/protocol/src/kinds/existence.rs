//! Whether something is to exist on the node.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether something is to exist on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Existence {
    /// It exists.
    #[default]
    Present,
    /// It does not exist.
    Absent,
}

impl Existence {
    /// Whether it is to exist.
    pub fn is_present(&self) -> bool {
        *self == Self::Present
    }
}

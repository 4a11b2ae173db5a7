//! Whether something is to be there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether something is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is there.
    #[default]
    Present,
    /// It is not there.
    Absent,
}

impl Presence {
    /// Whether it is to be there.
    pub fn is_present(&self) -> bool {
        *self == Self::Present
    }
}

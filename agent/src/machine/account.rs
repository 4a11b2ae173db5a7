//! When something ran, and what it printed: the part of a report that is no outcome.

use groundplan_protocol::{report::Output, time::Now};

/// When something ran, and what it printed.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    /// Milliseconds since the Unix epoch.
    pub(super) started_ms: u64,
    pub(super) duration_ms: u64,
    pub(super) output: Option<Output>,
}

impl Account {
    /// Of something that took no time and printed nothing.
    pub(super) fn at(now: Now) -> Self {
        Self { started_ms: now.wall_ms, ..Self::default() }
    }
}

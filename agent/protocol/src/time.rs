//! Time as a value: state machines never read a clock, each input comes with the moment at which it came.

use std::time::Duration;

/// The moment of an input. Not on the wire: what the machines on both sides share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Since the process started, by a clock that never goes back.
    pub mono: Duration,
    /// By the host's clock, in milliseconds since the Unix epoch; may jump.
    pub wall_ms: u64,
}

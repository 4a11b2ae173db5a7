//! Time as a value: the machine never looks at a clock, it is told.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment, as the machine is told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Since the agent started; never goes back.
    pub mono: Duration,
    /// By the node's clock, in milliseconds since the Unix epoch; may jump.
    pub wall_ms: u64,
}

/// Where the shell reads the time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Begins to count.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// This moment.
    pub fn now(&self) -> Now {
        Now { mono: self.start.elapsed(), wall_ms: wall_ms(SystemTime::now()) }
    }

    /// The instant at which `mono` is reached.
    pub fn instant(&self, mono: Duration) -> Instant {
        self.start + mono
    }
}

/// Milliseconds since the Unix epoch; 0 before it.
pub fn wall_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

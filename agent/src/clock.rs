//! The agent's clock: the one place where it reads the time, for the machine to take as a value.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use groundplan_protocol::time::Now;

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

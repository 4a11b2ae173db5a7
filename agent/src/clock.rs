//! The agent's clock: the one place where it reads the time, which the machine takes as a value.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use groundplan_protocol::time::Now;

/// The clock of one process; monotonic time counts from its start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time since the agent started, which never goes back, and the wall clock's, which may.
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

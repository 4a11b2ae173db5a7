//! The agent's clock: the one place where it reads the time, which the machine takes as a value.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use groundplan_protocol::time::Now;
use nix::time::{ClockId, clock_gettime};

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

    /// The time since the host was booted: unlike the monotonic time of [`Self::now`] it goes on while the host is suspended (`CLOCK_BOOTTIME`,
    /// clock_gettime(2)). Time during which a hypervisor had stopped the host is not in it.
    pub fn since_boot(&self) -> Duration {
        // It fails for clocks that the kernel does not have; every kernel since 2.6.39 has this one.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or_else(|_| self.start.elapsed(), Duration::from)
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

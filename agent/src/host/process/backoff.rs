//! How long to wait before a process that ended is started again.

use std::time::Duration;

/// Waiting times between restarts of a supervised process.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The first wait; doubled each time.
    pub first: Duration,
    /// The longest wait, at which doubling ends.
    pub most: Duration,
    /// How long the process must run for the next wait to be the first one again.
    pub healthy: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        let [first, most, healthy] = [200, 30_000, 60_000].map(Duration::from_millis);
        Self { first, most, healthy }
    }
}

impl Backoff {
    /// The wait after the process has ended `ends` times in a row, counted from 1.
    pub(crate) fn after(&self, ends: u32) -> Duration {
        let factor = 1_u32.checked_shl(ends.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_its_limit() {
        let backoff = Backoff::default();
        let waits: Vec<u128> = [1, 2, 3, 8, 9, 40, u32::MAX].map(|n| backoff.after(n).as_millis()).into();
        assert_eq!(waits, [200, 400, 800, 25_600, 30_000, 30_000, 30_000]);
    }
}

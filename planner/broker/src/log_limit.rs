//! A bound on what clients can make the broker log.
//!
//! In: the time of a line. Out: whether it may be written, and how many were not. Bounded for all clients together, because an attacker
//! has as many addresses and names as it wants.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines in a [`WINDOW`].
const LINES: u32 = 20;
/// How long a window lasts.
const WINDOW: Duration = Duration::from_secs(10);
/// Characters of a client's text that are logged.
const TEXT: usize = 100;

/// Counts lines; see the module.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Whether a line may be written now; if so, how many were not since the last one.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (window.began, window.lines) = (Some(now), 0);
        }
        if window.lines == LINES {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

/// Logs a warning that a client can cause, unless there were too many.
macro_rules! warn_limited {
    ($limit:expr, $($line:tt)+) => {
        match $limit.admit(std::time::Instant::now()) {
            None => {}
            Some(0) => tracing::warn!($($line)+),
            Some(suppressed) => {
                tracing::warn!(suppressed, "the broker has left out warnings about its clients");
                tracing::warn!($($line)+);
            }
        }
    };
}
pub(crate) use warn_limited;

/// A client's text for the log: its beginning, escaped.
pub(crate) fn excerpt(text: &str) -> String {
    let end = text.char_indices().nth(TEXT).map_or(text.len(), |(at, _)| at);
    text[..end].escape_debug().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_a_few_lines_and_its_number() {
        let (limit, begin) = (LogLimit::default(), Instant::now());
        let written = (0..1000).filter(|_| limit.admit(begin).is_some()).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(limit.admit(begin + WINDOW), Some(980));
        assert_eq!(limit.admit(begin + WINDOW), Some(0));
    }
}

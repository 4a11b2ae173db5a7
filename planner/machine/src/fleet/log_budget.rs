//! How many lines of the log one node may cause: a burst, and then few. What is left out is counted, and the next line has the number.

use std::time::Duration;

/// Lines at once: a node on which everything stops working at the same time.
const BURST: u32 = 50;

/// How often there is room for another line.
const EVERY: Duration = Duration::from_secs(10);

/// The budget of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogBudget {
    /// Lines of the burst that are used up, as of `at`.
    used: u32,
    at: Duration,
    left_out: u64,
}

impl LogBudget {
    /// The line to be logged, if there is room for it.
    pub(crate) fn line(&mut self, text: String, now: Duration) -> Option<String> {
        let free = u32::try_from(now.saturating_sub(self.at).as_secs() / EVERY.as_secs()).unwrap_or(u32::MAX);
        if free >= self.used {
            (self.used, self.at) = (0, now);
        } else if free > 0 {
            self.used -= free;
            self.at += EVERY * free;
        }
        if self.used >= BURST {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.used += 1;
        match std::mem::take(&mut self.left_out) {
            0 => Some(text),
            n => Some(format!("{text} (after {n} lines about this node that were left out)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_few() {
        let mut budget = LogBudget::default();
        let mut logged = Vec::new();
        // A thousand lines a second for a minute, after a long time.
        for n in 0..60_000_u64 {
            logged.extend(budget.line("x".to_owned(), Duration::from_secs(9000) + Duration::from_millis(n)));
        }
        assert_eq!(logged.len() as u32, BURST + 5);
        assert_eq!(logged[BURST as usize], "x (after 9950 lines about this node that were left out)");
        assert_eq!(budget.line("y".to_owned(), Duration::from_secs(20_000)).unwrap().split(' ').next(), Some("y"));
        assert_eq!(budget.line("z".to_owned(), Duration::from_secs(20_000)).as_deref(), Some("z"));
    }
}

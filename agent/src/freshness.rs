//! Whether what planners send still arrives: a broker, or whoever is between, can keep all news from a node, and shows it what it likes of
//! what was signed before.
//!
//! In: heartbeats whose signature was verified, and the time. Out: what to report once none has come for a while that is later than all
//! before; the key that the planners announce in them; and a file, by which `groundplan-agent --check` finds the same without the broker.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use groundplan_protocol::{duration::Span, encryption::EncryptionKey, presence::Heartbeat, time::Now};
use serde::{Deserialize, Serialize};

use crate::private;

/// The file's name in the state directory.
const FILE: &str = "heard";

/// The last heartbeat that was fresh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Heard {
    /// When it was sent, by the planner's clock, in milliseconds since the Unix epoch.
    at_ms: u64,
    /// When it came, by this host's.
    heard_ms: u64,
    /// The planner's term.
    term: u64,
    /// The key to encrypt to planners with.
    #[serde(default)]
    key: Option<EncryptionKey>,
    /// When it was announced, by the planner's clock: an earlier key does not come back.
    #[serde(default)]
    key_ms: u64,
}

/// What an agent knows of the planners' heartbeats.
#[derive(Debug)]
pub struct Freshness {
    path: PathBuf,
    /// How long none may come.
    silence: Duration,
    last: Heard,
    /// When the last one came, or the agent started, by the monotonic clock.
    since: Duration,
    /// Whether silence was reported.
    silent: bool,
}

impl Freshness {
    /// What an agent knows that starts now. Those that came before its start do not count again.
    pub fn open(state_dir: &Path, silence: Duration, now: Now) -> Self {
        let path = state_dir.join(FILE);
        let last = read(&path).unwrap_or_default();
        Self { path, silence, last, since: now.mono, silent: false }
    }

    /// A heartbeat came. One that is not later than all before shows nothing, nor does one that was kept back: if this host's clock is right.
    /// Returns whether what is reported changes.
    ///
    /// # Errors
    /// The file cannot be written; the heartbeat counts all the same.
    pub fn heard(&mut self, beat: &Heartbeat, now: Now) -> io::Result<bool> {
        // Whatever the time is here: without the key nothing could be reported, a wrong clock included.
        let known = self.last.key;
        if beat.encryption_key.is_some() && beat.at_ms > self.last.key_ms {
            (self.last.key, self.last.key_ms) = (beat.encryption_key, beat.at_ms);
        }
        let late = now.wall_ms.saturating_sub(beat.at_ms);
        let fresh = beat.at_ms > self.last.at_ms && u128::from(late) <= self.silence.as_millis();
        if fresh {
            (self.last.at_ms, self.last.heard_ms, self.last.term) = (beat.at_ms, now.wall_ms, beat.term);
            self.since = now.mono;
        } else if self.last.key == known {
            return Ok(false);
        }
        let changes = fresh && std::mem::take(&mut self.silent);
        private::replace(&self.path, &serde_json::to_vec(&self.last).unwrap_or_default()).map(|()| changes)
    }

    /// The key to encrypt to planners with, once one has announced it.
    pub fn encryption_key(&self) -> Option<EncryptionKey> {
        self.last.key
    }

    /// When silence is to be reported, by the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        (!self.silent).then_some(self.since + self.silence)
    }

    /// Whether it is silent as of now, and was not before.
    pub fn falls_silent(&mut self, now: Duration) -> bool {
        let due = self.deadline().is_some_and(|at| now >= at);
        self.silent |= due;
        due
    }

    /// What to report, if it is silent.
    pub fn trouble(&self) -> Option<String> {
        let silence = Span::millis(self.silence.as_millis() as u64);
        self.silent.then(|| format!("no planner was heard for {silence}: nothing that is signed and new has come"))
    }
}

fn read(path: &Path) -> Option<Heard> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Whether the agent with this state directory hears from a planner; `Err` if it does not, or is not there to hear.
///
/// # Errors
/// With what is wrong, and what to do about it.
pub fn check(state_dir: &Path, silence: Duration, now_ms: u64) -> Result<String, String> {
    let hint = "is the agent running, does `groundplan serve` run, and does the broker deliver?";
    let Some(heard) = read(&state_dir.join(FILE)) else {
        return Err(format!("no planner was heard since this node's state was made; {hint}"));
    };
    let ago = Duration::from_millis(now_ms.saturating_sub(heard.heard_ms));
    let text = format!("a planner was heard {} s ago, in term {}", ago.as_secs(), heard.term);
    if ago > silence { Err(format!("{text}, and none since; {hint}")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::envelope::SigningKey;

    use super::*;

    fn beat(s: u64, encryption_key: Option<EncryptionKey>) -> Heartbeat {
        let site = "s".parse().unwrap();
        Heartbeat { version: 1, site, term: 2, at_ms: (1_000_000 + s) * 1000, encryption_key }
    }

    #[test]
    fn the_key_announced_last_counts_also_by_a_wrong_clock_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = [1, 2].map(|seed| SigningKey::from_seed([seed; 32]).decryption().public());
        let ahead = Now { mono: Duration::ZERO, wall_ms: u64::MAX / 2 };
        let open = || Freshness::open(dir.path(), Duration::from_secs(300), ahead);
        let mut fresh = open();
        assert_eq!(fresh.encryption_key(), None);
        assert!(!fresh.heard(&beat(100, Some(one)), ahead).unwrap());
        assert_eq!((fresh.encryption_key(), open().encryption_key()), (Some(one), Some(one)));
        fresh.heard(&beat(200, Some(other)), ahead).unwrap();
        // What was announced before comes again, and a planner of before announces none.
        fresh.heard(&beat(100, Some(one)), ahead).unwrap();
        fresh.heard(&beat(300, None), ahead).unwrap();
        assert_eq!((fresh.encryption_key(), open().encryption_key()), (Some(other), Some(other)));
    }

    #[test]
    fn only_later_and_timely_ones_count() {
        let dir = tempfile::tempdir().unwrap();
        let silence = Duration::from_secs(300);
        let now = |s: u64| Now { mono: Duration::from_secs(s), wall_ms: (1_000_000 + s) * 1000 };
        let beat = |s: u64| beat(s, None);
        assert!(check(dir.path(), silence, now(0).wall_ms).unwrap_err().contains("no planner was heard"));
        let mut fresh = Freshness::open(dir.path(), silence, now(0));
        assert_eq!((fresh.deadline(), fresh.trouble()), (Some(silence), None));
        assert!(!fresh.heard(&beat(100), now(100)).unwrap());
        assert_eq!(check(dir.path(), silence, now(160).wall_ms).unwrap(), "a planner was heard 60 s ago, in term 2");
        // The same one again and again, and one that was kept back for long.
        assert!(!fresh.heard(&beat(100), now(300)).unwrap());
        assert!(!fresh.heard(&beat(101), now(402)).unwrap());
        assert!(fresh.falls_silent(now(402).mono) && !fresh.falls_silent(now(403).mono));
        assert!(fresh.trouble().unwrap().starts_with("no planner was heard for 5m"), "{:?}", fresh.trouble());
        assert!(check(dir.path(), silence, now(402).wall_ms).unwrap_err().contains("heard 302 s ago"));
        // Also not after a restart.
        let mut fresh = Freshness::open(dir.path(), silence, now(403));
        assert!(!fresh.heard(&beat(100), now(404)).unwrap());
        assert!(fresh.falls_silent(now(703).mono));
        assert!(fresh.heard(&beat(704), now(705)).unwrap());
        assert_eq!((fresh.trouble(), check(dir.path(), silence, now(706).wall_ms).is_ok()), (None, true));
    }
}

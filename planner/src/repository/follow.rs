//! Which branch is followed, and how fetching goes.
//!
//! [`fetch_all`] fetches a mirror at an interval, at once when asked to, and less often while it fails; each fetch runs on a thread of its
//! own, so that nothing waits for a server. Readers get the [`FetchState`] at any time. A branch that is configured is followed whatever
//! happens; else the remote's default branch, under its new name once the old one is gone.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::{Repository, error::RepositoryError};
use crate::clock::wall_ms;

/// The longest pause between two fetches that fail, unless the interval is longer.
const PAUSE: Duration = Duration::from_secs(60);

/// How fetching goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FetchState {
    /// Since when a fetch is under way, in milliseconds since the Unix epoch.
    pub(crate) since_ms: Option<u64>,
    /// What git has reported of it last.
    pub(crate) progress: Option<String>,
    /// When one succeeded last, since the start of the planner.
    pub(crate) fetched_ms: Option<u64>,
    /// Since when they fail, and why the last one did.
    pub(crate) failing: Option<(u64, String)>,
    /// When the next one begins, while none is under way.
    pub(crate) next_ms: Option<u64>,
}

/// What is followed, shared by the watch of the branch, the fetching, and readers.
pub(crate) struct Follow {
    repository: Repository,
    inner: Mutex<(Option<String>, FetchState)>,
    /// Whether the branch was configured.
    configured: bool,
    at_once: Notify,
    /// Has the branch be read.
    read: watch::Sender<()>,
}

impl Follow {
    /// Follows `branch` or, if there is none, the default branch: of a mirror, that of its remote as soon as it is known.
    ///
    /// # Errors
    /// `HEAD` of a local repository names no branch.
    pub(crate) fn new(repository: Repository, branch: Option<String>) -> Result<Arc<Self>, RepositoryError> {
        let configured = branch.is_some();
        let branch = match branch {
            None if repository.is_mirror() => repository.default_branch().ok().filter(|branch| repository.has(branch)),
            None => Some(repository.default_branch()?),
            given => given,
        };
        let inner = Mutex::new((branch, FetchState::default()));
        Ok(Arc::new(Self { repository, inner, configured, at_once: Notify::new(), read: watch::Sender::new(()) }))
    }

    fn lock(&self) -> MutexGuard<'_, (Option<String>, FetchState)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The branch that is followed; none until a remote has named its default branch.
    pub(crate) fn branch(&self) -> Option<String> {
        self.lock().0.clone()
    }

    /// How fetching goes; none for a local repository.
    pub(crate) fn fetching(&self) -> Option<FetchState> {
        self.repository.is_mirror().then(|| self.lock().1.clone())
    }

    /// Has the repository be fetched, or read if it is local, without waiting for the interval.
    pub(crate) fn now(&self) {
        // While a fetch is under way, another one follows it: what was pushed meanwhile may have come too late for it.
        self.at_once.notify_one();
        self.read.send_replace(());
    }

    /// Resolves when the branch is to be read.
    pub(super) fn reads(&self) -> watch::Receiver<()> {
        self.read.subscribe()
    }

    /// Follows the default branch under its new name once the one that was followed is gone.
    fn rename(&self) {
        let mut inner = self.lock();
        if self.configured || inner.0.as_ref().is_some_and(|branch| self.repository.has(branch)) {
            return;
        }
        let default = self.repository.default_branch().ok().filter(|branch| self.repository.has(branch));
        if let Some(default) = default {
            if let Some(before) = &inner.0 {
                tracing::warn!(before, now = default, "the default branch of the repository has another name");
            }
            inner.0 = Some(default);
        }
    }

    fn begin(&self) {
        let state = &mut self.lock().1;
        (state.since_ms, state.progress, state.next_ms) = (Some(wall_ms()), None, None);
    }

    /// Takes the end of a fetch. Returns the pause until the next one; `failed` is how many have failed in a row.
    fn end(&self, fetched: Result<(), RepositoryError>, interval: Duration, failed: &mut u32) -> Duration {
        let now = wall_ms();
        let mut inner = self.lock();
        let state = &mut inner.1;
        (state.since_ms, state.progress) = (None, None);
        let pause = match fetched {
            Ok(()) => {
                if state.failing.take().is_some() {
                    tracing::info!("the repository can be fetched again");
                }
                (*failed, state.fetched_ms) = (0, Some(now));
                interval
            }
            Err(error) => {
                let hint = error.hint().map_or(String::new(), |hint| format!(" ({hint})"));
                let error = format!("{error}{hint}");
                if state.failing.as_ref().is_none_or(|(_, before)| *before != error) {
                    tracing::warn!(error, "the repository cannot be fetched");
                }
                state.failing = Some((state.failing.as_ref().map_or(now, |(since, _)| *since), error));
                *failed += 1;
                interval.saturating_mul(1 << (*failed - 1).min(6)).min(PAUSE.max(interval))
            }
        };
        state.next_ms = Some(now + pause.as_millis() as u64);
        pause
    }
}

/// Fetches a mirror for as long as it is not dropped; returns at once for a local repository. `silence` is how long the server may send
/// nothing.
pub(crate) async fn fetch_all(follow: Arc<Follow>, interval: Duration, silence: Duration) {
    let mut failed = 0;
    while follow.repository.is_mirror() {
        follow.begin();
        let running = follow.clone();
        let fetch = move || {
            let note = |line: &str| running.lock().1.progress = Some(line.to_owned());
            let fetched = running.repository.fetch(silence, &mut { note });
            running.rename();
            fetched
        };
        let fetched = tokio::task::spawn_blocking(fetch)
            .await
            .unwrap_or_else(|error| Err(RepositoryError::Git { what: "fetch".to_owned(), stderr: error.to_string() }));
        let pause = follow.end(fetched, interval, &mut failed);
        follow.read.send_replace(());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = follow.at_once.notified() => {}
        }
    }
}

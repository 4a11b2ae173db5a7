//! Watches the tip of a branch.
//!
//! In: an open repository and a branch. Out: the branch's tip at the start and whenever it changes, or the error of reading it. Events
//! of the file system are hints that cause a read at once; polling at an interval makes up for lost events and for file systems without
//! events. During a burst of events, the branch is read at its beginning and once after it.

use std::{path::Path, sync::Arc, time::Duration};

use groundplan_protocol::ids::CommitId;
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};

use super::{Repository, error::RepositoryError, follow::Follow};

/// The shortest pause between two reads during a burst of events.
const COALESCE: Duration = Duration::from_millis(2);

/// The tip of the branch, or the error of reading it.
pub type Seen = Result<CommitId, RepositoryError>;

/// Watches until the receiver of `tips` is dropped. The first read is immediate. A tip, or an error, is sent only if it differs from the
/// one before. `poll` is the interval of reading without an event.
pub(crate) async fn watch(repository: Repository, follow: Arc<Follow>, poll: Duration, tips: mpsc::Sender<Seen>) {
    let (hint, mut hints) = watch::channel(());
    // Dropping it would end the events. Without it (for example at the limit of inotify watches), polling alone has to do.
    let _watcher = start(&repository, hint)
        .inspect_err(|error| tracing::warn!(%error, "no events from the repository's files; polling only"))
        .ok();
    let mut asked = follow.reads();
    let mut last: Option<Result<CommitId, String>> = None;
    loop {
        if let Some(tip) = read(&repository, &follow).await {
            let comparable = tip.as_ref().map(Clone::clone).map_err(ToString::to_string);
            if last.as_ref() != Some(&comparable) {
                last = Some(comparable);
                if tips.send(tip).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(COALESCE).await;
        tokio::select! {
            // An error means that there is no watcher, and would return at once each time: wait for the interval instead.
            hinted = hints.changed() => if hinted.is_err() {
                tokio::time::sleep(poll).await;
            },
            _ = asked.changed() => {}
            () = tokio::time::sleep(poll) => {}
            () = tips.closed() => return,
        }
    }
}

/// The tip. None while a branch that is missing may still come: as long as nothing of a remote is known, and during a fetch, which deletes
/// branches before it makes new ones. Why nothing comes is part of how fetching goes.
async fn read(repository: &Repository, follow: &Follow) -> Option<Seen> {
    let branch = follow.branch()?;
    let fetching = follow.fetching().is_some_and(|state| state.fetched_ms.is_none() || state.since_ms.is_some());
    let repository = repository.clone();
    match tokio::task::spawn_blocking(move || repository.branch(&branch)).await {
        Ok(Err(RepositoryError::Empty { .. } | RepositoryError::NoBranch { .. })) if fetching => None,
        Ok(tip) => Some(tip),
        Err(error) => Some(Err(RepositoryError::Git { what: "reading".to_owned(), stderr: error.to_string() })),
    }
}

fn start(repository: &Repository, hint: watch::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|e| matters(&e)) {
            hint.send_replace(());
        }
    })?;
    let [git_dir, common_dir] = repository.git_dirs();
    watcher.watch(&git_dir, RecursiveMode::NonRecursive)?;
    if common_dir != git_dir {
        watcher.watch(&common_dir, RecursiveMode::NonRecursive)?;
    }
    for (name, mode) in [("refs", RecursiveMode::Recursive), ("reftable", RecursiveMode::NonRecursive)] {
        let path = common_dir.join(name);
        if path.is_dir() {
            watcher.watch(&path, mode)?;
        }
    }
    Ok(watcher)
}

/// Whether an event may mean that a branch moved. Reads, lock files, the index and objects are ignored: git writes them at almost every
/// command.
fn matters(event: &notify::Event) -> bool {
    let ours = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        let lock = path.extension().is_some_and(|e| e == "lock");
        let below = path.components().any(|c| c.as_os_str() == "refs" || c.as_os_str() == "reftable");
        !lock && (below || name == "HEAD" || name == "packed-refs")
    };
    event.need_rescan() || (!matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(|p| ours(p)))
}

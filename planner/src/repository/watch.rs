//! Word when a branch moves.
//!
//! In: an open repository and a branch. Out: the branch's tip, at first and whenever it is another one, or why it cannot be
//! told. Events of the file system are hints that make it look at once; it looks at an interval as well, so a lost event or a file
//! system without them costs only time. A burst of hints is looked at when it begins and once more after it.

use std::{path::Path, time::Duration};

use groundplan_protocol::ids::CommitId;
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{Repository, error::RepositoryError};

/// How long a burst of hints is left alone between two looks.
const COALESCE: Duration = Duration::from_millis(2);

/// What to watch.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// The branch.
    pub branch: String,
    /// How often to look without a hint.
    pub poll: Duration,
    /// How often to fetch, if the repository mirrors a remote one.
    pub fetch: Duration,
}

/// What was seen: the tip, or why there is none.
pub type Seen = Result<CommitId, RepositoryError>;

/// Watches until the receiver of `tips` is gone. The first look comes at once. The same tip is told once, and so is the same error.
pub async fn watch(repository: Repository, options: WatchOptions, tips: mpsc::Sender<Seen>) {
    let (hint, mut hints) = watch::channel(());
    // Kept alive until the end; without it (no inotify left, say) the interval has to do.
    let _watcher = start(&repository, hint)
        .inspect_err(
            |error| tracing::warn!(%error, "no events from the repository's files; looking at an interval only"),
        )
        .ok();
    let mut last: Option<Result<CommitId, String>> = None;
    let mut fetched = Instant::now();
    loop {
        let fetch = repository.is_mirror() && fetched.elapsed() >= options.fetch;
        let seen = look(&repository, &options.branch, fetch).await;
        if fetch {
            fetched = Instant::now();
        }
        let told = seen.as_ref().map(Clone::clone).map_err(ToString::to_string);
        if last.as_ref() != Some(&told) {
            last = Some(told);
            if tips.send(seen).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(COALESCE).await;
        let wait = if repository.is_mirror() { options.poll.min(options.fetch) } else { options.poll };
        tokio::select! {
            hinted = hints.changed() => if hinted.is_err() {
                tokio::time::sleep(wait).await;
            },
            () = tokio::time::sleep(wait) => {}
            () = tips.closed() => return,
        }
    }
}

async fn look(repository: &Repository, branch: &str, fetch: bool) -> Seen {
    let (repository, branch) = (repository.clone(), branch.to_owned());
    let look = move || {
        if fetch {
            repository.fetch()?;
        }
        repository.branch(&branch)
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(seen) => seen,
        Err(error) => Err(RepositoryError::Git { what: "look".to_owned(), stderr: error.to_string() }),
    }
}

fn start(repository: &Repository, hint: watch::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|e| matters(&e)) {
            hint.send_replace(());
        }
    })?;
    let [git_dir, common_dir] = repository.git_dirs();
    watcher.watch(git_dir, RecursiveMode::NonRecursive)?;
    if common_dir != git_dir {
        watcher.watch(common_dir, RecursiveMode::NonRecursive)?;
    }
    for (name, mode) in [("refs", RecursiveMode::Recursive), ("reftable", RecursiveMode::NonRecursive)] {
        let path = common_dir.join(name);
        if path.is_dir() {
            watcher.watch(&path, mode)?;
        }
    }
    Ok(watcher)
}

/// Whether an event may mean that a branch moved: no mere reading, no lock file, nothing of the index or the objects.
fn matters(event: &notify::Event) -> bool {
    let ours = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        let lock = path.extension().is_some_and(|e| e == "lock");
        let below = path.components().any(|c| c.as_os_str() == "refs" || c.as_os_str() == "reftable");
        !lock && (below || name == "HEAD" || name == "packed-refs")
    };
    event.need_rescan() || (!matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(|p| ours(p)))
}

//! The planner daemon: `groundplan serve`, and the planner inside `groundplan up`.
//!
//! In: a [`ServeConfig`]. Out: it runs until it is to stop. Only puts the parts together: repository and watch, store, keys, API, and the
//! shell, which gives what comes in to the machine and carries out what the machine decides.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use groundplan_machine::write::{Stored, Write};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use crate::{
    api::{ListenError, server},
    config::ServeConfig,
    private,
    repository::{
        Repository, RepositoryError,
        follow::{Follow, fetch_all},
        watch::watch,
    },
    shell::{Shell, Sources},
    store::{Group, Store, StoreError},
    transport::TransportError,
    trust::{self, TrustError},
};

/// Why a planner does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state directory.
    #[error("cannot make the state directory {}", path.display())]
    StateDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The broker's settings.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The API's socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A fault of the program.
    #[error("the planner ended because of a fault in the program")]
    Task(#[from] tokio::task::JoinError),
}

impl ServeError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Repository(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::StateDir { .. } => Some("name one that this user may write with --state".to_owned()),
            Self::Trust(_) | Self::Transport(_) | Self::Listen(_) | Self::Task(_) => None,
        }
    }
}

/// Runs a planner until `stop` is ready; then publishes that it is offline and returns.
///
/// # Errors
/// It cannot start with this configuration. Everything else (no broker, a broken commit, a full disk) it waits out; a full disk is in its log, the rest in its status.
pub async fn run(config: ServeConfig, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
    // Another library may have installed one before; any does.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    make_state_dir(&config.state_dir)?;
    let key = trust::planner_key(&config.state_dir, config.key.as_deref())?;
    let (mut store, mut stored) = Store::open(&config.state_dir)?;
    name_planner(&mut store, &mut stored)?;
    let seed = trust::random()?;

    let (location, state_dir, branch) = (config.repository.clone(), config.state_dir.clone(), config.branch.clone());
    // Without the network: the API must answer while a server does not.
    let open = move || {
        let repository = Repository::open_location(&location, &state_dir)?;
        let follow = Follow::new(repository.clone(), branch)?;
        Ok::<_, RepositoryError>((repository, follow))
    };
    let (repository, follow) = tokio::task::spawn_blocking(open).await??;

    let socket = config.socket();
    let listener = server::listen(&socket).await?;
    let (sender, tips) = mpsc::channel(4);
    let watching = tokio::spawn(watch(repository.clone(), follow.clone(), config.poll, sender));
    let fetching = tokio::spawn(fetch_all(follow.clone(), config.fetch, config.fetch_timeout));
    let hangups = config.fetch_on_hangup.then(|| tokio::spawn(fetch_on_hangup(follow.clone())));
    let (stopping, stopped) = oneshot::channel();
    let waiting = tokio::spawn(async move {
        stop.await;
        let _ = stopping.send(());
    });
    let shell = Shell::new(config, follow, Arc::new(key), repository.clone(), (store, stored), seed);
    let api = tokio::spawn(server::serve(listener, shell.handle()));
    // On a thread of its own: it waits for the disk, and must not hold up the broker beside it.
    let runtime = tokio::runtime::Handle::current();
    let sources = Sources { tips, stop: stopped };
    let result = tokio::task::spawn_blocking(move || runtime.block_on(shell.run(sources))).await;
    // First, so that none of them is waited for.
    repository.stop();
    [waiting, watching, fetching].into_iter().chain(hangups).for_each(|task| task.abort());
    api.abort();
    let _ = fs::remove_file(&socket);
    Ok(result??)
}

/// Fetches at each SIGHUP.
async fn fetch_on_hangup(follow: Arc<Follow>) {
    match signal(SignalKind::hangup()) {
        Ok(mut hangups) => {
            while hangups.recv().await.is_some() {
                follow.now();
            }
        }
        Err(error) => tracing::warn!(%error, "SIGHUP does not fetch the repository"),
    }
}

/// Makes the state directory, for this user alone, if it is not there.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make_state_dir(dir: &Path) -> Result<(), ServeError> {
    let trusted = dir.join("trusted");
    // An operator may have made the latter.
    let made =
        private::parents(dir).and_then(|()| if trusted.exists() { private::directory(&trusted) } else { Ok(()) });
    made.map_err(|source| ServeError::StateDir { path: dir.to_owned(), source })
}

/// A planner has an id from its first start on.
fn name_planner(store: &mut Store, stored: &mut Stored) -> Result<(), ServeError> {
    if stored.meta.planner.is_empty() {
        let random: [u8; 8] = trust::random()?;
        stored.meta.planner = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut group = Group::default();
        group.push(Write::Meta(Box::new(stored.meta.clone())));
        store.commit(&group)?;
    }
    Ok(())
}

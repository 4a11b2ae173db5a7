//! The unix socket that the API listens on; only its owner may open it.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use super::{peer::Peer, routes::router};
use crate::{private, shell::Handle};

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another planner answers there.
    #[error("another planner listens on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Listens on `path`; takes the place of a socket on which no planner answers.
///
/// # Errors
/// Another planner answers there, or the system refuses.
pub(crate) async fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let io = |source| ListenError::Io { path: path.to_owned(), source };
    if UnixStream::connect(path).await.is_ok() {
        return Err(ListenError::InUse { path: path.to_owned() });
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    private::listen(path).map_err(io)
}

/// Answers until it is dropped.
pub(crate) async fn serve(listener: UnixListener, handle: Handle) -> io::Result<()> {
    axum::serve(listener, router(handle).into_make_service_with_connect_info::<Peer>()).await
}

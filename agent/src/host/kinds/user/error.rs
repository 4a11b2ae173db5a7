//! Why a user is not in the state that was asked for.

use super::{super::group::AccountError, keys::KeysError};
use crate::host::{
    error::{KindError, ToolError},
    found::FoundError,
    fs::users,
};

/// Why a user could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserKindError {
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error("cannot write the ssh keys of {user} below its home {home}")]
    Keys { user: String, home: String, source: KeysError },
    #[error("the user {0} has no home directory for its ssh keys; `create_home = true` creates one")]
    NoHome(String),
    #[error("cannot read /etc/shadow, where the password of {user} is")]
    Shadow { user: String, source: std::io::Error },
    #[error("cannot record that the user is about to be changed, so it is not: {}", path.display())]
    Moving { path: std::path::PathBuf, source: std::io::Error },
    #[error(transparent)]
    Group(#[from] users::UserError),
    #[error(transparent)]
    Found(#[from] FoundError),
}

impl KindError for UserKindError {}

impl From<ToolError> for UserKindError {
    fn from(error: ToolError) -> Self {
        Self::Account(error.into())
    }
}

//! `link`: a symbolic link. It replaces a file or another link at its path, never a directory.

use groundplan_protocol::kinds::Link;

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{error::HostError, fs::files};

impl Kind for Link {
    fn notes_changes(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        Ok(cx.is_link(&self.path, &self.target, false)?.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        cx.wrote(files::put_link(&cx.host.environment.root, &self.path, &self.target))?;
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        Ok(cx.removed(files::remove_file(&cx.host.environment.root, &self.path, true)?))
    }
}

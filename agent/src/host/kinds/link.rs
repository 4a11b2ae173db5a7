//! `link`: a symbolic link. It replaces another link at its path, and what the task had there as another kind; anything else only
//! by force, and never a directory.

use groundplan_protocol::kinds::Link;

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::HostError,
    fs::files::{self, FileError, Occupant},
};

impl Kind for Link {
    fn notes_changes(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        Ok(cx.is_link(&self.path, &self.target, false)?.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let root = &cx.host.environment.root;
        let there = match files::occupant(root, &self.path)? {
            Some(Occupant::File) => Some("a file").filter(|_| !cx.has_put(&self.path)),
            Some(Occupant::Special) => Some("something that is not a file"),
            _ => None,
        };
        if let Some(there) = there.filter(|_| !self.force) {
            return Err(FileError::NeedsForce { path: self.path.clone(), there }.into());
        }
        cx.wrote(files::put_link(root, &self.path, &self.target))?;
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        Ok(cx.removed(files::remove_file(&cx.host.environment.root, &self.path, true)?))
    }
}

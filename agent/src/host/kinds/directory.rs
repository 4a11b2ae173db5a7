//! `directory`: a directory with given owner and mode. Removed only if it is empty.

use groundplan_protocol::kinds::Directory;

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::HostError,
    fs::files::{self, Access, FileError},
};

impl Kind for Directory {
    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let access = access(self)?;
        let in_sync = match files::is_directory(&cx.host.environment.root, &self.path, access) {
            Err(FileError::Path(e)) if e.is_not_a_directory() => false,
            result => result?,
        };
        if !in_sync && cx.is_drift_check() {
            cx.compare_file(&self.path, None, access, false)?;
        }
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        files::put_directory(&cx.host.environment.root, &self.path, access(self)?)?;
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        Ok(cx.removed(files::remove_directory(&cx.host.environment.root, &self.path)?))
    }
}

fn access(directory: &Directory) -> Result<Access, HostError> {
    let Directory { path, owner, group, mode } = directory;
    Ok(Access::new(path, owner.as_deref(), group.as_deref(), mode.as_deref(), 0o755)?)
}

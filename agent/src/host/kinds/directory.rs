//! `directory`: a directory with given owner and mode. Removed only if it is empty.

use groundplan_protocol::{ids::TaskId, kinds::Directory};

use super::{Applied, Check, Context, Hold, Kind};
use crate::host::{
    HostError,
    files::{self, Access, FileError},
};

impl Kind for Directory {
    fn hold(&self, _: &TaskId) -> Hold {
        Hold::Directory(self.path.clone())
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let access = access(self)?;
        let so = match files::is_directory(&cx.host.surroundings.root, &self.path, access) {
            Err(FileError::Path(e)) if e.is_not_a_directory() => false,
            result => result?,
        };
        if !so && cx.is_look() {
            cx.tell_file(&self.path, None, access, false)?;
        }
        Ok(so.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        files::put_directory(&cx.host.surroundings.root, &self.path, access(self)?)?;
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        Ok(cx.removed(files::remove_directory(&cx.host.surroundings.root, &self.path)?))
    }
}

fn access(directory: &Directory) -> Result<Access, HostError> {
    let Directory { path, owner, group, mode } = directory;
    Ok(Access::new(path, owner.as_deref(), group.as_deref(), mode.as_deref(), 0o755)?)
}

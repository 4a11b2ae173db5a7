//! `link`: a symbolic link. It replaces a file or another link at its path, never a directory.

use groundplan_protocol::{ids::TaskId, kinds::Link};

use super::{Applied, Check, Context, Hold, Kind};
use crate::host::{HostError, files};

impl Kind for Link {
    fn hold(&self, _: &TaskId) -> Hold {
        Hold::File(self.path.clone())
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        Ok(cx.is_link(&self.path, &self.target, false)?.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        files::put_link(&cx.host.surroundings.root, &self.path, &self.target)?;
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        Ok(cx.removed(files::remove_file(&cx.host.surroundings.root, &self.path, true)?))
    }
}

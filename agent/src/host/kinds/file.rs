//! `file` and `template`: a file with given content, owner and mode. For an agent the two are the same: content comes rendered.

use groundplan_protocol::kinds::{File, Template, Validate};

use super::{
    context::{Context, Shipped},
    kind::{Applied, Check, Kind, blocking},
};
use crate::host::{
    error::HostError,
    fs::{
        files::{self, Access, Replace},
        validate,
    },
};

/// Content of more bytes than this is hashed and copied off the event loop.
const LARGE: u64 = 256 * 1024;

/// The parameters that both kinds have.
struct Params<'a> {
    path: &'a str,
    owner: Option<&'a str>,
    group: Option<&'a str>,
    mode: Option<&'a str>,
    validate: Option<&'a Validate>,
    over: Replace,
}

macro_rules! params {
    ($from:expr) => {
        Params {
            path: &$from.path,
            owner: $from.owner.as_deref(),
            group: $from.group.as_deref(),
            mode: $from.mode.as_deref(),
            validate: $from.validate.as_ref(),
            over: Replace::by_force($from.force),
        }
    };
}

macro_rules! file_kind {
    ($kind:ident) => {
        impl Kind for $kind {
            fn notes_changes(&self) -> bool {
                true
            }

            fn drifts(&self, cx: &Context<'_>) -> bool {
                cx.content.is_some()
            }

            async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
                params!(self).check(cx).await
            }

            async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
                params!(self).apply(cx).await
            }

            async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
                Ok(cx.removed(files::remove_file(&cx.host.environment.root, &self.path, false)?))
            }
        }
    };
}

file_kind!(File);
file_kind!(Template);

impl Params<'_> {
    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let sum = shipped(cx)?.sum;
        let access = self.access()?;
        if sum.size <= LARGE {
            return Ok(cx.is_file(self.path, sum, access, false)?.into());
        }
        let (root, path) = (cx.host.environment.root.clone(), self.path.to_owned());
        let in_sync = blocking(move || files::is_file(&root, &path, sum, access)).await??;
        if !in_sync && cx.is_drift_check() {
            cx.compare_file(self.path, Some(sum), access, false)?;
        }
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let shipped = shipped(cx)?;
        let (content, sum) = (shipped.bytes()?, shipped.sum);
        let (access, over) = (self.access()?, self.over);
        let root = &cx.host.environment.root;
        if let Some(validate) = self.validate {
            validate::put(cx, self.path, content, sum, access, over, validate).await?;
        } else if sum.size > LARGE {
            let (root, path, content) = (root.clone(), self.path.to_owned(), content.clone());
            cx.wrote(blocking(move || files::replace(&root, &path, &content, sum, access, over)).await?)?;
        } else {
            cx.wrote(files::replace(root, self.path, content, sum, access, over))?;
        }
        Ok(Applied { afresh: false })
    }

    fn access(&self) -> Result<Access, HostError> {
        Ok(Access::new(self.path, self.owner, self.group, self.mode, 0o644)?)
    }
}

fn shipped<'a>(cx: &Context<'a>) -> Result<Shipped<'a>, HostError> {
    cx.content.ok_or(HostError::NoContent)
}

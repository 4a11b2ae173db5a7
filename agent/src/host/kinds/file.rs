//! `file` and `template`: a file with given content, owner and mode. To a node the two are one: content comes rendered.

use groundplan_protocol::{
    ids::TaskId,
    kinds::{File, Template, Validate},
};

use super::{Applied, Check, Context, Hold, Kind, aside};
use crate::host::{
    HostError,
    files::{self, Access, Sum},
    job::Content,
    validate,
};

/// Content of more bytes than this is hashed and copied off the event loop.
const LARGE: u64 = 256 * 1024;

/// What both kinds have.
struct Params<'a> {
    path: &'a str,
    owner: Option<&'a str>,
    group: Option<&'a str>,
    mode: Option<&'a str>,
    validate: Option<&'a Validate>,
}

macro_rules! params {
    ($from:expr) => {
        Params {
            path: &$from.path,
            owner: $from.owner.as_deref(),
            group: $from.group.as_deref(),
            mode: $from.mode.as_deref(),
            validate: $from.validate.as_ref(),
        }
    };
}

macro_rules! file_kind {
    ($kind:ident) => {
        impl Kind for $kind {
            fn hold(&self, _: &TaskId) -> Hold {
                Hold::File(self.path.clone())
            }

            async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
                params!(self).check(cx).await
            }

            async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
                params!(self).apply(cx).await
            }

            async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
                Ok(cx.removed(files::remove_file(&cx.host.surroundings.root, &self.path, false)?))
            }
        }
    };
}

file_kind!(File);
file_kind!(Template);

impl Params<'_> {
    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let (_, sum) = content(cx)?;
        let access = self.access()?;
        let (root, path) = (cx.host.surroundings.root.clone(), self.path.to_owned());
        let check = move || files::is_file(&root, &path, sum, access);
        Ok(if sum.size > LARGE { aside(check).await?? } else { check()? }.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let (content, sum) = content(cx)?;
        let access = self.access()?;
        let root = &cx.host.surroundings.root;
        if let Some(validate) = self.validate {
            validate::put(cx, self.path, content, sum, access, validate).await?;
        } else if sum.size > LARGE {
            let (root, path, content) = (root.clone(), self.path.to_owned(), content.clone());
            aside(move || files::put_file(&root, &path, &content, sum, access)).await??;
        } else {
            files::put_file(root, self.path, content, sum, access)?;
        }
        Ok(Applied { afresh: false })
    }

    fn access(&self) -> Result<Access, HostError> {
        Ok(Access::new(self.path, self.owner, self.group, self.mode, 0o644)?)
    }
}

fn content<'a>(cx: &Context<'a>) -> Result<(&'a Content, Sum), HostError> {
    cx.content.ok_or(HostError::NoContent)
}

//! `export`: a value of this node, published to the planner.
//!
//! The check determines the value, and only a value that differs from the last published one counts as a change. It is text of
//! 16 KiB at most, in one line unless the task allows several; output of a command beyond that is read and dropped, and the task fails.

use std::collections::BTreeMap;

use groundplan_protocol::{
    effect::Effect,
    kinds::{EXPORT_LIMIT, Export, Run},
};
use serde_json::Value;

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError},
    fs::files,
    process::{
        exec::{self, Apart, ExecError, Limit, Ran, named},
        spawn::Program,
    },
};

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error("{path}: there is no such file")]
    NoFile { path: String },
    #[error("{from} gives more than {} KiB; publish only the part that others need", EXPORT_LIMIT / 1024)]
    TooLarge { from: String },
    #[error("{from} gives bytes that are not UTF-8; encode them, with base64(1), for example")]
    NoText { from: String },
    #[error("{from} gives a value that {fault}")]
    Unfit { from: String, fault: String },
    #[error(transparent)]
    Exec(ExecError),
}

impl KindError for ExportError {}

impl Kind for Export {
    /// A value that has changed is not drift: the next job that runs the task publishes it.
    fn drifts(&self, _: &Context<'_>) -> bool {
        false
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let value = value(self, cx).await?;
        let same = cx.memory().and_then(Value::as_str) == Some(&value);
        cx.remember(&value);
        cx.publish(value);
        Ok(same.into())
    }

    /// Nothing to do: the check has published the value.
    async fn apply(&self, _: &Context<'_>) -> Result<Applied, HostError> {
        Ok(Applied { afresh: true })
    }

    /// Nothing to do: the published value is dropped with the task's record.
    async fn remove(&self, _: &Context<'_>) -> Result<bool, HostError> {
        Ok(true)
    }

    async fn effect(&self, cx: &Context<'_>, _: Effect) -> Result<bool, HostError> {
        Ok(self.check(cx).await? == Check::OutOfSync)
    }
}

async fn value(export: &Export, cx: &Context<'_>) -> Result<String, HostError> {
    let (bytes, from) = match (&export.command, &export.path) {
        (Some(run), _) => (printed(export, run, cx).await?, named(run)),
        (None, Some(path)) => {
            let read = files::read_file(&cx.host.environment.root, path, EXPORT_LIMIT as u64 + 1)?;
            (read.ok_or_else(|| ExportError::NoFile { path: path.clone() })?, path.clone())
        }
        (None, None) => (export.value.clone().unwrap_or_default().into_bytes(), "`value`".to_owned()),
    };
    if bytes.len() > EXPORT_LIMIT {
        return Err(ExportError::TooLarge { from }.into());
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) if export.trim() => text.trim().to_owned(),
        Ok(text) => text,
        Err(_) => return Err(ExportError::NoText { from }.into()),
    };
    match export.fault(&text) {
        Some(fault) => Err(ExportError::Unfit { from, fault }.into()),
        None => Ok(text),
    }
}

/// What `run` writes to its standard output: at most one byte more than the limit.
async fn printed(export: &Export, run: &Run, cx: &Context<'_>) -> Result<Vec<u8>, ExportError> {
    let program = Program { run, env: &BTreeMap::new(), cwd: None, user: export.user.as_deref() };
    let (host, limit) = (cx.host, Limit::of(export.timeout().into()));
    let apart = Apart { stdin: None, most: EXPORT_LIMIT, ends: false };
    let (ran, value) = exec::run_apart(&host.environment, &program, apart, limit, host.stop_grace, cx.cancel).await;
    let (end, output) = Ran::success(ran, run);
    if let Err(e) = end {
        cx.print(output);
        return Err(ExportError::Exec(e));
    }
    Ok(value)
}

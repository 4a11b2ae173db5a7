//! Validation of a file's new content before it replaces the old.
//!
//! In: the content, and what it must pass. Out: the file in place, or an error that names the line and the fault, with the old
//! file as it was. The agent itself parses formats; a command gets the path of the new file, which is beside the old one.

use std::{io, path::Path, time::Duration};

use groundplan_protocol::kinds::{Format, Run, Validate, Validator};

use super::{
    files::{self, Access, FileError, Replace, Sum},
    ini::Document,
};
use crate::host::{
    error::{HostError, KindError},
    job::Content,
    kinds::context::Context,
    process::exec::named,
    tool::{Answer, Tool},
};

/// Most bytes of content that the agent itself reads into memory.
const MOST: u64 = 16 << 20;

/// How long a command may validate new content.
const LIMIT: Duration = Duration::from_secs(60);

/// Why new content was not put in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValidateError {
    #[error("{path}: the new content is not valid {format}, and the old file stays as it is: {fault}")]
    Format { path: String, format: &'static str, fault: String },
    #[error("{path}: {run} refuses the new content, and the old file stays as it is: {message}")]
    Refused { path: String, run: String, message: String },
    #[error("{path}: cannot read the new content")]
    Read { path: String, source: io::Error },
}

impl KindError for ValidateError {}

/// Makes `path` a file with that content and access, in place of what `over` allows, if the content passes.
pub(crate) async fn put(
    cx: &Context<'_>,
    path: &str,
    content: &Content,
    sum: Sum,
    access: Access,
    over: Replace,
    validate: &Validate,
) -> Result<(), HostError> {
    let root = &cx.host.environment.root;
    let validator = match validate {
        Validate::Format(format) => {
            check_format(path, content, sum.size, *format)?;
            return Ok(cx.wrote(files::replace(root, path, content, sum, access, over))?);
        }
        Validate::Command(validator) => validator,
    };
    let staged = files::stage_file(root, path, content, sum, access, over);
    if staged.as_ref().is_err_and(FileError::is_after_change) {
        cx.changing();
    }
    let Some(staged) = staged? else {
        // The content is in place, and owner and mode are changed.
        cx.changing();
        return Ok(());
    };
    ask(cx, path, validator, &staged.path()).await?;
    Ok(cx.wrote(staged.put())?)
}

fn check_format(path: &str, content: &Content, size: u64, format: Format) -> Result<(), ValidateError> {
    let fails = |fault| ValidateError::Format { path: path.to_owned(), format: format.as_str(), fault };
    if size > MOST {
        return Err(fails(format!("it has more than {} MiB, too much to be validated", MOST >> 20)));
    }
    let read;
    let bytes = match content {
        Content::Bytes(bytes) => bytes,
        Content::File(file) => {
            read = std::fs::read(file).map_err(|source| ValidateError::Read { path: path.to_owned(), source })?;
            &read
        }
    };
    fault(bytes, format)
        .map_or(Ok(()), |fault| Err(ValidateError::Format { path: path.to_owned(), format: format.as_str(), fault }))
}

/// The first fault in `bytes`, with its line; `None` if they are valid.
fn fault(bytes: &[u8], format: Format) -> Option<String> {
    if format == Format::Json {
        // Its message ends with line and column.
        return serde_json::from_slice::<serde::de::IgnoredAny>(bytes).err().map(|e| e.to_string());
    }
    let line = |at: usize| bytes[..at.min(bytes.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => return Some(format!("line {} is not UTF-8", line(e.valid_up_to()))),
    };
    match format {
        Format::Toml => toml::from_str::<toml::Table>(text).err().map(|e| {
            let at = e.span().map_or(0, |span| span.start);
            format!("line {}: {}", line(at), e.message().replace('\n', ", "))
        }),
        Format::Ini | Format::Json => Document::parse(text).err().map(|fault| fault.to_string()),
    }
}

async fn ask(cx: &Context<'_>, path: &str, validator: &Validator, file: &Path) -> Result<(), HostError> {
    let file = file.to_string_lossy();
    let run = match &validator.command {
        Run::Shell(line) => {
            let quoted = format!("'{}'", file.replace('\'', r"'\''"));
            Run::Shell(line.replace("%s", &quoted))
        }
        Run::Args(args) => Run::Args(args.iter().map(|arg| arg.replace("%s", &file)).collect()),
    };
    let Answer { status, out, err, .. } = Tool::of(run).limit(LIMIT).ask(cx).await?;
    if status.success() {
        return Ok(());
    }
    let message = if err.is_empty() { out.trim() } else { err.trim() };
    let message = message.lines().last().map_or_else(|| status.to_string(), |_| message.to_owned());
    Err(ValidateError::Refused { path: path.to_owned(), run: named(&validator.command), message }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_with_their_line() {
        for (format, good) in
            [(Format::Ini, "[a]\nb = c\n"), (Format::Json, "{\"a\": [1]}"), (Format::Toml, "a = 1\n[b]\nc = [2]\n")]
        {
            assert_eq!(fault(good.as_bytes(), format), None);
        }
        for (format, bad, word) in [
            (Format::Ini, &b"[a]\nb = c\n[d\n"[..], "line 3: the section's header is not closed: `[d`"),
            (Format::Ini, b"a = \xff", "line 1 is not UTF-8"),
            (Format::Json, b"{\"a\": 1,\n}", "key must be a string at line 2 column 1"),
            (Format::Toml, b"a = 1\na = 2\n", "line 2: duplicate key"),
        ] {
            assert_eq!(fault(bad, format).as_deref(), Some(word));
        }
    }
}

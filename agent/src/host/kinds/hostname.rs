//! `hostname`: the host's own name: `/etc/hostname`, the kernel's (sethostname(2)) and `/etc/machine-info` (hostnamectl(1)).
//!
//! Written directly, which works with and without systemd; systemd-hostnamed detects the change.

use std::fs;

use groundplan_protocol::kinds::Hostname;
use nix::unistd::{gethostname, sethostname};
use serde::{Deserialize, Serialize};

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError},
    fs::files::{self, Access, FileError, Sum},
    job::Content,
};

const STATIC: &str = "/etc/hostname";
const INFO: &str = "/etc/machine-info";
const PRETTY: &str = "PRETTY_HOSTNAME=";

/// Why the host's name could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostnameError {
    #[error("the kernel does not accept the name")]
    Kernel(#[source] nix::errno::Errno),
    #[error("cannot read {path}")]
    Read { path: &'static str, source: std::io::Error },
    #[error(transparent)]
    File(#[from] FileError),
}

impl KindError for HostnameError {}

/// The names that a host has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Names {
    /// The content of `/etc/hostname`.
    file: Option<String>,
    running: String,
    pretty: Option<String>,
    /// In the memory: what was tried last, which may have failed halfway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tried: Option<Hostname>,
}

impl Names {
    fn read() -> Result<Self, HostnameError> {
        let running = gethostname().map_err(HostnameError::Kernel)?.to_string_lossy().into_owned();
        // The last assignment counts, as in a shell that reads the file.
        let info = text(INFO)?.unwrap_or_default();
        let pretty = info.lines().rev().find_map(|line| line.trim().strip_prefix(PRETTY)).map(unquoted);
        Ok(Self { file: text(STATIC)?, running, pretty, tried: None })
    }

    /// The name in the file (hostname(5)).
    fn of_file(&self) -> Option<&str> {
        self.file.as_deref()?.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))
    }
}

impl Kind for Hostname {
    fn whole_host(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let names = Names::read()?;
        cx.same("running name", &self.name, &names.running);
        cx.same(STATIC, &self.name, names.of_file().unwrap_or_default());
        if let Some(pretty) = &self.pretty {
            cx.same("pretty name", pretty, names.pretty.as_deref().unwrap_or_default());
        }
        let pretty = self.pretty.is_none() || self.pretty == names.pretty;
        let in_sync = names.running == self.name && names.of_file() == Some(&self.name) && pretty;
        // Noted also if nothing has to change: removal must find that the name was there before.
        if in_sync && cx.memory().is_none() {
            cx.remember(&names);
        }
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let names = Names::read()?;
        let before = cx.memory().and_then(|memory| Names::deserialize(memory).ok());
        cx.remember_first(&Names { tried: Some(self.clone()), ..before.unwrap_or_else(|| names.clone()) })?;
        if names.of_file() != Some(&self.name) {
            put(cx, STATIC, Some(&format!("{}\n", self.name)))?;
        }
        if names.running != self.name {
            sethostname(&self.name).map_err(HostnameError::Kernel)?;
        }
        if self.pretty.is_some() && self.pretty != names.pretty {
            put_pretty(cx, self.pretty.as_deref())?;
        }
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let Some(before) = cx.memory().and_then(|memory| Names::deserialize(memory).ok()) else { return Ok(false) };
        let now = Names::read()?;
        // A name that was changed out of band since then is left as it is.
        let ours = [Some(self), before.tried.as_ref()];
        let is_ours = |name: Option<&str>| ours.iter().flatten().any(|ours| name == Some(&ours.name));
        if is_ours(now.of_file()) && before.file != now.file {
            put(cx, STATIC, before.file.as_deref())?;
        }
        if is_ours(Some(&now.running)) && before.running != now.running {
            sethostname(&before.running).map_err(HostnameError::Kernel)?;
        }
        let is_ours = |pretty: &Option<String>| ours.iter().flatten().any(|ours| ours.pretty == *pretty);
        if now.pretty.is_some() && is_ours(&now.pretty) && before.pretty != now.pretty {
            put_pretty(cx, before.pretty.as_deref())?;
        }
        Ok(Names::read()? != now)
    }
}

fn text(path: &'static str) -> Result<Option<String>, HostnameError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HostnameError::Read { path, source }),
    }
}

fn put(cx: &Context<'_>, path: &str, text: Option<&str>) -> Result<(), HostnameError> {
    let root = &cx.host.environment.root;
    match text {
        Some(text) => {
            let content = Content::Bytes(text.as_bytes().to_vec());
            files::put_file(
                root,
                path,
                &content,
                Sum::of_bytes(text.as_bytes()),
                Access::new(path, None, None, None, 0o644)?,
            )?;
        }
        None => drop(files::remove_file(root, path, false)?),
    }
    Ok(())
}

/// `/etc/machine-info` with that pretty name and its other lines as they are.
fn put_pretty(cx: &Context<'_>, pretty: Option<&str>) -> Result<(), HostnameError> {
    let info = with_pretty(&text(INFO)?.unwrap_or_default(), pretty);
    put(cx, INFO, Some(info.as_str()).filter(|info| !info.is_empty()))
}

fn with_pretty(info: &str, pretty: Option<&str>) -> String {
    let kept = info.lines().filter(|line| !line.trim().starts_with(PRETTY)).map(str::to_owned);
    let line = pretty.map(|pretty| format!("{PRETTY}{}", quoted(pretty)));
    kept.chain(line).map(|line| line + "\n").collect()
}

/// The text in double quotes, as a shell reads it.
fn quoted(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| "\"\\$`".contains(c).then_some('\\').into_iter().chain([c]));
    format!("\"{}\"", escaped.collect::<String>())
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    if let Some(text) = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
        return text.to_owned();
    }
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let mut chars = text.chars();
    let mut plain = String::new();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_names_are_quoted_and_other_lines_stay() {
        let info = with_pretty("CHASSIS=vm\nPRETTY_HOSTNAME=old\n", Some("Bob's \"box\" $1"));
        assert_eq!(info, "CHASSIS=vm\nPRETTY_HOSTNAME=\"Bob's \\\"box\\\" \\$1\"\n");
        assert_eq!(unquoted(info.lines().nth(1).unwrap().strip_prefix(PRETTY).unwrap()), "Bob's \"box\" $1");
        assert_eq!(unquoted("'a \\ b'"), "a \\ b");
        assert_eq!(with_pretty("PRETTY_HOSTNAME=x\n", None), "");
    }

    #[test]
    fn the_file_may_have_comments() {
        let names = Names { file: Some("# ours\n\n ctl-0 \n".to_owned()), ..Names::default() };
        assert_eq!(names.of_file(), Some("ctl-0"));
    }
}

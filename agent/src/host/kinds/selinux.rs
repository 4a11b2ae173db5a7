//! `selinux`: the context of files, a boolean, or the mode, with semanage, restorecon, setsebool and setenforce.
//!
//! On a host without SELinux it is skipped with a note in the report. No test host has SELinux: the suite tests only the skipping,
//! and the parsing of the tools' output; the rest has not been run on a real host.

use std::path::Path;

use groundplan_protocol::kinds::{Selinux, SelinuxMode};

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError, ToolError},
    fs::files,
};

const CONFIG: &str = "/etc/selinux/config";

/// Why SELinux could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelinuxError {
    #[error("this host has no `{program}`; install policycoreutils and its Python utilities")]
    Missing { program: String },
    #[error(transparent)]
    Tool(ToolError),
    #[error("{path} is missing: create it first")]
    NoFile { path: String },
}

impl KindError for SelinuxError {}

impl Kind for Selinux {
    fn whole_host(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        if is_absent(cx) {
            return Ok(Check::InSync);
        }
        if let (Some(path), Some(wanted)) = (&self.path, &self.context_type) {
            if !Path::new(path).exists() {
                return Err(SelinuxError::NoFile { path: path.clone() }.into());
            }
            let listed = tool(cx, &["semanage", "fcontext", "-l", "-C", "-n"]).await?;
            let shown = tool(cx, &["stat", "--format=%C", "--", path]).await?;
            let right = cx.same("type", wanted, type_of(shown.trim()).unwrap_or_default());
            let rule = listed_type(&listed, &pattern(path, self.recursive)).unwrap_or_default();
            return Ok((cx.same("rule", wanted, rule) && right).into());
        }
        if let (Some(boolean), Some(value)) = (&self.boolean, self.value) {
            let listed = tool(cx, &["semanage", "boolean", "-l", "-n"]).await?;
            let found = boolean_of(&listed, boolean);
            let word = |on: Option<bool>| on.map_or("", |on| if on { "on" } else { "off" });
            let now = cx.same(boolean, word(Some(value)), word(found.map(|(now, _)| now)));
            let at_boot = format!("{boolean} at boot");
            return Ok((cx.same(&at_boot, word(Some(value)), word(found.map(|(_, at_boot)| at_boot))) && now).into());
        }
        let Some(mode) = self.mode else { return Ok(Check::InSync) };
        let now = tool(cx, &["getenforce"]).await?;
        let config = files::read_text(&cx.host.environment.root, CONFIG, 1 << 16)?;
        let at_boot = config.as_ref().and_then(|config| config_mode(&config.text));
        let right = cx.same("mode", mode.as_str(), &now.trim().to_ascii_lowercase());
        Ok((cx.same("mode at boot", mode.as_str(), at_boot.unwrap_or_default()) && right).into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        if let (Some(path), Some(wanted)) = (&self.path, &self.context_type) {
            let pattern = pattern(path, self.recursive);
            let listed = tool(cx, &["semanage", "fcontext", "-l", "-C", "-n"]).await?;
            let before = listed_type(&listed, &pattern);
            if cx.memory().is_none() {
                cx.remember(serde_json::json!({ "type": before }));
            }
            let verb = if before.is_some() { "-m" } else { "-a" };
            tool(cx, &["semanage", "fcontext", verb, "-t", wanted, "--", &pattern]).await?;
            restore(self, path, cx).await?;
        } else if let (Some(boolean), Some(value)) = (&self.boolean, self.value) {
            if cx.memory().is_none() {
                let listed = tool(cx, &["semanage", "boolean", "-l", "-n"]).await?;
                cx.remember(serde_json::json!({ "value": boolean_of(&listed, boolean).map(|(_, at_boot)| at_boot) }));
            }
            tool(cx, &["setsebool", "-P", boolean, if value { "on" } else { "off" }]).await?;
        } else if let Some(mode) = self.mode {
            let config = files::read_text(&cx.host.environment.root, CONFIG, 1 << 16)?;
            if cx.memory().is_none() {
                cx.remember(
                    serde_json::json!({ "mode": config.as_ref().and_then(|config| config_mode(&config.text)) }),
                );
            }
            set_mode(mode.as_str(), cx).await?;
        }
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let Some(memory) = cx.memory().filter(|_| !is_absent(cx)) else { return Ok(false) };
        if let Some(path) = &self.path {
            let pattern = pattern(path, self.recursive);
            match memory["type"].as_str() {
                Some(before) => tool(cx, &["semanage", "fcontext", "-m", "-t", before, "--", &pattern]).await?,
                None => tool(cx, &["semanage", "fcontext", "-d", "--", &pattern]).await?,
            };
            if Path::new(path).exists() {
                restore(self, path, cx).await?;
            }
        } else if let (Some(boolean), Some(before)) = (&self.boolean, memory["value"].as_bool()) {
            tool(cx, &["setsebool", "-P", boolean, if before { "on" } else { "off" }]).await?;
        } else if let (Some(_), Some(before)) = (self.mode, memory["mode"].as_str()) {
            set_mode(before, cx).await?;
        }
        Ok(true)
    }
}

/// Whether there is no SELinux; then notes in the report that the task is skipped.
fn is_absent(cx: &Context<'_>) -> bool {
    let absent = !Path::new("/sys/fs/selinux/enforce").exists();
    if absent {
        cx.report("skipped: this host has no SELinux, or it is disabled");
    }
    absent
}

async fn restore(selinux: &Selinux, path: &str, cx: &Context<'_>) -> Result<(), SelinuxError> {
    let args: &[&str] = if selinux.recursive { &["restorecon", "-R", "--", path] } else { &["restorecon", "--", path] };
    tool(cx, args).await.map(drop)
}

async fn set_mode(mode: &str, cx: &Context<'_>) -> Result<(), HostError> {
    let number = if mode == SelinuxMode::Enforcing.as_str() { "1" } else { "0" };
    tool(cx, &["setenforce", number]).await?;
    if let Some(config) = files::read_text(&cx.host.environment.root, CONFIG, 1 << 16)? {
        files::write_text(&cx.host.environment.root, CONFIG, &with_mode(&config.text, mode), config.access)?;
    }
    Ok(())
}

async fn tool(cx: &Context<'_>, args: &[&str]) -> Result<String, SelinuxError> {
    cx.tool(args).await.map_err(|error| match error {
        ToolError::Missing { program } => SelinuxError::Missing { program },
        error => SelinuxError::Tool(error),
    })
}

/// The pattern for a path in the policy: a regular expression (file_contexts(5)).
fn pattern(path: &str, recursive: bool) -> String {
    let mut pattern = String::new();
    for c in path.chars() {
        if ".^$?*+|[](){}\\".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    if recursive { pattern + "(/.*)?" } else { pattern }
}

/// The type in `user:role:type:level`.
fn type_of(context: &str) -> Option<&str> {
    context.split(':').nth(2)
}

/// The type of a pattern in the host's own rules (semanage-fcontext(8), `-l -C`).
fn listed_type<'a>(listed: &'a str, pattern: &str) -> Option<&'a str> {
    let line = listed.lines().find(|line| line.split_whitespace().next() == Some(pattern))?;
    type_of(line.split_whitespace().last()?)
}

/// A boolean's value now and at boot, from semanage-boolean(8).
fn boolean_of(listed: &str, name: &str) -> Option<(bool, bool)> {
    let line = listed.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    let (_, rest) = line.split_once('(')?;
    let (now, at_boot) = rest.split_once(')')?.0.split_once(',')?;
    Some((now.trim() == "on", at_boot.trim() == "on"))
}

fn config_mode(config: &str) -> Option<&str> {
    config.lines().find_map(|line| line.trim().strip_prefix("SELINUX=")).map(str::trim)
}

fn with_mode(config: &str, mode: &str) -> String {
    let line = |line: &str| match line.trim().starts_with("SELINUX=") {
        true => format!("SELINUX={mode}\n"),
        false => format!("{line}\n"),
    };
    config.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_print() {
        let listed =
            "/srv/www(/.*)?   all files   system_u:object_r:httpd_sys_content_t:s0\n/a\\.b  regular file  u:r:b_t:s0\n";
        assert_eq!(pattern("/srv/www", true), "/srv/www(/.*)?");
        assert_eq!(listed_type(listed, "/srv/www(/.*)?"), Some("httpd_sys_content_t"));
        assert_eq!(listed_type(listed, &pattern("/a.b", false)), Some("b_t"));
        assert_eq!(listed_type(listed, "/srv"), None);
        let booleans = "httpd_can_network_connect      (on   ,   off)  Allow httpd to …\nftpd_x (off,off) No\n";
        assert_eq!(boolean_of(booleans, "httpd_can_network_connect"), Some((true, false)));
        assert_eq!((boolean_of(booleans, "ftpd_x"), boolean_of(booleans, "none")), (Some((false, false)), None));
        let config = "# SELINUX= can be\nSELINUX=enforcing\nSELINUXTYPE=targeted\n";
        assert_eq!(config_mode(config), Some("enforcing"));
        assert_eq!(with_mode(config, "permissive"), config.replace("enforcing", "permissive"));
        assert_eq!(type_of("unconfined_u:object_r:user_home_t:s0"), Some("user_home_t"));
    }
}

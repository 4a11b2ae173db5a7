//! `selinux`: the context of files, a boolean, or the mode, with semanage, restorecon, setsebool and setenforce.
//!
//! A label is right if the rule in the policy is, and the file has it: below a directory, if restorecon would change nothing. On a
//! host without SELinux the task is skipped with a note in the report. No test host has SELinux: the suite tests only the skipping,
//! the reading of labels, and the parsing of the tools' output; the rest has not been run on a real host.

use std::{fmt, path::Path};

use groundplan_protocol::kinds::{Selinux, SelinuxMode};
use serde::{Deserialize, Serialize};

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
        if let Some((path, wanted)) = self.path.as_ref().zip(Label::wanted(self)) {
            let root = &cx.host.environment.root;
            if !root.exists(path)? {
                return Err(SelinuxError::NoFile { path: path.clone() }.into());
            }
            let found = files::label(root, path)?.unwrap_or_default();
            let listed = tool(cx, &["semanage", "fcontext", "-l", "-C", "-n"]).await?;
            let rule = listed_label(&listed, &pattern(path, self.recursive)).unwrap_or_default();
            let right = wanted.is(cx, "", &Label::of(&found).unwrap_or_default()) & wanted.is(cx, "rule: ", &rule);
            // Files below may have been made since, or moved here with the labels of where they were.
            let below = match self.recursive {
                true => would_change(&restore(self, path, cx, true).await?),
                false => None,
            };
            if let Some(file) = &below {
                cx.differs(file, Some(&wanted.to_string()), Some("another label"));
            }
            return Ok((right && below.is_none()).into());
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
        if let Some((path, wanted)) = self.path.as_ref().zip(Label::wanted(self)) {
            let pattern = pattern(path, self.recursive);
            let listed = tool(cx, &["semanage", "fcontext", "-l", "-C", "-n"]).await?;
            let before = listed_label(&listed, &pattern);
            if cx.memory().is_none() {
                cx.remember_first(&before.clone().unwrap_or_default())?;
            }
            set_rule(cx, if before.is_some() { "-m" } else { "-a" }, &wanted, &pattern).await?;
            restore(self, path, cx, false).await?;
        } else if let (Some(boolean), Some(value)) = (&self.boolean, self.value) {
            if cx.memory().is_none() {
                let listed = tool(cx, &["semanage", "boolean", "-l", "-n"]).await?;
                let at_boot = boolean_of(&listed, boolean).map(|(_, at_boot)| at_boot);
                cx.remember_first(&serde_json::json!({ "value": at_boot }))?;
            }
            tool(cx, &["setsebool", "-P", boolean, if value { "on" } else { "off" }]).await?;
        } else if let Some(mode) = self.mode {
            let config = files::read_text(&cx.host.environment.root, CONFIG, 1 << 16)?;
            if cx.memory().is_none() {
                let at_boot = config.as_ref().and_then(|config| config_mode(&config.text));
                cx.remember_first(&serde_json::json!({ "mode": at_boot }))?;
            }
            set_mode(mode.as_str(), cx).await?;
        }
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let Some(memory) = cx.memory().filter(|_| !is_absent(cx)) else { return Ok(false) };
        if let Some(path) = &self.path {
            let pattern = pattern(path, self.recursive);
            let before = Label::deserialize(memory).unwrap_or_default();
            match before.context_type {
                Some(_) => set_rule(cx, "-m", &before, &pattern).await?,
                None => tool(cx, &["semanage", "fcontext", "-d", "--", &pattern]).await.map(drop)?,
            }
            if Path::new(path).exists() {
                restore(self, path, cx, false).await?;
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

/// The parts of a label, `user:role:type:level` (selinux(8)), of which some may be left open. Also what the memory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    #[serde(default)]
    user: Option<String>,
    #[serde(default, rename = "type")]
    context_type: Option<String>,
    #[serde(default)]
    level: Option<String>,
}

impl Label {
    /// What a task wants for a path.
    fn wanted(selinux: &Selinux) -> Option<Self> {
        let Selinux { context_type, user, level, .. } = selinux;
        context_type.as_ref()?;
        Some(Self { user: user.clone(), context_type: context_type.clone(), level: level.clone() })
    }

    /// From the text of a label. A level may have colons, and a policy without levels has none.
    fn of(label: &str) -> Option<Self> {
        let mut parts = label.splitn(4, ':').map(|part| Some(part.to_owned()));
        let (user, _role, context_type) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { user, context_type, level: parts.next().flatten() })
    }

    /// Whether `found` has all parts that are not left open; notes those that differ.
    fn is(&self, cx: &Context<'_>, of: &str, found: &Self) -> bool {
        let parts = [
            ("type", &self.context_type, &found.context_type),
            ("user", &self.user, &found.user),
            ("level", &self.level, &found.level),
        ];
        let mut is = true;
        for (what, wanted, found) in parts {
            if let Some(wanted) = wanted {
                is &= cx.same(&format!("{of}{what}"), wanted, found.as_deref().unwrap_or_default());
            }
        }
        is
    }

    /// Whether more than the type is given.
    fn is_whole(&self) -> bool {
        self.user.is_some() || self.level.is_some()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [user, context_type] = [&self.user, &self.context_type].map(|part| part.as_deref().unwrap_or("*"));
        write!(f, "{user}:*:{context_type}:{}", self.level.as_deref().unwrap_or("*"))
    }
}

/// Adds or changes a rule of the host's own (semanage-fcontext(8)).
async fn set_rule(cx: &Context<'_>, verb: &str, label: &Label, pattern: &str) -> Result<(), SelinuxError> {
    let mut args = vec!["semanage", "fcontext", verb];
    for (option, value) in [("-t", &label.context_type), ("-s", &label.user), ("-r", &label.level)] {
        if let Some(value) = value {
            args.extend([option, value]);
        }
    }
    args.extend(["--", pattern]);
    tool(cx, &args).await.map(drop)
}

/// Sets the labels that the rules give, or only prints what that would change.
async fn restore(selinux: &Selinux, path: &str, cx: &Context<'_>, only_print: bool) -> Result<String, SelinuxError> {
    let mut args = vec!["restorecon"];
    args.extend(selinux.recursive.then_some("-R"));
    args.extend(only_print.then_some("-nv"));
    // Without it user and level stay as they are, and types that the policy leaves to administrators (customizable_types(5)).
    args.extend(Label::wanted(selinux).is_some_and(|wanted| wanted.is_whole()).then_some("-F"));
    args.extend(["--", path]);
    tool(cx, &args).await
}

/// The first file whose label restorecon would change, from what `-nv` prints (restorecon(8)).
fn would_change(printed: &str) -> Option<String> {
    let line = printed.lines().find(|line| line.to_ascii_lowercase().contains("relabel"))?;
    Some(line.split_whitespace().find(|word| word.starts_with('/')).unwrap_or(line).to_owned())
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

/// The label of a pattern in the host's own rules (semanage-fcontext(8), `-l -C`).
fn listed_label(listed: &str, pattern: &str) -> Option<Label> {
    let line = listed.lines().find(|line| line.split_whitespace().next() == Some(pattern))?;
    Label::of(line.split_whitespace().last()?)
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
        assert_eq!(listed_label(listed, "/srv/www(/.*)?"), Label::of("system_u:object_r:httpd_sys_content_t:s0"));
        assert_eq!(listed_label(listed, &pattern("/a.b", false)), Label::of("u:r:b_t:s0"));
        assert_eq!(listed_label(listed, "/srv"), None);
        let booleans = "httpd_can_network_connect      (on   ,   off)  Allow httpd to …\nftpd_x (off,off) No\n";
        assert_eq!(boolean_of(booleans, "httpd_can_network_connect"), Some((true, false)));
        assert_eq!((boolean_of(booleans, "ftpd_x"), boolean_of(booleans, "none")), (Some((false, false)), None));
        let config = "# SELINUX= can be\nSELINUX=enforcing\nSELINUXTYPE=targeted\n";
        assert_eq!(config_mode(config), Some("enforcing"));
        assert_eq!(with_mode(config, "permissive"), config.replace("enforcing", "permissive"));
        let printed = "Would relabel /srv/www/a from unconfined_u:object_r:etc_t:s0 to system_u:object_r:b_t:s0\n";
        assert_eq!(would_change(printed).as_deref(), Some("/srv/www/a"));
        assert_eq!(would_change(""), None);
    }

    #[test]
    fn labels_have_up_to_four_parts() {
        let part = |text: &str| Some(text.to_owned());
        let label = |level| Label { user: part("a_u"), context_type: part("b_t"), level };
        assert_eq!(Label::of("a_u:object_r:b_t:s0-s0:c1,c2"), Some(label(part("s0-s0:c1,c2"))));
        assert_eq!(Label::of("a_u:object_r:b_t"), Some(label(None)));
        assert_eq!(Label::of("?"), None);
        // What an agent noted that knew only types.
        let noted = Label::deserialize(serde_json::json!({ "type": "b_t" })).unwrap();
        assert_eq!(noted, Label { context_type: part("b_t"), ..Label::default() });
        assert_eq!(Label::deserialize(serde_json::json!({ "type": null })).unwrap(), Label::default());
    }
}

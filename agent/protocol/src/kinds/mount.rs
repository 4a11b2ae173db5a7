//! `mount`: a mounted file system, now and at every boot.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    kind::Kind,
    problem::{Problem, path_problem},
};
use crate::{effect::Effect, ids::TaskId};

/// A mounted file system, and its line in `/etc/fstab`. Removal unmounts what the task mounted and restores the line that was
/// there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The mount point: an absolute path on the node. A missing directory is created.
    pub path: String,
    /// What is mounted: a device, `UUID=…`, `LABEL=…`, `host:/path`, a directory for `bind`, or `tmpfs`. Required unless it is to be unmounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its type, such as `ext4`, `nfs`, `tmpfs`, or `none` for a bind mount; `auto` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fstype: Option<String>,
    /// Options, joined by commas, such as `"ro,noatime"` or `"bind"`; `defaults` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    /// Whether it is mounted, and in `/etc/fstab`; `mounted` if not given.
    #[serde(default, skip_serializing_if = "MountState::is_default")]
    pub state: MountState,
    /// The fifth field of its line (fstab(5)).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dump: u32,
    /// The sixth field of its line: when it is checked at boot.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pass: u32,
}

/// Whether a file system is mounted, now and at every boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MountState {
    /// Mounted, and in `/etc/fstab`.
    #[default]
    Mounted,
    /// In `/etc/fstab`; it may be mounted or not.
    Present,
    /// Not mounted; `/etc/fstab` stays as it is.
    Unmounted,
    /// Neither mounted nor in `/etc/fstab`.
    Absent,
}

impl MountState {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Mount {
    /// Its options as in `/etc/fstab`.
    pub fn options(&self) -> &str {
        self.options.as_deref().unwrap_or("defaults")
    }

    /// Its type as in `/etc/fstab`.
    pub fn fstype(&self) -> &str {
        self.fstype.as_deref().unwrap_or("auto")
    }

    /// Its line in `/etc/fstab` (fstab(5)); `None` if it is to have none.
    pub fn line(&self) -> Option<String> {
        let source =
            self.source.as_deref().filter(|_| matches!(self.state, MountState::Mounted | MountState::Present))?;
        let fields = [source, &self.path, self.fstype(), self.options()].map(escape);
        Some(format!("{} {} {}", fields.join(" "), self.dump, self.pass))
    }
}

/// Blanks would end a field.
fn escape(field: &str) -> String {
    field.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('#', "\\043")
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Kind for Mount {
    const NAME: &'static str = "mount";
    const SUMMARY: &'static str = "a mounted file system, now and at every boot";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = path_problem("path", &self.path).into_iter().collect();
        let needs = matches!(self.state, MountState::Mounted | MountState::Present);
        if needs && self.source.is_none() {
            problems.push(Problem::new(
                "",
                "has no `source`",
                "give what is mounted: a device, `UUID=…`, `host:/path`, `tmpfs`",
            ));
        }
        let words =
            [("source", &self.source, true), ("fstype", &self.fstype, false), ("options", &self.options, false)];
        for (param, text, blanks) in words {
            let Some(text) = text else { continue };
            if text.is_empty()
                || text.starts_with('-')
                || text.contains(['\n', '\0'])
                || (!blanks && text.contains([' ', '\t']))
            {
                let message = format!("`{}` cannot be written to /etc/fstab", text.escape_debug());
                problems.push(Problem::new(param, message, "give it as fstab(5) describes, without blanks"));
            }
        }
        problems
    }

    fn destroys(&self) -> Option<String> {
        // Other file systems keep their content when they are unmounted.
        let in_memory = matches!(self.fstype(), "tmpfs" | "ramfs");
        (in_memory && self.state == MountState::Mounted)
            .then(|| format!("the content of the {} at {}", self.fstype(), self.path))
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::named("mount point", &self.path), "path"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_line() {
        let of = |json: &str| serde_json::from_str::<Mount>(json).unwrap();
        let tmp = of(r#"{"path": "/a b", "source": "tmpfs", "fstype": "tmpfs", "options": "size=1m", "pass": 2}"#);
        assert_eq!(tmp.line().as_deref(), Some("tmpfs /a\\040b tmpfs size=1m 0 2"));
        assert_eq!(of(r#"{"path": "/a", "source": "UUID=1"}"#).line().as_deref(), Some("UUID=1 /a auto defaults 0 0"));
        assert_eq!(of(r#"{"path": "/a", "source": "x", "state": "absent"}"#).line(), None);
        assert_eq!(tmp.problems(), []);
        assert_eq!(of(r#"{"path": "/a"}"#).problems().len(), 1);
        assert_eq!(of(r#"{"path": "/a", "source": "x", "options": "a b", "fstype": ""}"#).problems().len(), 2);
    }
}

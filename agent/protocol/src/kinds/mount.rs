//! `mount`: a mounted file system or a swap area, now and at every boot.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    kind::Kind,
    problem::{Problem, path_problem},
};
use crate::{effect::Effect, ids::TaskId};

/// A mounted file system, and its line in `/etc/fstab`; or a swap area, with `fstype = "swap"`. Removal unmounts what the task
/// mounted and restores the line that was there before. The root file system, `/`, is only remounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The mount point: an absolute path on the node; `none` for a swap area. A missing directory is created, and a missing
    /// file where a file is bound.
    pub path: String,
    /// What is mounted: a device, `UUID=…`, `LABEL=…`, `host:/path`, a directory or a file for `bind`, or `tmpfs`. Required unless it is to be unmounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its type, such as `ext4`, `nfs`, `tmpfs`, `swap`, or `none` for a bind mount; `auto` if not given.
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

    /// Whether it is a swap area (swapon(8)), which has no mount point.
    pub fn is_swap(&self) -> bool {
        self.fstype() == "swap"
    }

    /// Whether a directory or a file gets a second name.
    pub fn is_bind(&self) -> bool {
        self.options().split(',').any(|option| matches!(option, "bind" | "rbind"))
    }

    /// Whether it is mounted when it is first used (systemd.mount(5)).
    pub fn is_automount(&self) -> bool {
        self.options().split(',').any(|option| matches!(option, "x-systemd.automount" | "comment=systemd.automount"))
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
        let mut problems: Vec<Problem> = Vec::new();
        if self.is_swap() {
            if !matches!(self.path.as_str(), "none" | "swap") {
                let message =
                    format!("`{}` is given for a swap area, which has no mount point", self.path.escape_debug());
                problems.push(Problem::new("path", message, "give `none`"));
            }
        } else if self.path != "/" {
            problems.extend(path_problem("path", &self.path));
        } else if matches!(self.state, MountState::Unmounted | MountState::Absent) {
            problems.push(Problem::new("state", "would unmount the root file system", "leave it mounted"));
        }
        let needs = self.is_swap() || matches!(self.state, MountState::Mounted | MountState::Present);
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
        match &self.source {
            // Any number of them have the path `none`.
            Some(source) if self.is_swap() => claim(TaskClaim::exclusive(Claim::named("swap area", source), "source")),
            _ => claim(TaskClaim::exclusive(Claim::named("mount point", &self.path), "path")),
        }
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
        assert_eq!(of(r#"{"path": "/", "source": "UUID=1", "options": "noatime"}"#).problems(), []);
        assert_eq!(of(r#"{"path": "/", "source": "UUID=1", "state": "absent"}"#).problems().len(), 1);
        let swap = of(r#"{"path": "none", "source": "/dev/x", "fstype": "swap", "options": "pri=5"}"#);
        assert_eq!(swap.line().as_deref(), Some("/dev/x none swap pri=5 0 0"));
        assert_eq!((swap.problems(), swap.is_swap()), (vec![], true));
        assert_eq!(of(r#"{"path": "/a", "source": "/dev/x", "fstype": "swap"}"#).problems().len(), 1);
        assert_eq!(of(r#"{"path": "none", "fstype": "swap", "state": "absent"}"#).problems().len(), 1);
        assert_eq!(of(r#"{"path": "none", "source": "/dev/x"}"#).problems().len(), 1);
        assert_eq!(of(r#"{"path": "/a"}"#).problems().len(), 1);
        assert_eq!(of(r#"{"path": "/a", "source": "x", "options": "a b", "fstype": ""}"#).problems().len(), 2);
    }
}

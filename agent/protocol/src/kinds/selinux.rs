//! `selinux`: the context of files, a boolean, or the mode of SELinux.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    kind::Kind,
    problem::{Problem, path_problem},
};
use crate::{effect::Effect, ids::TaskId};

/// The context of files, a boolean, or the mode of SELinux: one of the three. Skipped, with a note in the report, on hosts
/// without SELinux.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Selinux {
    /// The file or directory that gets a context: an absolute path on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The type in its context, such as `"httpd_sys_content_t"`; recorded in the host's policy, so that relabelling keeps it.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub context_type: Option<String>,
    /// The SELinux user in its context, such as `"system_u"`; not checked if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The level in its context, such as `"s0"` or `"s0:c1,c2"`, in the form in which the kernel shows it; not checked if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Whether everything below a directory gets it, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
    /// The name of a boolean, such as `"httpd_can_network_connect"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boolean: Option<String>,
    /// The value of the boolean, now and at every boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<bool>,
    /// What SELinux does with what its policy forbids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SelinuxMode>,
}

/// What SELinux does with what its policy forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SelinuxMode {
    /// It denies it.
    Enforcing,
    /// It only logs it.
    Permissive,
}

impl SelinuxMode {
    /// Its name, as in `/etc/selinux/config`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Permissive => "permissive",
        }
    }
}

impl Kind for Selinux {
    const NAME: &'static str = "selinux";
    const SUMMARY: &'static str = "the context of files, a boolean, or the mode of SELinux";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let of = [self.path.is_some(), self.boolean.is_some(), self.mode.is_some()];
        let mut problems = Vec::new();
        if of.iter().filter(|given| **given).count() != 1 {
            problems.push(Problem::new(
                "",
                "is not exactly one thing",
                "give `path` and `type`, `boolean` and `value`, or `mode`",
            ));
        }
        if self.path.is_some() != self.context_type.is_some() {
            problems.push(Problem::new("", "has only one of `path` and `type`", "give both"));
        }
        if self.boolean.is_some() != self.value.is_some() {
            problems.push(Problem::new("", "has only one of `boolean` and `value`", "give both"));
        }
        for (param, given) in [("user", &self.user), ("level", &self.level)] {
            if given.is_some() && self.path.is_none() {
                problems.push(Problem::new(param, "is given without `path`", "it is a part of the context of files"));
            }
        }
        problems.extend(self.path.as_ref().and_then(|path| path_problem("path", path)));
        let is_level = |level: &str| {
            level.starts_with('s') && level.chars().all(|c| c.is_ascii_alphanumeric() || ":.,-".contains(c))
        };
        if let Some(level) = self.level.as_ref().filter(|level| !is_level(level)) {
            let message = format!("`{}` is not a level", level.escape_debug());
            problems.push(Problem::new("level", message, "give a sensitivity and categories, such as `s0:c1,c2`"));
        }
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        for (param, name) in [("type", &self.context_type), ("user", &self.user), ("boolean", &self.boolean)] {
            if let Some(name) = name.as_ref().filter(|name| !is_name(name)) {
                let message = format!("`{}` is not a name", name.escape_debug());
                problems.push(Problem::new(param, message, "use letters, digits and `_`"));
            }
        }
        problems
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        if let Some(name) = &self.boolean {
            claim(TaskClaim::exclusive(Claim::named("SELinux boolean", name), "boolean"));
        }
        if let Some(name) = &self.path {
            claim(TaskClaim::exclusive(Claim::named("SELinux context of", name), "path"));
        }
        if self.mode.is_some() {
            claim(TaskClaim::exclusive(Claim::named("mode", "SELinux"), "mode"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_thing() {
        let problems = |json: &str| serde_json::from_str::<Selinux>(json).unwrap().problems().len();
        for good in [
            r#"{"path": "/srv/www", "type": "httpd_sys_content_t", "recursive": true}"#,
            r#"{"path": "/srv/www", "type": "container_file_t", "user": "system_u", "level": "s0:c1,c2"}"#,
            r#"{"boolean": "httpd_can_network_connect", "value": true}"#,
            r#"{"mode": "permissive"}"#,
        ] {
            assert_eq!(problems(good), 0, "{good}");
        }
        for bad in [
            r#"{}"#,
            r#"{"path": "/x"}"#,
            r#"{"boolean": "a b", "value": true}"#,
            r#"{"mode": "permissive", "level": "s0"}"#,
            r#"{"path": "/x", "type": "a_t", "level": "high secrecy"}"#,
            r#"{"path": "/x", "type": "a_t", "user": "a:b"}"#,
            r#"{"mode": "enforcing", "boolean": "a", "value": true}"#,
        ] {
            assert_ne!(problems(bad), 0, "{bad}");
        }
    }
}

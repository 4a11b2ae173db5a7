//! `export`: a value that a node publishes to the rest of the site.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    kind::Kind,
    problem::{Problem, path_problem},
    run::Run,
};
use crate::{duration::Span, effect::Effect};

/// The largest value that can be published, in bytes.
pub const EXPORT_LIMIT: usize = 16 * 1024;

/// How long its command may take if no `timeout` is given.
const DEFAULT_TIMEOUT: Span = Span::secs(60);

/// A value that templates of this and other nodes may use. It is determined when the task is new or changed and when a trigger
/// fires, and counts as changed only if it differs from what was published before. Exactly one of `value`, `command` and
/// `path` is given. Removal withdraws the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// A fixed value, published as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// A command that prints the value on its standard output: a shell line or a list of arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Run>,
    /// A file on the node that contains the value: an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The user who runs `command`; the agent's own if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether blanks and line breaks around it are dropped; `true` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trim: Option<bool>,
    /// How long `command` may take; `60s` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

impl Export {
    /// How long its `command` may take.
    pub fn timeout(&self) -> Span {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }

    /// Whether blanks and line breaks around the value are dropped.
    pub fn trim(&self) -> bool {
        self.trim.unwrap_or(true)
    }
}

impl Kind for Export {
    const NAME: &'static str = "export";
    const SUMMARY: &'static str = "a value that a node publishes to the rest of the site";
    const EFFECTS: &'static [Effect] = &[Effect::Run];
    const LEAVES: bool = false;

    fn problems(&self) -> Vec<Problem> {
        let given = [self.value.is_some(), self.command.is_some(), self.path.is_some()];
        let hint = "give exactly one of `value`, `command` and `path`";
        let sources = match given.iter().filter(|given| **given).count() {
            1 => None,
            0 => Some(Problem::new("", "has no value", hint)),
            _ => Some(Problem::new("", "has more than one value", hint)),
        };
        let large = self.value.as_ref().filter(|value| value.len() > EXPORT_LIMIT).map(|value| {
            let message = format!("is {} bytes long; a published value has {EXPORT_LIMIT} at most", value.len());
            Problem::new("value", message, "publish only the part that others need")
        });
        let user = (self.user.is_some() && self.command.is_none())
            .then(|| Problem::new("user", "is given without `command`", "drop it"));
        let path = self.path.as_ref().and_then(|path| path_problem("path", path));
        let command = self.command.as_ref().and_then(|run| run.problem("command"));
        sources.into_iter().chain(large).chain(user).chain(path).chain(command).collect()
    }

    fn drop_incidental(&mut self) {
        self.timeout = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn one_value_and_no_more() {
        let problems = |params: Value| -> Vec<String> {
            let export: Export = serde_json::from_value(params).unwrap();
            export.problems().into_iter().map(|p| format!("{}: {}", p.param, p.message)).collect()
        };
        for good in [
            json!({ "value": "" }),
            json!({ "command": "hostname -f", "user": "nobody", "trim": false }),
            json!({ "path": "/etc/machine-id" }),
        ] {
            assert_eq!(problems(good.clone()), Vec::<String>::new(), "{good}");
        }
        for (bad, word) in [
            (json!({}), ": has no value"),
            (json!({ "value": "x", "path": "/x" }), ": has more than one value"),
            (json!({ "value": "x", "user": "bob" }), "user: is given without `command`"),
            (json!({ "path": "x" }), "path: `x` is not an absolute path in its shortest form"),
            (json!({ "command": [] }), "command: is empty"),
            (json!({ "value": "x".repeat(16_385) }), "value: is 16385 bytes long; a published value has 16384 at most"),
        ] {
            assert_eq!(problems(bad), [word]);
        }
    }
}

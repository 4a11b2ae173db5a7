//! `export`: a value that a node publishes to the rest of the site.

use regex_lite::Regex;
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
///
/// A value is one line without control characters, unless `lines` allows several. What does not fit fails the task on the node, and the
/// planner refuses it as well, because a hostile node reports what it likes.
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
    /// Whether the value may have several lines; `false` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<bool>,
    /// A regular expression that the whole value must match, such as `"[0-9a-f.:]+"` for an address. No template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
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

    /// What is wrong with a value, as it follows a name for it; none if it may be published. Agents apply it to what they publish, and
    /// planners to what nodes report.
    pub fn fault(&self, value: &str) -> Option<String> {
        if value.len() > EXPORT_LIMIT {
            return Some(format!("is {} bytes long; a published value has {EXPORT_LIMIT} at most", value.len()));
        }
        let lines = self.lines == Some(true);
        if let Some(found) = value.chars().find(|c| is_control(*c) && !(lines && is_break(*c))) {
            return Some(match is_break(found) {
                true => "has several lines; `lines = true` allows that".to_owned(),
                false => format!("has the control character {}", found.escape_default()),
            });
        }
        let pattern = self.pattern.as_deref()?;
        let matches = whole(pattern).is_ok_and(|regex| regex.is_match(value));
        (!matches).then(|| format!("does not match `{pattern}`"))
    }
}

/// Whether text in one line may not have this character: a control character other than a tab, or a line break.
pub fn is_control(c: char) -> bool {
    c != '\t' && (c.is_control() || is_break(c))
}

/// Whether text goes on in another line after this character: those of Unicode, which some programs heed, included.
pub fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The expression for a value that a pattern matches as a whole.
fn whole(pattern: &str) -> Result<Regex, regex_lite::Error> {
    // By itself first: no bracket of it may end the group around it.
    Regex::new(pattern)?;
    Regex::new(&format!("^(?:{pattern})$"))
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
        let pattern = self.pattern.as_deref().and_then(|pattern| {
            let wrong = format!("`{pattern}` is not a regular expression: {}", whole(pattern).err()?);
            Some(Problem::new(
                "pattern",
                wrong,
                "write it as for Rust's `regex-lite`; it is matched against the whole value",
            ))
        });
        let value = self.value.as_ref().filter(|_| pattern.is_none()).and_then(|value| {
            let fault = self.fault(if self.trim() { value.trim() } else { value })?;
            Some(Problem::new("value", fault, "publish only the part that others need"))
        });
        let user = (self.user.is_some() && self.command.is_none())
            .then(|| Problem::new("user", "is given without `command`", "drop it"));
        let path = self.path.as_ref().and_then(|path| path_problem("path", path));
        let command = self.command.as_ref().and_then(|run| run.problem("command"));
        sources.into_iter().chain(value).chain(pattern).chain(user).chain(path).chain(command).collect()
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
            json!({ "value": "a\nb", "lines": true }),
            json!({ "value": "a\n" }),
            json!({ "value": "10.0.0.1", "pattern": "[0-9.]+" }),
        ] {
            assert_eq!(problems(good.clone()), Vec::<String>::new(), "{good}");
        }
        for (bad, word) in [
            (json!({}), ": has no value"),
            (json!({ "value": "x", "path": "/x" }), ": has more than one value"),
            (json!({ "value": "x", "user": "bob" }), "user: is given without `command`"),
            (json!({ "path": "x" }), "path: `x` is not an absolute path in its shortest form"),
            (json!({ "command": [] }), "command: is empty"),
            (json!({ "value": "a\nb" }), "value: has several lines; `lines = true` allows that"),
            (json!({ "value": "a;b", "pattern": "[ab]+" }), "value: does not match `[ab]+`"),
            (json!({ "value": "x".repeat(16_385) }), "value: is 16385 bytes long; a published value has 16384 at most"),
        ] {
            assert_eq!(problems(bad), [word]);
        }
    }
    #[test]
    fn a_value_is_one_line_and_matches_as_a_whole() {
        let export = |params: Value| serde_json::from_value::<Export>(params).unwrap();
        let plain = export(json!({ "path": "/x" }));
        assert_eq!(plain.fault("a\tb"), None);
        for value in ["a\nb", "a\rb", "a\u{85}b", "a\u{2028}b"] {
            assert_eq!(
                plain.fault(value).as_deref(),
                Some("has several lines; `lines = true` allows that"),
                "{value:?}"
            );
        }
        assert_eq!(plain.fault("a\0").as_deref(), Some("has the control character \\u{0}"));
        let lines = export(json!({ "path": "/x", "lines": true }));
        assert_eq!(lines.fault("a\r\nb"), None);
        assert_eq!(lines.fault("a\u{1b}[2J").as_deref(), Some("has the control character \\u{1b}"));
        for (pattern, value, fits) in [
            ("[0-9.]+", "127.0.0.1", true),
            ("[0-9.]+", "127.0.0.1; id", false),
            ("a|b", "ab", false),
            ("a|ab", "ab", true),
            ("(?m)a", "b\na", false),
        ] {
            let export = export(json!({ "path": "/x", "lines": true, "pattern": pattern }));
            assert_eq!(export.fault(value).is_none(), fits, "{pattern} {value:?}");
        }
        for pattern in ["a)|(b", "(?x) a #", "("] {
            assert!(whole(pattern).is_err(), "{pattern}");
        }
    }
}

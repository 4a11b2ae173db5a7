//! `line`: a line or a block of lines in a text file, of which the rest is left as it is.

use regex_lite::Regex;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    existence::Existence,
    kind::Kind,
    problem::{Problem, mode_problem, path_problem},
    validate::Validate,
};
use crate::{effect::Effect, ids::TaskId};

/// The placeholder for `BEGIN` and `END` in a marker.
pub const MARK: &str = "{mark}";

/// A line, or a block of lines between two markers, in a text file. Removal restores a line that was replaced.
/// All other lines stay byte for byte, with their line breaks and in whatever encoding; the file keeps its owner, mode, access
/// control list, label and extended attributes.
///
/// Either `line` or `block`; with `state = "absent"`, `match` alone is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The file on the node: an absolute path.
    pub path: String,
    /// The line, without its line break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// Several lines, written between two markers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    /// The marker lines of a block: `{mark}` stands for `BEGIN` and `END`. `"# {mark} groundplan <task>"` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// A regular expression: the last line that it matches is replaced by `line`; with `state = "absent"`, all lines that it
    /// matches are removed. It must match `line` itself, too.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<String>,
    /// A regular expression: a new line goes after the last line that it matches, or at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// A regular expression: a new line goes before the first line that it matches, or at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// `present` (if not given) or `absent`.
    #[serde(default, skip_serializing_if = "Existence::is_present")]
    pub state: Existence,
    /// Whether a missing file is created; `true` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<bool>,
    /// The owner of a created file; an existing one keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The group of a created file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Permissions of a created file, in octal; `"0644"` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What the whole new file must pass before it replaces the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate: Option<Validate>,
}

impl Kind for Line {
    const NAME: &'static str = "line";
    const SUMMARY: &'static str = "a line or a block of lines in a text file";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = path_problem("path", &self.path)
            .into_iter()
            .chain(mode_problem(self.mode.as_ref()))
            .chain(Validate::problem(self.validate.as_ref()))
            .collect();
        let mut fault = |is: bool, param, message: &str, hint: &str| {
            if is {
                problems.push(Problem::new(param, message, hint));
            }
        };
        let present = self.state == Existence::Present;
        let (line, block) = (self.line.is_some(), self.block.is_some());
        fault(line && block, "block", "is given together with `line`", "give only one of the two");
        fault(present && !line && !block, "", "has neither `line` nor `block`", "give one of the two");
        fault(
            !present && !line && !block && self.matching.is_none(),
            "",
            "names no line",
            "give `line`, `match` or `block`",
        );
        fault(
            block && self.matching.is_some(),
            "match",
            "is given together with `block`",
            "a block is found by its markers",
        );
        fault(!block && self.marker.is_some(), "marker", "is given without `block`", "markers are for blocks");
        fault(
            self.after.is_some() && self.before.is_some(),
            "before",
            "is given together with `after`",
            "give only one of the two",
        );
        let broken = self.line.as_ref().is_some_and(|line| line.contains(['\n', '\r']));
        fault(broken, "line", "has a line break", "several lines are a `block`");
        let marker = self.marker.as_ref().is_some_and(|marker| !marker.contains(MARK) || marker.contains('\n'));
        fault(marker, "marker", "is not a single line with `{mark}` in it", "write it as \"# {mark} of mine\"");
        for (param, text) in [("match", &self.matching), ("after", &self.after), ("before", &self.before)] {
            let Some(text) = text else { continue };
            match (Regex::new(text), &self.line) {
                (Err(error), _) => problems.push(Problem::new(
                    param,
                    format!("`{text}` is not a regular expression: {error}"),
                    "write it as for Rust's `regex-lite`; put `\\` before a character that is to be taken literally",
                )),
                (Ok(regex), Some(line)) if param == "match" && present && !regex.is_match(line) => {
                    problems.push(Problem::new(
                        param,
                        format!("`{text}` does not find `{line}`, the line it is to become"),
                        "widen it, or the line would be inserted again and again",
                    ));
                }
                _ => {}
            }
        }
        problems
    }

    fn drop_incidental(&mut self) {
        self.validate = None;
    }

    fn claims<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::part(&self.path, task), "path"));
        if let Some(line) = self.line.as_deref().filter(|_| self.state.is_present()) {
            claim(TaskClaim::shared(Claim::line(&self.path, line), "line"));
        }
        claim(TaskClaim::shared(Claim::edited(&self.path), "path"));
    }

    fn identity<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
        let part = |what, text: &str| Claim::named(what, format!("{}: {text}", self.path));
        match (&self.line, &self.matching, &self.block) {
            (.., Some(_)) => claim(part("block in", &self.marker_lines(task)[0])),
            // By what it finds its line, whatever that is to become.
            (_, Some(matching), _) => claim(part("lines by pattern in", matching)),
            (Some(line), ..) => claim(Claim::line(&self.path, line)),
            _ => {}
        }
    }
}

impl Line {
    /// The lines before and after a block of that task.
    pub fn marker_lines(&self, task: impl fmt::Display) -> [String; 2] {
        let marker = self.marker.clone().unwrap_or_else(|| format!("# {MARK} groundplan {task}"));
        ["BEGIN", "END"].map(|mark| marker.replace(MARK, mark))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_invalid_parameters() {
        for (params, problem) in [
            (json!({"line": "a"}), ""),
            (json!({"block": "a\nb", "marker": "; {mark}"}), ""),
            (json!({"match": "^a", "state": "absent"}), ""),
            (json!({"line": "a=1", "match": "^#?a="}), ""),
            (json!({}), "has neither `line` nor `block`"),
            (json!({"line": "a", "block": "b"}), "is given together with `line`"),
            (json!({"line": "a\nb"}), "has a line break"),
            (json!({"block": "a", "marker": "#"}), "is not a single line with `{mark}` in it"),
            (json!({"line": "a=1", "match": "^b="}), "`^b=` does not find `a=1`, the line it is to become"),
            (
                json!({"line": "a", "after": "("}),
                "`(` is not a regular expression: found open group without closing ')'",
            ),
            (json!({"line": "a", "validate": {"command": "true"}}), "the command does not name the new file"),
        ] {
            let mut all = json!({"path": "/x"});
            all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
            let line: Line = serde_json::from_value(all).unwrap();
            let found: Vec<String> = line.problems().into_iter().map(|p| p.message).collect();
            assert_eq!(found.join("; "), problem);
        }
    }
}

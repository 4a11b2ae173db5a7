//! `ini`: options in an INI file, of which the rest is left as it is.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    existence::Existence,
    kind::Kind,
    problem::{Problem, mode_problem, path_problem},
};
use crate::{effect::Effect, ids::TaskId};

/// Options in an INI file. Comments, order and the style of delimiters stay as they are; removal restores what the file had
/// before. All else stays byte for byte, in whatever encoding; the file keeps its owner, mode, access control list, label and
/// extended attributes.
///
/// An indented line continues the value before it, unless it is an option itself: `name = value` after a value of one line that
/// neither is empty nor ends with `,` or `\`.
///
/// Either `section`, `option` and `value`, or `values` for several at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ini {
    /// The file on the node: an absolute path.
    pub path: String,
    /// The section's name, without brackets; `""` stands for the part before the first section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// The option's name. Without it, `state = "absent"` removes the whole section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
    /// The option's value; a list for an option that is repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<IniValue>,
    /// Values by section and option. An empty list means that the option is absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, BTreeMap<String, IniValue>>,
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
}

/// The value of an option, or several of one that is repeated (`MultiOpt` of oslo.config).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum IniValue {
    /// A value of an option that is given once.
    One(Scalar),
    /// Values of a repeated option, one line for each.
    Many(Vec<Scalar>),
}

/// A single value; each is written as one text after the `=`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// Written as `true` or `false`.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text; further lines continue the first one, indented.
    Text(String),
}

impl Scalar {
    /// The value as it is written to a file.
    pub fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => value.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_owned(),
        }
    }
}

impl IniValue {
    /// All values as they are written to a file.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value.text()],
            Self::Many(values) => values.iter().map(Scalar::text).collect(),
        }
    }
}

impl Ini {
    /// The wanted values of each option, by section and name: none for an option that is to be absent.
    pub fn wanted(&self) -> BTreeMap<(String, String), Vec<String>> {
        let single = self.section.as_ref().zip(self.option.as_ref()).map(|(section, option)| {
            let values = self.value.as_ref().map(IniValue::texts).unwrap_or_default();
            ((section.clone(), option.clone()), values)
        });
        let several = self.values.iter().flat_map(|(section, options)| {
            options.iter().map(move |(option, value)| ((section.clone(), option.clone()), value.texts()))
        });
        let mut wanted: BTreeMap<_, _> = single.into_iter().chain(several).collect();
        if self.state == Existence::Absent {
            wanted.values_mut().for_each(Vec::clear);
        }
        wanted
    }

    /// The section that is to be removed as a whole.
    pub fn unwanted_section(&self) -> Option<&str> {
        let whole = self.state == Existence::Absent && self.option.is_none();
        self.section.as_deref().filter(|_| whole)
    }
}

impl Kind for Ini {
    const NAME: &'static str = "ini";
    const SUMMARY: &'static str = "options in an INI file";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            path_problem("path", &self.path).into_iter().chain(mode_problem(self.mode.as_ref())).collect();
        let single = self.section.is_some() || self.option.is_some() || self.value.is_some();
        if single && !self.values.is_empty() {
            problems.push(Problem::new(
                "values",
                "is given together with `section`",
                "give `section`, `option` and `value`, or `values`",
            ));
        } else if !single && self.values.is_empty() {
            problems.push(Problem::new("", "names no option", "give `section`, `option` and `value`, or `values`"));
        } else if single {
            problems.extend(self.single_problem());
        }
        for (section, options) in &self.values {
            problems.extend(section_problem("values", section));
            problems.extend(options.keys().filter_map(|option| option_problem("values", option)));
            problems.extend(options.values().flat_map(|value| value_problems("values", value)));
        }
        problems
    }

    fn claims<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        let mut own = |claimed| claim(TaskClaim::exclusive(claimed, "path"));
        own(Claim::part(&self.path, task));
        if let Some((section, option)) = self.section.as_deref().zip(self.option.as_deref()) {
            own(Claim::option(&self.path, section, option));
        }
        for (section, options) in &self.values {
            options.keys().for_each(|option| own(Claim::option(&self.path, section, option)));
        }
        claim(TaskClaim::shared(Claim::edited(&self.path), "path"));
        // Where a whole section is to be absent, the task has nothing in it.
        let single = self.section.iter().filter(|section| self.option.is_some() && !section.is_empty());
        for section in single.chain(self.values.keys().filter(|section| !section.is_empty())) {
            claim(TaskClaim::shared(Claim::section(&self.path, section), "path"));
        }
    }

    fn identity<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
        self.claims(task, &mut |stated| {
            if matches!(stated.claim, Claim::Option { .. }) {
                claim(stated.claim);
            }
        });
        // A section as a whole.
        if let (Some(section), None) = (&self.section, &self.option) {
            claim(Claim::named("section in", format!("{}: {section}", self.path)));
        }
    }
}

impl Ini {
    fn single_problem(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        match (&self.section, &self.option, &self.value, self.state) {
            (None, ..) => problems.push(Problem::new(
                "",
                "has no `section`",
                "name it; \"\" is the part before the first section",
            )),
            (_, None, _, Existence::Present) => problems.push(Problem::new("", "has no `option`", "name it")),
            (_, Some(_), None, Existence::Present) => problems.push(Problem::new("", "has no `value`", "give it one")),
            _ => {}
        }
        problems.extend(self.section.as_ref().and_then(|section| section_problem("section", section)));
        problems.extend(self.option.as_ref().and_then(|option| option_problem("option", option)));
        problems.extend(self.value.iter().flat_map(|value| value_problems("value", value)));
        problems
    }
}

fn section_problem(param: &'static str, section: &str) -> Option<Problem> {
    let bad = section.contains([']', '\n', '\r', '\0']) || section.trim() != section;
    bad.then(|| {
        Problem::new(
            param,
            format!("`{}` is not the name of a section", section.escape_debug()),
            "give it without brackets and line breaks",
        )
    })
}

fn option_problem(param: &'static str, option: &str) -> Option<Problem> {
    let bad = option.is_empty()
        || option.trim() != option
        || option.contains(['=', ':', '\n', '\r', '\0'])
        || option.starts_with(['#', ';', '[', '!']);
    bad.then(|| {
        Problem::new(
            param,
            format!("`{}` is not the name of an option", option.escape_debug()),
            "leave out `=`, `:` and comment signs",
        )
    })
}

/// Faults of values that would not be read back from the file as they were written.
fn value_problems(param: &'static str, value: &IniValue) -> Vec<Problem> {
    let fault = |text: &String| {
        let mut rest = text.lines().skip(1);
        let bad = rest.any(|line| line.is_empty() || line.starts_with(['#', ';'])) || text.contains(['\0', '\r']);
        bad.then(|| {
            let what = format!("`{}` cannot be written to an INI file", text.escape_debug());
            Problem::new(param, what, "further lines of a value may be neither empty nor begin with `#` or `;`")
        })
    };
    value.texts().iter().filter_map(fault).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(params: serde_json::Value) -> Vec<String> {
        let ini: Ini = serde_json::from_value(params).unwrap();
        ini.problems().into_iter().map(|p| format!("{}: {}", p.param, p.message)).collect()
    }

    #[test]
    fn either_one_option_or_several() {
        let none: [&str; 0] = [];
        assert_eq!(problems(json!({"path": "/x", "section": "a", "option": "b", "value": 1})), none);
        assert_eq!(problems(json!({"path": "/x", "values": {"": {"b": ["x", true]}}})), none);
        assert_eq!(problems(json!({"path": "/x", "section": "a", "state": "absent"})), none);
        assert_eq!(problems(json!({"path": "/x"})), [": names no option"]);
        assert_eq!(problems(json!({"path": "/x", "section": "a", "option": "b"})), [": has no `value`"]);
        assert_eq!(
            problems(json!({"path": "/x", "section": "a", "values": {"a": {}}})),
            ["values: is given together with `section`"]
        );
        assert_eq!(
            problems(json!({"path": "/x", "values": {"a]": {"#b": "x\n\ny"}}})),
            [
                "values: `a]` is not the name of a section",
                "values: `#b` is not the name of an option",
                "values: `x\\n\\ny` cannot be written to an INI file"
            ]
        );
    }

    #[test]
    fn values_by_section_and_option() {
        let ini: Ini = serde_json::from_value(json!({
            "path": "/x", "values": {"s": {"n": 3, "f": 0.5, "b": false, "t": " a\n  b ", "m": ["x", "y"], "none": []}}
        }))
        .unwrap();
        let wanted = ini.wanted();
        let of = |option: &str| wanted[&("s".to_owned(), option.to_owned())].clone();
        assert_eq!([of("n"), of("f"), of("b"), of("t")].concat(), ["3", "0.5", "false", "a\nb"]);
        assert_eq!((of("m"), of("none")), (vec!["x".to_owned(), "y".to_owned()], vec![]));
    }
}

//! Task kinds that the site's own programs add: each program's description, and what a task takes over from it.
//!
//! In: the name of a program in `plugins/` and the file beside it that describes it, which is what the program prints when it is asked for its
//! schema. Out: a [`Description`], or what is wrong with it. Runs no program and knows no JSON Schema: the caller passes in how a schema is compiled to a [`ParamCheck`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
};

use groundplan_inventory::hint;
use groundplan_protocol::{
    digest::Digest,
    duration::Span,
    effect::Effect,
    ids::{NAME_RULE, TaskName},
    kinds::{NAMES, Plugin, PluginClaim},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::task::KEYS;

/// The folder of the programs.
pub const FOLDER: &str = "plugins";

/// What the file that describes a program has after the program's name.
pub const SCHEMA: &str = ".schema.json";

/// The name in a claim without a parameter.
const WHOLE: &str = "the host";

/// The plugins of a site.
#[derive(Debug, Clone, Default)]
pub struct Plugins {
    /// Those that can be used, by name.
    pub known: BTreeMap<TaskName, Arc<Description>>,
    /// Those with faults that have been reported: a task of their kind is not reported as well.
    pub faulty: BTreeSet<String>,
}

/// Checks the parameters of a plugin's tasks against the schema in its description.
pub trait ParamCheck: Debug + Send + Sync {
    /// Everything in `params` that the schema does not allow.
    fn violations(&self, params: &Map<String, Value>) -> Vec<Violation>;

    /// Everything in `params` that the schema neither mentions nor decides about: where it lists properties, says nothing of others, and
    /// one of another name is given. Nothing, for a check that knows no list of properties.
    fn unmentioned(&self, _params: &Map<String, Value>) -> Vec<Violation> {
        Vec::new()
    }
}

/// Compiles a JSON schema, or returns what is wrong with it in one line.
pub type CompileSchema<'a> = dyn Fn(&Value) -> Result<Box<dyn ParamCheck>, String> + 'a;

/// The description of a plugin.
#[derive(Debug)]
pub struct Description {
    /// One line for people.
    pub summary: String,
    /// The effects that triggers may have on tasks of its kind.
    pub effects: Vec<Effect>,
    /// Whether it can check if a task is in sync.
    pub can_check: bool,
    /// How long one run of it may take.
    pub timeout: Option<Span>,
    /// Digest of the description as JSON, which the program must print alike.
    pub digest: Digest,
    claims: Vec<Claims>,
    check: Box<dyn ParamCheck>,
}

/// Why a text is not the description of a plugin.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDescription {
    /// It is not JSON.
    #[error("it is no JSON, but `{0}`")]
    NoJson(String),
    /// It is JSON, but not a description.
    #[error("it is no description: {0}")]
    Form(String),
    /// What stands under `schema` is not a JSON schema.
    #[error("its schema is not a JSON schema: {0}")]
    Schema(String),
}

/// A description as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Printed {
    summary: String,
    schema: Value,
    #[serde(default)]
    effects: Vec<Effect>,
    #[serde(default)]
    claims: Vec<Claims>,
    #[serde(default = "yes")]
    can_check: bool,
    timeout: Option<Span>,
}

/// A claim of its tasks on their node.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Claims {
    /// The path that a parameter holds.
    Path { path: String },
    /// What a parameter names; without one, there is one such thing on a host.
    Named { what: String, param: Option<String> },
}

/// A parameter that the schema does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The path to the parameter, such as `limits.files` or `users[2]`; empty for the task as a whole.
    pub param: String,
    /// What is wrong with it.
    pub message: String,
    /// What the user can do about it, in one line.
    pub hint: Option<String>,
}

fn yes() -> bool {
    true
}

/// The name of the kind that the program `plugins/<file>` adds; else what is wrong with the name, and what to do.
pub fn name(file: &str) -> Result<TaskName, (String, String)> {
    let Ok(name) = TaskName::new(file) else {
        return Err((
            format!("`{file}` is not a valid name of a kind"),
            format!("rename it: a kind's name is {NAME_RULE}"),
        ));
    };
    let what = match () {
        () if NAMES.contains(&file) => "a kind that is built in",
        () if KEYS.contains(&file) => "a key that every task has",
        () => return Ok(name),
    };
    Err((format!("`{file}` is the name of {what}"), "give the plugin another name".to_owned()))
}

impl Description {
    /// Reads a description.
    ///
    /// # Errors
    /// If it is no description, or its schema does not compile.
    pub fn read(printed: &[u8], compile: &CompileSchema<'_>) -> Result<Self, InvalidDescription> {
        let value: Value =
            serde_json::from_slice(printed).map_err(|_| InvalidDescription::NoJson(first_line(printed)))?;
        let digest = Digest::of_json(&value);
        let printed = Printed::deserialize(value).map_err(|e| InvalidDescription::Form(e.to_string()))?;
        if !printed.schema.is_object() {
            return Err(InvalidDescription::Schema("it is not an object".to_owned()));
        }
        let Printed { summary, schema, effects, claims, can_check, timeout } = printed;
        let check = compile(&schema).map_err(InvalidDescription::Schema)?;
        Ok(Self { summary, effects, can_check, timeout, digest, claims, check })
    }

    /// Everything that the schema does not allow in `params`.
    pub fn violations(&self, params: &Map<String, Value>) -> Vec<Violation> {
        self.check.violations(params)
    }

    /// Everything in `params` that the schema neither mentions nor decides about: probably misspelt.
    pub fn unmentioned(&self, params: &Map<String, Value>) -> Vec<Violation> {
        self.check.unmentioned(params)
    }

    /// Completes `plugin` with effects, claims and limits from the description.
    pub fn describe(&self, plugin: &mut Plugin) {
        let text = |param: &str| match plugin.params.get(param)? {
            Value::String(text) => Some(text.clone()),
            value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
            _ => None,
        };
        let claim = |claim: &Claims| match claim {
            Claims::Path { path } => Some(PluginClaim::Path(text(path)?)),
            Claims::Named { what, param: Some(param) } => {
                Some(PluginClaim::Named { what: what.clone(), name: text(param)?, param: param.clone() })
            }
            Claims::Named { what, param: None } => {
                Some(PluginClaim::Named { what: what.clone(), name: WHOLE.to_owned(), param: String::new() })
            }
        };
        plugin.claims = self.claims.iter().filter_map(claim).collect();
        plugin.effects.clone_from(&self.effects);
        plugin.description = Some(self.digest);
        (plugin.can_check, plugin.timeout) = (self.can_check, self.timeout);
    }
}

fn first_line(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(1024)];
    let text = String::from_utf8_lossy(start);
    hint::excerpt(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Allows everything, unless the schema is to be refused.
    #[derive(Debug)]
    struct Anything;

    impl ParamCheck for Anything {
        fn violations(&self, _: &Map<String, Value>) -> Vec<Violation> {
            Vec::new()
        }
    }

    fn compile(schema: &Value) -> Result<Box<dyn ParamCheck>, String> {
        match schema.get("refuse") {
            Some(why) => Err(why.as_str().unwrap_or_default().to_owned()),
            None => Ok(Box::new(Anything)),
        }
    }

    fn description(more: Value) -> Result<Description, String> {
        let mut printed = json!({ "summary": "x", "schema": {} });
        printed.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        Description::read(printed.to_string().as_bytes(), &compile).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_not_a_description_is_refused() {
        assert!(description(json!({})).is_ok());
        for (more, words) in [
            (json!({ "efects": [] }), "it is no description: unknown field `efects`"),
            (json!({ "effects": ["explode"] }), "it is no description: unknown variant `explode`"),
            (json!({ "timeout": "soon" }), "it is no description: "),
            (json!({ "claims": [{ "param": "zone" }] }), "it is no description: "),
            (json!({ "schema": 5 }), "its schema is not a JSON schema: it is not an object"),
            (json!({ "schema": { "refuse": "why" } }), "its schema is not a JSON schema: why"),
        ] {
            let error = description(more.clone()).map(|_| ()).unwrap_err();
            assert!(error.starts_with(words), "{more}: {error}");
        }
        let garbage = Description::read(b"\n  Hello, world\nmore", &compile).unwrap_err().to_string();
        assert_eq!(garbage, "it is no JSON, but `Hello, world`");
        assert!(Description::read(b"", &compile).is_err() && Description::read(&[0xff; 9], &compile).is_err());
    }

    #[test]
    fn a_task_gets_what_its_plugin_describes() {
        let claims = json!([{ "what": "timezone of" }, { "path": "file" }, { "what": "zone", "param": "zone" }, { "path": "none" }]);
        let description =
            description(json!({ "effects": ["reload"], "can_check": false, "timeout": "10s", "claims": claims }))
                .unwrap();
        let params = json!({ "zone": "UTC", "file": "/etc/x" }).as_object().cloned().unwrap();
        let mut plugin = Plugin::declared(TaskName::new("timezone").unwrap(), params);
        description.describe(&mut plugin);
        let named = |what: &str, name: &str, param: &str| PluginClaim::Named {
            what: what.into(),
            name: name.into(),
            param: param.into(),
        };
        assert_eq!(
            plugin.claims,
            [named("timezone of", WHOLE, ""), PluginClaim::Path("/etc/x".into()), named("zone", "UTC", "zone")]
        );
        assert_eq!(
            (plugin.effects, plugin.can_check, plugin.timeout),
            (vec![Effect::Reload], false, Some(Span::secs(10)))
        );
    }

    #[test]
    fn names_that_are_taken_or_invalid() {
        assert!(name("timezone").is_ok() && name("my-limits_2").is_ok());
        for (bad, words) in [
            ("file", "`file` is the name of a kind that is built in"),
            ("requires", "`requires` is the name of a key that every task has"),
            ("time.sh", "`time.sh` is not a valid name of a kind"),
        ] {
            assert_eq!(name(bad).unwrap_err().0, words);
        }
    }
}

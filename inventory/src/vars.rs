//! Names and values of vars, as every site file writes them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

use crate::{
    decode::At,
    diagnostic::Location,
    model::{Var, Vars},
};

/// Names that have a meaning of their own in templates.
pub const RESERVED: &[&str] = &["exports", "external", "facts", "groups", "node", "secrets", "service", "site"];

/// Keywords of the template language.
const KEYWORDS: &[&str] =
    &["and", "else", "false", "if", "in", "is", "loop", "none", "not", "or", "self", "super", "true"];

/// A var's name: an identifier that templates do not use otherwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VarName(String);

impl VarName {
    fn new(name: &str) -> Result<Self, String> {
        let identifier = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !identifier {
            return Err(format!(
                "`{}` is not a name for a var: letters, digits and `_`, beginning with a letter",
                crate::hint::excerpt(name)
            ));
        }
        let lower = name.to_ascii_lowercase();
        if RESERVED.contains(&name) {
            return Err(format!("`{name}` has a meaning of its own in templates: another name, such as `my_{name}`"));
        }
        if KEYWORDS.contains(&lower.as_str()) {
            return Err(format!(
                "`{name}` is a keyword of the template language: another name, such as `{name}_value`"
            ));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for VarName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for VarName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&std::borrow::Cow::<'de, str>::deserialize(d)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for VarName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "VarName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" })
    }
}

/// A var's value: anything that TOML has; dates and times become text.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct VarValue(pub Value);

impl JsonSchema for VarValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "VarValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean", "array", "object"] })
    }
}

/// Vars as a file sets them.
pub type VarTable = BTreeMap<At<VarName>, At<VarValue>>;

/// The vars with their places.
pub fn place(vars: &VarTable, file: &Arc<str>) -> Vars {
    let placed = |(name, value): (&At<VarName>, &At<VarValue>)| {
        let at = Location::new(file.clone(), value.span.clone());
        (name.value.0.clone(), Var { value: value.value.0.clone(), at })
    };
    vars.iter().map(placed).collect()
}

/// The type of a var's value, for messages. All levels that set a var must agree on it.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

//! Checks parameters against the JSON schema in a plugin's description.
//!
//! In: a schema, then parameters. Out: each violation by parameter, worded like the faults of built-in kinds where it is of a usual
//! form. A schema that refers to another document does not compile: none is ever fetched.

use std::collections::BTreeSet;

use groundplan_inventory::hint;
use groundplan_services::plugin::{ParamCheck, Violation};
use jsonschema::{
    ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
    paths::{Location, LocationSegment},
};
use serde_json::{Map, Value};

#[derive(Debug)]
struct SchemaCheck {
    schema: Value,
    validator: Validator,
}

/// Compiles a schema.
///
/// # Errors
/// What is wrong with it, with the path to it.
pub(super) fn compile(schema: &Value) -> Result<Box<dyn ParamCheck>, String> {
    let built = jsonschema::options().offline().should_validate_formats(true).build(schema);
    let validator = built.map_err(|e| {
        let at = path(e.instance_path());
        if at.is_empty() { e.to_string() } else { format!("`{at}`: {e}") }
    })?;
    Ok(Box::new(SchemaCheck { schema: schema.clone(), validator }))
}

impl ParamCheck for SchemaCheck {
    fn violations(&self, params: &Map<String, Value>) -> Vec<Violation> {
        let params = Value::Object(params.clone());
        let errors: Vec<_> = self.validator.iter_errors(&params).collect();
        // What was probably meant by a name that is not known is not missing.
        let meant: BTreeSet<String> = errors.iter().flat_map(|error| self.meant(error)).collect();
        let follows = |error: &&ValidationError<'_>| match error.kind() {
            ValidationErrorKind::Required { property } => {
                property.as_str().is_some_and(|key| meant.contains(&below(&path(error.instance_path()), key)))
            }
            _ => false,
        };
        errors.iter().filter(|error| !follows(error)).flat_map(|error| self.violation(error)).collect()
    }

    fn unmentioned(&self, params: &Map<String, Value>) -> Vec<Violation> {
        let mut found = Vec::new();
        unmentioned(&self.schema, &Value::Object(params.clone()), "", &mut found);
        found
    }
}

/// Keys below `at` that a schema which lists properties says nothing of.
fn unmentioned(schema: &Value, value: &Value, at: &str, found: &mut Vec<Violation>) {
    let below = |key: &str| below(at, key);
    match value {
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                unmentioned(&schema["items"], value, &format!("{at}[{i}]"), found);
            }
        }
        Value::Object(map) => {
            let Some(properties) = schema["properties"].as_object() else { return };
            // Keywords by which other names may have a meaning that is not followed here.
            let decides =
                ["additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames", "$ref"]
                    .into_iter()
                    .chain(["allOf", "anyOf", "oneOf", "if", "dependentSchemas"])
                    .any(|keyword| schema.get(keyword).is_some());
            for (key, value) in map {
                match properties.get(key) {
                    Some(schema) => unmentioned(schema, value, &below(key), found),
                    None if decides => {}
                    None => found.push(Violation {
                        param: below(key),
                        message: format!("has no parameter `{}`", hint::excerpt(&below(key))),
                        hint: Some(hint::choose(key, &properties.keys().collect::<Vec<_>>())),
                    }),
                }
            }
        }
        _ => {}
    }
}

impl SchemaCheck {
    /// An error of the validator, in our own words where it is of a usual form.
    fn violation(&self, error: &ValidationError<'_>) -> Vec<Violation> {
        let at = path(error.instance_path());
        let below = |key: &str| below(&at, key);
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let known = self.properties(error.instance_path());
                let unknown = |key: &String| Violation {
                    param: below(key),
                    message: format!("has no parameter `{}`", hint::excerpt(&below(key))),
                    hint: Some(hint::choose(key, &known)),
                };
                unexpected.iter().map(unknown).collect()
            }
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let message = format!("has no `{}`", below(key));
                vec![Violation { param: at, message, hint: Some(format!("add `{key} = …`")) }]
            }
            ValidationErrorKind::Type { kind: TypeKind::Single(_) } if at.is_empty() => {
                vec![Violation { param: at, message: error.to_string(), hint: None }]
            }
            _ => {
                let hint = self.schema_of(error.instance_path()).and_then(|schema| schema["description"].as_str());
                vec![Violation { param: at, message: hint::brief(&error.to_string()), hint: hint.map(str::to_owned) }]
            }
        }
    }

    /// The parameters that were probably meant by those which an error reports as unknown.
    fn meant(&self, error: &ValidationError<'_>) -> Vec<String> {
        let (ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected }) = error.kind()
        else {
            return Vec::new();
        };
        let known = self.properties(error.instance_path());
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let at = path(error.instance_path());
        unexpected.iter().filter_map(|key| Some(below(&at, hint::meant(key, &known)?))).collect()
    }

    /// The part of the schema for a parameter; none where it is reached through `$ref`, `anyOf` and the like.
    fn schema_of(&self, at: &Location) -> Option<&Value> {
        let mut schema = &self.schema;
        for segment in at {
            schema = match segment {
                LocationSegment::Property(key) => schema.get("properties")?.get(&*key)?,
                LocationSegment::Index(_) => schema.get("items")?,
            };
        }
        Some(schema)
    }

    fn properties(&self, at: &Location) -> Vec<String> {
        let properties = self.schema_of(at).and_then(|schema| schema.get("properties")?.as_object());
        properties.into_iter().flatten().map(|(key, _)| key.clone()).collect()
    }
}

/// The path to the parameter `key` of the one at `at`.
fn below(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// The path to a parameter as messages show it: `list[1].port`.
fn path(at: &Location) -> String {
    let mut path = String::new();
    for segment in at {
        match segment {
            LocationSegment::Property(key) if path.is_empty() => path.push_str(&key),
            LocationSegment::Property(key) => path.extend([".", &*key]),
            LocationSegment::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn violations(params: Value) -> Vec<String> {
        let schema = json!({
            "type": "object",
            "properties": {
                "zone": { "type": "string", "pattern": "^[A-Z]", "description": "a name from tzselect(8)" },
                "list": { "type": "array", "items": { "type": "object", "properties": { "port": { "type": "integer" } } } }
            },
            "required": ["zone"],
            "additionalProperties": false
        });
        let violations = compile(&schema).unwrap().violations(params.as_object().unwrap());
        let text = |v: Violation| format!("{}: {} ({})", v.param, v.message, v.hint.unwrap_or_default());
        violations.into_iter().map(text).collect()
    }

    #[test]
    fn each_violation_names_its_parameter() {
        assert_eq!(violations(json!({ "zone": "Europe/Vienna" })), [""; 0]);
        assert_eq!(violations(json!({})), [": has no `zone` (add `zone = …`)"]);
        // One fault: what is misspelt is not missing as well.
        assert_eq!(violations(json!({ "zoen": 1 })), ["zoen: has no parameter `zoen` (did you mean `zone`?)"]);
        assert_eq!(
            violations(json!({ "zone": "Europe/Vienna", "zoen": 1 })),
            ["zoen: has no parameter `zoen` (did you mean `zone`?)"]
        );
        assert_eq!(
            violations(json!({ "zone": "vienna", "list": [{ "port": 1 }, { "port": "x" }] })),
            [
                "zone: \"vienna\" does not match \"^[A-Z]\" (a name from tzselect(8))",
                "list[1].port: \"x\" is not of type \"integer\" ()"
            ]
        );
    }

    #[test]
    fn what_is_no_schema_or_refers_elsewhere_does_not_compile() {
        let error = compile(&json!({ "type": "strnig" })).unwrap_err();
        assert!(error.starts_with("`type`: "), "{error}");
        for schema in [
            json!({ "pattern": "(" }),
            json!({ "$ref": "http://schemas.example.org/x" }),
            json!({ "$ref": "file:///etc/passwd" }),
        ] {
            assert!(compile(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn a_parameter_that_the_schema_does_not_mention_is_found_unless_the_schema_decides_about_it() {
        let found = |more: Value, params: Value| {
            let mut schema = json!({
                "type": "object",
                "properties": { "zone": {}, "list": { "items": { "properties": { "port": {} } } } }
            });
            schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let check = compile(&schema).unwrap();
            let found = check.unmentioned(params.as_object().unwrap()).into_iter();
            found.map(|v| (v.param, v.hint.unwrap_or_default())).collect::<BTreeSet<_>>()
        };
        let misspelt = || json!({ "zoen": 1, "list": [{ "port": 1 }, { "prot": 1 }] });
        let expected = [("list[1].prot", "did you mean `port`?"), ("zoen", "did you mean `zone`?")];
        assert_eq!(found(json!({}), misspelt()), expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
        assert!(found(json!({ "additionalProperties": true }), json!({ "zoen": 1 })).is_empty());
        assert!(found(json!({ "patternProperties": { "^z": {} } }), json!({ "zoen": 1 })).is_empty());
        assert!(found(json!({}), json!({ "zone": { "any": 1 } })).is_empty());
    }
}

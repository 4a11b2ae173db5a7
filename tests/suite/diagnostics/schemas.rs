//! The JSON schemas of the site files, as editors read them.

use serde_json::Value;

/// Every table lists its keys, every key has a description, and nothing allows null, which TOML does not have.
#[test]
fn schemas_contain_what_editors_need() {
    fn walk(schema: &Value, path: &str) {
        let Some(object) = schema.as_object() else { return };
        assert!(object.get("type").is_none_or(|kind| kind != "null"), "{path} allows for null");
        assert!(!object.contains_key("$ref"), "{path} refers elsewhere, and editors then drop its description");
        if let Some(properties) = object.get("properties").and_then(Value::as_object) {
            let others = object.get("additionalProperties");
            // A task may be of a plugin's kind: a table, whatever its key.
            let is_plugin = path.ends_with(".task[]") && others.is_some_and(|others| others["type"] == "object");
            assert!(is_plugin || others == Some(&Value::Bool(false)), "{path} takes any key");
            for (key, value) in properties {
                assert!(value["description"].is_string(), "{path}.{key} has no description");
                walk(value, &format!("{path}.{key}"));
            }
        }
        for keyword in ["anyOf", "oneOf"] {
            for (i, way) in object.get(keyword).and_then(Value::as_array).into_iter().flatten().enumerate() {
                walk(way, &format!("{path}/{keyword}[{i}]"));
            }
        }
        for value in object.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(|m| m.values()) {
            walk(value, &format!("{path}.*"));
        }
        object.get("items").into_iter().for_each(|items| walk(items, &format!("{path}[]")));
    }
    for (name, schema) in groundplan_inventory::schemas().into_iter().chain(groundplan_services::schemas()) {
        let schema = schema.to_value();
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        assert!(schema["title"].is_string());
        walk(&schema, name);
    }
}

/// The kinds in the schema are those of the registry, and a task has exactly one.
#[test]
fn the_schema_of_a_task_has_every_kind() {
    let (_, schema) = groundplan_services::schemas().remove(0);
    let task = &schema.to_value()["properties"]["task"]["items"];
    for kind in groundplan_protocol::kinds::NAMES {
        // A table, or for kinds with a shorter way of saying it one among several forms.
        let params = &task["properties"][kind];
        let is_table = |schema: &Value| schema["type"] == "object";
        let among = params["anyOf"].as_array().is_some_and(|ways| ways.iter().any(is_table));
        assert!(is_table(params) || among, "{kind}: {params:#}");
    }
    // Or a plugin's.
    assert_eq!(task["oneOf"].as_array().map(Vec::len), Some(groundplan_protocol::kinds::NAMES.len() + 1));
    assert_eq!(task["required"], serde_json::json!(["id"]));
}

//! `groundplan init`, and the schemas that it writes.

use std::{fs, path::Path};

use insta::assert_snapshot;

use super::groundplan;

#[test]
fn the_skeleton_passes_check_and_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let run = groundplan(dir.path(), &["init", "my-site"]);
    assert_snapshot!(run.text());
    let site = dir.path().join("my-site");
    assert!(site.join(".git").exists());
    assert_eq!(groundplan(&site, &["check"]).text(), "exit 0\n--- stdout\n1 node, 1 service, 2 tasks: no errors\n");
    let again = groundplan(dir.path(), &["init", "my-site"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("nothing was written"), "{}", again.text());
}

#[test]
fn every_file_names_a_schema_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(groundplan(dir.path(), &["init"]).code, 0);
    for file in ["site.toml", "inventory/nodes.toml", "services/hello/service.toml"] {
        let path = dir.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        let schema = text.lines().next().unwrap().strip_prefix("#:schema ").expect("the first line names the schema");
        let schema = fs::read_to_string(path.parent().unwrap().join(schema)).expect(schema);
        let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
        assert_eq!(schema["type"], "object", "{file}");
    }
}

/// Compares `docs/schemas/` with what the program prints; with `UPDATE_SCHEMAS` set, writes it again.
#[test]
fn committed_schemas_are_those_of_the_types() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas");
    for name in ["site", "inventory", "service", "plan"] {
        let run = groundplan(Path::new("/"), &["schema", name]);
        let path = docs.join(format!("{name}.schema.json"));
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            fs::write(&path, &run.stdout).expect("docs/schemas can be written");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(run.stdout == committed, "docs/schemas/{name}.schema.json: run this test with UPDATE_SCHEMAS=1");
    }
}

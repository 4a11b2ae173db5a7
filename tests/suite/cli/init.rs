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

#[test]
fn the_branch_is_the_one_that_the_user_has_chosen() {
    let dir = tempfile::tempdir().unwrap();
    for (chosen, branch) in [("[init]\ndefaultBranch = trunk\n", "refs/heads/trunk"), ("", "refs/heads/main")] {
        let config = dir.path().join("config");
        fs::write(&config, chosen).unwrap();
        let site = dir.path().join(branch.replace('/', "-"));
        let run = std::process::Command::new(groundplan_tests::binaries::groundplan())
            .args(["init", site.to_str().unwrap()])
            .env("GIT_CONFIG_GLOBAL", &config)
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .output()
            .unwrap();
        assert!(run.status.success());
        assert_eq!(fs::read_to_string(site.join(".git/HEAD")).unwrap(), format!("ref: {branch}\n"));
    }
}

#[test]
fn schemas_can_be_written_again_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(groundplan(dir.path(), &["init"]).code, 0);
    let (schema, site) = (dir.path().join(".groundplan/schemas/site.schema.json"), dir.path().join("site.toml"));
    let text = fs::read_to_string(&schema).unwrap();
    fs::write(&schema, "of another version").unwrap();
    fs::write(&site, "name = \"mine\"\n").unwrap();
    let run = groundplan(dir.path(), &["init", "--schemas"]);
    assert_eq!(run.code, 0, "{}", run.text());
    assert_eq!(
        (fs::read_to_string(&schema).unwrap(), fs::read_to_string(&site).unwrap().as_str()),
        (text, "name = \"mine\"\n")
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let run = groundplan(elsewhere.path(), &["init", "--schemas"]);
    assert!(run.code == 1 && run.stderr.contains("has no site.toml"), "{}", run.text());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

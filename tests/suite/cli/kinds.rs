//! `groundplan kinds`, and the page that it makes.

use std::{fs, path::Path};

use super::groundplan;

/// Compares `docs/kinds.md` with what the program prints; with `UPDATE_SCHEMAS` set, writes it again.
#[test]
fn the_committed_page_is_that_of_the_types() {
    let run = groundplan(Path::new("/"), &["kinds", "--format", "markdown"]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kinds.md");
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        fs::write(&path, &run.stdout).expect("docs/kinds.md can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(run.stdout == committed, "docs/kinds.md is old: groundplan kinds --format markdown > docs/kinds.md");
}

#[test]
fn a_kind_is_explained_and_a_misspelt_one_found() {
    let run = groundplan(Path::new("/"), &["kinds", "link"]);
    assert!(run.stdout.contains("target  (string, required)"), "{}", run.stdout);
    let run = groundplan(Path::new("/"), &["kinds", "pakage"]);
    assert!(run.stderr.contains("did you mean `package`?"), "{}", run.stderr);
    let kinds = groundplan(Path::new("/"), &["kinds"]).stdout;
    assert_eq!(kinds.lines().count(), groundplan_protocol::kinds::NAMES.len());
}

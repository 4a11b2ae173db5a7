//! `groundplan kinds`, and the page that it makes.

use std::{fs, path::Path};

use super::groundplan;

/// Compares pages with what the program prints; with `UPDATE_SCHEMAS` set, writes them again.
#[test]
fn the_committed_pages_are_those_of_the_types() {
    for (page, args) in [("docs/kinds.md", &["kinds", "--format", "markdown"][..]), ("docs/task-keys.md", &KEYS)] {
        let run = groundplan(Path::new("/"), args);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            fs::write(&path, &run.stdout).expect("a page can be written");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(run.stdout == committed, "{page} is old: groundplan {} > {page}", args.join(" "));
    }
}

const KEYS: [&str; 4] = ["kinds", "--keys", "--format", "markdown"];

#[test]
fn every_key_of_a_task_is_explained() {
    let page = groundplan(Path::new("/"), &KEYS).stdout;
    for key in [
        "id",
        "requires",
        "needed_by",
        "restart_on",
        "reload_on",
        "run_on",
        "once",
        "when",
        "ready",
        "ready.timeout",
        "provides",
        "conflicts",
        "prevent_destroy",
        "on_interrupt",
        "on_remove",
    ] {
        assert!(page.contains(&format!("\n| `{key}`")), "{key}:\n{page}");
    }
    assert!(!page.contains("| `file"), "{page}");
    let text = groundplan(Path::new("/"), &["kinds", "--keys"]).stdout;
    assert!(
        text.contains("\nid  (string, required)\n")
            && text.contains("    requires = [\"packages\", \"database/ready\"]\n"),
        "{text}"
    );
    assert!(text.contains("\n    ready = { http = "), "{text}");
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

//! Mistakes that people make, as data: each file of `mistakes/` is a site with one of them, and what is reported.
//!
//! A file begins with a comment that says what it shows. Then come files of the site, each after `--- path`; those of [`SITE`] are there as
//! well unless they are replaced. What follows `=== report` is expected. `UPDATE=1` writes what was found, to be reviewed as a diff.

use std::{collections::BTreeMap, env, fs, path::Path, sync::Arc};

use groundplan::{diagnose, lint, site};
use groundplan_core::{Knowledge, source::MemoryTree};

/// A site without faults: two nodes that run one service.
const SITE: [(&str, &str); 3] = [
    ("site.toml", "name = \"s\"\n\n[vars]\nport = 80\n"),
    (
        "inventory/nodes.toml",
        "[groups.web]\nservices = [\"web\"]\n\n[nodes.a]\ngroups = [\"web\"]\n\n[nodes.b]\ngroups = [\"web\"]\n",
    ),
    (
        "services/web/service.toml",
        "[[task]]\nid = \"conf\"\nfile = { path = \"/srv/conf\", content = \"port {{ port }}\" }\n",
    ),
];

const REPORT: &str = "=== report\n";

#[test]
fn every_mistake_is_reported_with_what_to_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("suite/diagnostics/mistakes");
    let mut failures = String::new();
    let mut cases = 0;
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a case");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let (input, expected) = text.split_once(REPORT).unwrap_or((&text, ""));
        let found = report(&name, input);
        cases += 1;
        if found.trim_end() == expected.trim_end() {
            continue;
        }
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, format!("{}\n\n{REPORT}{}\n", input.trim_end(), found.trim_end())).expect("written");
        } else {
            failures += &format!("--- {name}: expected\n{expected}\n--- {name}: found\n{found}\n");
        }
    }
    assert!(cases > 10, "{cases} cases");
    assert!(failures.is_empty(), "\n{failures}\nUPDATE=1 writes what was found into the files");
}

#[test]
fn the_site_that_the_mistakes_are_made_in_has_none() {
    assert_eq!(report("the site", "# No mistake.\n"), "nothing");
}

/// The errors of a site, or its warnings if it has no errors.
fn report(name: &str, input: &str) -> String {
    assert!(input.starts_with("# "), "{name} does not begin with a comment that says what it shows");
    let mut files: BTreeMap<String, Arc<[u8]>> =
        SITE.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().into())).collect();
    for part in input.split("\n--- ").skip(1) {
        let (path, text) = part.split_once('\n').unwrap_or((part, ""));
        files.insert(path.to_owned(), format!("{}\n", text.trim_end()).into_bytes().into());
    }
    let tree = MemoryTree::new(files.iter().map(|(path, bytes)| (path.as_str(), bytes.to_vec())));
    let found = match site::load(&tree, &Knowledge::default(), &mut site::Cache::default()) {
        Ok(site) => lint::warnings(&site, &tree),
        Err(faults) => faults,
    };
    match found.as_slice() {
        [] => "nothing".to_owned(),
        found => diagnose::render(found, &|path| files.get(path).cloned(), false),
    }
}

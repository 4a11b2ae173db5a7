//! What the pages in docs/ refer to is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::workspace;

/// The README and every page below docs/.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![workspace().join("README.md")];
    let mut folders = vec![workspace().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The name by which a heading is linked to.
fn anchor(heading: &str) -> String {
    let plain = heading.trim_start_matches('#').trim().to_lowercase();
    plain
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut broken = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap_or(Path::new("")).join(path) };
            let has = |text: String| text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            let found = target.exists() && (heading.is_empty() || fs::read_to_string(&target).is_ok_and(has));
            if !found {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(count > 20, "{count} links");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_glossary_defines_what_the_pages_take_for_granted() {
    let glossary = fs::read_to_string(workspace().join("docs/glossary.md")).expect("the glossary");
    for term in ["rollout", "task", "instance", "capability", "obligation", "gate", "claim"] {
        assert!(glossary.lines().any(|line| line.starts_with(&format!("**{term}** — "))), "{term} is not defined");
    }
    let of = |term: &str| glossary.lines().find(|line| line.starts_with(&format!("**{term}**"))).unwrap_or_default();
    assert!(of("obligation").contains("**owed**"), "{}", of("obligation"));
    assert!(of("gate").contains("`unknown`"), "{}", of("gate"));
}

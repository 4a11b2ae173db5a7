//! Fed: a text with up to three parts, see [`super::files`]: `template`, the text of a file; `line`, a shell line; `when`, a condition. They
//! are put into the service of a site, in which a node reports facts of an attacker.
//!
//! Checked: what [`super::site`] checks. What the node reports begins no line of the file, and does not leave the quotes in the shell line.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_core::{Knowledge, SourceTree as _, desired::Body, source::MemoryTree};
use groundplan_protocol::blob::Content;
use serde_json::json;

use super::{files, site};

/// What a node reports as its host name: a control character that nothing else here has, and a word that a shell must not run.
const BELL: char = '\u{7}';
const HOSTNAME: &str = "'; PWNED `PWNED` $(PWNED) \" \\ \u{7}";

/// See the module.
pub fn check(text: &[u8]) {
    let parts: BTreeMap<&str, &[u8]> = files::files(text).into_iter().collect();
    let part = |name| parts.get(name).map(|text| String::from_utf8_lossy(text).into_owned());
    let [template, line, when] = ["template", "line", "when"].map(part);
    let mut service = "[vars]\nlist = [1, 'two', { three = 3 }]\nname = 'x {{ node.name }}'\nempty = ''\n".to_owned();
    let mut tree = MemoryTree::new([
        ("site.toml", "name = \"lab\"\n"),
        (
            "inventory/nodes.toml",
            "[groups.g]\nservices = [\"s\"]\n[nodes.n0]\ngroups = [\"g\"]\n[nodes.n1]\ngroups = [\"g\"]\n",
        ),
        ("services/s/part.j2", "part of {{ node.name }}\n"),
    ]);
    if let Some(template) = &template {
        service += "[[task]]\nid = 'file'\ntemplate = { source = 'file.j2', path = '/f' }\n";
        tree.write("services/s/file.j2", template.as_bytes());
    }
    if let Some(line) = &line {
        service += &format!("[[task]]\nid = 'line'\ncommand = {{ run = {} }}\n", json!(line.trim_end()));
    }
    if let Some(when) = &when {
        service += &format!(
            "[[task]]\nid = 'when'\nwhen = {}\nfile = {{ path = '/w', content = 'w' }}\n",
            json!(when.trim_end())
        );
    }
    tree.write("services/s/service.toml", service);

    let facts = json!({ "hostname": HOSTNAME, "cpus": 4, "os": { "id": "debian", "version": "13" }, "addresses": ["::1", "10.0.0.1"] });
    let facts = Arc::new(facts.as_object().expect("facts").clone().into_iter().collect());
    let nodes = ["n0", "n1"].map(|node| (node.parse().expect("a name"), Arc::clone(&facts)));
    let knowledge = Knowledge { facts: nodes.into(), ..Knowledge::default() };
    let Some(site) = site::check_tree(&tree, &knowledge) else { return };
    for task in &site.desired.graph.tasks {
        for instance in &task.instances {
            let resolved = &instance.resolved;
            match task.id.task.as_str() {
                // A template may have the character in its own text, or write it as an escape.
                "file" if template.as_ref().is_some_and(|text| !text.contains([BELL, '\\'])) => {
                    let content = match (&resolved.body, &resolved.spec.content) {
                        (Some(Body::Bytes(bytes)), _) => bytes.to_vec(),
                        (Some(Body::File(path)), _) => tree.read(path).expect("a file").to_vec(),
                        (None, Some(Content::Text(text))) => text.clone().into_bytes(),
                        _ => continue,
                    };
                    assert!(!String::from_utf8_lossy(&content).contains(BELL), "in a file: {content:?}");
                }
                "line" if line.as_ref().is_some_and(|line| !line.contains("PWNED")) => {
                    let given = resolved.spec.params.given();
                    assert!(!is_run(given["run"].as_str().expect("a line")), "as a command: {given:?}");
                }
                _ => {}
            }
        }
    }
}

/// Whether the word stands outside of single quotes, where a shell would take it for more than text.
fn is_run(line: &str) -> bool {
    let (mut outside, mut chars) = (String::new(), line.chars());
    // The quote that is open; within double quotes, single ones are text (POSIX, Shell Command Language, 2.2).
    let mut open = None;
    while let Some(c) = chars.next() {
        match (open, c) {
            (Some('\''), '\'') | (Some('"'), '"') => open = None,
            (Some('\''), _) => {}
            (None, '\'' | '"') => open = Some(c),
            (_, '\\') => drop(chars.next()),
            _ => outside.push(c),
        }
    }
    outside.contains("PWNED")
}

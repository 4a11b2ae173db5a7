//! Fed: the text of a selector, for a site of a few nodes with groups, labels and services.
//!
//! Checked: what parses is written and parsed again the same; it matches nodes of the site only, and the same ones inside parentheses; with
//! its complement it matches each node once.

use std::{collections::BTreeSet, sync::LazyLock};

use groundplan::{
    select::{SelectError, Selector},
    site::{Cache, Loaded, load},
};
use groundplan_core::{Knowledge, source::MemoryTree};
use groundplan_protocol::ids::NodeId;

const NODES: &str = r#"
[groups.ctl]
services = ["api"]

[groups.all-racks]

[groups.web]

[nodes.ctl-0]
groups = ["ctl"]
labels = { rack = "a1", note = "a, 1" }

[nodes.ctl-1]
groups = ["ctl", "web"]
labels = { rack = "b1" }

[nodes.web]
groups = ["all-racks"]
labels = { rack = "a1", empty = "" }

[nodes."db.example.org"]
"#;

static SITE: LazyLock<Loaded> = LazyLock::new(|| {
    let tree = MemoryTree::new([
        ("site.toml", "name = \"lab\"\n"),
        ("inventory/nodes.toml", NODES),
        ("services/api/service.toml", "[[task]]\nid = \"t\"\nfile = { path = \"/t\", content = \"t\" }\n"),
    ]);
    load(&tree, &Knowledge::default(), &mut Cache::default()).unwrap_or_else(|faults| panic!("{faults:#?}"))
});

/// See the module.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(selector) = text.parse::<Selector>() else { return };
    assert_eq!(selector.to_string().parse::<Selector>().as_ref(), Ok(&selector));
    let json = serde_json::to_string(&selector).expect("JSON");
    assert_eq!(serde_json::from_str::<Selector>(&json).expect("a selector"), selector);

    let all: BTreeSet<NodeId> = SITE.inventory.nodes.keys().cloned().collect();
    let matched = select(&selector);
    if let Some(matched) = &matched {
        assert!(matched.is_subset(&all));
    }
    // One level more may be one too many.
    if let Ok(nested) = format!("({text})").parse() {
        assert_eq!(select(&nested), matched);
    }
    if let (Ok(complement), Some(matched)) = (format!("!({text})").parse(), &matched) {
        let others = select(&complement).expect("its parts exist");
        assert!(others.is_disjoint(matched));
        assert_eq!(&others | matched, all);
    }
}

/// The nodes, if all parts of the selector exist.
fn select(selector: &Selector) -> Option<BTreeSet<NodeId>> {
    match selector.select(&SITE.inventory, &SITE.catalog) {
        Ok(nodes) => {
            assert!(!nodes.is_empty());
            Some(nodes)
        }
        Err(SelectError::Empty { .. }) => Some(BTreeSet::new()),
        Err(error) => {
            let _ = (error.to_string(), error.hint());
            None
        }
    }
}

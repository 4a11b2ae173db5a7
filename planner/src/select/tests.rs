//! Selectors against one small site.

use std::sync::Arc;

use groundplan_services::{Plugins, tree};

use super::*;

/// `web` is a group; `both` is a group and a node.
const FILES: [(&str, &str); 5] = [
    ("site.toml", "name = \"s\"\n"),
    (
        "inventory/nodes.toml",
        "[groups.ctl]\nservices = [\"keystone\"]\n[groups.web]\nservices = [\"nginx\", \"keystone\"]\n[groups.empty]\n[groups.both]\n\
         [nodes.ctl-0]\ngroups = [\"ctl\"]\nlabels = { rack = \"a1\", zone = \"x, y\" }\n\
         [nodes.ctl-1]\ngroups = [\"ctl\"]\nlabels = { rack = \"a2\" }\n\
         [nodes.\"web-0.example\"]\ngroups = [\"web\"]\nlabels = { rack = \"a1\" }\n\
         [nodes.both]\n",
    ),
    ("services/keystone/service.toml", "[[task]]\nid = \"a\"\ncommand = { run = \"true\" }\n"),
    ("services/nginx/service.toml", "[[task]]\nid = \"a\"\ncommand = { run = \"true\" }\n"),
    ("services/idle/service.toml", "[[task]]\nid = \"a\"\ncommand = { run = \"true\" }\n"),
];

fn site(files: &[(&str, &str)]) -> (Inventory, Catalog) {
    let parsed: Vec<_> = files.iter().map(|(path, text)| tree::parse(&Arc::from(*path), text.as_bytes())).collect();
    let (model, faults) = tree::merge(&parsed, files.iter().map(|(path, _)| *path), &Plugins::default());
    assert!(faults.is_empty(), "{faults:#?}");
    (model.inventory, model.catalog)
}

/// The nodes that a selector matches, or its error.
fn select(text: &str) -> String {
    let (inventory, catalog) = site(&FILES);
    let selector: Selector = match text.parse() {
        Ok(selector) => selector,
        Err(e) => return format!("{e}"),
    };
    match selector.select(&inventory, &catalog) {
        Ok(nodes) => nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(" "),
        Err(e) => format!("{e} / {}", e.hint()),
    }
}

#[test]
fn selectors_match_nodes() {
    for (text, nodes) in [
        ("all", "both ctl-0 ctl-1 web-0.example"),
        ("ctl-0", "ctl-0"),
        ("ctl", "ctl-0 ctl-1"),
        ("node:both", "both"),
        ("web-0.example", "web-0.example"),
        ("ctl-*", "ctl-0 ctl-1"),
        ("*-?", "ctl-0 ctl-1"),
        ("*", "both ctl-0 ctl-1 web-0.example"),
        ("rack=a1", "ctl-0 web-0.example"),
        ("rack=*", "ctl-0 ctl-1 web-0.example"),
        ("zone=\"x, y\"", "ctl-0"),
        ("service:keystone", "ctl-0 ctl-1 web-0.example"),
        ("service:nginx", "web-0.example"),
        ("ctl-0,web", "ctl-0 web-0.example"),
        (" ctl & rack=a1 ", "ctl-0"),
        ("!ctl", "both web-0.example"),
        ("all&!rack=a1,web", "both ctl-1 web-0.example"),
        ("all & !(rack=a1, node:both)", "ctl-1"),
        ("!!ctl-0", "ctl-0"),
        ("ctl-0,empty", "ctl-0"),
    ] {
        assert_eq!(select(text), nodes, "{text}");
    }
}

#[test]
fn unknown_names_are_reported_with_those_that_exist() {
    for (text, expected) in [
        ("both", "`both` is both a node and a group / write `node:both` or `group:both`"),
        ("clt-0", "no node or group `clt-0` / did you mean `ctl-0`?"),
        ("!clt-0", "no node or group `clt-0` / did you mean `ctl-0`?"),
        ("node:ctl", "no node `ctl` / did you mean `ctl-0`?"),
        ("group:wbe", "no group `wbe` / did you mean `web`?"),
        ("service:keyston", "no service `keyston` / did you mean `keystone`?"),
        ("rakc=a1", "no node has a label `rakc` / did you mean `rack`?"),
        ("rack=z9", "no node has the label `rack=z9` / known here: `a1`, `a2`"),
        ("!rack=z9", "no node has the label `rack=z9`"),
        ("db-*", "no node's name matches `db-*` / the site's nodes are `both`, `ctl-0`"),
        ("ctl-0&web", "matches no node / `ctl-0` matches 1 node, `web` matches 1 node"),
        ("empty", "the selector `empty` matches no node / `empty` matches none; the site's groups are `all`, `both`"),
        ("service:idle", "matches no node / `service:idle` matches none"),
        ("ctl-0&web,nothing", "no node or group `nothing`"),
    ] {
        let result = select(text);
        assert!(result.contains(expected), "{text}: {result}");
    }
}

#[test]
fn syntax_errors() {
    for (text, expected) in [
        ("", "the selector is empty; `all` matches every node"),
        ("  ", "the selector is empty"),
        (",a", "a selector cannot begin with `,`"),
        ("a,", "expected a node, a group, a label or a service after `a,`"),
        ("a,,b", "expected a node, a group, a label or a service after `a,`"),
        ("a&", "expected a node, a group, a label or a service after `a&`"),
        ("!", "expected a node, a group, a label or a service after `!`"),
        ("(a", "a `(` is never closed"),
        ("a)", "expected `,`, `&` or the end after `a`, not `)`"),
        ("a b", "expected `,`, `&` or the end after `a`, not `b`"),
        ("rack=\"a", "a `\"` is never closed"),
        ("role:x", "unknown prefix `role:`; use `node:`, `group:` or `service:`"),
        (":x", "unknown prefix `:`"),
        ("service:", "expected a node, a group, a label or a service after `service:`"),
        ("knö", "not `ö`"),
        ("@x", "`@` cannot be part of a name"),
        ("=x", "`=` cannot be part of a name"),
    ] {
        let result = select(text);
        assert!(result.contains(expected), "{text}: {result}");
    }
    assert!(select(&"!".repeat(60_000)).contains("nests more than"));
    assert!(select(&"(".repeat(60_000)).contains("nests more than"));
    assert!(select(&"a,".repeat(60_000)).contains("longer than"));
}

#[test]
fn an_empty_site_has_its_own_hint() {
    let (inventory, catalog) = site(&[("site.toml", "name = \"s\"\n")]);
    let error = "all".parse::<Selector>().unwrap().select(&inventory, &catalog).unwrap_err();
    assert_eq!(error.hint(), "the site declares no nodes yet: add one in `inventory/`");
}

#[test]
fn a_selector_is_serialized_as_its_text() {
    let selector: Selector = " ctl & !rack=a1".parse().unwrap();
    let json = serde_json::to_string(&selector).unwrap();
    assert_eq!(json, "\"ctl & !rack=a1\"");
    assert_eq!(serde_json::from_str::<Selector>(&json).unwrap(), selector);
    assert!(serde_json::from_str::<Selector>("\"a,\"").is_err());
}

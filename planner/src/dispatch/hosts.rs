//! Answers about nodes' hosts, and taking the keys of their agents.
//!
//! In: names, and keys that an operator vouches for by asking on the planner's own socket. Out: what the inventory says, and a key in
//! `trusted/`. A key that is there already is never replaced unless that is asked for, and the inventory's word never.

use std::collections::BTreeSet;

use groundplan_protocol::ids::NodeId;

use super::{Dispatcher, answers::problem};
use crate::{
    api::{
        hosts::{Host, Hosts, HostsRequest, TrustRequest, Trusted},
        types::{Problem, VERSION},
    },
    trust,
};

impl Dispatcher {
    /// What is known of the hosts of some nodes.
    pub(super) fn hosts(&mut self, request: &HostsRequest) -> Result<Hosts, Problem> {
        let (Some(in_force), Some(site)) = (&self.loaded, &self.meta.site) else {
            return Err(no_commit());
        };
        let inventory = &in_force.loaded.inventory;
        let mut nodes = BTreeSet::new();
        for selector in &request.select {
            let selected = selector.select(inventory, &in_force.loaded.catalog);
            nodes.append(&mut selected.map_err(|e| problem(e.to_string(), Some(e.hint())))?);
        }
        let mut hosts = Vec::new();
        for node in nodes {
            let key = self.keys.key(&node, Some(inventory)).map_err(|e| bad_key(&node, &e))?;
            let address = inventory.nodes.get(&node).and_then(|declared| declared.address.clone());
            hosts.push(Host { node, address, key });
        }
        let broker = self.config.broker.to_string();
        Ok(Hosts { version: VERSION, site: site.clone(), planner_key: self.key.public(), broker, hosts })
    }

    /// Takes the key of a node.
    pub(super) fn trust(&mut self, request: &TrustRequest) -> Result<Trusted, Problem> {
        let Some(in_force) = &self.loaded else { return Err(no_commit()) };
        let TrustRequest { node, key, replace } = request;
        let inventory = &in_force.loaded.inventory;
        let Some(declared) = inventory.nodes.get(node) else {
            return Err(problem(
                format!("the site has no node `{node}`"),
                Some("declare it in the inventory".to_owned()),
            ));
        };
        if declared.key.is_some_and(|known| known != *key) {
            return Err(problem(
                format!("the inventory names another key for node {node} than {key}"),
                Some(format!("if the host was set up anew: put this key into [nodes.{node}], or take `key` out there")),
            ));
        }
        match self.keys.key(node, Some(inventory)) {
            Ok(Some(known)) if known == *key => return Ok(Trusted { version: VERSION, changed: false }),
            Ok(Some(known)) if !replace => {
                return Err(problem(
                    format!("node {node} has had the key {known} so far, and not {key}"),
                    Some("if the host was set up anew, and it is the right one: --replace-key".to_owned()),
                ));
            }
            Ok(_) => {}
            Err(_) if *replace => {}
            Err(e) => return Err(bad_key(node, &e)),
        }
        trust::trust_node(&self.state_dir, node, key).map_err(|e| {
            let because = std::error::Error::source(&e).map(|source| format!(": {source}")).unwrap_or_default();
            problem(format!("{e}{because}"), None)
        })?;
        // Two keys within one tick of the file system's clock have one time.
        self.keys.forget(node);
        tracing::info!(%node, %key, "the key of a node is trusted from now on");
        Ok(Trusted { version: VERSION, changed: true })
    }
}

fn no_commit() -> Problem {
    problem("there is no commit in force yet", Some("`groundplan status` says why".to_owned()))
}

fn bad_key(node: &NodeId, error: &trust::TrustError) -> Problem {
    let hint = format!("mend or remove that file: it names the key of node {node}");
    problem(error.to_string(), Some(hint))
}

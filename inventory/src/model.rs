//! The validated model, as later stages use it. Only this crate's validation makes it.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{
    duration::Span,
    envelope::PublicKey,
    ids::{Capability, GroupId, NodeId, ServiceId, SiteName},
    plan::Retry,
    ready::Ready,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    decode::Toggle,
    diagnostic::{Located, Location},
};

/// A variable's value and where it was set.
#[derive(Debug, Clone, PartialEq)]
pub struct Var {
    /// The value; TOML's dates and times are strings.
    pub value: Value,
    /// Where it was set.
    pub at: Location,
}

/// Variables by name, each with the place where it is set.
pub type Vars = BTreeMap<String, Var>;

/// The contents of `site.toml`, validated.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its name, as brokers and agents use it.
    pub name: SiteName,
    /// Vars for all nodes; they override the services' defaults.
    pub vars: Vars,
    /// Capabilities that are provided outside of the site.
    pub external: BTreeMap<Capability, External>,
    /// Rolling limits of services that set none.
    pub rollout: Rollout,
    /// When nodes check for drift, and what happens to it.
    pub drift: Drift,
    /// Whether commits are refused that do not have the active one in their history.
    pub fast_forward_only: bool,
    /// Length of the longest file that services may ship, in bytes.
    pub max_file: u64,
    /// Most bytes of all files together that one node is shipped.
    pub max_node: u64,
    /// Length of the longest text that a template may render to, in bytes.
    pub max_rendered: u64,
}

/// When nodes check for drift, and what happens to it in services that have no policy of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drift {
    /// What happens to drift.
    pub policy: DriftPolicy,
    /// Time from the end of one drift check to the next; none: nodes check only on request.
    pub interval: Option<Span>,
}

impl Default for Drift {
    fn default() -> Self {
        Self { policy: DriftPolicy::Report, interval: Some(Span::secs(30 * 60)) }
    }
}

/// What happens to something that is applied and was changed out of band.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftPolicy {
    /// It is reported, and left alone.
    #[default]
    Report,
    /// It is repaired, and what depends on it restarts.
    Heal,
}

/// A capability that is provided outside of the site.
#[derive(Debug, Clone)]
pub struct External {
    /// Host name or address of its provider.
    pub address: Option<String>,
    /// Values that templates may use as `external["<capability>"].vars.<name>`.
    pub vars: Vars,
    /// The probe that decides when it is available. A `tcp` port alone is one of `address`.
    pub ready: Option<Ready>,
    /// Where it is declared.
    pub at: Location,
}

/// Limits for rollouts, of the site or of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rollout {
    /// On how many nodes at once a service's tasks may be created, updated, restarted or reloaded, at least 1; no limit if absent.
    pub max_unavailable: Option<u32>,
    /// Whether what fails is tried again; absent: what the site says, else no.
    pub retry: Option<Toggle<Retry>>,
}

impl Rollout {
    /// Its own settings, and those of `site` where it has none.
    pub fn or(self, site: Self) -> Self {
        Self { max_unavailable: self.max_unavailable.or(site.max_unavailable), retry: self.retry.or(site.retry) }
    }
}

/// All nodes and groups.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The nodes, in name order.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The groups; `all` is always there and holds every node that is not decommissioned.
    pub groups: BTreeMap<GroupId, Group>,
}

/// Whether the site waits for a node, and whether anything is to run on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// What comes after its tasks waits for it.
    #[default]
    Active,
    /// Nothing on other nodes waits for it. It gets its part of each plan all the same, and carries it out when it is there.
    Parked,
    /// It is in no group and runs nothing: what is applied there is removed. Take it out of the inventory once that is done.
    Decommissioned,
}

/// A host with an agent.
#[derive(Debug, Clone)]
pub struct Node {
    /// Whether the site waits for it.
    pub lifecycle: Lifecycle,
    /// The groups it is in, `all` included; none if it is decommissioned.
    pub groups: BTreeSet<GroupId>,
    /// Its address, for templates.
    pub address: Option<String>,
    /// Labels, for templates and selectors.
    pub labels: BTreeMap<String, String>,
    /// Vars of groups and node, merged: `all` < other groups < node. No two other groups of it differ about one.
    pub vars: Vars,
    /// The public key of its agent, where the inventory has it.
    pub key: Option<PublicKey>,
    /// Where it is declared.
    pub at: Location,
}

/// A named set of nodes that run the same services.
#[derive(Debug, Clone)]
pub struct Group {
    /// What its nodes run, in the order given, each once.
    pub services: Vec<Located<ServiceId>>,
    /// Its nodes, in name order.
    pub nodes: BTreeSet<NodeId>,
    /// Where it is declared; for an undeclared `all`, the file `site.toml`.
    pub at: Location,
}

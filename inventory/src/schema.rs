//! `site.toml` and `inventory/**/*.toml` as they are written. Descriptions here become those of the JSON schemas.

use std::{collections::BTreeMap, num::NonZeroU32};

use groundplan_protocol::{
    duration::Span,
    envelope::PublicKey,
    ids::{Capability, GroupId, NodeId, ServiceId, SiteName},
    ready::Ready,
};
use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    decode::{At, Toggle},
    model::{DriftPolicy, Lifecycle},
    vars::VarTable,
};

/// The site: its name, vars for all nodes, external capabilities, rolling limits, and drift.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "groundplan: site.toml", example = serde_json::json!({ "name": "cloud-1", "vars": { "db_port": 3306 } }))]
pub struct SiteManifest {
    /// The site's name, which brokers and agents know it by.
    #[schemars(required, with = "SiteName", example = "cloud-1")]
    pub name: Option<At<SiteName>>,
    /// Vars for all nodes. They override the defaults of services; groups and nodes override them.
    #[serde(default)]
    #[schemars(example = serde_json::json!({ "db_port": 3306 }))]
    pub vars: VarTable,
    /// Capabilities that are provided outside of the site, by name, such as `[external."database/ready"]`.
    #[serde(default)]
    pub external: BTreeMap<At<Capability>, ExternalManifest>,
    /// Rolling limits of services that set none.
    #[serde(default)]
    pub rollout: RolloutManifest,
    /// What happens to things that were changed out of band.
    #[serde(default)]
    pub drift: DriftManifest,
    /// Which commits planners accept.
    #[serde(default)]
    pub source: SourceManifest,
    /// Length of the longest file that services may ship, in MiB; 256 if not given. Agents refuse longer ones than their own
    /// `max_blob`, in bytes.
    #[schemars(example = 512)]
    pub max_file_mib: Option<NonZeroU32>,
    /// Length of all files together that services ship to one node, in MiB; 1024 if not given. Files up to 32 KiB do not count.
    /// Agents refuse plans with more than their own `max_blobs`, in bytes.
    #[schemars(example = 2048)]
    pub max_node_mib: Option<NonZeroU32>,
    /// Length of the longest text that one template may render to, in MiB; 4 if not given. The steps that rendering may take grow with it.
    #[schemars(example = 16)]
    pub max_rendered_mib: Option<NonZeroU32>,
}

/// Which commits planners accept. What the active commit says counts, so that none can permit itself.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceManifest {
    /// Whether a commit is refused that does not have the active one in its history, as after a force-push, until an operator accepts it
    /// with `groundplan accept`; `false` if not given. `groundplan serve --fast-forward-only` demands it whatever the site says.
    #[schemars(example = true)]
    pub fast_forward_only: Option<bool>,
}

/// When nodes check for drift, and what happens to it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DriftManifest {
    /// `report` (the default): it is reported. `heal`: it is repaired, and what depends on it restarts. Services may override this.
    pub policy: Option<DriftPolicy>,
    /// Time from the end of one check to the next; `30m` if not given. `0s`: only on request.
    #[schemars(example = "30m")]
    pub interval: Option<At<Span>>,
}

/// A capability that is provided outside of the site.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalManifest {
    /// Host name or address of its provider; a `tcp` port of `ready` is one of this host.
    #[schemars(example = "db.example.org")]
    pub address: Option<At<String>>,
    /// Values for templates: `external["database/ready"].vars.<name>`.
    #[serde(default)]
    pub vars: VarTable,
    /// When it is available. Tasks that require it wait for that; without a probe it always is.
    #[schemars(example = serde_json::json!({ "tcp": 3306 }))]
    pub ready: Option<At<Ready>>,
}

/// Limits for rollouts of services: how much may change at once.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutManifest {
    /// On how many nodes at once tasks of one service may be created, updated, restarted or reloaded. No limit if not given.
    #[schemars(example = 1)]
    pub max_unavailable: Option<NonZeroU32>,
    /// Whether tasks that fail are tried again, and how often: `true`, or a table. `false` if not given. What runs a program of yours
    /// (`command`) is tried again only where the task itself says so.
    #[schemars(extend("default" = false), example = serde_json::json!({ "attempts": 3, "backoff": "30s" }))]
    pub retry: Option<Toggle<RetryManifest>>,
}

/// How often and how soon a task that fails is tried again.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryManifest {
    /// How often it is tried in all, the first time included; 3 if not given.
    #[schemars(example = 3)]
    pub attempts: Option<At<NonZeroU32>>,
    /// How long to wait before the second attempt; `30s` if not given. Each further wait is twice as long as the one before, an hour at most.
    #[schemars(example = "30s")]
    pub backoff: Option<At<Span>>,
}

/// Nodes and groups. There may be any number of such files below `inventory/`; they count as one.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "groundplan: inventory/**/*.toml", example = serde_json::json!({
    "groups": { "controller": { "services": ["mariadb", "keystone"] } },
    "nodes": { "ctl-0": { "groups": ["controller"], "address": "10.77.0.11" } }
}))]
pub struct InventoryManifest {
    /// Groups by name. The group `all` is always there and holds every node; it may be declared to give it services and vars.
    #[serde(default)]
    pub groups: BTreeMap<At<GroupId>, GroupManifest>,
    /// Nodes by name: the hosts that have an agent.
    #[serde(default)]
    pub nodes: BTreeMap<At<NodeId>, NodeManifest>,
}

/// A named set of nodes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupManifest {
    /// What its nodes run: names of folders in `services/`.
    #[serde(default)]
    #[schemars(example = serde_json::json!(["mariadb", "keystone"]))]
    pub services: Vec<At<ServiceId>>,
    /// Vars of its nodes. They override those of the site, and nodes override them. Two groups of one node may not differ
    /// about one, unless one of the two is `all`, which gives way.
    #[serde(default)]
    #[schemars(example = serde_json::json!({ "region": "RegionOne" }))]
    pub vars: VarTable,
}

/// A host with an agent.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeManifest {
    /// The groups it is in, beside `all`.
    #[serde(default)]
    #[schemars(example = serde_json::json!(["controller"]))]
    pub groups: Vec<At<GroupId>>,
    /// Its host name or address, for templates: `node.address`.
    #[schemars(example = "10.77.0.11")]
    pub address: Option<At<String>>,
    /// Labels, for templates (`node.labels.<name>`) and for choosing nodes on the command line.
    #[serde(default)]
    #[schemars(example = serde_json::json!({ "rack": "a1" }))]
    pub labels: BTreeMap<String, String>,
    /// Vars of this node. They override all others.
    #[serde(default)]
    pub vars: VarTable,
    /// The public key of its agent: `ed25519:` and 32 bytes in base64. The planner may get it in other ways instead; without a key, it
    /// refuses all messages of the node.
    pub key: Option<At<PublicKey>>,
    /// Whether the site waits for it: `parked` while it is known to be away, `decommissioned` to have everything removed from it before it
    /// leaves the inventory.
    #[serde(default)]
    #[schemars(example = &"parked")]
    pub state: Lifecycle,
}

/// The JSON schema of a site file, in the draft that editors for TOML know. TOML has no null, so neither has the schema.
pub fn json_schema<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    settings.with_transform(RecursiveTransform(without_null)).into_generator().into_root_schema_for::<T>()
}

/// Removes alternatives that allow null, and choices that are left with a single alternative.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
    let Some(Value::Array(ways)) = object.get_mut("anyOf") else { return };
    ways.retain(|way| way.get("type").is_none_or(|name| name != "null"));
    if ways.len() == 1
        && let Some(Value::Object(only)) = ways.pop()
    {
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

/// The JSON schemas of this crate's files, by the name they are published under.
pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("site.schema.json", json_schema::<SiteManifest>()),
        ("inventory.schema.json", json_schema::<InventoryManifest>()),
    ]
}

//! `services/<name>/service.toml` as it is written. Descriptions here become those of the JSON schema.

use groundplan_inventory::{
    DriftPolicy,
    decode::At,
    schema::{RolloutManifest, json_schema},
    vars::VarTable,
};
use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use crate::{model::Reference, task::TaskManifest};

/// A service: what it is, its vars, its tasks in their order, and how it is rolled out.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "groundplan: services/<name>/service.toml", example = serde_json::json!({
    "service": { "description": "OpenStack Identity", "requires": ["database/ready"] },
    "task": [
        { "id": "config", "template": { "source": "keystone.conf.j2", "path": "/etc/keystone/keystone.conf", "mode": "0640" } },
        { "id": "api", "systemd": { "unit": "apache2.service", "enabled": true }, "restart_on": ["config"], "provides": ["identity/ready"] }
    ]
}))]
pub struct ServiceManifest {
    /// What it is, and what it needs.
    #[serde(default)]
    pub service: ServiceHeader,
    /// Defaults of the vars that its templates use. Site, groups and nodes override them.
    #[serde(default)]
    #[schemars(example = serde_json::json!({ "db_name": "keystone" }))]
    pub vars: VarTable,
    /// Its tasks. On a node, each comes after the one before it in the file, unless it says otherwise by `requires`.
    #[serde(default)]
    pub task: Vec<At<TaskManifest>>,
    /// Rolling limits of this service; what it leaves open comes from `site.toml`.
    #[serde(default)]
    pub rollout: RolloutManifest,
    /// What becomes of drift in this service; without it, what `site.toml` says.
    #[serde(default)]
    pub drift: ServiceDrift,
}

/// What becomes of things that were changed behind the agents' backs.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceDrift {
    /// `report`: it is told. `heal`: it is put right, with what must restart after it.
    #[schemars(example = &"heal")]
    pub policy: Option<DriftPolicy>,
}

/// What a service is, and what it needs.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceHeader {
    /// One line for people.
    #[schemars(example = "OpenStack Identity")]
    pub description: Option<String>,
    /// What comes before all of its tasks.
    #[serde(default)]
    #[schemars(example = serde_json::json!(["database/ready"]))]
    pub requires: Vec<At<Reference>>,
}

/// The JSON schema of this crate's file, by the name it is published under.
pub fn schemas() -> Vec<(&'static str, Schema)> {
    vec![("service.schema.json", json_schema::<ServiceManifest>())]
}

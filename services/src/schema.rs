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
    /// Its tasks. On a node, each comes after the one before it in the file, unless it has `requires` of its own.
    #[serde(default)]
    pub task: Vec<At<TaskManifest>>,
    /// Rolling limits of this service; those that it does not set come from `site.toml`.
    #[serde(default)]
    pub rollout: RolloutManifest,
    /// What happens to drift in this service; without it, the policy of `site.toml`.
    #[serde(default)]
    pub drift: ServiceDrift,
}

/// What happens to things that were changed out of band.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceDrift {
    /// `report`: it is reported. `heal`: it is repaired, and what depends on it restarts.
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

//! The keys that tasks of all kinds have. Descriptions here become those of the JSON schema.

use groundplan_inventory::{
    decode::{At, Toggle},
    schema::RetryManifest,
};
use groundplan_protocol::{
    duration::Span,
    ids::{Capability, Resource, TaskName},
    plan::{OnInterrupt, OnRemove},
    ready::Ready,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::Reference;

/// What tasks of all kinds have; beside it stands exactly one key that names the kind.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskFields {
    /// The task's name, unique in its service.
    #[schemars(example = &"config")]
    pub id: At<TaskName>,
    /// What comes before it, instead of the task before it in the file. `[]`: nothing.
    #[schemars(example = serde_json::json!(["packages", "database/ready"]))]
    pub requires: Option<Vec<At<Reference>>>,
    /// What comes after it: the same edge, declared from the other end.
    #[serde(default)]
    pub needed_by: Vec<At<Reference>>,
    /// Restart it when one of these changed something; orders as `requires` does.
    #[serde(default)]
    #[schemars(example = serde_json::json!(["config"]))]
    pub restart_on: Vec<At<Reference>>,
    /// Let it read its configuration again when one of these changed something; orders as `requires` does.
    #[serde(default)]
    pub reload_on: Vec<At<Reference>>,
    /// Run it again when one of these changed something; orders as `requires` does.
    #[serde(default)]
    pub run_on: Vec<At<Reference>>,
    /// On one node of the service only: the first by name that is connected, and from then on that one. `{ failover = "2m" }`: another node
    /// takes over when it has been away for so long, and may carry it out once more. `false` if not given.
    #[schemars(extend("default" = false), example = serde_json::json!({ "failover": "2m" }))]
    pub once: Option<Toggle<OnceFields>>,
    /// An expression over all that templates see. Where it is false, the node has no such task, and one that was applied is removed.
    #[schemars(example = &"facts.os.id == 'debian'")]
    pub when: Option<At<String>>,
    /// When it counts as done; without it, as soon as it is carried out.
    #[schemars(example = serde_json::json!({ "http": "http://127.0.0.1:5000/v3/", "timeout": "60s" }))]
    pub ready: Option<At<Ready>>,
    /// Capabilities that are available once it is done. Other tasks may require them without naming their provider.
    #[serde(default)]
    #[schemars(example = serde_json::json!(["identity/ready"]))]
    pub provides: Vec<At<Capability>>,
    /// What no other task of a node may use at the same time, by any name: `conflicts = ["port-80"]`. Two tasks that list the same are an
    /// error where they meet on a node; and where one takes the other's place, that one ends first. Paths, units, accounts and the
    /// like need not be listed.
    #[serde(default)]
    #[schemars(example = serde_json::json!(["gpu0"]))]
    pub conflicts: Vec<At<Resource>>,
    /// Whether a commit that would remove it from a node, or have it give up something that it owns there, is refused; `false` if not
    /// given. It holds until a commit that sets it to `false` is applied: leaving the task out is not enough.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub prevent_destroy: bool,
    /// What happens after the agent was killed while it ran: `rerun` (the default), or `fail`, so that an operator decides.
    #[serde(default)]
    #[schemars(extend("default" = "rerun"))]
    pub on_interrupt: OnInterrupt,
    /// Whether it is tried again when it fails, and how often: `true`, `false` or a table, as in `[rollout]` of the service and of the site,
    /// which hold without it. A `command` is tried again only if this is given.
    #[schemars(example = serde_json::json!({ "attempts": 3, "backoff": "30s" }))]
    pub retry: Option<Toggle<RetryManifest>>,
    /// What its removal does: `restore` (the default) brings back what was there before, `keep` leaves everything as it is, `delete`
    /// takes it away and brings nothing back. Not for kinds that leave nothing on a node, such as `command`.
    #[schemars(extend("default" = "restore"))]
    pub on_remove: Option<At<OnRemove>>,
}

/// `once` as a table.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnceFields {
    /// How long its node may be away before another one takes over, at least `1s`; however long if not given. The node that is away may
    /// have carried the task out, or may still do so: it is carried out at least once then, and on two nodes until the first is back.
    #[schemars(example = "2m")]
    pub failover: Option<At<Span>>,
}

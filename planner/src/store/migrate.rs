//! Steps from an older layout of the store to the present one, each within the transaction of its caller.
//!
//! In: the tables as an earlier release left them. Out: the same rows in the present layout. A step reads the old shape by types of its
//! own, so that it does not depend on what the present types become.

use groundplan_core::plan::{Position, ReasonReport};
use groundplan_protocol::{
    effect::Effect,
    ids::{InstanceId, NodeId, ServiceId},
};
use redb::{ReadableTable as _, TableDefinition, WriteTransaction};
use serde::{Deserialize, de::Error as _};
use serde_json::Value;

use super::{
    error::{StoreError, access},
    tables::{META, META_KEY, ROLLOUT_KEY, ROLLOUTS, from_json, to_json},
};

/// From layout 1, which embedded types of the API: reasons become the core's, and commits get the names that the rest of the planner
/// uses. Rollouts and commands keep a format version that is no longer read.
pub(super) fn from_1(tx: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = tx.open_table(META).map_err(access)?;
    let row = meta.get(META_KEY).map_err(access)?.map(|row| from_json(row.value())).transpose()?;
    if let Some(mut row) = row {
        rename(&mut row, "good", "active");
        rename(&mut row["refused"], "diagnostics", "faults");
        meta.insert(META_KEY, to_json(&row)?.as_slice()).map_err(access)?;
    }
    let row = meta.get(ROLLOUT_KEY).map_err(access)?.map(|row| from_json::<(Value, Value)>(row.value())).transpose()?;
    if let Some((mut head, mut rollout)) = row {
        rewrite_reasons(&mut head["actions"])?;
        for entry in rollout["entries"].as_array_mut().into_iter().flatten() {
            rename(entry, "owed", "obligation");
        }
        meta.insert(ROLLOUT_KEY, to_json(&(head, rollout))?.as_slice()).map_err(access)?;
    }
    let mut rollouts = tx.open_table(ROLLOUTS).map_err(access)?;
    // A history may be long: one rollout of it at a time is in memory.
    let rows = rollouts.iter().map_err(access)?;
    let generations: Vec<u64> =
        rows.map(|row| Ok(row?.0.value())).collect::<Result<_, redb::StorageError>>().map_err(access)?;
    for generation in generations {
        let row = rollouts.get(generation).map_err(access)?.map(|row| from_json::<Value>(row.value())).transpose()?;
        if let Some(mut row) = row {
            rewrite_reasons(&mut row["instances"])?;
            rollouts.insert(generation, to_json(&row)?.as_slice()).map_err(access)?;
        }
    }
    Ok(())
}

/// From layout 2, which kept plans as signed messages, without an id. They are dropped: the next plan counts for every node.
pub(super) fn from_2(tx: &WriteTransaction) -> Result<(), StoreError> {
    type Row = (u64, &'static [u8], &'static [u8], &'static [u8]);
    const SIGNED: TableDefinition<'_, &str, Row> = TableDefinition::new("plans");
    tx.delete_table(SIGNED).map(drop).map_err(access)
}

/// Renames a field of an object. Anything else stays as it is.
fn rename(row: &mut Value, from: &str, to: &str) {
    if let Some(fields) = row.as_object_mut()
        && let Some(value) = fields.remove(from)
    {
        fields.insert(to.to_owned(), value);
    }
}

/// Rewrites the `reasons` of every element, which is of the `instance` that it names.
fn rewrite_reasons(elements: &mut Value) -> Result<(), StoreError> {
    let damaged = |what| StoreError::Record(serde_json::Error::custom(what));
    for element in elements.as_array_mut().ok_or_else(|| damaged("a rollout without a list of instances"))? {
        let instance = InstanceId::deserialize(&element["instance"]).map_err(StoreError::Record)?;
        let chain = Vec::<Reason1>::deserialize(&element["reasons"]).map_err(StoreError::Record)?;
        element["reasons"] = serde_json::to_value(reports(instance, chain)).map_err(StoreError::Record)?;
    }
    Ok(())
}

/// A reason in layout 1. It left out what follows from the instance.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Reason1 {
    Added { what: String, at: Place1 },
    Changed { input: String, before: Option<String>, after: Option<String>, at: Place1 },
    Removed { file: String },
    Off { when: String, input: Option<String>, before: Option<String>, after: Option<String>, at: Place1 },
    Triggered { by: InstanceId, effect: Effect },
    Asked,
    Drifted { what: String },
    Owed { effect: Effect },
}

/// A place in a file of the site, in layout 1.
#[derive(Deserialize)]
struct Place1 {
    file: String,
    line: Option<usize>,
    column: Option<usize>,
}

impl From<Place1> for Position {
    fn from(place: Place1) -> Self {
        let Place1 { file, line, column } = place;
        Self { file, line, column }
    }
}

/// The reasons of a chain that begins at `instance`.
fn reports(instance: InstanceId, chain: Vec<Reason1>) -> Vec<ReasonReport> {
    // Each reason is of the instance that the last trigger before it named.
    let mut of = instance;
    let mut reports = Vec::with_capacity(chain.len());
    for reason in chain {
        reports.push(match reason {
            Reason1::Added { what, at } => ReasonReport::Added { input: what, at: at.into() },
            Reason1::Changed { input, before, after, at } => {
                ReasonReport::Changed { input, before, after, at: at.into() }
            }
            Reason1::Off { when, input, before, after, at } => {
                ReasonReport::Off { when, input, before, after, at: at.into() }
            }
            Reason1::Removed { file } => {
                let input = removed(&of, &file);
                ReasonReport::Removed { input, at: Position { file, line: None, column: None } }
            }
            Reason1::Triggered { by, effect } => {
                of = by.clone();
                ReasonReport::Triggered { by, effect }
            }
            Reason1::Asked => ReasonReport::Asked { input: task(&of), at: declaration(&of.task.service) },
            Reason1::Drifted { what } => {
                ReasonReport::Drifted { input: task(&of), what, at: declaration(&of.task.service) }
            }
            Reason1::Owed { effect } => {
                ReasonReport::Obligation { input: task(&of), effect, at: declaration(&of.task.service) }
            }
        });
    }
    reports
}

fn task(instance: &InstanceId) -> String {
    format!("task {}", instance.task)
}

/// Where the tasks of a service are declared; which line that was is not known any more.
fn declaration(service: &ServiceId) -> Position {
    Position { file: format!("services/{service}/service.toml"), line: None, column: None }
}

/// The declaration that no longer asks for an instance: a node's where that is in a file of the inventory, else the task's.
fn removed(instance: &InstanceId, file: &str) -> String {
    let node: &NodeId = &instance.node;
    if file.starts_with("services/") { task(instance) } else { format!("node {node}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reason_gets_what_it_left_out_from_the_instance_that_it_is_of() {
        let place = json!({ "file": "site.toml", "line": 6, "column": 1 });
        let whole = json!({ "file": "inventory/nodes.toml", "line": null, "column": null });
        let rewritten = |reasons: Value| {
            let mut elements = json!([{ "instance": "app.server@b", "reasons": reasons, "action": "restart" }]);
            rewrite_reasons(&mut elements).unwrap();
            assert_eq!(elements[0]["action"], "restart");
            elements[0]["reasons"].take()
        };
        let before = json!([
            { "kind": "added", "what": "node b", "at": whole },
            { "kind": "changed", "input": "var port", "before": "1", "after": null, "at": place },
            { "kind": "off", "when": "false", "input": null, "before": null, "after": null, "at": place },
            { "kind": "removed", "file": "services/app/service.toml" },
            { "kind": "removed", "file": "inventory/nodes.toml" },
            { "kind": "asked" },
            { "kind": "drifted", "what": "not active" },
            { "kind": "owed", "effect": "reload" },
            { "kind": "triggered", "by": "db.config@a", "effect": "restart" },
            { "kind": "drifted", "what": "content differs" },
        ]);
        let app = "services/app/service.toml";
        let after = json!([
            { "kind": "added", "input": "node b", "file": "inventory/nodes.toml" },
            { "kind": "changed", "input": "var port", "before": "1", "file": "site.toml", "line": 6, "column": 1 },
            { "kind": "off", "when": "false", "file": "site.toml", "line": 6, "column": 1 },
            { "kind": "removed", "input": "task app.server", "file": app },
            { "kind": "removed", "input": "node b", "file": "inventory/nodes.toml" },
            { "kind": "asked", "input": "task app.server", "file": app },
            { "kind": "drifted", "input": "task app.server", "what": "not active", "file": app },
            { "kind": "obligation", "input": "task app.server", "effect": "reload", "file": app },
            { "kind": "triggered", "by": "db.config@a", "effect": "restart" },
            { "kind": "drifted", "input": "task db.config", "what": "content differs", "file": "services/db/service.toml" },
        ]);
        assert_eq!(rewritten(before), after);
    }
}

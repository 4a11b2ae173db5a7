//! What nodes found otherwise than it was applied.

use std::collections::BTreeSet;

use groundplan_protocol::{
    drift::{self, Drifted},
    ids::{InstanceId, NodeId},
};

use super::{Snapshot, convert::presence};
use crate::{
    api::{
        drift::{Difference, Drift, DriftAnswer, DriftAnswers, DriftCheck, NodeDrift, TaskDrift},
        types::VERSION,
    },
    shell::Site,
};

/// Which request each declared node has answered.
pub(crate) fn drift_answers(snapshot: &Snapshot) -> DriftAnswers {
    let view = &snapshot.view;
    let declared = view.active.iter().flat_map(|active| &active.desired.nodes);
    let nodes = declared.map(|id| {
        let report = view.drift.get(id).and_then(|drift| drift.report.as_ref());
        let node = view.nodes.get(id).map(|node| &**node);
        (id.clone(), DriftAnswer { presence: presence(node), asked: report.map_or(0, |report| report.asked) })
    });
    DriftAnswers { version: VERSION, nodes: nodes.collect() }
}

/// What these nodes found, or all if none is named, with the contents that text diffs are made of.
pub(crate) fn drift(snapshot: &Snapshot, only: &BTreeSet<NodeId>) -> Drift {
    let view = &snapshot.view;
    let Some(site) = &snapshot.site else { return Drift { version: VERSION, nodes: vec![] } };
    let of_node = |id: &NodeId| {
        let known = view.drift.get(id);
        let report = known.and_then(|known| known.report.as_ref());
        let drifted = report.into_iter().flat_map(|report| &report.drifted).map(|(task, drifted)| {
            let drift = TaskDrift {
                policy: site.drift_policy(&task.service),
                healing: known.is_some_and(|known| known.heal.contains(task)),
                tried_ms: known.and_then(|known| known.tried.get(task)).map(|tried| tried.wall_ms),
                since_ms: drifted.since_ms,
                differences: drifted.differences.iter().map(|d| difference(site, &task.at(id), drifted, d)).collect(),
            };
            (task.clone(), drift)
        });
        NodeDrift {
            node: id.clone(),
            presence: presence(view.nodes.get(id).map(|node| &**node)),
            check: report.map(|report| DriftCheck {
                asked: report.asked,
                at_ms: report.at_ms,
                duration_ms: report.duration_ms,
                checked: report.checked,
                left_out: report.left_out,
            }),
            drifted: drifted.collect(),
            failed: report.map(|report| report.failed.clone()).unwrap_or_default(),
        }
    };
    let declared = site.active.desired.nodes.iter();
    let nodes = declared.filter(|node| only.is_empty() || only.contains(*node)).map(of_node);
    Drift { version: VERSION, nodes: nodes.collect() }
}

fn difference(site: &Site, instance: &InstanceId, drifted: &Drifted, reported: &drift::Difference) -> Difference {
    let drift::Difference { what, expected, found, content } = reported.clone();
    // A name alone is nothing to compare with.
    let found_here = content.filter(|content| content.blob().is_none());
    let desired = site.active.desired.instance(instance).map(|desired| &desired.resolved);
    let applied = desired.filter(|resolved| resolved.fingerprint == drifted.fingerprint);
    let contents = found_here.map(|found| (applied.cloned(), found));
    Difference { what, expected, found, diff: None, contents }
}

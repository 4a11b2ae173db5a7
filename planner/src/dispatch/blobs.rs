//! Content that agents ask for: files of the commit, rendered content, and plans too large for a packet.

use std::{collections::HashMap, sync::Arc};

use groundplan_core::{SourceTree as _, desired::Body};
use groundplan_protocol::{
    blob::{WANT_LIMIT, Want, chunk},
    digest::Digest,
    ids::NodeId,
    topic::Topic,
};

use super::{Dispatcher, commits::InForce};

/// While this many bytes have not left, questions for content are left to be repeated.
const BACKLOG: usize = 32 << 20;

/// Where each content of the commit in force is, and the one that was asked for last.
pub(super) struct BlobIndex {
    bodies: HashMap<Digest, Body>,
    last: Option<(Digest, Arc<[u8]>)>,
}

impl BlobIndex {
    fn new(in_force: &InForce) -> Self {
        let instances = in_force.loaded.desired.graph.tasks.iter().flat_map(|task| &task.instances);
        let bodies = instances.filter_map(|instance| {
            let blob = instance.resolved.spec.content.as_ref()?.blob()?;
            Some((blob.sha256, instance.resolved.body.clone()?))
        });
        Self { bodies: bodies.collect(), last: None }
    }
}

impl Dispatcher {
    pub(super) fn on_want(&mut self, node: &NodeId, want: &Want) {
        if self.transport.as_ref().is_none_or(|(t, _)| t.backlog() > BACKLOG) || !self.leader.plans() {
            return;
        }
        let Some(bytes) = self.content(node, &want.blob.sha256) else {
            tracing::debug!(%node, digest = %want.blob.sha256, "asks for content that no plan names any more");
            return;
        };
        for n in want.chunks.iter().take(WANT_LIMIT) {
            if let Some(chunk) = chunk(&bytes, *n) {
                self.publish(Topic::Blob(want.blob.sha256, *n), chunk.to_vec(), false);
            }
        }
    }

    fn content(&mut self, node: &NodeId, digest: &Digest) -> Option<Arc<[u8]>> {
        if let Some(in_force) = &mut self.loaded {
            if in_force.blobs.is_none() {
                in_force.blobs = Some(BlobIndex::new(in_force));
            }
            let InForce { tree, blobs: Some(index), .. } = in_force else { return None };
            if let Some((_, bytes)) = index.last.as_ref().filter(|(known, _)| known == digest) {
                return Some(bytes.clone());
            }
            let bytes = match index.bodies.get(digest) {
                Some(Body::File(path)) => {
                    tree.read(path).inspect_err(|error| tracing::warn!(%error, "cannot be shipped")).ok()
                }
                Some(Body::Bytes(bytes)) => Some(bytes.clone()),
                None => None,
            };
            if let Some(bytes) = bytes {
                index.last = Some((*digest, bytes.clone()));
                return Some(bytes);
            }
        }
        let plan = self.store.plan(node).ok().flatten()?;
        (!plan.body.is_empty() && Digest::of(&plan.body) == *digest).then(|| plan.body.into())
    }
}

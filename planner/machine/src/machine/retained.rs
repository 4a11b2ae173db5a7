//! What the broker keeps of the nodes, and has not sent.

use groundplan_protocol::{
    ids::{LedgerId, NodeId},
    time::Now,
};

use super::Machine;
use crate::{
    fleet::Node,
    io::{Effect, Incoming, NodeMessage},
    retained::Heard,
};

impl Machine {
    /// Takes note that a message came; also of one that is dealt with later.
    pub(super) fn note_heard(&mut self, message: &Incoming, now: Now) {
        let (node, what) = match message {
            Incoming::Node(node, NodeMessage::State(_)) => (node, Heard::State),
            Incoming::Node(node, NodeMessage::Presence(_)) => (node, Heard::Presence),
            Incoming::Node(node, _) => (node, Heard::Other),
            Incoming::Refused { node, .. } => (node, Heard::All),
            Incoming::Planner(_) | Incoming::Empty | Incoming::Foreign => return,
        };
        // Anyone may have written under any other name.
        if self.deployment.active().is_some_and(|active| active.declares(node)) {
            self.retained.heard(node, what, now.mono);
        }
    }

    /// A message of a node names its ledger: a state of it must be there.
    pub(super) fn expect_state(&mut self, node: &NodeId, named: &LedgerId, now: Now) {
        if self.deployment.active().is_some_and(|active| active.declares(node)) {
            let known = self.fleet.get(node).and_then(|known| known.belief.ledger.as_ref());
            self.retained.names_ledger(node, named, known, now.mono);
        }
    }

    /// A node has sent reports: if it is not known to be connected, its presence must be there.
    pub(super) fn expect_presence(&mut self, node: &NodeId, now: Now) {
        let declared = self.deployment.active().is_some_and(|active| active.declares(node));
        if declared && !self.fleet.get(node).is_some_and(Node::is_online) {
            self.retained.expect_presence(node, now.mono);
        }
    }

    /// Whether a state of a declared node may be there that has not come.
    pub(super) fn awaits_state(&self, id: &NodeId, node: Option<&Node>) -> bool {
        let is_known = node.is_some_and(Node::is_known);
        if is_known { self.retained.is_awaited(id) } else { self.retained.may_come(id) }
    }

    /// Asks the broker for what has not come, if it is time.
    pub(super) fn ask_for_retained(&mut self, now: Now) {
        if !self.retained.is_due(now.mono) {
            return;
        }
        // Without an active commit none is declared. Those of one that comes later are asked for then.
        let active = self.deployment.active();
        let declared = || active.map(|active| active.desired.nodes.to_vec()).unwrap_or_default();
        let is_known = |node: &NodeId| self.fleet.get(node).is_some_and(Node::is_known);
        let ask = self.retained.tick(now.mono, declared, is_known);
        if !ask.is_empty() {
            self.out.push(Effect::Replay(ask));
        }
    }
}

//! From the broker to the loop: parses topics, checks signatures, and hands on typed messages.
//!
//! A task of its own, so that the loop waits for no signature; they are verified in batches, on a thread. A message that is not signed by
//! its node's key, or that exceeds what a node may send, comes out as refused, with the reason and a hint for the operator; texts of any other are cut and escaped. Nothing here decides
//! anything else. What is under way here is bounded by the transport's room, in bytes, and by the length of the channels on both sides.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use groundplan_inventory::Inventory;
use groundplan_machine::{
    ids,
    io::{Incoming, Input, NodeMessage},
};
use groundplan_protocol::{
    encryption::{DecryptionKey, Undecipherable},
    envelope::{self, Message, OpenError, PublicKey},
    ids::{NodeId, SiteName},
    limits::Bounded,
    presence::PlannerPresence,
    state::NodeState,
    topic::{NodeTopic, Topic},
};
use tokio::{
    sync::mpsc::{Receiver, Sender},
    task::spawn_blocking,
    time::MissedTickBehavior,
};

use super::site::Site;
use crate::{
    transport::{self, Receipt, Room, Transport},
    trust::{self, HeldKey, NodeKeys, TrustError},
};

/// Keys of nodes: those of the active commit's inventory, and those in the state directory. Shared by the inbox and the API.
pub(crate) struct Keys {
    state_dir: PathBuf,
    inner: Mutex<(NodeKeys, Option<Arc<Site>>)>,
    held: Mutex<Arc<HeldKeys>>,
}

/// Keys that the active commit names and that are not trusted, by node.
pub(crate) type HeldKeys = BTreeMap<NodeId, HeldKey>;

impl Keys {
    /// Keys below `state_dir`, and no inventory yet.
    pub(crate) fn new(state_dir: &Path) -> Self {
        let inner = Mutex::new((NodeKeys::new(state_dir), None));
        Self { state_dir: state_dir.to_owned(), inner, held: Mutex::default() }
    }

    /// This commit's inventory counts from now on.
    pub(super) fn activate(&self, site: Arc<Site>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0.pin(&site.loaded.inventory);
        inner.1 = Some(site);
        self.hold(&mut inner);
        for (node, HeldKey { trusted, declared }) in &*self.held() {
            tracing::warn!(%node, %trusted, %declared, "the commit names another key for the node, which is held until an operator trusts it");
        }
    }

    /// The keys that were held when the commit became active, or an operator trusted a key last.
    pub(crate) fn held(&self) -> Arc<HeldKeys> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, (keys, site): &mut (NodeKeys, Option<Arc<Site>>)) {
        let held = site.as_ref().map(|site| keys.held(&site.loaded.inventory)).unwrap_or_default();
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(held);
    }

    /// The key of a node, or why there is none; and whether the inventory declares the node.
    pub(crate) fn find(&self, node: &NodeId) -> (Result<Option<PublicKey>, TrustError>, bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (keys, site) = &mut *inner;
        let inventory: Option<&Inventory> = site.as_ref().map(|site| &site.loaded.inventory);
        let declared = inventory.is_some_and(|inventory| inventory.nodes.contains_key(node));
        (keys.key(node, inventory), declared)
    }

    /// The key of a declared node.
    fn known(&self, node: &NodeId) -> Option<PublicKey> {
        let (key, declared) = self.find(node);
        key.ok().flatten().filter(|_| declared)
    }

    /// Writes down that a node's key is trusted.
    pub(crate) fn trust(&self, node: &NodeId, key: &PublicKey) -> Result<(), TrustError> {
        trust::trust_node(&self.state_dir, node, key)?;
        // Two keys within one tick of the file system's clock have one time.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0.repin(node, *key);
        self.hold(&mut inner);
        Ok(())
    }

    /// What to do about a node without a key.
    fn hint(node: &NodeId) -> String {
        format!(
            "if it is the right host: `groundplan trust {node} KEY`, or `key` in the inventory; `groundplan-agent --print-key` on its host \
             prints the key"
        )
    }
}

/// Receipts of the transport by the numbers that the machine knows them by.
#[derive(Default)]
pub(super) struct Receipts {
    last: u64,
    open: HashMap<u64, (Receipt, Room)>,
}

impl Receipts {
    fn add(&mut self, receipt: Receipt, room: Room) -> ids::Receipt {
        self.last += 1;
        self.open.insert(self.last, (receipt, room));
        ids::Receipt(self.last)
    }

    /// The receipt of a number; once.
    pub(super) fn take(&mut self, receipt: ids::Receipt) -> Option<Receipt> {
        self.open.remove(&receipt.0).map(|(receipt, _)| receipt)
    }
}

/// What comes out of the inbox.
pub(super) enum Received {
    /// Something that the machine takes as it is.
    Input(Input),
    /// A message, with the receipt of the transport and its room there, which is kept until it is acknowledged.
    Message(Receipt, Room, Incoming),
}

impl Received {
    /// The machine's input. A message's receipt is kept in `receipts` until the machine acknowledges it.
    pub(super) fn into_input(self, receipts: &mut Receipts) -> Input {
        match self {
            Self::Input(input) => input,
            Self::Message(receipt, room, message) => Input::Message { receipt: receipts.add(receipt, room), message },
        }
    }
}
/// How often to look whether a node that was refused has a key by now.
const LOOK: Duration = Duration::from_secs(1);

/// Most nodes to look for: anyone may write under any name at some brokers.
const MOST_REFUSED: usize = 4096;

/// What messages are verified by.
pub(super) struct Verifier {
    pub(super) site: SiteName,
    pub(super) planner_key: PublicKey,
    /// What agents encrypt to all planners of the site.
    pub(super) decryption: DecryptionKey,
    pub(super) keys: Arc<Keys>,
}

/// Nodes of which a message was refused, each with the key that was known then. Once another one is, what the broker retains of the node
/// is asked for again: the agent does not send it twice.
#[derive(Default)]
struct Refusals(BTreeMap<NodeId, Option<PublicKey>>);

impl Refusals {
    fn note(&mut self, keys: &Keys, node: &NodeId) {
        if self.0.len() < MOST_REFUSED || self.0.contains_key(node) {
            self.0.insert(node.clone(), keys.known(node));
        }
    }

    /// The nodes that have another key by now.
    fn settled(&mut self, keys: &Keys) -> Vec<NodeId> {
        let has_another =
            |(node, tried): &(&NodeId, &Option<PublicKey>)| keys.known(node).is_some_and(|key| Some(key) != **tried);
        let settled: Vec<NodeId> = self.0.iter().filter(has_another).map(|(node, _)| node.clone()).collect();
        settled.iter().for_each(|node| _ = self.0.remove(node));
        settled
    }
}

/// Most messages that are verified together.
const BATCH: usize = 64;

/// Hands on what comes in until the connection's task ends.
pub(super) async fn run(
    verifier: Verifier,
    transport: Transport,
    mut incoming: Receiver<transport::Incoming>,
    loop_: Sender<Received>,
) {
    let verifier = Arc::new(verifier);
    let mut refusals = Refusals::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            count = incoming.recv_many(&mut batch, BATCH) => if count == 0 {
                return;
            },
            _ = look.tick(), if !refusals.0.is_empty() => {
                for node in refusals.settled(&verifier.keys) {
                    tracing::info!(%node, "the node has a key: what it said before is read again");
                    transport.replay(&verifier.site, &node);
                }
                continue;
            }
        }
        // On a thread for what takes long: signatures of a batch would keep the connection and the API from this one.
        let of_thread = verifier.clone();
        let verified = spawn_blocking(move || batch.into_iter().map(|one| of_thread.verify(one)).collect::<Vec<_>>());
        let Ok(verified) = verified.await else { return };
        for received in verified {
            if let Received::Message(_, _, Incoming::Refused { node, .. }) = &received {
                refusals.note(&verifier.keys, node);
            }
            // When the loop has ended, what comes in is dropped: the connection's task must not wait for room while it ends.
            let _ = loop_.send(received).await;
        }
    }
}

impl Verifier {
    fn verify(&self, incoming: transport::Incoming) -> Received {
        match incoming {
            transport::Incoming::Ready { fresh, replay } => {
                tracing::info!(fresh, replay, "connected to the broker");
                Received::Input(Input::Connected { fresh })
            }
            transport::Incoming::Lost { error } => Received::Input(Input::Disconnected { error }),
            transport::Incoming::Message { topic, payload, receipt, room } => {
                Received::Message(receipt, room, open(self, &topic, &payload))
            }
        }
    }
}

/// Makes sense of one message.
fn open(verifier: &Verifier, topic: &str, payload: &[u8]) -> Incoming {
    let Verifier { site, planner_key, .. } = verifier;
    match Topic::parse(site, topic) {
        // A cleared retained message, such as an operator's or a test's.
        Some(_) if payload.is_empty() => Incoming::Empty,
        // Before the signature is verified, which takes longer for a longer payload.
        Some(topic) if payload.len() > topic.kind().spec().limit => {
            tracing::debug!(bytes = payload.len(), "a message above the limit of its topic");
            Incoming::Foreign
        }
        Some(Topic::Planner) => match envelope::open::<PlannerPresence>(payload, &[*planner_key], site) {
            Ok(presence) => Incoming::Planner(presence),
            Err(error) => {
                tracing::debug!(%error, "not a planner's presence");
                Incoming::Foreign
            }
        },
        Some(Topic::Node(node, topic)) => match topic {
            NodeTopic::State => {
                of_node(verifier, node, payload, |m| NodeMessage::State(Box::new(proven(m, planner_key))))
            }
            NodeTopic::Report => of_node(verifier, node, payload, NodeMessage::Reports),
            NodeTopic::Presence => of_node(verifier, node, payload, NodeMessage::Presence),
            NodeTopic::Drift => of_node(verifier, node, payload, NodeMessage::Drift),
            NodeTopic::Output => match of_node(verifier, node.clone(), payload, NodeMessage::Output) {
                // Not of that type: it may be of the other.
                Incoming::Foreign => of_node(verifier, node, payload, NodeMessage::Ready),
                output => output,
            },
            NodeTopic::Want => of_node(verifier, node, payload, NodeMessage::Want),
            _ => Incoming::Foreign,
        },
        _ => Incoming::Foreign,
    }
}

/// The state without its receipt, if no planner of this site signed it for that generation of that node.
fn proven(mut state: NodeState, planner_key: &PublicKey) -> NodeState {
    let NodeState { site, node, generation, .. } = &state;
    if !state.receipt.as_ref().is_some_and(|receipt| receipt.is_by(planner_key, site, node, *generation)) {
        state.receipt = None;
    }
    state
}

/// A message that names the node that it is of, and can be held to the limits of what a node sends.
trait FromNode: Message + Bounded {
    /// That node.
    fn node(&self) -> &NodeId;
    /// Decrypts what of it is for planners alone.
    fn reveal(&mut self, _key: &DecryptionKey) -> Result<(), Undecipherable> {
        Ok(())
    }
}

macro_rules! from_node {
    ($($message:ty),*) => {
        $(impl FromNode for $message {
            fn node(&self) -> &NodeId {
                &self.node
            }
        })*
    };
}

impl FromNode for NodeState {
    fn node(&self) -> &NodeId {
        &self.node
    }
    fn reveal(&mut self, key: &DecryptionKey) -> Result<(), Undecipherable> {
        self.decrypt(key)
    }
}

from_node!(
    groundplan_protocol::report::ReportBatch,
    groundplan_protocol::presence::Presence,
    groundplan_protocol::drift::DriftReport,
    groundplan_protocol::exec::ExecOutput,
    groundplan_protocol::exec::ExecReady,
    groundplan_protocol::blob::Want
);

fn of_node<M: FromNode>(
    verifier: &Verifier,
    node: NodeId,
    payload: &[u8],
    wrap: impl FnOnce(M) -> NodeMessage,
) -> Incoming {
    let Verifier { site, decryption, keys, .. } = verifier;
    let open = |key: PublicKey| {
        let mut message = match M::ENCRYPTED {
            true => envelope::open_for::<M>(payload, &[key], site, decryption),
            false => envelope::open::<M>(payload, &[key], site),
        }?;
        message.reveal(decryption).map_err(OpenError::Encrypted)?;
        Ok(message)
    };
    let (key, declared) = keys.find(&node);
    let (reason, hint) = match key {
        Ok(Some(key)) => match open(key) {
            // The topic has chosen the key; what is signed must name the same node.
            Ok(mut message) if *message.node() == node => match message.bound() {
                Ok(()) => return Incoming::Node(node, wrap(message)),
                Err(exceeded) => (exceeded.to_string(), "its agent is faulty, or its key is in other hands".to_owned()),
            },
            Ok(message) => (format!("is signed by it, but for node `{}`", message.node()), String::new()),
            Err(OpenError::Signature) if keys.held().contains_key(&node) => {
                let hint =
                    format!("the inventory names another key for it: `groundplan trust {node}` confirms that one");
                ("is not signed by the node's key".to_owned(), hint)
            }
            Err(OpenError::Signature) => {
                let hint = format!("if the node was rebuilt: {}", Keys::hint(&node));
                ("is not signed by the node's key".to_owned(), hint)
            }
            Err(OpenError::Encrypted(_)) => {
                let hint = "it answers a planner with another key: all planners of a site have the same".to_owned();
                ("is not encrypted to this planner's key".to_owned(), hint)
            }
            Err(error @ (OpenError::Version { .. } | OpenError::Site(_))) => {
                (error.to_string(), "use the same release and site for planner and agent".to_owned())
            }
            // No envelope of this type: any client may have sent it, and the node is not blamed for it.
            Err(_) => return Incoming::Foreign,
        },
        Ok(None) if declared => ("no key of the node is known".to_owned(), Keys::hint(&node)),
        Ok(None) => ("the inventory does not declare the node".to_owned(), "declare it in the inventory".to_owned()),
        Err(error) => (error.to_string(), Keys::hint(&node)),
    };
    Incoming::Refused { node, reason, hint }
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::{
        VERSION,
        envelope::{SigningKey, seal},
        presence::Presence,
        topic::{TOPICS, TopicKind},
    };
    use serde_json::Value;

    use super::*;

    struct Case {
        _dir: tempfile::TempDir,
        keys: Arc<Keys>,
        key: SigningKey,
        site: SiteName,
        node: NodeId,
    }

    impl Case {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (keys, key) = (Arc::new(Keys::new(dir.path())), SigningKey::from_seed([1; 32]));
            let (site, node) = (SiteName::new("s").unwrap(), NodeId::new("n1").unwrap());
            keys.trust(&node, &key.public()).unwrap();
            Self { _dir: dir, keys, key, site, node }
        }

        fn presence(&self, trouble: &str) -> Vec<u8> {
            let ledger = "0123456789abcdef0123456789abcdef".parse().unwrap();
            let (site, node, trouble) = (self.site.clone(), self.node.clone(), Some(trouble.to_owned()));
            let agent = "1".to_owned();
            let session = None;
            seal(&self.key, &Presence { version: VERSION, site, node, online: true, agent, ledger, session, trouble })
        }

        fn open(&self, topic: NodeTopic, payload: &[u8]) -> Incoming {
            let topic = Topic::Node(self.node.clone(), topic).name(&self.site);
            let planner = SigningKey::from_seed([2; 32]);
            let (planner_key, decryption) = (planner.public(), planner.decryption());
            let (site, keys) = (self.site.clone(), self.keys.clone());
            open(&Verifier { site, planner_key, decryption, keys }, &topic, payload)
        }
    }

    /// The envelope with its signatures replaced.
    fn with(sealed: &[u8], change: impl FnOnce(&mut Vec<Value>)) -> Vec<u8> {
        let mut envelope: Value = serde_json::from_slice(sealed).unwrap();
        change(envelope["signatures"].as_array_mut().unwrap());
        serde_json::to_vec(&envelope).unwrap()
    }

    #[test]
    fn few_signatures_are_tried_each_with_the_key_that_it_names() {
        let case = Case::new();
        let sealed = case.presence("x");
        assert!(matches!(case.open(NodeTopic::Presence, &sealed), Incoming::Node(..)));
        let many = |n: usize| {
            with(&sealed, |signatures| {
                let own = signatures[0].clone();
                signatures.resize(n, own);
            })
        };
        assert!(matches!(case.open(NodeTopic::Presence, &many(4)), Incoming::Node(..)));
        assert!(matches!(case.open(NodeTopic::Presence, &many(5)), Incoming::Foreign));
        assert!(matches!(case.open(NodeTopic::State, &many(19_064)), Incoming::Foreign));
        let other = with(&sealed, |signatures| signatures[0]["keyid"] = "0123456789abcdef".into());
        assert!(matches!(case.open(NodeTopic::Presence, &other), Incoming::Refused { .. }));
    }

    #[test]
    fn the_size_of_a_message_is_limited_by_its_topic() {
        let case = Case::new();
        for spec in TOPICS {
            let TopicKind::Node(topic) = spec.kind else { continue };
            // No envelope, and so foreign as well; what is too long is not even parsed.
            assert!(matches!(case.open(topic, &vec![b' '; spec.limit + 1]), Incoming::Foreign));
        }
        let limit = NodeTopic::Presence.spec().limit;
        let sealed = |length: usize| case.presence(&"x".repeat(length));
        assert!(sealed(limit).len() > limit);
        assert!(matches!(case.open(NodeTopic::Presence, &sealed(limit)), Incoming::Foreign));
        assert!(matches!(case.open(NodeTopic::Presence, &sealed(limit / 2)), Incoming::Node(..)));
    }

    #[test]
    fn a_key_that_nothing_can_be_encrypted_to_is_refused_with_the_state_that_announces_it() {
        let case = Case::new();
        let ledger: groundplan_protocol::ids::LedgerId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let state = |key: &str| {
            let empty = NodeState::empty(case.site.clone(), case.node.clone(), ledger.clone());
            seal(&case.key, &NodeState { encryption_key: Some(key.parse().unwrap()), ..empty })
        };
        let own = case.key.decryption().public().to_string();
        assert!(matches!(case.open(NodeTopic::State, &state(&own)), Incoming::Node(..)));
        let zero = "x25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let Incoming::Refused { reason, .. } = case.open(NodeTopic::State, &state(zero)) else { panic!("taken") };
        assert!(reason.contains("key"), "{reason}");
    }
}

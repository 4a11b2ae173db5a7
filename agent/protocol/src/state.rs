//! A node's state: what its agent has applied, its obligations, and what it refused. Retained.
//!
//! Together with git this is all that a planner without a store needs to continue.

use std::{collections::BTreeMap, mem::take};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    VERSION,
    digest::Fingerprint,
    effect::Effect,
    encryption::{DecryptionKey, EncryptionKey, Undecipherable, UnusableKey},
    envelope::{Message, PlanReceipt, to_json},
    ids::{CommitId, Generation, LedgerId, NodeId, Sequence, SiteName, TaskId},
    kinds::ClaimKey,
    plan::{Edges, OnRemove, TriggerSource},
};

/// The input that an agent adds to those of a task whose last run was started and did not succeed: no site has one of that name, so the
/// task differs from whatever is desired, and is applied again.
pub const UNFINISHED: &str = "unfinished";

/// Most bytes that the facts of a node may have, as JSON.
pub const FACTS_LIMIT: usize = 64 * 1024;

/// How many things a state lists of those that were there before.
pub const FOUND_LIMIT: usize = 200;

/// The state of a node, as its agent publishes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeState {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; a message for any other is refused.
    pub site: SiteName,
    /// The node whose state this is.
    pub node: NodeId,
    /// The ledger that this state was read from.
    pub ledger: LedgerId,
    /// Grows with every state of that ledger; a planner ignores an older one.
    pub revision: u64,
    /// The generation of the last plan that was accepted; 0 before the first.
    pub generation: Generation,
    /// The commit of that plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The receipt of that plan. A planner that does not know the generation believes it by this alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<PlanReceipt>,
    /// What the agent is doing.
    pub phase: Phase,
    /// Number of the last report whose effect this state contains.
    pub sequence: Sequence,
    /// Applied tasks, by id.
    #[serde(default)]
    pub applied: BTreeMap<TaskId, Applied>,
    /// Tasks that were started for an earlier plan and still run. The plan at hand may not have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<TaskId>,
    /// Obligations that are due or may become so, by task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub obligations: BTreeMap<TaskId, Obligation>,
    /// Facts of the host by name: `os`, `arch`, `kernel`, … and `local`, what the programs in its facts folder print. Empty until
    /// the agent has read them since it started: the facts of an earlier state still count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, Value>,
    /// What its `export` tasks have published, by task; each at most [`EXPORT_LIMIT`](crate::kinds::EXPORT_LIMIT) long.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exports: BTreeMap<TaskId, String>,
    /// What was there before tasks took it, and comes back when they go.
    #[serde(default, skip_serializing_if = "FoundList::is_empty")]
    pub found: FoundList,
    /// Applied tasks that do not work at this moment, each with the reason, for people: a supervised process that ends by itself, a unit that
    /// has failed. Empty from agents that do not report it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub degraded: BTreeMap<TaskId, String>,
    /// The agent's program version.
    pub agent: String,
    /// The key to encrypt to this node with. Without it the node gets no plan and no order: agents of before had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key: Option<EncryptionKey>,
    /// What of it is for planners alone: inputs, facts, exports and the reasons of `degraded`, encrypted to them by HPKE, in base64. See
    /// [`NodeState::encrypted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<String>,
    /// The last message that it refused, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// How many payloads the agent has ignored since it started, because no trusted planner signed them for this site.
    #[serde(default)]
    pub ignored: u64,
}

impl NodeState {
    /// The state of an agent that has just made its ledger, has nothing applied, and does nothing.
    pub fn empty(site: SiteName, node: NodeId, ledger: LedgerId) -> Self {
        Self {
            version: VERSION,
            site,
            node,
            ledger,
            revision: 0,
            generation: Generation(0),
            commit: None,
            receipt: None,
            phase: Phase::Idle,
            sequence: Sequence(0),
            applied: BTreeMap::new(),
            running: Vec::new(),
            obligations: BTreeMap::new(),
            facts: BTreeMap::new(),
            exports: BTreeMap::new(),
            found: FoundList::default(),
            degraded: BTreeMap::new(),
            agent: String::new(),
            encryption_key: None,
            private: None,
            refused: None,
            ignored: 0,
        }
    }
}

/// The part of a state that is encrypted. Digests of inputs are part of it, because each is of one value, which may be a short one.
#[derive(Serialize, Deserialize)]
struct Private {
    #[serde(default)]
    inputs: BTreeMap<TaskId, BTreeMap<String, String>>,
    #[serde(default)]
    facts: BTreeMap<String, Value>,
    #[serde(default)]
    exports: BTreeMap<TaskId, String>,
    #[serde(default)]
    degraded: BTreeMap<TaskId, String>,
}

impl NodeState {
    /// What the private part is encrypted for: the node is named, or another one could publish it as its own, and have it decrypted.
    fn purpose(&self) -> String {
        format!("groundplan state {} {}", self.site, self.node)
    }

    /// As it crosses the broker: what others than planners need not know is encrypted to them. Which tasks are degraded stays.
    ///
    /// # Errors
    /// Nothing can be encrypted to that key.
    pub fn encrypted(mut self, planners: &EncryptionKey) -> Result<Self, UnusableKey> {
        let inputs = self.applied.iter_mut().map(|(task, applied)| (task.clone(), take(&mut applied.inputs)));
        let private = Private {
            inputs: inputs.filter(|(_, inputs)| !inputs.is_empty()).collect(),
            facts: take(&mut self.facts),
            exports: take(&mut self.exports),
            degraded: self.degraded.clone(),
        };
        self.degraded.values_mut().for_each(String::clear);
        self.private = Some(BASE64.encode(planners.encrypt(&self.purpose(), &to_json(&private))?));
        Ok(self)
    }

    /// Takes [`Self::encrypted`] back; nothing if it came in clear.
    ///
    /// # Errors
    /// It is encrypted to another key, or for another node.
    pub fn decrypt(&mut self, key: &DecryptionKey) -> Result<(), Undecipherable> {
        let Some(private) = self.private.take() else { return Ok(()) };
        let bytes = BASE64.decode(private).map_err(|_| Undecipherable)?;
        let json = key.decrypt(&self.purpose(), &bytes)?;
        let private: Private = serde_json::from_slice(&json).map_err(|_| Undecipherable)?;
        for (task, inputs) in private.inputs {
            if let Some(applied) = self.applied.get_mut(&task) {
                applied.inputs = inputs;
            }
        }
        (self.facts, self.exports, self.degraded) = (private.facts, private.exports, private.degraded);
        Ok(())
    }
}

impl Message for NodeState {
    const TYPE: &'static str = "application/vnd.groundplan.state+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// What an agent keeps of what was there before tasks took it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct FoundList {
    /// How many things there are.
    pub total: u64,
    /// How many bytes their contents have together; equal contents are kept once and count each time.
    pub bytes: u64,
    /// The first [`FOUND_LIMIT`] of them, by what is claimed.
    pub first: Vec<FoundThing>,
}

impl FoundList {
    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.total == 0 && self.bytes == 0 && self.first.is_empty()
    }
}

/// One thing that was there before a task took it. Its content, and fields such as a password's hash, stay on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FoundThing {
    /// What is claimed, such as `path /etc/resolv.conf` or `user bob`.
    pub claim: String,
    /// What it was, such as `file` or `link to ../run/resolv.conf`; of a kernel parameter its value.
    pub what: String,
    /// Length of its content, in bytes.
    pub size: u64,
}

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has nothing left to do in its plan.
    Idle,
    /// It fetches blobs before it starts.
    Fetching,
    /// It carries out its plan, or waits for a gate.
    Running,
}

/// A task as it is applied on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// Fingerprint of what was applied.
    pub fingerprint: Fingerprint,
    /// Short digests of its inputs, as the plan named them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// Its declared edges, as the plan named them.
    #[serde(default, skip_serializing_if = "Edges::is_empty")]
    pub edges: Edges,
    /// What another task takes over if it states the same, sorted: [`TaskSpec::identity`](crate::plan::TaskSpec::identity).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimKey>,
    /// What else no other task can take before it is removed, sorted: [`TaskSpec::contends`](crate::plan::TaskSpec::contends).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contends: Vec<ClaimKey>,
    /// What its removal does with what it changed; none if its kind leaves nothing, and from agents that do not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_remove: Option<OnRemove>,
    /// What is lost for good when it is removed, for people; none if nothing is, and from agents that do not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroys: Option<String>,
}

/// A restart, reload or run that is due, or will be if a source that is still open fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Obligation {
    /// The effect that is due or may become so.
    pub effect: Effect,
    /// Whether a trigger has fired. If not, it depends on `open`.
    pub fired: bool,
    /// Sources of its triggers that are not decided yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<TriggerSource>,
}

/// A message that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// What it was about: `plan`, `gates`, `exec`, or `blob` for content that could not be fetched.
    pub topic: String,
    /// Its generation, if the message was signed by a trusted planner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Why, as a message for the operator.
    pub reason: String,
    /// When, by the node's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{digest::Digest, envelope::SigningKey};

    #[test]
    fn what_is_for_planners_alone_is_read_by_them_and_of_the_node_that_said_it() {
        let key = SigningKey::from_seed([1; 32]).decryption();
        let applied = Applied {
            fingerprint: Fingerprint(Digest::of(b"")),
            inputs: BTreeMap::from([("param env.PASSWORD".to_owned(), "secret-digest".to_owned())]),
            edges: Edges::default(),
            claims: Vec::new(),
            contends: Vec::new(),
            on_remove: None,
            destroys: None,
        };
        let task: TaskId = "s.t".parse().unwrap();
        let state = NodeState {
            applied: BTreeMap::from([(task.clone(), applied)]),
            facts: BTreeMap::from([("local".to_owned(), "secret-fact".into())]),
            exports: BTreeMap::from([(task.clone(), "secret-export".to_owned())]),
            degraded: BTreeMap::from([(task.clone(), "it printed secret-text".to_owned())]),
            ..NodeState::empty("s".parse().unwrap(), "n1".parse().unwrap(), "0".repeat(32).parse().unwrap())
        };
        let sent = state.clone().encrypted(&key.public()).unwrap();
        let json = serde_json::to_string(&sent).unwrap();
        assert!(!json.contains("secret") && sent.degraded.contains_key(&task), "{json}");
        let mut received: NodeState = serde_json::from_str(&json).unwrap();
        received.decrypt(&key).unwrap();
        assert_eq!(received, state);

        let mut elsewhere = sent.clone();
        assert_eq!(elsewhere.decrypt(&SigningKey::from_seed([2; 32]).decryption()), Err(Undecipherable));
        // Another node signs it as its own.
        let mut stolen = NodeState { node: "n2".parse().unwrap(), ..sent };
        assert_eq!(stolen.decrypt(&key), Err(Undecipherable));
        let mut clear = state.clone();
        clear.decrypt(&key).unwrap();
        assert_eq!(clear, state);
    }
}

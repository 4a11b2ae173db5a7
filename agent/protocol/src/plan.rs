//! The node plan: one node's part of a plan, complete and leaving no choice to the agent; the offer that carries it; and the gates that
//! pace it.
//!
//! In: what the planner decided. Out: messages. A node plan is self-contained except for blobs. It lists a task at most once,
//! after all tasks of its own node that it waits for. Its id is the digest of its JSON: everything else that is said of a plan names it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    VERSION,
    as_text::as_text,
    blob::{BlobRef, Content},
    digest::{Digest, Fingerprint},
    duration::Span,
    effect::{Action, Effect},
    encryption::ContentKey,
    envelope::{InvalidJson, Message, PlanReceipt, SigningKey},
    ids::{CommitId, GateId, Generation, InvalidId, LedgerId, NodeId, Resource, SiteName, TaskId},
    kinds::{Claim, ClaimKey, TaskParams},
    ready::Ready,
};

/// One node's part of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodePlan {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; any other refuses it.
    pub site: SiteName,
    /// The node that it is for; any other refuses it.
    pub node: NodeId,
    /// Grows with every plan of the site; an older one is refused, and so is other content under the same one.
    pub generation: Generation,
    /// The commit that it leads to.
    pub commit: CommitId,
    /// What to do, each task after all that it waits for on this node.
    #[serde(default)]
    pub tasks: Vec<PlannedTask>,
    /// New edges of applied tasks of which nothing else has changed: to be recorded only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub edges: BTreeMap<TaskId, Edges>,
    /// The ledger that it was made for: what it leaves out is applied by that one. A node with another ledger does not take it. Plans in
    /// ledgers of older agents lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerId>,
}

impl NodePlan {
    /// The blobs that must be fetched before the first task starts.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.tasks.iter().filter_map(|t| t.spec.as_ref()?.content.as_ref()?.blob())
    }
}

/// A node plan as it is published: by which planner, and until when it may be taken. The same plan may be offered again, by a planner of a
/// later term or for a longer time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanOffer {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; any other refuses it.
    pub site: SiteName,
    /// The node that it is for; any other refuses it.
    pub node: NodeId,
    /// The generation of the plan.
    pub generation: Generation,
    /// The plan, or the blob that contains it.
    pub body: PlanBody,
    /// The keys of the blobs that the plan names, and of the plan itself if it is one, by digest: they cross the broker encrypted, once for
    /// all nodes that fetch them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<Digest, ContentKey>,
    /// When it was offered, by the planner's clock, in milliseconds since the Unix epoch.
    pub issued_ms: u64,
    /// Until when it may be taken, in milliseconds since the Unix epoch.
    pub not_after_ms: u64,
    /// The planner's signature on the plan's id and generation, and on the term in which it offers it: the agent returns it with its state.
    pub receipt: PlanReceipt,
}

impl PlanOffer {
    /// Offers a plan, whole, in a planner's term, and from and until when.
    pub fn new(
        key: &SigningKey,
        term: u64,
        (site, node, generation): (SiteName, NodeId, Generation),
        plan: PlanText,
        (issued_ms, not_after_ms): (u64, u64),
    ) -> Self {
        let receipt = PlanReceipt::sign(key, &site, &node, generation, (plan.id(), term));
        Self {
            version: VERSION,
            site,
            node,
            generation,
            body: PlanBody::Inline(plan),
            keys: BTreeMap::new(),
            issued_ms,
            not_after_ms,
            receipt,
        }
    }

    /// Whether the receipt is one for the plan that is offered.
    pub fn is_consistent(&self) -> bool {
        self.receipt.plan
            == match &self.body {
                PlanBody::Inline(text) => text.id(),
                PlanBody::Blob(blob) => blob.sha256,
            }
    }
}

/// The plan of an offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanBody {
    /// Its JSON.
    Inline(PlanText),
    /// The blob that contains its JSON, without an envelope, where it is too large for one packet: this reference is what is signed.
    Blob(BlobRef),
}

/// The JSON of a [`NodePlan`], byte for byte: its digest is the plan's id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanText(Box<RawValue>);

impl PlanText {
    /// The JSON of a plan.
    pub fn of(plan: &NodePlan) -> Self {
        Self(to_raw_value(plan).expect("a plan has string keys and serializes without IO"))
    }

    /// Bytes that are to be the JSON of a plan.
    ///
    /// # Errors
    /// They are not JSON.
    pub fn from_json(json: Vec<u8>) -> Result<Self, InvalidJson> {
        let json = String::from_utf8(json).map_err(|error| InvalidJson::new(&error))?;
        RawValue::from_string(json).map(Self).map_err(InvalidJson::from)
    }

    /// The JSON.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The plan's id.
    pub fn id(&self) -> Digest {
        Digest::of(self.as_str().as_bytes())
    }

    /// The blobs that the plan names, found without reading all of it.
    ///
    /// # Errors
    /// The JSON is no node plan.
    pub fn blobs(&self) -> Result<BTreeSet<Digest>, InvalidJson> {
        #[derive(Deserialize)]
        struct Plan {
            #[serde(default)]
            tasks: Vec<Task>,
        }
        #[derive(Deserialize)]
        struct Task {
            spec: Option<Spec>,
        }
        #[derive(Deserialize)]
        struct Spec {
            content: Option<Content>,
        }
        let plan: Plan = serde_json::from_slice(self.as_str().as_bytes())?;
        let contents = plan.tasks.into_iter().filter_map(|task| task.spec?.content);
        Ok(contents.filter_map(|content| Some(content.blob()?.sha256)).collect())
    }

    /// The plan.
    ///
    /// # Errors
    /// The JSON is no node plan.
    pub fn parse(&self) -> Result<NodePlan, InvalidJson> {
        // From bytes, as all other JSON on the agent: the code that reads a plan from a `str` would be there a second time.
        serde_json::from_slice(self.as_str().as_bytes()).map_err(InvalidJson::from)
    }
}

impl PartialEq for PlanText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl JsonSchema for PlanText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        NodePlan::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        NodePlan::json_schema(generator)
    }
}

impl Message for PlanOffer {
    const TYPE: &'static str = "application/vnd.groundplan.plan-offer+json";
    const ENCRYPTED: bool = true;
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// A task of a node plan.
///
/// Carried out in this order: wait for `after` and `gates`; then, with `spec`, if the action is `create` or `update`,
/// wait for the `external` probes, check and, where it is out of sync, apply; then the greatest effect among `obligation` and the
/// `triggers` that fired, unless applying has just started or run it anyway; then wait until it is `ready`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedTask {
    /// The task, of this plan's node.
    pub task: TaskId,
    /// What is done to it.
    pub action: Action,
    /// What to apply; absent for `remove`, which uses what the ledger holds, and for an effect on a task that cannot be planned yet:
    /// that waits for a newer plan, behind the gate `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<TaskSpec>,
    /// Fingerprint of `spec`, recorded once it is applied; absent with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// Short digests of the inputs behind the fingerprint, by name: recorded and published in the node's state, so that the
    /// planner can name those that differ. Opaque to the agent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// All edges that the site declares to it, recorded as well, for plans that remove it or their source. Opaque to the agent.
    #[serde(default, skip_serializing_if = "Edges::is_empty")]
    pub edges: Edges,
    /// Tasks of this node plan that must be done first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<TaskId>,
    /// Gates that must be open first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateId>,
    /// Triggers that may fire; each source is also in `after` or `gates`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Trigger>,
    /// An obligation that changes on other nodes left in earlier plans: what the node itself reported is in its ledger.
    #[serde(default, alias = "owed", skip_serializing_if = "Option::is_none")]
    pub obligation: Option<Effect>,
    /// The generation from which on that obligation is known: the effect carried out for a plan of it, or of a later one, meets it.
    /// Without it nothing does that was done for an earlier plan, or is being done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Generation>,
    /// Tasks that the same plan removes, and that hand over to this one what both claim: it takes what they remember of it for its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<TaskId>,
    /// For a removal: the tasks that it hands over to, all of them before it. What they claim stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub into: Vec<TaskId>,
    /// Whether it is tried again after it has failed. Until the last attempt has failed it counts as running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// How often and how soon a task that fails is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retry {
    /// How often it is tried in all, the first time included.
    pub attempts: u32,
    /// How long to wait before the second attempt. Each further wait is twice as long as the one before, [`Retry::LONGEST`] at most.
    pub backoff: Span,
}

impl Retry {
    /// The longest wait between two attempts.
    pub const LONGEST: Duration = Duration::from_secs(60 * 60);

    /// How long to wait after `failed` attempts; none after the last one.
    pub fn after(&self, failed: u32) -> Option<Duration> {
        let doubled = 1u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        (failed < self.attempts).then(|| Duration::from(self.backoff).saturating_mul(doubled).min(Self::LONGEST))
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, backoff: Span::secs(30) }
    }
}

/// A trigger edge within a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// The effect on the task if it fires.
    pub effect: Effect,
    /// The source that fires it.
    pub on: TriggerSource,
}

/// What fires a trigger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerSource {
    /// A task of the same node plan that changed something.
    Task(TaskId),
    /// A gate that opened with `fired`.
    Gate(GateId),
}

/// What a task applies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Its kind and parameters.
    pub params: TaskParams,
    /// The content that it ships, if its kind has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// When it counts as done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
    /// Probes of the external capabilities that it requires.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<Ready>,
    /// What to do if the agent is killed while it runs.
    #[serde(default, skip_serializing_if = "OnInterrupt::is_default")]
    pub on_interrupt: OnInterrupt,
}

impl TaskSpec {
    /// What another task takes over if it states the same, sorted.
    pub fn identity(&self, task: &TaskId) -> Vec<ClaimKey> {
        let mut keys = Vec::new();
        self.params.identity(task, &mut |claim| keys.push(ClaimKey::of(&claim)));
        sorted(keys)
    }

    /// What else it cannot take while another task has it, sorted: what its kind states beyond its identity, and the ports of this
    /// node on which it is ready if it is something that runs.
    pub fn contends(&self, task: &TaskId) -> Vec<ClaimKey> {
        let mut keys = Vec::new();
        self.params.contends(task, &mut |claim| keys.push(ClaimKey::of(&claim)));
        if self.params.effects().contains(&Effect::Restart) {
            let ports = self.ready.iter().flat_map(Ready::ports);
            keys.extend(ports.map(|port| ClaimKey::of(&Claim::named("port", port.to_string()))));
        }
        let identity = self.identity(task);
        keys.retain(|key| identity.binary_search(key).is_err());
        sorted(keys)
    }
}

fn sorted(mut keys: Vec<ClaimKey>) -> Vec<ClaimKey> {
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What to do with a task that cannot check itself and was interrupted, so that nothing shows how far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInterrupt {
    /// Report it as interrupted and run it again.
    #[default]
    Rerun,
    /// Report it as failed; an operator decides, and the next plan runs it again.
    Fail,
}

impl OnInterrupt {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a task's removal does with what the task changed on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRemove {
    /// What was there before the first task took it comes back; what was not there goes.
    #[default]
    Restore,
    /// Everything stays as it is.
    Keep,
    /// It goes, and nothing comes back.
    Delete,
}

impl OnRemove {
    /// The value as it stands in a site.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Keep => "keep",
            Self::Delete => "delete",
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for OnRemove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the site declares about a task that decides nothing of what is applied: the edges to it, and what its removal does. Where only
/// this changes, nodes record it and do nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edges {
    /// What it comes after, triggers included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Source>,
    /// Sources whose changes act on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<EdgeTrigger>,
    /// What its removal does with what it changed. Recorded on the node, because the removal comes when no site declares it any more.
    #[serde(default, skip_serializing_if = "OnRemove::is_default")]
    pub on_remove: OnRemove,
    /// Whether the site forbids its removal. Recorded on the node, because the removal comes when no site declares the task any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prevent_destroy: bool,
    /// What no other task of the node may use at the same time, sorted: a removal that lists one of them comes before what takes its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Resource>,
}

impl Edges {
    /// Whether there are none, and nothing else is declared.
    pub fn is_empty(&self) -> bool {
        let Self { requires, triggers, on_remove, prevent_destroy, conflicts } = self;
        let no_edges = requires.is_empty() && triggers.is_empty();
        no_edges && on_remove.is_default() && !prevent_destroy && conflicts.is_empty()
    }
}

/// A declared trigger edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EdgeTrigger {
    /// The effect on the task if it fires.
    pub effect: Effect,
    /// The source that fires it.
    pub on: Source,
}

/// The far end of a declared edge, written `service.task@.` (on the same node), `service.task` (on every node that runs
/// it) or `service.task@node` (on that node).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The task at that end.
    pub task: TaskId,
    /// Its instances that count.
    pub place: Place,
}

/// The instances of a task that an edge comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The instance on the same node.
    Here,
    /// All instances: a barrier.
    Everywhere,
    /// The instance on that node.
    Node(NodeId),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Here => write!(f, "{}@.", self.task),
            Place::Everywhere => write!(f, "{}", self.task),
            Place::Node(node) => write!(f, "{}@{node}", self.task),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for Source {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        Ok(match s.split_once('@') {
            None => Self { task: s.parse()?, place: Place::Everywhere },
            Some((task, ".")) => Self { task: task.parse()?, place: Place::Here },
            Some((task, node)) => Self { task: task.parse()?, place: Place::Node(NodeId::new(node)?) },
        })
    }
}

as_text!(Source, "`service.task@.`, `service.task` or `service.task@node`");

/// The whole set of open gates for one node's plan. Retained; each replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gates {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; any other refuses it.
    pub site: SiteName,
    /// The node that they are for; any other refuses them.
    pub node: NodeId,
    /// The generation of the node plan that they belong to; an older one is ignored, a newer one waits for its plan.
    pub generation: Generation,
    /// The id of that plan: of two plans of one generation, by two planners, they open gates of this one only.
    pub plan: Digest,
    /// The open gates; all others are closed.
    pub open: BTreeMap<GateId, OpenGate>,
}

/// How a gate opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenGate {
    /// Whether something changed behind it, so that triggers on it fire.
    pub fired: bool,
}

impl Message for Gates {
    const TYPE: &'static str = "application/vnd.groundplan.gates+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

//! What goes into the machine and what comes out of it: plain values.
//!
//! Inputs are what happened: a message whose signature was checked, a tip of the branch, an answer to an earlier effect, a request of an
//! operator, the time. Effects are what is to be done. All [`Effect::Persist`] of one round are one transaction, and nothing else of
//! that round but [`Effect::Reply`] may be carried out before it is on the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use groundplan_core::{Knowledge, applied::Forget, knowledge::Misfit};
use groundplan_protocol::{
    blob::Want,
    drift::{CheckRequest, DriftReport},
    effect::Action,
    encryption::EncryptionKey,
    exec::{Exec, ExecOutput, ExecReady},
    ids::{CommitId, ExecId, Generation, InstanceId, NodeId, ServiceId, SiteName, TaskId},
    plan::Gates,
    presence::{PlannerPresence, Presence},
    report::{Ack, Outcome, ReportBatch},
    state::NodeState,
    topic::NodeTopic,
};

use crate::{
    command::{CommandEvent, CommandRequest},
    commit::{ActiveCommit, Commit, RefusedCommit},
    fleet::NodePresence,
    ids::{JobId, Receipt, RequestId},
    leadership::Role,
    planning::{PlanJob, Planned},
    rollout::{Counts, RolloutSummary},
    write::Write,
};

/// What the machine is given once, when it is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest number of inventory-foreign nodes that are remembered by name: a client that may publish could invent any number.
    pub strangers: usize,
    /// Drawn at random for this process: nonces are made from it.
    pub seed: [u8; 16],
}

impl Settings {
    /// The usual ones, with this seed.
    pub fn new(seed: [u8; 16]) -> Self {
        Self { strangers: 1000, seed }
    }
}

/// How long a plan may be taken after it was offered. A broker that holds it back for longer has held it back for good; a node that was away
/// for longer is offered it again.
pub const OFFER_VALID: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// Connected to the broker and subscribed; retained messages are on their way.
    Connected {
        /// Whether the broker has lost what was published: all of it has to be published again.
        fresh: bool,
    },
    /// The connection is lost, or could not be made; the shell tries again.
    Disconnected {
        /// Why, for the operator.
        error: String,
    },
    /// A message of the broker.
    Message {
        /// To be acknowledged.
        receipt: Receipt,
        /// What it says.
        message: Incoming,
    },
    /// The branch's tip was read, at the start and whenever it is another one; or why it cannot be read.
    Tip(Result<CommitId, String>),
    /// The answer to [`Effect::Load`].
    Loaded {
        /// Which job.
        job: JobId,
        /// What the commit holds.
        outcome: LoadOutcome,
    },
    /// The answer to [`Effect::Plan`].
    Planned(Box<Planned>),
    /// A request of an operator.
    Request(RequestId, Request),
    /// The client that asked for a command no longer reads its events.
    ClientGone(ExecId),
    /// Whether any client reads events: without one, none are made.
    Listeners(bool),
    /// The deadline has come.
    Tick,
    /// End: write down what is in memory, and leave in good order.
    Stop,
}

/// A message of the broker, as far as the shell could make sense of it.
#[derive(Debug)]
pub enum Incoming {
    /// A planner's presence, signed by the key that all planners of the site share.
    Planner(PlannerPresence),
    /// A message that is signed by its node's key.
    Node(NodeId, NodeMessage),
    /// A message on a node's topic that is not accepted.
    Refused {
        /// The node whose topic it came on.
        node: NodeId,
        /// Why, for the operator.
        reason: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// Nothing that concerns this planner, such as a cleared retained message.
    Empty,
    /// A payload that is not ours.
    Foreign,
}

/// What a node's agent publishes.
#[derive(Debug)]
pub enum NodeMessage {
    /// What is applied, and its obligations.
    State(Box<NodeState>),
    /// Reports of tasks.
    Reports(ReportBatch),
    /// The agent connects or leaves.
    Presence(Presence),
    /// What a drift check found.
    Drift(DriftReport),
    /// A command is ready to be run.
    Ready(ExecReady),
    /// Output of a command.
    Output(ExecOutput),
    /// Content that the agent misses.
    Want(Want),
}

/// A request of an operator. Names were checked against a [`View`](crate::view::View); what is not declared any more is passed over.
#[derive(Debug)]
pub enum Request {
    /// Have nodes check again what they have applied, and repair what differs.
    Recheck {
        /// The nodes; none: all.
        nodes: BTreeSet<NodeId>,
        /// All tasks of these services.
        services: BTreeSet<ServiceId>,
        /// These tasks; with no services either, all tasks.
        tasks: BTreeSet<TaskId>,
    },
    /// Try again what has failed.
    Retry,
    /// Have a node drop the record of a task that is not desired there, and leave its host as it is.
    Forget {
        /// The task and the node.
        instance: InstanceId,
        /// Who asked, and why.
        forget: Forget,
    },
    /// Let nothing on other nodes wait for a node.
    Park {
        /// The node.
        node: NodeId,
        /// Who asked.
        by: String,
        /// Why.
        reason: String,
        /// For how long; none until it is taken back.
        span: Option<Duration>,
    },
    /// Wait for a node again.
    Unpark(NodeId),
    /// Have these nodes check for drift now.
    CheckDrift(BTreeSet<NodeId>),
    /// Run a command now. The shell chooses an id that no other command has.
    RunCommand(Box<CommandRequest>),
    /// Stop a command.
    StopCommand(ExecId),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// What was planned.
    Recheck {
        /// The rollout that checks; none if there is nothing to check.
        generation: Option<Generation>,
        /// Instances that are asked for and cannot be checked, such as commands without a guard.
        left_out: Vec<InstanceId>,
    },
    /// The rollout that tries again; none if nothing has failed.
    Retry(Option<Generation>),
    /// The rollout that drops the record; none if the node has none by now, or the task is desired.
    Forget(Option<Generation>),
    /// The rollout that goes on without the node, or waits for it again; none if that makes no difference now.
    Park(Option<Generation>),
    /// The number of the request that each node's report will answer.
    CheckDrift(BTreeMap<NodeId, u64>),
    /// The command is under way; its events follow.
    CommandStarted,
    /// The command is being stopped.
    CommandStopping,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// This planner does not plan at the moment.
    NotPlanning {
        /// The planner that does, if one is known.
        planner: Option<String>,
    },
    /// No good commit has been read yet.
    NoActiveCommit,
    /// Too many commands are under way.
    TooManyCommands {
        /// How many may be.
        limit: usize,
    },
    /// No command of that id is under way.
    NoCommand(ExecId),
}

/// Read a commit and resolve it, away from the loop.
#[derive(Debug, Clone)]
pub struct LoadJob {
    /// To be returned with the answer.
    pub job: JobId,
    /// The commit.
    pub commit: CommitId,
    /// What nodes have reported, and what becomes of an instance that it does not fit.
    pub knowledge: Knowledge,
    /// The name that the site must have; none before the first commit.
    pub site: Option<SiteName>,
    /// What is active, for [`LoadOutcome::Good::same`].
    pub active: Option<Arc<ActiveCommit>>,
    /// The commit that was activated last, also if it could not be loaded since: what this one is a fast-forward of, or not.
    pub base: Option<Commit>,
}

impl LoadJob {
    /// Whether values of nodes that do not fit are a fault of the commit: in one that is checked, not in one that is active already.
    pub fn is_strict(&self) -> bool {
        self.knowledge.misfit == Misfit::Refuse
    }
}

/// What a commit holds.
#[derive(Debug)]
pub enum LoadOutcome {
    /// No fault.
    Good {
        /// What it asks for.
        commit: Arc<ActiveCommit>,
        /// Whether it is the active commit and asks nodes for the same as before.
        same: bool,
    },
    /// At least one fault.
    Refused(RefusedCommit),
    /// It cannot be read at the moment: why, for the operator.
    Unreadable(String),
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Write to the store.
    Persist(Write),
    /// Acknowledge a message to the broker.
    Acknowledge(Receipt),
    /// Connect to the broker for this site; comes once.
    Connect(SiteName),
    /// Let what is published flow on this connection: no other planner has taken over.
    OpenOutbox,
    /// Publish.
    Publish(Message),
    /// Have the broker send again what it retains of these nodes.
    Replay(Vec<NodeId>),
    /// Publish these chunks of content that a node asked for, if the active commit or the node's plan has it.
    Ship(NodeId, Want),
    /// Read a commit.
    Load(Box<LoadJob>),
    /// What this job loaded is active from now on.
    Activate(JobId),
    /// Work out a plan.
    Plan(Box<PlanJob>),
    /// Answer a request.
    Reply(RequestId, Result<Reply, Problem>),
    /// Something that clients follow.
    Event(Box<Event>),
    /// Something for the client that asked for this command; after [`CommandEvent::Finished`] nothing follows.
    CommandEvent(ExecId, CommandEvent),
    /// For the log.
    Log(Level, String),
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For developers.
    Debug,
    /// For operators who want to follow.
    Info,
    /// Something that an operator should look into.
    Warn,
}

/// What is published.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// This planner's presence, at once, whether the outbox is open or not.
    Presence {
        /// It.
        presence: PlannerPresence,
        /// Whether the broker is to keep it.
        retain: bool,
    },
    /// That it is there in this term, retained.
    Heartbeat(u64),
    /// The plan that the store holds for a node, offered in a term and encrypted to that key, retained; nothing if it holds none.
    Plan(NodeId, u64, EncryptionKey),
    /// A node's open gates, retained.
    Gates(Gates),
    /// Which reports of a node are on the disk.
    Ack(Ack),
    /// When a node is to check for drift, retained.
    Check(CheckRequest),
    /// An order to make ready, to run or to stop a command, encrypted to that key.
    Exec(Exec, EncryptionKey, Delivery),
    /// Nothing, in place of what is retained.
    Clear(NodeId, NodeTopic),
}

/// Until when an order may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// On this connection or not at all.
    Now,
    /// Also on a later one.
    Late,
    /// At once, because this planner is shutting down.
    Urgent,
}

/// Something that clients follow.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A commit was refused.
    Refused(RefusedCommit),
    /// A commit became active; what has to be done for it follows, if anything.
    Commit(Commit),
    /// A rollout began.
    RolloutStarted(RolloutSummary),
    /// A task began.
    TaskStarted(InstanceId),
    /// A task ended, for good or until it is tried again.
    TaskFinished {
        /// The instance.
        instance: InstanceId,
        /// What was asked for.
        action: Action,
        /// What became of it.
        outcome: Outcome,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// Whether its agent has left it out, because it acts on the host as a whole.
        skipped: bool,
        /// What the rollout's instances were reported to be so far: what has not ended and is not reported to run counts as pending.
        counts: Counts,
    },
    /// A rollout ended.
    RolloutFinished(RolloutSummary),
    /// An agent connected or left.
    Node(NodeId, NodePresence),
    /// An applied task does not work any more, and why; or it works again.
    Degraded(InstanceId, Option<String>),
    /// The planner began to plan, or stands by.
    Role(Role),
    /// Nothing is open: every node that is online has what the active commit asks for, or has failed at it.
    Idle,
}

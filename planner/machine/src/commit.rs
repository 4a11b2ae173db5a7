//! Commits as the machine knows them: the active one with what it asks for, and the refused one with its faults.
//!
//! In: what the shell read and resolved. Out: values that the other parts share. Nothing here reads a repository; what the shell needs
//! beside it (files, inventory, service definitions) it keeps itself, under the number of the [`LoadJob`](crate::io::LoadJob).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use groundplan_core::{DesiredState, Instance, desired::TaskVertex, plan::Position};
use groundplan_protocol::{
    duration::Span,
    ids::{CommitId, NodeId, ServiceId, SiteName},
};

/// A commit of the site's branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its object id.
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// Its author's name.
    pub author: String,
    /// When it was committed, in seconds since the Unix epoch.
    pub time: i64,
    /// What it takes back of the commit that was active before; none if it has that one in its history, which is a fast-forward.
    pub rewinds: Option<Box<Rewind>>,
}

/// What a commit that is no fast-forward takes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewind {
    /// The commit that was active.
    pub from: CommitId,
    /// How many commits of its history are not in that of the new one; none if that cannot be counted.
    pub commits: Option<usize>,
}

/// A commit without a fault, with what it asks for.
#[derive(Debug)]
pub struct ActiveCommit {
    /// The commit.
    pub commit: Commit,
    /// The site's name, as `site.toml` has it.
    pub site: SiteName,
    /// What it asks for; names every declared node.
    pub desired: Arc<DesiredState>,
    /// When nodes check for drift, and what becomes of what they find.
    pub drift: DriftSettings,
    /// Whether its site refuses commits that do not have it in their history.
    pub fast_forward_only: bool,
}

/// The site's settings for drift, with those of its services merged in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DriftSettings {
    /// How long after one drift check a node begins the next; none: only when an operator asks.
    pub interval: Option<Span>,
    /// Services whose drift is repaired and not only reported.
    pub heal: BTreeSet<ServiceId>,
}

impl ActiveCommit {
    /// Whether the inventory declares a node.
    pub fn declares(&self, node: &NodeId) -> bool {
        self.desired.node(node).is_some()
    }
}

impl DriftSettings {
    /// How long a task rests where nodes check only when asked.
    const REST: Duration = Duration::from_secs(60);

    /// How long after a repair a task may be repaired again: so that the next periodic check counts, whatever its node's spread.
    pub fn rest(&self) -> Duration {
        self.interval.map_or(Self::REST, |interval| Duration::from(interval) * 8 / 10)
    }
}

/// A commit that was refused; the one before it stays active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedCommit {
    /// The commit.
    pub commit: Commit,
    /// Every fault in it, in the order of their places.
    pub faults: Vec<Fault>,
}

/// A refusal for the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// When the planner refused it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The commit with its faults.
    pub refused: RefusedCommit,
}

/// A fault in a site's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it is; none for one of the tree as a whole.
    pub at: Option<FaultPlace>,
    /// What is wrong.
    pub message: String,
    /// A few words to stand beside the place; may be empty.
    pub label: String,
    /// Further places that belong to it, each with a few words.
    pub related: Vec<(FaultPlace, String)>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A place with the text of its line, so that a fault can be shown without the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultPlace {
    /// File, line and column.
    pub place: Position,
    /// The text of that line.
    pub text: Option<String>,
}

/// Whether two resolutions of one tree ask nodes for the same.
pub fn asks_for_the_same(a: &DesiredState, b: &DesiredState) -> bool {
    let same_task = |(a, b): (&TaskVertex, &TaskVertex)| {
        let off = |task: &TaskVertex| task.off.iter().map(|(node, _)| *node).collect::<Vec<_>>();
        let resolved =
            |(a, b): (&Instance, &Instance)| a.node == b.node && a.resolved.fingerprint == b.resolved.fingerprint;
        a.instances.len() == b.instances.len()
            && a.pending == b.pending
            && off(a) == off(b)
            && a.instances.iter().zip(&b.instances).all(resolved)
    };
    a.graph.tasks.len() == b.graph.tasks.len() && a.graph.tasks.iter().zip(&b.graph.tasks).all(same_task)
}

/// What was desired before, for reasons that name the values before.
pub type Earlier = Option<Arc<DesiredState>>;

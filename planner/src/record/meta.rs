//! What the store holds one of: the planner's name, its generation and term, and the commits that it goes by.

use std::collections::BTreeMap;

use groundplan_core::{applied::Forget, plan::Position};
use groundplan_machine::{
    commit::{Commit, Fault, FaultPlace, Refusal, RefusedCommit, Rewind},
    record::{Meta, Park},
};
use groundplan_protocol::ids::{CommitId, Generation, InstanceId, NodeId, SiteName, TaskId};
use serde::{Deserialize, Serialize};

/// What there is one of. Written when a commit becomes active or is refused, and with every plan and term.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MetaRow {
    /// The site that the planner works for; absent before the first good commit.
    pub site: Option<SiteName>,
    /// This planner's id, chosen at its first start.
    pub planner: String,
    /// The generation of the latest plan.
    pub generation: Generation,
    /// The last term that this planner has claimed.
    pub term: u64,
    /// The active commit; none before the first good one.
    pub active: Option<CommitRow>,
    /// The branch's tip, if it was refused.
    pub refused: Option<RefusedRow>,
    /// Instances whose records are to be dropped; releases before 0.2 lack it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forget: BTreeMap<InstanceId, ForgetRow>,
    /// The nodes that tasks with `once` were planned on; releases before 0.2 lack it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub elected: BTreeMap<TaskId, NodeId>,
    /// Nodes that operators have parked; releases before 0.2 lack it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parked: BTreeMap<NodeId, ParkRow>,
}

/// A node that an operator has parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkRow {
    /// The operator.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Until when; absent until an operator takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// A request to drop the record of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetRow {
    /// The operator.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
}

/// A commit of the site's branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRow {
    /// Its full object id in hexadecimal.
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// The name of its author, as git records it.
    pub author: String,
    /// When it was committed, in seconds since the Unix epoch.
    pub time: i64,
    /// What it takes back; releases before 0.2 lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewinds: Option<RewindRow>,
}

/// What a commit that is no fast-forward takes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindRow {
    /// The commit that was active before.
    pub from: CommitId,
    /// How many commits it takes back; absent if they cannot be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commits: Option<usize>,
}

/// A commit that was refused, with all that is wrong in it: after a restart it is shown without reading the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRow {
    /// The commit that was refused as a whole.
    pub commit: CommitRow,
    /// Every fault in it, in the order of their places.
    pub faults: Vec<FaultRow>,
}

/// A refused commit in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalRow {
    /// When it was refused, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The commit with its faults. Its fields stand beside the other.
    #[serde(flatten)]
    pub refused: RefusedRow,
}

/// A fault in a site's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRow {
    /// Where it is; absent for one of the tree as a whole.
    pub at: Option<PlaceRow>,
    /// What is wrong, in one line.
    pub message: String,
    /// A few words beside the place.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Further places that belong to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<RelatedRow>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A place that belongs to a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelatedRow {
    /// The place in the site's files.
    pub at: PlaceRow,
    /// A few words on it.
    pub words: String,
}

/// A place in a file of the site, with the text of its line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRow {
    /// The file's path in the repository.
    pub file: String,
    /// The line, from 1; absent where the file as a whole is meant.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// The text of that line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl From<Meta> for MetaRow {
    fn from(meta: Meta) -> Self {
        let Meta { site, planner, generation, term, active, refused, forget, elected, parked } = meta;
        let (active, refused) = (active.map(Into::into), refused.map(Into::into));
        let row = |Forget { by, reason }| ForgetRow { by, reason };
        let forget = forget.into_iter().map(|(instance, forget)| (instance, row(forget))).collect();
        let row = |Park { by, reason, since_ms, until_ms }| ParkRow { by, reason, since_ms, until_ms };
        let parked = parked.into_iter().map(|(node, park)| (node, row(park))).collect();
        Self { site, planner, generation, term, active, refused, forget, elected, parked }
    }
}

impl From<MetaRow> for Meta {
    fn from(row: MetaRow) -> Self {
        let MetaRow { site, planner, generation, term, active, refused, forget, elected, parked } = row;
        let (active, refused) = (active.map(Into::into), refused.map(Into::into));
        let value = |ForgetRow { by, reason }| Forget { by, reason };
        let forget = forget.into_iter().map(|(instance, row)| (instance, value(row))).collect();
        let value = |ParkRow { by, reason, since_ms, until_ms }| Park { by, reason, since_ms, until_ms };
        let parked = parked.into_iter().map(|(node, row)| (node, value(row))).collect();
        Self { site, planner, generation, term, active, refused, forget, elected, parked }
    }
}

impl From<Commit> for CommitRow {
    fn from(commit: Commit) -> Self {
        let Commit { id, subject, author, time, rewinds } = commit;
        let rewinds = rewinds.map(|rewinds| RewindRow { from: rewinds.from, commits: rewinds.commits });
        Self { id, subject, author, time, rewinds }
    }
}

impl From<CommitRow> for Commit {
    fn from(row: CommitRow) -> Self {
        let CommitRow { id, subject, author, time, rewinds } = row;
        let rewinds = rewinds.map(|RewindRow { from, commits }| Box::new(Rewind { from, commits }));
        Self { id, subject, author, time, rewinds }
    }
}

impl From<RefusedCommit> for RefusedRow {
    fn from(refused: RefusedCommit) -> Self {
        Self { commit: refused.commit.into(), faults: refused.faults.into_iter().map(Into::into).collect() }
    }
}

impl From<RefusedRow> for RefusedCommit {
    fn from(row: RefusedRow) -> Self {
        Self { commit: row.commit.into(), faults: row.faults.into_iter().map(Into::into).collect() }
    }
}

impl From<Refusal> for RefusalRow {
    fn from(refusal: Refusal) -> Self {
        Self { at_ms: refusal.at_ms, refused: refusal.refused.into() }
    }
}

impl From<RefusalRow> for Refusal {
    fn from(row: RefusalRow) -> Self {
        Self { at_ms: row.at_ms, refused: row.refused.into() }
    }
}

impl From<Fault> for FaultRow {
    fn from(fault: Fault) -> Self {
        let Fault { at, message, label, related, hint } = fault;
        let related = related.into_iter().map(|(at, words)| RelatedRow { at: at.into(), words });
        Self { at: at.map(Into::into), message, label, related: related.collect(), hint }
    }
}

impl From<FaultRow> for Fault {
    fn from(row: FaultRow) -> Self {
        let FaultRow { at, message, label, related, hint } = row;
        let related = related.into_iter().map(|related| (related.at.into(), related.words));
        Self { at: at.map(Into::into), message, label, related: related.collect(), hint }
    }
}

impl From<FaultPlace> for PlaceRow {
    fn from(place: FaultPlace) -> Self {
        let FaultPlace { place: Position { file, line, column }, text } = place;
        Self { file, line, column, text }
    }
}

impl From<PlaceRow> for FaultPlace {
    fn from(row: PlaceRow) -> Self {
        let PlaceRow { file, line, column, text } = row;
        Self { place: Position { file, line, column }, text }
    }
}

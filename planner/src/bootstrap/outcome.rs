//! What bootstrap is doing on a host, and how it ended there.

use groundplan_protocol::{envelope::PublicKey, ids::NodeId};
use serde::Serialize;

use super::target::Target;

/// The current step on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Waits until fewer than `at_once` hosts are in progress.
    Queued,
    /// Runs the host probe.
    Probing,
    /// Sends the files that differ.
    Uploading {
        /// Their size in bytes.
        bytes: u64,
    },
    /// Registers the agent's key with the planner.
    Trusting,
    /// systemd starts the agent; one that runs may finish its tasks first.
    Starting,
    /// Waits until the planner has a connection from the agent.
    Waiting,
    /// Compares the running program with the one that was put there.
    Checking,
    /// Restores the files that were there before.
    Restoring,
}

impl Step {
    /// For the progress line, after the node's name.
    pub fn text(self) -> String {
        match self {
            Self::Queued => "queued".to_owned(),
            Self::Probing => "probing".to_owned(),
            Self::Uploading { bytes } => format!("uploading {} KiB", bytes.div_ceil(1024)),
            Self::Trusting => "registering its key".to_owned(),
            Self::Starting => "starting its agent".to_owned(),
            Self::Waiting => "waiting for its agent".to_owned(),
            Self::Checking => "checking what runs".to_owned(),
            Self::Restoring => "restoring the previous files".to_owned(),
        }
    }

    /// In which state the host is left when this step does not finish.
    pub(super) fn left(self) -> &'static str {
        match self {
            Self::Queued | Self::Probing => "nothing was changed on the host",
            Self::Uploading { .. } => {
                "either none of the files was replaced on the host or all of them: run the same command again to continue"
            }
            _ => "the files are in place, and the agent may run already: run the same command again to finish",
        }
    }
}

/// How bootstrap ended on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Nothing differed.
    UpToDate,
    /// It had no agent, or that of another site.
    Installed,
    /// It runs another program now, of the same or a newer version.
    Upgraded,
    /// It runs another program now, of an older version.
    Downgraded,
    /// Files other than the program were replaced.
    Changed,
    /// No file differed; the agent was started or restarted.
    Restarted,
    /// Dry run: something differs.
    WouldChange,
    /// Nothing was done, because it is unsafe or impossible; the error has the cause.
    Refused,
    /// A step failed; `left` has the state of the host.
    Failed,
    /// The operator stopped it.
    Interrupted,
}

impl HostState {
    /// Whether the host has the agent that it should have, or would have one after a run that is not dry.
    pub fn is_good(self) -> bool {
        !matches!(self, Self::Refused | Self::Failed | Self::Interrupted)
    }
}

/// The result of one host, as it is printed in JSON.
#[derive(Debug, Clone, Serialize)]
pub struct HostResult {
    /// The node that the host is.
    pub node: NodeId,
    /// The address that `ssh` connected to.
    pub address: String,
    /// Whether the host was changed, left as it was, or failed.
    pub state: HostState,
    /// The differences that were found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// The version of the agent before.
    pub previous_version: Option<String>,
    /// The version of the agent after files were replaced; `None` if none was.
    pub version: Option<String>,
    /// The key that its agent signs with.
    pub key: Option<PublicKey>,
    /// The directory that the state of another site's agent was moved to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<String>,
    /// What went wrong, in one line; none on success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// In which state the host was left after an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// The next step after an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The last lines of the agent's journal, oldest first, if the agent did not come up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub journal: Vec<String>,
}

impl HostResult {
    /// The result of a host on which nothing differed; other results are built from it.
    pub(super) fn new(target: &Target) -> Self {
        Self {
            node: target.node.clone(),
            address: target.address.clone(),
            state: HostState::UpToDate,
            because: Vec::new(),
            previous_version: None,
            version: None,
            key: None,
            moved: None,
            error: None,
            left: None,
            hint: None,
            journal: Vec::new(),
        }
    }
}

/// Sent while bootstrap runs.
#[derive(Debug)]
pub enum ProgressEvent {
    /// A host enters a step.
    Step(NodeId, Step),
    /// A host is finished, however it ended.
    Finished(Box<HostResult>),
}

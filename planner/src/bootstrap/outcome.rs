//! What is being done on a host, and what came of it.

use groundplan_protocol::{envelope::PublicKey, ids::NodeId};
use serde::Serialize;

use super::target::Target;

/// What is being done on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    Queued,
    /// Finding out what is there.
    Looking,
    /// Sending files.
    Uploading {
        /// How many bytes.
        bytes: u64,
    },
    /// Telling the planner its key.
    Trusting,
    /// Having systemd start it; one that runs may end its tasks first.
    Starting,
    /// Until the planner hears of it.
    Waiting,
    /// That it is the right program.
    Checking,
    /// What was there before.
    PuttingBack,
}

impl Step {
    /// In a few words.
    pub fn words(self) -> String {
        match self {
            Self::Queued => "waits for its turn".to_owned(),
            Self::Looking => "looking".to_owned(),
            Self::Uploading { bytes } => format!("sending {} KiB", bytes.div_ceil(1024)),
            Self::Trusting => "telling the planner its key".to_owned(),
            Self::Starting => "starting".to_owned(),
            Self::Waiting => "waiting for its agent".to_owned(),
            Self::Checking => "checking what runs".to_owned(),
            Self::PuttingBack => "putting back what was there".to_owned(),
        }
    }

    /// How a host is left when it is broken off there.
    pub(super) fn left(self) -> &'static str {
        match self {
            Self::Queued | Self::Looking => "nothing was changed on the host",
            Self::Uploading { .. } => {
                "either nothing was replaced on the host or all of it: the same again finds out and goes on"
            }
            _ => "its files are in place, and the agent may run already: the same again finds out and finishes",
        }
    }
}

/// What came of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All was as it should be.
    AsItWas,
    /// It has an agent now.
    Installed,
    /// It runs another program now.
    Upgraded,
    /// The same, of an earlier version.
    Downgraded,
    /// Something else of it was changed.
    Changed,
    /// It was started.
    Started,
    /// Something would be done.
    Would,
    /// Nothing was done, and why.
    Refused,
    /// It went wrong.
    Failed,
    /// It was broken off.
    Interrupted,
}

impl State {
    /// Whether the host is as it should be, or would be.
    pub fn is_good(self) -> bool {
        !matches!(self, Self::Refused | Self::Failed | Self::Interrupted)
    }
}

/// What was done on a host.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// The node.
    pub node: NodeId,
    /// Where it was reached.
    pub address: String,
    /// What came of it.
    pub state: State,
    /// Why anything was done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// The version that was there.
    pub had: Option<String>,
    /// The version that is there.
    pub version: Option<String>,
    /// The key that its agent signs with.
    pub key: Option<PublicKey>,
    /// Where the state of another site's agent went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How the host was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The last lines of the agent's journal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub journal: Vec<String>,
}

impl Done {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            node: target.node.clone(),
            address: target.address.clone(),
            state: State::AsItWas,
            because: Vec::new(),
            had: None,
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

/// Something to show.
#[derive(Debug)]
pub enum Told {
    /// What is being done on a host.
    Step(NodeId, Step),
    /// What came of it.
    Done(Box<Done>),
}

//! Why bootstrap failed on a host, in which state it left the host, and the next step.

use super::{
    outcome::{HostResult, HostState, Step},
    refusal::Refusal,
    ssh::{Ssh, SshError},
    target::Target,
};
use crate::api::ClientError;

/// An error on one host.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Ssh(SshError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the host's answer is incomplete; does its shell end early?")]
    Answer,
    #[error("another bootstrap runs on the host")]
    Busy,
    #[error("no space left on the host: {0}")]
    Full(String),
    #[error("cannot write on the host: {0}")]
    Write(String),
    #[error("a file arrived incomplete on the host")]
    Cut,
    #[error("the agent's program does not run on the host: {0}")]
    DoesNotRun(String),
    #[error("the agent has no key: {0}")]
    NoKey(String),
    #[error("the planner does not accept the agent's key: {}", match .0 { ClientError::Refused { problem } => problem.error.clone(), e => e.to_string() })]
    Api(ClientError),
    #[error("the agent does not start: {0}")]
    Unit(String),
    #[error("the agent runs, but did not connect to the planner in time")]
    Absent,
    #[error("the agent was started, but the planner no longer answers")]
    Planner,
    #[error("another program runs as the agent than the one that was put on the host")]
    OtherProgram,
    #[error("the time limit has passed")]
    Time,
    /// A fault after which the previous files were restored, or should have been.
    #[error("{fault}")]
    Left { fault: Box<Fault>, left: &'static str, journal: Vec<String> },
}

impl Fault {
    fn hint(&self, ssh: &Ssh, address: &str) -> Option<String> {
        match self {
            Self::Ssh(e) => Some(e.hint(&ssh.target(address), &ssh.known_as(address))),
            Self::Refused(refusal) => Some(refusal.hint()),
            Self::Left { fault, .. } => fault.hint(ssh, address),
            Self::Api(e) => e.hint(),
            Self::Busy => Some("wait until it has ended".to_owned()),
            Self::Full(_) => Some("free some space there".to_owned()),
            Self::Write(_) => Some("is the file system read-only? see docs/bootstrap.md for such hosts".to_owned()),
            Self::Answer | Self::Cut | Self::Planner => Some("run the same command again".to_owned()),
            Self::DoesNotRun(_) => Some("is it the right agent for that host (--agent)?".to_owned()),
            Self::NoKey(_) | Self::Unit(_) => Some("read the last lines of the agent's journal".to_owned()),
            Self::Absent => Some(
                "can the host reach the broker (--broker), with these certificates? `groundplan status` shows messages that are refused"
                    .to_owned(),
            ),
            Self::OtherProgram => Some("does something else replace or start groundplan-agent there?".to_owned()),
            Self::Time => Some("set a longer limit with --timeout".to_owned()),
        }
    }

    /// The result of a host that failed in `step`.
    pub(super) fn result(self, target: &Target, ssh: &Ssh, step: Step) -> HostResult {
        let hint = self.hint(ssh, &target.address);
        let state = if matches!(self, Self::Refused(_)) { HostState::Refused } else { HostState::Failed };
        let error = Some(self.to_string());
        let (left, journal) = match self {
            Self::Left { left, journal, .. } => (left, journal),
            Self::Refused(_) => (Step::Probing.left(), Vec::new()),
            // The upload script reports these itself, and only after it has removed the new files: nothing was replaced. For any other
            // error of the upload it is unknown how far the script came.
            Self::Full(_) | Self::Write(_) | Self::Cut | Self::DoesNotRun(_) | Self::Busy
                if matches!(step, Step::Uploading { .. }) =>
            {
                (Step::Probing.left(), Vec::new())
            }
            // The upload script restores the previous files before it reports this one.
            Self::NoKey(_) => ("the previous files were restored", Vec::new()),
            _ => (step.left(), Vec::new()),
        };
        HostResult { state, error, hint, left: Some(left.to_owned()), journal, ..HostResult::new(target) }
    }
}

//! Why a host has no agent as it should be, how it was left, and the next step.

use super::{
    outcome::{Done, State, Step},
    refusal::Refusal,
    ssh::{Ssh, SshError},
    target::Target,
};
use crate::api::ClientError;

/// Why a host has no agent as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Ssh(SshError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("its answer is not whole; does its shell end early?")]
    Answer,
    #[error("another bootstrap is at work there")]
    Busy,
    #[error("there is no space left: {0}")]
    Full(String),
    #[error("cannot write there: {0}")]
    Write(String),
    #[error("not all of a file arrived")]
    Cut,
    #[error("the program does not run there: {0}")]
    DoesNotRun(String),
    #[error("the agent has no key: {0}")]
    NoKey(String),
    #[error("the planner does not take its key: {}", match .0 { ClientError::Refused { problem } => problem.error.clone(), e => e.to_string() })]
    Api(ClientError),
    #[error("its agent does not start: {0}")]
    Unit(String),
    #[error("its agent runs, and the planner did not hear of it in time")]
    Absent,
    #[error("its agent was started, and the planner no longer answers")]
    Planner,
    #[error("another program runs as the agent than the one that was put there")]
    OtherProgram,
    #[error("it took longer than the time limit")]
    Time,
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
            Self::Busy => Some("wait for its end".to_owned()),
            Self::Full(_) => Some("make room there".to_owned()),
            Self::Write(_) => Some("is the file system read-only? see docs/bootstrap.md for such hosts".to_owned()),
            Self::Answer | Self::Cut | Self::Planner => Some("run the same again".to_owned()),
            Self::DoesNotRun(_) => Some("is it the right agent for that host (--agent)?".to_owned()),
            Self::NoKey(_) | Self::Unit(_) => Some("its journal's last lines say more".to_owned()),
            Self::Absent => Some("can the host reach the broker (--broker), with these certificates? `groundplan status` tells messages that are refused".to_owned()),
            Self::OtherProgram => Some("does something else replace or start groundplan-agent there?".to_owned()),
            Self::Time => Some("give more with --timeout".to_owned()),
        }
    }

    /// What is told of a host.
    pub(super) fn done(self, target: &Target, ssh: &Ssh, step: Step) -> Done {
        let hint = self.hint(ssh, &target.address);
        let state = if matches!(self, Self::Refused(_)) { State::Refused } else { State::Failed };
        let error = Some(self.to_string());
        let (left, journal) = match self {
            Self::Left { left, journal, .. } => (left, journal),
            Self::Refused(_) => (Step::Looking.left(), Vec::new()),
            // What the script that puts files there says of itself, it says after it has cleaned up.
            Self::Full(_) | Self::Write(_) | Self::Cut | Self::DoesNotRun(_) | Self::Busy
                if matches!(step, Step::Uploading { .. }) =>
            {
                (Step::Looking.left(), Vec::new())
            }
            Self::NoKey(_) => ("what was there before is there again", Vec::new()),
            _ => (step.left(), Vec::new()),
        };
        Done { state, error, hint, left: Some(left.to_owned()), journal, ..Done::new(target) }
    }
}

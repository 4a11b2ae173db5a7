//! The trait of all kinds on the host: how a kind checks, applies, removes and carries out effects.

use groundplan_protocol::effect::Effect;
use serde_json::Value;

use super::context::Context;
use crate::host::error::HostError;

/// Whether the host is as a task's parameters want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// It is: there is nothing to apply.
    InSync,
    /// It is not, or the kind cannot check it.
    OutOfSync,
}

impl From<bool> for Check {
    fn from(in_sync: bool) -> Self {
        if in_sync { Self::InSync } else { Self::OutOfSync }
    }
}

/// What applying did, beyond the change itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Whether it started or ran it, so that no restart, reload or run is pending any more.
    pub(crate) afresh: bool,
}

/// A kind, by its parameters.
pub(crate) trait Kind {
    /// Whether it acts on the host as a whole, wherever the agent's root is: an agent with a root of its own refuses it.
    fn whole_host(&self) -> bool {
        false
    }

    /// Whether it calls [`Context::changing`] itself, once it has changed something: a failure before that leaves nothing to remove.
    /// Of other kinds every call of `apply` counts as a change.
    fn notes_changes(&self) -> bool {
        false
    }

    /// Whether a drift check can find out if the host is still as it was applied.
    fn drifts(&self, _: &Context<'_>) -> bool {
        true
    }

    /// Notes what is there of all that the task claims, where there is no note yet: called before the first change. Files at claimed
    /// paths are noted without it.
    async fn find(&self, _: &Context<'_>) -> Result<(), HostError> {
        Ok(())
    }

    /// Whether the host is in sync. Changes nothing on the host. What differs goes to [`Context::differs`]: in a drift check all
    /// of it; before applying, a check may stop at the first difference.
    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError>;

    /// Brings the host in sync; called only when a check found it out of sync.
    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError>;

    /// Takes away what was applied; whether there was anything to take away.
    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError>;

    /// Carries out an effect; whether there was anything to do. Only for kinds that list effects in the protocol.
    async fn effect(&self, _: &Context<'_>, _: Effect) -> Result<bool, HostError> {
        Ok(false)
    }

    /// Returns an error once it is clear that the task will never be ready; runs beside its readiness probe.
    async fn broken(&self, _: &Context<'_>) -> HostError {
        std::future::pending().await
    }

    /// Gives up what a failed job of a new task has begun, where it would otherwise go on with no record of it.
    async fn abandon(&self, _: &Context<'_>) {}

    /// Drops what it keeps besides the ledger: the task has given it up, whether anything was removed or not.
    fn given_up(&self, _: &Context<'_>) {}
}

/// The parameters that decide the result of a task, to be kept in its memory: whether they changed since then.
pub(super) fn essence<P>(params: &P) -> Value
where
    P: groundplan_protocol::kinds::Kind + Clone + serde::Serialize,
{
    let mut params = params.clone();
    params.drop_incidental();
    serde_json::to_value(params).unwrap_or_default()
}

/// Does blocking work that may take long on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, HostError> {
    tokio::task::spawn_blocking(work).await.map_err(HostError::Thread)
}

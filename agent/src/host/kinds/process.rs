//! `process`: a long-running program under the agent's own supervision.

use std::time::Duration;

use groundplan_protocol::{effect::Effect, kinds::Process};

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::HostError,
    process::{
        monitor::{Reloaded, StartTerms},
        state::ProcessState,
    },
};

/// How long a process with a readiness probe is watched after its start before the probe counts.
const SETTLE: Duration = Duration::from_millis(100);

impl Kind for Process {
    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let found = cx.host.supervisor.process(cx.task);
        match &found {
            None => cx.differs("process", Some("up"), None),
            Some((_, ProcessState::Down { why })) => {
                cx.differs("process", Some("up"), Some(&format!("down: it {why}")))
            }
            Some((process, _)) if process != self => cx.differs("process", Some("as it was applied"), Some("another")),
            Some(_) => {}
        }
        Ok(found.is_some_and(|(process, state)| matches!(state, ProcessState::Up { .. }) && process == *self).into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let supervisor = &cx.host.supervisor;
        if let Some((process, ProcessState::Up { .. })) = supervisor.process(cx.task)
            && !Process::must_restart(&process, self)
        {
            // Only how it is stopped or reloaded has changed.
            supervisor.amend(cx.task, self.clone()).await?;
            return Ok(Applied { afresh: false });
        }
        supervisor.start(cx.task, self.clone(), self.terms(cx)).await?;
        Ok(Applied { afresh: true })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        Ok(cx.host.supervisor.stop(cx.task).await?)
    }

    async fn effect(&self, cx: &Context<'_>, effect: Effect) -> Result<bool, HostError> {
        let supervisor = &cx.host.supervisor;
        let up = supervisor.process(cx.task).is_some_and(|(_, state)| matches!(state, ProcessState::Up { .. }));
        match effect {
            Effect::Reload if up => {
                if let Reloaded::Restarted { why } = supervisor.reload(cx.task, self.terms(cx)).await? {
                    cx.report(&format!("restarted: {why}"));
                    cx.carried_out(Effect::Restart);
                }
            }
            // Reloading a process that does not run means starting it.
            Effect::Reload => {
                supervisor.start(cx.task, self.clone(), self.terms(cx)).await?;
                cx.carried_out(Effect::Restart);
            }
            _ => supervisor.start(cx.task, self.clone(), self.terms(cx)).await?,
        }
        Ok(true)
    }

    async fn broken(&self, cx: &Context<'_>) -> HostError {
        cx.host.supervisor.ended(cx.task).await.into()
    }

    async fn abandon(&self, cx: &Context<'_>) {
        if let Err(e) = cx.host.supervisor.stop(cx.task).await {
            crate::log::warn(format_args!("{}: cannot stop what failed to start: {}", cx.task, crate::log::chain(&e)));
        }
    }
}

trait Terms {
    fn terms(&self, cx: &Context<'_>) -> StartTerms;
}

impl Terms for Process {
    /// A new process, which the ledger does not have yet, is not retried without a job. It must run for a moment even if a probe
    /// follows: another program may have its port, and answer in its place.
    fn terms(&self, cx: &Context<'_>) -> StartTerms {
        let settle = if cx.probed { SETTLE } else { self.settle().into() };
        StartTerms { settle, retry: !cx.is_new }
    }
}

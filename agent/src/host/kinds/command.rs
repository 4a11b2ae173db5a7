//! `command`: runs when it is new or changed and when a trigger fires, unless a guard shows that there is nothing to do.

use groundplan_protocol::{
    effect::Effect,
    kinds::{Command, Run},
};

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::HostError,
    process::{
        exec::{self, Limit, Ran},
        spawn::Program,
    },
};

impl Kind for Command {
    /// Only with guards about its result; `only_if` is about whether it may run.
    fn drifts(&self, _: &Context<'_>) -> bool {
        self.creates.is_some() || self.unless.is_some()
    }

    /// In sync if a guard prevents the run. The result of a command without guards cannot be checked.
    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        Ok((!wanted(self, cx, limit(self, cx)).await?).into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let ran = run(self, &self.run, cx, limit(self, cx)).await;
        let (end, output) = ran.success(&self.run);
        cx.print(output);
        end?;
        Ok(Applied { afresh: true })
    }

    async fn remove(&self, _: &Context<'_>) -> Result<bool, HostError> {
        Ok(false)
    }

    async fn effect(&self, cx: &Context<'_>, _: Effect) -> Result<bool, HostError> {
        Ok(match self.check(cx).await? {
            Check::InSync => false,
            Check::OutOfSync => self.apply(cx).await?.afresh,
        })
    }
}

/// Its time limit starts with its job's own work, and includes guards.
fn limit(command: &Command, cx: &Context<'_>) -> Limit {
    let whole = command.timeout().into();
    Limit { until: cx.begun + whole, whole }
}

/// Whether no guard prevents the run.
async fn wanted(command: &Command, cx: &Context<'_>, limit: Limit) -> Result<bool, HostError> {
    if let Some(path) = &command.creates
        && cx.host.environment.root.exists(path)?
    {
        return Ok(false);
    }
    for (guard, wanted_if) in [(&command.unless, false), (&command.only_if, true)] {
        let Some(guard) = guard else { continue };
        let Ran { end, .. } = run(command, guard, cx, limit).await;
        if end?.success() != wanted_if {
            return Ok(false);
        }
    }
    if let Some(path) = &command.creates {
        cx.differs(path, Some("present"), None);
    }
    if command.unless.is_some() {
        cx.differs("unless", Some("exits with 0"), Some("does not"));
    }
    Ok(true)
}

async fn run(command: &Command, run: &Run, cx: &Context<'_>, limit: Limit) -> Ran {
    let program = Program { run, env: &command.env, cwd: command.cwd.as_deref(), user: command.user.as_deref() };
    exec::run(&cx.host.environment, &program, limit, cx.host.stop_grace, cx.cancel).await
}

//! `reboot`: the host goes down and comes back, once for each time that it is asked for, and the rollout continues.
//!
//! Before anything is done, a marker with the id of this boot is put on the disk. The task then waits for exclusive use of
//! the host and asks it to go down; its job never ends well in the boot in which it began. The next agent finds the task
//! interrupted and runs it again: a marker of another boot shows that the host has been down since, which is all that was
//! asked for. That marker is used up once the ledger has the task as done: the task's memory then holds its boot id. A kill at
//! any point leaves no marker (asked again), one of this boot (asked again) or one of an earlier boot (done).

use std::{path::Path, time::Duration};

use groundplan_protocol::{duration::Span, effect::Effect, kinds::Reboot};
use serde_json::json;
use tokio::time::sleep;

use super::{
    context::Context,
    kind::{Applied, Check, Kind, essence},
};
use crate::host::{
    error::{HostError, KindError, ToolError},
    markers::Marker,
    process::{
        exec::{self, Limit, Ran},
        spawn::Program,
    },
    tool::Tool,
};

/// Why the host was not rebooted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RebootError {
    #[error("the host did not go down within {0}; is something holding it up? See `systemctl list-jobs`")]
    StillUp(Span),
    #[error("cannot find out whether this host needs a reboot; install yum-utils or dnf-utils, or use `only_if`")]
    NotDetectable,
    #[error("interrupted before the host went down, because the agent stops; the task runs again when it is back")]
    Cancelled,
}

impl KindError for RebootError {}

impl Kind for Reboot {
    fn whole_host(&self) -> bool {
        true
    }

    /// A reboot leaves nothing that could be checked.
    fn drifts(&self, _: &Context<'_>) -> bool {
        false
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        if came_back(self, cx).is_some() {
            return Ok(Check::OutOfSync);
        }
        let is_new_request = cx.memory().and_then(|memory| memory.get("asked")) != Some(&essence(self));
        if is_new_request && wanted(self, cx).await? {
            return Ok(Check::OutOfSync);
        }
        done(self, cx, None);
        Ok(Check::InSync)
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        match came_back(self, cx) {
            Some(boot) => done(self, cx, Some(&boot)),
            None => go_down(self, cx).await?,
        }
        Ok(Applied { afresh: true })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        cx.host.markers.forget(cx.task)?;
        Ok(false)
    }

    async fn effect(&self, cx: &Context<'_>, _: Effect) -> Result<bool, HostError> {
        if came_back(self, cx).is_some() || wanted(self, cx).await? {
            return Ok(self.apply(cx).await?.afresh);
        }
        Ok(false)
    }
}

/// The boot that ended since the reboot was asked for, if one did.
///
/// The marker counts if the plan that asked is the one that asks now, or if no job has changed anything since the host is back:
/// after another plan's changes the reboot may be needed again.
fn came_back(reboot: &Reboot, cx: &Context<'_>) -> Option<String> {
    let marker = cx.host.markers.read(cx.task)?;
    let used_up = cx.memory().and_then(|memory| memory.get("down")?.as_str()) == Some(&marker.boot);
    let same = marker.asked == essence(reboot) && (marker.plan == cx.plan || cx.untouched);
    (marker.boot != cx.host.boot && same && !used_up).then_some(marker.boot)
}

/// Remembers which request has been carried out, and which marker is used up by it.
fn done(reboot: &Reboot, cx: &Context<'_>, boot: Option<&str>) {
    let before = cx.memory().and_then(|memory| memory.get("down")?.as_str());
    cx.remember(&json!({ "asked": essence(reboot), "down": boot.or(before) }));
    if boot.is_some() {
        cx.report("the host has been down and is back");
    }
}

/// Brings the host down; returns only if it stays up.
async fn go_down(reboot: &Reboot, cx: &Context<'_>) -> Result<(), HostError> {
    let host = cx.host;
    host.markers.write(cx.task, &Marker { boot: host.boot.clone(), plan: cx.plan, asked: essence(reboot) })?;
    let alone = host.exclusive.alone();
    let delay = async {
        let alone = alone.await;
        sleep(reboot.delay.map_or(Duration::ZERO, Duration::from)).await;
        alone
    };
    let alone = tokio::select! {
        () = cx.cancel.cancelled() => return Err(RebootError::Cancelled.into()),
        alone = delay => alone,
    };
    let going = alone.going_down();
    let down = match Path::new("/run/systemd/system").exists() {
        true => cx.tool(&["systemctl", "--no-wall", "--no-block", "reboot"]).await,
        false => cx.tool(&["reboot"]).await,
    };
    // The marker stays on the disk while the host may still go down.
    let failed: HostError = match down {
        // The agent is being stopped, most likely by the host itself going down.
        _ if cx.cancel.is_cancelled() => return Err(RebootError::Cancelled.into()),
        Ok(_) => tokio::select! {
            () = cx.cancel.cancelled() => return Err(RebootError::Cancelled.into()),
            () = sleep(reboot.timeout().into()) => RebootError::StillUp(reboot.timeout()).into(),
        },
        Err(e) => e.into(),
    };
    host.markers.forget(cx.task)?;
    drop(going);
    Err(failed)
}

/// Whether no guard holds it back.
async fn wanted(reboot: &Reboot, cx: &Context<'_>) -> Result<bool, HostError> {
    if reboot.needed == Some(true) && !needed(cx).await? {
        cx.report("the host needs no reboot");
        return Ok(false);
    }
    for (guard, wanted_if) in [(&reboot.unless, false), (&reboot.only_if, true)] {
        let Some(run) = guard else { continue };
        let limit = Limit::of(reboot.timeout().into());
        let program = Program::plain(run);
        let Ran { end, .. } = exec::run(&cx.host.environment, &program, limit, cx.host.stop_grace, cx.cancel).await;
        if end?.success() != wanted_if {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the host needs a reboot: by Debian's file (reboot-required of update-notifier), or as its package manager answers.
async fn needed(cx: &Context<'_>) -> Result<bool, HostError> {
    /// What is asked, and the exit status that means yes.
    const ASKED: [(&[&str], i32); 3] = [
        (&["needs-restarting", "-r"], 1),
        (&["dnf", "needs-restarting", "-r"], 1),
        (&["zypper", "needs-rebooting"], 102),
    ];
    let there = |path| cx.host.environment.root.exists(path);
    if there("/run/reboot-required")? {
        return Ok(true);
    }
    if there("/usr/bin/dpkg")? {
        return Ok(false);
    }
    for (words, yes) in ASKED {
        match Tool::new(words).ask(cx).await {
            Ok(answer) if answer.status.code() == Some(yes) => return Ok(true),
            Ok(answer) if answer.status.success() => return Ok(false),
            // `dnf` without its plugin, for example.
            Ok(_) | Err(ToolError::Missing { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(RebootError::NotDetectable.into())
}

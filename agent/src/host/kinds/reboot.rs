//! `reboot`: the host goes down and comes back, once for each time that it is asked for, and the rollout goes on.
//!
//! Before anything is done, a marker with the id of this boot is put on the disk. The task then waits until no other job
//! runs, lets none begin, and asks the host to go down; it never ends well in the boot that it began in. The next agent
//! finds the task cut off and runs it again: a marker of another boot says that the host has been down since, which is all
//! that was wanted. That marker is used up when the ledger has the task as done; its boot id in the task's memory says so.
//! A kill at any point leaves either no marker (asked again), one of this boot (asked again) or one of an earlier boot (done).

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use groundplan_protocol::{
    duration::Span,
    effect::Effect,
    ids::{Generation, TaskId},
    kinds::Reboot,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Applied, Check, Context, Hold, Kind, KindError, essence};
use crate::host::{
    HostError,
    exec::{self, Limit, Ran},
    spawn::Program,
    tool::{Tool, ToolError},
};

/// Why the host was not rebooted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RebootError {
    #[error("the host did not go down within {0}; is something holding it up? See `systemctl list-jobs`")]
    StillUp(Span),
    #[error("this host cannot say whether it needs a reboot; install yum-utils or dnf-utils, or use `only_if`")]
    NoWord,
    #[error("cannot note that the host is to go down, so it is not rebooted: {path}")]
    Marker { path: String, source: io::Error },
    #[error("cut off before the host went down, because the agent stops; the task runs again when it is back")]
    Cancelled,
}

impl KindError for RebootError {}

/// What is on the disk while a reboot is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// The boot in which it was asked for.
    boot: String,
    /// The plan that asked.
    plan: Generation,
    /// What was asked.
    asked: Value,
}

/// The directory of markers.
#[derive(Debug)]
pub(crate) struct Markers(PathBuf);

impl Kind for Reboot {
    fn hold(&self, _: &TaskId) -> Hold {
        Hold::Nothing
    }

    fn whole_host(&self) -> bool {
        true
    }

    /// It was done, and leaves nothing.
    fn drifts(&self, _: &Context<'_>) -> bool {
        false
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        if came_back(self, cx).is_some() {
            return Ok(Check::OutOfSync);
        }
        let is_asked_anew = cx.memory().and_then(|memory| memory.get("asked")) != Some(&essence(self));
        if is_asked_anew && wanted(self, cx).await? {
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

/// The boot that ended since this was asked for, if one did.
///
/// The plan that asked must be the one that asks now; or else nothing else can have been changed since the host is back.
fn came_back(reboot: &Reboot, cx: &Context<'_>) -> Option<String> {
    let marker = cx.host.markers.read(cx.task)?;
    let used_up = cx.memory().and_then(|memory| memory.get("down")?.as_str()) == Some(&marker.boot);
    let same = marker.asked == essence(reboot) && (marker.plan == cx.plan || cx.untouched);
    (marker.boot != cx.host.boot && same && !used_up).then_some(marker.boot)
}

/// Remembers what has been seen to, and which marker is used up by it.
fn done(reboot: &Reboot, cx: &Context<'_>, boot: Option<&str>) {
    let before = cx.memory().and_then(|memory| memory.get("down")?.as_str());
    cx.remember(json!({ "asked": essence(reboot), "down": boot.or(before) }));
    if boot.is_some() {
        cx.say("the host has been down and is back");
    }
}

/// Brings the host down; returns only if that does not come about.
async fn go_down(reboot: &Reboot, cx: &Context<'_>) -> Result<(), HostError> {
    let host = cx.host;
    host.markers.write(cx.task, &Marker { boot: host.boot.clone(), plan: cx.plan, asked: essence(reboot) })?;
    let alone = host.quiet.alone();
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
    let failed: HostError = match down {
        // Who stops us is the host itself, most likely.
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
        cx.say("the host needs no reboot");
        return Ok(false);
    }
    for (guard, wanted_if) in [(&reboot.unless, false), (&reboot.only_if, true)] {
        let Some(run) = guard else { continue };
        let limit = Limit::of(reboot.timeout().into());
        let program = Program::plain(run);
        let Ran { end, .. } = exec::run(&cx.host.surroundings, &program, limit, cx.host.stop_grace, cx.cancel).await;
        if end?.success() != wanted_if {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the host says so itself: by Debian's file (reboot-required of update-notifier), or by its package manager's word.
async fn needed(cx: &Context<'_>) -> Result<bool, HostError> {
    const ASKED: [(&[&str], i32); 3] = [
        (&["needs-restarting", "-r"], 1),
        (&["dnf", "needs-restarting", "-r"], 1),
        (&["zypper", "needs-rebooting"], 102),
    ];
    let there = |path| cx.host.surroundings.root.exists(path);
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
    Err(RebootError::NoWord.into())
}

impl Markers {
    /// Those below the agent's state directory.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("reboot"))
    }

    fn path(&self, task: &TaskId) -> PathBuf {
        self.0.join(format!("{task}.json"))
    }

    /// One that cannot be read was torn when the host went down before anything was done.
    fn read(&self, task: &TaskId) -> Option<Marker> {
        serde_json::from_slice(&fs::read(self.path(task)).ok()?).ok()
    }

    fn write(&self, task: &TaskId, marker: &Marker) -> Result<(), RebootError> {
        let path = self.path(task);
        let write = || {
            fs::create_dir_all(&self.0)?;
            let temporary = path.with_extension("json.tmp");
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(marker)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.0)?.sync_all()?;
            self.0.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
        };
        write().map_err(|source| RebootError::Marker { path: path.display().to_string(), source })
    }

    fn forget(&self, task: &TaskId) -> Result<(), RebootError> {
        let path = self.path(task);
        match fs::remove_file(&path).and_then(|()| File::open(&self.0)?.sync_all()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(RebootError::Marker { path: path.display().to_string(), source: e })
            }
            _ => Ok(()),
        }
    }
}

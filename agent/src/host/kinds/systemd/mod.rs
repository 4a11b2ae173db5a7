//! `systemd`: a unit, managed with `systemctl`, with the unit file and drop-ins that it ships.
//!
//! systemd reads its files again (daemon-reload) only when something was written or it reports that it needs to. A unit that runs
//! is restarted once when its own files changed, also if the agent was killed in between. Files that systemd cannot load are
//! rolled back, and what runs continues. Removal restores the state of a unit that was there before.

mod boot;
mod error;
mod shipped;
mod socket;
mod unit;
pub(crate) mod watch;

use std::time::Duration;

use groundplan_protocol::{
    effect::Effect,
    kinds::{Claim, OnChange, Systemd, UnitState},
    plan::OnRemove,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use self::{
    boot::{AtBoot, at_boot, disable},
    error::SystemdError,
    unit::{Mask, Unit, last_log_lines, show, systemctl, verify},
};
use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::error::HostError;

/// How long after its start a unit without a readiness probe is checked again: a plain service counts as started before its
/// program even runs.
const SETTLE: Duration = Duration::from_millis(100);

/// The task's memory: how it found the unit, and what it shipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    unit: String,
    /// Whether the task shipped the unit file.
    #[serde(default)]
    shipped: bool,
    /// The state of the unit before; `None` if there was no such unit.
    #[serde(default)]
    found: Option<Found>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    active: bool,
    enabled: bool,
    /// Masked in any way.
    masked: bool,
    /// Masked until the next boot only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    runtime_mask: bool,
}

impl Memory {
    /// The memory of `unit`, if there is one.
    fn of(cx: &Context<'_>, unit: &str) -> Option<Self> {
        cx.memory().and_then(|memory| Self::deserialize(memory).ok()).filter(|memory| memory.unit == unit)
    }

    /// Notes the state of the unit when the task first found it; on the disk, if the unit is about to be changed.
    async fn note(cx: &Context<'_>, name: &str, unit: &Unit, changes: bool) -> Result<(), SystemdError> {
        let known = Self::of(cx, name);
        let before = match known.clone() {
            Some(known) => known,
            None => Self { unit: name.to_owned(), shipped: false, found: Found::of(cx, unit).await? },
        };
        let memory = Self { shipped: cx.content.is_some(), ..before };
        match known.as_ref() != Some(&memory) {
            true if changes => cx.remember_first(&memory)?,
            true => cx.remember(&memory),
            false => {}
        }
        Ok(())
    }
}

impl Found {
    /// The state of a unit; `None` if there is no such unit.
    async fn of(cx: &Context<'_>, unit: &Unit) -> Result<Option<Self>, SystemdError> {
        if !unit.exists() {
            return Ok(None);
        }
        Ok(Some(Self {
            active: unit.is_up(),
            enabled: unit.is("UnitFileState", "enabled-runtime") || at_boot(cx, unit).await? == AtBoot::Enabled,
            masked: unit.is_masked(),
            runtime_mask: unit.mask() == Mask::Runtime,
        }))
    }
}

impl Kind for Systemd {
    fn whole_host(&self) -> bool {
        true
    }

    /// An agent that did not record what it shipped left files that cannot be distinguished from others.
    fn drifts(&self, cx: &Context<'_>) -> bool {
        cx.content.is_some() || !Memory::of(cx, &self.unit).is_some_and(|memory| memory.shipped)
    }

    async fn find(&self, cx: &Context<'_>) -> Result<(), HostError> {
        let ours = shipped::ours(&cx.host.environment.root, self)?;
        // Drop-ins that are there before any task has the unit were left by one that is gone: they are found like those of others.
        let claim = Claim::named("unit", &self.unit);
        let left = if cx.found(&claim).is_none() { &*ours } else { &[] };
        let dropins = self.dropins.keys().chain(left).map(|name| format!("{}/{name}", self.folder()));
        let paths: Vec<String> = cx.content.map(|_| self.path()).into_iter().chain(dropins).collect();
        let is_own = |path: &str, found: &crate::machine::Found| match path.strip_prefix(&format!("{}/", self.folder()))
        {
            Some(dropin) => ours.iter().any(|name| name == dropin),
            None => cx.own.may_be(found),
        };
        cx.note_files(&claim, &paths, is_own)
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let unit = show(cx, &self.unit).await?;
        // Note how the unit was found before anything changes: removal restores that.
        let shipped = Memory::of(cx, &self.unit).is_some_and(|memory| memory.shipped);
        let mut same = shipped::differences(cx, self, shipped)?.is_empty();
        if shipped::is_restart_pending(cx, &self.unit)? {
            same = false;
            cx.differs("restart", Some("done since its files changed"), Some("still pending"));
        }
        if cx.is_drift_check() {
            self.report_differences(cx, &unit).await?;
        }
        if !same {
            return Ok(Check::OutOfSync);
        }
        let in_sync = match (self.masked, self.is_template()) {
            (Some(true), _) => unit.mask() == Mask::Permanent && !unit.is_up(),
            (masked, true) => unit_is_read(&unit) && (masked.is_none() || !unit.is_masked()),
            (masked, false) => {
                unit.exists()
                    && unit_is_read(&unit)
                    && (masked.is_none() || !unit.is_masked())
                    && self.state_matches(&unit, cx)
                    && self.enabled_matches(cx, &unit).await?
            }
        };
        if in_sync {
            Memory::note(cx, &self.unit, &unit, false).await?;
        }
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let mut unit = show(cx, &self.unit).await?;
        // Note how the unit was found before anything changes: removal restores that.
        let shipped = Memory::of(cx, &self.unit).is_some_and(|memory| memory.shipped);
        Memory::note(cx, &self.unit, &unit, true).await?;
        if self.masked == Some(true) {
            return Ok(Applied { afresh: self.mask(cx, &unit).await? });
        }
        if unit.is_masked() {
            if self.masked.is_none() {
                return Err(SystemdError::Masked(self.unit.clone()).into());
            }
            unmask(cx, &unit).await?;
            unit = show(cx, &self.unit).await?;
        }
        let (unit, new_file) = self.ship(cx, unit, shipped).await?;
        if self.is_template() {
            return Ok(Applied { afresh: false });
        }
        boot::put(cx, self, &unit, new_file).await?;
        let afresh = self.run(cx, &unit).await?;
        shipped::clear_restart(cx, &self.unit)?;
        Ok(Applied { afresh })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let unit = match show(cx, &self.unit).await {
            // Without systemd, no unit runs.
            Err(SystemdError::NoSystemd) => return Ok(false),
            unit => unit?,
        };
        let memory = Memory::of(cx, &self.unit).unwrap_or_default();
        let found = memory.found.filter(|_| cx.on_remove == OnRemove::Restore).unwrap_or_default();
        let mut changed = false;
        if unit.is_up() && !found.active {
            systemctl(cx, &["stop", &self.unit]).await?;
            changed = true;
        }
        if !found.enabled && at_boot(cx, &unit).await? == AtBoot::Enabled {
            disable(cx, &unit).await?;
            changed = true;
        }
        if self.masked == Some(true) && unit.is_masked() && (!found.masked || found.runtime_mask) {
            unmask(cx, &unit).await?;
            changed = true;
        }
        // Noted before the files go, as in `ship`: if the agent is killed in between, nothing else shows that the unit runs with them.
        let pending = shipped::is_restart_pending(cx, &self.unit)?;
        if unit.is_up() && found.active {
            shipped::note_restart(cx, &self.unit)?;
        }
        let removed_files = shipped::remove(cx, self, memory.shipped)? || pending;
        if removed_files {
            systemctl(cx, &["daemon-reload"]).await?;
        }
        changed |= removed_files;
        changed |= self.restore_found(cx, &unit, &found, removed_files).await?;
        shipped::clear_restart(cx, &self.unit)?;
        Ok(changed)
    }

    async fn effect(&self, cx: &Context<'_>, effect: Effect) -> Result<bool, HostError> {
        if self.is_template() || self.state() == UnitState::Stopped {
            return Ok(false);
        }
        let unit = self.loaded(cx).await?;
        if self.state() == UnitState::Any && !unit.is_up() {
            return Ok(false);
        }
        if effect == Effect::Reload {
            self.reload(cx, &unit).await?;
        } else {
            self.start(cx, "restart").await?;
        }
        shipped::clear_restart(cx, &self.unit)?;
        Ok(true)
    }
}

/// Whether systemd has loaded what is on the disk.
fn unit_is_read(unit: &Unit) -> bool {
    !unit.is_stale()
}

/// Unmasks a unit for good: a mask in `/run` too.
async fn unmask(cx: &Context<'_>, unit: &Unit) -> Result<(), SystemdError> {
    if unit.mask() == Mask::Runtime {
        systemctl(cx, &["unmask", "--runtime", unit.name()]).await?;
        return Ok(());
    }
    systemctl(cx, &["unmask", unit.name()]).await?;
    // Below it there may have been one in `/run`.
    if show(cx, unit.name()).await?.mask() == Mask::Runtime {
        systemctl(cx, &["unmask", "--runtime", unit.name()]).await?;
    }
    Ok(())
}

trait Wanted {
    async fn report_differences(&self, cx: &Context<'_>, unit: &Unit) -> Result<(), SystemdError>;
    fn state_matches(&self, unit: &Unit, cx: &Context<'_>) -> bool;
    async fn enabled_matches(&self, cx: &Context<'_>, unit: &Unit) -> Result<bool, SystemdError>;
    async fn mask(&self, cx: &Context<'_>, unit: &Unit) -> Result<bool, SystemdError>;
    async fn ship(&self, cx: &Context<'_>, unit: Unit, shipped: bool) -> Result<(Unit, bool), HostError>;
    async fn run(&self, cx: &Context<'_>, unit: &Unit) -> Result<bool, SystemdError>;
    async fn start(&self, cx: &Context<'_>, verb: &str) -> Result<(), SystemdError>;
    async fn reload(&self, cx: &Context<'_>, unit: &Unit) -> Result<(), SystemdError>;
    async fn loaded(&self, cx: &Context<'_>) -> Result<Unit, SystemdError>;
    fn fault(&self, unit: &Unit) -> Option<SystemdError>;
    async fn restore_found(
        &self,
        cx: &Context<'_>,
        unit: &Unit,
        found: &Found,
        removed_files: bool,
    ) -> Result<bool, SystemdError>;
}

impl Wanted for Systemd {
    /// Notes how the unit differs, except for its files.
    async fn report_differences(&self, cx: &Context<'_>, unit: &Unit) -> Result<(), SystemdError> {
        let (name, active) = (&*self.unit, unit.get("ActiveState"));
        if self.masked == Some(true) {
            match unit.mask() {
                Mask::Permanent => {}
                Mask::Runtime => cx.differs("masked", Some("masked"), Some("masked until the next boot")),
                Mask::Unmasked => cx.differs("masked", Some("masked"), Some("not masked")),
            }
            if unit.is_up() {
                cx.differs("active", Some("inactive"), Some(active));
            }
            return Ok(());
        }
        if !self.is_template() && !unit.exists() {
            cx.differs(&format!("unit {name}"), Some("present"), None);
            return Ok(());
        }
        if !unit_is_read(unit) {
            cx.differs("loaded", Some("as on the disk"), Some("as before its files changed"));
        }
        if self.masked.is_some() && unit.is_masked() {
            cx.differs("masked", Some("not masked"), Some("masked"));
        }
        if self.is_template() {
            return Ok(());
        }
        if !self.state_matches(unit, cx) {
            let wanted = match self.state() {
                UnitState::Stopped => "inactive",
                _ if unit.ends_by_itself() => "not failed",
                _ => "active",
            };
            cx.differs("active", Some(wanted), Some(active));
        }
        if !self.enabled_matches(cx, unit).await? {
            let wanted = if self.enabled == Some(true) { "enabled" } else { "disabled" };
            cx.differs("enabled", Some(wanted), Some(unit.get("UnitFileState")));
        }
        Ok(())
    }

    fn state_matches(&self, unit: &Unit, cx: &Context<'_>) -> bool {
        match self.state() {
            UnitState::Started if unit.ends_by_itself() => !cx.is_new && !unit.has_failed() || unit.is_up(),
            UnitState::Started => unit.is_running(),
            UnitState::Stopped => !unit.is_up(),
            UnitState::Any => true,
        }
    }

    /// Whether it starts at boot as wanted.
    async fn enabled_matches(&self, cx: &Context<'_>, unit: &Unit) -> Result<bool, SystemdError> {
        match self.enabled {
            None => Ok(true),
            Some(wanted) => Ok(at_boot(cx, unit).await?.is(wanted)),
        }
    }

    /// Masks the unit; whether it was stopped for that.
    async fn mask(&self, cx: &Context<'_>, unit: &Unit) -> Result<bool, SystemdError> {
        let stop = unit.is_up();
        if stop {
            systemctl(cx, &["stop", &self.unit]).await?;
        }
        if unit.mask() != Mask::Permanent {
            systemctl(cx, &["mask", &self.unit]).await?;
        }
        Ok(stop)
    }

    /// Writes its files and has systemd load them; returns the unit as it is then, and whether its unit file is new.
    async fn ship(&self, cx: &Context<'_>, unit: Unit, shipped: bool) -> Result<(Unit, bool), HostError> {
        let differences = shipped::differences(cx, self, shipped)?;
        let wrote = !differences.is_empty();
        // Also one that goes: the links by which it is enabled lead to the file.
        let new_file = differences.iter().any(|difference| difference.is_of(&self.path()));
        let restart = wrote && unit.is_up() && self.on_change.unwrap_or_default() != OnChange::Nothing;
        // Noted before the files change: if the agent is killed between the change and the restart, the files are in sync when it
        // comes back, and only the note shows that the running unit is older than they are.
        let pending_before = shipped::is_restart_pending(cx, &self.unit)?;
        if restart && !unit.ends_by_itself() {
            shipped::note_restart(cx, &self.unit)?;
        }
        let before = shipped::write(cx, self, &differences)?;
        // Nothing changed and systemd has loaded the files: no reload, which would delay all units of the host.
        if !wrote && !unit.is_stale() && unit.exists() {
            return match self.fault(&unit) {
                None => Ok((unit, new_file)),
                Some(fault) => Err(fault.into()),
            };
        }
        systemctl(cx, &["daemon-reload"]).await?;
        let unit = show(cx, &self.unit).await?;
        let path = if cx.content.is_some() { self.path() } else { unit.get("FragmentPath").to_owned() };
        // `verify` also finds settings that systemd ignores with a warning; these go into the report.
        let words = if wrote && !path.is_empty() { verify(cx, &self.unit, &path).await } else { Vec::new() };
        let Some(fault) = self.fault(&unit).filter(|_| !self.is_template()) else {
            words.iter().for_each(|word| cx.report(word));
            return Ok((unit, new_file));
        };
        if !wrote {
            return Err(fault.into());
        }
        // The new files are unusable: roll back, so that the unit still starts at the next boot. A restart that was pending before
        // stays pending.
        shipped::restore(cx, self, before)?;
        if !pending_before {
            shipped::clear_restart(cx, &self.unit)?;
        }
        systemctl(cx, &["daemon-reload"]).await?;
        if !unit.exists() {
            return Err(fault.into());
        }
        let words = match words.is_empty() {
            true => unit.get("LoadError").to_owned(),
            false => words.join("; "),
        };
        Err(SystemdError::Refused { unit: self.unit.clone(), words }.into())
    }

    /// Starts, stops or restarts the unit if needed; whether it did.
    async fn run(&self, cx: &Context<'_>, unit: &Unit) -> Result<bool, SystemdError> {
        if self.state() == UnitState::Stopped && unit.is_up() {
            systemctl(cx, &["stop", &self.unit]).await?;
            return Ok(true);
        }
        if !self.state_matches(unit, cx) {
            self.start(cx, "start").await?;
            return Ok(true);
        }
        // A unit that is down reads its files when it is started.
        if !unit.is_up() || !shipped::is_restart_pending(cx, &self.unit)? {
            return Ok(false);
        }
        let reload = self.on_change == Some(OnChange::Reload);
        if reload {
            self.reload(cx, unit).await?;
        } else {
            self.start(cx, "restart").await?;
        }
        Ok(!reload)
    }

    /// Starts or restarts the unit, and checks that it still runs a moment later.
    async fn start(&self, cx: &Context<'_>, verb: &str) -> Result<(), SystemdError> {
        let unit = || self.unit.clone();
        // Starts before this one do not count: a commit that fixes a unit would else be refused by its start limit. It fails
        // where systemd has not loaded the unit, and then there is nothing to reset.
        let _ = systemctl(cx, &["reset-failed", &self.unit]).await;
        let started = if self.unit.ends_with(".socket") {
            socket::start(cx, &self.unit, verb).await
        } else {
            systemctl(cx, &[verb, &self.unit]).await.map(drop)
        };
        if let Err(error) = started {
            let last = last_log_lines(cx, &self.unit).await;
            return Err(SystemdError::NotStarted { unit: unit(), last, source: Box::new(error) });
        }
        // The readiness probe of the task waits longer and checks more.
        if cx.probed {
            return Ok(());
        }
        sleep(SETTLE).await;
        if show(cx, &self.unit).await?.has_failed() {
            return Err(SystemdError::Failed { unit: unit(), last: last_log_lines(cx, &self.unit).await });
        }
        Ok(())
    }

    /// Reloads the unit, or restarts it if it cannot reload. One that its reload ends is started: a signal that it does not
    /// handle ends a program, and systemd takes HUP for an end without a failure.
    async fn reload(&self, cx: &Context<'_>, before: &Unit) -> Result<(), SystemdError> {
        let reloaded = self.start(cx, "reload-or-restart").await;
        if cx.probed {
            sleep(SETTLE).await;
        }
        let mut now = show(cx, &self.unit).await?;
        let has_ended = !now.is_up() && !now.ends_by_itself();
        // A unit that still runs has refused to reload: what it has read before is better than nothing.
        reloaded.or_else(|error| if has_ended { Ok(()) } else { Err(error) })?;
        if has_ended {
            cx.report("its reload ended it; it was started again");
            self.start(cx, "start").await?;
            now = show(cx, &self.unit).await?;
        }
        // Each start has an id of its own (systemd.exec(5)).
        if now.get("InvocationID") != before.get("InvocationID") {
            cx.carried_out(Effect::Restart);
        }
        Ok(())
    }

    /// The unit, after systemd has loaded what is on the disk now.
    async fn loaded(&self, cx: &Context<'_>) -> Result<Unit, SystemdError> {
        let mut unit = show(cx, &self.unit).await?;
        if unit.is_stale() || !unit.exists() {
            systemctl(cx, &["daemon-reload"]).await?;
            unit = show(cx, &self.unit).await?;
        }
        match self.fault(&unit) {
            None => Ok(unit),
            Some(fault) => Err(fault),
        }
    }

    /// Why the unit cannot be started, if it cannot.
    fn fault(&self, unit: &Unit) -> Option<SystemdError> {
        let name = || self.unit.clone();
        match unit.get("LoadState") {
            "loaded" | "merged" => None,
            "not-found" | "" => Some(SystemdError::NoUnit(name())),
            "masked" => Some(SystemdError::Masked(name())),
            state => Some(SystemdError::NotLoaded { unit: name(), state: state.to_owned() }),
        }
    }

    /// Restores a unit that was there before to how it was found; whether anything was done.
    async fn restore_found(
        &self,
        cx: &Context<'_>,
        unit: &Unit,
        found: &Found,
        removed_files: bool,
    ) -> Result<bool, SystemdError> {
        let mut changed = false;
        if found.masked && self.masked.is_some() {
            let now = show(cx, &self.unit).await?;
            if !now.is_masked() {
                let words: &[&str] = if found.runtime_mask { &["mask", "--runtime"] } else { &["mask"] };
                systemctl(cx, &[words, &[&self.unit]].concat()).await?;
                changed = true;
            }
            return Ok(changed);
        }
        if !found.active && removed_files && unit.has_failed() {
            // A unit that does not exist any more is not to be listed as failed.
            let _ = systemctl(cx, &["reset-failed", &self.unit]).await;
        }
        let now = if found.active || found.enabled { show(cx, &self.unit).await? } else { return Ok(changed) };
        if self.fault(&now).is_some() {
            return Ok(changed);
        }
        if found.enabled && self.enabled == Some(false) && now.is("UnitFileState", "disabled") {
            systemctl(cx, &["enable", &self.unit]).await?;
            changed = true;
        } else if found.enabled && self.enabled == Some(true) && removed_files && now.is("UnitFileState", "enabled") {
            // The links by which it is enabled led to the task's file.
            systemctl(cx, &["reenable", &self.unit]).await?;
        }
        if found.active && (!now.is_up() || removed_files) {
            self.start(cx, "restart").await?;
            changed = true;
        }
        Ok(changed)
    }
}

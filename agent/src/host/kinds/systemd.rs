//! `systemd`: a unit, by `systemctl` (systemctl(1)).

use std::{collections::BTreeMap, time::Duration};

use groundplan_protocol::{
    ids::TaskId,
    kinds::{Systemd, UnitState},
    plan::Effect,
};
use tokio::time::sleep;

use super::{Applied, Check, Context, Hold, Kind, KindError};
use crate::host::{HostError, tool::ToolError};

/// How long after its start a unit that nothing probes is looked at again: a plain service counts as started before its
/// program even runs.
const SETTLE: Duration = Duration::from_millis(100);

/// Why a unit could not be brought about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SystemdError {
    #[error("this host has no systemctl and so no systemd; use `process` or `command` instead")]
    NoSystemd,
    #[error("there is no unit {0} on this host")]
    NoUnit(String),
    #[error("the unit {0} is masked; `systemctl unmask {0}` lets it be started")]
    Masked(String),
    #[error("the unit {unit} could not be loaded: {state}")]
    NotLoaded { unit: String, state: String },
    #[error("the unit {unit} failed right after its start; see `journalctl -u {unit}`")]
    Failed { unit: String },
    #[error(transparent)]
    Systemctl(ToolError),
}

impl KindError for SystemdError {}

/// A unit as systemd sees it.
#[derive(Debug, Default)]
struct Unit(BTreeMap<String, String>);

impl Kind for Systemd {
    fn hold(&self, _: &TaskId) -> Hold {
        Hold::Named("unit", self.unit.clone())
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let unit = show(cx, &self.unit).await?;
        let so = unit.exists() && !unit.is("NeedDaemonReload", "yes") && self.runs_as_it_should(&unit);
        Ok((so && self.is_enabled_as_it_should(&unit)).into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let unit = self.loaded(cx).await?;
        if !self.is_enabled_as_it_should(&unit) {
            systemctl(cx, &[if self.enabled == Some(true) { "enable" } else { "disable" }, &self.unit]).await?;
        }
        if self.runs_as_it_should(&unit) {
            return Ok(Applied { afresh: false });
        }
        if !self.should_run() {
            systemctl(cx, &["stop", &self.unit]).await?;
            return Ok(Applied { afresh: true });
        }
        systemctl(cx, &["start", &self.unit]).await?;
        self.settled(cx).await?;
        Ok(Applied { afresh: true })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let unit = match show(cx, &self.unit).await {
            // Where there is no systemd any more, no unit of it runs.
            Err(SystemdError::NoSystemd) => return Ok(false),
            unit => unit?,
        };
        let (stop, disable) = (unit.is_up(), unit.is("UnitFileState", "enabled"));
        if stop {
            systemctl(cx, &["stop", &self.unit]).await?;
        }
        if disable {
            systemctl(cx, &["disable", &self.unit]).await?;
        }
        Ok(stop || disable)
    }

    async fn effect(&self, cx: &Context<'_>, effect: Effect) -> Result<bool, HostError> {
        if !self.should_run() {
            return Ok(false);
        }
        self.loaded(cx).await?;
        let verb = if effect == Effect::Reload { "reload-or-restart" } else { "restart" };
        systemctl(cx, &[verb, &self.unit]).await?;
        self.settled(cx).await?;
        Ok(true)
    }
}

trait Wanted {
    fn should_run(&self) -> bool;
    fn runs_as_it_should(&self, unit: &Unit) -> bool;
    fn is_enabled_as_it_should(&self, unit: &Unit) -> bool;
    async fn loaded(&self, cx: &Context<'_>) -> Result<Unit, SystemdError>;
    async fn settled(&self, cx: &Context<'_>) -> Result<(), SystemdError>;
}

impl Wanted for Systemd {
    fn should_run(&self) -> bool {
        self.state.unwrap_or_default() == UnitState::Started
    }

    fn runs_as_it_should(&self, unit: &Unit) -> bool {
        match self.should_run() {
            true => unit.is("ActiveState", "active") || unit.is("ActiveState", "reloading"),
            false => !unit.is_up(),
        }
    }

    /// Whether it starts at boot as asked. Units such as static ones can be neither enabled nor disabled, and are so.
    fn is_enabled_as_it_should(&self, unit: &Unit) -> bool {
        match (self.enabled, unit.get("UnitFileState")) {
            (None, _) => true,
            (Some(wanted), "enabled") => wanted,
            (Some(wanted), "disabled" | "enabled-runtime" | "linked" | "linked-runtime") => !wanted,
            (Some(_), _) => true,
        }
    }

    /// The unit, once systemd has read what is on the disk now.
    async fn loaded(&self, cx: &Context<'_>) -> Result<Unit, SystemdError> {
        let mut unit = show(cx, &self.unit).await?;
        if unit.is("NeedDaemonReload", "yes") || !unit.exists() {
            systemctl(cx, &["daemon-reload"]).await?;
            unit = show(cx, &self.unit).await?;
        }
        let name = || self.unit.clone();
        match unit.get("LoadState") {
            "loaded" | "merged" => Ok(unit),
            "not-found" | "" => Err(SystemdError::NoUnit(name())),
            "masked" => Err(SystemdError::Masked(name())),
            state => Err(SystemdError::NotLoaded { unit: name(), state: state.to_owned() }),
        }
    }

    /// Looks whether it still runs a moment later.
    async fn settled(&self, cx: &Context<'_>) -> Result<(), SystemdError> {
        if cx.probed {
            return Ok(());
        }
        sleep(SETTLE).await;
        match show(cx, &self.unit).await?.is("ActiveState", "failed") {
            true => Err(SystemdError::Failed { unit: self.unit.clone() }),
            false => Ok(()),
        }
    }
}

impl Unit {
    fn parse(properties: &str) -> Self {
        let pairs = properties.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
    }

    fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }

    fn is(&self, property: &str, value: &str) -> bool {
        self.get(property) == value
    }

    fn exists(&self) -> bool {
        !matches!(self.get("LoadState"), "not-found" | "")
    }

    fn is_up(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading" | "activating" | "refreshing")
    }
}

async fn show(cx: &Context<'_>, unit: &str) -> Result<Unit, SystemdError> {
    let properties = "--property=LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload";
    let output = systemctl(cx, &["show", properties, unit]).await?;
    Ok(Unit::parse(&output))
}

async fn systemctl(cx: &Context<'_>, args: &[&str]) -> Result<String, SystemdError> {
    let words: Vec<&str> = ["systemctl", "--no-pager", "--no-ask-password"].iter().chain(args).copied().collect();
    cx.tool(&words).await.map_err(|error| match error.is_missing() {
        true => SystemdError::NoSystemd,
        false => SystemdError::Systemctl(error),
    })
}

//! The state of a unit in systemd, and the programs that show and change it (systemctl(1), systemd-analyze(1), journalctl(1)).

use std::collections::{BTreeMap, BTreeSet};

use super::error::SystemdError;
use crate::host::{
    kinds::context::Context,
    tool::{Answer, Tool},
};

/// The properties that are read of a unit (org.freedesktop.systemd1(5)).
const PROPERTIES: &str = "--property=Id,LoadState,LoadError,ActiveState,SubState,UnitFileState,NeedDaemonReload,Type,\
                          RemainAfterExit,FragmentPath,DropInPaths,SourcePath,WantedBy,RequiredBy,UpheldBy,Triggers,\
                          TriggeredBy,Accept,InvocationID,Result,NRestarts";

/// The properties of a unit, by name.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// The name that it was asked for by.
    pub(super) asked: String,
    properties: BTreeMap<String, String>,
}

/// How a unit is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mask {
    Unmasked,
    /// By a link in `/run`, which the next boot does not find.
    Runtime,
    Permanent,
}

impl Unit {
    fn parse(asked: &str, properties: &str) -> Self {
        let pairs = properties.lines().filter_map(|line| line.split_once('='));
        let properties = pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect();
        Self { asked: asked.to_owned(), properties }
    }

    pub(super) fn get(&self, property: &str) -> &str {
        self.properties.get(property).map_or("", String::as_str)
    }

    /// The names of units in a property.
    pub(super) fn names(&self, property: &str) -> Vec<String> {
        self.get(property).split_whitespace().map(str::to_owned).collect()
    }

    /// The name of its unit file, where the one that it was asked for by is an alias: systemctl(1) enables no alias.
    pub(super) fn name(&self) -> &str {
        Some(self.get("Id")).filter(|id| !id.is_empty()).unwrap_or(&self.asked)
    }

    pub(super) fn is(&self, property: &str, value: &str) -> bool {
        self.get(property) == value
    }

    pub(super) fn exists(&self) -> bool {
        !matches!(self.get("LoadState"), "not-found" | "")
    }

    pub(super) fn is_masked(&self) -> bool {
        self.mask() != Mask::Unmasked
    }

    pub(super) fn mask(&self) -> Mask {
        match (self.get("LoadState"), self.get("UnitFileState")) {
            (_, "masked-runtime") => Mask::Runtime,
            ("masked", _) | (_, "masked") => Mask::Permanent,
            _ => Mask::Unmasked,
        }
    }

    /// Whether it runs or is starting.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading" | "activating" | "refreshing")
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading" | "refreshing")
    }

    /// Whether it does its work and ends, so that having run is its final state.
    pub(super) fn ends_by_itself(&self) -> bool {
        self.is("Type", "oneshot") && !self.is("RemainAfterExit", "yes")
    }

    /// Whether it failed, or waits for a restart after a failure.
    pub(super) fn has_failed(&self) -> bool {
        self.is("ActiveState", "failed") || self.is("SubState", "auto-restart")
    }

    pub(super) fn is_stale(&self) -> bool {
        self.is("NeedDaemonReload", "yes")
    }
}

pub(super) async fn show(cx: &Context<'_>, unit: &str) -> Result<Unit, SystemdError> {
    if unit.contains("@.") {
        // systemd has no state for a template.
        return Ok(Unit::parse(unit, "LoadState=loaded"));
    }
    Ok(Unit::parse(unit, &systemctl(cx, &["show", PROPERTIES, unit]).await?))
}

/// Several units at once, none of them a template.
pub(super) async fn show_all(cx: &Context<'_>, units: &BTreeSet<String>) -> Result<Vec<Unit>, SystemdError> {
    let units: Vec<&str> = units.iter().map(String::as_str).filter(|unit| !unit.contains("@.")).collect();
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let shown = systemctl(cx, &[&["show", PROPERTIES], units.as_slice()].concat()).await?;
    // One block for each, in this order, with an empty line between two.
    Ok(units.iter().zip(shown.split("\n\n")).map(|(unit, block)| Unit::parse(unit, block)).collect())
}

pub(super) async fn systemctl(cx: &Context<'_>, args: &[&str]) -> Result<String, SystemdError> {
    let words: Vec<&str> = ["systemctl", "--no-pager", "--no-ask-password"].iter().chain(args).copied().collect();
    cx.tool(&words).await.map_err(|error| match error.is_missing() {
        true => SystemdError::NoSystemd,
        false => SystemdError::Systemctl(error),
    })
}

/// The faults that systemd-analyze(1) finds in a unit, in its own words; empty if it cannot be run.
pub(super) async fn verify(cx: &Context<'_>, unit: &str, path: &str) -> Vec<String> {
    let tool = Tool::new(&["systemd-analyze", "verify", "--man=no", path]);
    let Ok(Answer { out, err, .. }) = tool.ask(cx).await else { return Vec::new() };
    let lines = out.lines().chain(err.lines()).map(str::trim);
    // It also reports faults of units that this one pulls in.
    let own = |line: &&str| line.starts_with(path) || line.starts_with(unit) || line.contains(&format!("/{unit}.d/"));
    lines.filter(own).map(str::to_owned).collect()
}

/// The last lines that a unit wrote to the journal.
pub(super) async fn last_log_lines(cx: &Context<'_>, unit: &str) -> String {
    let tool =
        Tool::new(&["journalctl", "--quiet", "--no-pager", "--boot", "--output=cat", "--lines=5", "--unit", unit]);
    let lines = tool.run(cx).await.unwrap_or_default();
    lines.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

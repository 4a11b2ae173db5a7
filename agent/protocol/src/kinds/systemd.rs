//! `systemd`: a unit, by `systemctl`, with the unit file and drop-ins that it may ship.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    kind::{ContentSource, Kind},
    problem::Problem,
};
use crate::{effect::Effect, ids::TaskId};

/// A systemd unit. Its unit file and drop-ins may be shipped; once they change, systemd reads them again and the unit is restarted
/// if it runs. Removal removes them, stopping the unit first; a unit that was there before is restored to how it was found.
/// A unit template (`name@.service`) is only a file; its instances (`name@one.service`) are tasks of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Systemd {
    /// The unit's full name, such as `apache2.service` (systemd.unit(5)).
    pub unit: String,
    /// The unit file: a file below the service's folder, shipped as it is to `/etc/systemd/system`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The unit file: a template below the service's folder, rendered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The unit file itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Drop-ins by file name, such as `"10-limits.conf" = "[Service]\nLimitNOFILE=4096\n"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropins: BTreeMap<String, String>,
    /// Whether it starts at boot; left as it is if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether it runs; `started` if not given, `stopped` for one that is masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<UnitState>,
    /// Whether it is masked, so that nothing can start it; left as it is if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<bool>,
    /// What a changed unit file or drop-in does to the unit if it runs; `restart` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_change: Option<OnChange>,
}

/// Whether a unit runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnitState {
    /// It runs. A oneshot unit has run.
    #[default]
    Started,
    /// It does not run.
    Stopped,
    /// It may run or not, as a service that a timer starts.
    Any,
}

/// What a changed unit file or drop-in does to a unit that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    /// It is restarted.
    #[default]
    Restart,
    /// It is reloaded, or restarted if it cannot reload.
    Reload,
    /// It continues as it is until it is restarted for another reason.
    Nothing,
}

/// The folder for unit files and drop-ins of the host's operator (systemd.unit(5)).
const FOLDER: &str = "/etc/systemd/system";

const TYPES: [&str; 10] =
    ["service", "socket", "timer", "path", "mount", "automount", "target", "slice", "swap", "device"];

impl Systemd {
    /// Whether it ships its unit file; correct only before the content is split off.
    fn has_content(&self) -> bool {
        self.source.is_some() || self.template.is_some() || self.content.is_some()
    }

    /// Whether it is a template for units, not a unit itself.
    pub fn is_template(&self) -> bool {
        self.unit.rsplit_once('.').is_some_and(|(name, _)| name.ends_with('@'))
    }

    /// Whether it is to run.
    pub fn state(&self) -> UnitState {
        let masked = if self.masked == Some(true) { UnitState::Stopped } else { UnitState::Started };
        self.state.unwrap_or(masked)
    }

    /// The path of its unit file, if it ships one.
    pub fn path(&self) -> String {
        format!("{FOLDER}/{}", self.unit)
    }

    /// The folder of its drop-ins.
    pub fn folder(&self) -> String {
        format!("{FOLDER}/{}.d", self.unit)
    }
}

impl Kind for Systemd {
    const NAME: &'static str = "systemd";
    const SUMMARY: &'static str = "a systemd unit, enabled and started, with its unit file and drop-ins";
    const EFFECTS: &'static [Effect] = &[Effect::Restart, Effect::Reload];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let named = self.unit.rsplit_once('.').is_some_and(|(name, kind)| !name.is_empty() && TYPES.contains(&kind));
        let plain = self.unit.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c));
        if !named || !plain || self.unit.starts_with(['-', '.']) || self.unit.len() > 250 {
            problems.push(Problem::new(
                "unit",
                format!("`{}` is not the full name of a unit", self.unit.escape_default()),
                "give the name with its type, such as `apache2.service`",
            ));
        }
        let given = [("source", &self.source), ("template", &self.template), ("content", &self.content)];
        let mut given = given.into_iter().filter(|(_, value)| value.is_some());
        if let (Some((first, _)), Some((second, _))) = (given.next(), given.next()) {
            problems.push(Problem::new(
                second,
                format!("is given together with `{first}`"),
                "give only one of the two",
            ));
        }
        for name in self.dropins.keys() {
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.@".contains(c));
            if !plain || name.starts_with('.') || name.len() <= ".conf".len() || !name.ends_with(".conf") {
                let message = format!("has `{}`, which is not the file name of a drop-in", name.escape_default());
                problems.push(Problem::new("dropins", message, "give a name such as `10-limits.conf`"));
            }
        }
        let mut clash = |param, message: &str, hint: &str| problems.push(Problem::new(param, message, hint));
        if self.masked == Some(true) {
            let masked = "is given together with `masked = true`";
            if self.has_content() || !self.dropins.is_empty() {
                clash("masked", "keeps a unit from running that is shipped", "mask only units that others ship");
            }
            if self.enabled == Some(true) {
                clash("enabled", masked, "leave one of the two out");
            }
            if self.state == Some(UnitState::Started) {
                clash("state", masked, "leave one of the two out");
            }
        }
        if self.is_template() {
            let hint = "give it to a task for an instance, such as `name@one.service`";
            if self.enabled.is_some() {
                clash("enabled", "is given for a unit template", hint);
            }
            if self.state.is_some() {
                clash("state", "is given for a unit template", hint);
            }
            if self.masked.is_some() {
                clash("masked", "is given for a unit template", hint);
            }
        }
        problems
    }

    fn source(&self) -> Option<ContentSource<'_>> {
        let source = self.source.as_deref().map(ContentSource::File);
        let template = || self.template.as_deref().map(ContentSource::Template);
        source.or_else(template).or_else(|| self.content.as_deref().map(ContentSource::Inline))
    }

    fn drop_source(&mut self) {
        self.source = None;
        self.template = None;
        self.content = None;
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::named("unit", &self.unit), "unit"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(value: serde_json::Value) -> Vec<String> {
        let unit: Systemd = serde_json::from_value(value).unwrap();
        unit.problems().into_iter().map(|p| format!("{} {}", p.param, p.message)).collect()
    }

    #[test]
    fn units_are_named_in_full() {
        for good in ["a.service", "a@.service", "a@b-c\\x2d.timer", "dev-sda1.swap"] {
            assert!(problems(json!({ "unit": good })).is_empty(), "{good}");
        }
        for bad in ["a", ".service", "a.conf", "a b.service", "-a.service", "../a.service", "a/b.service"] {
            assert_eq!(problems(json!({ "unit": bad })).len(), 1, "{bad}");
        }
    }

    #[test]
    fn contradictions_are_reported() {
        let unit = "a.service";
        assert_eq!(
            problems(json!({ "unit": unit, "source": "a", "content": "b" })),
            ["content is given together with `source`"]
        );
        for bad in ["x", ".conf", "../x.conf", ".x.conf", "a/b.conf"] {
            assert_eq!(problems(json!({ "unit": unit, "dropins": { bad: "" } })).len(), 1, "{bad}");
        }
        let masked = json!({ "unit": unit, "masked": true, "enabled": true, "state": "started", "content": "" });
        assert_eq!(problems(masked).len(), 3);
        assert!(problems(json!({ "unit": unit, "masked": true, "state": "stopped" })).is_empty());
        assert_eq!(problems(json!({ "unit": "a@.service", "state": "started", "enabled": true })).len(), 2);
    }
}

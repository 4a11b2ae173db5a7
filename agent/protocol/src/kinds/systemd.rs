//! `systemd`: a unit, by `systemctl`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Kind, Problem};
use crate::plan::Effect;

/// A systemd unit. Removal stops and disables it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Systemd {
    /// The unit's full name, such as `apache2.service` (systemd.unit(5)).
    pub unit: String,
    /// Whether it starts at boot; left as it is if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether it runs; `started` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<UnitState>,
}

/// Whether a unit runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnitState {
    /// It runs.
    #[default]
    Started,
    /// It does not run.
    Stopped,
}

const TYPES: [&str; 10] =
    ["service", "socket", "timer", "path", "mount", "automount", "target", "slice", "swap", "device"];

impl Kind for Systemd {
    const NAME: &'static str = "systemd";
    const SUMMARY: &'static str = "a systemd unit, enabled and started";
    const EFFECTS: &'static [Effect] = &[Effect::Restart, Effect::Reload];

    fn problems(&self) -> Vec<Problem> {
        let named = self.unit.rsplit_once('.').is_some_and(|(name, kind)| !name.is_empty() && TYPES.contains(&kind));
        let plain = self.unit.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c));
        (!named || !plain || self.unit.starts_with('-'))
            .then(|| {
                Problem::new(
                    "unit",
                    format!("`{}` is not the full name of a unit", self.unit.escape_default()),
                    "give the name with its type, such as `apache2.service`",
                )
            })
            .into_iter()
            .collect()
    }
}

//! `reboot`: the host goes down and comes back, and the rollout continues.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{kind::Kind, problem::Problem, run::Run};
use crate::{duration::Span, effect::Effect};

/// How long a host may take to go down if no `timeout` is given.
const DEFAULT_TIMEOUT: Span = Span::secs(600);

/// A reboot of the host. It happens when the task is new or changed and when a trigger fires, unless a guard (`needed`,
/// `unless`, `only_if`) shows that there is nothing to do; never because the task is only checked again. All tasks that run on
/// the node end first, and tasks that come after this one continue once the host is back. Removal does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reboot {
    /// Only if the host needs one: `/run/reboot-required`, `needs-restarting -r` or
    /// `zypper needs-rebooting`. `false` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<bool>,
    /// Not if this exits with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<Run>,
    /// Only if this exits with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_if: Option<Run>,
    /// How long to wait before it, with nothing else running; not at all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// How long each guard may take, and then the host to go down; `10m` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

impl Reboot {
    /// How long the host may take to go down.
    pub fn timeout(&self) -> Span {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }
}

impl Kind for Reboot {
    const NAME: &'static str = "reboot";
    const SUMMARY: &'static str = "the host goes down and comes back, and the rollout continues";
    const EFFECTS: &'static [Effect] = &[Effect::Run];
    const LEAVES: bool = false;

    fn problems(&self) -> Vec<Problem> {
        let runs = [("unless", &self.unless), ("only_if", &self.only_if)];
        runs.into_iter().filter_map(|(param, run)| run.as_ref()?.problem(param)).collect()
    }

    fn drop_incidental(&mut self) {
        (self.delay, self.timeout) = (None, None);
    }
}

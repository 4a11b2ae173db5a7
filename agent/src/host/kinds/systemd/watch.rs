//! What systemd has of units that are to run, in the few words that the watch of units needs.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    error::SystemdError,
    unit::{Unit, show_all},
};
use crate::host::kinds::context::Context;

/// How a unit is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitHealth {
    /// Why it does not run as it should.
    pub(crate) fault: Option<String>,
    /// How often systemd has started it again because it ended by itself.
    pub(crate) restarts: u64,
}

/// All of these units, by name.
pub(crate) async fn unit_health(
    cx: &Context<'_>,
    units: &BTreeSet<String>,
) -> Result<BTreeMap<String, UnitHealth>, SystemdError> {
    let shown = show_all(cx, units).await?;
    let health = |unit: &Unit| UnitHealth { fault: fault(unit), restarts: unit.get("NRestarts").parse().unwrap_or(0) };
    Ok(units.iter().zip(&shown).map(|(name, unit)| (name.clone(), health(unit))).collect())
}

fn fault(unit: &Unit) -> Option<String> {
    let result = unit.get("Result");
    if unit.is("SubState", "auto-restart") {
        return Some(format!("the unit has ended ({result}), and systemd is about to start it again"));
    }
    if unit.has_failed() {
        return Some(format!("the unit has failed ({result})"));
    }
    // A unit that is on its way up or down is asked for again soon.
    let ended = unit.is("ActiveState", "inactive") && unit.exists() && !unit.ends_by_itself();
    ended.then(|| format!("the unit does not run: it is {} ({result})", unit.get("SubState")))
}

//! What systemd has of units that are to run, in the few words that the watch of units needs.

use std::collections::BTreeSet;

use super::{
    error::SystemdError,
    unit::{Unit, show_all},
};
use crate::host::kinds::context::Context;

/// How a unit is.
#[derive(Debug)]
pub(crate) struct UnitHealth {
    /// The name that it was asked for by.
    pub(crate) name: String,
    /// Why it does not run as it should.
    pub(crate) fault: Option<String>,
    /// How often systemd has started it again because it ended by itself.
    pub(crate) restarts: u64,
}

/// All of these units.
pub(crate) async fn unit_health(cx: &Context<'_>, units: &BTreeSet<String>) -> Result<Vec<UnitHealth>, SystemdError> {
    let health = |unit: Unit| {
        let (fault, restarts) = (fault(&unit), unit.get("NRestarts").parse().unwrap_or(0));
        UnitHealth { name: unit.asked, fault, restarts }
    };
    Ok(show_all(cx, units).await?.into_iter().map(health).collect())
}

fn fault(unit: &Unit) -> Option<String> {
    let result = unit.get("Result");
    let (what, state) = if unit.is("SubState", "auto-restart") {
        ("has ended, and systemd is about to start it again", "")
    } else if unit.has_failed() {
        ("has failed", "")
    } else if unit.is("ActiveState", "inactive") && unit.exists() && !unit.ends_by_itself() {
        ("does not run: it is ", unit.get("SubState"))
    } else {
        // One that is on its way up or down is asked for again soon.
        return None;
    };
    Some(["the unit ", what, state, " (", result, ")"].concat())
}

//! Whether a unit starts at boot, and how to change that (systemctl(1), `is-enabled` and `enable`).
//!
//! In: a unit as systemd shows it. Out: whether it is enabled, or why it can be neither enabled nor disabled. Units of SysV
//! scripts, and those whose [Install] section names only other units, count by what `systemctl enable` does for them.

use std::collections::BTreeSet;

use groundplan_protocol::kinds::Systemd;

use super::{
    error::{SystemdError, Unchangeable},
    unit::{Unit, show, show_all, systemctl},
};
use crate::host::{
    fs::files::{self, FileError},
    kinds::context::Context,
    tool::Tool,
};

/// Most that is read of a unit file, in bytes.
const MOST: u64 = 1 << 20;

/// Whether a unit starts at boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AtBoot {
    Enabled,
    Disabled,
    /// `systemctl enable` and `disable` change nothing about it.
    Fixed {
        /// The units that pull it in, by name; none if nothing starts it at boot.
        pulled_by: Vec<String>,
        why: Unchangeable,
    },
}

impl AtBoot {
    /// Whether the unit starts at boot, as far as units that pull it in decide that.
    pub(super) fn is(&self, wanted: bool) -> bool {
        match self {
            Self::Enabled => wanted,
            Self::Disabled => !wanted,
            Self::Fixed { pulled_by, .. } => wanted != pulled_by.is_empty(),
        }
    }
}

/// Whether the unit starts at boot.
pub(super) async fn at_boot(cx: &Context<'_>, unit: &Unit) -> Result<AtBoot, SystemdError> {
    let state = unit.get("UnitFileState");
    let why = match state {
        "enabled" => return Ok(AtBoot::Enabled),
        // Until the next boot only.
        "disabled" | "enabled-runtime" | "linked" | "linked-runtime" => return Ok(AtBoot::Disabled),
        "indirect" => return indirect(cx, unit).await,
        "generated" if unit.get("SourcePath").starts_with("/etc/init.d/") => return sysv(cx, unit).await,
        "generated" => Unchangeable::Generated { from: unit.get("SourcePath").to_owned() },
        "static" => Unchangeable::Static { triggers: unit.names("TriggeredBy") },
        state => Unchangeable::State(state.to_owned()),
    };
    let pulled_by = ["WantedBy", "RequiredBy", "UpheldBy"].into_iter().flat_map(|by| unit.names(by)).collect();
    Ok(AtBoot::Fixed { pulled_by, why })
}

/// A unit whose [Install] section names only other units: it is enabled if they are.
async fn indirect(cx: &Context<'_>, unit: &Unit) -> Result<AtBoot, SystemdError> {
    let also = also(cx, unit)?;
    let units = if also.is_empty() { Vec::new() } else { show_all(cx, &also).await? };
    // One that has no [Install] section itself follows no command.
    let mut states = units.iter().map(|unit| unit.get("UnitFileState")).filter(|state| *state != "static").peekable();
    let enabled = states.peek().is_some() && states.all(|state| state == "enabled");
    Ok(if enabled { AtBoot::Enabled } else { AtBoot::Disabled })
}

/// The units that `Also=` names (systemd.unit(5)).
fn also(cx: &Context<'_>, unit: &Unit) -> Result<BTreeSet<String>, SystemdError> {
    let mut also = BTreeSet::new();
    for path in std::iter::once(unit.get("FragmentPath")).chain(unit.get("DropInPaths").split_whitespace()) {
        if path.is_empty() {
            continue;
        }
        let bytes = files::read_file(&cx.host.environment.root, path, MOST)?.unwrap_or_default();
        also_of(&String::from_utf8_lossy(&bytes), &mut also);
    }
    Ok(also)
}

fn also_of(text: &str, also: &mut BTreeSet<String>) {
    let mut is_install = false;
    // A line that ends in a backslash goes on in the next.
    for line in text.replace("\\\n", " ").lines().map(str::trim) {
        if line.starts_with('[') {
            is_install = line == "[Install]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_install)
            && key.trim() == "Also"
        {
            if value.trim().is_empty() {
                also.clear();
            }
            // Specifiers are expanded by systemd alone.
            also.extend(value.split_whitespace().filter(|name| !name.contains('%')).map(str::to_owned));
        }
    }
}

/// A SysV script, whose links systemd leaves to the distribution's own program.
async fn sysv(cx: &Context<'_>, unit: &Unit) -> Result<AtBoot, SystemdError> {
    let tool = Tool::new(&["systemctl", "--no-pager", "is-enabled", unit.name()]);
    let answer = tool.ask(cx).await.map_err(SystemdError::Systemctl)?;
    let enabled = answer.out.lines().last().is_some_and(|state| state.trim() == "enabled");
    Ok(if enabled { AtBoot::Enabled } else { AtBoot::Disabled })
}

/// Has the unit start at boot, or not, as wanted; fails if that cannot be had. `afresh`: its [Install] section may have changed.
pub(super) async fn put(cx: &Context<'_>, wanted: &Systemd, unit: &Unit, afresh: bool) -> Result<(), SystemdError> {
    let Some(enabled) = wanted.enabled else { return Ok(()) };
    let name = || wanted.unit.clone();
    let now = at_boot(cx, unit).await?;
    match now {
        AtBoot::Enabled if enabled && afresh => _ = systemctl(cx, &["reenable", unit.name()]).await?,
        _ if now.is(enabled) => {}
        AtBoot::Fixed { why, .. } if enabled => return Err(SystemdError::CannotEnable { unit: name(), why }),
        AtBoot::Fixed { pulled_by, .. } => {
            return Err(SystemdError::CannotDisable { unit: name(), pulled_by: pulled_by.join(", ") });
        }
        _ if enabled => {
            systemctl(cx, &["enable", unit.name()]).await?;
            let after = show(cx, &wanted.unit).await?;
            if !at_boot(cx, &after).await?.is(true) {
                let why = Unchangeable::State(after.get("UnitFileState").to_owned());
                return Err(SystemdError::CannotEnable { unit: name(), why });
            }
        }
        _ => disable(cx, unit).await?,
    }
    Ok(())
}

/// Disables a unit. A unit file that is only linked into systemd's folder stays linked, although systemctl(1) removes the link.
pub(super) async fn disable(cx: &Context<'_>, unit: &Unit) -> Result<(), SystemdError> {
    let (root, path) = (&cx.host.environment.root, format!("/etc/systemd/system/{}", unit.name()));
    let linked = files::link_target(root, &path)?;
    systemctl(cx, &["disable", unit.name()]).await?;
    if let Some(target) = linked
        && !root.exists(&path).map_err(FileError::from)?
    {
        files::put_link(root, &path, &target)?;
        systemctl(cx, &["daemon-reload"]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_that_also_names() {
        let of = |texts: &[&str]| {
            let mut also = BTreeSet::new();
            texts.iter().for_each(|text| also_of(text, &mut also));
            also.into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            of(&["[Unit]\nAlso=x\n[Install]\nAlso=b.socket \\\n a.socket\n Also = c%i.path d.path\n"]),
            "a.socket b.socket d.path"
        );
        assert_eq!(of(&["[Install]\nAlso=a.socket\n", "[Install]\nAlso=\nAlso=b.socket\n"]), "b.socket");
        assert_eq!(of(&["[Service]\n"]), "");
    }
}

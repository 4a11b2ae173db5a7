//! Prevents Debian's packages from starting their services as they are installed.
//!
//! Maintainer scripts run `/usr/sbin/policy-rc.d` before they start anything (invoke-rc.d(8)). The guard installs one that forbids
//! it only if a variable is set in the environment, and otherwise runs the policy that was there. So a guard that a killed agent
//! left behind forbids nothing to other programs, and the next job removes it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

const POLICY: &str = "/usr/sbin/policy-rc.d";
const BEFORE: &str = "/usr/sbin/policy-rc.d.before-groundplan";
const NEW: &str = "/usr/sbin/policy-rc.d.groundplan-new";

/// The environment variable with which services are not started.
pub(super) const VARIABLE: (&str, &str) = ("GROUNDPLAN_START_SERVICES", "no");

const MARK: &str = "# Put here by groundplan while it installs packages; forbids nothing to anyone else.";

/// A guard that is in place until it is dropped.
pub(super) struct Guard(());

impl Guard {
    /// Puts the guard in place, after it has undone one that a killed agent left behind.
    pub(super) fn set() -> io::Result<Self> {
        restore()?;
        if fs::symlink_metadata(POLICY).is_ok() {
            let _ = fs::remove_file(BEFORE);
            fs::hard_link(POLICY, BEFORE)?;
        }
        let _ = fs::remove_file(NEW);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(NEW)?;
        file.write_all(script().as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        file.sync_all()?;
        fs::rename(NEW, POLICY)?;
        Ok(Self(()))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A guard that stays forbids nothing to others, and the next job tries again.
        let _ = restore();
    }
}

/// Restores the policy that was there before a guard, if one is in place.
pub(super) fn restore() -> io::Result<()> {
    let ours = fs::read(POLICY).is_ok_and(|text| String::from_utf8_lossy(&text).contains(MARK));
    match (ours, Path::new(BEFORE).symlink_metadata().is_ok()) {
        (true, true) => fs::rename(BEFORE, POLICY),
        (true, false) => fs::remove_file(POLICY),
        // The guard was removed by something else.
        (false, true) if fs::symlink_metadata(POLICY).is_err() => fs::rename(BEFORE, POLICY),
        // Interrupted before the guard was in place.
        (false, true) => fs::remove_file(BEFORE),
        (false, false) => Ok(()),
    }
}

fn script() -> String {
    let (name, value) = VARIABLE;
    format!(
        "#!/bin/sh\n{MARK}\n[ \"${name}\" = {value} ] && exit 101\n[ -x {BEFORE} ] && exec {BEFORE} \"$@\"\nexit 0\n"
    )
}

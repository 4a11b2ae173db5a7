//! Packages that were installed along with those that tasks name, because these need them.
//!
//! Which task brought one does not matter: where several need it, it goes with the last of them. So there is a note for each, of the
//! host and not of a task, which stays for as long as any task has packages. What was there before has no note, and stays.

use groundplan_protocol::kinds::Claim;

use super::{Task, error::PackageError};
use crate::machine::{Found, found};

impl Task<'_> {
    /// Notes that these were not there before.
    pub(super) fn note_along<'a>(&self, packages: impl Iterator<Item = &'a String>) -> Result<(), PackageError> {
        for key in packages.filter_map(|package| found::key(&claim(package))) {
            if self.cx().host.found.get(&key).is_none() {
                self.cx().host.found.put(&key, &Found::Absent)?;
                self.cx().keep_note(key, Some(Found::Absent));
            }
        }
        Ok(())
    }

    /// Whether it came along with a package that some task named.
    pub(super) fn came_along(&self, package: &str) -> bool {
        self.cx().found(&claim(package)).is_some()
    }

    /// Drops the notes of packages that are not there any more.
    pub(super) fn forget_along(&self, packages: &[&str]) {
        for key in packages.iter().filter_map(|package| found::key(&claim(package))) {
            if self.cx().host.found.forget(&key) {
                self.cx().keep_note(key, None);
            }
        }
    }
}

fn claim(package: &str) -> Claim<'_> {
    Claim::named(found::ALONG, package)
}

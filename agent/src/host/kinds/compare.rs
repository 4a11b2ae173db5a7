//! Comparing what a task wants with what is on the host, and noting what differs for a drift check.
//!
//! Never reported: passwords, keys, the values of environment variables, and the content of a file that only its owner may
//! read.

use groundplan_protocol::{
    blob::{Content, INLINE_LIMIT},
    drift::Difference,
};

use super::context::Context;
use crate::host::{
    differences::shorten,
    fs::{
        files::{self, Access, FileError, Found, Sum},
        users,
    },
};

impl Context<'_> {
    /// Whether this is a drift check: nothing will be applied, and all that differs is to be reported.
    pub(crate) fn is_drift_check(&self) -> bool {
        self.differences.is_some()
    }

    /// Notes one difference, in a drift check.
    pub(crate) fn differs(&self, what: &str, expected: Option<&str>, found: Option<&str>) {
        self.note(what, expected, found, None);
    }

    /// Whether `found` is `wanted`; notes the difference if it is not.
    pub(crate) fn same(&self, what: &str, wanted: &str, found: &str) -> bool {
        let same = wanted == found;
        if !same {
            self.differs(what, Some(wanted), Some(found).filter(|found| !found.is_empty()));
        }
        same
    }

    fn note(&self, what: &str, expected: Option<&str>, found: Option<&str>, content: Option<Content>) {
        let Some(differences) = &self.differences else { return };
        let [expected, found] = [expected, found].map(|text| text.map(shorten));
        let difference = Difference { what: shorten(what), expected, found, content };
        differences.lock().unwrap_or_else(|e| e.into_inner()).push(difference);
    }

    /// The differences noted so far.
    pub(in crate::host) fn into_differences(self) -> Vec<Difference> {
        let differences = self.differences.map(|noted| noted.into_inner().unwrap_or_else(|e| e.into_inner()));
        differences.unwrap_or_default().into_vec()
    }

    /// Whether `path` is a file with that content and access; notes what is not. With `named`, differences are noted with the
    /// path, for a task that has several files.
    pub(crate) fn is_file(&self, path: &str, sum: Sum, access: Access, named: bool) -> Result<bool, FileError> {
        let root = &self.host.environment.root;
        let in_sync = files::is_file(root, path, sum, access)?;
        if !in_sync && self.is_drift_check() {
            self.compare_file(path, Some(sum), access, named)?;
        }
        Ok(in_sync)
    }

    /// Whether `path` is a link to `target`; notes what it is instead.
    pub(crate) fn is_link(&self, path: &str, target: &str, named: bool) -> Result<bool, FileError> {
        let root = &self.host.environment.root;
        let in_sync = files::is_link(root, path, target)?;
        if !in_sync && self.is_drift_check() {
            let found = match files::link_target(root, path)? {
                Some(target) => Some(target),
                None => files::find(root, path, false)?.map(|found| found.thing.to_owned()),
            };
            let what = if named { format!("{path}: link") } else { "link".to_owned() };
            self.differs(&what, Some(target), found.as_deref());
        }
        Ok(in_sync)
    }

    /// Notes how the file at `path` differs, or the directory, where there is no `sum`.
    pub(crate) fn compare_file(
        &self,
        path: &str,
        sum: Option<Sum>,
        access: Access,
        named: bool,
    ) -> Result<(), FileError> {
        let what = |what: &str| if named { format!("{path}: {what}") } else { what.to_owned() };
        let thing = if sum.is_some() { "file" } else { "directory" };
        let found = match files::find(&self.host.environment.root, path, sum.is_none())? {
            None => {
                self.differs(&what(thing), Some("present"), None);
                return Ok(());
            }
            Some(found) => found,
        };
        let Found { thing: is, access: has, .. } = &found;
        if *is != thing {
            self.differs(&what(thing), Some("present"), Some(is));
            return Ok(());
        }
        if let Some(sum) = sum {
            // It may have been removed since.
            let Some(file) = files::open_file(&self.host.environment.root, path)? else { return Ok(()) };
            // Of the file that is read: in a directory of a user, another may be there by now.
            let opened = Access::of(path, &file)?;
            let is_private = is_private(access) || is_private(*has) || is_private(opened);
            let (now, bytes) = files::read_sum(path, file, if is_private { 0 } else { INLINE_LIMIT })?;
            // The planner can compare only what the task ships: what the kind itself generates, such as a drop-in, it does not have.
            let is_shipped = self.content.is_some_and(|shipped| shipped.sum == sum);
            if now != sum {
                let content = bytes.map_or_else(|| Content::Blob(now.into()), |bytes| Content::of(&bytes));
                let found = match (is_shipped, is_private) {
                    (true, true) => Some("something else, not reported: only its owner may read the file"),
                    (true, false) => None,
                    (false, _) => Some("something else"),
                };
                self.note(&what("content"), None, found, Some(content).filter(|_| is_shipped));
            }
        }
        let modes = [access, *has].map(|access| format!("{:04o}", access.mode.bits()));
        self.same(&what("mode"), &modes[0], &modes[1]);
        if access.uid != has.uid {
            let [wanted, is] = [access, *has].map(|access| users::user_name(access.uid));
            self.differs(&what("owner"), Some(&wanted), Some(&is));
        }
        if access.gid != has.gid {
            let [wanted, is] = [access, *has].map(|access| users::group_name(access.gid));
            self.differs(&what("group"), Some(&wanted), Some(&is));
        }
        Ok(())
    }

    /// Whether the content of the file at `path` is for its owner alone: then it is not reported.
    pub(crate) fn is_private(&self, path: &str) -> bool {
        matches!(files::find(&self.host.environment.root, path, false), Ok(Some(found)) if is_private(found.access))
    }
}

/// Whether neither the group nor others may read it.
pub(super) fn is_private(access: Access) -> bool {
    access.mode.bits() & 0o044 == 0
}

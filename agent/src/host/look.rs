//! Looking at a task that nobody applies: whether what was applied is still so, and if not, what differs and how.
//!
//! In: what the ledger holds of a task. Out: a [`CheckResult`]. It runs the check of the kind and nothing else: nothing is
//! changed, and what a check notes for its task is dropped. Differences are gathered by the kinds while they check, in
//! short words; a check before applying gathers none. Never told: passwords, keys, the values of environment variables, and
//! what stands in a file that only its owner may read.

use std::{sync::Mutex, time::Duration};

use groundplan_protocol::{
    blob::{Content as Told, INLINE_LIMIT},
    drift::{Difference, TEXT_LIMIT},
    ids::TaskId,
    plan::TaskSpec,
};
use serde_json::Value;
use tokio::time::timeout;

use crate::drift::CheckResult;

use super::{
    Host, HostError,
    files::{self, Access, FileError, Found, Sum},
    job::Cancel,
    kinds::{self, Check, Context, Shipped},
};

/// How long one task may be looked at: what hangs, as a file system that is gone, is told and holds up nothing else.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// Most differences that are told of one task.
const MOST: usize = 32;

/// What is gathered in a look.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    told: Vec<Difference>,
    more: usize,
}

impl Host {
    /// Checks an applied task without changing anything: `spec` and `memory` are what the ledger holds of it.
    pub async fn check(&self, task: &TaskId, spec: &TaskSpec, memory: Option<&Value>, cancel: &Cancel) -> CheckResult {
        match self.drift_of(task, spec, memory, cancel).await {
            Ok(result) => result,
            Err(error) => CheckResult::Failed(shorten(&crate::log::chain(&error))),
        }
    }

    async fn drift_of(
        &self,
        task: &TaskId,
        spec: &TaskSpec,
        memory: Option<&Value>,
        cancel: &Cancel,
    ) -> Result<CheckResult, HostError> {
        let _turn = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(HostError::Cancelled),
            turn = self.quiet.turn() => turn,
        };
        self.may_act(&spec.params)?;
        let mut cx = Context::new(self, task, cancel).with_memory(memory);
        cx.differences = Some(Mutex::default());
        let blob = spec.content.as_ref().and_then(Told::name);
        cx.content = blob.map(|blob| Shipped::named(Sum { digest: blob.sha256, size: blob.size }));
        if !kinds::drifts(&spec.params, &cx) {
            return Ok(CheckResult::LeftOut);
        }
        let check = timeout(LONGEST, kinds::check(&spec.params, &cx)).await.map_err(|_| HostError::LongLook)?;
        Ok(match check? {
            Check::InSync => CheckResult::InSync,
            Check::OutOfSync => CheckResult::Drifted(cx.into_differences()),
        })
    }
}

impl Differences {
    fn push(&mut self, difference: Difference) {
        if self.told.len() < MOST {
            self.told.push(difference);
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn into_told(mut self) -> Vec<Difference> {
        if self.more > 0 {
            let found = Some(format!("{} more differences", self.more));
            self.told.push(Difference { what: "and".to_owned(), expected: None, found, content: None });
        }
        self.told
    }
}

impl Context<'_> {
    /// Whether it is only looked at: nothing will be applied, and what differs is to be told.
    pub(crate) fn is_look(&self) -> bool {
        self.differences.is_some()
    }

    /// Tells one thing that differs, if it is looked at.
    pub(crate) fn differs(&self, what: &str, expected: Option<&str>, found: Option<&str>) {
        self.tell(what, expected, found, None);
    }

    /// Whether `found` is `wanted`; tells if it is not.
    pub(crate) fn same(&self, what: &str, wanted: &str, found: &str) -> bool {
        let same = wanted == found;
        if !same {
            self.differs(what, Some(wanted), Some(found).filter(|found| !found.is_empty()));
        }
        same
    }

    fn tell(&self, what: &str, expected: Option<&str>, found: Option<&str>, content: Option<Told>) {
        let Some(differences) = &self.differences else { return };
        let [expected, found] = [expected, found].map(|text| text.map(shorten));
        let difference = Difference { what: shorten(what), expected, found, content };
        differences.lock().unwrap_or_else(|e| e.into_inner()).push(difference);
    }

    /// Whether `path` is a file with that content and access; tells what is not. Where it is one of several files of its
    /// task it is told by its path.
    pub(crate) fn is_file(&self, path: &str, sum: Sum, access: Access, among: bool) -> Result<bool, FileError> {
        let root = &self.host.surroundings.root;
        let so = files::is_file(root, path, sum, access)?;
        if !so && self.is_look() {
            self.tell_file(path, Some(sum), access, among)?;
        }
        Ok(so)
    }

    /// Whether `path` is a link to `target`; tells what it is instead.
    pub(crate) fn is_link(&self, path: &str, target: &str, among: bool) -> Result<bool, FileError> {
        let root = &self.host.surroundings.root;
        let so = files::is_link(root, path, target)?;
        if !so && self.is_look() {
            let is = match files::link_target(root, path)? {
                Some(target) => Some(target),
                None => files::find(root, path, false)?.map(|found| found.thing.to_owned()),
            };
            let what = if among { format!("{path}: link") } else { "link".to_owned() };
            self.differs(&what, Some(target), is.as_deref());
        }
        Ok(so)
    }

    /// Tells how the file at `path` differs, or the directory, where there is no `sum`.
    pub(crate) fn tell_file(&self, path: &str, sum: Option<Sum>, access: Access, among: bool) -> Result<(), FileError> {
        let what = |what: &str| if among { format!("{path}: {what}") } else { what.to_owned() };
        let thing = if sum.is_some() { "file" } else { "directory" };
        let found = match files::find(&self.host.surroundings.root, path, sum.is_none())? {
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
            let Some(file) = files::open_file(&self.host.surroundings.root, path)? else { return Ok(()) };
            let is_private = is_private(access) || is_private(*has);
            let (now, bytes) = files::read_sum(path, file, if is_private { 0 } else { INLINE_LIMIT })?;
            // What a kind wrote itself, as a drop-in, nobody could compare with what is told.
            let is_shipped = self.content.is_some_and(|shipped| shipped.sum == sum);
            if now != sum {
                let content = bytes.map_or_else(|| Told::Blob(now.into()), |bytes| Told::of(&bytes));
                let found = match (is_shipped, is_private) {
                    (true, true) => Some("something else, not told: only its owner may read the file"),
                    (true, false) => None,
                    (false, _) => Some("something else"),
                };
                self.tell(&what("content"), None, found, Some(content).filter(|_| is_shipped));
            }
        }
        let modes = [access, *has].map(|access| format!("{:04o}", access.mode.bits()));
        self.same(&what("mode"), &modes[0], &modes[1]);
        if access.uid != has.uid {
            let [wanted, is] = [access, *has].map(|access| super::users::user_name(access.uid));
            self.differs(&what("owner"), Some(&wanted), Some(&is));
        }
        if access.gid != has.gid {
            let [wanted, is] = [access, *has].map(|access| super::users::group_name(access.gid));
            self.differs(&what("group"), Some(&wanted), Some(&is));
        }
        Ok(())
    }

    /// Whether what stands in the file at `path` is for its owner alone: then it is not told.
    pub(crate) fn is_private(&self, path: &str) -> bool {
        matches!(files::find(&self.host.surroundings.root, path, false), Ok(Some(found)) if is_private(found.access))
    }

    fn into_differences(self) -> Vec<Difference> {
        let differences = self.differences.map(|told| told.into_inner().unwrap_or_else(|e| e.into_inner()));
        differences.unwrap_or_default().into_told()
    }
}

/// Whether neither its group nor others may read it.
fn is_private(access: Access) -> bool {
    access.mode.bits() & 0o044 == 0
}

/// As much as a difference holds.
fn shorten(text: &str) -> String {
    if text.len() <= TEXT_LIMIT {
        return text.to_owned();
    }
    const MARK: &str = " …";
    let end = (0..=TEXT_LIMIT - MARK.len()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_bounded() {
        assert_eq!(shorten("short"), "short");
        let long = shorten(&"ä".repeat(TEXT_LIMIT));
        assert!(long.len() <= TEXT_LIMIT && long.ends_with("ä …"), "{}", long.len());
        let mut differences = Differences::default();
        let one = Difference { what: "mode".to_owned(), expected: None, found: None, content: None };
        (0..MOST + 3).for_each(|_| differences.push(one.clone()));
        let told = differences.into_told();
        assert_eq!((told.len(), told[MOST].found.as_deref()), (MOST + 1, Some("3 more differences")));
    }
}

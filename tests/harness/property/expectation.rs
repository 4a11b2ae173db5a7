//! What is to be on a host that has lived through all commits, by four rules:
//!
//! 1. What a task of the commit owns is as on a fresh host that was brought to the same commit.
//! 2. What no task owns is as it was before the first task, or as `on_remove = "keep"` or `"delete"` left it: recorded by claim at that
//!    removal. Where a task takes over what was so left, only what its parameters decide is compared by rule 1.
//! 3. What no task ever owned was not even written.
//! 4. While tasks fail, what they and the tasks that they block own, or are to give up, is not compared; everything else is.
//!
//! In: sites and fingerprints. Out: differences, each in one line. Pure.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{ids::TaskId, plan::OnRemove};

use super::{
    fingerprint::{Fingerprint, IDENTITY},
    site::{Owner, Site},
    things::Thing,
};

/// What is expected of a host.
pub(crate) struct Expectation {
    /// The host before the first task.
    first: Fingerprint,
    /// What is to be there of what no task owns.
    base: BTreeMap<String, String>,
    /// Claims of which something was left, or of which nothing was brought back.
    left: BTreeSet<String>,
    /// Claims of which not even that is known.
    unknown: BTreeSet<String>,
    /// All that was ever claimed, and all files that were shared.
    ever: BTreeSet<String>,
    /// Claims that were a link since a task took them: what replaces the link has no ACL and no attributes to keep.
    linked: BTreeSet<String>,
    /// What each task may have on the host: more than it declares, as long as it has not succeeded.
    may_have: BTreeMap<TaskId, BTreeSet<String>>,
}

impl Expectation {
    pub(crate) fn new(first: Fingerprint) -> Self {
        let base = first.all.clone();
        let [left, unknown, ever, linked] = [const { BTreeSet::new() }; 4];
        Self { first, base, left, unknown, ever, linked, may_have: BTreeMap::new() }
    }

    /// A site is about to be deployed. `last`: the host before that.
    pub(crate) fn deploy(&mut self, before: &Site, after: &Site, last: &Fingerprint) {
        let things = after.things();
        for (claim, owner, on_remove) in before.given_up(after) {
            self.linked.remove(&claim);
            // What is named after its task, such as an entry of cron, goes in any case when the task is renamed.
            let is_renamed = things.contains(&owner.thing) && matches!(owner.thing, Thing::Cron(_) | Thing::Sysctl(_));
            if is_renamed {
                // Also what an earlier removal had left under the name, and the task took up again when it came back.
                if claim.starts_with("path") && self.left.remove(&claim) {
                    let first = self.first.all.get(&claim).cloned();
                    set(&mut self.base, &claim, first);
                }
            } else if on_remove != OnRemove::Restore {
                self.leave(&claim, &owner, on_remove, last);
            }
        }
        for (claim, owner) in after.owners() {
            self.ever.extend(owner.thing.shared_file().map(|file| format!("path {file}")));
            self.ever.insert(claim.clone());
            if owner.identity == "link" {
                self.linked.insert(claim.clone());
            }
            self.may_have.entry(owner.task).or_default().insert(claim);
        }
    }

    /// Records what a removal leaves of a claim.
    fn leave(&mut self, claim: &str, owner: &Owner, on_remove: OnRemove, last: &Fingerprint) {
        let keys: BTreeSet<String> =
            self.base.keys().chain(last.all.keys()).filter(|key| is_of(key, claim)).cloned().collect();
        let was_left = !self.left.insert(claim.to_owned());
        for key in keys {
            let stays = match (on_remove, owner.thing) {
                (OnRemove::Keep, _) => true,
                // The kernel has no other value; a directory that was there has others' files in it.
                (_, Thing::Sysctl(_)) => key.starts_with("sysctl"),
                (_, Thing::Folder(_)) => self.base.contains_key(&key) && !key.ends_with("/c0") && !key.ends_with("/c1"),
                _ => false,
            };
            let comes_back = match owner.thing {
                // What is not the task's is not removed.
                Thing::Archive(_) => true,
                Thing::Mount(_) => key.starts_with("path"),
                // It has a name in any case; another package needs this one.
                Thing::Hostname | Thing::Package(2) => true,
                Thing::Line(..) => matches!(owner.form, 1 | 2),
                _ => false,
            };
            if stays {
                set(&mut self.base, &key, last.all.get(&key).cloned());
            } else if owner.thing == Thing::Mount(2) && key.starts_with("path") {
                // The directory below the file system that was mounted there before the task.
                set(&mut self.base, &key, Some(BELOW_MOUNT.to_owned()));
            } else if !comes_back {
                let absent = key.starts_with("unit").then(|| ABSENT_UNIT.to_owned());
                set(&mut self.base, &key, absent);
            }
        }
        if was_left && on_remove == OnRemove::Delete && !owner.thing.decides_all() {
            self.unknown.insert(claim.to_owned());
        }
    }

    /// All differences. `unsettled`: tasks that did not succeed, on either host.
    pub(crate) fn differences(
        &mut self,
        site: &Site,
        unsettled: &BTreeSet<TaskId>,
        lived: &Fingerprint,
        fresh: &Fingerprint,
    ) -> Vec<String> {
        let owners = site.owners();
        self.settle(&owners, unsettled);
        let open: BTreeSet<String> = self
            .may_have
            .iter()
            .filter(|(task, _)| unsettled.contains(task))
            .flat_map(|(_, claims)| claims.clone())
            .collect();
        let files = Files::of(&owners, &open, &self.left);
        let keys: BTreeSet<&String> = lived.all.keys().chain(fresh.all.keys()).chain(self.base.keys()).collect();
        let mut found = Vec::new();
        for key in keys {
            let [is, other, was] = [&lived.all, &fresh.all, &self.base].map(|all| all.get(key).map(String::as_str));
            let mut differ = |rule: &str, is: Option<&str>, wanted: Option<&str>| {
                if is != wanted {
                    let text = |value: Option<&str>| value.unwrap_or("nothing").to_owned();
                    found.push(format!("{key}: {rule}\n    expected {}\n    found    {}", text(wanted), text(is)));
                }
            };
            if lookup(&open, key).is_some() || lookup(&self.unknown, key).is_some() {
                continue;
            }
            // What a name stood for before a task took it is there to be restored, and has no name meanwhile. So too what a removal left.
            if key == UNNAMED_IMAGE && self.left.iter().any(|claim| claim.starts_with("image ")) {
                continue;
            }
            let owner = owner(&owners, key);
            let is_left = lookup(&self.left, key).is_some();
            if owner.is_none() && !IDENTITY.contains(&key.as_str()) && files.shared(key).is_none() {
                let was = self.first.all.get(key).map(String::as_str);
                differ("a fresh host, where no task owns it", other, was);
            }
            match (owner, files.shared(key)) {
                (_, Some((shared, kind))) => match (shared, kind) {
                    (Shared::Open, _) | (Shared::Edited | Shared::Left, "bytes") => {}
                    (Shared::Edited, _) => differ("edited by tasks", is, other),
                    (Shared::Left, "rest") => {
                        differ("the rest of a file", Some(is.unwrap_or("")), Some(was.unwrap_or("")))
                    }
                    (Shared::Left, _) => {}
                },
                (Some(owner), None) if self.linked.contains(key) && owner.identity != "link" => {}
                (Some(owner), None) if is_left => {
                    if owner.thing.decides_all() {
                        // What was deleted has no ACL any more. Of one, the group's digit of the mode is the mask: it says nothing then.
                        let has_acl = |text: Option<&str>| text.is_some_and(|text| text.contains(ACL));
                        let masked = has_acl(is) != has_acl(other);
                        let [is, other] = [is, other].map(|text| text.map(|text| without_attributes(text, masked)));
                        differ("owned, and left behind before", is.as_deref(), other.as_deref());
                    }
                }
                (Some(owner), None) => differ(&format!("owned by {}", owner.task), is, other),
                (None, None) => differ(if is_left { "left by a removal" } else { "not owned" }, is, was),
            }
        }
        self.written(lived, &mut found);
        found
    }

    /// Which tasks have succeeded: they have what they declare, and no more.
    fn settle(&mut self, owners: &BTreeMap<String, Owner>, unsettled: &BTreeSet<TaskId>) {
        self.may_have.retain(|task, _| unsettled.contains(task));
        for (claim, owner) in owners {
            self.may_have.entry(owner.task.clone()).or_default().insert(claim.clone());
        }
    }

    /// What no task ever owned was not written.
    fn written(&self, lived: &Fingerprint, found: &mut Vec<String>) {
        for (key, before) in &self.first.written {
            let after = lived.written.get(key);
            if lookup(&self.ever, key).is_none() && after.is_some_and(|after| after != before) {
                found.push(format!("{key}: written, although no task ever owned it"));
            }
        }
    }
}

/// What a unit that systemd does not know is, as [`super::PRINTS`] prints it.
pub(crate) const ABSENT_UNIT: &str = "not-found inactive ";

/// The images without a name, as [`super::PRINTS`] prints them.
const UNNAMED_IMAGE: &str = "image <none>:<none>";

/// The directory on which something was mounted before the first task.
const BELOW_MOUNT: &str = "directory 755 root:root";

/// How a file with parts of several tasks is compared.
#[derive(Clone, Copy)]
enum Shared {
    /// A task that has not succeeded may have something in it.
    Open,
    /// Something was left in it.
    Left,
    /// Tasks have parts in it.
    Edited,
}

/// The files with parts of several tasks that are not simply as they were.
struct Files(BTreeMap<String, Shared>);

impl Files {
    fn of(owners: &BTreeMap<String, Owner>, open: &BTreeSet<String>, left: &BTreeSet<String>) -> Self {
        let file = |claim: &str| {
            claim.strip_prefix("part ").and_then(|rest| rest.rsplit_once(' ')).map(|(file, _)| file.to_owned())
        };
        let mut files = BTreeMap::new();
        // The later ones count.
        files.extend(owners.keys().filter_map(|claim| file(claim)).map(|file| (file, Shared::Edited)));
        files.extend(left.iter().filter_map(|claim| file(claim)).map(|file| (file, Shared::Left)));
        files.extend(open.iter().filter_map(|claim| file(claim)).map(|file| (file, Shared::Open)));
        Self(files)
    }

    /// How the key is compared, if it is about such a file as a whole.
    fn shared<'k>(&self, key: &'k str) -> Option<(Shared, &'k str)> {
        let (kind, file) = key.split_once(' ').filter(|(kind, _)| matches!(*kind, "path" | "rest" | "bytes"))?;
        self.0.get(file).map(|shared| (*shared, kind))
    }
}

fn set(map: &mut BTreeMap<String, String>, key: &str, value: Option<String>) {
    match value {
        Some(value) => _ = map.insert(key.to_owned(), value),
        None => _ = map.remove(key),
    }
}

/// The attribute that holds an ACL.
const ACL: &str = " system.posix_acl_access";

/// A print of a path without its attributes; `masked` also hides the group's digit of the mode, as in `file 7-0 root:root`.
fn without_attributes(text: &str, masked: bool) -> String {
    let end = ["user.", "system.", "security."].iter().filter_map(|name| text.find(&format!(" {name}"))).min();
    let text = &text[..end.unwrap_or(text.len())];
    let fields = text.split_once(' ').and_then(|(kind, rest)| Some((kind, rest.split_once(' ')?)));
    match fields {
        Some((kind, (mode, rest))) if masked && mode.len() == 3 => {
            format!("{kind} {}-{} {rest}", &mode[..1], &mode[2..])
        }
        _ => text.to_owned(),
    }
}

/// Whether a key is one that the claim means.
fn is_of(key: &str, claim: &str) -> bool {
    match claim.strip_suffix("/**") {
        Some(above) => key.strip_prefix(above).is_some_and(|rest| rest.starts_with('/')),
        None => key == claim,
    }
}

/// The claim that means the key, if there is one.
fn lookup<'a>(claims: &'a BTreeSet<String>, key: &str) -> Option<&'a String> {
    candidates(key).find_map(|claim| claims.get(&claim))
}

/// The owner of what a key is about.
pub(super) fn owner<'a>(owners: &'a BTreeMap<String, Owner>, key: &str) -> Option<&'a Owner> {
    candidates(key).find_map(|claim| owners.get(&claim))
}

/// The claims that would mean the key: itself, and all below each directory above it.
fn candidates(key: &str) -> impl Iterator<Item = String> {
    let above =
        key.starts_with("path ").then(|| key.match_indices('/').map(move |(at, _)| format!("{}/**", &key[..at])));
    [key.to_owned()].into_iter().chain(above.into_iter().flatten())
}

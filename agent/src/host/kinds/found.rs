//! Notes in the course of a job: made before its first change, and settled when a task gives a claim up.
//!
//! In: the parameters of a job's task. Out: a note for each of its claims that has none, and, at a removal, what the note says.

use std::collections::BTreeMap;

use groundplan_protocol::{
    kinds::{Claim, TaskParams},
    plan::OnRemove,
};

use super::{context::Context, dispatch, kind::blocking};
use crate::{
    host::{
        error::HostError,
        fs::files::{self, Removal, Sum},
    },
    machine::{Found, found},
};

impl Context<'_> {
    /// The note of a claim, which may have been made under another name of what is claimed.
    pub(crate) fn found(&self, claim: &Claim<'_>) -> Option<Found> {
        let noted = |claim: &Claim<'_>| self.host.found.get(&found::key(claim)?);
        let stated = noted(claim);
        if stated.as_ref().is_some_and(|found| *found != Found::Unknown) {
            return stated;
        }
        self.host.claims.other_names(claim).iter().find_map(noted).or(stated)
    }

    /// Whether what is there now is to be noted: the claim has no note, or nothing but that it is not known.
    pub(crate) fn is_unnoted(&self, claim: &Claim<'_>) -> bool {
        matches!(self.found(claim), None | Some(Found::Unknown))
    }

    /// Notes what is there, in place of no note or of one that it is not known.
    pub(crate) fn note_found(&self, claim: &Claim<'_>, found: Found) -> Result<(), HostError> {
        let Some(key) = found::key(claim) else { return Ok(()) };
        if self.host.found.get(&key) == Some(Found::Unknown) && self.own.may_be(&found) {
            self.host.found.pass_over(&found);
            return Ok(());
        }
        self.host.found.put(&key, &found)?;
        self.keep_note(key, Some(found));
        Ok(())
    }

    /// Notes that the task makes something that others may have parts in: it was not there before the first of them.
    pub(crate) fn note_made(&self, claim: &Claim<'_>) -> Result<(), HostError> {
        if self.is_unnoted(claim) { self.note_found(claim, Found::Absent) } else { Ok(()) }
    }

    /// Whether a task made it, and it was not there before.
    pub(crate) fn is_made(&self, claim: &Claim<'_>) -> bool {
        self.found(claim) == Some(Found::Absent)
    }

    /// Notes the last line of a file, which gets its line break now: whichever task edits the file last takes that away again.
    pub(crate) fn note_unended(&self, path: &str, last: Option<&String>) -> Result<(), HostError> {
        let claim = Claim::edited(path);
        match last {
            Some(last) if self.is_unnoted(&claim) => self.note_found(&claim, Found::Unended { last: last.clone() }),
            _ => Ok(()),
        }
    }

    /// The last line of a file that had no line break before the first task edited it.
    pub(crate) fn unended(&self, path: &str) -> Option<String> {
        match self.found(&Claim::edited(path))? {
            Found::Unended { last } => Some(last),
            _ => None,
        }
    }

    /// Whether nothing is left in a file that tasks made and edit together, so that it goes; `is_own`: whether this task made it.
    pub(crate) fn is_used_up(&self, path: &str, text: &str, is_own: bool) -> bool {
        let claim = Claim::edited(path);
        let is_made = text.trim().is_empty() && (is_own || self.is_made(&claim));
        // An empty line may be what another task wants.
        is_made && (text.is_empty() || self.held_by_another(&claim).is_none())
    }

    /// What was at each path of the unit or the like that `claim` names; none where that is not known.
    pub(crate) fn found_files(&self, claim: &Claim<'_>, path: &str) -> Option<Found> {
        match self.found(claim)? {
            Found::Files { mut files } => files.remove(path),
            _ => None,
        }
    }

    /// Whether a file has the content that it had before any task had what `claim` names.
    pub(crate) fn is_as_found(&self, claim: &Claim<'_>, path: &str) -> bool {
        let Some(Found::File { sha256, .. }) = self.found_files(claim, path) else { return false };
        let now = files::open_file(&self.host.environment.root, path);
        matches!(now, Ok(Some(file)) if Sum::of(&file).is_ok_and(|now| now.digest == sha256))
    }

    /// Adds what is at these paths to the note of a claim, where it has nothing of them. `is_own`: whether what is found may be the task's
    /// own, where it is not known whether the task has been there before.
    pub(crate) fn note_files(
        &self,
        claim: &Claim<'_>,
        paths: &[String],
        is_own: impl Fn(&str, &Found) -> bool,
    ) -> Result<(), HostError> {
        let Some(key) = found::key(claim) else { return Ok(()) };
        let noted = self.found(claim);
        let is_unknown = noted == Some(Found::Unknown);
        let (mut files, mut is_new) = match noted {
            None | Some(Found::Unknown) => (BTreeMap::new(), true),
            Some(Found::Files { files }) => (files, false),
            // Which of the files are the task's own is not known.
            Some(_) => return Ok(()),
        };
        for path in paths {
            if !files.contains_key(path) {
                let found = self.host.found.find(&self.host.environment.root, path, false, self.on_remove)?;
                let found = if is_unknown && is_own(path, &found) {
                    self.host.found.pass_over(&found);
                    Found::Unknown
                } else {
                    found
                };
                files.insert(path.clone(), found);
                is_new = true;
            }
        }
        if is_new {
            let found = Found::Files { files };
            self.host.found.put(&key, &found)?;
            self.keep_note(key, Some(found));
        }
        Ok(())
    }

    /// Takes a file of the task's away: what was there before comes back, unless the removal is to bring nothing back.
    pub(crate) fn take_away(
        &self,
        path: &str,
        found: Option<&Found>,
        remove: impl FnOnce() -> Result<Removal, HostError>,
    ) -> Result<Removal, HostError> {
        match found {
            Some(Found::Absent | Found::Unrecorded) | None => remove(),
            Some(_) if self.on_remove == OnRemove::Delete => remove(),
            Some(found) => self.host.found.restore(&self.host.environment.root, path, found),
        }
    }
}

/// Notes what is there of all that a task claims, before anything of it is changed.
pub(crate) async fn note(params: &TaskParams, cx: &Context<'_>) -> Result<(), HostError> {
    for path in paths(params, cx) {
        let claim = Claim::path(&path);
        if !cx.is_unnoted(&claim) {
            continue;
        }
        let (host, follow) = (cx.host, matches!(params, TaskParams::Directory(_)));
        let (store, root, on_remove, at) =
            (host.found.clone(), host.environment.root.clone(), cx.on_remove, path.clone());
        // What is there may be of any size. Mostly nothing is there, which needs no other thread.
        let found = match root.exists(&path) {
            Ok(false) => Found::Absent,
            _ => blocking(move || store.find(&root, &at, follow, on_remove)).await??,
        };
        cx.note_found(&claim, found)?;
    }
    dispatch::find(params, cx).await
}

/// Removes a task's work from its host, as its `on_remove` states; whether anything was changed.
pub(crate) async fn remove(params: &TaskParams, cx: &Context<'_>) -> Result<bool, HostError> {
    if cx.on_remove == OnRemove::Keep && params.leaves_something() && !is_handed_over(params, cx) {
        cx.report("left in place: `on_remove` is `keep`");
        return Ok(false);
    }
    if is_untouched(params, cx) {
        cx.report("nothing to take away: this task has changed nothing here");
        return Ok(false);
    }
    let [path] = &*paths(params, cx) else { return dispatch::remove(params, cx).await };
    match cx.found(&Claim::path(path)) {
        Some(Found::Absent | Found::Unrecorded) | None => return dispatch::remove(params, cx).await,
        Some(_) if cx.on_remove == OnRemove::Delete => return dispatch::remove(params, cx).await,
        Some(found) => {
            let (store, root, at) = (cx.host.found.clone(), cx.host.environment.root.clone(), path.clone());
            let restored = blocking(move || store.restore(&root, &at, &found)).await??;
            if restored == Removal::NotThere {
                cx.report(&format!("{path} is as it was before this task"));
            }
            Ok(cx.removed(restored))
        }
    }
}

/// Whether other tasks have all that the task has: nothing is left behind that a policy could be for, only what is named after the task.
fn is_handed_over(params: &TaskParams, cx: &Context<'_>) -> bool {
    let (mut owned, mut held) = (0, 0);
    params.identity(cx.task, &mut |claim| {
        owned += 1;
        held += usize::from(cx.held_by_another(&claim).is_some());
    });
    owned > 0 && owned == held
}

/// Whether the task has come to nothing of what it claims: each claim gets its note before the first change.
fn is_untouched(params: &TaskParams, cx: &Context<'_>) -> bool {
    let (mut claims, mut noted) = (0, 0);
    found::keys(params, cx.task, &mut |key| {
        claims += 1;
        noted += usize::from(cx.host.found.get(&key).is_some());
    });
    claims > 0 && noted == 0
}

/// The paths of which the notes are made here. Kinds with other claims make their notes themselves.
fn paths(params: &TaskParams, cx: &Context<'_>) -> Vec<String> {
    let mut paths = Vec::new();
    let mut add = |path: Option<String>| paths.extend(path);
    found::keys(params, cx.task, &mut |key| add(key.strip_prefix("path ").map(str::to_owned)));
    paths
}

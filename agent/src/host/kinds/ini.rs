//! `ini`: options in an INI file.
//!
//! The memory holds what the file had before an option was set, and removing the option or the task restores it; a file or section
//! that the task created is removed with what it put there. An option that was changed out of band since then is left as it is.
//! A file that is not an INI file is never written.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{
    kinds::{Claim, Ini},
    plan::OnRemove,
};
use serde::{Deserialize, Serialize};

use super::{
    compare::is_private,
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError},
    fs::{
        files::{self, Access, Removal, Text},
        ini::{Document, Fault},
        spot::Spot,
    },
};

/// Largest file that is edited, in bytes.
const MOST: u64 = 4 << 20;

/// Why options could not be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IniError {
    #[error("{path} is not an INI file and was not changed; fix it by hand")]
    Invalid { path: String, source: Fault },
    #[error("{path} is missing, and the task has `create = false`")]
    Missing { path: String },
}

impl KindError for IniError {}

/// The task's memory: how it found the file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    path: String,
    made_file: bool,
    made_sections: BTreeSet<String>,
    /// Options as they were written, by section and name.
    before: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Where they were, of those that were taken out; absent in what an older agent noted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    spots: BTreeMap<String, BTreeMap<String, Vec<Spot>>>,
    /// The values that the task set for them; absent in what an older agent noted.
    after: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// The text of sections that were removed, by name, as an older agent noted it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cut: BTreeMap<String, String>,
    /// The parts of sections that were removed, by name, each with its place.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parts: BTreeMap<String, Vec<(String, Spot)>>,
    /// The last line of the file, if it got its line break from the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    unended: Option<String>,
}

impl Kind for Ini {
    fn notes_changes(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let memory = Memory::of(self, cx);
        let Some((document, access)) = read(self, cx)? else {
            let in_sync = self.wanted().values().all(Vec::is_empty) && memory.is_kept_by(self);
            if !in_sync {
                cx.differs("file", Some("present"), None);
            }
            return Ok(in_sync.into());
        };
        if cx.is_drift_check() {
            self.report_differences(cx, &document, access);
        }
        let in_sync = self.wanted().iter().all(|((section, name), values)| document.get(section, name) == *values);
        let is_absent = self.unwanted_section().is_none_or(|section| !document.has_section(section));
        Ok((in_sync && is_absent && memory.is_kept_by(self)).into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        // Several tasks may edit one file: reading and writing must not overlap with theirs.
        let _edit = cx.host.edits.lock().await;
        let mut memory = Memory::of(self, cx);
        let found = read(self, cx)?;
        memory.path = self.path.clone();
        memory.made_file |= found.is_none();
        let access = match &found {
            Some((_, access)) => *access,
            None if self.create == Some(false) => return Err(IniError::Missing { path: self.path.clone() }.into()),
            None => access(self)?,
        };
        let was = found.map(|(document, _)| document);
        let mut document = match &was {
            Some(document) => document.clone(),
            None => parse(self, "")?,
        };
        let wanted = self.wanted();
        // Options that an earlier version of the task set, unless another task has them now.
        let left = memory.take(|section, name| !wanted.contains_key(&(section.to_owned(), name.to_owned())));
        for taken in left.into_iter().rev() {
            if cx.held_by_another(&Claim::option(&self.path, &taken.section, &taken.name)).is_none() {
                give_back(cx, &mut document, &taken, None);
            }
            memory.leave(&mut document, &taken.section, self, cx);
        }
        memory.paste(self, self.unwanted_section(), &mut document)?;
        for ((section, name), values) in &wanted {
            let there = document.has_section(section) || section.is_empty();
            let (before, spots) = (document.raw(section, name), document.spots(section, name));
            if document.set(section, name, values) {
                if values.len() < before.len() {
                    memory.spots.entry(section.clone()).or_default().entry(name.clone()).or_insert(spots);
                }
                // Only the first value found is kept: later ones are the task's own.
                memory.before.entry(section.clone()).or_default().entry(name.clone()).or_insert(before);
                memory.after.entry(section.clone()).or_default().insert(name.clone(), values.clone());
                if !there {
                    memory.made_sections.insert(section.clone());
                    cx.note_made(&Claim::section(&self.path, section))?;
                }
            }
        }
        for ((section, _), _) in wanted.iter().filter(|(_, values)| values.is_empty()) {
            memory.leave(&mut document, section, self, cx);
        }
        if let Some(section) = self.unwanted_section() {
            let parts = document.cut(section);
            if !parts.is_empty() {
                memory.parts.entry(section.to_owned()).or_insert(parts);
            }
        }
        if document.unended().is_none() {
            memory.unended = memory.unended.take().or_else(|| was.as_ref()?.unended());
        }
        cx.note_unended(&self.path, memory.unended.as_ref())?;
        // The memory before the file: a value that was overwritten exists nowhere else.
        cx.remember_first(&memory)?;
        if was.as_ref() == Some(&document) {
            // Only the memory differed.
            cx.nothing_changed();
            return Ok(Applied { afresh: false });
        }
        let root = &cx.host.environment.root;
        if was.is_none() {
            cx.note_made(&Claim::edited(&self.path))?;
        }
        // Where nothing is wanted in it, a file that is not there is in sync.
        if wanted.values().all(Vec::is_empty) && cx.is_used_up(&self.path, &document.text(), memory.made_file) {
            cx.wrote(files::remove_file(root, &self.path, false))?;
        } else {
            cx.wrote(files::write_text(root, &self.path, &document.text(), access))?;
        }
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let _edit = cx.host.edits.lock().await;
        let mut memory = Memory::of(self, cx);
        // Without a record of something done the file is none of this task's business, whatever it is by now.
        if !memory.made_file && memory.before.is_empty() && memory.cut.is_empty() && memory.parts.is_empty() {
            return Ok(false);
        }
        let Some((mut document, access)) = read(self, cx)? else { return Ok(false) };
        let (before, wanted) = (document.clone(), self.wanted());
        let delete = cx.on_remove == OnRemove::Delete;
        // The last one that was taken out first: its neighbours are there by then.
        for mut taken in memory.take(|_, _| true).into_iter().rev() {
            let Taken { section, name, .. } = &taken;
            if cx.held_by_another(&Claim::option(&self.path, section, name)).is_some() {
                cx.report(&format!("`{name}` in [{section}] belongs to another task now: left as it is"));
            } else {
                let applied = wanted.get(&(section.clone(), name.clone()));
                if delete {
                    taken.before.clear();
                }
                give_back(cx, &mut document, &taken, applied);
            }
            memory.leave(&mut document, &taken.section, self, cx);
        }
        if !delete {
            memory.paste(self, None, &mut document)?;
        }
        if let Some(last) = memory.unended.or_else(|| cx.unended(&self.path)) {
            document.unend(&last);
        }
        let root = &cx.host.environment.root;
        // A file that the task made goes, unless others have put something into it.
        if cx.is_used_up(&self.path, &document.text(), memory.made_file) {
            return Ok(files::remove_file(root, &self.path, false)? == Removal::Removed);
        }
        if document == before {
            return Ok(false);
        }
        files::write_text(root, &self.path, &document.text(), access)?;
        Ok(true)
    }
}

trait Differences {
    fn report_differences(&self, cx: &Context<'_>, document: &Document, access: Access);
}

impl Differences for Ini {
    /// Notes which options differ, and how; only that they differ if the file is private to its owner.
    fn report_differences(&self, cx: &Context<'_>, document: &Document, access: Access) {
        // Of the file that was read: in a directory of a user, another may be there by now.
        let is_private = is_private(access);
        let value = |values: &[String]| match (values.is_empty(), is_private) {
            (true, _) => None,
            (false, true) => Some("a value that is not reported".to_owned()),
            (false, false) => Some(values.join(", ")),
        };
        for ((section, name), wanted) in self.wanted() {
            let found = document.get(&section, &name);
            if found != wanted {
                let what = format!("[{section}] {name}");
                cx.differs(&what, value(&wanted).as_deref(), value(&found).as_deref());
            }
        }
        if let Some(section) = self.unwanted_section().filter(|section| document.has_section(section)) {
            cx.differs(&format!("[{section}]"), None, Some("present"));
        }
    }
}

impl Memory {
    /// The memory of the file that the task names.
    fn of(ini: &Ini, cx: &Context<'_>) -> Self {
        let memory = cx.memory().and_then(|memory| Self::deserialize(memory).ok());
        memory.filter(|memory: &Self| memory.path == ini.path).unwrap_or_default()
    }

    /// Whether the task still wants all that it once changed.
    fn is_kept_by(&self, ini: &Ini) -> bool {
        let wanted = ini.wanted();
        if self.cut.keys().chain(self.parts.keys()).any(|section| ini.unwanted_section() != Some(section)) {
            return false;
        }
        let all = self.before.iter().flat_map(|(section, options)| options.keys().map(move |name| (section, name)));
        all.into_iter().all(|(section, name)| wanted.contains_key(&(section.clone(), name.clone())))
    }

    /// Drops the options for which `which` is true, and returns them.
    fn take(&mut self, which: impl Fn(&str, &str) -> bool) -> Vec<Taken> {
        let mut taken = Vec::new();
        for (section, options) in &mut self.before {
            options.retain(|name, values| {
                let picked = which(section, name);
                if picked {
                    let after = self.after.get_mut(section).and_then(|options| options.remove(name));
                    let spots =
                        self.spots.get_mut(section).and_then(|options| options.remove(name)).unwrap_or_default();
                    let (section, name, before) = (section.clone(), name.clone(), std::mem::take(values));
                    taken.push(Taken { section, name, before, spots, after });
                }
                !picked
            });
        }
        self.before.retain(|_, options| !options.is_empty());
        self.after.retain(|_, options| !options.is_empty());
        self.spots.retain(|_, options| !options.is_empty());
        taken
    }

    /// Removes a section that this task or another one made, once nothing is left in it.
    fn leave(&mut self, document: &mut Document, section: &str, ini: &Ini, cx: &Context<'_>) {
        if self.made_sections.contains(section) || cx.is_made(&Claim::section(&ini.path, section)) {
            document.cut_if_empty(section);
            if !document.has_section(section) {
                self.made_sections.remove(section);
            }
        }
    }
}

impl Memory {
    /// Restores sections that were removed, but for `unwanted` and those that others have made again.
    fn paste(&mut self, ini: &Ini, unwanted: Option<&str>, document: &mut Document) -> Result<(), IniError> {
        let invalid = |source| IniError::Invalid { path: ini.path.clone(), source };
        let end = Spot { at: usize::MAX, ..Spot::default() };
        let older =
            std::mem::take(&mut self.cut).into_iter().map(|(section, text)| (section, vec![(text, end.clone())]));
        for (section, parts) in older.chain(std::mem::take(&mut self.parts)).collect::<Vec<_>>() {
            if unwanted == Some(&section) {
                self.parts.insert(section, parts);
            } else if !document.has_section(&section) {
                for (text, spot) in parts {
                    document.paste(&text, &spot).map_err(invalid)?;
                }
            }
        }
        Ok(())
    }
}

/// An option that the memory held.
struct Taken {
    section: String,
    name: String,
    /// Its former text.
    before: Vec<String>,
    /// Where it was, once for each repetition.
    spots: Vec<Spot>,
    /// The values that the task set; `None` if that was not noted.
    after: Option<Vec<String>>,
}

/// Restores the former text of an option, unless it no longer has the values that the task set. `applied`: those of the task's record; what
/// was set last may have been a failed update's.
fn give_back(
    cx: &Context<'_>,
    document: &mut Document,
    Taken { section, name, before, spots, after }: &Taken,
    applied: Option<&Vec<String>>,
) {
    let now = document.get(section, name);
    let mut ours = applied.into_iter().chain(after).peekable();
    match ours.peek().is_some() && !ours.any(|ours| *ours == now) {
        true => cx.report(&format!("`{name}` in [{section}] was changed out of band: left as it is")),
        false => document.restore(section, name, before, spots),
    }
}

fn access(ini: &Ini) -> Result<Access, HostError> {
    Ok(Access::new(&ini.path, ini.owner.as_deref(), ini.group.as_deref(), ini.mode.as_deref(), 0o644)?)
}

fn read(ini: &Ini, cx: &Context<'_>) -> Result<Option<(Document, Access)>, HostError> {
    let Some(Text { text, access }) = files::read_text(&cx.host.environment.root, &ini.path, MOST)? else {
        return Ok(None);
    };
    Ok(Some((parse(ini, &text)?, access)))
}

fn parse(ini: &Ini, text: &str) -> Result<Document, IniError> {
    Document::parse(text).map_err(|source| IniError::Invalid { path: ini.path.clone(), source })
}

//! `line`: a line or a block of lines in a text file.
//!
//! The memory holds what was done, which is undone when the task is removed or wants something else: an inserted line is removed, a
//! replaced or removed one restored. A line that is no longer there, or that another task claims as well, is left alone; so is a
//! file that the task created, once others have lines in it.

mod edit;

use groundplan_protocol::{
    kinds::{Claim, Line},
    plan::OnRemove,
};
use serde::{Deserialize, Serialize};

use self::edit::{Done, Lines, Open};
use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError},
    fs::{
        files::{self, Access, Removal, Replace, Sum, Text},
        text, validate,
    },
    job::Content,
};

/// Largest file that is edited, in bytes.
const MOST: u64 = 4 << 20;

/// Why a file could not be edited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("{path} was not changed")]
    Open { path: String, source: Open },
    #[error("{path} is missing, and the task has `create = false`")]
    Missing { path: String },
}

impl KindError for LineError {}

/// The task's memory: what it did to the file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    path: String,
    made_file: bool,
    /// The parameters with which it did that.
    asked: Option<Line>,
    done: Option<Done>,
    /// The last line of the file, if it got its line break from the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unended: Option<String>,
}

impl Kind for Line {
    fn notes_changes(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let (mut memory, found) = (Memory::of(self, cx), read(self, cx)?);
        let Some(Text { text, .. }) = found else {
            if self.state.is_present() {
                cx.differs("file", Some("present"), None);
            }
            return Ok((!self.state.is_present()).into());
        };
        let mut lines = Lines::of(&text);
        memory.change(self, &mut lines, cx)?;
        let in_sync = lines.text() == text;
        if !in_sync && cx.is_drift_check() {
            self.report_differences(cx);
        }
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        // Several tasks may edit one file: each reads what the one before has written.
        let _edit = cx.host.edits.lock().await;
        let (mut memory, found) = (Memory::of(self, cx), read(self, cx)?);
        if found.is_none() && self.create == Some(false) {
            return Err(LineError::Missing { path: self.path.clone() }.into());
        }
        memory.path.clone_from(&self.path);
        let is_new = found.is_none();
        memory.made_file |= is_new;
        let (text, access) = match found {
            Some(Text { text, access }) => (text, access),
            None => (String::new(), access(self)?),
        };
        let mut lines = Lines::of(&text);
        memory.change(self, &mut lines, cx)?;
        cx.note_unended(&self.path, memory.unended.as_ref())?;
        // Kept also if writing fails: undoing then finds nothing, which does no harm.
        cx.remember_first(&memory)?;
        let root = &cx.host.environment.root;
        if is_new {
            cx.note_made(&Claim::edited(&self.path))?;
        }
        // Where no line is wanted in it, a file that is not there is in sync.
        if !self.state.is_present() && cx.is_used_up(&self.path, &lines.text(), memory.made_file) {
            cx.wrote(files::remove_file(root, &self.path, false))?;
            return Ok(Applied { afresh: false });
        }
        match &self.validate {
            Some(validate) => {
                let bytes = text::bytes(&lines.text());
                let sum = Sum::of_bytes(&bytes);
                let content = Content::Bytes(bytes);
                validate::put(cx, &self.path, &content, sum, access, Replace::Files, validate).await?;
            }
            None => cx.wrote(files::write_text(root, &self.path, &lines.text(), access))?,
        }
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        // What it replaced is what its successor remembers now.
        if !cx.others.is_empty() || has_successor(self, cx) {
            return Ok(false);
        }
        let _edit = cx.host.edits.lock().await;
        let mut memory = Memory::of(self, cx);
        // Without a record of something done the file is none of this task's business, whatever it is by now.
        if !memory.made_file && memory.done.is_none() {
            return Ok(false);
        }
        if cx.on_remove == OnRemove::Delete {
            memory.bring_nothing_back();
        }
        let Some(Text { text, access }) = read(self, cx)? else { return Ok(false) };
        let mut lines = Lines::of(&text);
        memory.undo(&mut lines, cx);
        let root = &cx.host.environment.root;
        if cx.is_used_up(&self.path, &lines.text(), memory.made_file) {
            return Ok(files::remove_file(root, &self.path, false)? == Removal::Removed);
        }
        if lines.text() == text {
            return Ok(false);
        }
        files::write_text(root, &self.path, &lines.text(), access)?;
        Ok(true)
    }
}

/// Whether another task has the same block, or finds its lines by the same pattern. It may have taken them over for an earlier plan than
/// the one that ends this task: such a plan names no successor.
fn has_successor(line: &Line, cx: &Context<'_>) -> bool {
    let mut is_held = false;
    // A line alone may be wanted by any number of tasks, of which each remembers for itself whether it was there.
    if let Some(params) = cx.params.filter(|_| line.matching.is_some() || line.block.is_some()) {
        params.identity(cx.task, &mut |claim| is_held |= cx.held_by_another(&claim).is_some());
    }
    is_held
}

trait Differences {
    fn report_differences(&self, cx: &Context<'_>);
}

impl Differences for Line {
    /// Notes what is missing or left over; without the text if the file is private to its owner.
    fn report_differences(&self, cx: &Context<'_>) {
        let (what, text) = match (&self.block, &self.line) {
            (Some(block), _) => ("block", Some(block)),
            (None, line) => ("line", line.as_ref().or(self.matching.as_ref())),
        };
        let text = text.filter(|_| !cx.is_private(&self.path));
        if self.state.is_present() {
            let text = text.map_or("present", String::as_str);
            cx.differs(what, Some(text), Some("missing, or changed"));
        } else {
            cx.differs(what, None, Some(text.map_or("present", String::as_str)));
        }
    }
}

impl Memory {
    /// The memory of the file that the task names.
    fn of(line: &Line, cx: &Context<'_>) -> Self {
        let memory = cx.memory().and_then(|memory| Self::deserialize(memory).ok());
        memory.filter(|memory: &Self| memory.path == line.path).unwrap_or_default()
    }

    /// Applies the change to the lines, and notes what that did.
    fn change(&mut self, line: &Line, lines: &mut Lines, cx: &Context<'_>) -> Result<(), LineError> {
        let mut asked = line.clone();
        (asked.validate, asked.create, asked.owner, asked.group, asked.mode) = (None, None, None, None, None);
        // Other parameters: what the earlier ones put into the file must not stay beside the new line. How the file is
        // checked and owned does not count.
        if self.asked.as_ref() != Some(&asked) {
            self.undo(lines, cx);
        }
        let (task, unended) = (cx.task.to_string(), lines.unended());
        let done = if line.state.is_present() { lines.put(line, &task) } else { lines.take(line, &task) };
        let done = done.map_err(|source| LineError::Open { path: line.path.clone(), source })?;
        if done.is_some() && lines.unended().is_none() {
            self.unended = self.unended.take().or(unended);
        }
        // Undoing restores what was there before the first change.
        self.done = match (self.done.take(), done) {
            (None, done) | (done, None) => done,
            (Some(Done::Replaced { before, .. }), Some(Done::Replaced { now, .. })) => {
                Some(Done::Replaced { now, before })
            }
            (Some(Done::Block { begin, end, before }), Some(Done::Block { .. })) => {
                Some(Done::Block { begin, end, before })
            }
            (Some(Done::Inserted(_)), Some(Done::Replaced { now, .. })) => Some(Done::Inserted(now)),
            (Some(before), Some(_)) => Some(before),
        };
        self.asked = Some(asked);
        Ok(())
    }

    /// Drops what was there before, so that undoing takes away what the task put there and no more.
    fn bring_nothing_back(&mut self) {
        self.done = match self.done.take() {
            Some(Done::Replaced { now, .. }) => Some(Done::Inserted(now)),
            Some(Done::Block { begin, end, .. }) => Some(Done::Block { begin, end, before: None }),
            Some(Done::Removed(_) | Done::BlockRemoved { .. }) => None,
            done => done,
        };
    }

    /// Undoes what the memory holds, and clears it.
    fn undo(&mut self, lines: &mut Lines, cx: &Context<'_>) {
        let Some(done) = self.done.take() else { return };
        if let (Done::Inserted(now) | Done::Replaced { now, .. }, Some(asked)) = (&done, &self.asked)
            && let Some(other) = cx.held_by_a_third(&Claim::line(&asked.path, now))
        {
            cx.report(&format!("`{now}` in {} is left in place: {other} claims it, too", self.path));
            return;
        }
        if !lines.undo(&done) {
            cx.report(&format!("{}: what this task put there is not there any more; nothing to undo", self.path));
        }
        if let Some(last) = self.unended.take().or_else(|| cx.unended(&self.path)) {
            lines.unend(&last);
        }
    }
}

fn access(line: &Line) -> Result<Access, HostError> {
    Ok(Access::new(&line.path, line.owner.as_deref(), line.group.as_deref(), line.mode.as_deref(), 0o644)?)
}

fn read(line: &Line, cx: &Context<'_>) -> Result<Option<Text>, HostError> {
    Ok(files::read_text(&cx.host.environment.root, &line.path, MOST)?)
}

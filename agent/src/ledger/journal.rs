//! The journal of started tasks: one line for each, written before it starts and never synced.
//!
//! In: a generation and tasks, started or withdrawn. Out: the same at the next start, except for torn lines. A plain `write` survives
//! a kill of the agent, for which the journal exists; after a power loss the machine does not trust it.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
};

use groundplan_protocol::ids::{Generation, TaskId};

use crate::private;

/// The open file of the journal, to which lines are appended.
#[derive(Debug)]
pub struct Journal {
    file: File,
}

impl Journal {
    /// Opens it, and reads what it holds.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<(Generation, TaskId)>)> {
        let mut file = private::open(path, File::options().read(true).append(true).create(true))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let mut started: Vec<(Generation, TaskId)> = Vec::new();
        for (is_start, entry) in text.lines().filter_map(read_line) {
            match is_start {
                true => started.push(entry),
                false => started.retain(|earlier| *earlier != entry),
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok((Self { file }, started))
    }

    /// Notes tasks as started: one `write` for all.
    pub fn start<'a>(&mut self, generation: Generation, tasks: impl Iterator<Item = &'a TaskId>) -> io::Result<()> {
        self.append(tasks.map(|task| format!("{generation} {task}")))
    }

    /// Withdraws tasks that were noted as started and never began.
    pub fn withdraw<'a>(&mut self, generation: Generation, tasks: impl Iterator<Item = &'a TaskId>) -> io::Result<()> {
        self.append(tasks.map(|task| format!("{generation} {WITHDRAWN}{task}")))
    }

    /// Syncs it to the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn append(&mut self, lines: impl Iterator<Item = String>) -> io::Result<()> {
        let text: String = lines.map(|line| format!("{line} {:08x}\n", check(&line))).collect();
        self.file.write_all(text.as_bytes())
    }

    /// Empties it, once the ledger itself has what its lines are for.
    pub fn reset(&mut self) -> io::Result<()> {
        self.file.set_len(0)
    }
}

/// The mark before the name of a withdrawn task. No task's name begins with it.
const WITHDRAWN: char = '-';

/// An intact line: whether it is a start or a withdrawal, and of which task.
fn read_line(line: &str) -> Option<(bool, (Generation, TaskId))> {
    let (rest, sum) = line.rsplit_once(' ')?;
    if sum.len() != 8 || u32::from_str_radix(sum, 16).ok()? != check(rest) {
        return None;
    }
    let (generation, task) = rest.split_once(' ')?;
    let withdrawn = task.strip_prefix(WITHDRAWN);
    let entry = (Generation(generation.parse().ok()?), withdrawn.unwrap_or(task).parse().ok()?);
    Some((withdrawn.is_none(), entry))
}

/// FNV-1a, 32 bits: enough to detect a torn line.
fn check(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

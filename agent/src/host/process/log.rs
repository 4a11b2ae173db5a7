//! The log of each supervised process: one file, and one before it.
//!
//! The process itself writes to the file, so that its log goes on when the agent is away. A file that has grown beyond
//! `LIMIT` is copied to `<name>.1` and truncated, since the process holds it open: what it writes between the two is lost. The
//! size is checked at each start, and every 30 s while the process runs.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use groundplan_protocol::ids::TaskId;

use crate::private;

/// Size above which a log is cut, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// Most of the end of a log that goes into an error, in bytes and lines.
const END: u64 = 600;
const LINES: usize = 5;

/// The log of one process.
#[derive(Debug, Clone)]
pub(crate) struct ProcessLog(PathBuf);

impl ProcessLog {
    pub(crate) fn new(dir: &Path, task: &TaskId) -> Self {
        Self(dir.join(format!("{task}.log")))
    }

    /// Opens the file for the process to write to; with its length so far.
    pub(crate) fn open(&self) -> io::Result<(File, u64)> {
        self.trim()?;
        let file = private::append(&self.0)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// Cuts the log if it has grown too large.
    pub(crate) fn trim(&self) -> io::Result<()> {
        match fs::metadata(&self.0) {
            Ok(found) if found.len() > LIMIT => {}
            _ => return Ok(()),
        }
        let mut old = self.0.clone().into_os_string();
        old.push(".1");
        io::copy(&mut File::open(&self.0)?, &mut private::create(old.as_ref())?)?;
        File::options().write(true).open(&self.0)?.set_len(0)
    }

    /// Adds a line of the agent's own.
    pub(crate) fn add(&self, line: &str) {
        let file = private::append(&self.0);
        // The process matters more than a line about it.
        let _ = file.and_then(|mut file| file.write_all(format!("groundplan: {line}\n").as_bytes()));
    }

    /// The last lines that were written after the first `from` bytes.
    pub(crate) fn last_lines(&self, from: u64) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.0)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(from.min(length).max(length.saturating_sub(END))))?;
            let mut bytes = Vec::new();
            file.take(END).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        let start = text.rmatch_indices('\n').nth(LINES - 1).map_or(0, |(at, _)| at + 1);
        text[start..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_cut_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let log = ProcessLog::new(dir.path(), &"a.b".parse().unwrap());
        let (mut file, length) = log.open().unwrap();
        assert_eq!(length, 0);
        file.write_all(&vec![b'x'; LIMIT as usize + 1]).unwrap();
        log.trim().unwrap();
        file.write_all(b"after\n").unwrap();
        assert_eq!(fs::read(dir.path().join("a.b.log")).unwrap(), b"after\n");
        assert_eq!(fs::metadata(dir.path().join("a.b.log.1")).unwrap().len(), LIMIT + 1);
        log.add("ended");
        assert_eq!(log.last_lines(0), "after\ngroundplan: ended");
        assert_eq!(log.last_lines(6), "groundplan: ended");
    }
}

//! A run of `groundplan` that is observed while it lasts: its output so far, signals to it, and its end.
//!
//! Without a terminal, as in a script. A run that is dropped before its end is killed.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// See the module.
pub struct Live {
    child: Child,
    dir: TempDir,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Live {
    /// Starts `command`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(mut command: Command) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let file = |name: &str| Stdio::from(fs::File::create(dir.path().join(name)).expect("a file"));
        let child = command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).spawn();
        Self { child: child.expect("a program that starts"), dir }
    }

    /// Standard output so far.
    pub fn out(&self) -> String {
        self.read("out")
    }

    /// Standard error so far.
    pub fn err(&self) -> String {
        self.read("err")
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has ended and was waited for.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("a child to send it to");
    }

    /// The result, once it has ended.
    pub fn ended(&mut self) -> Option<Ended> {
        let status = self.child.try_wait().expect("a child to wait for")?;
        Some(Ended { code: status.code(), out: self.out(), err: self.err() })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

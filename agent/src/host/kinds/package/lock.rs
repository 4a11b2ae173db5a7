//! Processes that hold the locks of a package manager (fcntl(2), F_GETLK).
//!
//! In: lock files. Out: the first that is held, and the process that holds it. It takes no lock itself: the package manager does,
//! and may still find it held; the caller tries again.

use std::{fs, fs::File};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) lock: &'static str,
    /// The process that holds it, such as `apt-get (process 4711)`.
    pub(super) holder: String,
}

/// The first of `locks` that is held.
pub(super) fn held(locks: &[&'static str]) -> Option<Held> {
    locks.iter().find_map(|lock| Some(Held { lock, holder: holder(lock)? }))
}

fn holder(lock: &str) -> Option<String> {
    // For a file that cannot be opened the package manager itself reports an error.
    let file = File::open(lock).ok()?;
    let mut asked = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_GETLK(&mut asked)).ok()?;
    if asked.l_type == libc::F_UNLCK as libc::c_short {
        return None;
    }
    let name = fs::read_to_string(format!("/proc/{}/comm", asked.l_pid)).unwrap_or_default();
    Some(match name.trim() {
        "" => format!("process {}", asked.l_pid),
        name => format!("{name} (process {})", asked.l_pid),
    })
}

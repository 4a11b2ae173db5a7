//! A handle on a process that is not a child of the agent; it becomes readable when the process ends (pidfd_open(2)).

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use nix::{libc, unistd::Pid};
use tokio::io::{Interest, unix::AsyncFd};

/// A handle on one process, which stays that process even if its pid is used again.
pub(crate) struct PidFd(AsyncFd<OwnedFd>);

impl PidFd {
    /// A handle on the process that has `pid` now.
    #[expect(unsafe_code, reason = "neither std nor nix has pidfd_open")]
    pub(crate) fn open(pid: Pid) -> io::Result<Self> {
        // SAFETY: the call takes two plain numbers and accesses no memory of this process.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just returned this descriptor, which it opens with CLOEXEC, and nothing else uses it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the `AsyncFd` owns the descriptor and never gives it away.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?))
    }

    /// Returns once the process has ended.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}

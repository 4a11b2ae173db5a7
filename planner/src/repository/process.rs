//! Runs `git` with limits: each process in a group of its own, which is ended with everything it started.
//!
//! In: a command, how long it may be silent and run, what to do with its progress. Out: its output, or why there is none. [`Processes`]
//! knows what runs of one repository, so that a planner that stops ends it and waits for no server.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::error::RepositoryError;

/// How often a process that says nothing is looked at.
const TICK: Duration = Duration::from_millis(50);

/// How long to wait for the end of its output after it has exited: what it left in the background may hold it open.
const LINGER: Duration = Duration::from_millis(500);

/// How much of the end of standard error is kept, in bytes.
const STDERR_MAX: usize = 16 << 10;

/// How long a process may take, and how much it may print.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Without any output.
    pub(super) silence: Duration,
    /// In all.
    pub(super) whole: Duration,
    /// Bytes on standard output.
    pub(super) most: usize,
}

/// For what reads this machine's disk.
pub(super) const LOCAL: Limits =
    Limits { silence: Duration::from_secs(60), whole: Duration::from_secs(600), most: 256 << 20 };

/// The processes that run for one repository. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Processes(Arc<Mutex<Groups>>);

#[derive(Debug, Default)]
struct Groups {
    running: BTreeSet<i32>,
    stopped: bool,
}

impl Processes {
    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all of them. None is started any more.
    pub(super) fn stop(&self) {
        let mut groups = self.lock();
        groups.stopped = true;
        groups.running.iter().for_each(|group| kill(*group));
    }

    /// Starts a process.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Running> {
        // Under the lock: one that is started while all are ended must be ended as well.
        let mut groups = self.lock();
        if groups.stopped {
            return Err(io::Error::other("the planner is stopping"));
        }
        let child = command.process_group(0).spawn()?;
        groups.running.insert(child.id() as i32);
        Ok(Running { child, all: self.clone(), exited: None })
    }

    /// Runs a process to its end; returns its standard output. `progress` is called with each line on standard error.
    ///
    /// # Errors
    /// It failed, or exceeded a limit and was ended.
    pub(super) fn output(
        &self,
        command: &mut Command,
        what: &str,
        limits: Limits,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<u8>, RepositoryError> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        end_with_this_thread(command);
        let mut running = self.start(command).map_err(RepositoryError::NoGit)?;
        let (sender, pieces) = mpsc::channel();
        let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
        let errors = sender.clone();
        thread::spawn(move || read(stdout, &sender, Piece::Out));
        thread::spawn(move || read(stderr, &errors, Piece::Error));
        let (started, mut last) = (Instant::now(), Instant::now());
        let (mut out, mut err) = (Vec::new(), Lines::default());
        let (mut exited, mut complete) = (None, false);
        loop {
            match pieces.recv_timeout(TICK) {
                Ok(Piece::Out(bytes)) => {
                    last = Instant::now();
                    out.extend_from_slice(&bytes);
                    if out.len() > limits.most {
                        return Err(RepositoryError::Printed { what: what.to_owned(), most: limits.most });
                    }
                }
                Ok(Piece::Error(bytes)) => {
                    last = Instant::now();
                    err.add(&bytes, progress);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                // Both streams have ended, so it is about to exit.
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    complete = true;
                    thread::sleep(Duration::from_millis(1));
                }
            }
            if let Some(status) = running.try_wait().map_err(RepositoryError::NoGit)? {
                if complete || exited.get_or_insert_with(Instant::now).elapsed() > LINGER {
                    return err.result(what, status, out);
                }
                continue;
            }
            let silent = last.elapsed() > limits.silence;
            if silent || started.elapsed() > limits.whole {
                let after = if silent { limits.silence } else { limits.whole }.as_secs();
                return Err(RepositoryError::Limit { what: what.to_owned(), after, silent });
            }
        }
    }
}

/// Has the process ended when the thread that starts it does, which waits for it: so a planner that is killed leaves no git behind that
/// talks to a server and writes to the mirror.
fn end_with_this_thread(command: &mut Command) {
    // `SIGTERM`, upon which git ends its own programs and removes its locks.
    let step = || nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from);
    #[expect(unsafe_code, reason = "std has no safe way to have a process end with its parent")]
    // SAFETY: the step is one system call, which may be made between fork and exec.
    unsafe {
        command.pre_exec(step);
    }
}

enum Piece {
    Out(Vec<u8>),
    Error(Vec<u8>),
}

fn read(stream: Option<impl Read>, pieces: &mpsc::Sender<Piece>, wrap: impl Fn(Vec<u8>) -> Piece) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if pieces.send(wrap(buffer[..n].to_vec())).is_err() {
            return;
        }
    }
}

/// Standard error, by lines; git ends those of its progress by carriage returns.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    /// Those that are no progress.
    kept: String,
}

impl Lines {
    fn add(&mut self, bytes: &[u8], progress: &mut dyn FnMut(&str)) {
        for byte in bytes {
            if !matches!(byte, b'\r' | b'\n') {
                self.partial.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.partial);
            self.line(&String::from_utf8_lossy(&line), *byte == b'\n', progress);
        }
        self.partial.truncate(STDERR_MAX);
    }

    fn line(&mut self, line: &str, whole: bool, progress: &mut dyn FnMut(&str)) {
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        progress(line);
        let counts = line.contains("% (") || line.contains("Enumerating objects") || line.contains("Total ");
        if whole && !counts && self.kept.len() < STDERR_MAX {
            self.kept.push_str(line);
            self.kept.push('\n');
        }
    }

    fn result(mut self, what: &str, status: ExitStatus, out: Vec<u8>) -> Result<Vec<u8>, RepositoryError> {
        let rest = std::mem::take(&mut self.partial);
        self.line(&String::from_utf8_lossy(&rest), true, &mut |_| {});
        if status.success() {
            return Ok(out);
        }
        let stderr = match self.kept.trim() {
            "" => status.to_string(),
            text => text.to_owned(),
        };
        Err(RepositoryError::Git { what: what.to_owned(), stderr })
    }
}

/// A process that runs. Dropped, it is ended with everything in its group.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    all: Processes,
    exited: Option<ExitStatus>,
}

impl Running {
    /// Its exit status, once it has exited.
    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.exited.is_none() {
            // Under the lock: once it is waited for, its number may be another process's.
            let mut groups = self.all.lock();
            self.exited = self.child.try_wait()?;
            if self.exited.is_some() {
                groups.running.remove(&(self.child.id() as i32));
            }
        }
        Ok(self.exited)
    }

    /// The number of its group.
    pub(super) fn group(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.exited.is_none() {
            kill(self.group());
            let mut groups = self.all.lock();
            let _ = self.child.wait();
            groups.running.remove(&(self.child.id() as i32));
        }
    }
}

fn kill(group: i32) {
    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
}

/// Ends a process that does not answer in time. Armed while an answer is awaited.
#[derive(Debug)]
pub(super) struct Watchdog(mpsc::Sender<bool>);

impl Watchdog {
    /// Watches the process, which must not be waited for before this is dropped or disarmed.
    pub(super) fn of(running: &Running, limit: Duration) -> Self {
        let (sender, orders) = mpsc::channel();
        let group = running.group();
        thread::spawn(move || {
            let mut armed = false;
            loop {
                let order = match armed {
                    true => orders.recv_timeout(limit),
                    false => orders.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                };
                match order {
                    Ok(order) => armed = order,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        kill(group);
                        armed = false;
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self(sender)
    }

    /// Whether an answer is awaited from now on; each call begins the time again.
    pub(super) fn arm(&self, armed: bool) {
        let _ = self.0.send(armed);
    }
}

//! Runs one plugin on this machine, to get its description, because an operator asks for it.
//!
//! In: the program's bytes and a request. Out: its output, or an error. It runs in an empty directory with a minimal environment and a
//! time limit; processes that it started are killed with it, and the memory for its output is bounded. That contains mistakes, not
//! attacks: a plugin runs with the operator's rights.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

/// The time limit.
const LIMIT: Duration = Duration::from_secs(5);

/// The limit of its output, in bytes.
const STDOUT_MAX: usize = 1 << 20;

/// How much of the end of its standard error is kept, in bytes.
const STDERR_MAX: usize = 600;

/// How long to wait for the end of its output after it has exited.
const LINGER: Duration = Duration::from_secs(1);

/// Why a run has no output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("cannot create a temporary directory for it")]
    Scratch(#[source] io::Error),
    #[error("cannot be started")]
    Start(#[source] io::Error),
    #[error("cannot be monitored")]
    Monitor(#[source] io::Error),
    #[error("{}", exit_text(*status, last_lines))]
    Crashed { status: ExitStatus, last_lines: String },
    #[error("does not answer: it was killed after {} s", LIMIT.as_secs())]
    Silent,
    #[error("exceeds the limit of output: it was killed after {} MiB", STDOUT_MAX >> 20)]
    Endless,
}

/// The output of a running program, sent when each stream has ended.
struct Streams {
    out: Receiver<io::Result<Vec<u8>>>,
    err: Receiver<Vec<u8>>,
}

/// Runs `program` with `request` on its standard input, and returns its standard output.
pub(super) fn run(program: &[u8], request: &[u8]) -> Result<Vec<u8>, RunError> {
    let dir = tempfile::Builder::new().prefix("groundplan-plugin-").tempdir().map_err(RunError::Scratch)?;
    let (path, cwd) = (dir.path().join("program"), dir.path().join("empty"));
    let write = || -> io::Result<()> {
        fs::create_dir(&cwd)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
        // The mode of `open` is reduced by the umask.
        file.set_permissions(fs::Permissions::from_mode(0o700))?;
        file.write_all(program)
    };
    write().map_err(RunError::Scratch)?;
    let mut command = Command::new(&path);
    command.env_clear().env("HOME", &cwd).env("GROUNDPLAN_REQUEST", "schema");
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    command.current_dir(&cwd).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = start(&mut command).map_err(RunError::Start)?;
    let group = Group(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)));
    let streams = collect(&mut child);
    if let Some(mut stdin) = child.stdin.take() {
        // It fits into the pipe, so this does not block. A program need not read it.
        let _ = stdin.write_all(request);
    }
    let result = monitor(&group, &streams.out);
    // Before `wait`, which frees the process id and with it the group's: until then no other process can have it.
    drop(group);
    let status = child.wait().map_err(RunError::Monitor)?;
    let out = match result? {
        Some(out) => out,
        None => streams.out.recv_timeout(LINGER).map_err(|_| RunError::Silent)?.map_err(RunError::Monitor)?,
    };
    if out.len() > STDOUT_MAX {
        return Err(RunError::Endless);
    }
    if status.success() {
        return Ok(out);
    }
    let errors = streams.err.recv_timeout(LINGER).unwrap_or_default();
    Err(RunError::Crashed { status, last_lines: last_lines(&errors) })
}

/// Starts the program. Another thread may fork while the file is open for writing: until that child execs, starting the file fails with
/// ETXTBSY.
fn start(command: &mut Command) -> io::Result<Child> {
    let mut tries = 0;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 50 => {
                tries += 1;
                thread::sleep(Duration::from_millis(20));
            }
            started => return started,
        }
    }
}

/// Reads both output streams, each on a thread of its own that ends with the stream.
fn collect(child: &mut Child) -> Streams {
    let (out_end, out) = mpsc::channel();
    let (err_end, err) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut kept = Vec::new();
            let read = stdout.take(STDOUT_MAX as u64 + 1).read_to_end(&mut kept);
            // The receiver is dropped when the run has failed.
            let _ = out_end.send(read.map(|_| kept));
        });
    }
    if let Some(mut stderr) = child.stderr.take() {
        thread::spawn(move || {
            let (mut last, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                last.extend_from_slice(&buffer[..n]);
                last.drain(..last.len().saturating_sub(STDERR_MAX));
            }
            let _ = err_end.send(last);
        });
    }
    Streams { out, err }
}

/// Waits until the program has exited, exceeded the limit of output, or run out of time. Returns its output if that ended before.
fn monitor(group: &Group, out: &Receiver<io::Result<Vec<u8>>>) -> Result<Option<Vec<u8>>, RunError> {
    let until = Instant::now() + LIMIT;
    let mut printed = None;
    let mut pause = Duration::from_millis(1);
    loop {
        // WNOWAIT leaves it a zombie until its group has been killed: else the id could be reused and the signal hit another group.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(group.0), flags) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => return Ok(printed),
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(RunError::Monitor(errno.into())),
        }
        if Instant::now() >= until {
            return Err(RunError::Silent);
        }
        if printed.is_some() {
            thread::sleep(pause);
        } else if let Ok(read) = out.recv_timeout(pause) {
            let read = read.map_err(RunError::Monitor)?;
            if read.len() > STDOUT_MAX {
                return Err(RunError::Endless);
            }
            printed = Some(read);
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// A process group that is killed when this is dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // Fails if all of it has exited.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

fn exit_text(status: ExitStatus, last_lines: &str) -> String {
    let end = match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(Ok(signal))) => format!("was killed by {signal}"),
        (None, _) => "ended".to_owned(),
    };
    if last_lines.is_empty() { end } else { format!("{end}: {last_lines}") }
}

/// The last three lines that are not empty, joined into one.
fn last_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(script: &str) -> String {
        match run(format!("#!/bin/sh\n{script}\n").as_bytes(), b"request") {
            Ok(out) => String::from_utf8_lossy(&out).into_owned(),
            Err(error @ (RunError::Start(_) | RunError::Scratch(_))) => format!("{error}: {error:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_output_is_returned_and_the_environment_is_minimal() {
        assert_eq!(
            outcome("cat; echo; echo noise >&2; ls -A | wc -l; env | sort | cut -d= -f1 | grep -v ^_$ | tr '\\n' ' '"),
            "request\n0\nGROUNDPLAN_REQUEST HOME LC_ALL PATH PWD "
        );
        assert_eq!(outcome("echo it does not read"), "it does not read\n");
    }

    #[test]
    fn each_failure_has_its_message() {
        assert_eq!(outcome("echo out; echo one >&2; echo two >&2; exit 3"), "exited with 3: one; two");
        assert_eq!(outcome("kill -SEGV $$"), "was killed by SIGSEGV");
        assert_eq!(outcome("while :; do echo yes; done"), "exceeds the limit of output: it was killed after 1 MiB");
        assert_eq!(outcome("yes no >&2 & sleep 600"), "does not answer: it was killed after 5 s");
        let start = run(b"no program at all", b"").unwrap_err();
        assert!(matches!(start, RunError::Start(_)), "{start}");
        let missing = run(b"#!/nowhere/interpreter\n", b"").unwrap_err();
        assert!(matches!(&missing, RunError::Start(e) if e.kind() == io::ErrorKind::NotFound), "{missing}");
    }

    #[test]
    fn processes_that_it_started_are_killed() {
        // The run ends with the program, although its child keeps standard output open.
        let out = outcome("sleep 600 & echo $!");
        let pid: i32 = out.trim().parse().expect("a process id");
        let exited = || !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while !exited() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

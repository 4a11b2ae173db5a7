//! Runs one plugin on the planner's machine, to hear what it says of itself.
//!
//! In: the program's bytes and a request. Out: what it printed, or why it is of no use. It runs in an empty folder, with a bare
//! environment, for a few seconds, and whatever it started ends with it; how much it prints makes no difference to the memory here.
//! That is care with mistakes and no wall: it has the planner's rights.

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

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Most that it may print, in bytes.
const MOST: usize = 1 << 20;

/// How much of its complaints is of use, in bytes.
const LAST: usize = 600;

/// How long its last words are awaited once it has ended.
const LINGER: Duration = Duration::from_secs(1);

/// Why a program was of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("cannot make a scratch folder for it")]
    Scratch(#[source] io::Error),
    #[error("cannot be started")]
    Start(#[source] io::Error),
    #[error("cannot be followed")]
    Follow(#[source] io::Error),
    #[error("{}", ending(*status, last))]
    Crashed { status: ExitStatus, last: String },
    #[error("does not answer: it was ended after {} s", LIMIT.as_secs())]
    Silent,
    #[error("prints without end: it was ended after {} MiB", MOST >> 20)]
    Endless,
}

/// What a program that has started left.
struct Heard {
    out: Receiver<io::Result<Vec<u8>>>,
    err: Receiver<Vec<u8>>,
}

/// Runs `program` with `request` on its standard input; its standard output.
pub(super) fn run(program: &[u8], request: &[u8]) -> Result<Vec<u8>, RunError> {
    let dir = tempfile::Builder::new().prefix("groundplan-plugin-").tempdir().map_err(RunError::Scratch)?;
    let (path, cwd) = (dir.path().join("program"), dir.path().join("empty"));
    let write = || -> io::Result<()> {
        fs::create_dir(&cwd)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
        // Whatever the umask was.
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
    let heard = listen(&mut child);
    if let Some(mut stdin) = child.stdin.take() {
        // It fits into the pipe, and who does not read it may answer all the same.
        let _ = stdin.write_all(request);
    }
    let ended = follow(&group, &heard.out);
    drop(group);
    let status = child.wait().map_err(RunError::Follow)?;
    let out = match ended? {
        Some(out) => out,
        None => heard.out.recv_timeout(LINGER).map_err(|_| RunError::Silent)?.map_err(RunError::Follow)?,
    };
    if out.len() > MOST {
        return Err(RunError::Endless);
    }
    if status.success() {
        return Ok(out);
    }
    let last = heard.err.recv_timeout(LINGER).unwrap_or_default();
    Err(RunError::Crashed { status, last: last_words(&last) })
}

/// Starts it; what has just been written may still be open in a child that another thread is about to start.
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

/// Reads all that it prints, each stream on a thread of its own that ends with the stream.
fn listen(child: &mut Child) -> Heard {
    let (out_end, out) = mpsc::channel();
    let (err_end, err) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut kept = Vec::new();
            let read = stdout.take(MOST as u64 + 1).read_to_end(&mut kept);
            // Nobody listens any more once it has been given up.
            let _ = out_end.send(read.map(|_| kept));
        });
    }
    if let Some(mut stderr) = child.stderr.take() {
        thread::spawn(move || {
            let (mut last, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                last.extend_from_slice(&buffer[..n]);
                last.drain(..last.len().saturating_sub(LAST));
            }
            let _ = err_end.send(last);
        });
    }
    Heard { out, err }
}

/// Waits until it has ended, printed too much, or had its time. What it printed, if that came first.
fn follow(group: &Group, out: &Receiver<io::Result<Vec<u8>>>) -> Result<Option<Vec<u8>>, RunError> {
    let until = Instant::now() + LIMIT;
    let mut printed = None;
    let mut pause = Duration::from_millis(1);
    loop {
        // It stays a zombie until its group has got KILL, so that the group's number is nobody else's.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(group.0), flags) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => return Ok(printed),
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(RunError::Follow(errno.into())),
        }
        if Instant::now() >= until {
            return Err(RunError::Silent);
        }
        if printed.is_some() {
            thread::sleep(pause);
        } else if let Ok(read) = out.recv_timeout(pause) {
            let read = read.map_err(RunError::Follow)?;
            if read.len() > MOST {
                return Err(RunError::Endless);
            }
            printed = Some(read);
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// A process group that gets KILL when it is no longer of use.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

fn ending(status: ExitStatus, last: &str) -> String {
    let end = match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(Ok(signal))) => format!("was killed by {signal}"),
        (None, _) => "ended".to_owned(),
    };
    if last.is_empty() { end } else { format!("{end}: {last}") }
}

/// The last lines, on one.
fn last_words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(script: &str) -> String {
        match run(format!("#!/bin/sh\n{script}\n").as_bytes(), b"request") {
            Ok(out) => String::from_utf8_lossy(&out).into_owned(),
            Err(error @ (RunError::Start(_) | RunError::Scratch(_))) => format!("{error}: {error:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_it_prints_is_heard_and_nothing_is_given_but_the_request() {
        assert_eq!(
            told("cat; echo; echo noise >&2; ls -A | wc -l; env | sort | cut -d= -f1 | grep -v ^_$ | tr '\\n' ' '"),
            "request\n0\nGROUNDPLAN_REQUEST HOME LC_ALL PATH PWD "
        );
        assert_eq!(told("echo it does not read"), "it does not read\n");
    }

    #[test]
    fn each_way_to_be_of_no_use_has_its_word() {
        assert_eq!(told("echo out; echo one >&2; echo two >&2; exit 3"), "exited with 3: one; two");
        assert_eq!(told("kill -SEGV $$"), "was killed by SIGSEGV");
        assert_eq!(told("while :; do echo yes; done"), "prints without end: it was ended after 1 MiB");
        assert_eq!(told("yes no >&2 & sleep 600"), "does not answer: it was ended after 5 s");
        let start = run(b"no program at all", b"").unwrap_err();
        assert!(matches!(start, RunError::Start(_)), "{start}");
        let missing = run(b"#!/nowhere/interpreter\n", b"").unwrap_err();
        assert!(matches!(&missing, RunError::Start(e) if e.kind() == io::ErrorKind::NotFound), "{missing}");
    }

    #[test]
    fn nothing_that_it_started_lives_on() {
        // The answer comes with the end of the program, though a child of it holds its standard output open.
        let out = told("sleep 600 & echo $!");
        let pid: i32 = out.trim().parse().expect("a process id");
        let gone = || !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while !gone() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

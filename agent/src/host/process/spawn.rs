//! Preparing programs of tasks: found in `PATH`, with their environment, directory and user.
//!
//! Everything is resolved before the fork, so that a plain command takes the C library's fast path (posix_spawn) and an error
//! names its cause. Only a change of user, a session of its own, or ending with the agent needs code between fork and exec. The line
//! of a shell is not among its arguments, which all users of the host can read.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use groundplan_protocol::kinds::Run;
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{SigHandler, Signal, signal},
    },
    unistd::{Uid, getpid, setgid, setgroups, setsid, setuid},
};

use crate::host::fs::{
    paths::{Missing, PathError, Root, path_of},
    users::{self, Identity, UserError},
};

/// A program as a task describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program<'a> {
    pub(crate) run: &'a Run,
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) cwd: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
}

impl<'a> Program<'a> {
    /// `run` with the agent's own user, directory and environment.
    pub(crate) fn plain(run: &'a Run) -> Self {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        Self { run, env: NONE, cwd: None, user: None }
    }
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("there is no program `{program}` in PATH ({path})")]
    NotInPath { program: String, path: String },
    #[error("cannot run as another user")]
    User(#[from] UserError),
    #[error("cannot run in the directory")]
    Directory(#[from] PathError),
    #[error("cannot run in {0}: there is no such directory")]
    NoDirectory(String),
    #[error("cannot start `{program}`")]
    Start { program: String, source: io::Error },
}

/// What to do between fork and exec.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    /// Whether the program leads a session of its own; else it leads a process group.
    pub(crate) session: bool,
    /// Whether it gets KILL when the agent dies.
    pub(crate) with_agent: bool,
    /// The file that it writes its process id to before it becomes the program.
    pub(crate) pid_file: Option<File>,
}

/// The variable from which a shell takes its line, unlike its arguments for its own user only to read (proc_pid_environ(5)). It is
/// dropped before the line runs, so that no program inherits it.
const LINE: &str = "GROUNDPLAN_LINE";
const EVALUATE: &str = r#"eval "unset GROUNDPLAN_LINE; $GROUNDPLAN_LINE""#;

/// Words at the beginning of a line that mean something to some shell, as reserved words or as commands of its own: POSIX's, bash's, ksh's.
const OF_SHELLS: &str = " . : [ [[ alias bg bind break builtin caller case cd command compgen complete compopt continue coproc declare dirs \
    disown do done echo elif else enable esac eval exec exit export false fc fg fi for function getopts hash help hist history if in jobs kill \
    let local logout mapfile newgrp popd print printf pushd pwd read readarray readonly return select set shift shopt sleep source suspend \
    test then time times trap true type typeset ulimit umask unalias unset until wait whence while ";

/// The line as the shell is to run it. One that only starts a program, without anything that the shell has to expand, becomes that
/// program, as shells themselves do with the argument of `-c`: no process waits beside it, and it gets the signals.
fn hidden(line: &str) -> OsString {
    let plain = |c: char| c.is_ascii_alphanumeric() || " _@%+:,./-".contains(c) || c == '=';
    let first = line.trim_start_matches(' ').split(' ').next().unwrap_or_default();
    let is_program = !first.is_empty()
        && line.chars().all(plain)
        && !first.contains('=')
        && !first.starts_with('-')
        && !OF_SHELLS.split_whitespace().any(|word| word == first);
    if is_program { format!("exec {line}").into() } else { line.into() }
}

/// The root and the environment variables that all programs of tasks have in common.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    pub(crate) root: Root,
    /// `PATH`, `HOME`, `LANG` and `GROUNDPLAN_*`.
    pub(crate) env: BTreeMap<String, OsString>,
}

impl Environment {
    /// A command for `program`, with empty standard input, ready to be started.
    pub(crate) fn command(&self, program: &Program<'_>, setup: Setup) -> Result<Prepared, SpawnError> {
        let identity = program.user.map(users::identity).transpose()?;
        let mut env = self.env.clone();
        if let Some(identity) = &identity {
            env.insert("HOME".into(), identity.home.clone().into());
            env.extend(["USER", "LOGNAME"].map(|key| (key.to_owned(), identity.name.clone().into())));
        }
        env.extend(program.env.iter().map(|(key, value)| (key.clone(), value.into())));

        let dir = self.cwd(program.cwd)?;
        let cwd = dir.as_ref().map_or_else(|| self.root.path().to_owned(), path_of);
        let mut command = match program.run {
            Run::Shell(line) => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c");
                // A shell becomes the last program of a line that it has as its argument: then signals reach the process itself.
                match setup.session {
                    true => command.arg(line),
                    false => {
                        env.insert(LINE.to_owned(), hidden(line));
                        command.arg(EVALUATE)
                    }
                };
                command
            }
            Run::Args(args) => {
                let (name, args) = args.split_first().map_or(("", &[][..]), |(name, args)| (name.as_str(), args));
                let mut command = Command::new(find(name, env.get("PATH"))?);
                command.arg0(name).args(args);
                command
            }
        };
        command.env_clear().envs(env).current_dir(cwd).stdin(Stdio::null());
        // Without a change of user no privilege is needed.
        prepare(&mut command, setup, identity.filter(|identity| identity.uid != Uid::effective()));
        Ok(Prepared { command, dir })
    }

    /// The directory, opened; `None` for the root.
    fn cwd(&self, cwd: Option<&str>) -> Result<Option<OwnedFd>, SpawnError> {
        match cwd {
            None | Some("/") => Ok(None),
            Some(cwd) => match self.root.directory(cwd, Missing::Leave)? {
                Some((dir, _)) => Ok(Some(dir)),
                None => Err(SpawnError::NoDirectory(cwd.to_owned())),
            },
        }
    }
}

/// A command ready to be started.
pub(crate) struct Prepared {
    pub(crate) command: Command,
    /// The directory that it starts in, to be held until then: the command has it by this handle, since its path may lead elsewhere by now.
    pub(crate) dir: Option<OwnedFd>,
}

/// The error for a program that could not be started.
pub(crate) fn not_started(run: &Run, source: io::Error) -> SpawnError {
    let program = match run {
        Run::Shell(_) => "/bin/sh".to_owned(),
        Run::Args(args) => args.first().cloned().unwrap_or_default(),
    };
    SpawnError::Start { program, source }
}

/// The path of `program`: itself if it contains a slash, else the first match in `path`.
pub(crate) fn find(program: &str, path: Option<&OsString>) -> Result<PathBuf, SpawnError> {
    if program.contains('/') {
        return Ok(program.into());
    }
    let path = path.cloned().unwrap_or_default();
    let runs = |candidate: &Path| {
        candidate.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|candidate| runs(candidate));
    found
        .ok_or_else(|| SpawnError::NotInPath { program: program.to_owned(), path: path.to_string_lossy().into_owned() })
}

/// Arranges what happens between fork and exec.
fn prepare(command: &mut Command, setup: Setup, identity: Option<Identity>) {
    if !setup.session {
        command.process_group(0);
        if identity.is_none() && !setup.with_agent {
            return;
        }
    }
    let Setup { session, with_agent, mut pid_file } = setup;
    let steps = move || {
        if session {
            setsid()?;
            default_signals();
        }
        if let Some(file) = &mut pid_file {
            let mut text = [0; 12];
            let length = decimal(getpid().as_raw().unsigned_abs(), &mut text);
            file.write_all(&text[..length])?;
        }
        if let Some(identity) = &identity {
            setgroups(&identity.groups)?;
            setgid(identity.gid)?;
            setuid(identity.uid)?;
        }
        if with_agent {
            // After the change of user, which would undo it.
            set_pdeathsig(Signal::SIGKILL)?;
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "std has no safe way to set up a session or supplementary groups")]
    // SAFETY: between fork and exec only async-signal-safe calls are allowed (signal-safety(7)). The steps make plain
    // system calls on what was resolved before, allocate nothing and take no lock.
    unsafe {
        command.pre_exec(steps);
    }
}

/// Has every signal do what it does by default. An ignored signal stays ignored across exec, and a shell cannot trap one that it
/// inherits so: below an agent that was started with nohup(1), no process could be reloaded with HUP.
fn default_signals() {
    for which in Signal::iterator() {
        #[expect(unsafe_code, reason = "std has no way to reset a signal")]
        // SAFETY: signal(2) is async-signal-safe, and the default action runs no code of ours. KILL and STOP cannot be set, and need not.
        let _ = unsafe { signal(which, SigHandler::SigDfl) };
    }
}

/// Writes `number` in decimal without allocating; returns its length.
fn decimal(mut number: u32, text: &mut [u8; 12]) -> usize {
    let mut length = 0;
    loop {
        text[length] = b'0' + (number % 10) as u8;
        length += 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text[..length].reverse();
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_allocation() {
        for n in [0, 7, 10, 4_194_304, u32::MAX] {
            let mut text = [0; 12];
            let length = decimal(n, &mut text);
            assert_eq!(&text[..length], n.to_string().as_bytes());
        }
    }

    #[test]
    fn a_line_that_only_starts_a_program_becomes_it() {
        for line in [
            "sync",
            "/bin/sync -f /var/lib",
            "systemctl --no-pager restart a@b.service",
            "dd if=/dev/zero of=x count=1",
        ] {
            assert_eq!(hidden(line), format!("exec {line}").as_str());
        }
        for line in [
            "", " ", "echo a", "cd /x", "a; b", "a && b", "A=1 b", "a $B", "a *", "a ~", "a\nb", "a > b", "-x",
            "if true", "a 'b'", "# a",
        ] {
            assert_eq!(hidden(line), line, "{line:?}");
        }
    }

    #[test]
    fn programs_are_found_in_path() {
        let path = OsString::from("/nowhere:/bin:/usr/bin");
        assert!(find("sh", Some(&path)).unwrap().ends_with("bin/sh"));
        assert_eq!(find("./x", None).unwrap(), Path::new("./x"));
        let error = find("no-such-program", Some(&path)).unwrap_err();
        assert_eq!(error.to_string(), "there is no program `no-such-program` in PATH (/nowhere:/bin:/usr/bin)");
    }
}

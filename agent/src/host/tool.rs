//! Programs of the host that kinds use, such as `systemctl`: run to their end, with their whole standard output read.
//!
//! In: a program and its arguments, or what a task runs to check a file. Out: its standard output, apart from standard error, which goes into errors.
//! Messages are in English (`LC_ALL=C.UTF-8`), standard input is empty unless given, and programs end with the job.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Seek, Write},
    process::ExitStatus,
    time::Duration,
};

use groundplan_protocol::{kinds::Run, report::Output};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{
    error::ToolError,
    kinds::context::Context,
    process::{
        capture::last_lines,
        exec::{self, Apart, ExecError, Limit, named, shorten},
        spawn::{Program, SpawnError},
    },
};

/// How long a program may take if no limit is given: long enough for package managers and units that start slowly.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Most of its standard output that is kept, in bytes; more is an error, and never in memory.
const MOST: usize = 8 << 20;

/// A program about to be run.
#[derive(Debug)]
pub(crate) struct Tool<'a> {
    run: Run,
    /// As errors name it.
    name: String,
    env: BTreeMap<String, String>,
    stdin: Option<&'a [u8]>,
    limit: Duration,
    most: Option<usize>,
    user: Option<&'a str>,
}

/// The result of a program.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    /// Standard output as text, lossily.
    pub(crate) out: String,
    /// The last lines of standard error.
    pub(crate) err: String,
    /// Standard error, for the report.
    pub(crate) output: Option<Output>,
}

#[expect(dead_code, reason = "for the kinds that are about to come")]
impl<'a> Tool<'a> {
    /// `args` are the program and its arguments.
    pub(crate) fn new<S: AsRef<str>>(args: &[S]) -> Self {
        let run = Run::Args(args.iter().map(|arg| arg.as_ref().to_owned()).collect());
        let env = [("LC_ALL".to_owned(), "C.UTF-8".to_owned())].into();
        let name = format!("`{}`", shorten(&run));
        Self { run, name, env, stdin: None, limit: LIMIT, most: None, user: None }
    }

    /// What a task runs, which may be a shell line. Nothing in an error quotes it.
    pub(crate) fn of(run: Run) -> Self {
        Self { name: named(&run), run, ..Self::new::<&str>(&[]) }
    }

    /// Has errors name the program without its arguments.
    pub(crate) fn quiet(self) -> Self {
        Self { name: named(&self.run), ..self }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn stdin(self, stdin: &'a [u8]) -> Self {
        Self { stdin: Some(stdin), ..self }
    }

    pub(crate) fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Ends it once it has written more than `most` bytes to its standard output.
    pub(crate) fn most(self, most: usize) -> Self {
        Self { most: Some(most), ..self }
    }

    pub(crate) fn user(self, user: Option<&'a str>) -> Self {
        Self { user, ..self }
    }

    /// Runs it; any exit status is a result.
    pub(crate) async fn ask(self, cx: &Context<'_>) -> Result<Answer, ToolError> {
        let run = || self.name.clone();
        let stdin = self.stdin.map(memory).transpose().map_err(|source| ToolError::Io { run: run(), source })?;
        let program = Program { run: &self.run, env: &self.env, cwd: None, user: self.user };
        let host = cx.host;
        let limit = Limit::of(self.limit);
        let most = self.most.unwrap_or(MOST);
        let apart = Apart { stdin, most, ends: self.most.is_some() };
        let (ran, out) = exec::run_apart(&host.environment, &program, apart, limit, host.stop_grace, cx.cancel).await;
        let err = ran.output.as_ref().map(last_lines).unwrap_or_default();
        let status = match ran.end {
            _ if out.len() > most => return Err(ToolError::TooMuchOutput { run: run(), most }),
            Ok(status) => status,
            Err(ExecError::Spawn(SpawnError::NotInPath { program, .. })) => return Err(ToolError::Missing { program }),
            Err(error) => {
                cx.print(ran.output);
                return Err(ToolError::Exec(error.about(run())));
            }
        };
        let out = String::from_utf8(out).map_err(|_| ToolError::NoText { run: run() })?;
        Ok(Answer { status, out, err, output: ran.output })
    }

    /// Runs it; standard output, if it exits with 0.
    pub(crate) async fn run(self, cx: &Context<'_>) -> Result<String, ToolError> {
        let run = self.name.clone();
        let Answer { status, out, err, .. } = self.ask(cx).await?;
        if status.success() {
            return Ok(out);
        }
        // Some programs print errors to standard output.
        let last = if err.is_empty() { out.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("") } else { &err };
        Err(ToolError::Exec(ExecError::Status { run, status, last: last.to_owned() }))
    }
}

impl Context<'_> {
    /// Runs a program; standard output, if it exits with 0.
    pub(crate) async fn tool<S: AsRef<str>>(&self, args: &[S]) -> Result<String, ToolError> {
        Tool::new(args).run(self).await
    }
}

/// A file in memory with that content, to be read from its beginning.
fn memory(bytes: &[u8]) -> io::Result<File> {
    let mut file: File = memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC)?.into();
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

//! The `git` command: for repositories that libgit2 cannot open, and for the network.
//!
//! Objects are read through one long-lived `git cat-file --batch`; everything else is one process per call, with time limits. What a
//! partial clone lacks git fetches by itself. The `GIT_*` variables that name directories are removed from its environment, unless the
//! repository was discovered by them.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use groundplan_core::source::{Entry, EntryKind};
use groundplan_protocol::ids::CommitId;

use super::{
    error::RepositoryError,
    process::{LOCAL, Limits, Processes, Running, Watchdog},
    read::{CommitInfo, Paths, Room, sorted},
};

/// A repository that is read by the `git` command.
pub(super) struct GitCommand {
    dir: PathBuf,
    /// Whether the repository was discovered by `GIT_DIR`, which `git` must then see too.
    from_env: bool,
    /// Started at the first read.
    batch: Mutex<Option<Batch>>,
    processes: Processes,
}

/// A running `git cat-file --batch`.
struct Batch {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    // Dropped before the process, whose number it has.
    watchdog: Watchdog,
    _running: Running,
}

/// How long a read may take: in a partial clone git asks a server.
const READ: Duration = Duration::from_secs(60);

/// How much of a file is read at a time, in bytes.
const PIECE: usize = 64 * 1024;

const DIRECTORIES: [&str; 6] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
];

/// The `git` command in `dir`; `from_env`: with the variables by which it finds a repository.
pub(super) fn git(dir: &Path, from_env: bool) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").stdin(Stdio::null());
    if !from_env {
        DIRECTORIES.iter().for_each(|name| {
            command.env_remove(name);
        });
    }
    command
}

fn output(processes: &Processes, mut command: Command, args: &[&str]) -> Result<Vec<u8>, RepositoryError> {
    let what = args.first().copied().unwrap_or_default();
    processes.output(command.args(args), what, LOCAL, &mut |_| {})
}

/// Runs `git` in `dir` within limits, independent of the environment's `GIT_*` directories, and returns its standard output.
pub(super) fn run(
    processes: &Processes,
    dir: &Path,
    args: &[&str],
    limits: Limits,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, RepositoryError> {
    let what = args.iter().copied().find(|arg| !arg.starts_with('-') && !arg.contains('=')).unwrap_or_default();
    processes.output(git(dir, false).args(args), what, limits, progress)
}

impl GitCommand {
    pub(super) fn open(path: &Path, discover: bool, processes: &Processes) -> Result<(Self, Paths), RepositoryError> {
        let from_env = discover && std::env::var_os("GIT_DIR").is_some();
        let args = ["rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir"];
        let out = output(processes, git(path, from_env), &args).map_err(|e| match e {
            RepositoryError::Git { stderr, .. } if stderr.contains("dubious ownership") => {
                RepositoryError::Owner { path: path.to_owned() }
            }
            RepositoryError::Git { stderr, .. } if stderr.contains("not a git repository") => {
                RepositoryError::NotARepository { path: path.to_owned() }
            }
            other => other,
        })?;
        let text = String::from_utf8_lossy(&out);
        let mut lines = text.lines().map(PathBuf::from);
        let git_dir = lines.next().unwrap_or_else(|| path.to_owned());
        let common_dir = lines.next().unwrap_or_else(|| git_dir.clone());
        let dir = if from_env { path.to_owned() } else { git_dir.clone() };
        let paths = Paths { given: path.to_owned(), git_dir, common_dir };
        Ok((Self::beside(dir, from_env, processes), paths))
    }

    fn run(&self, args: &[&str]) -> Result<Vec<u8>, RepositoryError> {
        output(&self.processes, git(&self.dir, self.from_env), args)
    }

    fn text(&self, args: &[&str]) -> Result<String, RepositoryError> {
        Ok(String::from_utf8_lossy(&self.run(args)?).into_owned())
    }

    pub(super) fn default_branch(&self) -> Result<String, RepositoryError> {
        let name = self.text(&["symbolic-ref", "--quiet", "HEAD"]).map_err(|_| RepositoryError::NoDefaultBranch)?;
        name.trim().strip_prefix("refs/heads/").map(str::to_owned).ok_or(RepositoryError::NoDefaultBranch)
    }

    pub(super) fn branch(&self, name: &str) -> Result<Option<CommitId>, RepositoryError> {
        let out = self.text(&["for-each-ref", "--format=%(refname) %(objectname)", &format!("refs/heads/{name}")])?;
        let wanted = format!("refs/heads/{name} ");
        Ok(out.lines().find_map(|l| l.strip_prefix(&wanted)).and_then(|id| CommitId::new(id).ok()))
    }

    pub(super) fn branches(&self) -> Result<Vec<String>, RepositoryError> {
        let out = self.text(&["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"])?;
        Ok(out.lines().map(str::to_owned).collect())
    }

    pub(super) fn rev_parse(&self, rev: &str) -> Result<CommitId, RepositoryError> {
        let no_commit = || RepositoryError::NoCommit { rev: rev.to_owned(), shallow: false };
        let commit = format!("{rev}^{{commit}}");
        let out = self.text(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]);
        CommitId::new(out.map_err(|_| no_commit())?.trim()).map_err(|_| no_commit())
    }

    pub(super) fn describe(&self, id: &CommitId) -> Result<CommitInfo, RepositoryError> {
        let vanished = || RepositoryError::Vanished { commit: id.clone() };
        let out = self.text(&["show", "--no-patch", "--format=%s%n%an%n%ct", id.as_str()]).map_err(|_| vanished())?;
        let mut lines = out.lines();
        let mut next = || lines.next().unwrap_or_default().to_owned();
        let (subject, author, time) = (next(), next(), next());
        Ok(CommitInfo { id: id.clone(), subject, author, time: time.parse().unwrap_or_default() })
    }

    pub(super) fn entries(&self, id: &CommitId) -> Result<Arc<[Entry]>, RepositoryError> {
        let out = self.run(&["ls-tree", "-r", "-z", "--full-tree", id.as_str()]).map_err(|e| match e {
            RepositoryError::Printed { .. } => {
                RepositoryError::Unlisted { why: "it has too many files, or too long paths".to_owned() }
            }
            RepositoryError::Git { stderr, .. }
                if stderr.contains("not a tree object") || stderr.contains("Not a valid") =>
            {
                RepositoryError::Vanished { commit: id.clone() }
            }
            other => other,
        })?;
        // `<mode> <type> <object>\t<path>`, each ended by NUL, so that paths are not quoted (git-ls-tree(1)).
        let entry = |line: &[u8]| {
            let tab = line.iter().position(|b| *b == b'\t')?;
            let head = std::str::from_utf8(&line[..tab]).ok()?;
            let mut fields = head.split(' ');
            let (mode, _, oid) = (fields.next()?, fields.next()?, fields.next()?);
            let kind = match mode {
                "160000" => EntryKind::Submodule,
                "120000" => EntryKind::Symlink,
                _ => EntryKind::File,
            };
            let path = String::from_utf8_lossy(&line[tab + 1..]).as_ref().into();
            Some(Entry { path, kind, version: oid.into(), executable: mode == "100755" })
        };
        let entries: Vec<Entry> = out.split(|b| *b == 0).filter_map(entry).collect();
        entries.iter().try_for_each(|entry| Room::descend(entry.path.matches('/').count()))?;
        Ok(sorted(entries))
    }

    pub(super) fn blob(&self, oid: &str) -> Result<Arc<[u8]>, String> {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match &mut *batch {
            Some(running) => running.read(oid),
            none => self.start().and_then(|started| none.insert(started).read(oid)),
        };
        // After an error the stream may be in the middle of an object: the next read starts a new process.
        read.inspect_err(|_| *batch = None).map_err(|e| e.to_string())
    }

    /// Reads a file in pieces, each with the length of the whole; `take` returns whether to go on. The error is the cause alone.
    pub(super) fn scan(&self, oid: &str, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), String> {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match &mut *batch {
            Some(running) => running.scan(oid, take),
            none => self.start().and_then(|started| none.insert(started).scan(oid, take)),
        };
        // In the middle of an object, after an error or because no more was wanted, the next read starts a new process.
        if !matches!(read, Ok(true)) {
            *batch = None;
        }
        read.map(drop).map_err(|e| e.to_string())
    }

    /// A reader of the same repository that libgit2 has opened, for objects that libgit2 would hold as a whole.
    pub(super) fn beside(dir: PathBuf, from_env: bool, processes: &Processes) -> Self {
        Self { dir, from_env, batch: Mutex::new(None), processes: processes.clone() }
    }

    /// A `git` command in the repository, and what runs it.
    pub(super) fn command(&self) -> (Command, &Processes) {
        (git(&self.dir, self.from_env), &self.processes)
    }

    fn start(&self) -> io::Result<Batch> {
        let mut command = git(&self.dir, self.from_env);
        // Above this, git streams an object as well.
        command
            .args(["-c", "core.bigFileThreshold=1m", "cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut running = self.processes.start(&mut command)?;
        let (stdin, stdout) = (running.child.stdin.take(), running.child.stdout.take());
        match (stdin, stdout) {
            (Some(stdin), Some(stdout)) => {
                let watchdog = Watchdog::of(&running, READ);
                Ok(Batch { stdin, stdout: BufReader::new(stdout), watchdog, _running: running })
            }
            _ => Err(io::Error::other("`git cat-file` has no pipes")),
        }
    }
}

impl Batch {
    fn read(&mut self, oid: &str) -> io::Result<Arc<[u8]>> {
        let size = self.ask(oid)?;
        let mut bytes = vec![0; size as usize + 1];
        self.fill(&mut bytes)?;
        bytes.truncate(size as usize);
        Ok(bytes.into())
    }

    /// Reads a file in pieces; whether it was read to its end.
    fn scan(&mut self, oid: &str, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> io::Result<bool> {
        let size = self.ask(oid)?;
        if !take(size, &[]) {
            return Ok(false);
        }
        let (mut piece, mut left) = (vec![0; PIECE], size);
        while left > 0 {
            let n = left.min(PIECE as u64) as usize;
            self.fill(&mut piece[..n])?;
            left -= n as u64;
            if !take(size, &piece[..n]) {
                return Ok(false);
            }
        }
        // The line break after the content.
        self.fill(&mut piece[..1])?;
        Ok(true)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.watchdog.arm(true);
        let read = self.stdout.read_exact(bytes);
        self.watchdog.arm(false);
        read
    }

    /// Asks for a file; its length, after which its content follows on standard output.
    fn ask(&mut self, oid: &str) -> io::Result<u64> {
        writeln!(self.stdin, "{oid}")?;
        self.stdin.flush()?;
        // `<object> <type> <size>`, then the content and a newline (git-cat-file(1)); `<object> missing` for an unknown one.
        let mut head = String::new();
        self.watchdog.arm(true);
        let read = self.stdout.read_line(&mut head);
        self.watchdog.arm(false);
        if read? == 0 {
            return Err(io::Error::other("`git cat-file` ended without an answer, or did not answer in time"));
        }
        let size = head.trim_end().rsplit_once(' ').and_then(|(rest, size)| {
            let size: u64 = size.parse().ok()?;
            rest.ends_with(" blob").then_some(size)
        });
        size.ok_or_else(|| io::Error::other(format!("git reports: {}", head.trim_end())))
    }
}

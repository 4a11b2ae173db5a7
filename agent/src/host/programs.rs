//! Programs of plugins: kept by digest for as long as a task that was applied by one may need it again.
//!
//! In: what tasks ship. Out: a program that is complete and may be run, whatever happened since. A removal, an effect or a drift
//! check comes without content, so a program is dropped only when no task claims it any more and the ledger holds that, which
//! it does once a newer plan is carried out, or when the agent starts.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use groundplan_protocol::{digest::Digest, ids::Generation, kinds::TaskParams};

use super::{fs::files::Sum, job::Content};
use crate::private;

/// Why a program is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("its program is missing from {}; `groundplan recheck` brings it back while the task is in the site", dir.display())]
    Missing { dir: PathBuf },
    #[error("cannot keep its program as {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The folder of programs.
#[derive(Debug)]
pub(crate) struct Programs {
    dir: PathBuf,
    /// Programs that no task claimed at the end of a job, each with the plan of that job.
    unused: Mutex<Vec<(Generation, Digest)>>,
    /// Programs that have printed the description with this digest.
    agree: Mutex<BTreeSet<(Digest, Digest)>>,
}

impl Programs {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("plugins"), unused: Mutex::default(), agree: Mutex::default() }
    }

    /// The program, verified; written from `content` if the file is missing or damaged. The task that uses it claims it by then.
    pub(crate) fn ready(&self, digest: Digest, content: Option<&Content>) -> Result<PathBuf, ProgramError> {
        let _turn = self.turn();
        let path = self.path(digest);
        let whole = File::open(&path).and_then(Sum::of).is_ok_and(|sum| sum.digest == digest);
        if !whole {
            let content = content.ok_or_else(|| ProgramError::Missing { dir: self.dir.clone() })?;
            self.put(&path, content).map_err(|source| ProgramError::Io { path: path.clone(), source })?;
        }
        Ok(path)
    }

    /// Whether a program has printed the description with this digest, since the agent started.
    pub(crate) fn agrees(&self, program: Digest, description: Digest) -> bool {
        self.agreed().contains(&(program, description))
    }

    /// Notes that it has.
    pub(crate) fn note_agreement(&self, program: Digest, description: Digest) {
        self.agreed().insert((program, description));
    }

    fn agreed(&self) -> MutexGuard<'_, BTreeSet<(Digest, Digest)>> {
        self.agree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes it completely, and only then under its name.
    fn put(&self, path: &Path, content: &Content) -> io::Result<()> {
        private::directory(&self.dir)?;
        let temporary = path.with_extension("part");
        let mut file = private::create(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(0o700))?;
        match content {
            Content::Bytes(bytes) => file.write_all(bytes)?,
            Content::File(from) => _ = io::copy(&mut File::open(from)?, &mut file)?,
        }
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Notes that no task claims it any more, at the end of a job of `plan`.
    pub(crate) fn unused(&self, digest: Digest, plan: Generation) {
        self.turn().push((plan, digest));
    }

    /// Drops what plans before `plan` left unused: the ledger holds by now that they did. What is claimed again stays.
    pub(crate) fn drop_unused(&self, plan: Generation, held: impl Fn(Digest) -> bool) {
        let mut unused = self.turn();
        unused.retain(|(left_by, digest)| {
            let due = *left_by < plan;
            if due && !held(*digest) {
                // A file that cannot be removed now is swept when the agent starts.
                let _ = fs::remove_file(self.path(*digest));
            }
            !due
        });
    }

    /// Drops all but what is `used`.
    pub(crate) fn sweep(&self, used: &BTreeSet<Digest>) {
        let used: BTreeSet<PathBuf> = used.iter().map(|digest| self.path(*digest)).collect();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if !used.contains(&entry) {
                let _ = fs::remove_file(entry);
            }
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn turn(&self) -> MutexGuard<'_, Vec<(Generation, Digest)>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The plugin that carries a task out, if it is one of the site's own kinds.
pub(crate) fn of(params: &TaskParams) -> Option<Digest> {
    match params {
        TaskParams::Plugin(plugin) => plugin.program,
        _ => None,
    }
}

//! The host's package manager, run: one job at a time, its locks waited for, its index fetched when it is too old.
//!
//! In: a backend's command lines. Out: their output, or why they failed, with their own messages. A transaction that has begun is
//! not interrupted when the job is cancelled: half-installed packages are worse than a wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use groundplan_protocol::{
    kinds::{Package, Run},
    report::Output,
};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};

use super::{
    apk::Apk,
    apt::Apt,
    backend::{Backend, CommandLine, Installed, Versions},
    dnf::Dnf,
    error::PackageError,
    guard::{self, Guard},
    lock::{self, Held},
    zypper::Zypper,
};
use crate::host::{
    cancel::Cancel,
    kinds::context::Context,
    process::{
        exec::{self, ExecError, Limit},
        spawn::{Program, find},
    },
    tool::{Answer, Tool},
};

/// All backends, in the order in which they are searched for on a host.
const BACKENDS: [&dyn Backend; 4] = [&Apt, &Dnf, &Zypper, &Apk];

/// Package managers do not run side by side, so package tasks run one after another.
static TURN: Mutex<()> = Mutex::const_new(());

/// How long one transaction may take.
const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);
/// How often a lock is checked.
const POLL: Duration = Duration::from_millis(250);

/// A host's package manager, at work for one task.
pub(super) struct Manager<'c> {
    pub(super) cx: &'c Context<'c>,
    pub(super) backend: &'static dyn Backend,
    lock_timeout: Duration,
    /// Whether the index was fetched in this job.
    refreshed: AtomicBool,
}

impl<'c> Manager<'c> {
    /// The package manager of this host.
    pub(super) fn find(cx: &'c Context<'c>, params: &Package) -> Result<Self, PackageError> {
        let path = cx.host.environment.env.get("PATH");
        let backend = BACKENDS.into_iter().find(|backend| find(backend.program(), path).is_ok());
        let backend = backend.ok_or(PackageError::NoManager)?;
        Ok(Self { cx, backend, lock_timeout: params.lock_timeout().into(), refreshed: AtomicBool::new(false) })
    }

    /// Waits until neither another package task nor another program uses the package manager.
    pub(super) async fn turn(&self) -> Result<MutexGuard<'static, ()>, PackageError> {
        let turn = tokio::select! {
            turn = TURN.lock() => turn,
            () = self.cx.cancel.cancelled() => return Err(PackageError::Cancelled),
        };
        // A guard that a killed agent has left.
        guard::restore().map_err(PackageError::Guard)?;
        // An installation in progress by another program would look like an interrupted one.
        self.unlocked(Instant::now() + self.lock_timeout).await?;
        Ok(turn)
    }

    pub(super) async fn installed(&self) -> Result<Installed, PackageError> {
        Ok(self.backend.read_list(&self.ask(&self.backend.list(), 0).await?))
    }

    pub(super) async fn held(&self) -> Result<BTreeSet<String>, PackageError> {
        let words = self.backend.held().ok_or(PackageError::NoHold(self.backend.program()))?;
        Ok(self.backend.read_held(&self.ask(&words, 0).await?))
    }

    /// The packages that were chosen by hand; `None` where that is not to be had.
    pub(super) async fn chosen(&self, installed: &Installed) -> Result<Option<BTreeSet<String>>, PackageError> {
        let Some(words) = self.backend.chosen() else { return Ok(None) };
        Ok(Some(self.backend.read_chosen(&self.ask(&words, 0).await?, installed)))
    }

    /// Whether the index has `name` only as what other packages provide.
    pub(super) async fn is_virtual(&self, name: &str) -> Result<bool, PackageError> {
        let Some(words) = self.backend.versions(&[name], false) else { return Ok(false) };
        let index = self.backend.read_versions(&self.ask(&words, 0).await?);
        Ok(index.get(name).is_some_and(|versions| versions.all.is_empty()))
    }

    /// Those of `names` of which the index has a newer version.
    pub(super) async fn upgrades<'n>(&self, names: &[&'n str]) -> Result<Vec<&'n str>, PackageError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let newer = self.backend.read_upgrades(&self.ask(&self.backend.upgrades(names), 100).await?);
        Ok(names.iter().copied().filter(|name| newer.contains(*name)).collect())
    }

    /// What would be removed with `names`; empty if the backend cannot list it.
    pub(super) async fn preview(&self, names: &[&str], wide: bool) -> Result<BTreeSet<String>, PackageError> {
        let Some(words) = self.backend.preview(names, wide) else { return Ok(BTreeSet::new()) };
        Ok(self.backend.read_preview(&self.ask(&words, 0).await?))
    }

    /// The wanted versions, in the form for installing. Fetches the index if it does not have them.
    pub(super) async fn resolve<'n>(
        &self,
        names: &[&'n str],
        wanted: Option<&str>,
    ) -> Result<Vec<(&'n str, Option<String>)>, PackageError> {
        let pattern = || wanted.map(str::to_owned);
        let Some(words) = self.backend.versions(names, wanted.is_some()) else {
            return Ok(names.iter().map(|name| (*name, pattern())).collect());
        };
        loop {
            let index = self.backend.read_versions(&self.ask(&words, 0).await?);
            let found: Result<Vec<_>, _> = names.iter().map(|name| pick(&index, name, wanted)).collect();
            match found {
                Err(_) if !self.has_refreshed() => self.refresh().await?,
                found => return found,
            }
        }
    }

    /// Fetches the index if it is older than `most`. If that fails, the old one is used.
    pub(super) async fn ensure_fresh(&self, most: Duration) -> Result<(), PackageError> {
        let age = age(self.backend.index());
        if self.has_refreshed() || age.is_some_and(|age| age <= most) {
            return Ok(());
        }
        match self.refresh().await {
            Err(error @ PackageError::Failed { .. }) if age.is_some() => {
                self.cx.report(&format!("{error}; using the existing one"));
                Ok(())
            }
            result => result,
        }
    }

    /// Whether the index was fetched in this job.
    pub(super) fn has_refreshed(&self) -> bool {
        self.refreshed.load(Ordering::Relaxed)
    }

    /// Fetches the package index. Counts as fetched also if that fails, so that this job does not try twice.
    pub(super) async fn refresh(&self) -> Result<(), PackageError> {
        self.refreshed.store(true, Ordering::Relaxed);
        let output = self.run("fetch the package index", &self.backend.refresh(), &[]).await?;
        let warnings: Vec<&str> = output.lines().filter(|line| line.starts_with("W: ")).take(3).collect();
        if warnings.is_empty() {
            // If nothing was new, only this shows that the index was fetched.
            let touch = |folder: &&str| fs::File::open(folder).and_then(|file| file.set_modified(SystemTime::now()));
            self.backend.index().iter().filter(|folder| Path::new(folder).is_dir()).take(1).try_for_each(touch).ok();
        } else {
            self.cx.report(&warnings.join("\n"));
        }
        Ok(())
    }

    /// Runs a command that changes the host, with `env` beside the backend's own variables; returns all that it printed.
    pub(super) async fn run(
        &self,
        doing: &str,
        words: &CommandLine,
        env: &[(&str, &str)],
    ) -> Result<String, PackageError> {
        let until = Instant::now() + self.lock_timeout;
        let run = Run::Args(words.clone());
        let words = self.backend.env().iter().chain(env).chain(&[("LC_ALL", "C.UTF-8")]);
        let env: BTreeMap<String, String> = words.map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let program = Program { env: &env, ..Program::plain(&run) };
        let host = self.cx.host;
        loop {
            self.unlocked(until).await?;
            // Never cancelled: a package manager that is killed halfway leaves packages half installed.
            let never = Cancel::never();
            let ran = exec::run(&host.environment, &program, Limit::of(LIMIT), host.stop_grace, &never).await;
            let (end, output) = ran.success(&run);
            let text = output.as_ref().map(text).unwrap_or_default();
            match end {
                Ok(()) => return Ok(text),
                // Another program may take the lock between the check and the start.
                Err(ExecError::Status { .. }) if self.backend.is_locked(&text) && Instant::now() < until => {
                    sleep(POLL).await;
                }
                Err(ExecError::Status { .. }) => {
                    self.cx.print(output);
                    let cause = self.backend.cause(&text);
                    return Err(PackageError::Failed { doing: doing.to_owned(), cause, output: text });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until no process holds the package manager's locks.
    async fn unlocked(&self, until: Instant) -> Result<(), PackageError> {
        let begun = Instant::now();
        let mut last: Option<Held> = None;
        while let Some(held) = lock::held(self.backend.locks()) {
            if Instant::now() >= until {
                let Held { lock, holder } = held;
                return Err(PackageError::Locked { lock, holder, seconds: self.lock_timeout.as_secs() });
            }
            last = Some(held);
            tokio::select! {
                () = sleep(POLL) => {}
                () = self.cx.cancel.cancelled() => return Err(PackageError::Cancelled),
            }
        }
        if let Some(Held { lock, holder }) = last {
            self.cx
                .report(&format!("waited {} s for {holder}, which held {lock}", begun.elapsed().as_secs_f32().ceil()));
        }
        Ok(())
    }

    /// Prevents the start of services until the guard is dropped, where packages start them.
    pub(super) fn guard(&self, forbid: bool) -> Result<Option<Guard>, PackageError> {
        let needed = forbid && self.backend.program() == Apt.program();
        needed.then(Guard::set).transpose().map_err(PackageError::Guard)
    }

    /// Runs a command that changes nothing; with dnf, an exit status of `fine` counts as success as well.
    async fn ask(&self, words: &CommandLine, fine: i32) -> Result<String, PackageError> {
        let Answer { status, out, err, .. } = Tool::new(words).ask(self.cx).await?;
        if status.success() || status.code() == Some(fine) && self.backend.program() == Dnf.program() {
            return Ok(out);
        }
        let cause = if err.is_empty() { self.backend.cause(&out) } else { self.backend.cause(&err) };
        let doing = format!("answer `{}`", exec::shorten(&Run::Args(words.clone())));
        Err(PackageError::Failed { doing, cause, output: String::new() })
    }
}

/// The wanted version of `name`.
fn pick<'n>(
    index: &BTreeMap<String, Versions>,
    name: &'n str,
    wanted: Option<&str>,
) -> Result<(&'n str, Option<String>), PackageError> {
    let versions = index.get(name).ok_or_else(|| PackageError::Unknown { name: name.to_owned() })?;
    let Some(wanted) = wanted else { return Ok((name, None)) };
    let found = versions.all.iter().find(|version| super::backend::is_like(version, wanted));
    let found = found.ok_or_else(|| PackageError::NoVersion {
        name: name.to_owned(),
        wanted: wanted.to_owned(),
        there: if versions.all.is_empty() { "none".to_owned() } else { versions.all.join(", ") },
    })?;
    Ok((name, Some(found.clone())))
}

/// How old the index in `folders` is; `None` if there is none.
fn age(folders: &[&str]) -> Option<Duration> {
    let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    let entries = || folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    // Lock files and empty folders are not an index.
    let is_index = |entry: &fs::DirEntry| !matches!(entry.file_name().to_str(), Some("lock" | "partial" | "auxfiles"));
    entries().find(is_index)?;
    let newest = folders.iter().filter_map(|folder| modified(Path::new(folder))).max()?;
    // One with a time in the future counts as new.
    Some(newest.elapsed().unwrap_or_default())
}

fn text(output: &Output) -> String {
    match output.omitted {
        0 => output.head.clone(),
        _ => format!("{}\n{}", output.head, output.tail),
    }
}

//! Installing what is missing or has become old, and noting what that brought.
//!
//! In: the packages that a task names. Out: the memory with what came because of them, also after a failure. Which packages were there
//! before is on the disk before the installation begins, for the case that the agent is killed before it is known what came.

use groundplan_protocol::kinds::PackageState;

use super::{
    Task,
    backend::Install,
    error::PackageError,
    guard, list,
    memory::{Installing, Memory},
};

impl Task<'_> {
    /// Installs missing packages and newer versions.
    pub(super) async fn install_wanted(&self, memory: &mut Memory) -> Result<(), PackageError> {
        let manager = &self.manager;
        let mut before = manager.installed().await?;
        let latest = self.params.state() == PackageState::Latest;
        let newer = if latest { self.newer(&before).await? } else { Vec::new() };
        // In sync; for `present` this is known without fetching the index.
        if self.missing(&before).is_empty() && newer.is_empty() {
            return Ok(());
        }
        let mut missing = self.missing(&before);
        if !missing.is_empty() {
            manager.ensure_fresh(self.params.update_cache().into()).await?;
        }
        // Before anything is changed, so that an unknown version is an error without side effects.
        let mut resolved = manager.resolve(&missing, self.params.version.as_deref()).await?;
        if let Some(words) = manager.backend.complete_interrupted().filter(|_| before.interrupted) {
            self.cx().report("an earlier installation was interrupted; completing it first");
            // Even if another package stays broken, the wanted ones may still be installable.
            if let Err(error) = manager.run("complete it", &words, &[]).await {
                self.cx().report(&error.to_string());
            }
            before = manager.installed().await?;
            missing = self.missing(&before);
            resolved.retain(|(name, _)| missing.contains(name));
        }
        memory.installing = Some(Installing {
            before: before.names().map(str::to_owned).collect(),
            names: missing.iter().map(|&name| name.to_owned()).collect(),
        });
        self.cx().remember_first(memory)?;
        let result = self.install(resolved, &newer).await;
        // What was installed is noted even after a failure: a later removal must find it.
        let after = manager.installed().await?;
        memory.take_stock(&after);
        self.cx().remember(memory);
        self.note_along(memory.along.iter())?;
        // The state counts, not the exit code: a failed script of another package is no failure of this task. But without the
        // wanted packages, or a way to see whether they are the newest, an error is one.
        match (result, self.missing(&after)) {
            (Err(error), missing) if !missing.is_empty() || latest => Err(error),
            (Ok(()), missing) if !missing.is_empty() => Err(PackageError::NotThere(list(&missing))),
            (Err(error), _) => {
                self.cx().report(&format!("installed, but the package manager reported another failure: {error}"));
                Ok(())
            }
            (Ok(()), _) => Ok(()),
        }
    }

    async fn install(&self, mut missing: Vec<(&str, Option<String>)>, newer: &[&str]) -> Result<(), PackageError> {
        let params = self.params;
        let newer = newer.iter().map(|name| (*name, None)).collect::<Vec<_>>();
        let mut transactions = Vec::new();
        if self.manager.backend.installs_newer() {
            missing.extend(newer);
            transactions.push((missing, params.state() == PackageState::Latest));
        } else {
            transactions.extend([(missing, false), (newer, true)]);
        }
        let _guard = self.manager.guard(params.start_services == Some(false))?;
        let env: &[_] = if params.start_services == Some(false) { &[guard::VARIABLE] } else { &[] };
        for (names, upgrade) in transactions.into_iter().filter(|(names, _)| !names.is_empty()) {
            let doing = format!("install {}", list(&names.iter().map(|(name, _)| *name).collect::<Vec<_>>()));
            let install = Install { names, upgrade, recommends: params.recommends, change_held: params.hold.is_some() };
            let words = self.manager.backend.install(&install);
            let unknown = match self.manager.run(&doing, &words, env).await {
                Err(PackageError::Failed { output, doing, cause }) => match self.manager.backend.unknown(&output) {
                    Some(name) => match self.manager.backend.providers(&output).as_slice() {
                        [] => name,
                        providers => return Err(PackageError::Virtual { name, providers: list(providers) }),
                    },
                    None => return Err(PackageError::Failed { output, doing, cause }),
                },
                result => {
                    result?;
                    continue;
                }
            };
            // The name may be newer than the index: try once more with a fresh one.
            if !self.manager.has_refreshed() {
                self.manager.refresh().await?;
                match self.manager.run(&doing, &words, env).await {
                    Err(PackageError::Failed { output, .. }) if self.manager.backend.unknown(&output).is_some() => {}
                    result => {
                        result?;
                        continue;
                    }
                }
            }
            return Err(PackageError::Unknown { name: unknown });
        }
        Ok(())
    }
}

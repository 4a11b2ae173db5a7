//! `package`: packages, with the host's own package manager.
//!
//! Missing packages are installed in one transaction; installed ones are left alone. The task's memory holds what it installed and
//! what was installed with that, and removal removes no more than that, and nothing that other packages need. If the agent was
//! killed during an installation, what it had installed counts as found.

mod apk;
mod apt;
#[cfg(test)]
mod apt_tests;
mod backend;
mod dnf;
mod error;
mod guard;
mod lock;
mod manager;
mod marks;
mod zypper;

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{
    kinds::{Claim, Package, PackageState},
    plan::OnRemove,
};
use serde::{Deserialize, Serialize};

use self::{
    backend::{FoundState, Install, Installed},
    error::PackageError,
    manager::Manager,
};
use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::error::HostError;

/// The task's memory: what it did to the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    /// Packages that it installed because they are named.
    installed: BTreeSet<String>,
    /// Packages that were installed with those.
    along: BTreeSet<String>,
    held: BTreeSet<String>,
    unheld: BTreeSet<String>,
    /// Packages that were there as dependencies of others, and that it marked as chosen by hand.
    marked: BTreeSet<String>,
    /// Packages that it installed for a virtual one that is named, each with the name of that.
    stand_ins: BTreeMap<String, String>,
}

impl Memory {
    fn of(cx: &Context<'_>) -> Self {
        cx.memory().and_then(|memory| Self::deserialize(memory).ok()).unwrap_or_default()
    }

    fn keep(&self, cx: &Context<'_>) {
        cx.remember(serde_json::to_value(self).unwrap_or_default());
    }
}

impl Kind for Package {
    fn whole_host(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        Ok(Task { params: self, manager: Manager::find(cx, self)? }.check().await?.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        Task { params: self, manager: Manager::find(cx, self)? }.apply().await?;
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let mut memory = Memory::of(cx);
        if cx.on_remove == OnRemove::Delete && self.state() != PackageState::Absent {
            // Also those that were there before.
            memory.installed.extend(self.names.iter().cloned());
        }
        if memory == Memory::default() {
            if self.state() != PackageState::Absent {
                cx.report("left in place: all of it was there before this task");
            }
            return Ok(false);
        }
        Ok(Task { params: self, manager: Manager::find(cx, self)? }.remove(memory).await?)
    }
}

/// A task with its package manager.
struct Task<'c> {
    params: &'c Package,
    manager: Manager<'c>,
}

impl Task<'_> {
    fn cx(&self) -> &Context<'_> {
        self.manager.cx
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.params.names.iter().map(String::as_str)
    }

    async fn check(&self) -> Result<bool, PackageError> {
        let installed = self.manager.installed().await?;
        if self.cx().is_drift_check() {
            self.report_differences(&installed);
        }
        let in_sync = match self.params.state() {
            // A newer version in the index is not drift, and a drift check does not fetch the index.
            PackageState::Latest if self.cx().is_drift_check() => self.missing(&installed).is_empty(),
            PackageState::Absent => {
                !self.names().any(|name| self.is_to_go(&installed, name)) && self.provided(&installed).await?.is_none()
            }
            PackageState::Present => self.missing(&installed).is_empty(),
            PackageState::Latest => {
                let missing = self.missing(&installed).is_empty();
                missing && self.newer(&installed).await?.is_empty()
            }
        };
        let memory = Memory::of(self.cx());
        let left = memory.installed.iter().any(|name| self.is_given_up(&memory, name) && installed.is_there(name));
        if !in_sync || left {
            return Ok(false);
        }
        let (to_mark, to_unmark) = self.marking(&memory, &installed).await?;
        for name in &to_mark {
            self.cx().differs(&format!("package {name}: chosen"), Some("by hand"), Some("as a dependency"));
        }
        if !to_mark.is_empty() || !to_unmark.is_empty() {
            return Ok(false);
        }
        let (hold, release) = self.holding(&memory).await?;
        for (names, wanted, found) in [(&hold, "held", "not held"), (&release, "not held", "held")] {
            for name in names {
                self.cx().differs(&format!("package {name}: hold"), Some(wanted), Some(found));
            }
        }
        Ok(hold.is_empty() && release.is_empty())
    }

    /// Notes which packages are installed and should not be, or the other way round, or have another version.
    fn report_differences(&self, installed: &Installed) {
        let cx = self.cx();
        let absent = self.params.state() == PackageState::Absent;
        for name in self.names() {
            let found = installed.find(name).map(|found| match found.state {
                FoundState::Complete => found.version.clone(),
                FoundState::Partial => format!("{}, not whole", found.version),
                FoundState::Configuration => "configuration files".to_owned(),
            });
            let what = format!("package {name}");
            if absent && self.is_to_go(installed, name) {
                cx.differs(&what, None, found.as_deref());
            } else if !absent && !installed.has(name, self.params.version.as_deref()) {
                let found = found.filter(|_| installed.is_there(name));
                cx.differs(&what, Some(self.params.version.as_deref().unwrap_or("installed")), found.as_deref());
            }
        }
    }

    async fn apply(&self) -> Result<(), PackageError> {
        let _turn = self.manager.turn().await?;
        let mut memory = Memory::of(self.cx());
        let absent = self.params.state() == PackageState::Absent;
        if absent {
            // Holds first: the package manager does not remove a held package.
            self.set_holds(&mut memory).await?;
            self.remove_unwanted(&mut memory).await?;
        } else {
            // Holds last: only installed packages can be held.
            self.install_wanted(&mut memory).await?;
            self.set_marks(&mut memory).await?;
            self.set_holds(&mut memory).await?;
        }
        // An earlier version of the task may have named more packages.
        let given_up: Vec<String> =
            memory.installed.iter().filter(|name| self.is_given_up(&memory, name)).cloned().collect();
        if !given_up.is_empty() {
            self.give_up(&given_up, &memory.along).await?;
            memory.installed.retain(|name| !given_up.contains(name));
            memory.stand_ins.retain(|name, _| !given_up.contains(name));
            memory.keep(self.cx());
        }
        Ok(())
    }

    async fn remove(&self, memory: Memory) -> Result<bool, PackageError> {
        let _turn = self.manager.turn().await?;
        for (names, hold) in [(&memory.held, false), (&memory.unheld, true)] {
            let held = if names.is_empty() { BTreeSet::new() } else { self.manager.held().await? };
            let names: Vec<&str> =
                names.iter().map(String::as_str).filter(|name| held.contains(*name) != hold).collect();
            self.hold(&names, hold).await?;
        }
        let there = if memory.marked.is_empty() { Installed::default() } else { self.manager.installed().await? };
        let marked: Vec<&str> = memory.marked.iter().map(String::as_str).filter(|name| there.is_there(name)).collect();
        self.choose(&marked, false).await?;
        let installed: Vec<String> = memory.installed.iter().cloned().collect();
        let removed = self.give_up(&installed, &memory.along).await?;
        Ok(removed || !memory.held.is_empty() || !memory.unheld.is_empty() || !marked.is_empty())
    }

    /// Wanted packages that are not installed.
    fn missing(&self, installed: &Installed) -> Vec<&str> {
        self.names().filter(|name| !installed.has(name, self.params.version.as_deref())).collect()
    }

    /// Installed packages of which the index has a newer version.
    async fn newer(&self, installed: &Installed) -> Result<Vec<&str>, PackageError> {
        self.manager.ensure_fresh(self.params.update_cache().into()).await?;
        let names: Vec<&str> = self.names().filter(|name| installed.is_there(name)).collect();
        self.manager.upgrades(&names).await
    }

    /// Whether it is on the host and must be removed.
    fn is_to_go(&self, installed: &Installed, name: &str) -> bool {
        installed.is_there(name) || self.params.purge == Some(true) && installed.find(name).is_some()
    }

    /// A virtual package that is to be absent, with the first of those that provide it.
    async fn provided<'i>(&self, installed: &'i Installed) -> Result<Option<(&str, &'i str)>, PackageError> {
        for name in self.names().filter(|name| !installed.is_there(name)) {
            // A real package that another one replaces is absent, though its name is provided.
            if let Some(by) = installed.providers(name).next()
                && self.manager.is_virtual(name).await?
            {
                return Ok(Some((name, by)));
            }
        }
        Ok(None)
    }

    /// Whether neither this task nor any other wants it any more.
    fn is_given_up(&self, memory: &Memory, name: &str) -> bool {
        let named = memory.stand_ins.get(name).map_or(name, String::as_str);
        !self.params.names.iter().any(|wanted| wanted == named)
            && self.cx().held_by_another(&Claim::named("package", name)).is_none()
    }

    /// Installs missing packages and newer versions.
    async fn install_wanted(&self, memory: &mut Memory) -> Result<(), PackageError> {
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
        let result = self.install(resolved, &newer).await;
        // What was installed is noted even after a failure: a later removal must find it.
        let after = manager.installed().await?;
        memory
            .installed
            .extend(missing.iter().filter(|n| !before.is_there(n) && after.is_there(n)).map(|&n| n.to_owned()));
        for name in missing.iter().filter(|name| !after.is_there(name)) {
            let new = after.providers(name).filter(|by| !before.is_there(by));
            let new: Vec<(String, String)> = new.map(|by| (by.to_owned(), (*name).to_owned())).collect();
            memory.installed.extend(new.iter().map(|(by, _)| by.clone()));
            memory.stand_ins.extend(new);
        }
        let came = after.names().filter(|name| !before.is_there(name) && !name.contains(':'));
        memory.along.extend(came.filter(|name| !memory.installed.contains(*name)).map(str::to_owned));
        memory.keep(self.cx());
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

    /// Removes packages that are to be absent.
    async fn remove_unwanted(&self, memory: &mut Memory) -> Result<(), PackageError> {
        let installed = self.manager.installed().await?;
        let names: Vec<&str> = self.names().filter(|name| self.is_to_go(&installed, name)).collect();
        if let Some((name, by)) = self.provided(&installed).await? {
            return Err(PackageError::Virtual { name: name.to_owned(), providers: list(&[by]) });
        }
        if names.is_empty() {
            return Ok(());
        }
        let others = self.others(&names).await?;
        if !others.is_empty() {
            return Err(PackageError::Needed { names: list(&names), others: list(&others) });
        }
        self.remove_packages(&names).await?;
        memory.installed.retain(|name| !names.contains(&name.as_str()));
        memory.keep(self.cx());
        Ok(())
    }

    /// Removes what the task installed and no other package needs, with what was installed along; whether anything was removed.
    async fn give_up(&self, names: &[String], along: &BTreeSet<String>) -> Result<bool, PackageError> {
        let installed = self.manager.installed().await?;
        let held_by_another = |name: &str| self.cx().held_by_another(&Claim::named("package", name));
        // Packages that another task names stay, without removal and later installation in between.
        let mut going: Vec<&str> = Vec::new();
        for name in names.iter().map(String::as_str).filter(|name| installed.is_there(name)) {
            match held_by_another(name) {
                Some(other) => self.cx().report(&format!("{name} is left in place: it belongs to {other} now")),
                None => going.push(name),
            }
        }
        // A package that stays may need another one: repeated until no more stay.
        while !going.is_empty() && !self.others(&going).await?.is_empty() {
            let mut kept = Vec::new();
            for name in &going {
                let others = self.others(&[name]).await?;
                let others: Vec<&String> = others.iter().filter(|other| !going.contains(&other.as_str())).collect();
                if !others.is_empty() {
                    let others = others.iter().map(|other| other.as_str()).collect::<Vec<_>>();
                    self.cx().report(&format!("{name} is left in place: {} needs it", others.join(", ")));
                    kept.push(*name);
                }
            }
            // The manager names others for all together but for none alone: which one to keep is unknown, so all stay.
            if kept.is_empty() {
                self.cx().report(&format!("{} is left in place: other packages need it", list(&going)));
                return Ok(false);
            }
            going.retain(|name| !kept.contains(name));
        }
        if going.is_empty() {
            return Ok(false);
        }
        // What the manager would remove as no longer needed may include packages that were there before the task.
        let wide = self.manager.preview(&going, true).await?;
        let along: Vec<&str> = wide.iter().map(String::as_str).filter(|name| along.contains(*name)).collect();
        let along = along.into_iter().filter(|name| held_by_another(name).is_none() && !going.contains(name));
        let all: Vec<&str> = going.iter().copied().chain(along).collect();
        // Packages that were installed along go as well, but only if nothing beyond them would.
        let all = if self.others(&all).await?.is_empty() { all } else { going };
        self.remove_packages(&all).await?;
        Ok(true)
    }

    /// Packages that would be removed together with `names`.
    async fn others<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<String>, PackageError> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let going = self.manager.preview(&names, false).await?;
        let is_named = |name: &String| names.iter().any(|named| named.split(':').next() == name.split(':').next());
        Ok(going.into_iter().filter(|name| !is_named(name)).collect())
    }

    async fn remove_packages(&self, names: &[&str]) -> Result<(), PackageError> {
        let words = self.manager.backend.remove(names, self.params.purge == Some(true));
        let result = self.manager.run(&format!("remove {}", list(names)), &words, &[]).await;
        // Again the state counts: a failing script may come after the removal itself.
        let after = self.manager.installed().await?;
        let left: Vec<&str> = names.iter().copied().filter(|name| after.is_there(name)).collect();
        match result {
            Err(error) if left.is_empty() => {
                self.cx().report(&format!("removed, but the package manager reported another failure: {error}"));
                Ok(())
            }
            Ok(_) if !left.is_empty() => Err(PackageError::StillThere(list(&left))),
            result => result.map(drop),
        }
    }

    /// Packages to hold and packages to release.
    async fn holding<'m>(&'m self, memory: &'m Memory) -> Result<(Vec<&'m str>, Vec<&'m str>), PackageError> {
        let hold = self.params.hold;
        let given_up = |name: &&str| hold != Some(true) || self.is_given_up(memory, name);
        let mut release: Vec<&str> = memory.held.iter().map(String::as_str).filter(given_up).collect();
        if hold.is_none() && release.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let held = self.manager.held().await?;
        if hold == Some(false) {
            release.extend(self.names());
        }
        release.retain(|name| held.contains(*name));
        release.sort_unstable();
        release.dedup();
        let wanted = self.names().filter(|name| hold == Some(true) && !held.contains(*name));
        Ok((wanted.collect(), release))
    }

    async fn set_holds(&self, memory: &mut Memory) -> Result<(), PackageError> {
        let known = memory.clone();
        let (hold, release) = self.holding(&known).await?;
        if hold.is_empty() && release.is_empty() {
            return Ok(());
        }
        // The package manager first, the memory after it: the memory must not claim a hold that the task did not set.
        self.hold(&hold, true).await?;
        self.hold(&release, false).await?;
        for name in hold {
            // One that the task itself had released is back to how it was found.
            if !memory.unheld.remove(name) {
                memory.held.insert(name.to_owned());
            }
        }
        for name in release {
            if !memory.held.remove(name) {
                memory.unheld.insert(name.to_owned());
            }
        }
        memory.keep(self.cx());
        Ok(())
    }

    async fn hold(&self, names: &[&str], hold: bool) -> Result<(), PackageError> {
        if names.is_empty() {
            return Ok(());
        }
        let doing = format!("{} {}", if hold { "hold" } else { "release" }, list(names));
        self.manager.run(&doing, &self.manager.backend.hold(names, hold), &[]).await.map(drop)
    }
}

/// Names, for an error message.
fn list<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

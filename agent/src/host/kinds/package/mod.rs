//! `package`: packages, with the host's own package manager.
//!
//! Missing packages are installed in one transaction; installed ones are left alone. The task's memory holds what it installed and
//! what was installed with that, and removal removes no more than that, and nothing that other packages need. Before an installation it
//! also holds which packages there are, for the case that the agent is killed before it is known what came.

mod along;
mod apk;
mod apt;
#[cfg(test)]
mod apt_tests;
mod backend;
mod dnf;
mod error;
mod guard;
mod install;
mod lock;
mod manager;
mod marks;
mod memory;
mod zypper;

use std::collections::BTreeSet;

use groundplan_protocol::{
    kinds::{Claim, Package, PackageState},
    plan::OnRemove,
};

use self::{
    backend::{FoundState, Installed},
    error::PackageError,
    manager::Manager,
    memory::Memory,
};
use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::error::HostError;

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
        let is_present = self.state() != PackageState::Absent;
        if Memory::of(cx, self) == Memory::default() && !(is_present && cx.on_remove == OnRemove::Delete) {
            if is_present {
                cx.report("left in place: all of it was there before this task");
            }
            return Ok(false);
        }
        Ok(Task { params: self, manager: Manager::find(cx, self)? }.remove().await?)
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
        let memory = Memory::of(self.cx(), self.params);
        // In sync, it is not applied: what was handed over is kept all the same, and no more than that.
        if !self.cx().others.is_empty() && !self.cx().is_drift_check() {
            self.cx().remember(&memory);
        }
        let left = memory.installed.iter().any(|name| self.is_given_up(&memory, name) && installed.is_there(name));
        if !in_sync || left || memory.installing.is_some() {
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
        let mut memory = self.memory().await?;
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
            self.give_up(&given_up, &mut memory).await?;
            memory.installed.retain(|name| !given_up.contains(name));
            memory.stand_ins.retain(|name, _| !given_up.contains(name));
            self.cx().remember(&memory);
        }
        Ok(())
    }

    /// The memory, with what an interrupted installation brought; and marks as they were before an interrupted removal.
    async fn memory(&self) -> Result<Memory, PackageError> {
        let mut memory = Memory::of(self.cx(), self.params);
        if memory.installing.is_some() {
            memory.take_stock(&self.manager.installed().await?);
            self.cx().remember(&memory);
            self.note_along(memory.along.iter())?;
        }
        self.unmark_left(&memory).await?;
        Ok(memory)
    }

    async fn remove(&self) -> Result<bool, PackageError> {
        let _turn = self.manager.turn().await?;
        let mut memory = self.memory().await?;
        memory.leave_holds(self.cx());
        if self.cx().on_remove == OnRemove::Delete && self.params.state() != PackageState::Absent {
            // Also those that were there before.
            memory.installed.extend(self.names().map(str::to_owned));
        }
        for (names, hold) in [(&memory.held, false), (&memory.unheld, true)] {
            let held = if names.is_empty() { BTreeSet::new() } else { self.manager.held().await? };
            let names: Vec<&str> =
                names.iter().map(String::as_str).filter(|name| held.contains(*name) != hold).collect();
            self.hold(&names, hold).await?;
        }
        let there = if memory.marked.is_empty() { Installed::default() } else { self.manager.installed().await? };
        let marked: Vec<&str> = memory.marked.iter().map(String::as_str).filter(|name| there.is_there(name)).collect();
        self.choose(&marked, false).await?;
        let had_marks = !marked.is_empty();
        let installed: Vec<String> = memory.installed.iter().cloned().collect();
        let removed = self.give_up(&installed, &mut memory).await?;
        Ok(removed || !memory.held.is_empty() || !memory.unheld.is_empty() || had_marks)
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
        self.cx().remember(memory);
        Ok(())
    }

    /// Removes what the task installed and no other package needs, with what was installed along; whether anything was removed.
    async fn give_up(&self, names: &[String], memory: &mut Memory) -> Result<bool, PackageError> {
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
        // Of an earlier removal that ended halfway, what came along may be all that is left.
        if going.is_empty() && memory.removing.is_empty() {
            return Ok(false);
        }
        // What the manager would remove as no longer needed may include packages that were there before the task.
        let wide = self.manager.preview(&going, true).await?;
        let came_along = |name: &String| memory.along.contains(name) || self.came_along(name);
        let is_free = |name: &String| held_by_another(name).is_none() && !going.contains(&name.as_str());
        let along: BTreeSet<String> = wide.into_iter().filter(|name| came_along(name) && is_free(name)).collect();
        let all: Vec<&str> = going.iter().copied().chain(along.iter().map(String::as_str)).collect();
        // Packages that were installed along go as well, but only if nothing beyond them would.
        let (all, along) =
            if self.others(&all).await?.is_empty() { (all, along.clone()) } else { (going, BTreeSet::new()) };
        if all.is_empty() {
            return Ok(false);
        }
        memory.removing = along;
        self.cx().remember_first(memory)?;
        let result = self.remove_packages(&all).await;
        if result.is_err() {
            self.unmark_left(memory).await?;
        }
        result?;
        memory.removing.clear();
        self.forget_along(&all);
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
        for (names, is_hold) in [(&hold, true), (&release, false)].into_iter().filter(|(names, _)| !names.is_empty()) {
            for name in names.iter().copied() {
                let (done, undone) = match is_hold {
                    true => (&mut memory.held, &mut memory.unheld),
                    false => (&mut memory.unheld, &mut memory.held),
                };
                if !undone.contains(name) {
                    done.insert(name.to_owned());
                }
            }
            self.cx().change(memory, self.hold(names, is_hold)).await?;
            // One that the task itself had changed the other way is back to how it was found.
            let undone = if is_hold { &mut memory.unheld } else { &mut memory.held };
            undone.retain(|name| !names.contains(&&**name));
            self.cx().remember(memory);
        }
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

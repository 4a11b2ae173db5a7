//! Which packages are chosen by hand, and which are there only because others need them.
//!
//! A package that a task names is wanted for itself: without the mark, the package manager removes it with the last package that
//! needs it. The memory holds what the task marked, and that is marked as a dependency again when the task gives it up.

use groundplan_protocol::kinds::{Claim, PackageState};

use super::{Task, backend::Installed, error::PackageError, list, memory::Memory};

impl Task<'_> {
    /// Packages to mark as chosen by hand, because the task names them, and those that it marked and does not name any more.
    pub(super) async fn marking(
        &self,
        memory: &Memory,
        installed: &Installed,
    ) -> Result<(Vec<String>, Vec<String>), PackageError> {
        if self.params.state() == PackageState::Absent {
            return Ok((Vec::new(), Vec::new()));
        }
        let Some(chosen) = self.manager.chosen(installed).await? else { return Ok((Vec::new(), Vec::new())) };
        let is_chosen = |name: &str| chosen.contains(name);
        let mut to_mark = Vec::new();
        for name in self.names() {
            if installed.is_there(name) {
                to_mark.extend(Some(name.to_owned()).filter(|name| !is_chosen(name)));
            } else if !installed.providers(name).any(is_chosen) {
                to_mark.extend(installed.providers(name).next().map(str::to_owned));
            }
        }
        let is_left = |name: &&String| self.is_given_up(memory, name) && installed.is_there(name);
        let is_provider = |name: &&String| self.names().any(|named| installed.providers(named).any(|by| by == *name));
        let to_unmark = memory.marked.iter().filter(|name| is_left(name) && !is_provider(name)).cloned().collect();
        Ok((to_mark, to_unmark))
    }

    pub(super) async fn set_marks(&self, memory: &mut Memory) -> Result<(), PackageError> {
        let installed = self.manager.installed().await?;
        let (to_mark, to_unmark) = self.marking(memory, &installed).await?;
        if to_mark.is_empty() && to_unmark.is_empty() {
            return Ok(());
        }
        memory.marked.extend(to_mark.iter().cloned());
        self.cx().change(memory, self.choose(&to_mark, true)).await?;
        self.choose(&to_unmark, false).await?;
        memory.marked.retain(|name| !to_unmark.contains(name));
        self.cx().remember(memory);
        Ok(())
    }

    /// Marks as dependencies again what a removal was to take away and did not: apt notes all that it set out to remove as not there,
    /// also what a failed script keeps there, and that counts as chosen by hand from then on.
    pub(super) async fn unmark_left(&self, memory: &Memory) -> Result<(), PackageError> {
        if memory.removing.is_empty() {
            return Ok(());
        }
        let installed = self.manager.installed().await?;
        let Some(chosen) = self.manager.chosen(&installed).await? else { return Ok(()) };
        let is_wanted = |name: &str| self.cx().held_by_another(&Claim::named("package", name)).is_some();
        let left = |name: &&String| installed.is_there(name) && chosen.contains(*name) && !is_wanted(name);
        let left: Vec<&String> = memory.removing.iter().filter(left).collect();
        self.choose(&left, false).await
    }

    pub(super) async fn choose<S: AsRef<str>>(&self, names: &[S], chosen: bool) -> Result<(), PackageError> {
        if names.is_empty() {
            return Ok(());
        }
        let doing = format!("mark {} as {}", list(names), if chosen { "chosen by hand" } else { "dependencies" });
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        self.manager.run(&doing, &self.manager.backend.choose(&names, chosen), &[]).await.map(drop)
    }
}

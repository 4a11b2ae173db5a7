//! What a task remembers of packages, and what an installation has brought.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::kinds::{Claim, Package};
use serde::{Deserialize, Serialize};

use super::backend::Installed;
use crate::host::kinds::context::Context;

/// The task's memory: what it did to the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    /// Packages that it installed because they are named.
    pub(super) installed: BTreeSet<String>,
    /// Packages that were installed with those.
    pub(super) along: BTreeSet<String>,
    pub(super) held: BTreeSet<String>,
    pub(super) unheld: BTreeSet<String>,
    /// Packages that were there as dependencies of others, and that it marked as chosen by hand.
    pub(super) marked: BTreeSet<String>,
    /// Packages that it installed for a virtual one that is named, each with the name of that.
    pub(super) stand_ins: BTreeMap<String, String>,
    /// Packages that a removal of which the end is not noted yet takes away with those that are named: nothing else needed them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) removing: BTreeSet<String>,
    /// Packages that were there before an installation of which the end is not noted yet, and the names that it was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) installing: Option<Installing>,
}

/// An installation that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Installing {
    pub(super) before: BTreeSet<String>,
    pub(super) names: BTreeSet<String>,
}

impl Memory {
    /// What the task noted, or what was handed over to it, without the packages that other tasks have by now.
    pub(super) fn of(cx: &Context<'_>, params: &Package) -> Self {
        let mut memory: Self = cx.memory().and_then(|memory| Self::deserialize(memory).ok()).unwrap_or_default();
        let stand_ins = memory.stand_ins.clone();
        let is_theirs = |package: &String| {
            let named = stand_ins.get(package).unwrap_or(package);
            let claim = Claim::named("package", named.as_str());
            !params.names.contains(named) && cx.held_by_another(&claim).is_some()
        };
        for packages in [&mut memory.installed, &mut memory.held, &mut memory.unheld, &mut memory.marked] {
            packages.retain(|package| !is_theirs(package));
        }
        memory.stand_ins.retain(|package, _| !is_theirs(package));
        memory
    }

    /// Drops the holds and marks of what other tasks have taken over: they are theirs.
    pub(super) fn leave_holds(&mut self, cx: &Context<'_>) {
        let is_theirs = |name: &String| cx.held_by_another(&Claim::named("package", name.as_str())).is_some();
        for names in [&mut self.held, &mut self.unheld, &mut self.marked] {
            names.retain(|name| !is_theirs(name));
        }
    }

    /// Notes what an installation brought, by what is there after it.
    pub(super) fn take_stock(&mut self, after: &Installed) {
        let Some(Installing { before, names }) = self.installing.take() else { return };
        let was_there = |name: &str| before.contains(name);
        for name in names.into_iter().filter(|name| !was_there(name)) {
            if after.is_there(&name) {
                self.installed.insert(name);
                continue;
            }
            for by in after.providers(&name).filter(|by| !was_there(by)) {
                self.installed.insert(by.to_owned());
                self.stand_ins.insert(by.to_owned(), name.clone());
            }
        }
        let came = after.names().filter(|name| !was_there(name) && !name.contains(':'));
        self.along.extend(came.filter(|name| !self.installed.contains(*name)).map(str::to_owned));
    }
}

//! What a task remembers of packages, and what an installation has brought.

use std::collections::{BTreeMap, BTreeSet};

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
    pub(super) fn of(cx: &Context<'_>) -> Self {
        cx.memory().and_then(|memory| Self::deserialize(memory).ok()).unwrap_or_default()
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

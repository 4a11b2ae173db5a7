//! A commit as the shell keeps it: its tree and its validated files, beside what the machine keeps of it.

use std::{collections::BTreeSet, sync::Arc};

use groundplan_core::{SourceTree as _, locate::Locator};
use groundplan_inventory::{Diagnostic, DriftPolicy, Location};
use groundplan_machine::commit::{ActiveCommit, Commit, DriftSettings, Fault, FaultPlace, Rewind};
use groundplan_protocol::ids::{CommitId, ServiceId, SiteName};

use crate::{
    repository::{CommitInfo, GitTree},
    site::Loaded,
    terminal::format::{self, count},
};

/// A loaded commit, shared by the loop, the workers and readers.
pub(crate) struct Site {
    /// The files of the commit.
    pub(crate) tree: GitTree,
    /// Its site, inventory and services.
    pub(crate) loaded: Loaded,
    /// What the machine works with.
    pub(crate) active: Arc<ActiveCommit>,
}

impl Site {
    /// What was loaded from the tree of a commit.
    pub(crate) fn new(commit: Commit, tree: GitTree, loaded: Loaded) -> Self {
        let policies = loaded.catalog.services.iter().map(|(id, service)| (id, service.drift));
        let heals = |(id, own): (&ServiceId, Option<DriftPolicy>)| {
            (own.unwrap_or(loaded.site.drift.policy) == DriftPolicy::Heal).then(|| id.clone())
        };
        let heal: BTreeSet<ServiceId> = policies.filter_map(heals).collect();
        let drift = DriftSettings { interval: loaded.site.drift.interval, heal };
        let (site, desired) = (loaded.site.name.clone(), loaded.desired.clone());
        let fast_forward_only = loaded.site.fast_forward_only;
        Self { tree, active: Arc::new(ActiveCommit { commit, site, desired, drift, fast_forward_only }), loaded }
    }

    /// What becomes of drift in a service.
    pub(crate) fn drift_policy(&self, service: &ServiceId) -> DriftPolicy {
        let own = self.loaded.catalog.services.get(service).and_then(|service| service.drift);
        own.unwrap_or(self.loaded.site.drift.policy)
    }
}

impl From<CommitInfo> for Commit {
    fn from(info: CommitInfo) -> Self {
        Self { id: info.id, subject: info.subject, author: info.author, time: info.time, rewinds: None }
    }
}

/// A diagnostic with the lines of its places.
pub(crate) fn fault(diagnostic: &Diagnostic, locator: &mut Locator<'_>) -> Fault {
    let mut place = |at: &Location| {
        let lines = locator.lines(&at.file);
        let found = lines.and_then(|lines| Some((lines, lines.find(at.span())?)));
        let text = found.and_then(|(lines, at)| lines.line(at.line)).map(str::to_owned);
        let (line, column) = found.map(|(_, at)| (at.line, at.column)).unzip();
        let position = groundplan_core::plan::Position { file: at.file.to_string(), line, column };
        FaultPlace { place: position, text }
    };
    Fault {
        at: Some(place(&diagnostic.at)),
        message: diagnostic.message.clone(),
        label: diagnostic.label.clone(),
        related: diagnostic.related.iter().map(|(at, label)| (place(at), label.clone())).collect(),
        hint: diagnostic.hint.clone(),
    }
}

/// The fault of a commit that is no fast-forward, where only these are accepted.
pub(crate) fn rewound(commit: &CommitId, Rewind { from, commits }: &Rewind) -> Fault {
    let [short, before] = [commit, from].map(|id| format::short(id.as_str()));
    let what = match commits {
        Some(commits) => format!("{} of the active commit {before} are not in its history", count(*commits, "commit")),
        None => format!("the active commit {before} is not in the repository any more"),
    };
    Fault {
        at: None,
        message: format!("this is no fast-forward: {what}, and only fast-forwards are accepted"),
        label: String::new(),
        related: vec![],
        hint: Some(format!(
            "push a commit on top of {before}, such as a revert; or, if this was meant, `groundplan accept {short}`"
        )),
    }
}

/// The fault of a commit whose site has another name than before: agents, topics and keys hang on it.
pub(crate) fn renamed(before: &SiteName, site: &SiteName, tree: &GitTree) -> Option<Fault> {
    if before == site {
        return None;
    }
    let at = tree.entry("site.toml").map(|entry| {
        let position = groundplan_core::plan::Position { file: entry.path.to_string(), line: None, column: None };
        FaultPlace { place: position, text: None }
    });
    Some(Fault {
        at,
        message: format!("the site's name was `{before}` and is now `{site}`"),
        label: String::new(),
        related: vec![],
        hint: Some(format!(
            "agents know the site by its name: keep `{before}`, or start a planner with another --state for a new site"
        )),
    })
}

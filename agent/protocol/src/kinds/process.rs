//! `process`: a long-running program that the agent itself supervises, for hosts without systemd.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    kind::Kind,
    problem::{Problem, path_problem},
    run::Run,
};
use crate::{duration::Span, effect::Effect, ids::TaskId};

/// How long a process may take to end after TERM if no `stop_timeout` is given.
const DEFAULT_STOP_TIMEOUT: Span = Span::secs(10);

/// How long a process must run to count as started if no `settle` is given.
const DEFAULT_SETTLE: Span = Span::secs(1);

/// A program that the agent keeps running: started, restarted on a trigger or, with back-off, when it ends, reloaded by a
/// signal, stopped on removal. It survives a restart of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// A shell line or a list of arguments; it must stay in the foreground. All users of the node see it while it runs: give it secrets in
    /// `env` or in a file.
    pub run: Run,
    /// Environment variables beside the agent's `PATH`, `HOME` and `LANG`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The directory it runs in: an absolute path on the node; `/` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The user who runs it; the agent's own if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The signal that makes it read its configuration again; `HUP` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_signal: Option<Signal>,
    /// How long it may take to end after TERM before its process group gets KILL; `10s` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<Span>,
    /// How long it must run after a start to count as started, if the task has no `ready`; `1s` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<Span>,
}

/// A signal that asks a process to reload (signal(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// SIGHUP, the signal that most daemons reload on.
    #[default]
    Hup,
    /// SIGINT, as from Ctrl-C.
    Int,
    /// SIGUSR1, with a meaning of the program's own.
    Usr1,
    /// SIGUSR2, with a meaning of the program's own.
    Usr2,
    /// SIGWINCH, on which apache2 stops gracefully.
    Winch,
}

impl Process {
    /// How long it may take to end after TERM.
    pub fn stop_timeout(&self) -> Span {
        self.stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT)
    }

    /// How long it must run to count as started.
    pub fn settle(&self) -> Span {
        self.settle.unwrap_or(DEFAULT_SETTLE)
    }

    /// Whether one that runs as `before` describes must be started again to become as `after` does; how it is stopped or reloaded, and when
    /// it counts as started, does not matter.
    pub fn must_restart(before: &Self, after: &Self) -> bool {
        let essence =
            |process: &Self| Self { reload_signal: None, stop_timeout: None, settle: None, ..process.clone() };
        essence(before) != essence(after)
    }
}

impl Kind for Process {
    const NAME: &'static str = "process";
    const SUMMARY: &'static str = "a long-running program that the agent keeps running";
    const EFFECTS: &'static [Effect] = &[Effect::Restart, Effect::Reload];
    const LEAVES: bool = false;

    fn problems(&self) -> Vec<Problem> {
        let cwd = self.cwd.as_deref().filter(|path| *path != "/").and_then(|path| path_problem("cwd", path));
        self.run.problem("run").into_iter().chain(cwd).collect()
    }

    fn claims<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::part("supervised processes", task), ""));
    }

    /// Its successor must start after it has ended.
    fn contends<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
        claim(Claim::named("process of", self.run.to_string()));
    }
}

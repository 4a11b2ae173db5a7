//! `command`: a command that runs once for each change.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    kind::Kind,
    problem::{Problem, path_problem},
    run::Run,
};
use crate::{duration::Span, effect::Effect};

/// How long a command may take if no `timeout` is given.
const DEFAULT_TIMEOUT: Span = Span::secs(600);

/// A command. It runs when it is new or changed and when a trigger fires, unless a guard (`creates`, `unless`, `only_if`)
/// shows that there is nothing to do. Removal does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// A shell line or a list of arguments. Other users of the node see the arguments of every program
    /// while it runs, but no shell line.
    pub run: Run,
    /// Not run if this path exists on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creates: Option<String>,
    /// Not run if this exits with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<Run>,
    /// Run only if this exits with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_if: Option<Run>,
    /// How long it may take, guards included; then its process group gets TERM, and KILL 10 s later. `10m` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// The user who runs it; the agent's own if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Environment variables beside the agent's `PATH`, `HOME` and `LANG`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The directory it runs in: an absolute path on the node; `/` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

impl Command {
    /// How long it may take, guards included.
    pub fn timeout(&self) -> Span {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }
}

impl Kind for Command {
    const NAME: &'static str = "command";
    const SUMMARY: &'static str = "a command that runs once for each change";
    const EFFECTS: &'static [Effect] = &[Effect::Run];
    const LEAVES: bool = false;

    fn problems(&self) -> Vec<Problem> {
        let runs = [("run", Some(&self.run)), ("unless", self.unless.as_ref()), ("only_if", self.only_if.as_ref())];
        let paths = [("creates", self.creates.as_ref()), ("cwd", self.cwd.as_ref().filter(|p| *p != "/"))];
        let runs = runs.into_iter().filter_map(|(param, run)| run?.problem(param));
        runs.chain(paths.into_iter().filter_map(|(param, path)| path_problem(param, path?))).collect()
    }

    fn drop_incidental(&mut self) {
        self.timeout = None;
    }

    /// Only its guards can check it.
    fn can_check(&self) -> bool {
        self.creates.is_some() || self.unless.is_some() || self.only_if.is_some()
    }
}

//! `directory`: a directory with given owner and mode.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    kind::Kind,
    problem::{Problem, mode_problem, path_problem},
};
use crate::{effect::Effect, ids::TaskId};

/// A directory. Missing parents are created with mode 0755. Removal removes it only if it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// The directory on the node: an absolute path.
    pub path: String,
    /// The user who owns it, by name or number; the agent's own user if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The group that owns it, by name or number; the agent's own group if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Permissions in octal, such as `"0750"`; `"0755"` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

impl Kind for Directory {
    const NAME: &'static str = "directory";
    const SUMMARY: &'static str = "a directory with given owner and mode";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        path_problem("path", &self.path).into_iter().chain(mode_problem(self.mode.as_ref())).collect()
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::path(&self.path), "path"));
    }

    /// A file cannot take over a directory, nor the other way round.
    fn identity<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
        claim(Claim::named("directory", &self.path));
    }
}

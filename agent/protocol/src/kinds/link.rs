//! `link`: a symbolic link.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    kind::Kind,
    problem::{Problem, path_problem},
};
use crate::{effect::Effect, ids::TaskId};

/// A symbolic link. It replaces another link at its path, and what the task itself had there; never a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The link on the node: an absolute path.
    pub path: String,
    /// Its target, written into the link as given; a relative target counts from the link's directory.
    pub target: String,
    /// Whether a file, a pipe, a socket or a device at the path is replaced; an error if not given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl Kind for Link {
    const NAME: &'static str = "link";
    const SUMMARY: &'static str = "a symbolic link";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let target = (self.target.is_empty() || self.target.contains('\0'))
            .then(|| Problem::new("target", "is empty or contains a NUL byte", "name what the link points to"));
        path_problem("path", &self.path).into_iter().chain(target).collect()
    }

    fn drop_incidental(&mut self) {
        self.force = false;
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::path(&self.path), "path"));
    }
}

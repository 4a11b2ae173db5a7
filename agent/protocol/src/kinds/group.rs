//! `group`: a group of users of the host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    existence::Existence,
    kind::Kind,
    problem::Problem,
    user::name_problem,
};
use crate::{effect::Effect, ids::TaskId};

/// A group of users of the host. What is not given is left as it is. Removal deletes a group that this task created; one that was
/// there before loses only the members that the task added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name, as in group(5).
    pub name: String,
    /// Whether it is there; `present` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Existence>,
    /// Its numeric id; chosen by the host if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Whether a new one gets an id from the range for system services; `false` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<bool>,
    /// Users that are members, beside those whose primary group it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<String>>,
    /// Whether no other users may be members; `false` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
}

impl Group {
    /// Whether it is to exist.
    pub fn is_present(&self) -> bool {
        self.state.unwrap_or_default().is_present()
    }
}

impl Kind for Group {
    const NAME: &'static str = "group";
    const SUMMARY: &'static str = "a group of users of the host";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let members = self.members.iter().flatten().filter_map(|member| name_problem("members", member));
        let exclusive = (self.exclusive.is_some() && self.members.is_none())
            .then(|| Problem::new("exclusive", "is given without `members`", "give `members`, or leave it out"));
        name_problem("name", &self.name).into_iter().chain(members).chain(exclusive).collect()
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::named("group", &self.name), "name"));
    }
}

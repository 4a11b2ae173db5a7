//! Kinds that a site adds with programs in `plugins/`.
//!
//! In a site such a kind has its own name, so none of this is written there: `name` is the key, `params` its value. The planner
//! adds the rest from the description in `plugins/<name>.schema.json`; it never runs the program. The agent compares what the program
//! prints with the description's digest before it runs anything else with it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    claim::{Claim, TaskClaim},
    kind::{ContentSource, Kind},
    problem::Problem,
};
use crate::{
    digest::Digest,
    duration::Span,
    effect::Effect,
    ids::{TaskId, TaskName},
};

/// How long one run of a plugin may take if its description has no limit.
const DEFAULT_TIMEOUT: Span = Span::secs(300);

/// A task of a kind that a program of the site carries out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// The name of the kind, and of the program in `plugins/`.
    pub name: TaskName,
    /// The parameters, which match the schema that the program prints.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Value>,
    /// Digest of the program, which is the content of the task. Jobs without content, such as a removal, find it by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Digest>,
    /// Digest of its description as JSON. A program that prints another one is not used; absent from planners that ran programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Digest>,
    /// What triggers may do to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Effect>,
    /// Whether the program can check if the host is in sync.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub can_check: bool,
    /// How long one run of the program may take; `5m` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// What the task claims on its node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<PluginClaim>,
}

/// A claim of a task of a plugin's kind; see [`Claim`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PluginClaim {
    /// A file, link or directory, by its absolute path.
    Path(String),
    /// Something with a name.
    Named {
        /// What it is, such as `limits of`.
        what: String,
        /// Its name, such as `web.service`.
        name: String,
        /// The parameter that states it; empty for the task as a whole.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        param: String,
    },
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it may skip by reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

impl Plugin {
    /// A task as a site declares it, before the program's description is added.
    pub fn declared(name: TaskName, params: Map<String, Value>) -> Self {
        let (program, description) = (None, None);
        Self { name, params, program, description, effects: vec![], can_check: true, timeout: None, claims: vec![] }
    }

    /// The claims in its description; without any, a part of its own.
    fn own_claims<'a>(&'a self, task: &'a TaskId) -> impl Iterator<Item = TaskClaim<'a>> {
        let stated = self.claims.iter().map(|claimed| match claimed {
            PluginClaim::Path(path) => TaskClaim::exclusive(Claim::path(path), ""),
            PluginClaim::Named { what, name, param } => TaskClaim::exclusive(Claim::named(what, name), param),
        });
        let part = self.claims.is_empty().then(|| TaskClaim::exclusive(Claim::part(self.name.as_str(), task), ""));
        stated.chain(part)
    }

    /// How long one run of the program may take.
    pub fn timeout(&self) -> Span {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }
}

impl Kind for Plugin {
    const NAME: &'static str = "plugin";
    const SUMMARY: &'static str = "a kind that a program in `plugins/` carries out";
    const EFFECTS: &'static [Effect] = &[];

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// None: the planner checks the parameters with the program's own schema.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    fn source(&self) -> Option<ContentSource<'_>> {
        Some(ContentSource::Plugin(self.name.as_str()))
    }

    /// The rest follows from the description, and so from its digest.
    fn drop_incidental(&mut self) {
        let (program, description) = (self.program, self.description);
        *self = Self { program, description, ..Self::declared(self.name.clone(), std::mem::take(&mut self.params)) };
    }

    fn can_check(&self) -> bool {
        self.can_check
    }

    fn claims<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        for own in self.own_claims(task) {
            claim(own);
        }
        if let Some(program) = &self.program {
            claim(TaskClaim::shared(Claim::named("program", program.to_string()), ""));
        }
    }

    /// Only the program that made something knows what another one may take over of it.
    fn identity<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
        for own in self.own_claims(task).filter(|own| !matches!(own.claim, Claim::Part { .. })) {
            claim(Claim::named("plugin", format!("{}: {}", self.name, own.claim)));
        }
    }

    /// All its own claims: only the program can take one of them back.
    fn subject<'a>(&'a self, task: &'a TaskId) -> Vec<Claim<'a>> {
        self.own_claims(task).map(|own| own.claim).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plugin(more: Value) -> Plugin {
        let mut json = json!({ "name": "limits", "params": { "unit": "web.service", "files": 4096 } });
        json.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn only_parameters_and_program_decide_the_result() {
        let mut rich = plugin(json!({
            "program": Digest::of(b"x"), "effects": ["run"], "timeout": "1s", "claims": [{ "path": "/etc/x" }]
        }));
        rich.drop_incidental();
        assert_eq!(rich, plugin(json!({ "program": Digest::of(b"x") })));
    }
}

//! `template`: a file rendered from a template of the service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    kind::{ContentSource, Kind},
    problem::{Problem, mode_problem, path_problem},
    validate::Validate,
};
use crate::{effect::Effect, ids::TaskId};

/// A file rendered from a Jinja2 template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The template: a file below the service's folder. Always given in a site; absent on the wire, where the rendered
    /// content travels instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The resulting file on the node: an absolute path.
    pub path: String,
    /// The user who owns it, by name or number; the agent's own user if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The group that owns it, by name or number; the agent's own group if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Permissions in octal, such as `"0640"`; `"0644"` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What the content must pass before it is put in place: `"ini"`, `"json"`, `"toml"`, or `{ command = "visudo -cf %s" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate: Option<Validate>,
}

impl Kind for Template {
    const NAME: &'static str = "template";
    const SUMMARY: &'static str = "a file rendered from a template of the service";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let source = self
            .source
            .is_none()
            .then(|| Problem::new("", "has no `source`", "name a template below the service's folder"));
        source
            .into_iter()
            .chain(path_problem("path", &self.path))
            .chain(mode_problem(self.mode.as_ref()))
            .chain(Validate::problem(self.validate.as_ref()))
            .collect()
    }

    fn source(&self) -> Option<ContentSource<'_>> {
        self.source.as_deref().map(ContentSource::Template)
    }

    fn drop_source(&mut self) {
        self.source = None;
    }

    fn drop_incidental(&mut self) {
        self.validate = None;
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::path(&self.path), "path"));
    }
}

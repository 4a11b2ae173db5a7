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
///
/// A file that was there is replaced as a whole, and keeps its access control list, label and extended attributes; a symbolic
/// link is replaced, not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The template: a file below the service's folder. Always given in a site; absent on the wire, where the rendered
    /// content travels instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The resulting file on the node: an absolute path.
    pub path: String,
    /// The user who owns it, by name or number; the agent's own user if not given, also where the file was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The group that owns it, by name or number; the agent's own group if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Permissions in octal, such as `"0640"`; `"0644"` if not given, also where the file was there before. Entries of an access
    /// control list for other users and groups stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What the content must pass before it is put in place: `"ini"`, `"json"`, `"toml"`, or `{ command = "visudo -cf %s" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate: Option<Validate>,
    /// Whether a pipe, a socket or a device at the path is replaced; an error if not given. Files and links are always replaced,
    /// directories never.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
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
        self.force = false;
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::path(&self.path), "path"));
    }
}

//! Kinds that a site adds by programs in `plugins/`.
//!
//! In a site such a kind goes by its own name, so none of this is written there: `name` is the key, `params` its value. The rest the
//! planner takes from what the program says of itself, so that an agent need not ask it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Claim, ContentSource, Kind, Problem};
use crate::{digest::Digest, duration::Span, effect::Effect, ids::TaskName};

/// How long one run of a plugin may take when it does not say.
const DEFAULT_TIMEOUT: Span = Span::secs(300);

/// A kind that a program of the site carries out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// The name of the kind, and of the program in `plugins/`.
    pub name: TaskName,
    /// The parameters, which match the schema that the program prints.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Value>,
    /// Digest of the program, which is the content of the task. What has no content, as a removal, finds it by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Digest>,
    /// What triggers may do to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Effect>,
    /// Whether the program can tell if it is so.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub can_check: bool,
    /// How long one run of the program may take; `5m` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// What it claims on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<PluginClaim>,
}

/// Something that a task of a plugin's kind claims; see [`Claim`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PluginClaim {
    /// A path.
    Path(String),
    /// Something with a name.
    Named {
        /// What sort of thing it is, such as `limits of`.
        what: String,
        /// Such as `web.service`.
        name: String,
        /// The parameter that says so; empty for the task as a whole.
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
    /// As a site declares it: nothing is known of the program yet.
    pub fn declared(name: TaskName, params: Map<String, Value>) -> Self {
        Self { name, params, program: None, effects: vec![], can_check: true, timeout: None, claims: vec![] }
    }

    /// How long one run of the program may take.
    pub fn timeout(&self) -> Span {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }
}

impl Kind for Plugin {
    const NAME: &'static str = "plugin";
    const SUMMARY: &'static str = "what a program in `plugins/` carries out";
    const EFFECTS: &'static [Effect] = &[];

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// None: the schema is the program's, and whoever knows it checks by it.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    fn source(&self) -> Option<ContentSource<'_>> {
        Some(ContentSource::Plugin(self.name.as_str()))
    }

    /// What the program says of itself goes with its digest.
    fn drop_incidental(&mut self) {
        *self = Self { program: self.program, ..Self::declared(self.name.clone(), std::mem::take(&mut self.params)) };
    }

    fn can_check(&self) -> bool {
        self.can_check
    }

    fn claims<'a>(&'a self, claim: &mut dyn FnMut(Claim<'a>)) {
        for claimed in &self.claims {
            claim(match claimed {
                PluginClaim::Path(path) => Claim::Path(path),
                PluginClaim::Named { what, name, param } => Claim::Named { what, name, param },
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{KINDS, NAMES, TaskParams};

    fn plugin(more: Value) -> Plugin {
        let mut json = json!({ "name": "limits", "params": { "unit": "web.service", "files": 4096 } });
        json.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn it_goes_by_its_own_name_and_is_not_listed() {
        let params = TaskParams::Plugin(plugin(json!({ "effects": ["restart"], "can_check": false })));
        assert_eq!((params.kind(), params.effects(), params.can_check()), ("limits", &[Effect::Restart][..], false));
        assert_eq!(params.source(), Some(ContentSource::Plugin("limits")));
        assert!(!NAMES.contains(&"plugin") && KINDS.iter().all(|kind| kind.name != "plugin"));
        assert_eq!(serde_json::from_value::<TaskParams>(serde_json::to_value(&params).unwrap()).unwrap(), params);
    }

    #[test]
    fn only_parameters_and_program_decide_the_result() {
        let mut rich = plugin(json!({
            "program": Digest::of(b"x"), "effects": ["run"], "timeout": "1s", "claims": [{ "path": "/etc/x" }]
        }));
        rich.drop_incidental();
        assert_eq!(rich, plugin(json!({ "program": Digest::of(b"x") })));
    }

    #[test]
    fn what_it_claims_is_anyones() {
        let named = json!({ "what": "user", "name": "bob", "param": "who" });
        let params = plugin(json!({ "claims": [{ "path": "/etc/x" }, { "named": named }] }));
        let mut claims = Vec::new();
        params.claims(&mut |claim| claims.push(claim));
        assert_eq!(claims, [Claim::Path("/etc/x"), Claim::Named { what: "user", name: "bob", param: "name" }]);
    }
}

//! `module`: a kernel module, now and at every boot.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    existence::Existence,
    ini::Scalar,
    kind::Kind,
    problem::Problem,
};
use crate::{effect::Effect, ids::TaskId};

/// A kernel module: loaded at once and at every boot, or kept unloaded. On a host that is a container only what happens at boot
/// can be configured; modules are loaded by the host that runs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Its name, as lsmod(8) shows it.
    pub name: String,
    /// Parameters that it is loaded with, by name. They take effect when it is next loaded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Scalar>,
    /// `present` (if not given): loaded. `absent`: not loaded.
    #[serde(default, skip_serializing_if = "Existence::is_present")]
    pub state: Existence,
    /// With `state = "absent"`: whether it is also kept from being loaded by its aliases, at boot and when a device is found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blacklist: bool,
}

impl Kind for Module {
    const NAME: &'static str = "module";
    const SUMMARY: &'static str = "a kernel module, now and at every boot";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let is_name = |name: &str| {
            !name.is_empty()
                && !name.starts_with('-')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        };
        let mut problems = Vec::new();
        if !is_name(&self.name) {
            let message = format!("`{}` is not the name of a module", self.name.escape_debug());
            problems.push(Problem::new("name", message, "give it as lsmod(8) shows it"));
        }
        for (name, value) in &self.params {
            if !is_name(name) || value.text().contains(char::is_whitespace) {
                let message = format!("`{}` is not a parameter of a module", name.escape_debug());
                problems.push(Problem::new("params", message, "a value has no spaces; several are joined by commas"));
            }
        }
        if self.blacklist && self.state.is_present() {
            problems.push(Problem::new(
                "blacklist",
                "is given together with `state = \"present\"`",
                "use `state = \"absent\"`",
            ));
        }
        if !self.params.is_empty() && !self.state.is_present() {
            problems.push(Problem::new("params", "is given together with `state = \"absent\"`", "leave them out"));
        }
        problems
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        // The kernel takes both characters for one.
        claim(TaskClaim::exclusive(Claim::named("kernel module", self.name.replace('-', "_")), "name"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_reported() {
        let problems = |json: &str| {
            let module: Module = serde_json::from_str(json).unwrap();
            module.problems().into_iter().map(|problem| problem.param).collect::<Vec<_>>()
        };
        assert!(problems(r#"{"name": "nf_conntrack", "params": {"hashsize": 1000}}"#).is_empty());
        assert!(problems(r#"{"name": "floppy", "state": "absent", "blacklist": true}"#).is_empty());
        assert_eq!(problems(r#"{"name": "-x y", "params": {"a": "b c"}}"#), ["name", "params"]);
        assert_eq!(problems(r#"{"name": "a", "blacklist": true}"#), ["blacklist"]);
    }
}

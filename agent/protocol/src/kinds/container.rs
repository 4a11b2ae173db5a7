//! `container`: a container that systemd runs, with podman.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    image::{Pull, image_problem},
    kind::Kind,
    problem::{Problem, path_problem},
    run::Run,
    systemd::UnitState,
};
use crate::{effect::Effect, ids::TaskId};

/// A container, run by systemd as root: with Quadlet where podman has it (4.4), else with a generated unit. It is recreated
/// when its definition or the image behind its name changes, and left running otherwise. Removal removes container and unit;
/// named volumes stay, anonymous ones of the image are removed with each container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its name, and that of its unit without `.service`.
    pub name: String,
    /// The image with its tag, such as `registry.example.org/redis:7`.
    pub image: String,
    /// When a registry is asked for the image; `missing` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<Pull>,
    /// What it runs: a line for its `/bin/sh -c` or a list of arguments; the image's own command if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Run>,
    /// Environment variables inside the container, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// A file on the node with environment variables: an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<String>,
    /// Published ports, such as `8080:80`, `127.0.0.1:53:53/udp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Volumes, such as `/srv/app:/data:ro`, `app-data:/data`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Its network, such as `host`, `none` or a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The user inside, by name or number, optionally with `:group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Labels of the container, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When systemd restarts it; `always` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// Limit of its memory, such as `512m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Limit of its CPUs, such as `1.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// A command that runs inside it and exits with 0 while it is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Further options of podman-run(1), one word each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Whether it starts at boot; `true` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether it runs; `started` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<UnitState>,
}

/// When systemd restarts a container that has ended (systemd.service(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Whenever it ends.
    #[default]
    Always,
    /// When it ends with a failure.
    OnFailure,
    /// Never.
    No,
}

impl Container {
    /// The unit that runs it.
    pub fn unit(&self) -> String {
        format!("{}.service", self.name)
    }
}

impl Kind for Container {
    const NAME: &'static str = "container";
    const SUMMARY: &'static str = "a container that systemd runs, with podman";
    const EFFECTS: &'static [Effect] = &[Effect::Restart];

    fn problems(&self) -> Vec<Problem> {
        let name = container_name_problem("name", &self.name);
        let words = self.ports.iter().map(|p| ("ports", p)).chain(self.volumes.iter().map(|v| ("volumes", v)));
        let words =
            words.chain(self.network.iter().map(|n| ("network", n))).chain(self.user.iter().map(|u| ("user", u)));
        let words = words.chain(self.memory.iter().map(|m| ("memory", m))).chain(self.cpus.iter().map(|c| ("cpus", c)));
        let odd = words.filter_map(|(param, word)| word_problem(param, word));
        let keys = self.env.keys().map(|k| ("env", k)).chain(self.labels.keys().map(|k| ("labels", k)));
        let keys = keys.filter_map(|(param, key)| key_problem(param, key));
        let file = self.env_file.as_ref().and_then(|path| path_problem("env_file", path));
        let command = self.command.as_ref().and_then(|run| run.problem("command"));
        let image = image_problem("image", &self.image);
        name.into_iter().chain(image).chain(odd).chain(keys).chain(file).chain(command).collect()
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::named("container", &self.name), "name"));
        claim(TaskClaim::shared(Claim::named("unit", self.unit()), "name"));
    }
}

/// Whether podman and systemd accept `name` for a container or a pod.
pub(super) fn container_name_problem(param: &'static str, name: &str) -> Option<Problem> {
    let plain = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    (!plain).then(|| {
        let message = format!("`{}` does not name a container", name.escape_default());
        Problem::new(param, message, "letters, digits, `_`, `.` and `-`, with a letter or digit first")
    })
}

/// Whether an option's value is one word.
pub(super) fn word_problem(param: &'static str, word: &str) -> Option<Problem> {
    let odd = word.is_empty() || word.contains(char::is_whitespace);
    odd.then(|| Problem::new(param, format!("`{}` is not a single word", word.escape_default()), "see podman-run(1)"))
}

/// Whether `key` can be the key of `key=value`.
pub(super) fn key_problem(param: &'static str, key: &str) -> Option<Problem> {
    let odd = key.is_empty() || key.contains(|c: char| c == '=' || c.is_whitespace());
    odd.then(|| Problem::new(param, format!("`{}` is not a name", key.escape_default()), "drop `=` and blanks"))
}

//! `pod`: containers that share a network, each run by systemd, with podman.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    container::{Container, container_name_problem, key_problem, word_problem},
    kind::Kind,
    problem::Problem,
    systemd::UnitState,
};
use crate::{effect::Effect, ids::TaskId};

/// Containers that share a network and are started and stopped together, run by systemd as root: one unit for the pod,
/// `<name>-pod.service`, and one for each container. A container is recreated alone when its definition or the image
/// behind its name changes; the whole pod only when parameters of the pod itself change. A restart restarts the whole pod; a
/// reload recreates only the containers whose image has changed. Removal removes pod, containers and units; volumes stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its name, and that of its unit without `-pod.service`.
    pub name: String,
    /// Its containers, described as in `container`. What concerns the pod as a whole is given for the pod: `ports`, `network`,
    /// `enabled`, `state`.
    pub containers: Vec<Container>,
    /// Published ports, such as `8080:80`, `127.0.0.1:53:53/udp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Its network, such as `host`, `none` or a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Volumes that each container has, such as `/srv/app:/data:ro`, `app-data:/data`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Labels of the pod, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Further options of podman-pod-create(1), one word each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Whether it starts at boot; `true` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether it runs; `started` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<UnitState>,
}

impl Pod {
    /// The unit of the pod itself; each container has one of its own besides.
    pub fn unit(&self) -> String {
        format!("{}-pod.service", self.name)
    }

    fn container_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.containers.is_empty() {
            problems.push(Problem::new("containers", "is empty", "describe at least one container"));
        }
        let mut names = BTreeSet::from([self.name.as_str()]);
        for container in &self.containers {
            // The problems of a container, with its name before them.
            problems.extend(container.problems().into_iter().map(|p| Problem {
                param: "containers",
                message: format!("{}: `{}` {}", container.name.escape_default(), p.param, p.message),
                hint: p.hint,
            }));
            if !names.insert(&container.name) {
                let message = format!("`{}` is used as a name more than once", container.name);
                problems.push(Problem::new("containers", message, "give the pod and each container a name of its own"));
            }
            let shared = [
                ("ports", !container.ports.is_empty()),
                ("network", container.network.is_some()),
                ("enabled", container.enabled.is_some()),
                ("state", container.state.is_some()),
            ];
            problems.extend(shared.into_iter().filter(|(_, given)| *given).map(|(param, _)| {
                let message = format!("{}: `{param}` concerns the pod as a whole", container.name);
                Problem::new("containers", message, format!("move `{param}` out of `containers`"))
            }));
        }
        problems
    }
}

impl Kind for Pod {
    const NAME: &'static str = "pod";
    const SUMMARY: &'static str = "containers that share a network, run by systemd, with podman";
    const EFFECTS: &'static [Effect] = &[Effect::Restart, Effect::Reload];

    fn problems(&self) -> Vec<Problem> {
        let words = self.ports.iter().map(|p| ("ports", p)).chain(self.volumes.iter().map(|v| ("volumes", v)));
        let words = words.chain(self.network.iter().map(|n| ("network", n)));
        let odd = words.filter_map(|(param, word)| word_problem(param, word));
        let keys = self.labels.keys().filter_map(|key| key_problem("labels", key));
        let name = container_name_problem("name", &self.name);
        name.into_iter().chain(odd).chain(keys).chain(self.container_problems()).collect()
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::named("pod", &self.name), "name"));
        for container in &self.containers {
            claim(TaskClaim::exclusive(Claim::named("container", &container.name), "containers"));
        }
        claim(TaskClaim::shared(Claim::named("unit", self.unit()), "name"));
        for container in &self.containers {
            claim(TaskClaim::shared(Claim::named("unit", container.unit()), "containers"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(params: Value) -> Vec<String> {
        let pod: Pod = serde_json::from_value(params).unwrap();
        pod.problems().into_iter().map(|p| format!("{}: {}", p.param, p.message)).collect()
    }

    #[test]
    fn what_belongs_to_containers_and_what_to_the_pod() {
        let good = json!({ "name": "app", "ports": ["8080:80"], "containers": [
            { "name": "web", "image": "localhost/web:1", "volumes": ["/srv:/srv"] },
            { "name": "log", "image": "localhost/log:1", "command": ["tail"] },
        ] });
        assert_eq!(problems(good), Vec::<String>::new());
        let image = "localhost/web:1";
        for (bad, word) in [
            (json!({ "name": "app", "containers": [] }), "containers: is empty"),
            (
                json!({ "name": "-x", "containers": [{ "name": "web", "image": image }] }),
                "name: `-x` does not name a container",
            ),
            (
                json!({ "name": "app", "containers": [{ "name": "app", "image": image }] }),
                "containers: `app` is used as a name more than once",
            ),
            (
                json!({ "name": "app", "containers": [{ "name": "web", "image": image, "ports": ["80:80"] }] }),
                "containers: web: `ports` concerns the pod as a whole",
            ),
            (
                json!({ "name": "app", "containers": [{ "name": "web", "image": image, "state": "stopped" }] }),
                "containers: web: `state` concerns the pod as a whole",
            ),
            (
                json!({ "name": "app", "containers": [{ "name": "web", "image": image, "memory": "1 g" }] }),
                "containers: web: `memory` `1 g` is not a single word",
            ),
            (
                json!({ "name": "app", "ports": ["80 81"], "containers": [{ "name": "web", "image": image }] }),
                "ports: `80 81` is not a single word",
            ),
        ] {
            assert_eq!(problems(bad.clone()), [word], "{bad}");
        }
    }
}

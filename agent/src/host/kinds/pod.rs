//! `pod`: containers that share a network, each run by systemd, with podman.
//!
//! The pod is a unit, `<name>-pod.service`, and each container is a unit of its own, `<container>.service`, bound to the pod's and
//! wanted by it. The pod's unit does not name its containers, so that a container can be added, removed and recreated alone; the
//! pod is recreated, with all its containers, only when its own text changes. Units are generated here for any version of podman
//! instead of using Quadlet, which supports pods only from podman 5 on, and lists a pod's containers in its unit. The memory
//! holds the names of all containers that the task has units for. Named volumes are never removed.
//!
//! A pod needs an image for the container that holds its network: podman builds it itself from 4.0 on, older ones pull it.

use std::collections::BTreeSet;

use groundplan_protocol::{
    effect::Effect,
    kinds::{Claim, Container, Pod, UnitState},
};
use serde::Deserialize;

use super::{
    container::{Definition, begin, is_active, is_current, is_enabled, restart, settled, systemctl, systemctl_line},
    context::Context,
    image::{PodmanError, ask, image_for, podman},
    kind::{Applied, Check, Kind},
    unit_text::{self, LABEL},
};
use crate::host::{error::HostError, fs::files};

/// What is to be recreated.
enum Due<'a> {
    /// The pod, with all its containers.
    Pod,
    /// Only these containers.
    Containers(Vec<&'a Container>),
}

impl Due<'_> {
    fn is_nothing(&self) -> bool {
        matches!(self, Self::Containers(containers) if containers.is_empty())
    }
}

impl Kind for Pod {
    fn whole_host(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let parts = Parts::of(self, cx);
        let mut in_sync = known(cx).iter().eq(names(self).iter()) && parts.pod.is_there(cx)?;
        for (_, definition) in &parts.containers {
            in_sync &= definition.is_there(cx)?;
        }
        in_sync &= is_enabled(cx, &self.unit(), self.enabled.unwrap_or(true)).await?;
        for container in &self.containers {
            in_sync &= is_enabled(cx, &container.unit(), true).await?;
        }
        if !in_sync && !cx.is_drift_check() {
            return Ok(Check::OutOfSync);
        }
        if should_run(self) {
            return Ok((due(self, &parts, cx).await?.is_nothing() && in_sync).into());
        }
        for unit in units(self) {
            in_sync &= is_active(cx, &unit, false).await?;
        }
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        // First of all: without an image, the old containers continue to run.
        if should_run(self) {
            images(self, cx).await?;
        }
        let parts = Parts::of(self, cx);
        let (before, now) = (known(cx), names(self));
        // Noted before anything is written: if this fails in between, removal still finds all containers.
        cx.remember_first(&(&before | &now))?;
        remove_containers(cx, before.difference(&now)).await?;
        write(self, &parts, cx).await?;
        // The dropped containers are removed, so later removals need not try them again.
        cx.remember(&now);
        if !should_run(self) {
            for unit in units(self) {
                systemctl(cx, &["stop", &unit]).await?;
            }
            return Ok(Applied { afresh: true });
        }
        let due = due(self, &parts, cx).await?;
        recreate(self, &due, cx).await?;
        // A pending restart of the whole pod is not fulfilled by restarting some of its containers.
        Ok(Applied { afresh: matches!(due, Due::Pod) })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let all: BTreeSet<String> = known(cx).union(&names(self)).cloned().collect();
        let pod = Parts::of(self, cx).pod;
        let mut there = pod.is_any(cx)?;
        if there {
            systemctl(cx, &["disable", &self.unit()]).await?;
        }
        // Also without a definition: someone may have deleted it while the pod runs.
        stop(cx, &self.unit()).await?;
        if there {
            pod.remove(cx)?;
        }
        there |= remove_containers(cx, all.iter()).await?;
        systemctl(cx, &["daemon-reload"]).await?;
        match ask(cx, &["pod", "rm", "--force", "--ignore", "--", &self.name]).await {
            Ok(_) | Err(PodmanError::NoPodman) => Ok(there),
            Err(e) => Err(e.into()),
        }
    }

    async fn effect(&self, cx: &Context<'_>, effect: Effect) -> Result<bool, HostError> {
        if !should_run(self) {
            return Ok(false);
        }
        let due = match effect {
            Effect::Reload => {
                images(self, cx).await?;
                due(self, &Parts::of(self, cx), cx).await?
            }
            Effect::Restart | Effect::Run => Due::Pod,
        };
        recreate(self, &due, cx).await?;
        Ok(!due.is_nothing())
    }
}

/// The definitions of the pod and of each container.
struct Parts<'a> {
    pod: Definition,
    containers: Vec<(&'a Container, Definition)>,
}

impl<'a> Parts<'a> {
    fn of(pod: &'a Pod, cx: &Context<'_>) -> Self {
        let text = |container| unit_text::service(container, Some(pod), cx.task);
        Self {
            pod: Definition::unit(&pod.unit(), unit_text::pod(pod, cx.task)),
            containers: pod.containers.iter().map(|c| (c, Definition::unit(&c.unit(), text(c)))).collect(),
        }
    }
}

fn should_run(pod: &Pod) -> bool {
    pod.state.unwrap_or_default() == UnitState::Started
}

fn names(pod: &Pod) -> BTreeSet<String> {
    pod.containers.iter().map(|container| container.name.clone()).collect()
}

/// All units, the pod's last, so that containers stop before it.
fn units(pod: &Pod) -> impl Iterator<Item = String> {
    pod.containers.iter().map(Container::unit).chain([pod.unit()])
}

/// The containers that the task has units for.
fn known(cx: &Context<'_>) -> BTreeSet<String> {
    cx.memory().and_then(|memory| Deserialize::deserialize(memory).ok()).unwrap_or_default()
}

/// Gets all images before anything is changed.
async fn images(pod: &Pod, cx: &Context<'_>) -> Result<(), HostError> {
    for container in &pod.containers {
        image_for(cx, &container.image, container.pull.unwrap_or_default()).await?;
    }
    Ok(())
}

/// Writes all units and has systemd load them.
async fn write(pod: &Pod, parts: &Parts<'_>, cx: &Context<'_>) -> Result<(), HostError> {
    let mut reload = false;
    let mut enable = Vec::new();
    for (container, definition) in &parts.containers {
        let same = definition.is_there(cx)?;
        definition.put(cx)?;
        if !same || systemctl_line(cx, &["is-enabled", &container.unit()]).await? != "enabled" {
            enable.push(container.unit());
        }
        reload |= !same;
    }
    reload |= !parts.pod.is_there(cx)?;
    parts.pod.put(cx)?;
    if reload {
        systemctl(cx, &["daemon-reload"]).await?;
    }
    for unit in enable {
        // Re-enabled, because an earlier unit of that name may have been wanted by something else.
        systemctl(cx, &["reenable", &unit]).await?;
    }
    let verb = if pod.enabled.unwrap_or(true) { "enable" } else { "disable" };
    systemctl(cx, &[verb, &pod.unit()]).await?;
    Ok(())
}

/// What does not run, or was not made from its definition.
async fn due<'a>(pod: &Pod, parts: &Parts<'a>, cx: &Context<'_>) -> Result<Due<'a>, HostError> {
    if is_down(cx, &pod.unit()).await? || !pod_is_current(pod, &parts.pod, cx).await? {
        return Ok(Due::Pod);
    }
    let mut containers = Vec::new();
    for (container, definition) in &parts.containers {
        if is_down(cx, &container.unit()).await? || !is_current(container, definition, cx).await? {
            containers.push(*container);
        }
    }
    Ok(Due::Containers(containers))
}

async fn pod_is_current(pod: &Pod, definition: &Definition, cx: &Context<'_>) -> Result<bool, HostError> {
    let what = format!("pod {}", pod.name);
    if ask(cx, &["pod", "exists", "--", &pod.name]).await?.status.code() == Some(1) {
        cx.differs(&what, Some("present"), None);
        return Ok(false);
    }
    let format = format!("{{{{index .Labels {LABEL:?}}}}}");
    let label = podman(cx, &["pod", "inspect", "--format", &format, "--", &pod.name]).await?;
    let same = definition.is_of(label.trim());
    if !same {
        cx.differs(&what, Some("made from its definition"), Some("made from another"));
    }
    Ok(same)
}

async fn recreate(pod: &Pod, due: &Due<'_>, cx: &Context<'_>) -> Result<(), HostError> {
    let (verb, containers) = match due {
        Due::Containers(containers) => ("restart", containers.clone()),
        Due::Pod => {
            restart(&format!("{}-pod", pod.name), cx).await?;
            // The containers start with the pod; whether they run is checked afterwards.
            ("start", pod.containers.iter().collect())
        }
    };
    let mut failed = None;
    for container in &containers {
        // If one does not start, the others are still restarted.
        if let Err(e) = begin(verb, &container.name, cx).await {
            failed.get_or_insert(e);
        }
    }
    match failed {
        Some(e) => Err(e.into()),
        None if containers.is_empty() => Ok(()),
        None => {
            let names: Vec<&str> = containers.iter().map(|container| &*container.name).collect();
            Ok(settled(&names, cx).await?)
        }
    }
}

/// Removes containers and their units, except those that another task claims now; whether any unit was there.
async fn remove_containers(cx: &Context<'_>, names: impl Iterator<Item = &String>) -> Result<bool, HostError> {
    let mut there = false;
    for name in names {
        if cx.held_by_another(&Claim::named("container", name)).is_some() {
            continue;
        }
        let (unit, path) = (format!("{name}.service"), format!("/etc/systemd/system/{name}.service"));
        if cx.host.environment.root.exists(&path)? {
            there = true;
            systemctl(cx, &["disable", &unit]).await?;
        }
        stop(cx, &unit).await?;
        files::remove_file(&cx.host.environment.root, &path, false)?;
        match ask(cx, &["rm", "--force", "--ignore", "--", name]).await {
            Ok(_) | Err(PodmanError::NoPodman) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if there {
        systemctl(cx, &["daemon-reload"]).await?;
    }
    Ok(there)
}

/// Stops a unit that systemd may not have loaded, and resets its failed state.
async fn stop(cx: &Context<'_>, unit: &str) -> Result<(), HostError> {
    match &*systemctl_line(cx, &["is-active", unit]).await? {
        "inactive" | "unknown" => {}
        state => {
            systemctl(cx, &["stop", unit]).await?;
            if state == "failed" {
                systemctl_line(cx, &["reset-failed", unit]).await?;
            }
        }
    }
    Ok(())
}

async fn is_down(cx: &Context<'_>, unit: &str) -> Result<bool, HostError> {
    Ok(!is_active(cx, unit, true).await?)
}

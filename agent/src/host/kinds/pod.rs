//! `pod`: containers that share a network, each run by systemd, by podman.
//!
//! The pod is a unit, `<name>-pod.service`, and each container is one of its own, `<container>.service`, bound to it and wanted by
//! it. The pod's unit knows nothing of its containers, so that a container may come, go and be made anew by itself; the pod is made
//! anew, and all in it, only when its own text is another. Units are written here whatever podman there is, not left to Quadlet, which
//! knows pods only from podman 5 on, and lists a pod's containers in its unit. The memory holds the names of all containers
//! that the task has units for. Named volumes are never removed.
//!
//! The pod needs an image for what holds its network: podman makes that itself from 4.0 on, older ones ask a registry for it.

use std::collections::BTreeSet;

use groundplan_protocol::{
    effect::Effect,
    kinds::{Claim, Container, Pod, UnitState},
};
use serde::Deserialize;

use super::{
    container::{Definition, begin, is_active, is_current, is_enabled, restart, says, settled, systemctl},
    context::Context,
    image::{PodmanError, ask, image_for, podman},
    kind::{Applied, Check, Kind},
    unit_text::{self, LABEL},
};
use crate::host::{error::HostError, fs::files};

/// What is to be made anew.
enum Due<'a> {
    /// The pod, and all in it.
    Pod,
    /// These containers alone.
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
        let mut so = known(cx).iter().eq(names(self).iter()) && parts.pod.is_there(cx)?;
        for (_, definition) in &parts.containers {
            so &= definition.is_there(cx)?;
        }
        so &= is_enabled(cx, &self.unit(), self.enabled.unwrap_or(true)).await?;
        for container in &self.containers {
            so &= is_enabled(cx, &container.unit(), true).await?;
        }
        if !so && !cx.is_drift_check() {
            return Ok(Check::OutOfSync);
        }
        if should_run(self) {
            return Ok((due(self, &parts, cx).await?.is_nothing() && so).into());
        }
        for unit in units(self) {
            so &= is_active(cx, &unit, false).await?;
        }
        Ok(so.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        if should_run(self) {
            images(self, cx).await?;
        }
        let parts = Parts::of(self, cx);
        let (before, now) = (known(cx), names(self));
        // Noted before anything is written, so that nothing is left behind if this fails in between.
        remember(cx, before.union(&now));
        take_away(cx, before.difference(&now)).await?;
        write(self, &parts, cx).await?;
        remember(cx, now.iter());
        if !should_run(self) {
            for unit in units(self) {
                systemctl(cx, &["stop", &unit]).await?;
            }
            return Ok(Applied { afresh: true });
        }
        let due = due(self, &parts, cx).await?;
        make_anew(self, &due, cx).await?;
        // A restart of the whole that is owed is not done by that of a part.
        Ok(Applied { afresh: matches!(due, Due::Pod) })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let all: BTreeSet<String> = known(cx).union(&names(self)).cloned().collect();
        let pod = Parts::of(self, cx).pod;
        let mut there = pod.is_any(cx)?;
        if there {
            systemctl(cx, &["disable", &self.unit()]).await?;
        }
        stop(cx, &self.unit()).await?;
        if there {
            pod.remove(cx)?;
        }
        there |= take_away(cx, all.iter()).await?;
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
        make_anew(self, &due, cx).await?;
        Ok(!due.is_nothing())
    }
}

/// The texts of the pod and of each container.
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

/// All units, the pod's last: containers stop before it.
fn units(pod: &Pod) -> impl Iterator<Item = String> {
    pod.containers.iter().map(Container::unit).chain([pod.unit()])
}

/// The containers that the task has units for.
fn known(cx: &Context<'_>) -> BTreeSet<String> {
    cx.memory().and_then(|memory| Deserialize::deserialize(memory).ok()).unwrap_or_default()
}

fn remember<'a>(cx: &Context<'_>, names: impl Iterator<Item = &'a String>) {
    cx.remember(names.cloned().collect());
}

/// Has all images before anything is touched.
async fn images(pod: &Pod, cx: &Context<'_>) -> Result<(), HostError> {
    for container in &pod.containers {
        image_for(cx, &container.image, container.pull.unwrap_or_default()).await?;
    }
    Ok(())
}

/// Puts all units in place as they should be, and has systemd know them.
async fn write(pod: &Pod, parts: &Parts<'_>, cx: &Context<'_>) -> Result<(), HostError> {
    let mut reload = false;
    let mut enable = Vec::new();
    for (container, definition) in &parts.containers {
        let same = definition.is_there(cx)?;
        definition.put(cx)?;
        if !same || says(cx, &["is-enabled", &container.unit()]).await? != "enabled" {
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
        // Anew, for a unit of that name may have been wanted by something else before.
        systemctl(cx, &["reenable", &unit]).await?;
    }
    let verb = if pod.enabled.unwrap_or(true) { "enable" } else { "disable" };
    systemctl(cx, &[verb, &pod.unit()]).await?;
    Ok(())
}

/// What does not run, or not as it is described.
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
        cx.differs(&what, Some("made by its definition"), Some("made by another"));
    }
    Ok(same)
}

async fn make_anew(pod: &Pod, due: &Due<'_>, cx: &Context<'_>) -> Result<(), HostError> {
    let (verb, containers) = match due {
        Due::Containers(containers) => ("restart", containers.clone()),
        Due::Pod => {
            restart(&format!("{}-pod", pod.name), cx).await?;
            // They come up with it; what became of them is told to whoever asks.
            ("start", pod.containers.iter().collect())
        }
    };
    let mut failed = None;
    for container in &containers {
        // One that does not start is no reason to leave the others as they are.
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

/// Takes away containers and their units, but for those that belong to another task now; whether any unit was there.
async fn take_away(cx: &Context<'_>, names: impl Iterator<Item = &String>) -> Result<bool, HostError> {
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

/// Stops a unit that may be unknown to systemd, and forgets that it failed.
async fn stop(cx: &Context<'_>, unit: &str) -> Result<(), HostError> {
    match &*says(cx, &["is-active", unit]).await? {
        "inactive" | "unknown" => {}
        state => {
            systemctl(cx, &["stop", unit]).await?;
            if state == "failed" {
                says(cx, &["reset-failed", unit]).await?;
            }
        }
    }
    Ok(())
}

async fn is_down(cx: &Context<'_>, unit: &str) -> Result<bool, HostError> {
    Ok(!is_active(cx, unit, true).await?)
}

//! `container`: a container that systemd runs, by podman.
//!
//! Where podman brings Quadlet (4.4), its definition is `/etc/containers/systemd/<name>.container`; where not, a unit that runs
//! podman, `/etc/systemd/system/<name>.service`. Both texts are made here (`unit_text`), and are all that is compared: another
//! text or another image behind the name, and the container is made anew; else it is left running. Images are never pulled by
//! the unit, so that a restart does not hang on a registry. Volumes are never removed.
//!
//! The suite runs generated units (podman 4.3 of Debian 12). Quadlet's text is compared in tests, and was tried once by hand on
//! Debian 13 with podman 5.4: it started, with the same words inside.

use groundplan_protocol::{
    ids::TaskId,
    kinds::{Container, UnitState},
    plan::Effect,
};
use tokio::time::{Duration, sleep};

use super::{
    Applied, Check, Context, Hold, Kind, KindError,
    image::{PodmanError, ask, image_for, image_id, podman},
    unit_text,
};
use crate::host::{
    HostError,
    files::{self, Access, Sum},
    job::Content,
    tool::ToolError,
};

/// What systemd makes units of Quadlet's files with.
const GENERATOR: [&str; 2] = [
    "/usr/lib/systemd/system-generators/podman-system-generator",
    "/lib/systemd/system-generators/podman-system-generator",
];

/// How long after its start a container is looked at again.
const SETTLE: Duration = Duration::from_millis(500);

/// Why a container could not be brought about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    #[error("this host has no systemctl and so no systemd, which is to run the container")]
    NoSystemd,
    #[error("the container {0} does not keep running; see `journalctl -u {0}`")]
    Failed(String),
    #[error("the unit of the container {name} does not start; see `journalctl -u {name}`: {source}")]
    Start { name: String, source: ToolError },
    #[error(transparent)]
    Systemctl(ToolError),
}

impl KindError for ContainerError {}

impl Kind for Container {
    fn hold(&self, _: &TaskId) -> Hold {
        Hold::Named("container", self.name.clone())
    }

    fn holds(&self, task: &TaskId) -> Vec<Hold> {
        vec![self.hold(task), Hold::Named("unit", unit(self))]
    }

    fn whole_host(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let definition = Definition::of(self, cx)?;
        let so = definition.is_there(cx)?
            && (!definition.enable(self) || says(cx, &["is-enabled", &unit(self)]).await? == "enabled")
            && runs_as_it_should(self, cx).await?
            && (!should_run(self) || is_current(self, cx).await?);
        Ok(so.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let definition = Definition::of(self, cx)?;
        let image = if should_run(self) {
            image_for(cx, &self.image, self.pull.unwrap_or_default()).await?;
            is_current(self, cx).await?
        } else {
            true
        };
        let same = definition.is_there(cx)?;
        definition.put(cx)?;
        if !same {
            systemctl(cx, &["daemon-reload"]).await?;
        }
        if definition.other_is_there(cx)? {
            definition.remove_other(cx)?;
            systemctl(cx, &["daemon-reload"]).await?;
        }
        if definition.enable(self) {
            systemctl(cx, &["enable", &unit(self)]).await?;
        } else if !definition.quadlet && says(cx, &["is-enabled", &unit(self)]).await? == "enabled" {
            systemctl(cx, &["disable", &unit(self)]).await?;
        }
        if !should_run(self) {
            systemctl(cx, &["stop", &unit(self)]).await?;
            return Ok(Applied { afresh: true });
        }
        if same && image && runs_as_it_should(self, cx).await? {
            return Ok(Applied { afresh: false });
        }
        restart(self, cx).await?;
        Ok(Applied { afresh: true })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let definition = Definition::of(self, cx)?;
        let there = definition.is_any(cx)?;
        if there {
            if !definition.quadlet {
                systemctl(cx, &["disable", &unit(self)]).await?;
            }
            systemctl(cx, &["stop", &unit(self)]).await?;
            definition.remove(cx)?;
            systemctl(cx, &["daemon-reload"]).await?;
        }
        match ask(cx, &["rm", "--force", "--ignore", "--", &self.name]).await {
            Ok(_) | Err(PodmanError::NoPodman) => Ok(there),
            Err(e) => Err(e.into()),
        }
    }

    async fn effect(&self, cx: &Context<'_>, _: Effect) -> Result<bool, HostError> {
        if !should_run(self) {
            return Ok(false);
        }
        restart(self, cx).await?;
        Ok(true)
    }
}

/// Its definition as a file.
struct Definition {
    quadlet: bool,
    path: String,
    text: Vec<u8>,
}

impl Definition {
    fn of(container: &Container, cx: &Context<'_>) -> Result<Self, HostError> {
        let root = &cx.host.surroundings.root;
        let mut quadlet = false;
        for generator in GENERATOR {
            quadlet |= root.exists(generator)?;
        }
        let (path, text) = match quadlet {
            true => (quadlet_path(container), unit_text::quadlet(container, cx.task)),
            false => (unit_path(container), unit_text::service(container, cx.task)),
        };
        Ok(Self { quadlet, path, text: text.into_bytes() })
    }

    fn other(&self) -> String {
        let name = self.path.rsplit_once('/').map_or("", |(_, file)| file);
        let name = name.rsplit_once('.').map_or("", |(name, _)| name);
        match self.quadlet {
            true => format!("/etc/systemd/system/{name}.service"),
            false => format!("/etc/containers/systemd/{name}.container"),
        }
    }

    /// Whether the unit is to be enabled; Quadlet's are by their text alone.
    fn enable(&self, container: &Container) -> bool {
        !self.quadlet && container.enabled.unwrap_or(true)
    }

    fn access(&self) -> Result<Access, HostError> {
        // What stands in `env` is for root's eyes only.
        Ok(Access::new(&self.path, None, None, Some("0600"), 0o600)?)
    }

    fn is_there(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        Ok(files::is_file(&cx.host.surroundings.root, &self.path, Sum::of_bytes(&self.text), self.access()?)?)
    }

    fn is_any(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        Ok(cx.host.surroundings.root.exists(&self.path)?)
    }

    fn put(&self, cx: &Context<'_>) -> Result<(), HostError> {
        let content = Content::Bytes(self.text.clone());
        let sum = Sum::of_bytes(&self.text);
        Ok(files::put_file(&cx.host.surroundings.root, &self.path, &content, sum, self.access()?)?)
    }

    fn remove(&self, cx: &Context<'_>) -> Result<(), HostError> {
        files::remove_file(&cx.host.surroundings.root, &self.path, false)?;
        Ok(())
    }

    /// Whether there is one of the other sort that we wrote, from before podman was upgraded.
    fn other_is_there(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let read = files::read_file(&cx.host.surroundings.root, &self.other(), 4096)?;
        Ok(read.is_some_and(|text| text.starts_with(unit_text::MARK.as_bytes())))
    }

    fn remove_other(&self, cx: &Context<'_>) -> Result<(), HostError> {
        files::remove_file(&cx.host.surroundings.root, &self.other(), false)?;
        Ok(())
    }
}

fn unit(container: &Container) -> String {
    format!("{}.service", container.name)
}

fn unit_path(container: &Container) -> String {
    format!("/etc/systemd/system/{}.service", container.name)
}

fn quadlet_path(container: &Container) -> String {
    format!("/etc/containers/systemd/{}.container", container.name)
}

fn should_run(container: &Container) -> bool {
    container.state.unwrap_or_default() == UnitState::Started
}

async fn runs_as_it_should(container: &Container, cx: &Context<'_>) -> Result<bool, HostError> {
    let state = says(cx, &["is-active", &unit(container)]).await?;
    Ok(match should_run(container) {
        true => state == "active",
        false => matches!(&*state, "inactive" | "failed" | "unknown"),
    })
}

/// Whether the container was made of the image that has the name now.
async fn is_current(container: &Container, cx: &Context<'_>) -> Result<bool, HostError> {
    if ask(cx, &["container", "exists", "--", &container.name]).await?.status.code() == Some(1) {
        return Ok(false);
    }
    let made_of = podman(cx, &["container", "inspect", "--format", "{{.Image}}", "--", &container.name]).await?;
    Ok(image_id(cx, &container.image).await?.as_deref() == Some(made_of.trim()))
}

async fn restart(container: &Container, cx: &Context<'_>) -> Result<(), HostError> {
    let (name, words) = (&container.name, ["restart", &unit(container)]);
    systemctl(cx, &words).await.map_err(|error| match error {
        ContainerError::Systemctl(source) => ContainerError::Start { name: name.clone(), source },
        other => other,
    })?;
    if !cx.probed {
        sleep(SETTLE).await;
        let now = systemctl(cx, &["show", "--property=ActiveState,NRestarts", &unit(container)]).await?;
        // One that ends at once is started again and again, and may be up at this moment.
        if !now.contains("ActiveState=active\n") || !now.contains("NRestarts=0\n") {
            return Err(ContainerError::Failed(name.clone()).into());
        }
    }
    Ok(())
}

async fn systemctl(cx: &Context<'_>, words: &[&str]) -> Result<String, ContainerError> {
    let asked = cx.tool(&[&["systemctl", "--no-pager", "--no-ask-password"], words].concat()).await;
    asked.map_err(|e| if e.is_missing() { ContainerError::NoSystemd } else { ContainerError::Systemctl(e) })
}

/// The first line of what systemctl says, however it exits.
async fn says(cx: &Context<'_>, words: &[&str]) -> Result<String, HostError> {
    let answer = crate::host::tool::Tool::new(&[&["systemctl", "--no-pager"], words].concat()).ask(cx).await;
    let answer =
        answer.map_err(|e| if e.is_missing() { ContainerError::NoSystemd } else { ContainerError::Systemctl(e) })?;
    Ok(answer.out.lines().next().unwrap_or_default().trim().to_owned())
}

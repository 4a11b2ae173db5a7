//! `container`: a container that systemd runs, with podman.
//!
//! Where podman has Quadlet (4.4), its definition is `/etc/containers/systemd/<name>.container`; else a unit that runs podman,
//! `/etc/systemd/system/<name>.service`. Both texts are generated (`unit_text`), and only they are compared: the container is
//! recreated if the text or the image behind its name changes, and left running otherwise. A label of the container holds the
//! digest of its text, so that a container is recognised as outdated whose new text was written by an agent that was killed
//! before the restart. The unit never pulls images, so that a restart does not depend on a registry. Named volumes are never
//! removed; anonymous ones are removed with the container.
//!
//! The suite runs generated units (podman 4.3 of Debian 12). Quadlet's text is compared in tests, and was run once by hand on
//! Debian 13 with podman 5.4.

use groundplan_protocol::{
    effect::Effect,
    kinds::{Container, UnitState},
};
use tokio::time::{Duration, sleep};

use super::{
    context::Context,
    image::{PodmanError, ask, image_for, image_id, podman},
    kind::{Applied, Check, Kind},
    unit_text::{self, LABEL, Text},
};
use crate::host::{
    error::{HostError, KindError, ToolError},
    fs::files::{self, Access, Sum},
    job::Content,
};

/// The generator with which systemd makes units of Quadlet's files.
const GENERATOR: [&str; 2] = [
    "/usr/lib/systemd/system-generators/podman-system-generator",
    "/lib/systemd/system-generators/podman-system-generator",
];

/// How long after its start a container is checked again: on a busy host podman takes most of a second to notice that one has ended.
const SETTLE: Duration = Duration::from_secs(1);

/// Why a container could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    #[error("this host has no systemctl and so no systemd, which is to run the container")]
    NoSystemd,
    #[error("the container {0} does not keep running; see `journalctl -u {0}`")]
    Failed(String),
    #[error("the unit of the container {name} does not start; see `journalctl -u {name}`: {source}")]
    Start { name: String, source: ToolError },
    #[error("{0} is in the way, and was not made by groundplan: move it away, or give the container another name")]
    InTheWay(String),
    #[error(transparent)]
    Systemctl(ToolError),
}

impl KindError for ContainerError {}

impl Kind for Container {
    fn whole_host(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let definition = Definition::of(self, cx)?;
        let mut in_sync = definition.is_there(cx)?;
        // A drift check continues after the first difference, to note all of them.
        let all = cx.is_drift_check();
        if (in_sync || all) && definition.enable(self) {
            in_sync &= is_enabled(cx, &self.unit(), true).await?;
        }
        if in_sync || all {
            in_sync &= is_in_wanted_state(self, cx).await?;
        }
        if (in_sync || all) && should_run(self) {
            in_sync &= is_current(self, &definition, cx).await?;
        }
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let definition = Definition::of(self, cx)?;
        // A container of that name without a definition of ours was made by someone else, unless it has our label.
        if !definition.is_any(cx)? && is_ours(&self.name, cx).await? == Some(false) {
            return Err(ContainerError::InTheWay(format!("a container `{}`", self.name)).into());
        }
        // The image before the definition: if it cannot be pulled, the old container continues to run.
        let image = if should_run(self) {
            image_for(cx, &self.image, self.pull.unwrap_or_default()).await?;
            is_current(self, &definition, cx).await?
        } else {
            true
        };
        let same = definition.is_there(cx)?;
        definition.put(cx)?;
        if !same {
            systemctl(cx, &["daemon-reload"]).await?;
        }
        // Both units have the same name, and only one may define it.
        if definition.other_is_there(cx)? {
            definition.remove_other(cx)?;
            systemctl(cx, &["daemon-reload"]).await?;
        }
        if definition.enable(self) {
            // Not `enable`: links of an earlier [Install] section must not stay.
            systemctl(cx, &["reenable", &self.unit()]).await?;
        } else if !definition.quadlet && systemctl_line(cx, &["is-enabled", &self.unit()]).await? == "enabled" {
            systemctl(cx, &["disable", &self.unit()]).await?;
        }
        if !should_run(self) {
            systemctl(cx, &["stop", &self.unit()]).await?;
            return Ok(Applied { afresh: true });
        }
        if same && image && is_in_wanted_state(self, cx).await? {
            return Ok(Applied { afresh: false });
        }
        // The unit removes the old container and makes a new one from the definition.
        restart(&self.name, cx).await?;
        settled(&[&self.name], cx).await?;
        Ok(Applied { afresh: true })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let definition = Definition::of(self, cx)?;
        let there = definition.is_any(cx)?;
        if there {
            if !definition.quadlet {
                systemctl(cx, &["disable", &self.unit()]).await?;
            }
            systemctl(cx, &["stop", &self.unit()]).await?;
            definition.remove(cx)?;
            systemctl(cx, &["daemon-reload"]).await?;
        }
        // What a unit that was killed left behind.
        if is_ours(&self.name, cx).await? == Some(true) {
            ask(cx, &["rm", "--force", "--ignore", "--", &self.name]).await?;
        }
        Ok(there)
    }

    async fn effect(&self, cx: &Context<'_>, _: Effect) -> Result<bool, HostError> {
        if !should_run(self) {
            return Ok(false);
        }
        restart(&self.name, cx).await?;
        settled(&[&self.name], cx).await?;
        Ok(true)
    }
}

/// The file that defines a container or a pod.
pub(super) struct Definition {
    quadlet: bool,
    path: String,
    text: Vec<u8>,
    /// The value of [`LABEL`] on what was made from it.
    digest: String,
}

impl Definition {
    fn of(container: &Container, cx: &Context<'_>) -> Result<Self, HostError> {
        let root = &cx.host.environment.root;
        let mut quadlet = false;
        for generator in GENERATOR {
            quadlet |= root.exists(generator)?;
        }
        Ok(match quadlet {
            true => {
                let Text { text, digest } = unit_text::quadlet(container, cx.task);
                Self { quadlet, path: quadlet_path(container), text: text.into_bytes(), digest }
            }
            false => Self::unit(&container.unit(), unit_text::service(container, None, cx.task)),
        })
    }

    /// A definition that is a unit.
    pub(super) fn unit(name: &str, Text { text, digest }: Text) -> Self {
        Self { quadlet: false, path: unit_path(name), text: text.into_bytes(), digest }
    }

    /// Whether a label, as podman prints it, is of this definition.
    pub(super) fn is_of(&self, label: &str) -> bool {
        label == self.digest
    }

    fn other(&self) -> String {
        let name = self.path.rsplit_once('/').map_or("", |(_, file)| file);
        let name = name.rsplit_once('.').map_or("", |(name, _)| name);
        match self.quadlet {
            true => format!("/etc/systemd/system/{name}.service"),
            false => format!("/etc/containers/systemd/{name}.container"),
        }
    }

    /// Whether the unit is to be enabled; Quadlet's units are enabled by their text alone.
    fn enable(&self, container: &Container) -> bool {
        !self.quadlet && container.enabled.unwrap_or(true)
    }

    fn access(&self) -> Result<Access, HostError> {
        // The values of `env` may be secret, although podman gets them as arguments.
        Ok(Access::new(&self.path, None, None, Some("0600"), 0o600)?)
    }

    pub(super) fn is_there(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        Ok(cx.is_file(&self.path, Sum::of_bytes(&self.text), self.access()?, true)?)
    }

    pub(super) fn is_any(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        Ok(cx.host.environment.root.exists(&self.path)?)
    }

    pub(super) fn put(&self, cx: &Context<'_>) -> Result<(), HostError> {
        let found = files::read_file(&cx.host.environment.root, &self.path, 1 << 20)?;
        if found.is_some_and(|text| !text.starts_with(unit_text::MARK.as_bytes())) {
            return Err(ContainerError::InTheWay(self.path.clone()).into());
        }
        let content = Content::Bytes(self.text.clone());
        let sum = Sum::of_bytes(&self.text);
        Ok(files::put_file(&cx.host.environment.root, &self.path, &content, sum, self.access()?)?)
    }

    pub(super) fn remove(&self, cx: &Context<'_>) -> Result<(), HostError> {
        files::remove_file(&cx.host.environment.root, &self.path, false)?;
        Ok(())
    }

    /// Whether a definition of the other sort is left, written by the agent before podman was upgraded.
    fn other_is_there(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let read = files::read_file(&cx.host.environment.root, &self.other(), 4096)?;
        Ok(read.is_some_and(|text| text.starts_with(unit_text::MARK.as_bytes())))
    }

    fn remove_other(&self, cx: &Context<'_>) -> Result<(), HostError> {
        files::remove_file(&cx.host.environment.root, &self.other(), false)?;
        Ok(())
    }
}

fn unit_path(unit: &str) -> String {
    format!("/etc/systemd/system/{unit}")
}

fn quadlet_path(container: &Container) -> String {
    format!("/etc/containers/systemd/{}.container", container.name)
}

fn should_run(container: &Container) -> bool {
    container.state.unwrap_or_default() == UnitState::Started
}

async fn is_in_wanted_state(container: &Container, cx: &Context<'_>) -> Result<bool, HostError> {
    is_active(cx, &container.unit(), should_run(container)).await
}

/// The text, if it is not empty.
fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Whether a unit is active or not, as `wanted`; notes the difference.
pub(super) async fn is_active(cx: &Context<'_>, unit: &str, wanted: bool) -> Result<bool, HostError> {
    let state = systemctl_line(cx, &["is-active", unit]).await?;
    let in_sync = match wanted {
        true => state == "active",
        false => matches!(&*state, "inactive" | "failed" | "unknown"),
    };
    if !in_sync {
        cx.differs(&format!("active {unit}"), Some(if wanted { "active" } else { "inactive" }), non_empty(&state));
    }
    Ok(in_sync)
}

/// Whether a unit is enabled or not, as `wanted`; notes the difference.
pub(super) async fn is_enabled(cx: &Context<'_>, unit: &str, wanted: bool) -> Result<bool, HostError> {
    let state = systemctl_line(cx, &["is-enabled", unit]).await?;
    let in_sync = (state == "enabled") == wanted;
    if !in_sync {
        cx.differs(&format!("enabled {unit}"), Some(if wanted { "enabled" } else { "disabled" }), non_empty(&state));
    }
    Ok(in_sync)
}

/// Whether groundplan made the container of that name; `None` if there is none.
async fn is_ours(name: &str, cx: &Context<'_>) -> Result<Option<bool>, HostError> {
    let format = format!("{{{{index .Config.Labels {LABEL:?}}}}}");
    match ask(cx, &["container", "inspect", "--format", &format, "--", name]).await {
        Ok(answer) if answer.status.success() => Ok(Some(!matches!(answer.out.trim(), "" | "<no value>"))),
        Ok(_) | Err(PodmanError::NoPodman) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Whether the container was made from the definition, and from the image that has the name now.
pub(super) async fn is_current(
    container: &Container,
    definition: &Definition,
    cx: &Context<'_>,
) -> Result<bool, HostError> {
    let what = format!("container {}", container.name);
    if ask(cx, &["container", "exists", "--", &container.name]).await?.status.code() == Some(1) {
        cx.differs(&what, Some("present"), None);
        return Ok(false);
    }
    let format = format!("{{{{.Image}}}} {{{{index .Config.Labels {LABEL:?}}}}}");
    let made_of = podman(cx, &["container", "inspect", "--format", &format, "--", &container.name]).await?;
    let (image, label) = made_of.trim().split_once(' ').unwrap_or((made_of.trim(), ""));
    let named = image_id(cx, &container.image).await?;
    let (same, of_image) = (definition.is_of(label), named.as_deref() == Some(image));
    if !same {
        cx.differs(&what, Some("made from its definition"), Some("made from another"));
    }
    if !of_image {
        cx.differs(&format!("image of {}", container.name), named.as_deref(), Some(image));
    }
    Ok(same && of_image)
}

/// Restarts the unit `<name>.service`.
pub(super) async fn restart(name: &str, cx: &Context<'_>) -> Result<(), ContainerError> {
    begin("restart", name, cx).await
}

/// Runs `systemctl restart` or `systemctl start` for the unit `<name>.service`.
pub(super) async fn begin(verb: &str, name: &str, cx: &Context<'_>) -> Result<(), ContainerError> {
    let begun = systemctl(cx, &[verb, &format!("{name}.service")]).await;
    begun.map(drop).map_err(|error| match error {
        ContainerError::Systemctl(source) => ContainerError::Start { name: name.to_owned(), source },
        other => other,
    })
}

/// Checks that these containers, which have just been restarted, keep running; not needed where a readiness probe follows.
pub(super) async fn settled(names: &[&str], cx: &Context<'_>) -> Result<(), ContainerError> {
    if cx.probed {
        return Ok(());
    }
    sleep(SETTLE).await;
    for name in names {
        let now = systemctl(cx, &["show", "--property=ActiveState,NRestarts", &format!("{name}.service")]).await?;
        // A container that ends at once is restarted again and again, and may be active at this moment.
        if !now.contains("ActiveState=active\n") || !now.contains("NRestarts=0\n") {
            return Err(ContainerError::Failed((*name).to_owned()));
        }
    }
    Ok(())
}

pub(super) async fn systemctl(cx: &Context<'_>, words: &[&str]) -> Result<String, ContainerError> {
    let asked = cx.tool(&[&["systemctl", "--no-pager", "--no-ask-password"], words].concat()).await;
    asked.map_err(|e| if e.is_missing() { ContainerError::NoSystemd } else { ContainerError::Systemctl(e) })
}

/// The first line that systemctl prints, whatever its exit status is.
pub(super) async fn systemctl_line(cx: &Context<'_>, words: &[&str]) -> Result<String, HostError> {
    let answer = crate::host::tool::Tool::new(&[&["systemctl", "--no-pager"], words].concat()).ask(cx).await;
    let answer =
        answer.map_err(|e| if e.is_missing() { ContainerError::NoSystemd } else { ContainerError::Systemctl(e) })?;
    Ok(answer.out.lines().next().unwrap_or_default().trim().to_owned())
}

//! `image`: an image in podman's store, from an archive or a registry.
//!
//! The task's memory holds the resulting image id, the digest of the archive, and the image that had the name before, if any:
//! removal gives the name back to that one, or removes the image if nothing uses it. An image that a newer one has replaced goes as
//! well, as soon as nothing uses it. Other names in an archive are none of the task's: they stay with the images that have them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File as Archive,
    path::PathBuf,
};

use groundplan_protocol::{
    digest::Digest,
    kinds::{Image, Pull},
    plan::OnRemove,
};
use serde::{Deserialize, Serialize};
use tokio::sync::RwLock;

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError, ToolError},
    fs::files::Sum,
    job::Content,
    tool::{Answer, Tool},
};

/// Podman's store: several may pull into it at a time. One alone loads an archive, which moves names that are none of its task's for a
/// moment, or looks which images have no name, to remove them.
static STORE: RwLock<()> = RwLock::const_new(());

/// Why an image could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodmanError {
    #[error("this host has no podman; a `package` task before this one can install it")]
    NoPodman,
    #[error(
        "this host has no image `{0}`, and `pull = \"never\"` forbids to ask a registry; an `image` task can load it"
    )]
    NoImage(String),
    #[error("{0}: there is no such file on this host")]
    NoArchive(String),
    #[error("{path}: cannot read it")]
    Read { path: String, source: std::io::Error },
    #[error("podman names no image that it loaded from the archive: {0}")]
    Nothing(String),
    #[error(transparent)]
    Tool(ToolError),
}

impl KindError for PodmanError {}

impl From<ToolError> for PodmanError {
    fn from(error: ToolError) -> Self {
        if error.is_missing() { Self::NoPodman } else { Self::Tool(error) }
    }
}

/// The task's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    /// Empty as long as it is not known: the image is being brought, or was when the agent was killed.
    id: String,
    /// Digest of the archive that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive: Option<Digest>,
    /// The image that had the name before; absent if none had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    /// Images that the task brought and that newer ones have replaced, while a container uses them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    replaced: BTreeSet<String>,
    /// While an archive is loaded: the images that had names before, by these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    names: BTreeMap<String, String>,
}

impl Memory {
    /// The memory while the image is being brought; `there`: the image that has the name now.
    fn pending(known: Option<&Self>, there: Option<String>) -> Self {
        let before = known.map_or(there, |known| known.before.clone());
        let brought = known.into_iter().flat_map(|known| known.replaced.iter().chain([&known.id]));
        let replaced = brought.filter(|id| !id.is_empty()).cloned().collect();
        Self { before, replaced, ..Self::default() }
    }
}

impl Kind for Image {
    fn whole_host(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let id = image_id(cx, &self.name).await?;
        let known = memory(cx);
        if cx.is_drift_check() {
            // A drift check neither asks a registry nor reads an archive: what was applied is the image itself.
            let wanted = known.map(|known| known.id).filter(|id| !id.is_empty());
            let in_sync = id.is_some() && (wanted.is_none() || wanted == id);
            if !in_sync {
                let what = format!("image {}", self.name);
                cx.differs(&what, Some(wanted.as_deref().unwrap_or("present")), id.as_deref());
            }
            return Ok(in_sync.into());
        }
        let archive = archive(self, cx).await?;
        // What an interrupted job brought is the task's: its id is yet to be noted.
        let pending = known.as_ref().is_some_and(|known| known.id.is_empty());
        let same = known.as_ref().is_some_and(|known| id.as_ref() == Some(&known.id));
        Ok(match (archive, self.pull.unwrap_or_default()) {
            (Some((_, digest)), _) => same && known.is_some_and(|known| known.archive == Some(digest)),
            (None, Pull::Always) => {
                let pulling = async { Ok::<_, HostError>(pull(cx, &self.name).await?) };
                cx.change(&Memory::pending(known.as_ref(), id.clone()), pulling).await?;
                let same = same && image_id(cx, &self.name).await? == id;
                if same {
                    cx.remember(&known);
                }
                same
            }
            (None, Pull::Missing) => id.is_some() && !pending,
            (None, Pull::Never) if id.is_none() => return Err(PodmanError::NoImage(self.name.clone()).into()),
            (None, Pull::Never) => !pending,
        }
        .into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let known = memory(cx);
        let before = match &known {
            Some(known) => known.before.clone(),
            None => image_id(cx, &self.name).await?,
        };
        let archive = archive(self, cx).await?;
        let turn = if archive.is_some() { Some(STORE.write().await) } else { None };
        let mut pending = Memory::pending(known.as_ref(), before.clone());
        if archive.is_some() && self.rootfs != Some(true) {
            // A job that was killed while it loaded the archive knew better.
            let noted = known.map(|known| known.names).filter(|names| !names.is_empty());
            pending.names = if let Some(noted) = noted { noted } else { names(cx).await? };
        }
        let bringing = async {
            match (&archive, self.pull.unwrap_or_default()) {
                (Some((content, _)), _) => Ok::<_, HostError>(bring(self, cx, content, &pending.names).await?),
                (None, Pull::Missing) => Ok(pull(cx, &self.name).await?),
                // With `always` the check has pulled it already.
                (None, Pull::Always | Pull::Never) => Ok(()),
            }
        };
        cx.change(&pending, bringing).await?;
        let id = image_id(cx, &self.name).await?.ok_or_else(|| PodmanError::Nothing(self.name.clone()))?;
        // What the name is to be given back to stays.
        let mut replaced = pending.replaced;
        replaced.retain(|other| *other != id && before.as_ref() != Some(other));
        if !replaced.is_empty() {
            let _turn = if let Some(turn) = turn { turn } else { STORE.write().await };
            discard(cx, &mut replaced).await?;
        }
        let archive = archive.map(|(_, digest)| digest);
        let memory = Memory { id, archive, before, replaced, ..Memory::default() };
        cx.remember(&memory);
        Ok(Applied { afresh: true })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let _turn = STORE.write().await;
        let id = match image_id(cx, &self.name).await {
            // Without podman, no image of it is in use.
            Err(PodmanError::NoPodman) => return Ok(false),
            id => id?,
        };
        let delete = cx.on_remove == OnRemove::Delete;
        let Some(known) = memory(cx) else {
            // An image that was there before the task stays.
            return Ok(delete && id.is_some() && rm(cx, &self.name).await?);
        };
        // Where it is not noted what came, whatever has the name since then is the task's.
        let is_ours = if known.id.is_empty() { id != known.before } else { id.as_ref() == Some(&known.id) };
        let mut images = known.replaced;
        let mut changed = false;
        match (id.filter(|_| is_ours), known.before.filter(|_| !delete)) {
            // Another one has the name by now, or it had it before the task, too.
            (None, _) => {}
            (Some(id), Some(before)) if id == before => {}
            (Some(id), Some(before)) if image_id(cx, &before).await?.is_some() => {
                podman(cx, &["tag", &before, &self.name]).await?;
                images.insert(id);
                changed = true;
            }
            (Some(_), _) => changed = rm(cx, &self.name).await?,
        }
        let count = images.len();
        discard(cx, &mut images).await?;
        Ok(changed || images.len() < count)
    }
}

fn memory(cx: &Context<'_>) -> Option<Memory> {
    serde_json::from_value(cx.recall()?).ok()
}

/// The archive that the image comes from; `None` if it comes from a registry.
async fn archive(image: &Image, cx: &Context<'_>) -> Result<Option<(Content, Digest)>, HostError> {
    if let Some(shipped) = cx.content {
        return Ok(Some((shipped.bytes()?.clone(), shipped.sum.digest)));
    }
    let Some(path) = &image.path else { return Ok(None) };
    let file = PathBuf::from(path);
    let read = {
        let file = file.clone();
        tokio::task::spawn_blocking(move || Sum::of(Archive::open(file)?)).await.map_err(HostError::Thread)?
    };
    match read {
        Ok(sum) => Ok(Some((Content::File(file), sum.digest))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(PodmanError::NoArchive(path.clone()).into()),
        Err(source) => Err(PodmanError::Read { path: path.clone(), source }.into()),
    }
}

/// Removes the images that no name leads to and nothing uses; `images` are the others then.
async fn discard(cx: &Context<'_>, images: &mut BTreeSet<String>) -> Result<(), PodmanError> {
    let names = if images.is_empty() { BTreeMap::new() } else { names(cx).await? };
    let mut left = BTreeSet::new();
    for id in std::mem::take(images) {
        if names.values().any(|named| *named == id) || image_id(cx, &id).await?.is_none() {
            continue;
        }
        if !rm(cx, &id).await? {
            left.insert(id);
        }
    }
    *images = left;
    Ok(())
}

/// Takes a name from its image, or with the last one the image; whether it could: nothing is done while a container uses it.
async fn rm(cx: &Context<'_>, image: &str) -> Result<bool, PodmanError> {
    let answer = ask(cx, &["image", "rm", "--", image]).await?;
    if !answer.status.success() {
        cx.report(&format!("left in place: {}", answer.err));
    }
    Ok(answer.status.success())
}

/// The ids of all images that have names, by these.
async fn names(cx: &Context<'_>) -> Result<BTreeMap<String, String>, PodmanError> {
    let format = "{{.Repository}}:{{.Tag}} {{.Id}}";
    let out = podman(cx, &["image", "ls", "--no-trunc", "--format", format]).await?;
    let rows = out.lines().filter_map(|line| line.trim().split_once(' '));
    let named = rows.filter(|(name, _)| !name.contains("<none>"));
    Ok(named.map(|(name, id)| (name.to_owned(), id.trim_start_matches("sha256:").to_owned())).collect())
}

/// Takes a name from its image, which stays.
async fn untag(cx: &Context<'_>, name: &str) -> Result<(), PodmanError> {
    podman(cx, &["untag", name, name]).await.map(drop)
}

/// Loads or imports an archive, and gives the resulting image the task's name. `before`: the images that had names before.
async fn bring(
    image: &Image,
    cx: &Context<'_>,
    content: &Content,
    before: &BTreeMap<String, String>,
) -> Result<(), PodmanError> {
    let (path, stdin) = match content {
        Content::Bytes(bytes) => ("-".to_owned(), Some(&bytes[..])),
        Content::File(path) => (path.to_string_lossy().into_owned(), None),
    };
    if image.rootfs == Some(true) {
        let words = ["podman", "import", "--quiet", "--", &path, &image.name];
        let tool = Tool::new(&words);
        match stdin {
            Some(bytes) => tool.stdin(bytes).run(cx).await?,
            None => tool.run(cx).await?,
        };
        return Ok(());
    }
    let out = match stdin {
        Some(bytes) => Tool::new(&["podman", "load", "--quiet"]).stdin(bytes).run(cx).await?,
        None => Tool::new(&["podman", "load", "--quiet", "--input", &path]).run(cx).await?,
    };
    let loaded = loaded(&out);
    let first = loaded.first().ok_or_else(|| PodmanError::Nothing(out.trim().to_owned()))?;
    if !loaded.contains(&image.name.as_str()) {
        podman(cx, &["tag", first, &image.name]).await?;
    }
    // Only the task's own name is kept, not those in the archive: they go, or go back to the images that had them.
    for name in loaded.iter().filter(|name| **name != image.name && !name.starts_with("sha256:")) {
        match before.get(*name) {
            Some(id) if image_id(cx, id).await?.is_some() => podman(cx, &["tag", id, name]).await.map(drop)?,
            _ => untag(cx, name).await?,
        }
    }
    Ok(())
}

/// The names in what `podman load` prints: `Loaded image: a` or `Loaded image(s): a,b`.
fn loaded(out: &str) -> Vec<&str> {
    let lines = out.lines().filter_map(|line| line.strip_prefix("Loaded image")?.split_once(':'));
    lines.flat_map(|(_, names)| names.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect()
}

async fn pull(cx: &Context<'_>, name: &str) -> Result<(), PodmanError> {
    let _turn = STORE.read().await;
    podman(cx, &["pull", "--quiet", "--", name]).await.map(drop)
}

/// Gets the image of that name, asking a registry as `when` allows; returns its id.
pub(crate) async fn image_for(cx: &Context<'_>, name: &str, when: Pull) -> Result<String, PodmanError> {
    let id = image_id(cx, name).await?;
    match (id, when) {
        (Some(id), Pull::Missing | Pull::Never) => Ok(id),
        (None, Pull::Never) => Err(PodmanError::NoImage(name.to_owned())),
        (_, Pull::Missing | Pull::Always) => {
            pull(cx, name).await?;
            image_id(cx, name).await?.ok_or_else(|| PodmanError::NoImage(name.to_owned()))
        }
    }
}

/// The id behind a name, if this host has it.
pub(crate) async fn image_id(cx: &Context<'_>, name: &str) -> Result<Option<String>, PodmanError> {
    if ask(cx, &["image", "exists", "--", name]).await?.status.code() == Some(1) {
        return Ok(None);
    }
    let out = podman(cx, &["image", "inspect", "--format", "{{.Id}}", "--", name]).await?;
    Ok(Some(out.trim().to_owned()))
}

pub(crate) async fn podman(cx: &Context<'_>, words: &[&str]) -> Result<String, PodmanError> {
    Ok(cx.tool(&[&["podman"], words].concat()).await?)
}

pub(crate) async fn ask(cx: &Context<'_>, words: &[&str]) -> Result<Answer, PodmanError> {
    Ok(Tool::new(&[&["podman"], words].concat()).ask(cx).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_output_of_podman_load() {
        assert_eq!(loaded("Loaded image: localhost/a:1\n"), ["localhost/a:1"]);
        assert_eq!(
            loaded("Getting image source\nLoaded image(s): localhost/a:1,localhost/b:2\n"),
            ["localhost/a:1", "localhost/b:2"]
        );
        assert_eq!(loaded("Loaded image: sha256:0123\n"), ["sha256:0123"]);
        assert!(loaded("nothing").is_empty());
    }
}

//! `image`: an image for containers, managed with podman.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    kind::{ContentSource, Kind},
    problem::{Problem, path_problem},
};
use crate::{effect::Effect, ids::TaskId};

/// An image in the host's own store, from an archive or a registry. Removal removes the image that the task brought, unless a
/// container uses it, and gives the name back to the image that had it before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its name with its tag, such as `localhost/app:1` or `registry.example.org/redis:7`.
    pub name: String,
    /// A file below the service's folder, shipped to the node: a `docker-archive` or `oci-archive` (`podman save`), or with
    /// `rootfs` a tar of a root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
    /// Such a file on the node: an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether `archive` or `path` is a root file system instead of an image; `false` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<bool>,
    /// When the image is pulled from a registry, if no archive is given; `missing` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<Pull>,
}

/// When a registry is asked for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// When the host has none of that name.
    #[default]
    Missing,
    /// Whenever the task is carried out.
    Always,
    /// Never: the host must have it.
    Never,
}

/// Whether `name` can be the name of an image.
pub(super) fn image_problem(param: &'static str, name: &str) -> Option<Problem> {
    let plain = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c));
    (!plain).then(|| {
        Problem::new(
            param,
            format!("`{}` does not name an image", name.escape_default()),
            "such as \"localhost/app:1\" or \"registry.example.org/redis:7\"",
        )
    })
}

impl Kind for Image {
    const NAME: &'static str = "image";
    const SUMMARY: &'static str = "an image for containers, from an archive or a registry";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let one = "give one of `archive`, `path` and `pull`";
        let both = (self.archive.is_some() && self.path.is_some())
            .then(|| Problem::new("path", "is given together with `archive`", one));
        let shipped = self.archive.is_some() || self.path.is_some();
        let pulled =
            (shipped && self.pull.is_some()).then(|| Problem::new("pull", "is given together with an archive", one));
        let rootfs = (self.rootfs == Some(true) && !shipped)
            .then(|| Problem::new("rootfs", "is given without an archive", "give `archive` or `path`"));
        let path = self.path.as_ref().and_then(|path| path_problem("path", path));
        let name = image_problem("name", &self.name);
        name.into_iter().chain(both).chain(pulled).chain(rootfs).chain(path).collect()
    }

    fn source(&self) -> Option<ContentSource<'_>> {
        self.archive.as_deref().map(ContentSource::File)
    }

    fn drop_source(&mut self) {
        self.archive = None;
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::named("image", &self.name), "name"));
    }
}

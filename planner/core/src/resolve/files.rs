//! Files that services ship.
//!
//! In: a path as a task gives it. Out: its entry and content, or what is wrong with it: outside of the service's folder, missing, no
//! file, not readable. Each version of a file is hashed once.

use std::{collections::HashMap, sync::Arc};

use groundplan_inventory::hint::nearest;
use groundplan_protocol::{
    blob::{BlobRef, Content, INLINE_LIMIT, MAX_BLOB},
    digest::{Digest, Hasher},
};

use super::memo::Answer;
use crate::source::{Entry, EntryKind, SourceTree};

/// How many resolutions a file's digest is kept without being used.
const KEPT: u64 = 16;

/// Files as they are shipped, by version.
#[derive(Debug)]
pub(crate) struct Contents {
    kept: HashMap<Arc<str>, Kept>,
    /// Length of the longest file that may be shipped, in bytes.
    pub(crate) limit: u64,
}

impl Default for Contents {
    fn default() -> Self {
        Self { kept: HashMap::new(), limit: MAX_BLOB }
    }
}

#[derive(Debug)]
struct Kept {
    shipped: Shipped,
    run: u64,
}

/// A file as it is shipped.
#[derive(Debug, Clone)]
pub(crate) struct Shipped {
    pub(crate) digest: Digest,
    /// In full if it is small, else the blob's name.
    pub(crate) content: Content,
}

impl Shipped {
    /// These bytes as they are shipped.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let content = Content::of(bytes);
        let digest = content.blob().map_or_else(|| Digest::of(bytes), |blob| blob.sha256);
        Self { digest, content }
    }
}

impl Contents {
    /// Drops what was not used for [`KEPT`] resolutions.
    pub(crate) fn prune(&mut self, now: u64) {
        self.kept.retain(|_, kept| kept.run + KEPT >= now);
    }
}

/// What is wrong with a path, and what to do.
#[derive(Debug)]
pub(crate) struct FileFault {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl FileFault {
    fn new(message: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// The files of one service.
#[derive(Clone, Copy)]
pub(crate) struct Files<'a> {
    pub(crate) tree: &'a dyn SourceTree,
    pub(crate) folder: &'a str,
}

impl<'a> Files<'a> {
    /// The entry of a file, by its path below the folder.
    pub(crate) fn find(&self, path: &str) -> Result<&'a Entry, FileFault> {
        if path.starts_with('/') {
            return Err(FileFault::new(
                format!("`{path}` is absolute"),
                format!("name a file by its path below {}", self.folder),
            ));
        }
        // Plain paths only: each file has one name, and none leads out of the service's folder.
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            let hint = "give the plain path, without `.`, `..` or doubled slashes; files outside of the folder are not the service's";
            return Err(FileFault::new(format!("`{path}` is not a plain path below {}", self.folder), hint.to_owned()));
        }
        let full = format!("{}/{path}", self.folder);
        match self.tree.entry(&full) {
            Some(entry) if entry.kind == EntryKind::File => Ok(entry),
            Some(entry) => Err(no_file(path, entry.kind)),
            None => Err(self.missing(path, &full)),
        }
    }

    /// The version of a file, as an answer for the memo.
    pub(crate) fn answer(&self, path: &str) -> Answer {
        self.find(path).map_or(Answer::Absent, |entry| Answer::File(entry.version.clone()))
    }

    /// The text of a file below the service's folder; a fault if it is missing or not UTF-8.
    pub(crate) fn text(&self, path: &str) -> Result<Arc<str>, FileFault> {
        let entry = self.find(path)?;
        let bytes = self.read(entry)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.into()),
            Err(error) => {
                let message = format!("`{path}` is not a template: it is not UTF-8 at byte {}", error.valid_up_to());
                Err(FileFault::new(message, "ship it as it is, with `file`".to_owned()))
            }
        }
    }

    /// A file as it is shipped.
    pub(crate) fn shipped(&self, path: &str, contents: &mut Contents, now: u64) -> Result<Shipped, FileFault> {
        let entry = self.find(path)?;
        let shipped = match contents.kept.get_mut(&entry.version) {
            Some(kept) => {
                kept.run = now;
                kept.shipped.clone()
            }
            None => {
                let shipped = self.summed(path, entry, contents.limit)?;
                contents.kept.insert(entry.version.clone(), Kept { shipped: shipped.clone(), run: now });
                shipped
            }
        };
        match shipped.content.blob() {
            Some(blob) if blob.size > contents.limit => Err(too_long(path, blob.size, contents.limit)),
            _ => Ok(shipped),
        }
    }

    /// Reads a file in pieces: a long one travels as a blob, of which only the digest is needed here.
    fn summed(&self, path: &str, entry: &Entry, limit: u64) -> Result<Shipped, FileFault> {
        let (mut hasher, mut length, mut head) = (Hasher::new(), 0, Vec::new());
        let read = self.tree.scan(&entry.path, &mut |whole, piece| {
            length = whole;
            hasher.update(piece);
            if whole <= INLINE_LIMIT as u64 {
                head.extend_from_slice(piece);
            }
            // One that is too long need not be read: its length is known by then.
            whole <= limit
        });
        read.map_err(|error| FileFault::new(error.to_string(), None))?;
        if length > limit {
            return Err(too_long(path, length, limit));
        }
        if length <= INLINE_LIMIT as u64 {
            return Ok(Shipped::of(&head));
        }
        let digest = hasher.finish();
        Ok(Shipped { digest, content: Content::Blob(BlobRef { sha256: digest, size: length }) })
    }

    fn read(&self, entry: &Entry) -> Result<Arc<[u8]>, FileFault> {
        self.tree.read(&entry.path).map_err(|error| FileFault::new(error.to_string(), None))
    }

    fn missing(&self, path: &str, full: &str) -> FileFault {
        // Most specific reason first: what is missing below a link or submodule may exist where that leads.
        let parents = full.match_indices('/').filter_map(|(at, _)| self.tree.entry(&full[..at]));
        if let Some(parent) = parents.into_iter().find(|entry| entry.kind != EntryKind::File) {
            let what = if parent.kind == EntryKind::Submodule { "a submodule" } else { "a symbolic link" };
            let message =
                format!("`{path}` lies in `{}`, which is {what}: what is there is not in this repository", parent.path);
            return FileFault::new(message, "commit the file itself".to_owned());
        }
        let entries = self.tree.entries();
        let below = |prefix: &str| {
            let start = entries.partition_point(|e| *e.path < *prefix);
            let count = entries[start..].partition_point(|e| e.path.starts_with(prefix));
            &entries[start..start + count]
        };
        if !below(&format!("{full}/")).is_empty() {
            return FileFault::new(format!("`{path}` is a directory"), "name a file in it".to_owned());
        }
        let prefix = format!("{}/", self.folder);
        let files = below(&prefix).iter().map(|e| &e.path[prefix.len()..]).filter(|name| *name != "service.toml");
        let name = |path: &'_ str| path.rsplit('/').next().map(str::to_owned);
        let all: Vec<_> = files.collect();
        // A near name, or the same name elsewhere in the folder.
        let near = nearest(path, all.iter().copied()).or_else(|| all.iter().copied().find(|f| name(f) == name(path)));
        let hint = near.map(|near| format!("did you mean `{near}`?"));
        FileFault::new(format!("there is no file `{path}` in {}", self.folder), hint)
    }
}

fn too_long(path: &str, length: u64, limit: u64) -> FileFault {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let message = format!("`{path}` has {:.1} MiB; at most {:.0} may be shipped", mib(length), mib(limit));
    let hint = "install it as a package, fetch it on the node with a `command`, or raise `max_file_mib` in site.toml and \
                `max_blob` of the agents";
    FileFault::new(message, hint.to_owned())
}

fn no_file(path: &str, kind: EntryKind) -> FileFault {
    match kind {
        EntryKind::Submodule => FileFault::new(
            format!("`{path}` is a submodule: what is there is not in this repository"),
            "commit the files themselves".to_owned(),
        ),
        _ => FileFault::new(
            format!("`{path}` is a symbolic link, and links are not followed"),
            "commit the file itself".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{MemoryTree, ReadError};

    /// A tree whose files have a length and no content that could be held.
    struct Long(MemoryTree, u64);

    impl SourceTree for Long {
        fn entries(&self) -> &[Entry] {
            self.0.entries()
        }

        fn read(&self, _: &str) -> Result<Arc<[u8]>, ReadError> {
            panic!("a long file is not read as a whole")
        }

        fn scan(&self, _: &str, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), ReadError> {
            let piece = [7; 4096];
            let mut left = self.1;
            let mut on = take(self.1, &[]);
            while on && left > 0 {
                let n = left.min(piece.len() as u64);
                on = take(self.1, &piece[..n as usize]);
                left -= n;
            }
            Ok(())
        }
    }

    fn shipped(length: u64) -> Result<Shipped, FileFault> {
        let tree = Long(MemoryTree::new([("services/s/big", "")]), length);
        Files { tree: &tree, folder: "services/s" }.shipped("big", &mut Contents::default(), 1)
    }

    #[test]
    fn long_files_are_summed_in_pieces_and_limited() {
        for length in [0, 5, INLINE_LIMIT as u64, INLINE_LIMIT as u64 + 1, 1 << 20] {
            let bytes = vec![7; length as usize];
            let found = shipped(length).expect("a file that may be shipped");
            assert_eq!((found.digest, found.content), (Digest::of(&bytes), Content::of(&bytes)), "{length}");
        }
        let fault = shipped(MAX_BLOB + (1 << 20)).expect_err("too long");
        assert_eq!(fault.message, "`big` has 257.0 MiB; at most 256 may be shipped");
    }
}

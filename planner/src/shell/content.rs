//! The content of the active commit, at hand while nodes fetch it.
//!
//! In: a digest that a node's plan names. Out: its chunks. A long file is read from git once, in pieces, into a file without a name in
//! the planner's state directory; so the planner holds no more of it than one chunk, however long it is.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use groundplan_core::{
    SourceTree as _,
    desired::{Body, NodeIx},
};
use groundplan_protocol::{
    blob::{CHUNK, Content, chunk},
    digest::Digest,
    ids::NodeId,
};

use super::site::Site;

/// Files longer than this are kept on the disk, in bytes.
const LONG: u64 = 1 << 20;

/// How many contents are at hand at most: nodes fetch one at a time, and many nodes fetch the same.
const RECENT: usize = 32;

/// How long these may be together, in bytes, unless it is one alone: they take room on the disk.
const ROOM: u64 = 1 << 30;

/// Content that can be read in any order.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Bytes(Arc<[u8]>),
    File(Arc<File>, u64),
}

impl Held {
    fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }

    /// Chunk `n` (from 0), if it has one.
    pub(super) fn chunk(&self, n: u32) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Bytes(bytes) => Ok(chunk(bytes, n).map(<[u8]>::to_vec)),
            Self::File(file, length) => {
                let at = u64::from(n) * CHUNK as u64;
                if at >= *length {
                    return Ok(None);
                }
                let mut bytes = vec![0; (length - at).min(CHUNK as u64) as usize];
                file.read_exact_at(&mut bytes, at)?;
                Ok(Some(bytes))
            }
        }
    }
}

/// Where each content of the active commit is, found when the first node asks, and those that were read last.
pub(super) struct Index {
    dir: PathBuf,
    of: Option<Arc<Site>>,
    /// The nodes that have each content in a plan.
    nodes: HashMap<Digest, HashSet<NodeIx>>,
    bodies: HashMap<Digest, Body>,
    recent: VecDeque<(Digest, Held)>,
}

impl Index {
    /// An empty one that keeps long files in `dir`.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, of: None, nodes: HashMap::new(), bodies: HashMap::new(), recent: VecDeque::new() }
    }

    /// The content of that digest, if `site`, the active one, ships it to that node and it can be read; and how many bytes were read for it,
    /// which is none if it was at hand. What is for other nodes is none of its business, though it may know the digest.
    pub(super) fn read(&mut self, site: &Arc<Site>, node: &NodeId, digest: &Digest) -> Option<(Held, u64)> {
        // Another commit became active. Compared by address: a commit that is loaded again may have other contents, as
        // reported values have changed.
        if !self.of.as_ref().is_some_and(|known| Arc::ptr_eq(known, site)) {
            (self.nodes, self.bodies) = Default::default();
            for instance in site.active.desired.graph.tasks.iter().flat_map(|task| &task.instances) {
                let blob = instance.resolved.spec.content.as_ref().and_then(Content::blob);
                let Some((blob, body)) = blob.zip(instance.resolved.body.as_ref()) else { continue };
                self.nodes.entry(blob.sha256).or_default().insert(instance.node);
                self.bodies.entry(blob.sha256).or_insert_with(|| body.clone());
            }
            self.of = Some(site.clone());
            // What both ship need not be read again.
            self.recent.retain(|(digest, _)| self.bodies.contains_key(digest));
        }
        let at = site.active.desired.node(node)?;
        if !self.nodes.get(digest)?.contains(&at) {
            return None;
        }
        if let Some(at) = self.recent.iter().position(|(known, _)| known == digest) {
            let recent = self.recent.remove(at)?;
            let held = recent.1.clone();
            self.recent.push_front(recent);
            return Some((held, 0));
        }
        let (held, read) = match self.bodies.get(digest)? {
            Body::File(path) => {
                let held = hold(site, path, &self.dir)
                    .inspect_err(|error| tracing::warn!(%error, path = &**path, "cannot be shipped"))
                    .ok()?;
                let read = held.length();
                (held, read)
            }
            Body::Bytes(bytes) => (Held::Bytes(bytes.clone()), 0),
        };
        self.recent.push_front((*digest, held.clone()));
        let (mut most, mut length) = (0, 0);
        for (_, held) in &self.recent {
            length += held.length();
            if most >= RECENT || (most > 0 && length > ROOM) {
                break;
            }
            most += 1;
        }
        self.recent.truncate(most);
        Some((held, read))
    }
}

/// Reads a file of the commit: into memory if it is short, else into a file.
fn hold(site: &Site, path: &str, dir: &Path) -> io::Result<Held> {
    let (mut short, mut long): (Vec<u8>, Option<File>) = (Vec::new(), None);
    let (mut length, mut written) = (0, Ok(()));
    let read = site.tree.scan(path, &mut |whole, piece| {
        length = whole;
        let wrote = match &mut long {
            Some(file) => file.write_all(piece),
            None if whole <= LONG => {
                short.extend_from_slice(piece);
                Ok(())
            }
            none => unnamed(dir).and_then(|file| none.insert(file).write_all(piece)),
        };
        written = wrote;
        written.is_ok()
    });
    written?;
    read.map_err(io::Error::other)?;
    Ok(match long {
        Some(file) => Held::File(Arc::new(file), length),
        None => Held::Bytes(short.into()),
    })
}

/// A file that vanishes with its last handle, also if the planner is killed.
fn unnamed(dir: &Path) -> io::Result<File> {
    let path = dir.join("content.tmp");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

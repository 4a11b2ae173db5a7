//! The first key that the inventory has named for each node: a file of lines `<node> <key>` in the state directory.
//!
//! In: keys, each once. Out: the same keys after a restart. Only an operator changes a key here, and none is removed: a node that leaves the inventory
//! and comes back with another key is as suspicious as one whose key changes.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use groundplan_protocol::{envelope::PublicKey, ids::NodeId};

use crate::private;

/// The pinned keys.
pub(super) struct Pins {
    path: PathBuf,
    keys: BTreeMap<NodeId, PublicKey>,
}

impl Pins {
    /// Those of a state directory. Lines that are damaged are left out and logged: their nodes are pinned again.
    pub(super) fn read(state_dir: &Path) -> Self {
        let path = state_dir.join("pinned");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::error!(%error, path = %path.display(), "the pinned keys of nodes cannot be read");
                }
                String::new()
            }
        };
        let mut keys = BTreeMap::new();
        for line in text.lines() {
            let pin = line.split_once(' ').and_then(|(node, key)| Some((node.parse().ok()?, key.parse().ok()?)));
            match pin {
                Some((node, key)) => _ = keys.insert(node, key),
                None => tracing::warn!(path = %path.display(), "a line that pins no key is left out"),
            }
        }
        Self { path, keys }
    }

    /// The key of a node.
    pub(super) fn get(&self, node: &NodeId) -> Option<PublicKey> {
        self.keys.get(node).copied()
    }

    /// Adds keys, in memory also if the file cannot be written.
    pub(super) fn add(&mut self, new: Vec<(NodeId, PublicKey)>) {
        if new.is_empty() {
            return;
        }
        self.keys.extend(new);
        if let Err(error) = self.write() {
            let path = self.path.display();
            tracing::error!(%error, %path, "the keys of nodes cannot be pinned: after a restart those of the inventory count");
        }
    }

    fn write(&self) -> io::Result<()> {
        let text: String = self.keys.iter().map(|(node, key)| format!("{node} {key}\n")).collect();
        private::replace(&self.path, text.as_bytes())
    }
}

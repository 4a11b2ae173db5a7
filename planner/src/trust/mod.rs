//! Keys: the planner's own, and those of the nodes.
//!
//! In: key files and the inventory. Out: the key that signs plans, and for each node the key that its messages must be signed by: the one
//! that an operator trusts, in `trusted/<node>.pub` of the state directory; else the first that the inventory has named for it, which is
//! kept in `pinned` there. A commit that names another one changes nothing: that key is held until an operator confirms it, because who
//! may commit is not thereby who may speak for a node. A node without any key is not listened to.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use groundplan_inventory::Inventory;
use groundplan_protocol::{
    envelope::{InvalidKey, PublicKey, SigningKey},
    ids::NodeId,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod pins;

use self::pins::Pins;

use crate::private;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read or made.
    #[error("cannot use the key file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        #[source]
        source: InvalidKey,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a new key")]
    Random,
}

/// Random bytes of the system.
///
/// # Errors
/// It gives none.
pub fn random<const N: usize>() -> Result<[u8; N], TrustError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| TrustError::Random)?;
    Ok(bytes)
}

/// Reads a signing key.
///
/// # Errors
/// No file, or no key in it.
pub fn read_key(path: &Path) -> Result<SigningKey, TrustError> {
    let text = fs::read_to_string(path).map_err(|source| TrustError::Io { path: path.to_owned(), source })?;
    text.parse().map_err(|source| TrustError::Key { path: path.to_owned(), source })
}

/// The planner's key: that of `given`, or `planner.key` in `state_dir`, which is made if it is not there.
///
/// # Errors
/// See [`TrustError`].
pub fn planner_key(state_dir: &Path, given: Option<&Path>) -> Result<SigningKey, TrustError> {
    if let Some(path) = given {
        return read_key(path);
    }
    let path = state_dir.join("planner.key");
    let io = |source| TrustError::Io { path: path.clone(), source };
    match private::open(&path, fs::File::options().read(true)) {
        Ok(_) => return read_key(&path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io(e)),
    }
    private::parents(state_dir).map_err(io)?;
    let key = SigningKey::from_seed(random()?);
    private::replace(&path, key.secret_text().as_bytes()).map_err(io)?;
    Ok(key)
}

/// The public key that agents are to trust; makes the key if it is not there.
///
/// # Errors
/// See [`TrustError`].
pub fn planner_public_key(state_dir: &Path, given: Option<&Path>) -> Result<PublicKey, TrustError> {
    planner_key(state_dir, given).map(|key| key.public())
}

/// Where the key of a node lies that the inventory does not name.
pub fn node_key_path(state_dir: &Path, node: &NodeId) -> PathBuf {
    state_dir.join("trusted").join(format!("{node}.pub"))
}

/// Puts the key of a node where the planner looks for it.
///
/// # Errors
/// The file cannot be written.
pub fn trust_node(state_dir: &Path, node: &NodeId, key: &PublicKey) -> Result<(), TrustError> {
    let path = node_key_path(state_dir, node);
    let io = |source| TrustError::Io { path: path.clone(), source };
    private::directory(&state_dir.join("trusted")).map_err(io)?;
    private::replace(&path, format!("{key}\n").as_bytes()).map_err(io)
}

/// A key that the inventory names for a node in place of the one that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeldKey {
    /// The key that is trusted until an operator confirms the other.
    pub trusted: PublicKey,
    /// The key that the inventory of the active commit names.
    pub declared: PublicKey,
}

impl fmt::Display for HeldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trusted, declared } = self;
        write!(f, "the inventory names the key {declared}; {trusted} is trusted until an operator confirms the other")
    }
}

/// Keys of nodes, each file read again when it changes.
pub struct NodeKeys {
    state_dir: PathBuf,
    files: BTreeMap<NodeId, (Option<SystemTime>, Option<PublicKey>)>,
    pins: Pins,
}

impl NodeKeys {
    /// The keys below `state_dir`, none of which is read yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), files: BTreeMap::new(), pins: Pins::read(state_dir) }
    }

    /// An operator has trusted this key of a node: its file is read again, and it is kept if the file goes.
    pub fn repin(&mut self, node: &NodeId, key: PublicKey) {
        self.files.remove(node);
        self.pins.add(vec![(node.clone(), key)]);
    }

    /// Keeps the keys that an inventory names for nodes that have had none so far.
    pub fn pin(&mut self, inventory: &Inventory) {
        let named = inventory.nodes.iter().filter_map(|(id, node)| Some((id, node.key?)));
        let named: Vec<_> = named.filter(|(id, _)| self.pins.get(id).is_none()).collect();
        // What an operator trusts already stays what is trusted, also if its file is removed later.
        let trusted = |(id, key): (&NodeId, _)| (id.clone(), self.file(id).ok().flatten().unwrap_or(key));
        let new = named.into_iter().map(trusted).collect();
        self.pins.add(new);
    }

    /// The nodes for which an inventory names another key than the trusted one.
    pub fn held(&mut self, inventory: &Inventory) -> BTreeMap<NodeId, HeldKey> {
        let mut held = BTreeMap::new();
        for (id, declared) in inventory.nodes.iter().filter_map(|(id, node)| Some((id, node.key?))) {
            match self.key(id, Some(inventory)) {
                Ok(Some(trusted)) if trusted != declared => _ = held.insert(id.clone(), HeldKey { trusted, declared }),
                _ => {}
            }
        }
        held
    }

    /// The key of a node, or why there is none.
    ///
    /// # Errors
    /// The file is there, but not to be read, or holds no key.
    pub fn key(&mut self, node: &NodeId, inventory: Option<&Inventory>) -> Result<Option<PublicKey>, TrustError> {
        let trusted = self.file(node)?.or_else(|| self.pins.get(node));
        Ok(trusted.or_else(|| inventory.and_then(|inventory| inventory.nodes.get(node)?.key)))
    }

    /// The key that an operator trusts for a node.
    fn file(&mut self, node: &NodeId) -> Result<Option<PublicKey>, TrustError> {
        let path = node_key_path(&self.state_dir, node);
        let modified = fs::metadata(&path).and_then(|m| m.modified()).ok();
        if let Some((known, key)) = self.files.get(node)
            && *known == modified
        {
            return Ok(*key);
        }
        let key = match fs::read_to_string(&path) {
            Ok(text) => Some(text.parse().map_err(|source| TrustError::Key { path, source })?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(TrustError::Io { path, source }),
        };
        self.files.insert(node.clone(), (modified, key));
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_secret() {
        let dir = tempfile::tempdir().unwrap();
        let key = planner_public_key(dir.path(), None).unwrap();
        assert_eq!(planner_public_key(dir.path(), None).unwrap(), key);
        let mode = fs::metadata(dir.path().join("planner.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(planner_key(dir.path(), Some(&dir.path().join("none"))).is_err());
    }

    #[test]
    fn a_node_key_is_found_as_soon_as_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeId::new("db-0").unwrap();
        let mut keys = NodeKeys::new(dir.path());
        assert_eq!(keys.key(&node, None).unwrap(), None);
        let key = SigningKey::from_seed([3; 32]).public();
        trust_node(dir.path(), &node, &key).unwrap();
        assert_eq!(keys.key(&node, None).unwrap(), Some(key));
        fs::write(node_key_path(dir.path(), &node), "nonsense").unwrap();
        assert!(keys.key(&node, None).is_err());
    }

    #[test]
    fn a_commit_does_not_change_the_key_of_a_node() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second, third] = [1, 2, 3].map(|seed| SigningKey::from_seed([seed; 32]).public());
        let node = NodeId::new("db-0").unwrap();
        let inventory = |key: &PublicKey| {
            let text = format!("[nodes.db-0]\nkey = \"{key}\"\n");
            let file = groundplan_inventory::parse::inventory(&"inventory/nodes.toml".into(), text.as_bytes());
            groundplan_inventory::merge::merge(None, &[&file]).0
        };
        let mut keys = NodeKeys::new(dir.path());
        keys.pin(&inventory(&first));
        assert!(keys.held(&inventory(&first)).is_empty());
        // Also after a restart, and where the node was not declared meanwhile.
        keys.pin(&Inventory::default());
        for mut keys in [keys, NodeKeys::new(dir.path())] {
            keys.pin(&inventory(&second));
            assert_eq!(keys.key(&node, Some(&inventory(&second))).unwrap(), Some(first));
            let held = keys.held(&inventory(&second));
            assert_eq!(held[&node], HeldKey { trusted: first, declared: second });
        }
        let mut keys = NodeKeys::new(dir.path());
        trust_node(dir.path(), &node, &second).unwrap();
        keys.repin(&node, second);
        assert!(keys.held(&inventory(&second)).is_empty());
        assert_eq!(keys.held(&inventory(&third))[&node], HeldKey { trusted: second, declared: third });
        fs::remove_file(node_key_path(dir.path(), &node)).unwrap();
        assert_eq!(keys.key(&node, Some(&inventory(&third))).unwrap(), Some(second));
    }
}

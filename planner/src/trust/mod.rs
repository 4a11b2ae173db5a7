//! Keys: the planner's own, and those of the nodes.
//!
//! In: key files and the inventory. Out: the key that signs plans, and for each node the key that its messages must be signed by:
//! the one in the inventory, or else that in `trusted/<node>.pub` of the state directory. A node without either is not listened to.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use groundplan_inventory::Inventory;
use groundplan_protocol::{
    envelope::{InvalidKey, PublicKey, SigningKey},
    ids::NodeId,
};
use ring::rand::{SecureRandom as _, SystemRandom};

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

/// Keys of nodes, each file read again when it changes.
pub struct NodeKeys {
    state_dir: PathBuf,
    files: BTreeMap<NodeId, (Option<SystemTime>, Option<PublicKey>)>,
}

impl NodeKeys {
    /// The keys below `state_dir`, none of which is read yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), files: BTreeMap::new() }
    }

    /// Reads the key of a node again when it is asked for next.
    pub fn forget(&mut self, node: &NodeId) {
        self.files.remove(node);
    }

    /// The key of a node, or why there is none.
    ///
    /// # Errors
    /// The file is there, but not to be read, or holds no key.
    pub fn key(&mut self, node: &NodeId, inventory: Option<&Inventory>) -> Result<Option<PublicKey>, TrustError> {
        if let Some(key) = inventory.and_then(|i| i.nodes.get(node)?.key) {
            return Ok(Some(key));
        }
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
}

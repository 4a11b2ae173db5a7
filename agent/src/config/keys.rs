//! Keys: the node's own, created at its first start; and those of planners, as text or in files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use groundplan_protocol::envelope::{PublicKey, SigningKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::error::ConfigError;
use crate::private;

/// The key in `path`; a new one, written there with mode 0600, if there is no such file.
pub(super) fn signing(path: &Path) -> Result<SigningKey, ConfigError> {
    let error = |source| ConfigError::Io { path: path.to_owned(), source };
    match private::open(path, fs::File::options().read(true)).and_then(io::read_to_string) {
        Ok(text) => text.parse().map_err(|e| ConfigError::Invalid(vec![format!("{}: {e}", path.display())])),
        Err(e) if e.kind() == io::ErrorKind::NotFound => make(path).map_err(error),
        Err(e) => Err(error(e)),
    }
}

fn make(path: &Path) -> io::Result<SigningKey> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
    let key = SigningKey::from_seed(seed);
    if let Some(dir) = path.parent() {
        // Usually the state directory, which only the agent's own user may read.
        private::parents(dir)?;
    }
    // Complete or not at all: an incomplete key would keep the agent from starting.
    private::replace(path, key.secret_text().as_bytes())?;
    Ok(key)
}

/// The keys among `given`: each is a key, or the path of a file with one on each line.
pub(super) fn public(given: &[String], faults: &mut Vec<String>) -> Result<Vec<PublicKey>, ConfigError> {
    let mut keys = Vec::new();
    for entry in given {
        if entry.starts_with("ed25519:") || !entry.contains('/') {
            match entry.parse() {
                Ok(key) => keys.push(key),
                Err(e) => faults.push(format!("`planner_keys`: `{entry}` is {e}")),
            }
            continue;
        }
        let path = PathBuf::from(entry);
        let text = fs::read_to_string(&path).map_err(|source| ConfigError::Io { path: path.clone(), source })?;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            match line.parse() {
                Ok(key) => keys.push(key),
                Err(e) => faults.push(format!("`planner_keys`: {entry} holds a line that is {e}")),
            }
        }
    }
    Ok(keys)
}

//! The directory of a `groundplan up`: the paths of all parts below it, and the files that they need before they start.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use groundplan_protocol::{
    broker::BrokerAddress,
    envelope::{PublicKey, SigningKey},
    ids::{NodeId, SiteName},
};
use tracing_subscriber::EnvFilter;

use crate::{private, terminal::Failure, trust};

/// The directory if none is given.
pub(crate) const DEFAULT_DIR: &str = "groundplan-up";

/// The environment variable that names another one, for all commands.
pub(crate) const DIR_VARIABLE: &str = "GROUNDPLAN_UP_DIR";

/// The directory of the sample site.
pub(super) const SITE: &str = "site";

/// How a node's agent connects to the broker.
pub(super) struct NodeAccess<'a> {
    pub(super) broker: &'a BrokerAddress,
    /// Goes into a file of mode 0600, never into the arguments of a program.
    pub(super) password: &'a str,
}

/// All paths below one directory.
#[derive(Debug, Clone)]
pub(super) struct Layout(PathBuf);

impl Layout {
    /// The layout below a directory, which need not exist.
    pub(super) fn at(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// Creates the directory and locks it. The lock is held as long as the returned file is open.
    ///
    /// # Errors
    /// The directory is not writable, or another `groundplan up` has locked it.
    pub(super) fn open(dir: &Path) -> Result<(Self, File), Failure> {
        let failed = |e| Failure::because(format!("cannot use the directory {}", dir.display()), e);
        fs::create_dir_all(dir).map_err(failed)?;
        let layout = Self(dir.canonicalize().map_err(failed)?);
        let lock = private::append(&layout.lock()).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Failure::new(format!("another `groundplan up` is running in {}", dir.display()))
                    .hint("stop it with Ctrl-C in its terminal, or choose another directory with --dir"));
            }
            Err(fs::TryLockError::Error(e)) => return Err(failed(e)),
        }
        for folder in [layout.planner(), layout.planner().join("trusted")] {
            private::directory(&folder).map_err(failed)?;
        }
        fs::create_dir_all(layout.nodes()).map_err(failed)?;
        // It lies in the site's own repository, usually: its keys must never be committed. A directory that has such a file already, or
        // is the top of a repository, is not only ours: there the two folders with keys in them ignore themselves.
        let is_repository = layout.0.join(".git").exists();
        let folders = [(&layout.0, is_repository), (&layout.planner(), false), (&layout.nodes(), false)];
        for (folder, _) in folders.into_iter().filter(|(_, skip)| !skip) {
            let ignored = folder.join(".gitignore");
            if !ignored.exists() {
                fs::write(&ignored, "*\n").map_err(failed)?;
            }
        }
        Ok((layout, lock))
    }

    /// The lock file. Its existence marks a directory as one of `groundplan up`, also while none is running.
    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("up.lock")
    }

    /// The sample site's repository.
    pub(super) fn site(&self) -> PathBuf {
        self.0.join(SITE)
    }

    /// The planner's state directory.
    pub(super) fn planner(&self) -> PathBuf {
        self.0.join("planner")
    }

    /// The parent of the nodes' directories.
    pub(super) fn nodes(&self) -> PathBuf {
        self.0.join("nodes")
    }

    fn node(&self, node: &NodeId) -> PathBuf {
        self.nodes().join(node.as_str())
    }

    /// The log file of an agent.
    pub(super) fn agent_log(&self, node: &NodeId) -> PathBuf {
        self.node(node).join("agent.log")
    }

    /// Writes the log of this process to `planner.log`, because the terminal shows the progress.
    pub(super) fn log_to_file(&self) -> Result<(), Failure> {
        let path = self.planner().join("planner.log");
        let file = private::append(&path);
        let file = file.map_err(|e| Failure::because(format!("cannot write {}", path.display()), e))?;
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file)).init();
        Ok(())
    }

    /// Creates the directories, key and configuration of a node's agent, and adds the key to those that the planner trusts. Returns the
    /// path of the configuration. `real`: the agent acts on this machine and not below a directory.
    pub(super) fn prepare_node(
        &self,
        node: &NodeId,
        site: &SiteName,
        access: &NodeAccess<'_>,
        planner: &PublicKey,
        real: bool,
    ) -> Result<PathBuf, Failure> {
        let failed = |e| Failure::because(format!("cannot prepare node {node} in {}", self.node(node).display()), e);
        let dir = self.node(node);
        let (key_file, password_file) = (dir.join("node.key"), dir.join("broker.password"));
        // A ledger of its own: what was done below the other root, or skipped, is not done here.
        let (root, state) = match real {
            true => (PathBuf::from("/"), dir.join("state-real")),
            false => (dir.join("root"), dir.join("state")),
        };
        // What tasks put below the root is as they want it.
        fs::create_dir_all(&root).and_then(|()| private::directory(&state)).map_err(failed)?;
        let key = signing_key(&key_file).map_err(failed)?;
        trust::trust_node(&self.planner(), node, &key.public()).map_err(|e| {
            Failure::because(format!("cannot add the key of node {node} to the planner's trusted keys"), e)
        })?;
        let text = |path: &Path| toml::Value::from(path.to_string_lossy().into_owned());
        let config = toml::Table::from_iter([
            ("site".to_owned(), toml::Value::from(site.as_str())),
            ("node".to_owned(), toml::Value::from(node.as_str())),
            ("broker".to_owned(), toml::Value::from(access.broker.to_string())),
            ("password_file".to_owned(), text(&password_file)),
            ("root".to_owned(), text(&root)),
            ("state_dir".to_owned(), text(&state)),
            ("key".to_owned(), text(&key_file)),
            ("planner_keys".to_owned(), toml::Value::from(vec![planner.to_string()])),
            ("stop_processes_on_exit".to_owned(), toml::Value::from(true)),
            ("skip_host_kinds".to_owned(), toml::Value::from(true)),
            // Ctrl-C should not have to wait for a command that is running.
            ("stop_timeout".to_owned(), toml::Value::from("2s")),
        ]);
        private::replace(&password_file, access.password.as_bytes()).map_err(failed)?;
        let path = dir.join("agent.toml");
        private::replace(&path, config.to_string().as_bytes()).map_err(failed)?;
        Ok(path)
    }
}

/// The planner's state directory below a directory of `groundplan up`.
pub(crate) fn planner_below(dir: &Path) -> PathBuf {
    Layout::at(dir).planner()
}

/// The planner's state directory below a directory of `groundplan up`, if it is one.
pub(crate) fn planner_state(dir: &Path) -> Option<PathBuf> {
    let layout = Layout::at(dir);
    layout.lock().exists().then(|| layout.planner())
}

/// Reads a key from a file; creates a random one if the file does not exist.
fn signing_key(path: &Path) -> io::Result<SigningKey> {
    match private::open(path, File::options().read(true)).and_then(io::read_to_string) {
        Ok(text) => text.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let key = SigningKey::from_seed(trust::random().map_err(io::Error::other)?);
            private::replace(path, key.secret_text().as_bytes())?;
            Ok(key)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `git add` would take of a repository in which an up's directory is, after its keys are there.
    fn taken(dir: &str, before: &[(&str, &str)]) -> Vec<String> {
        let top = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let output = std::process::Command::new("git").arg("-C").arg(top.path()).args(args).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        git(&["init", "-q"]);
        for (path, text) in before {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let (layout, _lock) = Layout::open(&top.path().join(dir)).unwrap();
        fs::write(layout.planner().join("planner.key"), "secret").unwrap();
        fs::create_dir_all(layout.nodes().join("a")).unwrap();
        fs::write(layout.nodes().join("a/node.key"), "secret").unwrap();
        git(&["ls-files", "--others", "--exclude-standard"]).lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_it_makes_is_private_in_a_directory_that_all_may_enter() {
        use std::os::unix::fs::PermissionsExt as _;
        let top = tempfile::tempdir().unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let (layout, _lock) = Layout::open(top.path()).unwrap();
        let (node, site): (NodeId, SiteName) = ("a".parse().unwrap(), "lab".parse().unwrap());
        let (broker, key) = ("mqtt://localhost".parse().unwrap(), SigningKey::from_seed([1; 32]).public());
        let access = NodeAccess { broker: &broker, password: "p" };
        let config = layout.prepare_node(&node, &site, &access, &key, false).unwrap();
        let dir = layout.node(&node);
        let files = [
            &config,
            &dir.join("node.key"),
            &dir.join("broker.password"),
            &dir.join("state"),
            &layout.lock(),
            &layout.planner(),
        ];
        for path in files {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
    }

    #[test]
    fn no_key_can_be_committed_wherever_the_directory_is() {
        assert_eq!(taken("groundplan-up", &[("site.toml", "")]), ["site.toml"]);
        assert_eq!(taken("build", &[("build/.gitignore", "*.o\n")]), ["build/.gitignore", "build/up.lock"]);
        // The site's own directory: what belongs to the site is not ignored.
        assert_eq!(taken(".", &[("site.toml", "")]), ["site.toml", "up.lock"]);
    }
}

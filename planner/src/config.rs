//! What a planner needs to know at its start.

use std::{path::PathBuf, time::Duration};

use groundplan_protocol::broker::BrokerAddress;

/// Where a planner keeps its state if nothing else is given.
pub const STATE_DIR: &str = "/var/lib/groundplan";

/// Settings of a planner.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// The site's repository: a path, or a URL as `git fetch` takes it.
    pub repository: String,
    /// The branch to follow; the one that the repository's `HEAD` names if not given.
    pub branch: Option<String>,
    /// The broker.
    pub broker: BrokerAddress,
    /// Mutual TLS with the broker; needed for, and only for, `mqtts://`.
    pub tls: Option<BrokerTls>,
    /// Where `planner.redb`, `planner.key`, `planner.sock`, `trusted/` and `mirror.git` lie; made if missing.
    pub state_dir: PathBuf,
    /// The key that signs plans; `planner.key` in `state_dir`, made at the first start, if not given.
    pub key: Option<PathBuf>,
    /// How often to look at a local repository, whatever the file system's events say.
    pub poll: Duration,
    /// How often to fetch from a remote repository.
    pub fetch: Duration,
}

impl ServeConfig {
    /// Defaults for a repository, a broker and a state directory.
    pub fn new(repository: impl Into<String>, broker: BrokerAddress, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            repository: repository.into(),
            branch: None,
            broker,
            tls: None,
            state_dir: state_dir.into(),
            key: None,
            poll: Duration::from_secs(2),
            fetch: Duration::from_secs(10),
        }
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join("planner.sock")
    }
}

/// Files for mutual TLS, in PEM.
#[derive(Debug, Clone)]
pub struct BrokerTls {
    /// Certificates of the authorities that the broker's certificate must come from.
    pub ca: PathBuf,
    /// The planner's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

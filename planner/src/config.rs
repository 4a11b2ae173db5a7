//! The configuration of a planner.
//!
//! Filled from the command line or by `groundplan up`, and not changed while the planner runs. Certificates and passwords are in their files,
//! which each connection reads again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use groundplan_broker::SitePolicy;
use groundplan_protocol::{
    broker::{BrokerAddress, Secret},
    ids::Generation,
};

/// The environment variable with the broker's password.
pub const PASSWORD_VARIABLE: &str = "GROUNDPLAN_BROKER_PASSWORD";

/// Where a planner keeps its state if nothing else is given.
pub const STATE_DIR: &str = "/var/lib/groundplan";

/// Settings of a planner.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// The site's repository: a path, or a URL as `git fetch` takes it.
    pub repository: String,
    /// The branch to follow; if not given, the one that the repository's `HEAD` names at the start.
    pub branch: Option<String>,
    /// The broker that the agents connect to as well.
    pub broker: BrokerAddress,
    /// Files for TLS with the broker; required for `mqtts://`, refused otherwise.
    pub tls: Option<BrokerTls>,
    /// User name and password, if the broker wants any.
    pub login: Option<BrokerLogin>,
    /// The embedded broker, if it runs in this process: then `broker` is where agents reach it.
    pub embedded: Option<EmbeddedBroker>,
    /// The directory of `planner.redb`, `planner.key`, `planner.sock`, `trusted/` and `mirrors/`; created with mode 0700 if missing.
    pub state_dir: PathBuf,
    /// The file of the key that signs plans; if not given, `planner.key` in `state_dir`, created at the first start.
    pub key: Option<PathBuf>,
    /// The interval of polling a local repository, in addition to events of the file system.
    pub poll: Duration,
    /// The interval of fetching from a remote repository.
    pub fetch: Duration,
    /// How long its server may send nothing before a fetch is ended.
    pub fetch_timeout: Duration,
    /// Plans are numbered above this, and above all that the store and the nodes' receipts have.
    pub generation: Generation,
    /// Whether commits are refused that do not have the active one in their history, whatever the site says.
    pub fast_forward_only: bool,
    /// Whether SIGHUP has the repository be fetched; else it has its usual meaning.
    pub fetch_on_hangup: bool,
}

impl ServeConfig {
    /// The default settings: the branch of `HEAD`, no TLS, polling every 2 s, fetching every 10 s with 60 s of silence at most.
    pub fn new(repository: impl Into<String>, broker: BrokerAddress, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            repository: repository.into(),
            branch: None,
            broker,
            tls: None,
            login: None,
            embedded: None,
            state_dir: state_dir.into(),
            key: None,
            poll: Duration::from_secs(2),
            fetch: Duration::from_secs(10),
            fetch_timeout: Duration::from_secs(60),
            generation: Generation(0),
            fast_forward_only: false,
            fetch_on_hangup: false,
        }
    }

    /// The path of the API's socket.
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join("planner.sock")
    }
}

/// Files for TLS, in PEM.
#[derive(Debug, Clone)]
pub struct BrokerTls {
    /// Certificates of the authorities that may issue the broker's certificate.
    pub ca: PathBuf,
    /// The client certificate and its private key, for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A user of the broker.
#[derive(Debug, Clone)]
pub struct BrokerLogin {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

/// The embedded broker, as the planner beside it sees it.
#[derive(Debug, Clone)]
pub struct EmbeddedBroker {
    /// The unix socket by which the planner connects to it.
    pub socket: PathBuf,
    /// Its rights, which depend on the site's name: the planner names the site once it has read it.
    pub policy: Arc<SitePolicy>,
}

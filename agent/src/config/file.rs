//! The configuration file as it is written, and how flags override it.

use std::path::PathBuf;

use groundplan_protocol::duration::Span;
use serde::Deserialize;

/// The state directory if none is given.
const DEFAULT_STATE: &str = "/var/lib/groundplan";

/// Settings as they are written; [`super::Config`] describes each.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) site: Option<String>,
    pub(super) node: Option<String>,
    pub(super) broker: Option<String>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) root: Option<PathBuf>,
    pub(super) facts_dir: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    #[serde(default)]
    pub(super) planner_keys: Vec<String>,
    pub(super) tls: Option<RawTls>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) max_parallel: Option<usize>,
    pub(super) max_blob: Option<u64>,
    pub(super) max_blobs: Option<u64>,
    pub(super) max_found: Option<u64>,
    pub(super) skip_host_kinds: Option<bool>,
    pub(super) stop_processes_on_exit: Option<bool>,
    pub(super) keep_alive: Option<Span>,
    pub(super) stop_timeout: Option<Span>,
    pub(super) silence: Option<Span>,
}

/// The table `tls`: PEM files.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl Raw {
    /// These settings, and those of `below` where they have none.
    pub(super) fn over(self, below: Self) -> Self {
        let tls = match (self.tls, below.tls) {
            (Some(a), Some(b)) => Some(RawTls { ca: a.ca.or(b.ca), cert: a.cert.or(b.cert), key: a.key.or(b.key) }),
            (a, b) => a.or(b),
        };
        Self {
            site: self.site.or(below.site),
            node: self.node.or(below.node),
            broker: self.broker.or(below.broker),
            state_dir: self.state_dir.or(below.state_dir),
            root: self.root.or(below.root),
            facts_dir: self.facts_dir.or(below.facts_dir),
            key: self.key.or(below.key),
            planner_keys: if self.planner_keys.is_empty() { below.planner_keys } else { self.planner_keys },
            tls,
            username: self.username.or(below.username),
            password_file: self.password_file.or(below.password_file),
            max_parallel: self.max_parallel.or(below.max_parallel),
            max_blob: self.max_blob.or(below.max_blob),
            max_blobs: self.max_blobs.or(below.max_blobs),
            max_found: self.max_found.or(below.max_found),
            skip_host_kinds: self.skip_host_kinds.or(below.skip_host_kinds),
            stop_processes_on_exit: self.stop_processes_on_exit.or(below.stop_processes_on_exit),
            keep_alive: self.keep_alive.or(below.keep_alive),
            stop_timeout: self.stop_timeout.or(below.stop_timeout),
            silence: self.silence.or(below.silence),
        }
    }

    pub(super) fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| DEFAULT_STATE.into())
    }

    pub(super) fn key_path(&self) -> PathBuf {
        self.key.clone().unwrap_or_else(|| self.state_dir().join("node.key"))
    }
}

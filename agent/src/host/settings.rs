//! What a host is made from.

use std::{path::PathBuf, time::Duration};

use groundplan_protocol::ids::{NodeId, SiteName};

use super::process::Backoff;
use crate::facts::boot_id;

/// Settings of a [`Host`](super::Host).
#[derive(Debug, Clone)]
pub struct Settings {
    /// All paths of tasks lie below it; `/` on a real host.
    pub root: PathBuf,
    /// Where the host keeps what must survive the agent: records and logs of supervised processes in `process/` and `log/`,
    /// plugins, manifests of archives, reboot markers, what was found before tasks took it.
    pub state_dir: PathBuf,
    /// The site, in the environment of programs as `GROUNDPLAN_SITE`.
    pub site: SiteName,
    /// The node, in the environment of programs as `GROUNDPLAN_NODE`.
    pub node: NodeId,
    /// How long a command may take to end after TERM before it gets KILL; documented as 10 s.
    pub stop_grace: Duration,
    /// How a supervised process that keeps ending is started again.
    pub backoff: Backoff,
    /// The kernel's random name of this boot.
    pub boot: String,
    /// Most bytes of the contents of replaced files, together, that are kept to be restored.
    pub max_found: u64,
    /// Whether tasks that act on the host as a whole are skipped where the root is not `/`.
    pub skip_host_kinds: bool,
}

/// The documented limit of [`Settings::max_found`].
pub const DEFAULT_MAX_FOUND: u64 = 256 << 20;

impl Settings {
    /// Settings with the documented values for all that is not given.
    pub fn new(root: PathBuf, state_dir: PathBuf, site: SiteName, node: NodeId) -> Self {
        let (stop_grace, backoff) = (Duration::from_secs(10), Backoff::default());
        let (boot, max_found) = (boot_id(), DEFAULT_MAX_FOUND);
        Self { root, state_dir, site, node, stop_grace, backoff, boot, max_found, skip_host_kinds: false }
    }
}

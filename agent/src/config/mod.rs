//! The agent's settings: a TOML file, overridden by flags, checked once.
//!
//! In: the command line, the files that it names, and the broker's password, which the environment may hold. Out: settings that can be used
//! as they are, or all their faults. Nothing here reads another variable, and nothing else uses the raw settings. Certificates and passwords
//! stay in their files, which each connection reads again.

mod access;
mod args;
mod error;
mod file;
mod keys;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, time::Duration};

use groundplan_protocol::{
    blob::{MAX_BLOB, MAX_BLOBS},
    broker::{BrokerAddress, InvalidBrokerAddress},
    envelope::{PublicKey, SigningKey},
    ids::{NodeId, SiteName},
    presence::HEARTBEAT,
};

use self::file::Raw;
pub use self::{
    access::{Broker, Login, Tls},
    args::{Args, Command, HELP, UsageError},
    error::ConfigError,
};
use crate::host::DEFAULT_MAX_FOUND;

/// The configuration file if none is given.
pub const DEFAULT_CONFIG: &str = "/etc/groundplan/agent.toml";
const DEFAULT_FACTS: &str = "/etc/groundplan/facts.d";
const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(30);
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Five heartbeats.
const DEFAULT_SILENCE: Duration = HEARTBEAT.saturating_mul(5);

/// The settings, checked, with defaults for what was not given.
#[derive(Debug)]
pub struct Config {
    /// The site that this agent belongs to.
    pub site: SiteName,
    /// The node that this agent runs on.
    pub node: NodeId,
    /// How to connect to the broker.
    pub broker: Broker,
    /// The directory of ledger, blobs, key and records of processes.
    pub state_dir: PathBuf,
    /// The directory below which all paths of tasks are; `/` on a real host.
    pub root: PathBuf,
    /// The folder of programs that print facts.
    pub facts_dir: PathBuf,
    /// The node's key, with which the agent signs its messages.
    pub key: SigningKey,
    /// The keys of planners from which plans are accepted.
    pub planner_keys: Vec<PublicKey>,
    /// Most tasks that run at a time.
    pub max_parallel: usize,
    /// Largest blob of a plan, in bytes.
    pub max_blob: u64,
    /// Largest sum of a plan's blobs, in bytes.
    pub max_blobs: u64,
    /// Most bytes of the contents of replaced files, together, that are kept to be restored.
    pub max_found: u64,
    /// Whether tasks that act on the host as a whole are skipped where `root` is not `/`, as for trying out a site; otherwise they fail.
    pub skip_host_kinds: bool,
    /// Whether a clean shutdown of the agent stops supervised processes.
    pub stop_processes_on_exit: bool,
    /// The MQTT keep-alive interval, 1 s to 65 535 s.
    pub keep_alive: Duration,
    /// How long running tasks may continue after a signal to stop.
    pub stop_timeout: Duration,
    /// How long nothing new may come from a planner before that is reported.
    pub silence: Duration,
}

impl Config {
    /// Reads and checks all settings. Creates the signing key if there is none yet.
    ///
    /// # Errors
    /// If a file cannot be read, or with all faults of the values.
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        let raw = read(args)?;
        let mut faults = Vec::new();
        let mut required = |value: Option<String>, key: &str, flag: &str| {
            value.unwrap_or_else(|| {
                faults.push(format!("`{key}` is not set: give it in the configuration file or as {flag}"));
                String::new()
            })
        };
        let site = required(raw.site.clone(), "site", "--site NAME");
        let node = required(raw.node.clone(), "node", "--node NAME");
        let broker = required(raw.broker.clone(), "broker", "--broker mqtt://HOST:PORT");
        let site = check(&mut faults, &site, "site", SiteName::new(&site).map_err(|e| e.to_string()));
        let node = check(&mut faults, &node, "node", NodeId::new(&node).map_err(|e| e.to_string()));
        let broker =
            check(&mut faults, &broker, "broker", broker.parse().map_err(|e: InvalidBrokerAddress| e.to_string()));
        if raw.planner_keys.is_empty() {
            let hint = "print it with `groundplan key` on the planner, and give it here or as --planner-key KEY";
            faults.push(format!("`planner_keys` is empty, so no plan could be trusted: {hint}"));
        }
        let planner_keys = keys::public(&raw.planner_keys, &mut faults)?;
        let max_parallel = raw.max_parallel.unwrap_or_else(default_parallel);
        if max_parallel == 0 {
            faults.push("`max_parallel` is 0, so no task could run: give 1 or more".to_owned());
        }
        let keep_alive: Duration = raw.keep_alive.map_or(DEFAULT_KEEP_ALIVE, Duration::from);
        if !(1..=65_535).contains(&keep_alive.as_secs()) {
            faults.push("`keep_alive` is out of range: give `1s` to `65535s`".to_owned());
        }
        let tls = access::tls(&raw, broker.as_ref().is_some_and(|b: &BrokerAddress| b.tls), &mut faults)?;
        let login = access::login(&raw, std::env::var(access::PASSWORD_VARIABLE).ok(), &mut faults)?;
        let (Some(site), Some(node), Some(address), true) = (site, node, broker, faults.is_empty()) else {
            return Err(ConfigError::Invalid(faults));
        };
        Ok(Self {
            site,
            node,
            broker: Broker { address, tls, login },
            key: keys::signing(&raw.key_path())?,
            state_dir: raw.state_dir(),
            root: raw.root.unwrap_or_else(|| "/".into()),
            facts_dir: raw.facts_dir.unwrap_or_else(|| DEFAULT_FACTS.into()),
            planner_keys,
            max_parallel,
            max_blob: raw.max_blob.unwrap_or(MAX_BLOB),
            max_blobs: raw.max_blobs.unwrap_or(MAX_BLOBS),
            max_found: raw.max_found.unwrap_or(DEFAULT_MAX_FOUND),
            skip_host_kinds: raw.skip_host_kinds.unwrap_or(false),
            stop_processes_on_exit: raw.stop_processes_on_exit.unwrap_or(false),
            keep_alive,
            stop_timeout: raw.stop_timeout.map_or(DEFAULT_STOP_TIMEOUT, Duration::from),
            silence: raw.silence.map_or(DEFAULT_SILENCE, Duration::from),
        })
    }

    /// Only what shows whether the agent hears from a planner: its state directory, and how long none may be heard.
    ///
    /// # Errors
    /// If the configuration cannot be read.
    pub fn heard(args: &Args) -> Result<(PathBuf, Duration), ConfigError> {
        let raw = read(args)?;
        Ok((raw.state_dir(), raw.silence.map_or(DEFAULT_SILENCE, Duration::from)))
    }

    /// Only the public key, for the inventory; creates the key if there is none yet.
    ///
    /// # Errors
    /// If the configuration or the key cannot be read.
    pub fn public_key(args: &Args) -> Result<PublicKey, ConfigError> {
        keys::signing(&read(args)?.key_path()).map(|key| key.public())
    }
}

/// The file, overridden by the flags.
fn read(args: &Args) -> Result<Raw, ConfigError> {
    let path = args.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        // Flags alone may be enough.
        Err(e) if e.kind() == io::ErrorKind::NotFound && args.config.is_none() => String::new(),
        Err(source) => return Err(ConfigError::Io { path, source }),
    };
    let raw: Raw =
        toml::from_str(&text).map_err(|e| ConfigError::Syntax { path, text: e.to_string().trim_end().to_owned() })?;
    Ok(args.raw.clone().over(raw))
}

fn check<T>(faults: &mut Vec<String>, given: &str, key: &str, parsed: Result<T, String>) -> Option<T> {
    parsed
        .map_err(|reason| {
            // A missing value has been reported already.
            if !given.is_empty() {
                faults.push(format!("`{key}`: {reason}"));
            }
        })
        .ok()
}

fn default_parallel() -> usize {
    std::thread::available_parallelism().map_or(4, |n| n.get().max(4))
}

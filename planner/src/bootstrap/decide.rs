//! The decision about a host: its target against what the host probe found.
//!
//! In: a target and a probe. Out: the files that differ and the reasons to restart the agent, or the refusal to do anything. No IO: the
//! same values give the same decision.

use std::{collections::BTreeMap, net::IpAddr};

use groundplan_protocol::{
    broker::{BrokerAddress, InvalidBrokerAddress},
    digest::Digest,
};

use super::{
    config::{self, Ours},
    paths::{CA, CERT, CONFIG, KEY, PROGRAM, STATE, UNIT},
    probe::Probe,
    program::{Program, machine},
    refusal::Refusal,
    target::{Bytes, Target},
};

/// Space for the ledger of a new agent, in KiB.
const LEDGER_SPACE: u64 = 4096;
/// Space that a directory needs in addition to the bytes of its new files (directory entries, temporary names), in KiB.
const SPARE: u64 = 64;
/// The unit as the packages install it.
const UNIT_TEXT: &str = include_str!("../../../packaging/systemd/groundplan-agent.service");

/// A file to be written on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostFile {
    pub(super) path: String,
    /// Permission bits in octal.
    pub(super) mode: &'static str,
    pub(super) bytes: Bytes,
    /// The SHA-256 digest of `bytes`, in hexadecimal.
    pub(super) digest: String,
}

/// What has to be done on a host; nothing if both lists are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// The files that are missing or differ, in the order in which they are sent.
    pub(super) put: Vec<HostFile>,
    /// Why the agent must be restarted; empty if it need not be.
    pub(super) because: Vec<RestartReason>,
    /// The digest of the program that must run in the end.
    pub(super) program: String,
    /// The version of the agent that the host has.
    pub(super) previous_version: Option<String>,
    /// Whether a rollback goes back to the `.old` files of an earlier, unfinished run: the present files never worked.
    pub(super) keep_old: bool,
    /// The state directory of another site's agent, and the path that it is moved to.
    pub(super) aside: Option<(String, String)>,
}

/// Why an agent must be restarted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RestartReason {
    /// The host has no agent yet.
    New,
    /// The program file differs.
    Program,
    /// Another file differs: its path.
    File(String),
    /// The unit is not active: its `ActiveState`.
    NotRunning(String),
    /// The unit is not enabled, so it would not start at boot.
    NotEnabled,
    /// The running program is not the file: it was replaced without a restart.
    OldProgram,
    /// An earlier run has not finished, so no run has seen the present files work.
    Pending,
    /// The planner trusts no key for the node, or another one.
    Key,
    /// The agent belonged to another site, node or planner: which.
    TakenOver(String),
}

impl std::fmt::Display for RestartReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::New => f.write_str("no agent yet"),
            Self::Program => f.write_str("another program"),
            Self::File(path) => write!(f, "{path} differs"),
            Self::NotRunning(state) => write!(f, "the agent is {state}"),
            Self::NotEnabled => f.write_str("the agent is not enabled at boot"),
            Self::OldProgram => f.write_str("the agent still runs an earlier program"),
            Self::Pending => f.write_str("an earlier bootstrap was interrupted"),
            Self::Key => f.write_str("the planner did not trust its key"),
            Self::TakenOver(whose) => write!(f, "the agent was that of {whose}"),
        }
    }
}

/// Compares a target with a probe.
///
/// # Errors
/// The host cannot run the agent, is not what the operator believes, or could not reach the broker; nothing may be changed then.
pub(super) fn decide(target: &Target, probe: &Probe) -> Result<Decision, Refusal> {
    if probe.uid != 0 {
        return Err(Refusal::NotRoot(probe.uid));
    }
    if !probe.systemd {
        return Err(Refusal::NoSystemd);
    }
    let Some(program) = target.programs.iter().find(|program| program.machine == machine(&probe.machine)) else {
        let have = target.programs.iter().map(|program| program.machine.to_owned()).collect();
        return Err(Refusal::Machine { host: probe.machine.clone(), have });
    };
    let given = target.broker.as_ref().map(ToString::to_string);
    let ours = Ours {
        site: &target.site,
        node: &target.node,
        planner_key: &target.planner_key,
        broker: given.as_deref(),
        default_broker: &target.default_broker,
        ca: target.ca.is_some(),
        certificate: target.certificate.is_some(),
    };
    let merged = config::merge(probe.config.as_deref(), &ours).map_err(|e| Refusal::Config(e.to_string()))?;
    let owner = foreign_owner(target, &merged.before);
    if let (Some(owner), false) = (&owner, target.take_over) {
        return Err(Refusal::Other(owner.name.clone()));
    }
    check_broker(target, &merged)?;
    let aside = match &owner {
        // Another site's ledger names tasks, generations and a planner that mean nothing here: the new agent must not find it.
        Some(owner) if !owner.same_node => Some(move_aside(&merged.before.state_dir, probe)?),
        _ => None,
    };
    check_key(target, probe, aside.is_some())?;
    let put = files(target, probe, program, merged.text);
    check_space(probe, &put)?;
    let digest = program.digest.to_string();
    let because = restart_reasons(target, probe, &put, owner.map(|owner| owner.name), &digest);
    // If the agent is active and runs the present program, the present files are worth going back to, whatever an earlier run kept.
    let works = probe.active == "active" && probe.running == probe.files.get(PROGRAM).map(|(_, digest)| digest.clone());
    Ok(Decision {
        put,
        because,
        program: digest,
        previous_version: probe.version.clone(),
        keep_old: probe.pending && !works,
        aside,
    })
}

/// The owner of an agent that is not the target's.
struct Owner {
    /// For people: `site s, node n`.
    name: String,
    /// Whether only the planner differs, so that the state is this node's own.
    same_node: bool,
}

/// Whose agent the host has, if it is not the target's.
fn foreign_owner(target: &Target, before: &config::Before) -> Option<Owner> {
    let site = before.site.as_ref().filter(|site| **site != target.site.as_str());
    let node = before.node.as_ref().filter(|node| **node != target.node.as_str());
    let ours = target.planner_key.to_string();
    let planner = before.planner_keys.first().filter(|_| !before.planner_keys.contains(&ours));
    // The widest difference names the owner: the names of nodes mean nothing across sites.
    let (name, same_node) = match (site, node, planner) {
        (Some(site), ..) => (format!("site {site}, node {}", before.node.as_deref().unwrap_or("?")), false),
        (None, Some(node), _) => (format!("this site, but node {node}"), false),
        // A site of the same name, or this one after its planner lost its key.
        (None, None, Some(planner)) => (format!("another planner, whose key is {planner}"), true),
        (None, None, None) => return None,
    };
    Some(Owner { name, same_node })
}

/// The state directory of another site, and where it is moved. The name is derived from the old configuration, so that a repeated
/// take-over moves it to the same place instead of a second one.
fn move_aside(state: &str, probe: &Probe) -> Result<(String, String), Refusal> {
    if !is_plain(state) {
        let why = format!("`state_dir` is {state:?}, and a path with such characters is not moved");
        return Err(Refusal::Config(why));
    }
    let stamp = Digest::of(probe.config.as_deref().unwrap_or_default().as_bytes()).short();
    Ok((state.to_owned(), format!("{}.before-{stamp}", state.trim_end_matches('/'))))
}

/// Whether a path can stand unquoted in a line of the script, and in the lines of its record of replaced files.
fn is_plain(path: &str) -> bool {
    path.starts_with('/') && path.len() > 1 && path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
}

/// Refuses a host whose agent has, or will have, another key than the planner trusts for the node.
fn check_key(target: &Target, probe: &Probe, state_moves: bool) -> Result<(), Refusal> {
    let (Some(known), false) = (target.key, target.replace_key) else { return Ok(()) };
    // The key is part of the state: if that is moved aside, the agent makes a new key.
    let found = probe.key.filter(|_| !state_moves);
    let will_be_new = found.is_none() && (state_moves || !probe.key_file);
    // A key file without a readable key is not refused: the agent reports its key after the upload, and the planner checks that.
    if will_be_new || found.is_some_and(|found| found != known) {
        return Err(Refusal::Key { known, found });
    }
    Ok(())
}

/// Refuses a configuration with which the agent could not connect.
fn check_broker(target: &Target, merged: &config::Merged) -> Result<(), Refusal> {
    let is_loopback = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let broker: BrokerAddress =
        merged.broker.parse().map_err(|e: InvalidBrokerAddress| Refusal::Config(e.to_string()))?;
    // A target that is itself a loopback address is this machine, which reaches its own broker.
    if is_loopback(&broker.host) && !is_loopback(&target.address) {
        return Err(Refusal::Loopback(merged.broker.clone()));
    }
    if broker.tls && !merged.has_ca {
        return Err(Refusal::NoCa(merged.broker.clone()));
    }
    if !broker.tls && merged.has_tls {
        return Err(Refusal::NotTls(merged.broker.clone()));
    }
    Ok(())
}

/// The files that are missing on the host or differ. The program is last: if space runs out, that shows before the largest file is sent.
fn files(target: &Target, probe: &Probe, program: &Program, config: String) -> Vec<HostFile> {
    let mut wanted: Vec<(String, &'static str, Bytes)> = Vec::new();
    wanted.push((CONFIG.to_owned(), "600", config.into_bytes().into()));
    if let Some(ca) = &target.ca {
        wanted.push((CA.to_owned(), "644", ca.clone()));
    }
    if let Some((cert, key)) = &target.certificate {
        wanted.push((CERT.to_owned(), "600", cert.clone()));
        wanted.push((KEY.to_owned(), "600", key.clone()));
    }
    wanted.push((format!("{}/{UNIT}", probe.unit_dir), "644", UNIT_TEXT.as_bytes().into()));
    wanted.push((PROGRAM.to_owned(), "755", program.bytes.clone()));
    let file = |(path, mode, bytes): (String, &'static str, Bytes)| {
        let digest = Digest::of(&bytes).to_string();
        HostFile { path, mode, bytes, digest }
    };
    let differs = |file: &HostFile| match probe.files.get(&file.path) {
        // The operator may have made the configuration readable for a group: its mode is set only when it is written.
        Some((mode, digest)) => *digest != file.digest || (mode != file.mode && file.path != CONFIG),
        None => true,
    };
    wanted.into_iter().map(file).filter(differs).collect()
}

/// Adds up by file system what the new files need, because several directories may share one.
fn check_space(probe: &Probe, put: &[HostFile]) -> Result<(), Refusal> {
    // By device: KiB needed, the first directory on it, KiB free.
    let mut need: BTreeMap<&str, (u64, &str, u64)> = BTreeMap::new();
    let mut add = |dir: &str, kib: u64| {
        if let Some((dir, (device, free))) = probe.space.get_key_value(dir) {
            need.entry(device).or_insert((0, dir, *free)).0 += kib + SPARE;
        }
    };
    // From the largest file, the program, on: the error names the directory that was added first.
    for file in put.iter().rev() {
        let dir = file.path.rsplit_once('/').map_or("", |(dir, _)| dir);
        add(dir, (file.bytes.len() as u64).div_ceil(1024));
    }
    if !put.is_empty() && !probe.files.contains_key(PROGRAM) {
        add(STATE, LEDGER_SPACE);
    }
    match need.into_values().find(|(need, _, free)| need > free) {
        Some((need, dir, free)) => Err(Refusal::Space { dir: dir.to_owned(), need, free }),
        None => Ok(()),
    }
}

/// Why the agent must be restarted. `program` is the digest of the program that must run.
fn restart_reasons(
    target: &Target,
    probe: &Probe,
    put: &[HostFile],
    taken_over: Option<String>,
    program: &str,
) -> Vec<RestartReason> {
    // These two explain everything that would follow.
    if let Some(owner) = taken_over {
        return vec![RestartReason::TakenOver(owner)];
    }
    if !probe.files.contains_key(PROGRAM) {
        return vec![RestartReason::New];
    }
    let file = |file: &HostFile| match file.path.as_str() {
        PROGRAM => RestartReason::Program,
        path => RestartReason::File(path.to_owned()),
    };
    let mut because: Vec<RestartReason> = put.iter().map(file).collect();
    if probe.active != "active" {
        because.push(RestartReason::NotRunning(probe.active.clone()));
    } else if !because.contains(&RestartReason::Program) && probe.running.as_deref() != Some(program) {
        because.push(RestartReason::OldProgram);
    }
    if probe.enabled != "enabled" {
        because.push(RestartReason::NotEnabled);
    }
    if probe.pending {
        because.push(RestartReason::Pending);
    }
    // An agent whose key is not trusted yet has never been accepted: its first connection must be a new one.
    if target.key.is_none() || (probe.key.is_some() && probe.key != target.key) {
        because.push(RestartReason::Key);
    }
    because
}

/// Whether a version is older than another, compared number by number; false if either is unknown or not of that form. Suffixes after
/// `-` or `+` are ignored.
pub(super) fn is_older(version: Option<&str>, than: Option<&str>) -> bool {
    let numbers = |version: &str| -> Option<Vec<u64>> {
        let core = version.split(['-', '+']).next().unwrap_or_default();
        core.split('.').map(|number| number.parse().ok()).collect()
    };
    match (version.and_then(numbers), than.and_then(numbers)) {
        (Some(version), Some(than)) => version < than,
        _ => false,
    }
}

#[cfg(test)]
mod tests;

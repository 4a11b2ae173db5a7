//! What is to be done on a host, decided from what it is to be and what it is.
//!
//! In: a target and what the host probe found. Out: the files that differ and whether the agent must be restarted, with the reasons; or
//! why nothing may be done at all. No IO; the same values, the same decision.

use std::{collections::BTreeMap, net::IpAddr};

use groundplan_protocol::digest::Digest;

use super::{
    config::{self, Ours},
    paths::{CA, CERT, CONFIG, KEY, PROGRAM, STATE, UNIT},
    probe::Seen,
    program::{Program, machine},
    refusal::Refusal,
    target::{Bytes, Target},
};
use groundplan_protocol::broker::{BrokerAddress, InvalidBrokerAddress};

/// What a new agent needs for its ledger, in KiB.
const STATE_ROOM: u64 = 4096;
/// What a folder needs besides its files' bytes, in KiB.
const ROOM: u64 = 64;
/// The unit as packages have it.
const UNIT_TEXT: &str = include_str!("../../../packaging/systemd/groundplan-agent.service");

/// A file for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostFile {
    pub(super) path: String,
    /// In octal.
    pub(super) mode: &'static str,
    pub(super) bytes: Bytes,
    pub(super) digest: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// Files that are not there as they should be.
    pub(super) put: Vec<HostFile>,
    /// Why the agent must start anew; empty if it need not.
    pub(super) because: Vec<Because>,
    /// The digest of the program that must run.
    pub(super) program: String,
    /// The version that was there.
    pub(super) had: Option<String>,
    /// Whether what an earlier run kept is what to go back to: what is there now never worked.
    pub(super) keep_old: bool,
    /// Where another site's state is, and where it goes.
    pub(super) aside: Option<(String, String)>,
}

/// Why an agent must start anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Because {
    /// There is none yet.
    New,
    /// It is another program.
    Program,
    /// A file of it differs.
    File(String),
    /// It does not run.
    NotRunning(String),
    /// It does not start with the host.
    NotEnabled,
    /// It runs what is no longer there.
    OldProgram,
    /// An earlier run was broken off.
    Pending,
    /// The planner did not know its key.
    Key,
    /// It was another site's.
    TakenOver(String),
}

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::New => f.write_str("there is no agent yet"),
            Self::Program => f.write_str("another program"),
            Self::File(path) => write!(f, "{path} differs"),
            Self::NotRunning(state) => write!(f, "it is {state}"),
            Self::NotEnabled => f.write_str("it does not start with the host"),
            Self::OldProgram => f.write_str("it still runs an earlier program"),
            Self::Pending => f.write_str("an earlier bootstrap was broken off"),
            Self::Key => f.write_str("the planner did not know its key"),
            Self::TakenOver(whose) => write!(f, "it was that of {whose}"),
        }
    }
}

/// Decides.
pub(super) fn decide(target: &Target, seen: &Seen) -> Result<Decision, Refusal> {
    if seen.uid != 0 {
        return Err(Refusal::NotRoot(seen.uid));
    }
    if !seen.systemd {
        return Err(Refusal::NoSystemd);
    }
    let Some(program) = target.programs.iter().find(|program| program.machine == machine(&seen.machine)) else {
        let have = target.programs.iter().map(|program| program.machine.to_owned()).collect();
        return Err(Refusal::Machine { host: seen.machine.clone(), have });
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
    let merged = config::merge(seen.config.as_deref(), &ours).map_err(|e| Refusal::Config(e.to_string()))?;
    let other = other(target, &merged.was);
    if let (Some((whose, _)), false) = (&other, target.take_over) {
        return Err(Refusal::Other(whose.clone()));
    }
    check_broker(target, &merged)?;
    let aside = match &other {
        Some((_, true)) => Some(aside(&merged.was.state_dir, seen)?),
        _ => None,
    };
    if let (Some(known), false) = (target.key, target.replace_key) {
        // The state of another site goes, and with it its key.
        let found = seen.key.filter(|_| aside.is_none());
        let none = found.is_none() && (aside.is_some() || !seen.key_file);
        if none || found.is_some_and(|found| found != known) {
            return Err(Refusal::Key { known, found });
        }
    }
    let put = files(target, seen, program, merged.text);
    check_space(seen, &put)?;
    let digest = program.digest.to_string();
    let because = because(target, seen, &put, other.map(|(whose, _)| whose), &digest);
    let works = seen.active == "active" && seen.running == seen.files.get(PROGRAM).map(|(_, digest)| digest.clone());
    Ok(Decision { put, because, program: digest, had: seen.version.clone(), keep_old: seen.pending && !works, aside })
}

/// Where the state of another site is, and where it goes: a name of its own, that the same take-over gives again.
fn aside(state: &str, seen: &Seen) -> Result<(String, String), Refusal> {
    if !plain(state) {
        return Err(Refusal::Config(format!("`state_dir` is {state:?}, which is too odd to be moved")));
    }
    let stamp = Digest::of(seen.config.as_deref().unwrap_or_default().as_bytes()).short();
    Ok((state.to_owned(), format!("{}.before-{stamp}", state.trim_end_matches('/'))))
}

/// Whether a path can stand in a line of a script.
fn plain(path: &str) -> bool {
    path.starts_with('/') && path.len() > 1 && path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
}

/// Whose agent is there, if it is not ours, and whether its state is of no use to us.
fn other(target: &Target, was: &config::Was) -> Option<(String, bool)> {
    let site = was.site.as_ref().filter(|site| **site != target.site.as_str());
    let node = was.node.as_ref().filter(|node| **node != target.node.as_str());
    let planner = was.planner_keys.first().filter(|_| !was.planner_keys.contains(&target.planner_key.to_string()));
    match (site, node, planner) {
        (Some(site), ..) => Some((format!("site {site}, node {}", was.node.as_deref().unwrap_or("?")), true)),
        (None, Some(node), _) => Some((format!("this site, but node {node}"), true)),
        // A site of the same name, or this one before its planner lost its key.
        (None, None, Some(planner)) => Some((format!("another planner, whose key is {planner}"), false)),
        (None, None, None) => None,
    }
}

fn check_broker(target: &Target, merged: &config::Merged) -> Result<(), Refusal> {
    let loopback = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let broker: BrokerAddress =
        merged.broker.parse().map_err(|e: InvalidBrokerAddress| Refusal::Config(e.to_string()))?;
    if loopback(&broker.host) && !loopback(&target.address) {
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

/// The files that are not there as they should be. The program is the last: what is short shows before the most is sent.
fn files(target: &Target, seen: &Seen, program: &Program, config: String) -> Vec<HostFile> {
    let mut wanted: Vec<(String, &'static str, Bytes)> = Vec::new();
    wanted.push((CONFIG.to_owned(), "600", config.into_bytes().into()));
    if let Some(ca) = &target.ca {
        wanted.push((CA.to_owned(), "644", ca.clone()));
    }
    if let Some((cert, key)) = &target.certificate {
        wanted.push((CERT.to_owned(), "600", cert.clone()));
        wanted.push((KEY.to_owned(), "600", key.clone()));
    }
    wanted.push((format!("{}/{UNIT}", seen.unit_dir), "644", UNIT_TEXT.as_bytes().into()));
    wanted.push((PROGRAM.to_owned(), "755", program.bytes.clone()));
    let file = |(path, mode, bytes): (String, &'static str, Bytes)| {
        let digest = Digest::of(&bytes).to_string();
        HostFile { path, mode, bytes, digest }
    };
    let differs = |file: &HostFile| match seen.files.get(&file.path) {
        // The operator may have made the configuration readable for a group.
        Some((mode, digest)) => *digest != file.digest || (mode != file.mode && file.path != CONFIG),
        None => true,
    };
    wanted.into_iter().map(file).filter(differs).collect()
}

fn check_space(seen: &Seen, put: &[HostFile]) -> Result<(), Refusal> {
    let mut need: BTreeMap<&str, (u64, &str, u64)> = BTreeMap::new();
    let mut add = |dir: &str, kib: u64| {
        if let Some((dir, (device, free))) = seen.space.get_key_value(dir) {
            need.entry(device).or_insert((0, dir, *free)).0 += kib + ROOM;
        }
    };
    // Most first: it is that folder that is named.
    for file in put.iter().rev() {
        let dir = file.path.rsplit_once('/').map_or("", |(dir, _)| dir);
        add(dir, (file.bytes.len() as u64).div_ceil(1024));
    }
    if !put.is_empty() && !seen.files.contains_key(PROGRAM) {
        add(STATE, STATE_ROOM);
    }
    match need.into_values().find(|(need, _, free)| need > free) {
        Some((need, dir, free)) => Err(Refusal::Space { dir: dir.to_owned(), need, free }),
        None => Ok(()),
    }
}

fn because(target: &Target, seen: &Seen, put: &[HostFile], taken_over: Option<String>, program: &str) -> Vec<Because> {
    if let Some(whose) = taken_over {
        return vec![Because::TakenOver(whose)];
    }
    if !seen.files.contains_key(PROGRAM) {
        return vec![Because::New];
    }
    let file = |file: &HostFile| match file.path.as_str() {
        PROGRAM => Because::Program,
        path => Because::File(path.to_owned()),
    };
    let mut because: Vec<Because> = put.iter().map(file).collect();
    if seen.active != "active" {
        because.push(Because::NotRunning(seen.active.clone()));
    } else if !because.contains(&Because::Program) && seen.running.as_deref() != Some(program) {
        because.push(Because::OldProgram);
    }
    if seen.enabled != "enabled" {
        because.push(Because::NotEnabled);
    }
    if seen.pending {
        because.push(Because::Pending);
    }
    if target.key.is_none() || (seen.key.is_some() && seen.key != target.key) {
        because.push(Because::Key);
    }
    because
}

/// Whether a version comes before another, number by number.
pub(super) fn older(version: Option<&str>, than: Option<&str>) -> bool {
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

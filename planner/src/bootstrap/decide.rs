//! What is to be done on a host, decided from what it is to be and what it is.
//!
//! In: a target and what the host said. Out: the files that differ and whether the agent must start anew, with the reasons; or why
//! nothing may be done at all. No IO; the same values, the same decision.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use groundplan_protocol::{
    digest::Digest,
    envelope::PublicKey,
    ids::{NodeId, SiteName},
};

use super::{
    config::{self, CA, CERT, KEY, Ours},
    look::Seen,
    program::{Program, machine},
};
use crate::serve::BrokerAddress;

/// Where the program lies, as packages have it.
pub(super) const PROGRAM: &str = "/usr/bin/groundplan-agent";
/// Its configuration.
pub(super) const CONFIG: &str = "/etc/groundplan/agent.toml";
/// Its unit, in the folder of packages' units.
pub(super) const UNIT: &str = "groundplan-agent.service";
/// The unit as packages have it.
const UNIT_TEXT: &str = include_str!("../../../packaging/systemd/groundplan-agent.service");
/// What a new agent needs for its ledger, in KiB.
const STATE_ROOM: u64 = 4096;
/// What a folder needs besides its files' bytes, in KiB.
const ROOM: u64 = 64;

/// What is in a file.
pub type Bytes = Arc<[u8]>;

/// What a host is to be.
#[derive(Debug, Clone)]
pub struct Target {
    /// The node.
    pub node: NodeId,
    /// Its site.
    pub site: SiteName,
    /// The key of its planner.
    pub planner_key: PublicKey,
    /// The host's address, as `ssh` takes it.
    pub address: String,
    /// Agents to choose from, for one machine each.
    pub programs: Arc<[Program]>,
    /// The broker, if it was given.
    pub broker: Option<BrokerAddress>,
    /// The planner's own, where nobody has said one.
    pub default_broker: String,
    /// The certificate of the broker's authority.
    pub ca: Option<Bytes>,
    /// The node's own certificate and its key.
    pub certificate: Option<(Bytes, Bytes)>,
    /// The key that the planner knows the node by.
    pub key: Option<PublicKey>,
    /// Whether another may take its place.
    pub replace_key: bool,
    /// Whether an agent of another site or node gives way.
    pub take_over: bool,
}

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

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not root.
    #[error("the user there is not root (user id {0})")]
    NotRoot(u32),
    /// No systemd.
    #[error("the host does not run systemd, which is to start the agent and start it again")]
    NoSystemd,
    /// No agent for that machine.
    #[error("the host is {host}, and the agents at hand are for {}", have.join(", "))]
    Machine {
        /// The host's.
        host: String,
        /// What there is.
        have: Vec<String>,
    },
    /// An agent of another site or node is there.
    #[error("an agent is there already, of {0}")]
    Other(String),
    /// The configuration there cannot be read.
    #[error("its {CONFIG} cannot be read: {0}")]
    Config(String),
    /// The broker is this machine's own.
    #[error("the broker {0} is a loopback address, which on the host means the host itself")]
    Loopback(String),
    /// TLS without an authority.
    #[error("the broker {0} speaks TLS, and no authority of its certificate is known on the host")]
    NoCa(String),
    /// TLS settings for a broker without.
    #[error("{CONFIG} would have settings for TLS, and the broker {0} speaks none")]
    NotTls(String),
    /// Not enough room.
    #[error("{dir} has not enough room: {need} KiB are needed, {free} KiB are free")]
    Space {
        /// Where.
        dir: String,
        /// How much is needed.
        need: u64,
        /// How much there is.
        free: u64,
    },
    /// The node was known by another key.
    #[error("the planner knows the node by the key {known}, and {}", found.map_or("this host has none".to_owned(), |key| format!("this host has {key}")))]
    Key {
        /// The planner's.
        known: PublicKey,
        /// The host's.
        found: Option<PublicKey>,
    },
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotRoot(_) => "log in as root (--ssh-user root), or let that user become root with --sudo".to_owned(),
            Self::NoSystemd => {
                "groundplan-agent runs under any supervisor: install it by hand there, see docs/bootstrap.md".to_owned()
            }
            Self::Machine { host, .. } => {
                format!(
                    "name a groundplan-agent for {} as well: --agent FILE may be given more than once",
                    machine(host)
                )
            }
            Self::Other(_) => {
                "if that host is to be this node from now on: --take-over; what the other site put there stays as it is"
                    .to_owned()
            }
            Self::Config(_) => "mend or remove that file".to_owned(),
            Self::Loopback(_) => "name it as hosts reach it: --broker mqtts://HOST:PORT".to_owned(),
            Self::NoCa(_) => "give the PEM file of the authority with --broker-ca FILE".to_owned(),
            Self::NotTls(_) => "give an mqtts:// broker, or take the table `tls` out of that file".to_owned(),
            Self::Space { .. } => "make room there; nothing was written".to_owned(),
            Self::Key { .. } => "if the host was set up anew, and it is the right one: --replace-key".to_owned(),
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
        merged.broker.parse().map_err(|e: crate::serve::InvalidBroker| Refusal::Config(e.to_string()))?;
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

/// The folder of the agent's state.
pub(super) const STATE: &str = "/var/lib/groundplan";

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
mod tests {
    use std::path::PathBuf;

    use groundplan_protocol::envelope::SigningKey;

    use super::*;

    fn key(seed: u8) -> PublicKey {
        SigningKey::from_seed([seed; 32]).public()
    }

    fn target() -> Target {
        let bytes: Bytes = vec![7; 2 << 20].into();
        let program = Program { path: PathBuf::from("a"), machine: "x86_64", digest: Digest::of(&bytes), bytes };
        Target {
            node: NodeId::new("h1").unwrap(),
            site: SiteName::new("s").unwrap(),
            planner_key: key(1),
            address: "10.0.0.1".to_owned(),
            programs: [program].into(),
            broker: None,
            default_broker: "mqtt://10.0.0.9:1883".to_owned(),
            ca: None,
            certificate: None,
            key: None,
            replace_key: false,
            take_over: false,
        }
    }

    fn bare() -> Seen {
        let space = ["/usr/bin", "/etc/groundplan", STATE, "/lib/systemd/system"];
        Seen {
            machine: "x86_64".to_owned(),
            systemd: true,
            unit_dir: "/lib/systemd/system".to_owned(),
            space: space.map(|dir| (dir.to_owned(), ("1".to_owned(), 10_000))).into(),
            active: "inactive".to_owned(),
            ..Seen::default()
        }
    }

    /// The host after what was decided for it has been done.
    fn done(target: &Target, mut seen: Seen) -> Seen {
        let decision = decide(target, &seen).unwrap();
        for file in decision.put {
            if file.path == CONFIG {
                seen.config = Some(String::from_utf8(file.bytes.to_vec()).unwrap());
            }
            seen.files.insert(file.path, (file.mode.to_owned(), file.digest));
        }
        let (active, enabled) = ("active".to_owned(), "enabled".to_owned());
        Seen { active, enabled, running: Some(decision.program), key: Some(key(2)), key_file: true, ..seen }
    }

    #[test]
    fn a_bare_host_gets_all_and_then_nothing() {
        let mut target = target();
        let first = decide(&target, &bare()).unwrap();
        let paths: Vec<&str> = first.put.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [CONFIG, "/lib/systemd/system/groundplan-agent.service", PROGRAM]);
        assert_eq!(first.because, [Because::New]);
        let seen = done(&target, bare());
        // A key that nobody knows yet.
        assert_eq!(decide(&target, &seen).unwrap().because, [Because::Key]);
        target.key = Some(key(2));
        let second = decide(&target, &seen).unwrap();
        assert_eq!((second.put, second.because), (vec![], vec![]));
    }

    #[test]
    fn what_differs_alone_is_put_and_the_agent_starts_anew() {
        let mut target = target();
        let seen = done(&target, bare());
        target.key = Some(key(2));
        let change = |change: &dyn Fn(&mut Target, &mut Seen)| {
            let (mut target, mut seen) = (target.clone(), seen.clone());
            change(&mut target, &mut seen);
            let decision = decide(&target, &seen).unwrap();
            (decision.put.into_iter().map(|file| file.path).collect::<Vec<_>>(), decision.because)
        };
        let newer = |target: &mut Target, _: &mut Seen| {
            let bytes: Bytes = vec![8; 100].into();
            let program = Program { digest: Digest::of(&bytes), bytes, ..target.programs[0].clone() };
            target.programs = [program].into();
        };
        assert_eq!(change(&newer), (vec![PROGRAM.to_owned()], vec![Because::Program]));
        let broker = |target: &mut Target, _: &mut Seen| target.broker = Some("mqtt://10.0.0.8".parse().unwrap());
        assert_eq!(change(&broker), (vec![CONFIG.to_owned()], vec![Because::File(CONFIG.to_owned())]));
        let stopped = |_: &mut Target, seen: &mut Seen| seen.active = "inactive".to_owned();
        assert_eq!(change(&stopped), (vec![], vec![Because::NotRunning("inactive".to_owned())]));
        let old = |_: &mut Target, seen: &mut Seen| seen.running = Some("0".to_owned());
        assert_eq!(change(&old), (vec![], vec![Because::OldProgram]));
        let off = |_: &mut Target, seen: &mut Seen| seen.enabled = "disabled".to_owned();
        assert_eq!(change(&off), (vec![], vec![Because::NotEnabled]));
        let pending = |_: &mut Target, seen: &mut Seen| seen.pending = true;
        assert_eq!(change(&pending), (vec![], vec![Because::Pending]));
        let open = |_: &mut Target, seen: &mut Seen| seen.files.get_mut(CONFIG).unwrap().0 = "640".to_owned();
        assert_eq!(change(&open), (vec![], vec![]));
    }

    #[test]
    fn what_must_not_be_is_refused() {
        let mut ours = target();
        let there = done(&ours, bare());
        ours.key = Some(key(2));
        let refuse = |change: &dyn Fn(&mut Target, &mut Seen)| {
            let (mut target, mut seen) = (ours.clone(), there.clone());
            change(&mut target, &mut seen);
            let refusal = decide(&target, &seen).unwrap_err();
            assert!(!refusal.hint().is_empty());
            refusal
        };
        assert_eq!(refuse(&|_, seen| seen.uid = 1000), Refusal::NotRoot(1000));
        assert_eq!(refuse(&|_, seen| seen.systemd = false), Refusal::NoSystemd);
        let other = refuse(&|_, seen| seen.machine = "aarch64".to_owned());
        assert_eq!(other, Refusal::Machine { host: "aarch64".to_owned(), have: vec!["x86_64".to_owned()] });
        assert_eq!(
            refuse(&|target, _| target.site = SiteName::new("t").unwrap()),
            Refusal::Other("site s, node h1".to_owned())
        );
        assert_eq!(
            refuse(&|target, _| target.node = NodeId::new("h2").unwrap()),
            Refusal::Other("this site, but node h1".to_owned())
        );
        let planner = refuse(&|target, _| target.planner_key = key(9));
        assert_eq!(planner, Refusal::Other(format!("another planner, whose key is {}", key(1))));
        assert!(matches!(refuse(&|_, seen| seen.config = Some("site =".to_owned())), Refusal::Config(_)));
        let local = |target: &mut Target, _: &mut Seen| target.broker = Some("mqtt://127.0.0.1".parse().unwrap());
        assert_eq!(refuse(&local), Refusal::Loopback("mqtt://127.0.0.1:1883".to_owned()));
        let tls = |target: &mut Target, _: &mut Seen| target.broker = Some("mqtts://b".parse().unwrap());
        assert_eq!(refuse(&tls), Refusal::NoCa("mqtts://b:8883".to_owned()));
        assert_eq!(
            refuse(&|target, _| target.ca = Some([1][..].into())),
            Refusal::NotTls("mqtt://10.0.0.9:1883".to_owned())
        );
        assert_eq!(refuse(&|_, seen| seen.key = Some(key(3))), Refusal::Key { known: key(2), found: Some(key(3)) });
        let anew = |_: &mut Target, seen: &mut Seen| (seen.key, seen.key_file) = (None, false);
        assert_eq!(refuse(&anew), Refusal::Key { known: key(2), found: None });
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(older(Some("0.9.1"), Some("0.10.0")) && !older(Some("0.10.0"), Some("0.10.0")));
        assert!(
            !older(Some("0.1.0-dev"), Some("0.1.0"))
                && !older(None, Some("1.0.0"))
                && !older(Some("odd"), Some("1.0.0"))
        );
    }

    #[test]
    fn room_is_counted_by_device() {
        let mut seen = bare();
        seen.space.insert("/usr/bin".to_owned(), ("2".to_owned(), 2048 + ROOM - 1));
        let need = 2048 + ROOM;
        let refused = decide(&target(), &seen).unwrap_err();
        assert_eq!(refused, Refusal::Space { dir: "/usr/bin".to_owned(), need, free: need - 1 });
        seen.space.insert("/usr/bin".to_owned(), ("2".to_owned(), need));
        assert!(decide(&target(), &seen).is_ok());
        seen.space.values_mut().for_each(|space| *space = ("1".to_owned(), need));
        assert!(matches!(decide(&target(), &seen), Err(Refusal::Space { .. })), "all on one device");
    }

    #[test]
    fn a_host_of_another_site_is_taken_over_only_when_told_and_its_state_goes_aside() {
        let mut theirs = target();
        theirs.site = SiteName::new("other").unwrap();
        let seen = done(&theirs, bare());
        let mut ours = target();
        ours.take_over = true;
        let decision = decide(&ours, &seen).unwrap();
        assert_eq!(decision.because, [Because::TakenOver("site other, node h1".to_owned())]);
        let (from, to) = decision.aside.unwrap();
        assert!(from == STATE && to.starts_with("/var/lib/groundplan.before-"), "{to}");
        ours.key = Some(key(2));
        assert!(matches!(decide(&ours, &seen), Err(Refusal::Key { .. })), "its key will be a new one");
    }
}

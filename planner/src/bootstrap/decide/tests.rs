//! Decisions about hosts that differ in one respect from a host that is up to date.

use std::path::PathBuf;

use groundplan_protocol::{
    envelope::{PublicKey, SigningKey},
    ids::{NodeId, SiteName},
};

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

fn empty_host() -> Probe {
    let space = ["/usr/bin", "/etc/groundplan", STATE, "/lib/systemd/system"];
    Probe {
        machine: "x86_64".to_owned(),
        systemd: true,
        unit_dir: "/lib/systemd/system".to_owned(),
        space: space.map(|dir| (dir.to_owned(), ("1".to_owned(), 10_000))).into(),
        active: "inactive".to_owned(),
        ..Probe::default()
    }
}

/// The host after the decision about it has been carried out.
fn bootstrapped(target: &Target, mut probe: Probe) -> Probe {
    let decision = decide(target, &probe).unwrap();
    for file in decision.put {
        if file.path == CONFIG {
            probe.config = Some(String::from_utf8(file.bytes.to_vec()).unwrap());
        }
        probe.files.insert(file.path, (file.mode.to_owned(), file.digest));
    }
    let (active, enabled) = ("active".to_owned(), "enabled".to_owned());
    Probe { active, enabled, running: Some(decision.program), key: Some(key(2)), key_file: true, ..probe }
}

#[test]
fn a_new_host_gets_all_files_and_then_none() {
    let mut target = target();
    let first = decide(&target, &empty_host()).unwrap();
    let paths: Vec<&str> = first.put.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, [CONFIG, "/lib/systemd/system/groundplan-agent.service", PROGRAM]);
    assert_eq!(first.because, [RestartReason::New]);
    let probe = bootstrapped(&target, empty_host());
    // The planner does not trust the new key yet.
    assert_eq!(decide(&target, &probe).unwrap().because, [RestartReason::Key]);
    target.key = Some(key(2));
    let second = decide(&target, &probe).unwrap();
    assert_eq!((second.put, second.because), (vec![], vec![]));
}

#[test]
fn only_files_that_differ_are_put_and_the_agent_restarts() {
    let mut target = target();
    let probe = bootstrapped(&target, empty_host());
    target.key = Some(key(2));
    let change = |change: &dyn Fn(&mut Target, &mut Probe)| {
        let (mut target, mut probe) = (target.clone(), probe.clone());
        change(&mut target, &mut probe);
        let decision = decide(&target, &probe).unwrap();
        (decision.put.into_iter().map(|file| file.path).collect::<Vec<_>>(), decision.because)
    };
    let newer = |target: &mut Target, _: &mut Probe| {
        let bytes: Bytes = vec![8; 100].into();
        let program = Program { digest: Digest::of(&bytes), bytes, ..target.programs[0].clone() };
        target.programs = [program].into();
    };
    assert_eq!(change(&newer), (vec![PROGRAM.to_owned()], vec![RestartReason::Program]));
    let broker = |target: &mut Target, _: &mut Probe| target.broker = Some("mqtt://10.0.0.8".parse().unwrap());
    assert_eq!(change(&broker), (vec![CONFIG.to_owned()], vec![RestartReason::File(CONFIG.to_owned())]));
    let stopped = |_: &mut Target, probe: &mut Probe| probe.active = "inactive".to_owned();
    assert_eq!(change(&stopped), (vec![], vec![RestartReason::NotRunning("inactive".to_owned())]));
    let old = |_: &mut Target, probe: &mut Probe| probe.running = Some("0".to_owned());
    assert_eq!(change(&old), (vec![], vec![RestartReason::OldProgram]));
    let off = |_: &mut Target, probe: &mut Probe| probe.enabled = "disabled".to_owned();
    assert_eq!(change(&off), (vec![], vec![RestartReason::NotEnabled]));
    let pending = |_: &mut Target, probe: &mut Probe| probe.pending = true;
    assert_eq!(change(&pending), (vec![], vec![RestartReason::Pending]));
    let open = |_: &mut Target, probe: &mut Probe| probe.files.get_mut(CONFIG).unwrap().0 = "640".to_owned();
    assert_eq!(change(&open), (vec![], vec![]));
}

#[test]
fn unsafe_and_impossible_targets_are_refused() {
    let mut ours = target();
    let there = bootstrapped(&ours, empty_host());
    ours.key = Some(key(2));
    let refuse = |change: &dyn Fn(&mut Target, &mut Probe)| {
        let (mut target, mut probe) = (ours.clone(), there.clone());
        change(&mut target, &mut probe);
        let refusal = decide(&target, &probe).unwrap_err();
        assert!(!refusal.hint().is_empty());
        refusal
    };
    assert_eq!(refuse(&|_, probe| probe.uid = 1000), Refusal::NotRoot(1000));
    assert_eq!(refuse(&|_, probe| probe.systemd = false), Refusal::NoSystemd);
    let other = refuse(&|_, probe| probe.machine = "aarch64".to_owned());
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
    assert!(matches!(refuse(&|_, probe| probe.config = Some("site =".to_owned())), Refusal::Config(_)));
    let local = |target: &mut Target, _: &mut Probe| target.broker = Some("mqtt://127.0.0.1".parse().unwrap());
    assert_eq!(refuse(&local), Refusal::Loopback("mqtt://127.0.0.1:1883".to_owned()));
    let tls = |target: &mut Target, _: &mut Probe| target.broker = Some("mqtts://b".parse().unwrap());
    assert_eq!(refuse(&tls), Refusal::NoCa("mqtts://b:8883".to_owned()));
    assert_eq!(
        refuse(&|target, _| target.ca = Some([1][..].into())),
        Refusal::NotTls("mqtt://10.0.0.9:1883".to_owned())
    );
    assert_eq!(refuse(&|_, probe| probe.key = Some(key(3))), Refusal::Key { known: key(2), found: Some(key(3)) });
    let reinstalled = |_: &mut Target, probe: &mut Probe| (probe.key, probe.key_file) = (None, false);
    assert_eq!(refuse(&reinstalled), Refusal::Key { known: key(2), found: None });
}

#[test]
fn versions_are_compared_by_number() {
    assert!(is_older(Some("0.9.1"), Some("0.10.0")) && !is_older(Some("0.10.0"), Some("0.10.0")));
    assert!(
        !is_older(Some("0.1.0-dev"), Some("0.1.0"))
            && !is_older(None, Some("1.0.0"))
            && !is_older(Some("odd"), Some("1.0.0"))
    );
}

#[test]
fn space_is_counted_by_device() {
    let mut probe = empty_host();
    probe.space.insert("/usr/bin".to_owned(), ("2".to_owned(), 2048 + SPARE - 1));
    let need = 2048 + SPARE;
    let refused = decide(&target(), &probe).unwrap_err();
    assert_eq!(refused, Refusal::Space { dir: "/usr/bin".to_owned(), need, free: need - 1 });
    probe.space.insert("/usr/bin".to_owned(), ("2".to_owned(), need));
    assert!(decide(&target(), &probe).is_ok());
    probe.space.values_mut().for_each(|space| *space = ("1".to_owned(), need));
    assert!(matches!(decide(&target(), &probe), Err(Refusal::Space { .. })), "all on one device");
}

#[test]
fn an_agent_of_another_site_is_replaced_on_request_and_its_state_moved_aside() {
    let mut theirs = target();
    theirs.site = SiteName::new("other").unwrap();
    let probe = bootstrapped(&theirs, empty_host());
    let mut ours = target();
    ours.take_over = true;
    let decision = decide(&ours, &probe).unwrap();
    assert_eq!(decision.because, [RestartReason::TakenOver("site other, node h1".to_owned())]);
    let (from, to) = decision.aside.unwrap();
    assert!(from == STATE && to.starts_with("/var/lib/groundplan.before-"), "{to}");
    ours.key = Some(key(2));
    assert!(matches!(decide(&ours, &probe), Err(Refusal::Key { .. })), "its agent will make a new key");
}

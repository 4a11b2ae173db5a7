//! Decisions about hosts that differ from a good one in one thing each.

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
        !older(Some("0.1.0-dev"), Some("0.1.0")) && !older(None, Some("1.0.0")) && !older(Some("odd"), Some("1.0.0"))
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

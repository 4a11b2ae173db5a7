//! A flood of large messages with thousands of signatures, sent with QoS 0 so that nothing holds it back: the planner's memory and the
//! other nodes do not notice. No key is needed for it.

use std::fs;

use groundplan_protocol::{MAX_PAYLOAD, envelope::PublicKey};
use groundplan_tests::{
    brokers::Kind,
    fleet::{Fleet, SITE, texts},
};
use rumqttc::mqttbytes::{
    QoS,
    v4::{Packet, Publish},
};
use serde_json::json;

use crate::broker::wire::{Wire, clean};

const MIB: usize = 1 << 20;

/// How many messages are sent, of 4 MiB each.
const MESSAGES: usize = 200;

fn site(content: &str) -> Vec<(&'static str, String)> {
    vec![
        ("site.toml", format!("name = \"{SITE}\"\n")),
        ("inventory/nodes.toml", "[nodes.n1]\n\n[nodes.n2]\n\n[groups.all]\nservices = [\"s\"]\n".to_owned()),
        (
            "services/s/service.toml",
            format!("[[task]]\nid = \"t\"\nfile = {{ path = \"/t\", content = \"{content}\" }}\n"),
        ),
    ]
}

/// The greatest resident memory of a process so far, in bytes (proc(5)).
fn peak(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// An envelope of the greatest length, full of signatures that name the node's key.
fn burning(key: &PublicKey) -> Vec<u8> {
    let signature = json!({ "keyid": key.id(), "sig": "A".repeat(86) + "==" });
    let most = (MAX_PAYLOAD - 1024) / (signature.to_string().len() + 1);
    let kind = "application/vnd.groundplan.state+json";
    json!({ "payload": "e30=", "payloadType": kind, "signatures": vec![signature; most] }).to_string().into_bytes()
}

#[test]
fn large_messages_with_many_signatures_hold_nothing_up() {
    let mut fleet = Fleet::started(Kind::Mosquitto, &texts(&site("1")), &["n1", "n2"]);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let before = peak(fleet.planner_pid("one"));
    let payload = burning(&Fleet::node_key("n1").public());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let commit = runtime.block_on(async {
        let (mut wire, _) = Wire::connect(fleet.broker.address(), clean("stranger")).await;
        let topic = format!("groundplan/1/{SITE}/node/n1/state");
        for _ in 0..MESSAGES {
            wire.send(Packet::Publish(Publish::new(&topic, QoS::AtMostOnce, payload.clone()))).await;
        }
        // While they are on their way.
        let commit = fleet.commit(&texts(&site("2")), "a change");
        wire.ping().await;
        commit
    });
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("n2", "t").as_deref(), Some("2"));
    let after = peak(fleet.planner_pid("one"));
    println!("planner's peak: {} MiB before, {} MiB after", before / MIB, after / MIB);
    // What is under way is a part of it; reading it needs as much again for a while. All of the messages are 800 MiB.
    assert!(after - before < 300 * MIB, "{} MiB before, {} MiB after", before / MIB, after / MIB);
    fleet.terminate_planner("one");
}

//! A stolen node key asks for content again and again: neither the planner's memory nor the other nodes notice.

use std::{fs, ops::Range};

use groundplan_protocol::{
    VERSION,
    blob::{BlobRef, CHUNK, WANT_LIMIT, Want},
    digest::Digest,
    envelope::seal,
    ids::{NodeId, SiteName},
};
use groundplan_tests::{
    brokers::Kind,
    fleet::{Fleet, SITE},
};

use rumqttc::{Packet, QoS};

use crate::broker::wire::{Wire, clean};

const INVENTORY: &str = "[nodes.n1]\n\n[nodes.n2]\n\n[groups.all]\nservices = [\"s\"]\n";
const SERVICE: &str = "[[task]]\nid = \"big\"\nfile = { path = \"/big\", source = \"big\" }\n";
const MIB: usize = 1 << 20;

/// Every chunk of the content.
const ALL: Range<u32> = 0..WANT_LIMIT as u32;

/// How many requests are sent at once; each is for 2 MiB.
const REQUESTS: usize = 4000;

/// The greatest resident memory of a process so far, in bytes (proc(5)).
fn peak(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

fn content(fill: u8) -> Vec<u8> {
    vec![fill; WANT_LIMIT * CHUNK]
}

fn commit(fleet: &Fleet, fill: u8) -> String {
    fs::write(fleet.repository().join("services/s/big"), content(fill)).expect("a file");
    fleet.commit(&[("services/s/service.toml", SERVICE)], "content")
}

fn request(node: &str, fill: u8, chunks: Range<u32>) -> Vec<u8> {
    let want = Want {
        version: VERSION,
        site: SiteName::new(SITE).unwrap(),
        node: NodeId::new(node).unwrap(),
        blob: BlobRef::of(&content(fill)),
        chunks: chunks.collect(),
    };
    seal(&Fleet::node_key(node), &want)
}

/// Sends requests without waiting for answers, and reads that the broker has taken them.
async fn flood(wire: &mut Wire, request: &[u8]) {
    let topic = format!("groundplan/1/{SITE}/node/n1/want");
    for _ in 0..REQUESTS {
        wire.publish_only(&topic, request, false).await;
    }
    for _ in 0..REQUESTS {
        wire.next().await.expect("the broker confirms");
    }
}

fn a_flood_of_requests_fills_nothing_and_delays_no_one(kind: Kind) {
    let files = [
        ("site.toml", "name = \"testsite\"\n"),
        ("inventory/nodes.toml", INVENTORY),
        ("services/s/service.toml", "[[task]]\nid = \"t\"\nfile = { path = \"/t\", content = \"\" }\n"),
    ];
    let mut fleet = Fleet::started(kind, &files, &["n1", "n2"]);
    fleet.converged("one", &commit(&fleet, b'1'));
    fleet.terminate_agent("n1");
    let before = peak(fleet.planner_pid("one"));

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut wire = runtime.block_on(async { Wire::connect(fleet.broker.address(), clean("thief")).await.0 });
    runtime.block_on(flood(&mut wire, &request("n1", b'1', ALL)));
    // While the planner is still at it, the other node gets what it asks for.
    let second = commit(&fleet, b'2');
    fleet.wait("the content of the other node", || {
        (fs::read(fleet.root("n2").join("big")).ok()? == content(b'2')).then_some(())
    });
    runtime.block_on(flood(&mut wire, &request("n1", b'2', ALL)));
    fleet.wait("the end of the flood", || fleet.planned("one", &second));
    let after = peak(fleet.planner_pid("one"));
    println!("planner's peak: {} MiB before, {} MiB after", before / MIB, after / MIB);
    assert!(after - before < 100 * MIB, "{} MiB before, {} MiB after", before / MIB, after / MIB);

    // The node itself is served again as soon as it has its key to itself.
    fleet.start_agent("n1");
    fleet.converged("one", &second);
    assert!(fs::read(fleet.root("n1").join("big")).expect("the file") == content(b'2'));
}

#[test]
fn a_flood_of_requests_fills_nothing_and_delays_no_one_embedded() {
    a_flood_of_requests_fills_nothing_and_delays_no_one(Kind::Embedded);
}

#[test]
fn a_flood_of_requests_fills_nothing_and_delays_no_one_mosquitto() {
    a_flood_of_requests_fills_nothing_and_delays_no_one(Kind::Mosquitto);
}

/// What others ship is none of a node's business, though it may know the digest.
#[test]
fn a_node_gets_no_content_of_another_nodes_plan() {
    let inventory = "[groups.own]\nservices = [\"own\"]\n\n[groups.other]\nservices = [\"other\"]\n\n[nodes.n1]\ngroups = [\"own\"]\n\n[nodes.n2]\ngroups = [\"other\"]\n";
    let service = |path: &str| {
        format!("[[task]]\nid = \"big\"\nfile = {{ path = \"/{path}\", source = \"big\", mode = \"0600\" }}\n")
    };
    let (own, other) = (service("own"), service("other"));
    let files = [("site.toml", "name = \"testsite\"\n"), ("inventory/nodes.toml", "[nodes.n1]\n\n[nodes.n2]\n")];
    let fleet = Fleet::started(Kind::Mosquitto, &files, &["n1", "n2"]);
    for (service, fill) in [("own", b'1'), ("other", b'2')] {
        let dir = fleet.repository().join("services").join(service);
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("big"), content(fill)).expect("a file");
    }
    let changed = [
        ("services/own/service.toml", own.as_str()),
        ("services/other/service.toml", other.as_str()),
        ("inventory/nodes.toml", inventory),
    ];
    fleet.converged("one", &fleet.commit(&changed, "content"));

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (own, other) = (Digest::of(&content(b'1')), Digest::of(&content(b'2')));
    runtime.block_on(async {
        let mut wire = Wire::connect(fleet.broker.address(), clean("thief")).await.0;
        let chunks = [own, other].map(|digest| format!("groundplan/1/{SITE}/blob/{digest}/+"));
        wire.subscribe(&chunks.each_ref().map(|filter| (filter.as_str(), QoS::AtLeastOnce))).await;
        let topic = format!("groundplan/1/{SITE}/node/n1/want");
        // A newer request takes the place of one that waits, so it asks more than once.
        for n in ALL {
            wire.publish_only(&topic, request("n1", b'2', ALL), false).await;
            wire.publish_only(&topic, request("n1", b'1', n..n + 1), false).await;
            loop {
                let Some(Packet::Publish(publish)) = wire.next().await else { continue };
                wire.acknowledge(&publish).await;
                assert!(!publish.topic.contains(&other.to_string()), "{}", publish.topic);
                if publish.topic.ends_with(&format!("{own}/{n}")) {
                    break;
                }
            }
        }
    });
}

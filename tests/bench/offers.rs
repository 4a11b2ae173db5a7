//! What offers cost: 1000 plans of 30 tasks bound, signed and encrypted, each to another node, and taken again. The baseline is one
//! signature on the same JSON, which is what a plan was before it was bound to anything.

use std::{collections::BTreeMap, time::Instant};

use groundplan_protocol::{
    VERSION,
    encryption::DecryptionKey,
    envelope::{Message, SigningKey, open, open_for, seal, seal_for},
    ids::{CommitId, Generation, LedgerId, NodeId, SiteName},
    plan::{NodePlan, PlanOffer, PlanText},
};
use serde::{Deserialize, Serialize};

use crate::table::{Row, millis, quantile};

const NODES: usize = 1000;
const TASKS: usize = 30;
const ROUNDS: usize = 5;

/// A plan as a message of its own.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Plain(NodePlan);

impl Message for Plain {
    const TYPE: &'static str = "application/vnd.groundplan.plan+json";
    fn version(&self) -> u32 {
        self.0.version
    }
    fn site(&self) -> &SiteName {
        &self.0.site
    }
}

fn plan(n: usize) -> NodePlan {
    let task = |t: usize| {
        let task = serde_json::json!({
            "task": format!("s.t{t}"), "action": "create", "inputs": { "content": "0123456789abcdef" },
            "spec": {
                "params": { "file": { "path": format!("/etc/app/{t}.conf"), "mode": "0640" } },
                "content": { "text": format!("node = {n}\n{}", "key = value\n".repeat(20)) },
            },
        });
        serde_json::from_value(task).expect("a task of a plan")
    };
    NodePlan {
        version: VERSION,
        site: SiteName::new("bench").expect("a name"),
        node: NodeId::new(format!("n{n}")).expect("a name"),
        generation: Generation(1),
        commit: CommitId::new("0".repeat(40)).expect("an id"),
        tasks: (0..TASKS).map(task).collect(),
        edges: BTreeMap::new(),
        ledger: Some(LedgerId::new("0123456789abcdef0123456789abcdef").expect("an id")),
    }
}

/// The median of several rounds, in milliseconds, and what the last one gave.
fn measured<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        last = Some(work());
        times.push(millis(start.elapsed()));
    }
    (quantile(&mut times, 0.5), last.expect("at least one round"))
}

fn mib(messages: &[Vec<u8>]) -> f64 {
    messages.iter().map(Vec::len).sum::<usize>() as f64 / f64::from(1 << 20)
}

pub(crate) fn run() -> Vec<Row> {
    let (key, site) = (SigningKey::from_seed([1; 32]), SiteName::new("bench").expect("a name"));
    let plans: Vec<NodePlan> = (0..NODES).map(plan).collect();
    let nodes: Vec<DecryptionKey> = (0..NODES)
        .map(|n| {
            let mut seed = [2; 32];
            seed[..8].copy_from_slice(&n.to_le_bytes());
            SigningKey::from_seed(seed).decryption()
        })
        .collect();
    // As the store holds them.
    let stored: Vec<Vec<u8>> = plans.iter().map(|plan| PlanText::of(plan).as_str().as_bytes().to_vec()).collect();
    let plain: Vec<Plain> = plans.iter().cloned().map(Plain).collect();
    let (signing, signed) = measured(|| plain.iter().map(|plan| seal(&key, plan)).collect::<Vec<_>>());
    let (offering, offers) = measured(|| {
        let offer = |(n, json): (usize, &Vec<u8>)| {
            let text = PlanText::from_json(json.clone()).expect("JSON");
            let keys = text.blobs().expect("a plan").iter().map(|blob| (*blob, key.content_key(blob))).collect();
            let of = (site.clone(), plans[n].node.clone(), plans[n].generation);
            let offer = PlanOffer { keys, ..PlanOffer::new(&key, 1, of, text, (1, 2)) };
            seal_for(&key, &nodes[n].public(), &offer).expect("a key that can be encrypted to")
        };
        stored.iter().enumerate().map(offer).collect::<Vec<_>>()
    });
    let trusted = [key.public()];
    let (reading, _) =
        measured(|| signed.iter().for_each(|one| _ = open::<Plain>(one, &trusted, &site).expect("a plan")));
    let (taking, _) = measured(|| {
        for (offer, node) in offers.iter().zip(&nodes) {
            let offer: PlanOffer = open_for(offer, &trusted, &site, node).expect("an offer");
            assert!(offer.is_consistent());
            let groundplan_protocol::plan::PlanBody::Inline(text) = offer.body else { panic!("a short plan") };
            text.parse().expect("a plan");
        }
    });
    let what = |what: &str| format!("{NODES} plans of {TASKS} tasks {what}");
    vec![
        Row::new(what("bound, encrypted, signed"), offering, "ms").against("signed alone", signing),
        Row::new(what("verified, decrypted, read"), taking, "ms").against("verified and read", reading),
        Row::new(what("on the wire"), mib(&offers), "MiB").against("signed alone", mib(&signed)),
    ]
}

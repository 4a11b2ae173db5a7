//! A stolen node key reports a task as changed and as different by turns: what follows it on another node is not restarted without end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use groundplan_protocol::{
    VERSION,
    digest::{Digest, Fingerprint},
    effect::Action,
    envelope::{open_for, seal},
    ids::{Generation, LedgerId, NodeId, Sequence, SiteName, TaskId},
    plan::{NodePlan, PlanBody, PlanOffer},
    report::{Outcome, ReportBatch, TaskReport},
    state::{Applied, NodeState},
};
use groundplan_tests::{
    brokers::Kind,
    fleet::{Fleet, SITE, texts},
    publish::encrypted,
};
use rumqttc::mqttbytes::{QoS, v4::Packet};

use crate::broker::wire::{Wire, clean};

const INVENTORY: &str = "[nodes.n1]\ngroups = [\"b\"]\n\n[nodes.n2]\ngroups = [\"a\"]\n\n[groups.a]\nservices = [\"a\"]\n\n[groups.b]\nservices = [\"b\"]\n";

fn site(content: &str) -> Vec<(&'static str, String)> {
    vec![
        ("site.toml", format!("name = \"{SITE}\"\n")),
        ("inventory/nodes.toml", INVENTORY.to_owned()),
        (
            "services/a/service.toml",
            format!("[[task]]\nid = \"config\"\nfile = {{ path = \"/c\", content = \"{content}\" }}\n"),
        ),
        (
            "services/b/service.toml",
            "[[task]]\nid = \"follower\"\nprocess = { run = \"echo x >> log; exec sleep 100000\" }\nrestart_on = [\"a.config\"]\n".to_owned(),
        ),
    ]
}

/// Speaks for `n2` with its key.
struct Thief {
    wire: Wire,
    revision: u64,
    sequence: u64,
    generation: Generation,
    applied: BTreeMap<TaskId, Applied>,
}

impl Thief {
    async fn connect(fleet: &Fleet) -> Self {
        let (mut wire, _) = Wire::connect(fleet.broker.address(), clean("thief")).await;
        wire.subscribe(&[(&format!("groundplan/1/{SITE}/node/n2/plan"), QoS::AtLeastOnce)]).await;
        let (revision, sequence, generation) = (1, 0, Generation(0));
        Self { wire, revision, sequence, generation, applied: BTreeMap::new() }
    }

    async fn publish(&mut self, topic: &str, sealed: Vec<u8>, retain: bool) {
        self.wire.publish_only(&format!("groundplan/1/{SITE}/node/n2/{topic}"), sealed, retain).await;
    }

    fn ids() -> (SiteName, NodeId, LedgerId) {
        let ledger = LedgerId::new("0123456789abcdef0123456789abcdef").unwrap();
        (SiteName::new(SITE).unwrap(), NodeId::new("n2").unwrap(), ledger)
    }

    async fn state(&mut self) {
        self.revision += 1;
        let (site, node, ledger) = Self::ids();
        let state = NodeState {
            revision: self.revision,
            generation: self.generation,
            sequence: Sequence(self.sequence),
            applied: self.applied.clone(),
            encryption_key: Some(Fleet::node_key("n2").decryption().public()),
            ..NodeState::empty(site, node, ledger)
        };
        self.publish("state", seal(&Fleet::node_key("n2"), &state), true).await;
    }

    /// Reports each task of a plan as changed, and then that it is as no commit asks for.
    async fn contradict(&mut self, plan: NodePlan) {
        let (site, node, ledger) = Self::ids();
        self.generation = plan.generation;
        let report = |task: &groundplan_protocol::plan::PlannedTask| TaskReport {
            generation: plan.generation,
            plan: None,
            task: task.task.clone(),
            action: Action::Update,
            outcome: Outcome::Done { changed: true, effect: None },
            fingerprint: task.fingerprint,
            claims: Vec::new(),
            contends: Vec::new(),
            started_ms: 0,
            duration_ms: 0,
            output: None,
            export: None,
        };
        let reports: Vec<TaskReport> = plan.tasks.iter().map(report).collect();
        let first = Sequence(self.sequence + 1);
        self.sequence += reports.len() as u64;
        let batch = ReportBatch {
            version: VERSION,
            site,
            node,
            ledger,
            first,
            generation: plan.generation,
            reports,
            running: Vec::new(),
            last: Sequence(self.sequence),
            acked: Sequence(0),
        };
        let batch = encrypted(&Fleet::node_key("n2"), &Fleet::planner_key(), &batch);
        self.publish("report", batch, false).await;
        for task in plan.tasks {
            let applied = Applied {
                fingerprint: Fingerprint(Digest::of(format!("other {}", self.revision).as_bytes())),
                inputs: task.inputs,
                edges: task.edges,
                claims: Vec::new(),
                contends: Vec::new(),
                on_remove: None,
                destroys: None,
            };
            self.applied.insert(task.task, applied);
        }
        self.state().await;
    }

    /// Contradicts itself with each plan that comes, for that long. Returns how many came.
    async fn attack(&mut self, span: Duration) -> usize {
        let (site, _, _) = Self::ids();
        let decryption = Fleet::node_key("n2").decryption();
        let (until, mut plans) = (Instant::now() + span, 0);
        self.state().await;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Ok(packet) = tokio::time::timeout(left, self.wire.next()).await else { break };
            let Packet::Publish(publish) = packet.expect("the broker stays connected") else { continue };
            self.wire.acknowledge(&publish).await;
            if let Ok(offer) =
                open_for::<PlanOffer>(&publish.payload, &[Fleet::planner_key().public()], &site, &decryption)
                && let PlanBody::Inline(text) = offer.body
                && let plan = text.parse().expect("a plan")
                && !plan.tasks.is_empty()
            {
                plans += 1;
                self.contradict(plan).await;
            }
        }
        plans
    }
}

#[test]
fn a_node_that_contradicts_itself_restarts_its_neighbour_a_few_times() {
    let mut fleet = Fleet::started(Kind::Mosquitto, &texts(&site("1")), &["n1", "n2"]);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fleet.terminate_agent("n2");
    let before = fleet.lines("n1", "log");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut thief = runtime.block_on(Thief::connect(&fleet));
    let plans = runtime.block_on(thief.attack(Duration::from_secs(4)));
    let during = fleet.lines("n1", "log") - before;
    println!("{during} starts and {plans} plans in 4 s");
    assert!(during <= 5 && plans <= 8, "{during} starts and {plans} plans in 4 s");

    // The status shows it, and a planner that is started again goes on with it.
    let unsteady = |fleet: &Fleet| {
        let status = fleet.ask("one", &["show", "n2"])?;
        status["unsteady"]["times"].as_u64().filter(|times| *times > 3)
    };
    let times = fleet.wait("the status", || unsteady(&fleet));
    assert!(fleet.text("one", &["status"]).contains("contradicts itself"), "{}", fleet.text("one", &["status"]));
    assert!(fleet.text("one", &["why", "n2", "a.config"]).contains("contradicts itself"));
    fleet.terminate_planner("one");
    fleet.start_planner("one");
    assert_eq!(fleet.wait("the status", || unsteady(&fleet)), times);

    // A commit's change is not delayed: the thief gets it at once.
    let commit = fleet.commit(&texts(&site("2")), "a change");
    fleet.wait("the commit", || fleet.rollout_of("one", &commit));
    runtime.block_on(thief.attack(Duration::from_secs(2)));
    fleet.wait("the restart for the commit", || (fleet.lines("n1", "log") > before + during).then_some(()));

    // And the node itself has it once it is alone with its key.
    fleet.start_agent("n2");
    fleet.wait("the file", || (fleet.file("n2", "c")? == "2").then_some(()));
}

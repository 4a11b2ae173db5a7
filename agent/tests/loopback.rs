//! The agent's program with a real broker on this machine: a plan is applied, reports arrive, drift is found, and the agent
//! stops cleanly. Everything larger is in the workspace's `tests/`.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    fs,
    hash::{BuildHasher, Hasher},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use groundplan_protocol::{
    MAX_PACKET, VERSION,
    blob::{BlobRef, Content, Want, chunk},
    digest::{Digest, Fingerprint},
    drift::{CheckRequest, Difference, DriftReport},
    effect::Action,
    encryption::EncryptionKey,
    envelope::{Message, PublicKey, SigningKey, open, open_for, seal, seal_for},
    ids::{CommitId, Generation, LedgerId, NodeId, Sequence, SiteName},
    plan::{NodePlan, PlanBody, PlanOffer, PlanText, PlannedTask, TaskSpec},
    presence::{Heartbeat, Presence},
    report::{Ack, Outcome, ReportBatch},
    state::{NodeState, Phase},
    topic::{NodeTopic, Topic, prefix},
};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS};

const BROKER: &str = "/usr/sbin/mosquitto";

/// A child that does not outlive its test.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Planner {
    key: SigningKey,
    site: SiteName,
    node: NodeId,
    agent: PublicKey,
    /// The node's, once it is known.
    ledger: Option<LedgerId>,
    encryption_key: Option<EncryptionKey>,
    client: AsyncClient,
    events: EventLoop,
}

impl Planner {
    fn topic(&self, topic: NodeTopic) -> String {
        Topic::Node(self.node.clone(), topic).name(&self.site)
    }

    fn publish<M: Message>(&self, topic: NodeTopic, retain: bool, message: &M) {
        self.client.try_publish(self.topic(topic), QoS::AtLeastOnce, retain, self.sealed(message)).unwrap();
    }

    fn sealed<M: Message>(&self, message: &M) -> Vec<u8> {
        match (&self.encryption_key, M::ENCRYPTED) {
            (_, false) => seal(&self.key, message),
            (Some(key), true) => seal_for(&self.key, key, message).unwrap(),
            (None, true) => panic!("the node has announced no key"),
        }
    }

    fn opened<M: Message>(&self, payload: &[u8]) -> M {
        match M::ENCRYPTED {
            false => open(payload, &[self.agent], &self.site).unwrap(),
            true => open_for(payload, &[self.agent], &self.site, &self.key.decryption()).unwrap(),
        }
    }

    /// Announces the key to encrypt to this planner with.
    fn beat(&self) {
        let at_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
        let encryption_key = Some(self.key.decryption().public());
        let beat = Heartbeat { version: VERSION, site: self.site.clone(), term: 1, at_ms, encryption_key };
        let topic = Topic::Heartbeat.name(&self.site);
        self.client.try_publish(topic, QoS::AtLeastOnce, true, seal(&self.key, &beat)).unwrap();
    }

    /// The first request for a drift check.
    fn check_request(&self) -> CheckRequest {
        let (site, node) = (self.site.clone(), self.node.clone());
        CheckRequest { version: VERSION, site, node, revision: 1, interval: None, asked: 1 }
    }

    fn plan(&self, generation: u64, tasks: Vec<PlannedTask>) {
        self.publish(NodeTopic::Plan, true, &self.offer(generation, tasks));
    }

    fn offer(&self, generation: u64, tasks: Vec<PlannedTask>) -> PlanOffer {
        let plan = NodePlan {
            version: VERSION,
            site: self.site.clone(),
            node: self.node.clone(),
            generation: Generation(generation),
            commit: CommitId::new("0".repeat(40)).unwrap(),
            tasks,
            edges: BTreeMap::new(),
            ledger: self.ledger.clone(),
        };
        let of = (plan.site.clone(), plan.node.clone(), plan.generation);
        let mut offer = PlanOffer::new(&self.key, 1, of, PlanText::of(&plan), (0, u64::MAX));
        offer.keys = plan.blobs().map(|blob| (blob.sha256, self.key.content_key(&blob.sha256))).collect();
        offer
    }

    /// The offer of a plan as a blob, and the JSON that is in it.
    fn offer_as_blob(&self, generation: u64, tasks: Vec<PlannedTask>) -> (PlanOffer, Vec<u8>) {
        let mut offer = self.offer(generation, tasks);
        let PlanBody::Inline(text) = &offer.body else { unreachable!("made above") };
        let json = text.as_str().as_bytes().to_vec();
        let blob = BlobRef::of(&json);
        offer.keys.insert(blob.sha256, self.key.content_key(&blob.sha256));
        (PlanOffer { body: PlanBody::Blob(blob), ..offer }, json)
    }

    /// Publishes that offer, and returns the JSON.
    fn plan_as_blob(&self, generation: u64, tasks: Vec<PlannedTask>) -> Vec<u8> {
        let (offer, json) = self.offer_as_blob(generation, tasks);
        self.publish(NodeTopic::Plan, true, &offer);
        json
    }

    async fn next(&mut self) -> Publish {
        loop {
            let poll = tokio::time::timeout(Duration::from_secs(20), self.events.poll());
            if let Event::Incoming(Packet::Publish(publish)) = poll.await.expect("a message in time").unwrap() {
                return publish;
            }
        }
    }

    fn read<M: Message>(&self, topic: NodeTopic, publish: &Publish) -> Option<M> {
        (publish.topic == self.topic(topic)).then(|| self.opened(&publish.payload))
    }

    /// Waits for the next message on `topic` that fits, and sends the requested chunks of `blob` meanwhile.
    async fn wait<M: Message>(&mut self, topic: NodeTopic, blob: &[u8], fits: impl Fn(&M) -> bool) -> M {
        self.wait_and_ship(topic, &[blob], fits).await
    }

    /// As `wait`, with more than one blob.
    async fn wait_and_ship<M: Message>(&mut self, topic: NodeTopic, blobs: &[&[u8]], fits: impl Fn(&M) -> bool) -> M {
        loop {
            let publish = self.next().await;
            if let Some(want) = self.read::<Want>(NodeTopic::Want, &publish) {
                let blob = blobs.iter().find(|blob| Digest::of(blob) == want.blob.sha256);
                for (n, blob) in want.chunks.into_iter().zip(blob.into_iter().cycle()) {
                    let topic = Topic::Blob(want.blob.sha256, n).name(&self.site);
                    let key = self.key.content_key(&want.blob.sha256);
                    let bytes = key.encrypt(n, chunk(blob, n).unwrap().to_vec());
                    self.client.publish(topic, QoS::AtLeastOnce, false, bytes).await.unwrap();
                }
            }
            if let Some(message) = self.read(topic, &publish).filter(&fits) {
                return message;
            }
        }
    }
}

fn task(name: &str, params: &str, content: Option<Content>, after: Option<&str>) -> PlannedTask {
    let spec = TaskSpec {
        params: serde_json::from_str(params).unwrap(),
        content,
        ready: None,
        external: Vec::new(),
        on_interrupt: Default::default(),
    };
    let fingerprint = Fingerprint(Digest::of(&serde_json::to_vec(&spec).unwrap()));
    PlannedTask {
        task: format!("s.{name}").parse().unwrap(),
        action: Action::Create,
        spec: Some(spec),
        fingerprint: Some(fingerprint),
        inputs: BTreeMap::new(),
        edges: Default::default(),
        after: after.iter().map(|a| format!("s.{a}").parse().unwrap()).collect(),
        gates: Vec::new(),
        triggers: Vec::new(),
        obligation: None,
        since: None,
        from: Vec::new(),
        into: Vec::new(),
        retry: None,
    }
}

/// A loopback address that no other test uses while the claim on it, a listener on another port, is held.
fn claim_address() -> (TcpListener, Ipv4Addr) {
    let first = RandomState::new().build_hasher().finish() as u32;
    let addresses = (0..).map(|n| {
        let [_, b, c, d] = first.wrapping_add(n).to_be_bytes();
        Ipv4Addr::new(127, b.max(1), c, d.clamp(1, 253))
    });
    let mut claims = addresses.filter_map(|ip| Some((TcpListener::bind((ip, 17399)).ok()?, ip)));
    claims.next().expect("a free address")
}

fn start_broker(dir: &Path, ip: Ipv4Addr) -> (Owned, SocketAddr) {
    let address = SocketAddr::from((ip, 17400));
    let config = dir.join("mosquitto.conf");
    let listener = format!("listener {} {ip}", address.port());
    fs::write(&config, format!("{listener}\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n")).unwrap();
    let broker = Command::new(BROKER).arg("-c").arg(&config).stderr(Stdio::null()).spawn().unwrap();
    let mut broker = Owned(broker);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(broker.0.try_wait().unwrap().is_none(), "mosquitto does not start on {address}");
        std::thread::sleep(Duration::from_millis(10));
    }
    (broker, address)
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A broker, the configuration of an agent, and the test's planner, which has not published anything yet.
struct Bench {
    dir: tempfile::TempDir,
    planner: Planner,
    _claim: TcpListener,
    _broker: Owned,
}

impl Bench {
    /// None, with a line that says so, where there is no broker.
    fn start() -> Option<Self> {
        if !Path::new(BROKER).exists() {
            eprintln!("SKIPPED: there is no {BROKER}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (claim, ip) = claim_address();
        let (broker, address) = start_broker(dir.path(), ip);
        let (site, node) = (SiteName::new("site").unwrap(), NodeId::new("node").unwrap());
        let key = SigningKey::from_seed([1; 32]);
        let text = format!(
            "site = 'site'\nnode = 'node'\nbroker = 'mqtt://{address}'\nroot = {:?}\nstate_dir = {:?}\nplanner_keys = ['{}']\n",
            dir.path().join("root"),
            dir.path().join("state"),
            key.public()
        );
        fs::write(dir.path().join("agent.toml"), text).unwrap();
        let public = String::from_utf8(agent(dir.path()).arg("--print-key").output().unwrap().stdout).unwrap();
        let mut options = MqttOptions::new("planner", ip.to_string(), address.port());
        options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
        let (client, mut events) = AsyncClient::new(options, 100);
        events.network_options.set_tcp_nodelay(true);
        client.try_subscribe(format!("{}/node/#", prefix(&site)), QoS::AtLeastOnce).unwrap();
        let planner = Planner {
            key,
            site,
            node,
            agent: public.trim().parse().unwrap(),
            ledger: None,
            encryption_key: None,
            client,
            events,
        };
        Some(Self { dir, planner, _claim: claim, _broker: broker })
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Starts the agent, which ends when its standard input is closed, and takes its first state.
    async fn start_agent(&mut self) -> (Owned, NodeState) {
        let child = agent(self.dir.path()).arg("--exit-with-parent").stdin(Stdio::piped()).spawn().unwrap();
        let first = self.planner.wait::<NodeState>(NodeTopic::State, b"", |_| true).await;
        (self.planner.ledger, self.planner.encryption_key) = (Some(first.ledger.clone()), first.encryption_key);
        (Owned(child), first)
    }
}

fn agent(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_groundplan-agent"));
    command.arg("--config").arg(dir.join("agent.toml"));
    command
}

#[tokio::test]
async fn a_plan_is_applied_and_reported() {
    let Some(mut bench) = Bench::start() else { return };
    bench.planner.beat();
    let (mut child, idle) = bench.start_agent().await;
    assert_eq!((idle.generation, idle.phase), (Generation(0), Phase::Idle));
    let (root, planner) = (bench.root(), &mut bench.planner);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let at_rest = resident_kib(child.0.id());

    // A small file.
    let file = root.join("etc/small");
    let pushed = Instant::now();
    fs::create_dir_all(root.join("etc")).unwrap();
    let small = || task("small", r#"{"file":{"path":"/etc/small"}}"#, Some(Content::Text("hello\n".into())), None);
    planner.plan(1, vec![small()]);
    let batch = planner.wait::<ReportBatch>(NodeTopic::Report, b"", |b| !b.reports.is_empty()).await;
    let reported = pushed.elapsed();
    assert_eq!(batch.reports[0].outcome, Outcome::Done { changed: true, effect: None });
    assert_eq!(fs::read_to_string(&file).unwrap(), "hello\n");

    // A large file; then an older and a forged plan, which are refused.
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 3) as u8).collect();
    let blob = Some(Content::Blob(BlobRef::of(&large)));
    planner.plan(2, vec![small(), task("large", r#"{"file":{"path":"/etc/large"}}"#, blob, None)]);
    let done = |b: &ReportBatch| b.reports.iter().any(|r| r.task.to_string() == "s.large");
    let batch = planner.wait::<ReportBatch>(NodeTopic::Report, &large, done).await;
    assert!(batch.reports.iter().all(|r| r.outcome.is_success()), "{batch:?}");
    assert_eq!(fs::read(root.join("etc/large")).unwrap(), large);
    planner.plan(1, Vec::new());
    planner
        .wait::<NodeState>(NodeTopic::State, b"", |s| s.refused.as_ref().is_some_and(|r| r.reason.contains("older")))
        .await;
    planner.client.try_publish(planner.topic(NodeTopic::Plan), QoS::AtLeastOnce, true, b"nonsense".to_vec()).unwrap();
    planner.wait::<NodeState>(NodeTopic::State, b"", |s| s.ignored == 1).await;
    let sequence = Sequence(batch.first.0 + batch.reports.len() as u64 - 1);
    let ack = Ack {
        version: VERSION,
        site: planner.site.clone(),
        node: planner.node.clone(),
        ledger: batch.ledger.clone(),
        sequence,
    };
    planner.publish(NodeTopic::Ack, false, &ack);

    // Many commands in a row.
    let name = |n: usize| format!("c{n}");
    let command = r#"{"command":{"run":"echo hello"}}"#;
    let tasks: Vec<_> =
        (0..500).map(|n| task(&name(n), command, None, (n > 0).then(|| name(n - 1)).as_deref())).collect();
    let pushed = Instant::now();
    planner.plan(3, tasks);
    let mut next = sequence.0 + 1;
    while next <= sequence.0 + 500 {
        let batch = planner.wait::<ReportBatch>(NodeTopic::Report, b"", |b| !b.reports.is_empty()).await;
        // On a busy machine reports may be repeated, because this test does not acknowledge them.
        assert!(batch.first.0 <= next, "reports come in order and without gaps");
        assert!(batch.reports.iter().all(|r| r.outcome.is_success()), "{batch:?}");
        next = next.max(batch.first.0 + batch.reports.len() as u64);
    }
    let commands = pushed.elapsed();
    let spawned = Instant::now();
    for _ in 0..500 {
        Command::new("/bin/sh").args(["-c", "echo hello"]).output().unwrap();
    }
    eprintln!(
        "at rest {at_rest} KiB, after all {} KiB; file and report after {reported:?}; 500 commands in {commands:?}, bare in {:?}",
        resident_kib(child.0.id()),
        spawned.elapsed()
    );

    // Both files are changed by others: a drift check reports it, and repairs nothing.
    fs::write(&file, "goodbye\n").unwrap();
    fs::remove_file(root.join("etc/large")).unwrap();
    let mut check = planner.check_request();
    planner.publish(NodeTopic::Check, true, &check);
    let report = planner.wait::<DriftReport>(NodeTopic::Drift, b"", |_| true).await;
    assert_eq!((report.asked, report.generation, report.checked), (1, Generation(3), 2), "{report:?}");
    assert_eq!((report.left_out, report.failed.len()), (500, 0), "commands without a guard are not checked");
    let differences = |report: &DriftReport, name: &str| report.drifted[&name.parse().unwrap()].differences.clone();
    let content = Some(Content::Text("goodbye\n".to_owned()));
    let edited = Difference { what: "content".to_owned(), expected: None, found: None, content };
    assert_eq!(differences(&report, "s.small"), [edited]);
    assert_eq!(
        (differences(&report, "s.large")[0].what.as_str(), differences(&report, "s.large")[0].found.as_deref()),
        ("file", None)
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "goodbye\n");
    let since = report.drifted[&"s.small".parse().unwrap()].since_ms;

    // A plan repairs one: that is reported without a request. An older request is ignored.
    planner.plan(4, vec![PlannedTask { action: Action::Update, ..small() }]);
    let healed = planner.wait::<DriftReport>(NodeTopic::Drift, b"", |r| r.generation == Generation(4)).await;
    assert!(healed.revision > report.revision && healed.asked == 1);
    let left: Vec<String> = healed.drifted.keys().map(ToString::to_string).collect();
    assert_eq!(
        (left.as_slice(), fs::read_to_string(&file).unwrap().as_str()),
        (&["s.large".to_owned()][..], "hello\n")
    );
    assert_eq!(healed.drifted[&"s.large".parse().unwrap()].since_ms, since);
    fs::write(&file, "again\n").unwrap();
    (check.revision, check.asked) = (0, 9);
    planner.publish(NodeTopic::Check, false, &check);
    (check.revision, check.asked) = (2, 2);
    planner.publish(NodeTopic::Check, false, &check);
    let third = planner.wait::<DriftReport>(NodeTopic::Drift, b"", |r| r.revision > healed.revision).await;
    assert_eq!((third.asked, third.drifted.len()), (2, 2));

    // The parent closes its end: the agent reports that it is offline, and ends.
    drop(child.0.stdin.take());
    planner.wait::<Presence>(NodeTopic::Presence, b"", |p| !p.online).await;
    assert!(child.0.wait().unwrap().success());
}

/// A file of two chunks, and the task that writes it.
fn large(name: &str, fill: u8) -> (Vec<u8>, PlannedTask) {
    let content = vec![fill; 200_000];
    let blob = Some(Content::Blob(BlobRef::of(&content)));
    let params = format!(r#"{{"file":{{"path":"/{name}"}}}}"#);
    (content, task(name, &params, blob, None))
}

fn wants(blob: &[u8]) -> impl Fn(&Want) -> bool {
    let digest = Digest::of(blob);
    move |want| want.blob.sha256 == digest
}

fn succeeded(name: &str) -> impl Fn(&ReportBatch) -> bool {
    let name = format!("s.{name}");
    move |batch| batch.reports.iter().any(|report| report.task.to_string() == name && report.outcome.is_success())
}

#[tokio::test]
async fn what_a_newer_plan_has_superseded_is_not_waited_for() {
    let Some(mut bench) = Bench::start() else { return };
    bench.planner.beat();
    let (_child, _) = bench.start_agent().await;
    fs::create_dir_all(bench.root()).unwrap();
    let planner = &mut bench.planner;
    let [one, two, three] = [("one", 1), ("two", 2), ("three", 3)].map(|(name, fill)| large(name, fill));
    // A plan that is a blob. The planner has made another one before the agent has it, and ships it no more.
    let old = planner.plan_as_blob(1, vec![one.1.clone()]);
    planner.wait::<Want>(NodeTopic::Want, b"", wants(&old)).await;
    let old = planner.plan_as_blob(2, vec![two.1.clone()]);
    planner.wait_and_ship::<ReportBatch>(NodeTopic::Report, &[&old, &two.0], succeeded("two")).await;
    // The same, and the newer one is in its offer.
    let old = planner.plan_as_blob(3, vec![one.1]);
    planner.wait::<Want>(NodeTopic::Want, b"", wants(&old)).await;
    planner.plan(4, vec![two.1, three.1]);
    planner.wait_and_ship::<ReportBatch>(NodeTopic::Report, &[&two.0, &three.0], succeeded("three")).await;
}

#[tokio::test]
async fn an_older_offer_that_comes_again_takes_no_keys_away() {
    let Some(mut bench) = Bench::start() else { return };
    bench.planner.beat();
    let (_child, _) = bench.start_agent().await;
    fs::create_dir_all(bench.root()).unwrap();
    let planner = &mut bench.planner;
    let [one, two] = [("one", 1), ("two", 2)].map(|(name, fill)| large(name, fill));
    // One in its offer is taken, if it comes after one that has no plan yet; a blob is not even fetched.
    let (as_blob, _) = planner.offer_as_blob(2, vec![one.1.clone()]);
    let inline = planner.offer(1, vec![one.1]);
    let body = planner.plan_as_blob(3, vec![two.1]);
    planner.wait::<Want>(NodeTopic::Want, b"", wants(&body)).await;
    // Any client may send it again at some brokers.
    planner.publish(NodeTopic::Plan, false, &as_blob);
    planner.publish(NodeTopic::Plan, false, &inline);
    planner.client.try_publish(planner.topic(NodeTopic::Plan), QoS::AtLeastOnce, false, b"x".to_vec()).unwrap();
    planner.wait::<NodeState>(NodeTopic::State, b"", |state| state.ignored == 1).await;
    planner.wait_and_ship::<ReportBatch>(NodeTopic::Report, &[&body, &two.0], succeeded("two")).await;
}

/// Time that a process was on a processor, in clock ticks: fields 14 and 15 of `/proc/PID/stat` (proc(5)).
fn processor_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn what_waits_for_the_planners_key_costs_no_time_and_is_sent_once_there_is_one() {
    let Some(mut bench) = Bench::start() else { return };
    bench.planner.beat();
    drop(bench.start_agent().await);
    // An agent that has not heard the key, neither now nor before.
    fs::remove_file(bench.dir.path().join("state/heard")).unwrap();
    let heartbeat = Topic::Heartbeat.name(&bench.planner.site);
    bench.planner.client.try_publish(heartbeat, QoS::AtLeastOnce, true, "").unwrap();
    fs::create_dir_all(bench.root()).unwrap();
    let done = |n: usize| bench.dir.path().join(format!("root/done{n}")).exists();
    let root = bench.root();
    let command = |n: usize| format!(r#"{{"command":{{"run":"echo hello; touch {}/done{n}"}}}}"#, root.display());
    bench.planner.plan(1, (0..300).map(|n| task(&format!("c{n}"), &command(n), None, None)).collect());
    let planner = &mut bench.planner;
    // The broker has them before the agent comes.
    for _ in 0..2 {
        while !matches!(planner.events.poll().await.unwrap(), Event::Incoming(Packet::PubAck(_))) {}
    }
    let child = Owned(agent(bench.dir.path()).arg("--exit-with-parent").stdin(Stdio::piped()).spawn().unwrap());
    let started = Instant::now();
    while !(0..300).all(done) {
        assert!(started.elapsed() < Duration::from_secs(20), "the tasks are not done");
        let _ = tokio::time::timeout(Duration::from_millis(20), planner.events.poll()).await;
    }
    let check = planner.check_request();
    planner.publish(NodeTopic::Check, true, &check);
    let before = processor_ticks(child.0.id());
    // The time in which it must do nothing.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let used = processor_ticks(child.0.id()) - before;
    assert!(used < 30, "{used} ticks in 3 s, while nothing can be sent");
    planner.beat();
    let (mut state, mut report, mut drift) = (false, false, false);
    while !(state && report && drift) {
        let publish = planner.next().await;
        state |= planner
            .read::<NodeState>(NodeTopic::State, &publish)
            .is_some_and(|state| state.phase == Phase::Idle && state.sequence.0 == 300);
        report |=
            planner.read::<ReportBatch>(NodeTopic::Report, &publish).is_some_and(|batch| !batch.reports.is_empty());
        drift |= planner.read::<DriftReport>(NodeTopic::Drift, &publish).is_some_and(|report| report.asked == 1);
    }
}

#[tokio::test]
async fn an_agent_that_was_killed_while_it_fetched_goes_on_with_the_keys_of_the_retained_offer() {
    let Some(mut bench) = Bench::start() else { return };
    bench.planner.beat();
    let (child, _) = bench.start_agent().await;
    fs::create_dir_all(bench.root()).unwrap();
    let (content, task) = large("one", 1);
    bench.planner.plan(1, vec![task]);
    bench.planner.wait::<Want>(NodeTopic::Want, b"", wants(&content)).await;
    drop(child);
    let (_child, state) = bench.start_agent().await;
    assert_eq!(state.generation, Generation(1));
    bench.planner.wait_and_ship::<ReportBatch>(NodeTopic::Report, &[&content], succeeded("one")).await;
}

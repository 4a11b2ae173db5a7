//! The first inputs of each target, from which the corpora have grown; `UPDATE=1` writes them, see `tests/suite/fuzz.rs`.

use bytes::BytesMut;
use groundplan_protocol::{
    VERSION,
    envelope::{Message, SigningKey, seal},
    ids::{LedgerId, Sequence},
    report::Ack,
};

use rumqttc::mqttbytes::{
    QoS,
    v4::{Connect, LastWill, Packet, PubAck, Publish, Subscribe, Unsubscribe},
};

use super::{broker, envelope};

/// An input: the target, the name of the file, and its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// All of them.
pub fn all() -> Vec<Seed> {
    let mut seeds = envelopes();
    seeds.extend(MESSAGES.iter().map(|(name, json)| ("message", format!("{name}.json"), json.trim().into())));
    seeds.extend(sessions());
    seeds.extend(archives());
    seeds.extend(SELECTORS.iter().enumerate().map(|(n, text)| ("selector", format!("first-{n:02}"), (*text).into())));
    seeds
}

fn envelopes() -> Vec<Seed> {
    let ack = |site: &str, version| Ack {
        version,
        site: site.parse().expect("a name"),
        node: "n0".parse().expect("a name"),
        ledger: LedgerId::new("0123456789abcdef0123456789abcdef").expect("an id"),
        sequence: Sequence(7),
    };
    let key = envelope::key();
    let good = seal(&key, &ack("lab", VERSION));
    let value: serde_json::Value = serde_json::from_slice(&good).expect("JSON");
    let altered = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = value.clone();
        change(&mut value);
        value.to_string().into_bytes()
    };
    let own = value["signatures"][0].clone();
    let by_other = SigningKey::from_seed([8; 32]).public().id();
    let seed = |name: &str, bytes| ("envelope", name.to_owned(), bytes);
    vec![
        seed("good.json", good),
        seed("other-site.json", seal(&key, &ack("other", VERSION))),
        seed("other-version.json", seal(&key, &ack("lab", VERSION + 1))),
        seed("other-key.json", seal(&SigningKey::from_seed([9; 32]), &ack("lab", VERSION))),
        seed("two-signatures.json", altered(&|v| v["signatures"] = vec![own.clone(), own.clone()].into())),
        seed("another-key-id.json", altered(&|v| v["signatures"][0]["keyid"] = by_other.clone().into())),
        seed("no-signature.json", altered(&|v| v["signatures"] = Vec::<()>::new().into())),
        seed("another-type.json", altered(&|v| v["payloadType"] = groundplan_protocol::plan::Gates::TYPE.into())),
        seed("no-base64.json", altered(&|v| v["payload"] = "%".into())),
        seed("more-fields.json", altered(&|v| v["more"] = 1.into())),
    ]
}

/// What clients send to a broker: packets as rumqttc writes them.
fn sessions() -> Vec<Seed> {
    let written = |packet: Packet| {
        let mut out = BytesMut::new();
        packet.write(&mut out, 1 << 16).expect("a packet");
        out.to_vec()
    };
    let connect = |id: &str, clean: bool, will: Option<LastWill>| {
        written(Packet::Connect(Connect { clean_session: clean, last_will: will, ..Connect::new(id) }))
    };
    let publish = |topic: &str, qos, pkid, retain, payload: &str| {
        let mut publish = Publish::new(topic, qos, payload);
        (publish.pkid, publish.retain) = (pkid, retain);
        written(Packet::Publish(publish))
    };
    let subscribe = |filter: &str, qos| {
        let mut subscribe = Subscribe::new(filter, qos);
        subscribe.pkid = 1;
        written(Packet::Subscribe(subscribe))
    };
    let unsubscribe = |filter: &str| {
        let mut unsubscribe = Unsubscribe::new(filter);
        unsubscribe.pkid = 2;
        written(Packet::Unsubscribe(unsubscribe))
    };
    let acknowledge = |pkid| written(Packet::PubAck(PubAck::new(pkid)));
    let (ping, disconnect) = (written(Packet::PingReq), written(Packet::Disconnect));
    let (a, b, planner, observer) = (0, 1, 2, 3);
    let (most, least) = (QoS::AtMostOnce, QoS::AtLeastOnce);
    let topic = |rest: &str| format!("groundplan/1/lab/{rest}");
    let will = LastWill::new(topic("node/a/presence"), "off", least, true);
    let node = |name: &str| connect(&format!("groundplan/lab/node/{name}/x"), false, None);
    let (planned, observed) =
        (connect("groundplan/lab/planner/one", false, None), connect("groundplan/lab/observer/x", true, None));

    let seed = |name: &str, sent: &[(usize, Vec<u8>)]| {
        let pieces: Vec<_> = sent.iter().map(|(client, bytes)| (*client, &bytes[..])).collect();
        ("broker", name.to_owned(), broker::input(&pieces))
    };
    let reports = publish(&topic("node/a/report"), least, 5, false, "report");
    vec![
        seed("connect", &[(a, node("a")), (a, ping), (a, disconnect.clone())]),
        seed("another-name", &[(a, node("b")), (b, connect("", false, None)), (planner, connect("", true, None))]),
        seed(
            "will",
            &[
                (planner, planned.clone()),
                (planner, subscribe(&topic("node/+/presence"), least)),
                (a, connect("groundplan/lab/node/a", true, Some(will))),
                (a, Vec::new()),
                (planner, acknowledge(1)),
            ],
        ),
        seed(
            "plan",
            &[
                (a, node("a")),
                (a, subscribe(&topic("node/a/plan"), least)),
                (b, node("b")),
                (b, subscribe(&topic("node/a/plan"), least)),
                (planner, planned.clone()),
                (planner, publish(&topic("node/a/plan"), least, 9, true, "a plan")),
                (a, acknowledge(1)),
            ],
        ),
        seed(
            "kept",
            &[
                (planner, planned.clone()),
                (planner, publish(&topic("planner"), least, 1, true, "online")),
                (planner, publish(&topic("node/a/gates"), least, 2, true, "gates")),
                (planner, publish(&topic("node/a/gates"), least, 3, true, "")),
                (observer, observed),
                (observer, subscribe(&topic("#"), QoS::ExactlyOnce)),
                (observer, unsubscribe(&topic("#"))),
                (observer, disconnect),
            ],
        ),
        seed(
            "away",
            &[
                (planner, planned.clone()),
                (planner, subscribe(&topic("node/+/report"), least)),
                (planner, Vec::new()),
                (a, node("a")),
                (a, [reports.clone(), reports.clone(), reports.clone()].concat()),
                (planner, planned.clone()),
                (planner, acknowledge(1)),
                (planner, acknowledge(2)),
            ],
        ),
        seed(
            "full",
            &[
                (planner, planned.clone()),
                (planner, subscribe(&topic("node/+/#"), least)),
                (a, node("a")),
                (a, reports.repeat(20)),
                (a, publish(&topic("node/a/report"), most, 0, false, &"x".repeat(1500))),
            ],
        ),
        seed("taken-over", &[(a, node("a")), (b, node("a")), (a, Vec::new()), (a, node("a"))]),
        seed(
            "two-halves",
            &[(a, node("a")[..9].to_vec()), (a, node("a")[9..].to_vec()), (a, b"\x30\xff\xff".to_vec())],
        ),
        seed("content", &[(b, node("b")), (b, subscribe(&topic(&format!("blob/{}/+", "0".repeat(64))), most))]),
        seed("no-mqtt", &[(a, b"GET / HTTP/1.1\r\n\r\n".to_vec())]),
        seed("version-5", &[(a, b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00".to_vec())]),
    ]
}

/// A member: its name, its type as tar has it, its mode, and its content or target.
type Member<'a> = (&'a str, u8, u32, &'a str);

const FILE: u8 = b'0';
const HARD: u8 = b'1';
const LINK: u8 = b'2';
const DEVICE: u8 = b'3';
const FOLDER: u8 = b'5';
const LONG_NAME: u8 = b'L';

fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, kind, mode, text) in members {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(*kind, LINK | HARD);
        let content = if is_link { "" } else { *text };
        header[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = *kind;
        if is_link {
            header[157..157 + text.len()].copy_from_slice(text.as_bytes());
        }
        header[257..265].copy_from_slice(b"ustar\x0000");
        tar.extend_from_slice(&header);
        tar.extend_from_slice(content.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.extend_from_slice(&[0; 1024]);
    tar
}

/// Stored, without compression (APPNOTE.TXT of PKWARE, sections 4.3.7, 4.3.12 and 4.3.16).
fn zip(members: &[Member<'_>]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (name, kind, mode, text) in members {
        let mut sum = flate2::Crc::new();
        sum.update(text.as_bytes());
        let size = (text.len() as u32).to_le_bytes();
        let mut common = Vec::new();
        common.extend_from_slice(&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        common.extend_from_slice(&sum.sum().to_le_bytes());
        common.extend_from_slice(&[size, size].concat());
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());
        common.extend_from_slice(&[0, 0]);
        let offset = zip.len() as u32;
        zip.extend_from_slice(b"PK\x03\x04");
        zip.extend_from_slice(&common);
        zip.extend_from_slice(&[name.as_bytes(), text.as_bytes()].concat());
        let kind = match *kind {
            LINK => 0o120_000,
            FOLDER => 0o040_000,
            DEVICE => 0o060_000,
            _ => 0o100_000,
        };
        // Made by Unix, which says how the mode is to be read.
        directory.extend_from_slice(b"PK\x01\x02\x14\x03");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 6]);
        directory.extend_from_slice(&((kind | mode) << 16).to_le_bytes());
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (start, length, count) = (zip.len() as u32, directory.len() as u32, (members.len() as u16).to_le_bytes());
    zip.extend_from_slice(&directory);
    zip.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    zip.extend_from_slice(&[count, count].concat());
    zip.extend_from_slice(&[length.to_le_bytes(), start.to_le_bytes()].concat());
    zip.extend_from_slice(&[0, 0]);
    zip
}

fn archives() -> Vec<Seed> {
    let sets: [(&str, &[Member<'_>]); 14] = [
        ("plain", &[("dir/", FOLDER, 0o755, ""), ("dir/a", FILE, 0o644, "a"), ("file", FILE, 0o755, "#!/bin/sh\n")]),
        ("links", &[("a", FILE, 0o644, "a"), ("dir/l", LINK, 0o777, "../a"), ("hard", HARD, 0o644, "a")]),
        ("leads-out", &[("out", LINK, 0o777, "../../etc"), ("out/passwd", FILE, 0o644, "pwned")]),
        ("absolute", &[("/etc/passwd", FILE, 0o644, "pwned")]),
        ("parent", &[("dir/../../../etc/passwd", FILE, 0o644, "pwned")]),
        ("hard-out", &[("h", HARD, 0o644, "../../etc/passwd")]),
        ("setuid", &[("s", FILE, 0o4755, "x"), ("d/", FOLDER, 0o2755, "")]),
        ("device", &[("d", DEVICE, 0o644, "")]),
        ("twice", &[("a", FILE, 0o644, "1"), ("a", FILE, 0o600, "2"), ("a/b", FILE, 0o644, "3")]),
        ("link-then-dir", &[("l", LINK, 0o777, "dir"), ("l/", FOLDER, 0o755, ""), ("dir/", FOLDER, 0o755, "")]),
        ("top", &[("app-1/", FOLDER, 0o755, ""), ("app-1/bin/x", FILE, 0o755, "x"), ("README", FILE, 0o644, "r")]),
        ("odd-names", &[("./a//b/./c", FILE, 0o644, "x"), ("\u{fc}", FILE, 0o644, ""), ("a\nb", FILE, 0, "")]),
        ("over-link", &[("link", FILE, 0o644, "x"), ("out/x", FILE, 0o644, "x")]),
        ("empty", &[]),
    ];
    let mut seeds = Vec::new();
    for (n, (name, members)) in sets.into_iter().enumerate() {
        // What is asked of it differs, so that each is met by some: see `archive`.
        let more = [0x00, 0x08, 0x04, 0x10][n % 4];
        let seed = |format: &str, options: u8, bytes: Vec<u8>| {
            ("archive", format!("{name}.{format}"), [vec![options | more], bytes].concat())
        };
        seeds.push(seed("tar", 0, tar(members)));
        seeds.push(seed("zip", 2, zip(members)));
    }
    let long = format!("{}/x", "long".repeat(40));
    let members = [("././@LongLink", LONG_NAME, 0o644, &*long), ("short", FILE, 0o644, "x")];
    seeds.push(("archive", "long-name.tar.gz".to_owned(), [vec![1], tar(&members)].concat()));
    seeds
}

const SELECTORS: [&str; 16] = [
    "all",
    "ctl-0",
    "ctl",
    "ctl-*",
    "ctl-?",
    "rack=a1",
    "rack=*1&!web-9",
    "note=\"a, 1\"",
    "empty=",
    "service:api",
    "node:web,group:web",
    "!(ctl-0,ctl-1)&rack=\"a1\"",
    " db.example.org , !( all-racks ) ",
    "((((!!!all))))",
    "rack=b1&rack=a1",
    "web",
];

/// At least one of each type of message, by what it is about.
const MESSAGES: [(&str, &str); 20] = [
    (
        "planner-presence",
        r#"{"version":1,"site":"lab","planner":"one","online":true,"term":3,"generation":7,"forget":[{"instance":"s.t@n0","by":"ann","reason":"it is no more"}],"parked":[{"node":"n1","by":"ann","reason":"disk","since_ms":1700000000000,"until_ms":1700000100000}]}"#,
    ),
    (
        "plan-file",
        r#"{"version":1,"site":"lab","node":"n0","generation":7,"commit":"0000000000000000000000000000000000000000","tasks":[{"task":"s.file","action":"create","spec":{"params":{"file":{"path":"/etc/motd","mode":"0644","owner":"root"}},"content":{"text":"hello\n"}},"fingerprint":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","inputs":{"content":"e3b0c44298fc1c14"}},{"task":"s.run","action":"update","spec":{"params":{"command":{"run":"systemctl daemon-reload"}},"external":[{"http":"http://localhost:80/x"}],"on_interrupt":"fail"},"fingerprint":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","after":["s.file"],"gates":["s.x@n1"],"triggers":[{"effect":"run","on":{"task":"s.file"}}],"obligation":"restart","since":3,"retry":{"attempts":3,"backoff":"30s"}}]}"#,
    ),
    (
        "plan-process",
        r#"{"version":1,"site":"lab","node":"n0","generation":8,"commit":"0000000000000000000000000000000000000000","tasks":[{"task":"s.p","action":"create","spec":{"params":{"process":{"command":["/usr/bin/sleep","9"]}},"ready":{"tcp":"127.0.0.1:80","timeout":"5s","interval":"100ms"}}},{"task":"s.a","action":"create","spec":{"params":{"archive":{"dest":"/opt/a","strip_components":1}},"content":{"blob":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":9}}}},{"task":"s.old","action":"remove","into":["s.a"]}]}"#,
    ),
    (
        "plan-kinds",
        r#"{"version":1,"site":"lab","node":"n0","generation":9,"commit":"0000000000000000000000000000000000000000","tasks":[{"task":"s.l","action":"create","spec":{"params":{"line":{"path":"/etc/x","line":"a = 1","match":"^a *="}}}},{"task":"s.i","action":"create","spec":{"params":{"ini":{"path":"/etc/i","set":{"s":{"k":"v"}}}}}},{"task":"s.u","action":"create","spec":{"params":{"user":{"name":"app","uid":999}}}},{"task":"s.m","action":"create","spec":{"params":{"sysctl":{"key":"net.ipv4.ip_forward","value":"1"}}}},{"task":"s.c","action":"create","spec":{"params":{"cron":{"name":"c","schedule":"@daily","command":"true"}}}},{"task":"s.b","action":"create","spec":{"params":{"file":{"path":"/b"}},"content":{"base64":"//4="}}},{"task":"s.k","action":"create","spec":{"params":{"package":{"name":"nginx"}}}}]}"#,
    ),
    (
        "offer-blob",
        r#"{"version":1,"site":"lab","node":"n0","generation":7,"body":{"blob":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":5000000}},"keys":{"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="},"issued_ms":1790000000000,"not_after_ms":1790600000000,"receipt":{"plan":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","term":2,"signature":"AAAA"}}"#,
    ),
    (
        "gates",
        r#"{"version":1,"site":"lab","node":"n0","generation":7,"plan":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","open":{"s.x@n1":{"fired":true},"unknown":{"fired":false}}}"#,
    ),
    ("ack", r#"{"version":1,"site":"lab","node":"n0","ledger":"0123456789abcdef0123456789abcdef","sequence":7}"#),
    ("check", r#"{"version":1,"site":"lab","node":"n0","revision":2,"interval":"10m","asked":1}"#),
    (
        "exec-run",
        r#"{"version":1,"site":"lab","node":"n0","id":"01234567","order":{"run":{"session":"0123456789abcdef","run":["uptime","-p"],"user":"app","cwd":"/","env":{"A":"b"},"timeout":"1m","output_limit":1000}}}"#,
    ),
    (
        "offer-inline",
        r#"{"version":1,"site":"lab","node":"n0","generation":7,"body":{"inline":{"version":1,"site":"lab","node":"n0","generation":7,"commit":"0000000000000000000000000000000000000000","ledger":"0123456789abcdef0123456789abcdef","tasks":[]}},"issued_ms":1,"not_after_ms":2,"receipt":{"plan":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","term":2,"signature":"AAAA"}}"#,
    ),
    (
        "heartbeat",
        r#"{"version":1,"site":"lab","term":2,"at_ms":1790000000000,"encryption_key":"x25519:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}"#,
    ),
    ("exec-stop", r#"{"version":1,"site":"lab","node":"n0","id":"01234567","order":"stop"}"#),
    (
        "presence",
        r#"{"version":1,"site":"lab","node":"n0","online":true,"agent":"0.1.0","ledger":"0123456789abcdef0123456789abcdef","session":"0123456789abcdef","trouble":"the disk is full"}"#,
    ),
    (
        "state",
        r#"{"version":1,"site":"lab","node":"n0","ledger":"0123456789abcdef0123456789abcdef","revision":4,"generation":7,"commit":"0000000000000000000000000000000000000000","phase":"idle","sequence":9,"applied":{"s.t":{"fingerprint":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","inputs":{"a":"b"},"on_remove":"keep"}},"running":["s.u"],"obligations":{"s.t":{"effect":"restart","fired":true,"open":[{"gate":"s.x@n1"}]}},"facts":{"os":{"id":"debian"},"cpus":4},"exports":{"s.e":"1.2.3.4"},"found":{"total":1,"bytes":5,"first":[{"claim":"path:/etc/motd","what":"a file","size":5}]},"degraded":{"s.p":"ended"},"agent":"0.1.0","encryption_key":"x25519:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","refused":{"topic":"plan","generation":6,"reason":"old","at_ms":1},"ignored":2}"#,
    ),
    (
        "report",
        r#"{"version":1,"site":"lab","node":"n0","ledger":"0123456789abcdef0123456789abcdef","first":3,"generation":7,"reports":[{"generation":7,"task":"s.t","action":"create","outcome":{"is":"done","changed":true,"effect":"reload"},"fingerprint":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","started_ms":1,"duration_ms":2,"output":{"head":"a","omitted":3,"tail":"z"},"export":"x"},{"generation":7,"task":"s.u","action":"run","outcome":{"is":"failed","error":"no"},"started_ms":1,"duration_ms":2},{"generation":7,"task":"s.v","action":"remove","outcome":{"is":"blocked","by":"s.u"},"started_ms":1,"duration_ms":0}],"running":["s.w"],"last":5,"acked":2}"#,
    ),
    (
        "want",
        r#"{"version":1,"site":"lab","node":"n0","blob":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":500000},"chunks":[0,1,3]}"#,
    ),
    (
        "drift",
        r#"{"version":1,"site":"lab","node":"n0","ledger":"0123456789abcdef0123456789abcdef","revision":2,"asked":1,"generation":7,"at_ms":1,"duration_ms":2,"checked":3,"left_out":0,"drifted":{"s.t":{"fingerprint":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","since_ms":1,"differences":[{"what":"/etc/motd","expected":"a","found":"b","content":{"text":"b"}}]}},"failed":{"s.u":"no"}}"#,
    ),
    (
        "output",
        r#"{"version":1,"site":"lab","node":"n0","id":"01234567","number":0,"pieces":[{"stream":"out","text":"a\n"},{"stream":"err","text":"b"}],"end":{"outcome":{"is":"exited","code":0},"duration_ms":12,"omitted":4}}"#,
    ),
    (
        "output-killed",
        r#"{"version":1,"site":"lab","node":"n0","id":"01234567","number":1,"end":{"outcome":{"is":"killed","signal":"SIGSEGV"},"duration_ms":12}}"#,
    ),
    ("no-message", r#"{"version":1,"site":"lab","node":"n0"}"#),
];

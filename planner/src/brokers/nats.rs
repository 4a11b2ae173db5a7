//! NATS with JetStream and its MQTT listener: users are mapped from the DNS name in the certificate, and each is listed with its subjects.
//!
//! MQTT's `/` is `.` in subjects. NATS binds no client id to a user; groundplan's cannot be guessed, and subjects that would show them are
//! granted to no user.

use groundplan_protocol::MAX_PACKET;

use super::wanted::{ConfigFile, Unsupported, Wanted, head, node_reads, node_writes, topic};

pub(super) fn files(wanted: &Wanted) -> Result<Vec<ConfigFile>, Unsupported> {
    if let Some(node) = wanted.nodes.iter().find(|node| node.as_str().contains('.')) {
        return Err(Unsupported::Dot(node.clone()));
    }
    Ok(vec![ConfigFile { name: "nats.conf", text: conf(wanted) }])
}

fn conf(wanted: &Wanted) -> String {
    let Wanted { site, listen, data, ca, cert, key, .. } = wanted;
    let head = head("#", wanted);
    // A filter that ends in `#` stands for the level above it as well.
    let prefix = subject(&groundplan_protocol::topic::prefix(site));
    let all = [format!("{prefix}.>"), prefix];
    let mut users = String::new();
    for planner in &wanted.planners {
        users += &user(planner, &all, &all);
    }
    for observer in &wanted.observers {
        users += &user(observer, &[], &all);
    }
    for node in &wanted.nodes {
        let writes: Vec<String> = node_writes().map(|spec| subject(&topic(site, spec, node.as_str(), "*"))).collect();
        let reads: Vec<String> = node_reads().map(|spec| subject(&topic(site, spec, node.as_str(), "*"))).collect();
        users += &user(node.as_str(), &writes, &reads);
    }
    let tls = format!(
        "{{\n    ca_file: \"{ca}\"\n    cert_file: \"{cert}\"\n    key_file: \"{key}\"\n    verify_and_map: true\n    timeout: 10\n  }}"
    );
    format!(
        r#"{head}
server_name: "groundplan-{site}"
# NATS's own protocol, which groundplan does not use: with the same certificates, and for this machine only.
listen: "127.0.0.1:4222"
tls {tls}

# The largest packet of groundplan.
max_payload: {MAX_PACKET}
max_pending: 134217728
jetstream {{
  store_dir: "{data}"
}}

mqtt {{
  listen: "{listen}"
  # The DNS name in the client's certificate is its user.
  tls {tls}
  ack_wait: "60s"
  max_ack_pending: 1000
}}

authorization {{
  users: [
{users}  ]
}}
"#
    )
}

fn subject(topic: &str) -> String {
    topic.replace('/', ".")
}

fn user(name: &str, writes: &[String], reads: &[String]) -> String {
    let list = |subjects: &[String]| -> String {
        subjects.iter().map(|subject| format!("\"{subject}\"")).collect::<Vec<_>>().join(", ")
    };
    // Deliveries of QoS 1 come by such a subject, one for each subscription. NATS refuses MQTT clients a filter for it, and users may not
    // connect otherwise.
    let reads = [reads, &["$MQTT.sub.>".to_owned()]].concat();
    let publish = if writes.is_empty() { "deny: \">\"".to_owned() } else { format!("allow: [{}]", list(writes)) };
    format!(
        "    {{ user: \"{name}\", allowed_connection_types: [\"MQTT\"], permissions: {{\n      publish: {{ {publish} }}\n      subscribe: {{ allow: [{}] }}\n    }} }}\n",
        list(&reads)
    )
}

//! RabbitMQ with its MQTT plugin: users are named by the common name in the certificate, and each is listed with its routing keys.
//!
//! MQTT's `/` is `.` in routing keys, and `.` is `/`. RabbitMQ 3.10 binds no client id to a user; groundplan's cannot be guessed, and a user
//! may only have queues of client ids of its own.

use serde_json::{Value, json};

use super::wanted::{ConfigFile, Wanted, head, node_reads, node_writes, topic};

/// The virtual host of the site.
const VHOST: &str = "groundplan";
/// The exchange of the plugin.
const EXCHANGE: &str = "amq.topic";

pub(super) fn files(wanted: &Wanted) -> Vec<ConfigFile> {
    vec![
        ConfigFile { name: "rabbitmq.conf", text: conf(wanted) },
        ConfigFile { name: "enabled_plugins", text: "[rabbitmq_auth_mechanism_ssl, rabbitmq_mqtt].\n".to_owned() },
        ConfigFile { name: "definitions.json", text: definitions(wanted) },
    ]
}

fn conf(wanted: &Wanted) -> String {
    let Wanted { listen, directory, ca, cert, key, .. } = wanted;
    let head = head("#", wanted);
    format!(
        "\
{head}
# Users and their rights.
load_definitions = {directory}/definitions.json

# MQTT over TLS is the only way in.
listeners.tcp = none
mqtt.listeners.tcp = none
mqtt.listeners.ssl.1 = {listen}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {cert}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true

# The common name in the client's certificate is its user name.
mqtt.ssl_cert_login = true
ssl_cert_login_from = common_name
mqtt.allow_anonymous = false

mqtt.vhost = {VHOST}
mqtt.exchange = {EXCHANGE}
# Sessions of clients that do not come back end after 30 days, in milliseconds.
mqtt.subscription_ttl = 2592000000
mqtt.prefetch = 256
"
    )
}

fn definitions(wanted: &Wanted) -> String {
    let names = || {
        let nodes = wanted.nodes.iter().map(|node| node.as_str());
        wanted.planners.iter().chain(&wanted.observers).map(String::as_str).chain(nodes)
    };
    // Without a hash no password is right: certificates only.
    let users: Vec<Value> = names().map(|name| json!({ "name": name, "password_hash": "", "tags": "" })).collect();
    let site = &wanted.site;
    let everything = format!("^{}\\.", literal(&groundplan_protocol::topic::prefix(site)));
    let (mut permissions, mut topics) = (Vec::new(), Vec::new());
    let mut grant = |user: &str, role: String, write: &str, read: &str| {
        let queues = format!("^mqtt-subscription-groundplan/{}/{}/[^/]+qos[01]$", escape(site.as_str()), role);
        let access = format!("{queues}|^amq\\.topic$");
        permissions.push(json!({ "user": user, "vhost": VHOST, "configure": queues, "write": access, "read": access }));
        topics.push(json!({ "user": user, "vhost": VHOST, "exchange": EXCHANGE, "write": write, "read": read }));
    };
    for planner in &wanted.planners {
        grant(planner, "planner/[^/]+".to_owned(), &everything, &everything);
    }
    for observer in &wanted.observers {
        grant(observer, "observer".to_owned(), "^$", &everything);
    }
    for node in &wanted.nodes {
        let one_of = |topics: Vec<String>| format!("^({})$", topics.join("|"));
        // Content by its digest, all chunks of it or one. A placeholder, so that only the table's own levels are escaped.
        let key = |spec| {
            let key = literal(&topic(site, spec, node.as_str(), "CONTENT"));
            key.replacen("CONTENT", "[0-9a-f]{64}", 1).replacen("CONTENT", "(\\*|[0-9]+)", 1)
        };
        let (writes, reads) = (node_writes().map(key).collect(), node_reads().map(key).collect());
        grant(node.as_str(), format!("node/{}", escape(node.as_str())), &one_of(writes), &one_of(reads));
    }
    let definitions = json!({
        "vhosts": [{ "name": VHOST }],
        "users": users,
        "permissions": permissions,
        "topic_permissions": topics,
    });
    format!("{definitions:#}\n")
}

/// An MQTT topic as a pattern of its routing key.
fn literal(topic: &str) -> String {
    let key: String = topic
        .chars()
        .map(|c| match c {
            '/' => '.',
            '.' => '/',
            c => c,
        })
        .collect();
    escape(&key)
}

/// Text as a pattern for itself; names have no other special character.
fn escape(text: &str) -> String {
    text.replace('.', "\\.")
}

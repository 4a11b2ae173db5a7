//! Mosquitto 2.0: the name in the certificate becomes user name and client id, and the access rules are patterns with that name, so that
//! nodes need not be listed.

use groundplan_protocol::MAX_PACKET;

use super::wanted::{ConfigFile, Proof, Wanted, head, node_reads, node_writes, topic};

pub(super) fn files(wanted: &Wanted) -> Vec<ConfigFile> {
    vec![ConfigFile { name: "mosquitto.conf", text: conf(wanted) }, ConfigFile { name: "acl", text: acl(wanted) }]
}

fn conf(wanted: &Wanted) -> String {
    let Wanted { listen, directory, data, ca, cert, key, proof, .. } = wanted;
    let (ip, port, head) = (listen.ip(), listen.port(), head("#", wanted));
    let proof = match proof {
        Proof::Certificates => "\
# The common name in the client's certificate is its user name.
require_certificate true
use_identity_as_username true
"
        .to_owned(),
        Proof::Passwords => format!(
            "\
# One user for each node, by its name, and for each planner: mosquitto_passwd {directory}/passwords NAME
require_certificate false
password_file {directory}/passwords
"
        ),
    };
    format!(
        "\
{head}
per_listener_settings false
allow_anonymous false
acl_file {directory}/acl

persistence true
persistence_location {data}/
autosave_interval 60
# Of clients that do not come back. They find no session then, and groundplan publishes everything again.
persistent_client_expiration 30d

# The largest packet of groundplan; a larger one ends its connection.
max_packet_size {MAX_PACKET}
max_inflight_messages 256
# For each client that is away or slow; 1000 messages unless given. What is beyond, Mosquitto drops although the sender has the acknowledgement:
# reports come again, and the planner asks for the rest, but both take time. A state has about half a kilobyte for each task.
max_queued_messages 200000
max_queued_bytes 536870912
set_tcp_nodelay true

listener {port} {ip}
cafile {ca}
certfile {cert}
keyfile {key}
tls_version tlsv1.2
{proof}# Whatever client id a client asks for, it gets its user name: no client can end the session of another.
use_username_as_clientid true
"
    )
}

fn acl(wanted: &Wanted) -> String {
    let site = &wanted.site;
    let prefix = groundplan_protocol::topic::prefix(site);
    let mut text = head("#", wanted);
    for planner in &wanted.planners {
        text += &format!("\nuser {planner}\ntopic readwrite {prefix}/#\n");
    }
    for observer in &wanted.observers {
        text += &format!("\nuser {observer}\ntopic read {prefix}/#\n");
    }
    text += "\n# Every other user is a node: %u is its name.\n";
    for spec in node_writes() {
        text += &format!("pattern write {}\n", topic(site, spec, "%u", "+"));
    }
    for spec in node_reads() {
        text += &format!("pattern read {}\n", topic(site, spec, "%u", "+"));
    }
    text
}

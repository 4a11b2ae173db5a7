//! EMQX 5: the name in the certificate becomes user name and client id, and the access rules have placeholders for that name, so that nodes
//! need not be listed. These files were never run: Debian has no EMQX.

use groundplan_protocol::MAX_PACKET;

use super::wanted::{ConfigFile, Wanted, head, node_reads, node_writes, topic};

pub(super) fn files(wanted: &Wanted) -> Vec<ConfigFile> {
    vec![ConfigFile { name: "emqx.conf", text: conf(wanted) }, ConfigFile { name: "acl.conf", text: acl(wanted) }]
}

fn conf(wanted: &Wanted) -> String {
    let Wanted { listen, directory, data, ca, cert, key, .. } = wanted;
    let head = head("#", wanted);
    format!(
        r#"{head}
node {{
  name = "emqx@127.0.0.1"
  data_dir = "{data}"
}}

# The only listener.
listeners.tcp.default.enable = false
listeners.ws.default.enable = false
listeners.wss.default.enable = false
listeners.ssl.default {{
  bind = "{listen}"
  ssl_options {{
    cacertfile = "{ca}"
    certfile = "{cert}"
    keyfile = "{key}"
    verify = verify_peer
    fail_if_no_peer_cert = true
    versions = ["tlsv1.3", "tlsv1.2"]
  }}
}}
dashboard.listeners.http.bind = "127.0.0.1:18083"

mqtt {{
  # The common name in the client's certificate is its user name and its client id, whatever it asks for.
  peer_cert_as_username = cn
  peer_cert_as_clientid = cn
  max_packet_size = "{MAX_PACKET}B"
  max_inflight = 256
  max_mqueue_len = 200000
  session_expiry_interval = 30d
  retain_available = true
}}
retainer {{
  enable = true
  max_payload_size = "{MAX_PACKET}B"
}}

authorization {{
  no_match = deny
  deny_action = disconnect
  cache.enable = true
  sources = [
    {{ type = file, enable = true, path = "{directory}/acl.conf" }}
  ]
}}
"#
    )
}

fn acl(wanted: &Wanted) -> String {
    let site = &wanted.site;
    let prefix = groundplan_protocol::topic::prefix(site);
    let list = |topics: Vec<String>| -> String {
        topics.iter().map(|topic| format!("\n    \"{topic}\"")).collect::<Vec<_>>().join(",")
    };
    let mut text = head("%%", wanted);
    for planner in &wanted.planners {
        text += &format!("{{allow, {{username, \"{planner}\"}}, all, [\"{prefix}/#\"]}}.\n");
    }
    for observer in &wanted.observers {
        text += &format!("{{allow, {{username, \"{observer}\"}}, subscribe, [\"{prefix}/#\"]}}.\n");
    }
    text += "%% Every other user is a node.\n";
    let writes = list(node_writes().map(|spec| topic(site, spec, "${username}", "+")).collect());
    let reads = list(node_reads().map(|spec| topic(site, spec, "${username}", "+")).collect());
    text += &format!("{{allow, all, publish, [{writes}]}}.\n{{allow, all, subscribe, [{reads}]}}.\n{{deny, all}}.\n");
    text
}

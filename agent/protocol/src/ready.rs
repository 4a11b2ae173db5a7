//! Readiness probes: when a task counts as done, or an external capability as available.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::Span, kinds::Run};

/// How long to wait for readiness if no `timeout` is given.
pub const DEFAULT_TIMEOUT: Span = Span::secs(60);

/// How long to wait between two attempts if no `interval` is given.
pub const DEFAULT_INTERVAL: Span = Span::millis(200);

/// Ready when every probe given here succeeds, tried again at an interval until the timeout.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// Accepts a TCP connection: a port (of this node, or of the external capability's address) or `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpTarget>,
    /// Answers `GET` with a status below 400: an `http://` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// A command that exits with 0: a shell line or a list of arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Run>,
    /// How long it may take; 60 s if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// How long to wait between two attempts; 200 ms if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
}

impl Ready {
    /// Whether it probes anything at all.
    pub fn is_empty(&self) -> bool {
        self.tcp.is_none() && self.http.is_none() && self.command.is_none()
    }
}

impl Ready {
    /// The ports of this node on which it expects an answer.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let tcp = self.tcp.as_ref().and_then(|target| match target {
            TcpTarget::Port(port) => Some(*port),
            TcpTarget::Address(address) => local_port(address, None),
        });
        let http = self.http.as_deref().and_then(|url| {
            let authority = url.strip_prefix("http://")?.split(['/', '?', '#']).next()?;
            local_port(authority, Some(80))
        });
        tcp.into_iter().chain(http)
    }
}

/// The port of `host:port`, `port` or, with a default, `host`, if the host is this node itself.
fn local_port(address: &str, default: Option<u16>) -> Option<u16> {
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => match (address.parse(), default) {
            (Ok(port), None) => ("", port),
            (_, Some(default)) => (address, default),
            _ => return None,
        },
    };
    let host = host.trim_matches(['[', ']']);
    // By name or by address, the unspecified one included: a connection to that is one to the node itself.
    let local = ["", "localhost", "0.0.0.0", "::", "::1"].contains(&host) || host.starts_with("127.");
    local.then_some(port)
}

/// Where a TCP probe connects to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TcpTarget {
    /// A port of the host itself, 1 to 65535.
    Port(u16),
    /// `host:port`, or a port as text.
    Address(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_this_node() {
        let ports = |json: &str| serde_json::from_str::<Ready>(json).unwrap().ports().collect::<Vec<_>>();
        for (ready, expected) in [
            (r#"{"tcp": 80}"#, vec![80]),
            (r#"{"tcp": "81"}"#, vec![81]),
            (r#"{"tcp": "[::1]:82", "http": "http://localhost/x"}"#, vec![82, 80]),
            (r#"{"http": "http://127.0.0.1:83?q"}"#, vec![83]),
            (r#"{"http": "http://[::1]/"}"#, vec![80]),
            (r#"{"tcp": "db.example:84", "http": "http://web.example/"}"#, vec![]),
        ] {
            assert_eq!(ports(ready), expected, "{ready}");
        }
    }
}

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

/// Where a TCP probe connects to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TcpTarget {
    /// A port of the host itself, 1 to 65535.
    Port(u16),
    /// `host:port`, or a port as text.
    Address(String),
}

//! What a planner needs to know at its start.

use std::{path::PathBuf, str::FromStr, time::Duration};

/// Where a planner keeps its state if nothing else is given.
pub const STATE_DIR: &str = "/var/lib/groundplan";

/// Settings of a planner.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// The site's repository: a path, or a URL as `git fetch` takes it.
    pub repository: String,
    /// The branch to follow; the one that the repository's `HEAD` names if not given.
    pub branch: Option<String>,
    /// The broker.
    pub broker: BrokerAddress,
    /// Mutual TLS with the broker; needed for, and only for, `mqtts://`.
    pub tls: Option<BrokerTls>,
    /// Where `planner.redb`, `planner.key`, `planner.sock`, `trusted/` and `mirror.git` lie; made if missing.
    pub state_dir: PathBuf,
    /// The key that signs plans; `planner.key` in `state_dir`, made at the first start, if not given.
    pub key: Option<PathBuf>,
    /// How often to look at a local repository, whatever the file system's events say.
    pub poll: Duration,
    /// How often to fetch from a remote repository.
    pub fetch: Duration,
}

impl ServeConfig {
    /// Defaults for a repository, a broker and a state directory.
    pub fn new(repository: impl Into<String>, broker: BrokerAddress, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            repository: repository.into(),
            branch: None,
            broker,
            tls: None,
            state_dir: state_dir.into(),
            key: None,
            poll: Duration::from_secs(2),
            fetch: Duration::from_secs(10),
        }
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join("planner.sock")
    }
}

/// A broker's address: `mqtt://host[:1883]` or `mqtts://host[:8883]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Host name or address; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// Text that is no broker's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a broker's address: `mqtt://host[:port]` or `mqtts://host[:port]`")]
pub struct InvalidBroker(String);

impl FromStr for BrokerAddress {
    type Err = InvalidBroker;

    fn from_str(s: &str) -> Result<Self, InvalidBroker> {
        let invalid = || InvalidBroker(s.to_owned());
        let (scheme, rest) = s.split_once("://").ok_or_else(invalid)?;
        let (tls, default) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return Err(invalid()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => v6.split_once(']').ok_or_else(invalid)?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| invalid())?,
            None if port.is_empty() => default,
            None => return Err(invalid()),
        };
        if host.is_empty() || host.contains(['/', '@']) {
            return Err(invalid());
        }
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

impl std::fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// Files for mutual TLS, in PEM.
#[derive(Debug, Clone)]
pub struct BrokerTls {
    /// Certificates of the authorities that the broker's certificate must come from.
    pub ca: PathBuf,
    /// The planner's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_print() {
        for (text, back) in [
            ("mqtt://localhost", "mqtt://localhost:1883"),
            ("mqtts://b.example.org", "mqtts://b.example.org:8883"),
            ("mqtt://10.0.0.1:1884/", "mqtt://10.0.0.1:1884"),
            ("mqtt://[::1]:99", "mqtt://[::1]:99"),
        ] {
            assert_eq!(text.parse::<BrokerAddress>().unwrap().to_string(), back);
        }
        for bad in ["", "localhost", "http://x", "mqtt://", "mqtt://x:y", "mqtt://[::1", "mqtt://u@h", "mqtt://[::1]x"]
        {
            assert!(bad.parse::<BrokerAddress>().is_err(), "{bad}");
        }
    }
}

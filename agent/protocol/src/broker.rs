//! The address of a broker, as operators write it: `mqtt://HOST[:PORT]` or, for TLS, `mqtts://HOST[:PORT]`; and the password of a user of it.
//!
//! In: text from a command line or a configuration file. Out: host, port and whether TLS is used, and the text again.
//! An IPv6 address stands in brackets in the text and without them in [`BrokerAddress::host`]: the same host serves for
//! name resolution and as the TLS server name. Never resolves a name.

use std::{
    fmt,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Host name or IP address; an IPv6 address without brackets, possibly with a zone (`fe80::1%eth0`).
    pub host: String,
    /// The TCP port; see [`BrokerAddress::default_port`] where the text has none.
    pub port: u16,
    /// Whether the connection is encrypted (`mqtts://`).
    pub tls: bool,
}

/// Text that is not the address of a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a broker address: give `mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` for TLS, with an IPv6 address in brackets"
)]
pub struct InvalidBrokerAddress(String);

impl BrokerAddress {
    /// The port where the text has none: 1883, or 8883 with TLS, as registered with IANA.
    pub const fn default_port(tls: bool) -> u16 {
        if tls { 8883 } else { 1883 }
    }
}

impl FromStr for BrokerAddress {
    type Err = InvalidBrokerAddress;

    fn from_str(text: &str) -> Result<Self, InvalidBrokerAddress> {
        parse(text).ok_or_else(|| InvalidBrokerAddress(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<BrokerAddress> {
    let (tls, rest) = match text.split_once("://")? {
        ("mqtt", rest) => (false, rest),
        ("mqtts", rest) => (true, rest),
        _ => return None,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']')?;
            let address = host.split_once('%').map_or(host, |(address, _zone)| address);
            address.parse::<Ipv6Addr>().ok()?;
            (host, port)
        }
        // An IPv6 address without brackets ends here at its first colon, and what follows is not a port.
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None if port.is_empty() => BrokerAddress::default_port(tls),
        None => return None,
    };
    let is_foreign = |c: char| matches!(c, '/' | '@' | '[' | ']') || c.is_whitespace() || c.is_control();
    (!host.is_empty() && !host.contains(is_foreign)).then(|| BrokerAddress { host: host.to_owned(), port, tls })
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// A password of a broker's user, or where it is. Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In this file, without the end of its line.
    File(PathBuf),
    /// From the environment.
    Text(String),
}

impl Secret {
    /// The password. `read` gives the text of a file.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn text<E>(&self, read: impl FnOnce(&Path) -> Result<String, E>) -> Result<String, E> {
        match self {
            Self::File(path) => Ok(read(path)?.trim_end_matches(['\r', '\n']).to_owned()),
            Self::Text(text) => Ok(text.clone()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Text(_) => f.write_str("Text(…)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_and_print() {
        for (text, host, port, tls, printed) in [
            ("mqtt://localhost", "localhost", 1883, false, "mqtt://localhost:1883"),
            ("mqtts://b.example.org", "b.example.org", 8883, true, "mqtts://b.example.org:8883"),
            ("mqtts://b.example.org:1", "b.example.org", 1, true, "mqtts://b.example.org:1"),
            ("mqtt://10.0.0.1:1884/", "10.0.0.1", 1884, false, "mqtt://10.0.0.1:1884"),
            ("mqtt://[::1]:99", "::1", 99, false, "mqtt://[::1]:99"),
            ("mqtts://[2001:db8::1]", "2001:db8::1", 8883, true, "mqtts://[2001:db8::1]:8883"),
            ("mqtt://[fe80::1%eth0]:5", "fe80::1%eth0", 5, false, "mqtt://[fe80::1%eth0]:5"),
        ] {
            let address: BrokerAddress = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port, address.tls), (host, port, tls), "{text}");
            assert_eq!(address.to_string(), printed);
            assert_eq!(printed.parse(), Ok(address));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "localhost",
            "b:1883",
            "http://x",
            "MQTT://x",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://x:y",
            "mqtt://x:65536",
            "mqtt://x:1/path",
            "mqtt://a b",
            "mqtt://u@h",
            "mqtt://u:p@b:1",
            "mqtt://::1",
            "mqtt://[::1",
            "mqtt://[::1]x",
            "mqtt://[localhost]",
            "mqtt://[]",
            "mqtt://::1]",
        ] {
            assert!(bad.parse::<BrokerAddress>().is_err(), "{bad}");
        }
    }
}

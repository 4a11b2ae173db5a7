//! `wait`: waits for a time, or until something answers, or no longer does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{kind::Kind, problem::Problem, run::Run};
use crate::{duration::Span, effect::Effect, ready::TcpTarget};

/// Waits for a number of seconds, or until all probes given here succeed (or fail, with `state = "down"`). It does so when it
/// is new or changed and when a trigger fires. Removal does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// A number of seconds to wait, without any probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Waits for a TCP connection: a port of this node, or `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpTarget>,
    /// Waits for an answer to `GET`: an `http://` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Which status codes of `http` are good; all below 400 if not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
    /// Waits for a command that exits with 0: a shell line or a list of arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Run>,
    /// Whether the probes are to succeed or to fail; `up` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<WaitState>,
    /// How long it may take; `60s` if neither this nor `retries` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// How long to wait between two attempts; `200ms` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// How many more attempts may follow the first; any number within `timeout` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

/// Whether to wait for success or for failure of the probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitState {
    /// All probes succeed.
    #[default]
    Up,
    /// All probes fail: nothing listens, nothing answers, the command exits with another code than 0.
    Down,
}

impl Wait {
    /// Whether it has any probe; otherwise it waits for a time.
    pub fn probes(&self) -> bool {
        self.tcp.is_some() || self.http.is_some() || self.command.is_some()
    }

    fn shape_problem(&self) -> Option<Problem> {
        let limits = self.timeout.is_some() || self.interval.is_some() || self.retries.is_some();
        match (self.seconds, self.probes()) {
            (None, false) => Some(Problem::new(
                "",
                "has nothing to wait for",
                "give `seconds`, or at least one of `tcp`, `http` and `command`",
            )),
            (Some(_), true) => Some(Problem::new(
                "seconds",
                "is given together with a probe",
                "give only one of the two; `timeout` and `interval` set how often a probe is tried",
            )),
            (Some(_), false) if limits || self.state.is_some() => {
                Some(Problem::new("seconds", "needs no `timeout`, `interval`, `retries` or `state`", "drop them"))
            }
            _ => None,
        }
    }
}

impl Kind for Wait {
    const NAME: &'static str = "wait";
    const SUMMARY: &'static str = "waits for a time, or until something answers";
    const EFFECTS: &'static [Effect] = &[Effect::Run];
    const LEAVES: bool = false;

    fn problems(&self) -> Vec<Problem> {
        let tcp = match &self.tcp {
            Some(TcpTarget::Port(0)) => Some("0".to_owned()),
            Some(TcpTarget::Address(address)) => {
                let (host, port) = address.rsplit_once(':').unwrap_or(("localhost", address));
                let good = !host.is_empty() && port.parse().is_ok_and(|port: u16| port != 0);
                (!good).then(|| address.clone())
            }
            _ => None,
        };
        let tcp = tcp.map(|given| {
            Problem::new("tcp", format!("`{given}` is neither a port nor `host:port`"), "such as 3306 or \"db:3306\"")
        });
        let http = self.http.as_ref().filter(|url| !url.starts_with("http://")).map(|url| {
            let hint =
                "write it in full, such as \"http://127.0.0.1:5000/v3/\"; https is not supported: use `command` with curl";
            Problem::new("http", format!("`{url}` is not an http:// URL"), hint)
        });
        let unused = (!self.status.is_empty() && self.http.is_none())
            .then(|| Problem::new("status", "is given without `http`", "give `http` as well, or drop `status`"));
        let odd = self.status.iter().find(|code| !(100..600).contains(*code)).map(|code| {
            Problem::new("status", format!("{code} is not an HTTP status"), "give numbers from 100 to 599")
        });
        let command = self.command.as_ref().and_then(|run| run.problem("command"));
        self.shape_problem().into_iter().chain(tcp).chain(http).chain(unused).chain(odd).chain(command).collect()
    }

    fn drop_incidental(&mut self) {
        (self.timeout, self.interval, self.retries) = (None, None, None);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(params: Value) -> Vec<String> {
        let wait: Wait = serde_json::from_value(params).unwrap();
        wait.problems().into_iter().map(|p| format!("{}: {}", p.param, p.message)).collect()
    }

    #[test]
    fn what_can_be_waited_for() {
        for good in [
            json!({ "seconds": 3 }),
            json!({ "tcp": 3306, "timeout": "5m", "interval": "1s" }),
            json!({ "tcp": "db-0:3306", "http": "http://db-0/", "status": [200, 401], "retries": 3 }),
            json!({ "command": ["test", "-e", "/x"], "state": "down" }),
        ] {
            assert_eq!(problems(good.clone()), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn contradictions_are_reported() {
        for (bad, word) in [
            (json!({}), ": has nothing to wait for"),
            (json!({ "seconds": 3, "tcp": 1 }), "seconds: is given together with a probe"),
            (json!({ "seconds": 3, "retries": 1 }), "seconds: needs no `timeout`, `interval`, `retries` or `state`"),
            (json!({ "tcp": 0 }), "tcp: `0` is neither a port nor `host:port`"),
            (json!({ "tcp": "db" }), "tcp: `db` is neither a port nor `host:port`"),
            (json!({ "http": "https://x/" }), "http: `https://x/` is not an http:// URL"),
            (json!({ "tcp": 1, "status": [200] }), "status: is given without `http`"),
            (json!({ "http": "http://x/", "status": [20] }), "status: 20 is not an HTTP status"),
            (json!({ "command": " " }), "command: is empty"),
        ] {
            assert_eq!(problems(bad.clone()), [word], "{bad}");
        }
    }
}

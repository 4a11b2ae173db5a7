//! The host probe: the state of a host before bootstrap.
//!
//! In: the lines that `sh/probe.sh` printed. Out: their values, or `None` if the answer is incomplete. Decides nothing.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use groundplan_protocol::envelope::PublicKey;

/// The current state of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Probe {
    /// The output of `uname -m`.
    pub(super) machine: String,
    /// The uid of the scripts.
    pub(super) uid: u32,
    /// Whether systemd is running.
    pub(super) systemd: bool,
    /// The directory of packaged units.
    pub(super) unit_dir: String,
    /// The existing files among those that bootstrap manages, by path: mode in octal, SHA-256 in hexadecimal.
    pub(super) files: BTreeMap<String, (String, String)>,
    /// By directory: the device that it is on or will be created on, and the KiB that are free there.
    pub(super) space: BTreeMap<String, (String, u64)>,
    /// The text of the agent's configuration file.
    pub(super) config: Option<String>,
    /// Whether an earlier run has replaced files and not finished.
    pub(super) pending: bool,
    /// `ActiveState` of the unit.
    pub(super) active: String,
    /// `UnitFileState` of the unit.
    pub(super) enabled: String,
    /// SHA-256 of the running program, which may differ from that of the file.
    pub(super) running: Option<String>,
    /// The version of the program file.
    pub(super) version: Option<String>,
    /// The agent's public key.
    pub(super) key: Option<PublicKey>,
    /// Whether a key file exists, readable or not.
    pub(super) key_file: bool,
}

/// Parses an answer; `None` if its last line is missing or a value is malformed. Unknown lines are ignored.
pub(super) fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Probe> {
    let mut probe = Probe::default();
    let mut complete = false;
    for line in lines {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let fields: Vec<&str> = rest.split(' ').collect();
        match (name, fields.as_slice()) {
            ("machine", _) => probe.machine = rest.to_owned(),
            ("uid", _) => probe.uid = rest.parse().ok()?,
            ("systemd", _) => probe.systemd = true,
            ("unit_dir", _) => probe.unit_dir = rest.to_owned(),
            ("file", [path, mode, digest]) => {
                probe.files.insert((*path).to_owned(), ((*mode).to_owned(), (*digest).to_owned()));
            }
            ("space", [dir, device, free]) => {
                // `df` prints `-` for some file systems: not refused here; if space runs out, writing fails.
                let free = free.parse().unwrap_or(u64::MAX);
                probe.space.insert((*dir).to_owned(), ((*device).to_owned(), free));
            }
            ("config", _) => {
                let bytes = BASE64_STANDARD.decode(rest).ok()?;
                probe.config = Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            ("pending", _) => probe.pending = true,
            ("active", _) => probe.active = rest.to_owned(),
            ("enabled", _) => probe.enabled = rest.to_owned(),
            ("running", _) => probe.running = Some(rest.to_owned()).filter(|digest| !digest.is_empty()),
            ("version", _) => probe.version = version(rest),
            ("key", _) => probe.key = rest.parse().ok(),
            ("key_file", _) => probe.key_file = true,
            ("end", _) => complete = true,
            _ => {}
        }
    }
    (complete && !probe.machine.is_empty()).then_some(probe)
}

/// The version in a line like `groundplan-agent 0.1.0`.
pub(super) fn version(line: &str) -> Option<String> {
    line.strip_prefix("groundplan-agent ").map(|version| version.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_answer_is_refused() {
        let lines = [
            "machine x86_64",
            "uid 0",
            "systemd yes",
            "unit_dir /lib/systemd/system",
            "file /usr/bin/groundplan-agent 755 abc",
            "space /usr/bin 66 1024",
            "space /etc/groundplan 66 -",
            "active inactive",
            "enabled ",
            "config c2l0ZSA9ICJhIgo=",
            "version groundplan-agent 0.1.0",
            "key_file yes",
            "surprise of a later release",
            "end",
        ];
        let probe = read(lines).unwrap();
        assert_eq!((probe.uid, probe.systemd, probe.version.as_deref()), (0, true, Some("0.1.0")));
        assert_eq!(probe.files["/usr/bin/groundplan-agent"], ("755".to_owned(), "abc".to_owned()));
        assert_eq!(probe.space["/usr/bin"], ("66".to_owned(), 1024));
        assert_eq!(probe.space["/etc/groundplan"].1, u64::MAX);
        assert_eq!(probe.config.as_deref(), Some("site = \"a\"\n"));
        assert!(probe.key_file && probe.key.is_none());
        for length in 0..lines.len() {
            assert_eq!(read(lines[..length].iter().copied()), None);
        }
    }
}

//! What a host says when it is looked at.
//!
//! In: the lines of `sh/look.sh`. Out: what is there, or that the answer is not whole. Nothing here judges.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use groundplan_protocol::envelope::PublicKey;

/// A host as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// In the words of `uname -m`.
    pub(super) machine: String,
    /// Who we are there.
    pub(super) uid: u32,
    /// Whether systemd runs it.
    pub(super) systemd: bool,
    /// Where units of packages lie.
    pub(super) unit_dir: String,
    /// Our files that are there: mode in octal, SHA-256 in hexadecimal.
    pub(super) files: BTreeMap<String, (String, String)>,
    /// By folder: which device it is or will be on, and how much is free there, in KiB.
    pub(super) space: BTreeMap<String, (String, u64)>,
    /// The agent's configuration.
    pub(super) config: Option<String>,
    /// Whether an earlier run was broken off.
    pub(super) pending: bool,
    /// The unit's state, in systemd's words.
    pub(super) active: String,
    /// Whether it starts with the host, in systemd's words.
    pub(super) enabled: String,
    /// The digest of the running program.
    pub(super) running: Option<String>,
    /// The version of the program that is there.
    pub(super) version: Option<String>,
    /// The agent's public key.
    pub(super) key: Option<PublicKey>,
    /// Whether it has one.
    pub(super) key_file: bool,
}

/// Reads an answer; `None` if it is not whole.
pub(super) fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> Option<Seen> {
    let mut seen = Seen::default();
    let mut whole = false;
    for line in lines {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let fields: Vec<&str> = rest.split(' ').collect();
        match (word, fields.as_slice()) {
            ("machine", _) => seen.machine = rest.to_owned(),
            ("uid", _) => seen.uid = rest.parse().ok()?,
            ("systemd", _) => seen.systemd = true,
            ("unit_dir", _) => seen.unit_dir = rest.to_owned(),
            ("file", [path, mode, digest]) => {
                seen.files.insert((*path).to_owned(), ((*mode).to_owned(), (*digest).to_owned()));
            }
            ("space", [dir, device, free]) => {
                // Where `df` does not know, the disk will say.
                let free = free.parse().unwrap_or(u64::MAX);
                seen.space.insert((*dir).to_owned(), ((*device).to_owned(), free));
            }
            ("config", _) => {
                let bytes = BASE64_STANDARD.decode(rest).ok()?;
                seen.config = Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            ("pending", _) => seen.pending = true,
            ("active", _) => seen.active = rest.to_owned(),
            ("enabled", _) => seen.enabled = rest.to_owned(),
            ("running", _) => seen.running = Some(rest.to_owned()).filter(|digest| !digest.is_empty()),
            ("version", _) => seen.version = version(rest),
            ("key", _) => seen.key = rest.parse().ok(),
            ("key_file", _) => seen.key_file = true,
            ("end", _) => whole = true,
            _ => {}
        }
    }
    (whole && !seen.machine.is_empty()).then_some(seen)
}

/// The number in `groundplan-agent 0.1.0`.
pub(super) fn version(words: &str) -> Option<String> {
    words.strip_prefix("groundplan-agent ").map(|version| version.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_nothing() {
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
        let seen = read(lines).unwrap();
        assert_eq!((seen.uid, seen.systemd, seen.version.as_deref()), (0, true, Some("0.1.0")));
        assert_eq!(seen.files["/usr/bin/groundplan-agent"], ("755".to_owned(), "abc".to_owned()));
        assert_eq!(seen.space["/usr/bin"], ("66".to_owned(), 1024));
        assert_eq!(seen.space["/etc/groundplan"].1, u64::MAX);
        assert_eq!(seen.config.as_deref(), Some("site = \"a\"\n"));
        assert!(seen.key_file && seen.key.is_none());
        for length in 0..lines.len() {
            assert_eq!(read(lines[..length].iter().copied()), None);
        }
    }
}

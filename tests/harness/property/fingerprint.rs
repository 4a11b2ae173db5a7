//! What is on a host, as text by key, so that two hosts can be compared, or one with itself at an earlier time.
//!
//! In: a host's root as this machine sees it, and what programs on the host print. Out: one line for each path (type, mode, owner,
//! extended attributes, digest or target), account, unit, mount point, kernel parameter and program. What differs from host to host
//! without a reason that concerns us is left out here, each by name and with its reason, and nowhere else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use groundplan_protocol::digest::Digest;

use super::choice::{lines_file, options_file};
use crate::xattrs;

/// Directories of which everything counts.
const ROOTS: [&str; 9] =
    ["/etc", "/usr/local", "/srv", "/opt", "/home", "/root", "/var/lib", "/var/mail", "/var/spool"];

/// Paths that do not count, with all below them.
const LEFT_OUT: [&str; 19] = [
    // The agent's own: its ledger, and what it found.
    "/var/lib/groundplan",
    // Compared by entry; the others are copies that the tools for accounts make before they write.
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/subuid",
    "/etc/subgid",
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/subuid-",
    "/etc/subgid-",
    "/etc/.pwd.lock",
    // Written by systemd on its own: its random seed, when timers ran.
    "/var/lib/systemd",
    // Compared by package and by image.
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/var/lib/containers",
    // Written by the loader's tool, which packages run.
    "/etc/ld.so.cache",
];

/// What is a host's own, and differs from one to the other from the beginning.
pub(crate) const IDENTITY: [&str; 7] = [
    "hostname",
    "path /etc/hostname",
    "path /etc/hosts",
    "path /etc/machine-id",
    "path /etc/groundplan/agent.toml",
    "path /etc/groundplan/node.key",
    "path /etc/systemd/network/10-host0.network",
];

/// Users that sites declare; their memberships count as theirs, not as their groups'.
const USERS: &str = "gu";
/// The user and the group whose ids the host chooses: which ones depends on what was there at that moment.
const CHOSEN: [&str; 2] = ["gu2", "gg2"];

/// A host at a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fingerprint {
    /// What is there, by key.
    pub(crate) all: BTreeMap<String, String>,
    /// When each file and link was last written, by the key of its path.
    pub(crate) written: BTreeMap<String, i128>,
}

/// Files in which several tasks have a part each: a line belongs to the part that the function names.
fn part_of(path: &str) -> Option<fn(&str, &str) -> Option<String>> {
    if (0..3).any(|n| lines_file(n) == path) {
        return Some(|_, line| {
            let place = |text: &str| text.chars().next().filter(char::is_ascii_digit).map(|c| c.to_string());
            let begins = ["#key", "key", "plain", "block", "# BEGIN block", "# END block"];
            begins.iter().find_map(|begin| place(line.strip_prefix(begin)?))
        });
    }
    if (0..3).any(|n| options_file(n) == path) {
        return Some(|section, line| {
            let place = line.trim_start().strip_prefix('o')?.chars().next().filter(char::is_ascii_digit)?;
            section.starts_with('s').then(|| place.to_string())
        });
    }
    (path == "/etc/fstab").then_some(|_, line| {
        let at = line.split_whitespace().nth(1)?.strip_prefix("/srv/prop/m")?;
        Some(at.to_owned())
    })
}

impl Fingerprint {
    /// Reads a host. `root`: its root as this machine sees it. `printed`: what [`super::PRINTS`] printed on it.
    pub(crate) fn read(root: &Path, printed: &str) -> io::Result<Self> {
        let mut this = Self::default();
        let (users, groups) = (names(root, "etc/passwd")?, names(root, "etc/group")?);
        for folder in ROOTS {
            this.path(root, folder, &users, &groups)?;
        }
        this.accounts(root, &groups)?;
        for line in fs::read_to_string(root.join("proc/1/mountinfo"))?.lines() {
            this.mount(line);
        }
        for line in printed.lines() {
            let (key, value) = line.split_once('\t').unwrap_or((line, ""));
            let at = this.all.entry(key.to_owned()).or_default();
            *at += if at.is_empty() { "" } else { "; " };
            *at += value;
        }
        Ok(this)
    }

    fn path(
        &mut self,
        root: &Path,
        path: &str,
        users: &BTreeMap<u32, String>,
        groups: &BTreeMap<u32, String>,
    ) -> io::Result<()> {
        if LEFT_OUT.contains(&path) {
            return Ok(());
        }
        let real = root.join(path.trim_start_matches('/'));
        let found = match fs::symlink_metadata(&real) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        let name = |id: u32, names: &BTreeMap<u32, String>| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let (kind, mode) = (found.file_type(), found.permissions().mode() & 0o7777);
        let owner = format!("{}:{}", name(found.uid(), users), name(found.gid(), groups));
        let mut text = if kind.is_symlink() {
            format!("link {owner} -> {}", fs::read_link(&real)?.display())
        } else if kind.is_dir() {
            format!("directory {mode:o} {owner}")
        } else if kind.is_file() {
            let bytes = fs::read(&real)?;
            match part_of(path) {
                Some(part) => {
                    self.parts(path, &String::from_utf8_lossy(&bytes), part);
                    self.all.insert(format!("bytes {path}"), shown(&bytes));
                    format!("file {mode:o} {owner}")
                }
                None => format!("file {mode:o} {owner} {}", shown(&bytes)),
            }
        } else {
            format!("special {mode:o} {owner}")
        };
        if !kind.is_symlink() {
            for (name, value) in xattrs::read(&real)? {
                let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                text += &format!(" {name}={hex}");
            }
        }
        let key = format!("path {path}");
        if !kind.is_dir() {
            self.written
                .insert(key.clone(), i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec()));
        }
        self.all.insert(key, text);
        if kind.is_dir() {
            for entry in fs::read_dir(&real)? {
                let below = entry?.file_name().to_string_lossy().into_owned();
                self.path(root, &format!("{path}/{below}"), users, groups)?;
            }
        }
        Ok(())
    }

    /// The lines of a file by the part that they belong to, and the rest in its order. Blank lines and headers of sections that only
    /// hold parts are not compared where parts are: which of them there are depends on the order in which parts came.
    fn parts(&mut self, path: &str, text: &str, part: fn(&str, &str) -> Option<String>) {
        let (mut section, mut parts) = (String::new(), BTreeMap::<String, String>::new());
        let mut rest = String::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.to_owned();
                if section.starts_with('s') && section.len() == 2 {
                    continue;
                }
            }
            let to = part(&section, line).map_or(&mut rest, |part| parts.entry(part).or_default());
            // An option that comes back does so in groundplan's own style.
            let line = if path.ends_with(".ini") { line.replace(" = ", "=") } else { line.to_owned() };
            if !line.trim().is_empty() {
                *to += &format!("{}\\n", line.trim());
            }
        }
        self.all.extend(parts.into_iter().map(|(part, lines)| (format!("part {path} {part}"), lines)));
        self.all.insert(format!("rest {path}"), rest);
    }

    fn accounts(&mut self, root: &Path, groups: &BTreeMap<u32, String>) -> io::Result<()> {
        let group =
            |id: &str| id.parse().ok().and_then(|id: u32| groups.get(&id).cloned()).unwrap_or_else(|| id.to_owned());
        let mut memberships: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in ["group", "gshadow"] {
            for fields in entries(root, file)? {
                let [name, second, third, members] = &fields[..] else { continue };
                let members: BTreeSet<&str> = members.split(',').filter(|member| !member.is_empty()).collect();
                let (ours, others): (BTreeSet<&str>, BTreeSet<&str>) =
                    members.iter().partition(|m| m.starts_with(USERS));
                for user in ours {
                    memberships.entry(user.to_owned()).or_default().insert(format!("{file} {name}"));
                }
                // A user's own group gets the user's first id if that is free, and keeps it.
                let third = match file {
                    "group" if name.starts_with(USERS) => "any".to_owned(),
                    "group" => id(name, third).to_owned(),
                    _ => third.clone(),
                };
                self.add(format!("group {name}"), &format!("{file}: {second}:{third}:{others:?}"));
            }
        }
        for fields in entries(root, "passwd")? {
            let [name, x, uid, gid, comment, home, shell] = &fields[..] else { continue };
            let groups = memberships.remove(name).unwrap_or_default();
            let text = format!("{x}:{}:{}:{comment}:{home}:{shell} in {groups:?}", id(name, uid), group(gid));
            self.add(format!("user {name}"), &text);
        }
        for fields in entries(root, "shadow")? {
            // The third is the day of the last change.
            let [name, hash, _, rest @ ..] = &fields[..] else { continue };
            self.add(format!("user {name}"), &format!("{hash}:{rest:?}"));
        }
        for file in ["subuid", "subgid"] {
            for fields in entries(root, file)? {
                self.add(format!("{file} {}", fields[0]), "has some");
            }
        }
        Ok(())
    }

    fn mount(&mut self, line: &str) {
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(dash) = fields.iter().position(|field| *field == "-") else { return };
        let at = fields[4];
        if ROOTS.iter().any(|root| Path::new(at).starts_with(root)) {
            let (own, of_all) = (fields[5], fields.get(dash + 3).copied().unwrap_or_default());
            self.add(format!("mount {at}"), &format!("{} {} {own} {of_all}", fields[dash + 1], fields[dash + 2]));
        }
    }

    fn add(&mut self, key: String, text: &str) {
        let at = self.all.entry(key).or_default();
        *at += if at.is_empty() { "" } else { " | " };
        *at += text;
    }
}

/// The entries of a table of accounts, each as its fields.
fn entries(root: &Path, file: &str) -> io::Result<Vec<Vec<String>>> {
    let text = fs::read_to_string(root.join("etc").join(file))?;
    Ok(text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect())
}

/// Names by id.
fn names(root: &Path, file: &str) -> io::Result<BTreeMap<u32, String>> {
    let text = fs::read_to_string(root.join(file))?;
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    // The first entry of an id is the one that counts.
    Ok(text.lines().rev().filter_map(entry).collect())
}

/// A file's content: as text if that is short, else its digest.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() < 300 => format!("{text:?}"),
        _ => format!("{} bytes {}", bytes.len(), Digest::of(bytes).short()),
    }
}

/// The id of an account, unless the host has chosen it.
fn id<'a>(name: &str, id: &'a str) -> &'a str {
    if CHOSEN.contains(&name) { "chosen" } else { id }
}

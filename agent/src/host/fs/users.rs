//! Users and groups by name or number.
//!
//! Read from /etc/passwd and /etc/group, then from `getent`: the agent is a static binary, and the C library's own lookup would
//! load plugins into it. Always those of the host, also with another root: ids are those of the running kernel.

use std::{fs, io, process::Command};

use nix::unistd::{Gid, Uid};

/// Why a user or group cannot be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error("there is no user `{0}` on this host")]
    NoUser(String),
    #[error("there is no group `{0}` on this host")]
    NoGroup(String),
    #[error("cannot read /etc/{0}")]
    Read(&'static str, #[source] io::Error),
}

/// The user that a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) home: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// All groups, `gid` among them.
    pub(crate) groups: Vec<Gid>,
}

/// The id of the user `name`, which may be a number.
pub(crate) fn uid(name: &str) -> Result<Uid, UserError> {
    match name.parse() {
        Ok(number) => Ok(Uid::from_raw(number)),
        Err(_) => Ok(identity(name)?.uid),
    }
}

/// The id of the group `name`, which may be a number.
pub(crate) fn gid(name: &str) -> Result<Gid, UserError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let groups = read("group")?;
    let line = entry(&groups, 0, name).map(str::to_owned).or_else(|| getent("group", name));
    let gid = line.as_deref().and_then(|line| field(line, 2)?.parse().ok());
    gid.map(Gid::from_raw).ok_or_else(|| UserError::NoGroup(name.to_owned()))
}

/// The identity of the user `name`, which may be a number.
pub(crate) fn identity(name: &str) -> Result<Identity, UserError> {
    let column = if name.parse::<u32>().is_ok() { 2 } else { 0 };
    let users = read("passwd")?;
    // The files first, without a program: most users are in them, and the static agent cannot load the modules of
    // nsswitch.conf(5).
    let local = entry(&users, column, name).map(str::to_owned);
    let is_local = local.is_some();
    let identity = local.or_else(|| getent("passwd", name)).and_then(|line| {
        let [uid, gid] = [2, 3].map(|i| field(&line, i).and_then(|id| id.parse::<u32>().ok()));
        let (name, home) = (field(&line, 0)?.to_owned(), field(&line, 5)?.to_owned());
        Some(Identity { name, home, uid: Uid::from_raw(uid?), gid: Gid::from_raw(gid?), groups: Vec::new() })
    });
    let mut identity = identity.ok_or_else(|| UserError::NoUser(name.to_owned()))?;
    identity.groups =
        if is_local { memberships(&read("group")?, &identity.name) } else { supplementary_groups(&identity.name) };
    if !identity.groups.contains(&identity.gid) {
        identity.groups.insert(0, identity.gid);
    }
    Ok(identity)
}

/// The name of a user; the number, if no user has it.
pub(crate) fn user_name(uid: Uid) -> String {
    name_of("passwd", uid.as_raw())
}

/// The name of a group; the number, if no group has it.
pub(crate) fn group_name(gid: Gid) -> String {
    name_of("group", gid.as_raw())
}

fn name_of(table: &'static str, number: u32) -> String {
    let number = number.to_string();
    let entries = read(table).unwrap_or_default();
    let line = entry(&entries, 2, &number).map(str::to_owned).or_else(|| getent(table, &number));
    line.and_then(|line| field(&line, 0).map(str::to_owned)).unwrap_or(number)
}

fn read(what: &'static str) -> Result<String, UserError> {
    match fs::read(format!("/etc/{what}")) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(UserError::Read(what, e)),
    }
}

fn field(line: &str, n: usize) -> Option<&str> {
    line.split(':').nth(n)
}

fn entry<'a>(table: &'a str, column: usize, key: &str) -> Option<&'a str> {
    table.lines().find(|line| field(line, column) == Some(key))
}

fn memberships(groups: &str, user: &str) -> Vec<Gid> {
    let of = groups.lines().filter(|line| field(line, 3).is_some_and(|members| members.split(',').any(|m| m == user)));
    of.filter_map(|line| field(line, 2)?.parse().ok()).map(Gid::from_raw).collect()
}

/// An entry from another source than the files (LDAP, SSSD, systemd).
fn getent(table: &str, key: &str) -> Option<String> {
    output_of(Command::new("getent").args([table, "--", key]))?.lines().next().map(str::to_owned)
}

fn supplementary_groups(user: &str) -> Vec<Gid> {
    let ids = output_of(Command::new("id").args(["-G", "--", user])).unwrap_or_default();
    ids.split_whitespace().filter_map(|id| id.parse().ok()).map(Gid::from_raw).collect()
}

fn output_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(uid("root").unwrap(), Uid::from_raw(0));
        assert_eq!(uid("4711").unwrap(), Uid::from_raw(4711));
        assert_eq!(gid("root").unwrap(), Gid::from_raw(0));
        assert_eq!((user_name(Uid::from_raw(0)), group_name(Gid::from_raw(0))), ("root".to_owned(), "root".to_owned()));
        assert_eq!(user_name(Uid::from_raw(4_000_000_001)), "4000000001");
        let root = identity("root").unwrap();
        assert_eq!((root.home.as_str(), root.groups.contains(&Gid::from_raw(0))), ("/root", true));
        assert_eq!(uid("no-such").unwrap_err().to_string(), "there is no user `no-such` on this host");
        assert_eq!(gid("no-such").unwrap_err().to_string(), "there is no group `no-such` on this host");
        assert!(identity("99999").is_err());
    }

    #[test]
    fn memberships_in_a_table() {
        let groups = "a:x:10:me,you\nb:x:11:\nc:x:12:you\nd:x:13:notme,me\n";
        assert_eq!(memberships(groups, "me"), [10, 13].map(Gid::from_raw));
    }
}

//! A user in the tables of the host (passwd(5), shadow(5), group(5)).
//!
//! In: a name. Out: the account as it is now; never changed here.

use std::fs;

use serde::{Deserialize, Serialize};

use super::{super::group::entry, error::UserKindError};
use crate::host::kinds::context::Context;

/// A user as the host's tables have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) comment: String,
    pub(super) home: String,
    pub(super) shell: String,
    /// Supplementary groups, by name, sorted.
    pub(super) groups: Vec<String>,
    /// The password field (shadow(5)).
    pub(super) password: String,
}

/// The account of that name, if there is one.
pub(super) async fn find(cx: &Context<'_>, name: &str) -> Result<Option<Found>, UserKindError> {
    let Some(fields) = entry(cx, "passwd", name).await? else { return Ok(None) };
    let field = |n: usize| fields.get(n).cloned().unwrap_or_default();
    let number = |n: usize| field(n).parse().unwrap_or_default();
    let shadow = |source| UserKindError::Shadow { user: name.to_owned(), source };
    let table = fs::read("/etc/shadow").map_err(shadow)?;
    // It is in passwd(5) itself where that does not refer to shadow(5).
    let password = match field(1) {
        password if password != "x" => password,
        _ => of_line(&String::from_utf8_lossy(&table), name, 1),
    };
    let groups = fs::read("/etc/group").unwrap_or_default();
    let groups = memberships(&String::from_utf8_lossy(&groups), name);
    let (uid, gid, comment, home, shell) = (number(2), number(3), field(4), field(5), field(6));
    Ok(Some(Found { uid, gid, comment, home, shell, groups, password }))
}

fn of_line(table: &str, name: &str, field: usize) -> String {
    let line = table.lines().find(|line| line.split(':').next() == Some(name));
    line.and_then(|line| line.split(':').nth(field)).unwrap_or_default().to_owned()
}

fn memberships(table: &str, user: &str) -> Vec<String> {
    let has = |line: &&str| line.split(':').nth(3).is_some_and(|members| members.split(',').any(|m| m == user));
    let mut groups: Vec<String> =
        table.lines().filter(has).filter_map(|l| l.split(':').next()).map(str::to_owned).collect();
    groups.sort();
    groups
}

/// The id of a group, if there is one of that name.
pub(super) async fn gid_of(cx: &Context<'_>, name: &str) -> Result<Option<u32>, UserKindError> {
    let fields = entry(cx, "group", name).await?;
    Ok(fields.and_then(|fields| fields.get(2)?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_host_are_parsed() {
        assert_eq!(memberships("b:x:1:bob,ann\na:x:2:bob\nc:x:3:bobby\n", "bob"), ["a", "b"]);
        assert_eq!(of_line("ann:!:1\nbob:$6$x:1\n", "bob", 1), "$6$x");
    }
}

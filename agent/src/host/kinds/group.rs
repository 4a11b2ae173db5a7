//! `group`: a group of users of the host (groupadd(8), groupmod(8), groupdel(8), gpasswd(1)).

use groundplan_protocol::{kinds::Group, plan::OnRemove};
use serde::{Deserialize, Serialize};

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError, ToolError},
    found::FoundError,
    tool::{Answer, Tool},
};

/// Why a user or group could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("this host has no `{0}`; install the package that has it, such as `shadow` on Alpine")]
    NoTools(String),
    #[error("{what}: {message}")]
    Refused { what: String, message: String },
    #[error(transparent)]
    Tool(ToolError),
    #[error(transparent)]
    Found(#[from] FoundError),
}

impl KindError for AccountError {}

impl From<ToolError> for AccountError {
    fn from(error: ToolError) -> Self {
        match error {
            ToolError::Missing { program } => Self::NoTools(program),
            error => Self::Tool(error),
        }
    }
}

/// Runs a program that changes a user or group; `what` starts the error message.
pub(super) async fn change(cx: &Context<'_>, what: &str, words: &[&str]) -> Result<(), AccountError> {
    let Answer { status, out, err, .. } = Tool::new(words).ask(cx).await?;
    if status.success() {
        return Ok(());
    }
    let message = if err.is_empty() { out } else { err };
    // Their messages start with the name of the program.
    let lines = message.lines().map(|line| line.split_once(": ").map_or(line, |(_, rest)| rest).trim());
    let message = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    Err(AccountError::Refused { what: what.to_owned(), message })
}

/// The line of `key` in a table of the host (getent(1)), by fields.
pub(super) async fn entry(cx: &Context<'_>, table: &str, key: &str) -> Result<Option<Vec<String>>, AccountError> {
    let Answer { status, out, err, .. } = Tool::new(&["getent", table, key]).ask(cx).await?;
    match status.code() {
        Some(0) => {}
        Some(2) => return Ok(None),
        _ => return Err(AccountError::Refused { what: format!("cannot look up `{key}` in {table}"), message: err }),
    }
    let line = out.lines().next().unwrap_or_default();
    Ok(Some(line.split(':').map(str::to_owned).collect()))
}

/// The task's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    name: String,
    created: bool,
    /// Members that the task added.
    added: Vec<String>,
    /// Members that the task removed.
    #[serde(rename = "ousted")]
    removed: Vec<String>,
    /// The id that the group had before.
    gid: Option<u32>,
}

impl Memory {
    fn of(cx: &Context<'_>, name: &str) -> Self {
        let memory = cx.memory().and_then(|memory| Self::deserialize(memory).ok());
        memory.filter(|memory| memory.name == name).unwrap_or_else(|| Self { name: name.to_owned(), ..Self::default() })
    }
}

/// A group as the host's tables have it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    gid: u32,
    members: Vec<String>,
}

async fn find(cx: &Context<'_>, name: &str) -> Result<Option<Found>, AccountError> {
    let Some(fields) = entry(cx, "group", name).await? else { return Ok(None) };
    let members = fields.get(3).map_or("", String::as_str).split(',').filter(|member| !member.is_empty());
    let gid = fields.get(2).and_then(|gid| gid.parse().ok()).unwrap_or_default();
    Ok(Some(Found { gid, members: members.map(str::to_owned).collect() }))
}

impl Kind for Group {
    fn whole_host(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let what = format!("group {}", self.name);
        let Some(found) = find(cx, &self.name).await? else {
            if self.is_present() {
                cx.differs(&what, Some("present"), None);
            }
            return Ok((!self.is_present()).into());
        };
        if !self.is_present() {
            cx.differs(&what, None, Some("present"));
            return Ok(Check::OutOfSync);
        }
        let (to_add, to_remove) = to_change(self, &found, &Memory::of(cx, &self.name));
        if let Some(gid) = self.gid.filter(|gid| *gid != found.gid) {
            cx.differs("gid", Some(&gid.to_string()), Some(&found.gid.to_string()));
        }
        for member in &to_add {
            cx.differs(&format!("member {member}"), Some("present"), None);
        }
        for member in &to_remove {
            cx.differs(&format!("member {member}"), None, Some("present"));
        }
        let in_sync = self.gid.is_none_or(|gid| gid == found.gid) && to_add.is_empty() && to_remove.is_empty();
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let mut memory = Memory::of(cx, &self.name);
        let name = self.name.as_str();
        if !self.is_present() {
            let memory = Memory { name: name.to_owned(), ..Memory::default() };
            let what = format!("cannot delete the group {name}");
            cx.change(&memory, change(cx, &what, &["groupdel", "--", name])).await?;
            return Ok(Applied { afresh: false });
        }
        let gid = self.gid.map(|gid| gid.to_string());
        let found = match find(cx, name).await? {
            Some(found) => found,
            None => {
                let mut words = vec!["groupadd"];
                words.extend(gid.iter().flat_map(|gid| ["-g", gid]));
                words.extend(self.system.filter(|system| *system).map(|_| "-r"));
                words.extend(["--", name]);
                memory.created = true;
                cx.change(&memory, change(cx, &format!("cannot create the group {name}"), &words)).await?;
                find(cx, name).await?.unwrap_or_default()
            }
        };
        if let (Some(gid), true) = (&gid, self.gid != Some(found.gid)) {
            // The first one counts: the id from before the task, not one that an earlier version of it set.
            memory.gid.get_or_insert(found.gid);
            let what = format!("cannot change the number of the group {name}");
            cx.change(&memory, change(cx, &what, &["groupmod", "-g", gid, "--", name])).await?;
        }
        // One by one: a run that fails halfway must not forget what it did.
        let (to_add, to_remove) = to_change(self, &found, &memory);
        for (members, option, doing) in [(to_add, "-a", "add"), (to_remove, "-d", "remove")] {
            for member in members {
                let (done, undone) = match option {
                    "-a" => (&mut memory.added, &mut memory.removed),
                    _ => (&mut memory.removed, &mut memory.added),
                };
                // Undoing an earlier change of its own restores what was there, and leaves nothing to restore; that is noted once it is done.
                let is_undoing = undone.contains(&member);
                if !is_undoing && !done.contains(&member) {
                    done.push(member.clone());
                }
                let what = format!("cannot {doing} {member} as a member of the group {name}");
                cx.change(&memory, change(cx, &what, &["gpasswd", option, &member, "--", name])).await?;
                if is_undoing {
                    memory.added.retain(|one| *one != member || option == "-a");
                    memory.removed.retain(|one| *one != member || option == "-d");
                    cx.remember(&memory);
                }
            }
        }
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let memory = Memory::of(cx, &self.name);
        let name = self.name.as_str();
        let Some(found) = find(cx, name).await? else { return Ok(false) };
        if memory.created || cx.on_remove == OnRemove::Delete && self.is_present() {
            change(cx, &format!("cannot delete the group {name}"), &["groupdel", "--", name]).await?;
            return Ok(true);
        }
        let mut changed = false;
        for (members, option, is_there) in [(&memory.added, "-d", true), (&memory.removed, "-a", false)] {
            for member in members.iter().filter(|member| found.members.contains(member) == is_there) {
                // A user that was deleted meanwhile is not a member anyway.
                if entry(cx, "passwd", member).await?.is_some() {
                    let what = format!("cannot give the group {name} its members back");
                    change(cx, &what, &["gpasswd", option, member, "--", name]).await?;
                    changed = true;
                }
            }
        }
        if let Some(gid) = memory.gid.filter(|gid| *gid != found.gid) {
            let what = format!("cannot give the group {name} its number back");
            change(cx, &what, &["groupmod", "-g", &gid.to_string(), "--", name]).await?;
            changed = true;
        }
        if !changed && self.is_present() {
            cx.report("left in place: it was there before this task");
        }
        Ok(changed)
    }
}

/// Members to add and to remove; the latter include members that the task once added and no longer names.
fn to_change(group: &Group, found: &Found, memory: &Memory) -> (Vec<String>, Vec<String>) {
    let wanted = group.members.as_deref().unwrap_or_default();
    let to_add = wanted.iter().filter(|member| !found.members.contains(member)).cloned().collect();
    let exclusive = group.exclusive == Some(true);
    let to_remove = found.members.iter().filter(|m| !wanted.contains(m) && (exclusive || memory.added.contains(m)));
    (to_add, to_remove.cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_and_go() {
        let group = |members: &[&str], exclusive: bool| Group {
            name: "g".to_owned(),
            state: None,
            gid: None,
            system: None,
            members: Some(members.iter().map(|&m| m.to_owned()).collect()),
            exclusive: Some(exclusive),
        };
        let found = Found { gid: 7, members: ["ann", "bob"].map(str::to_owned).into() };
        let memory = Memory { added: vec!["bob".to_owned()], ..Memory::default() };
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(to_change(&group(&["cid"], false), &found, &memory), (names(&["cid"]), names(&["bob"])));
        assert_eq!(to_change(&group(&["cid"], true), &found, &memory), (names(&["cid"]), names(&["ann", "bob"])));
        assert_eq!(to_change(&group(&["ann", "bob"], true), &found, &memory), (names(&[]), names(&[])));
    }
}

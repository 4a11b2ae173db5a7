//! `user`: a user of the host (useradd(8), usermod(8), userdel(8), chpasswd(8)), and its ssh keys.
//!
//! The note of the user holds how it was found, and the task's memory whether it created it and which keys it added. Removal deletes
//! only a user that the task created; any other has what the task set restored, and the task's keys taken away.

mod account;
mod error;
mod keys;
mod moving;
mod password;

use std::{fs, path::Path};

use groundplan_protocol::{
    kinds::{Claim, User, key_of},
    plan::OnRemove,
};
use serde::{Deserialize, Serialize};

use self::{
    account::{Found, find, gid_of},
    error::UserKindError,
    keys::{KeysError, Place, keys_in, merged},
    password::{password_is, put_password, set_password, wants_lock},
};
use super::{
    context::Context,
    group::{AccountError, change, entry},
    kind::{Applied, Check, Kind},
};
use crate::{
    host::{error::HostError, fs::users},
    machine::Found as Note,
};

/// The task's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    name: String,
    created: bool,
    /// The keys that the task added, without type and comment.
    keys: Vec<String>,
    /// Lines of the key file that the task's own took the place of: other options or comments of its keys, and the keys of others where
    /// it allows none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replaced_keys: Vec<String>,
    /// The keys that the file had when it was last as wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    written_keys: Option<WrittenKeys>,
    /// The user as it was found; `None` if the task created it.
    found: Option<Before>,
    /// The parameters of the last attempt, which may have failed half-way: what it changed is of the task as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tried: Option<User>,
    /// The id of the group of its name, if that was there before the task created the user.
    group: Option<u32>,
}

/// What a task wants of the key file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WrittenKeys {
    keys: Vec<String>,
    exclusive: bool,
    home: Option<String>,
}

impl WrittenKeys {
    fn of(user: &User) -> Self {
        Self { keys: user.ssh_keys.clone(), exclusive: user.exclusive_keys == Some(true), home: user.home.clone() }
    }
}

/// What removal restores for a user that was there before, as an agent without a store of what was found noted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    shell: String,
    comment: String,
    groups: Vec<String>,
}

impl Memory {
    fn of(cx: &Context<'_>, name: &str) -> Self {
        let memory = cx.memory().and_then(|memory| Self::deserialize(memory).ok());
        memory.filter(|memory| memory.name == name).unwrap_or_else(|| Self { name: name.to_owned(), ..Self::default() })
    }

    fn note(&mut self, found: &Found) {
        if !self.created && self.found.is_none() {
            let Found { shell, comment, groups, .. } = found.clone();
            self.found = Some(Before { shell, comment, groups });
        }
    }

    /// Notes what writing the keys does to a file of that text: which keys it adds, and which lines it replaces.
    fn note_keys(&mut self, user: &User, before: &[u8], after: &[u8]) {
        let there = keys_in(before);
        // What was put into a file that was as wanted is not given back: it may be what an intruder left.
        let written = WrittenKeys::of(user);
        if self.written_keys.as_ref() != Some(&written) {
            let before_this = self.written_keys.iter().flat_map(|written| &written.keys);
            let own_lines: Vec<&str> = before_this.map(|line| line.trim()).collect();
            let own = |line: &String| {
                own_lines.contains(&line.as_str())
                    || key_of(line).is_some_and(|key| self.keys.iter().any(|own| own == key))
            };
            let replaced = keys::replaced(before, after).into_iter().filter(|line| !own(line));
            let new: Vec<String> = replaced.filter(|line| !self.replaced_keys.contains(line)).collect();
            self.replaced_keys.extend(new);
        }
        let new = keys_of(user).into_iter().filter(|key| !there.contains(*key)).map(str::to_owned);
        let new: Vec<String> = new.filter(|key| !self.keys.contains(key)).collect();
        self.keys.extend(new);
    }

    /// The lines that an update gives back, because the task wants something else of the key file than when they were replaced.
    fn given_back(&self, user: &User, on_remove: OnRemove) -> &[String] {
        let is_other = self.written_keys.as_ref().is_some_and(|written| *written != WrittenKeys::of(user));
        if is_other && on_remove == OnRemove::Restore { &self.replaced_keys } else { &[] }
    }

    /// Notes that the key file is as wanted, with that text: what is in it is not replaced any more.
    fn wrote_keys(&mut self, user: &User, text: &[u8]) {
        self.written_keys = Some(WrittenKeys::of(user));
        let wanted = keys_of(user);
        self.keys.retain(|key| wanted.contains(&key.as_str()));
        let text = String::from_utf8_lossy(text);
        self.replaced_keys.retain(|replaced| !text.lines().any(|line| line == replaced));
    }
}

impl Kind for User {
    fn whole_host(&self) -> bool {
        true
    }

    async fn find(&self, cx: &Context<'_>) -> Result<(), HostError> {
        let claim = Claim::named("user", &self.name);
        if !cx.is_unnoted(&claim) {
            return Ok(());
        }
        let note = match find(cx, &self.name).await? {
            Some(found) => {
                let fields = serde_json::to_value(found).unwrap_or_default();
                Note::Fields { what: "account".to_owned(), fields }
            }
            None => Note::Absent,
        };
        cx.note_found(&claim, note)
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let what = format!("user {}", self.name);
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
        if cx.is_drift_check() {
            report_differences(cx, self, &found)?;
        }
        let mut memory = Memory::of(cx, &self.name);
        let is_left = moving::is_left(cx, &self.name);
        let in_sync = !is_left
            && changes(self, &found)?.is_empty()
            && password_is(self, &found)
            && (self.create_home != Some(true) || Path::new(&found.home).is_dir())
            && keys_are(self, cx, &found, &memory)?;
        // A user that already was as wanted: note how it was found, since `apply` does not run.
        if in_sync && cx.memory().is_none() {
            memory.note(&found);
            memory.written_keys = Some(WrittenKeys::of(self));
            cx.remember(&memory);
        } else if in_sync && memory.written_keys != Some(WrittenKeys::of(self)) {
            let text = keys_text(self, &found)?;
            memory.wrote_keys(self, &text);
            cx.remember(&memory);
        }
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let mut memory = Memory::of(cx, &self.name);
        if !self.is_present() {
            delete(cx, self).await?;
            moving::end(cx, &self.name)?;
            cx.remember(&Memory { name: self.name.clone(), ..Memory::default() });
            return Ok(Applied { afresh: false });
        }
        let found = match find(cx, &self.name).await? {
            Some(found) => {
                let found = moving::resume(cx, &self.name, found).await?;
                // Before the change: if the agent is killed in between, removal can still restore the user.
                memory.note(&found);
                memory.tried = Some(self.clone());
                cx.remember_first(&memory)?;
                let changes = changes(self, &found)?;
                if changes.is_empty() {
                    moving::end(cx, &self.name)?;
                } else {
                    let words: Vec<&str> = ["usermod"].into_iter().chain(changes.iter().map(String::as_str)).collect();
                    let what = format!("cannot change the user {}", self.name);
                    moving::make(cx, &self.name, &found, &what, &words).await?;
                }
                found
            }
            None => {
                moving::end(cx, &self.name)?;
                let group = gid_of(cx, &self.name).await?;
                memory = Memory { name: self.name.clone(), created: true, group, ..Memory::default() };
                cx.change(&memory, create(cx, self, group.is_some())).await?;
                Found::default()
            }
        };
        // Read again: home and ids may have changed just now.
        let found = find(cx, &self.name).await?.unwrap_or(found);
        set_password(cx, self, &found).await?;
        if self.create_home == Some(true) && !Path::new(&found.home).is_dir() {
            let what = format!("cannot create the home directory of {}", self.name);
            change(cx, &what, &["mkhomedir_helper", &self.name]).await?;
        }
        if !keys_are(self, cx, &found, &memory)? {
            let text = wanted_keys(self, cx, &found, &memory)?;
            memory.note_keys(self, &keys_text(self, &found)?, &text);
            cx.remember_first(&memory)?;
            place(&found).write(text).map_err(|source| keys_error(self, &found, source))?;
        }
        memory.wrote_keys(self, &keys_text(self, &found)?);
        cx.remember(&memory);
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let memory = Memory::of(cx, &self.name);
        let note = cx.found(&Claim::named("user", &self.name));
        let Some(found) = find(cx, &self.name).await? else {
            moving::end(cx, &self.name)?;
            return Ok(false);
        };
        if memory.created || note == Some(Note::Absent) || (cx.on_remove == OnRemove::Delete && self.is_present()) {
            delete(cx, self).await?;
            moving::end(cx, &self.name)?;
            restore_group(cx, self, &memory).await?;
            return Ok(true);
        }
        // What an interrupted change has set is of the task, whatever the tables show.
        let interrupted = moving::is_left(cx, &self.name);
        let found = moving::resume(cx, &self.name, found).await?;
        let was = match note {
            Some(Note::Fields { fields, .. }) => serde_json::from_value(fields).ok(),
            // Only these were noted by earlier agents.
            _ => memory.found.as_ref().map(|before| Found {
                shell: before.shell.clone(),
                comment: before.comment.clone(),
                groups: before.groups.clone(),
                ..found.clone()
            }),
        };
        let mut changed = false;
        if let Some(was) = &was {
            changed |= restore(self, cx, memory.tried.as_ref(), (&found, interrupted), was).await?;
        }
        // Its home and ids may have changed just now.
        let found = find(cx, &self.name).await?.unwrap_or(found);
        let has_edited = !memory.keys.is_empty() || !memory.replaced_keys.is_empty();
        if has_edited && Path::new(&found.home).is_dir() {
            let failed = |source| keys_error(self, &found, source);
            let text = place(&found).read().map_err(failed)?;
            let back = if cx.on_remove == OnRemove::Restore { &*memory.replaced_keys } else { &[] };
            // Keys of others stay, also those that were added since.
            let kept = merged(&text, back, &memory.keys, false);
            if kept != text {
                place(&found).write(kept).map_err(failed)?;
                changed = true;
            }
        }
        if !changed && self.is_present() {
            cx.report("left in place: it was there before this task");
        }
        Ok(changed)
    }
}

/// Restores what the task set, unless it was changed out of band since; whether that was anything.
async fn restore(
    user: &User,
    cx: &Context<'_>,
    tried: Option<&User>,
    (now, interrupted): (&Found, bool),
    was: &Found,
) -> Result<bool, UserKindError> {
    // What differs from what the task wants, and from what it last tried, is not of the task: an administrator has changed it.
    let differs = [changes(user, now)?, changes(tried.unwrap_or(user), now)?];
    let of_task =
        |option: &str| interrupted || !differs.iter().all(|differs| differs.iter().any(|word| word == option));
    let (uid, gid, groups) = (was.uid.to_string(), was.gid.to_string(), was.groups.join(","));
    let fields = [
        ("-u", user.uid.is_some() && now.uid != was.uid, &uid),
        ("-g", user.group.is_some() && now.gid != was.gid, &gid),
        ("-G", user.groups.is_some() && now.groups != was.groups, &groups),
        ("-s", user.shell.is_some() && now.shell != was.shell, &was.shell),
        ("-c", user.comment.is_some() && now.comment != was.comment, &was.comment),
        ("-d", user.home.is_some() && now.home != was.home, &was.home),
    ];
    let mut words = vec!["usermod"];
    for (option, is_set, value) in fields {
        match (is_set, of_task(option)) {
            (true, true) => words.extend([option, value.as_str()]),
            (true, false) => {
                cx.report(&format!("what usermod(8) sets by {option} was changed out of band: left as it is"))
            }
            (false, _) => {}
        }
    }
    // The task moved the home: it goes back to where nothing is by now.
    if words.contains(&"-d") && Path::new(&now.home).is_dir() && !Path::new(&was.home).exists() {
        words.push("-m");
    }
    let mut changed = words.len() > 1;
    let what = format!("cannot restore what the user {} had", user.name);
    if changed {
        moving::make(cx, &user.name, now, &what, &words).await?;
    } else {
        moving::end(cx, &user.name)?;
    }
    let sets_password = user.password.is_some() || user.locked.is_some();
    if sets_password && now.password != was.password {
        if password_is(user, now) || tried.is_some_and(|tried| password_is(tried, now)) {
            put_password(cx, &user.name, &was.password, what).await?;
            changed = true;
        } else {
            cx.report("the password was changed out of band: left as it is");
        }
    }
    Ok(changed)
}

/// Creates the group of the user's name again, where userdel(8) has deleted it with the user although it was there before.
async fn restore_group(cx: &Context<'_>, user: &User, memory: &Memory) -> Result<(), UserKindError> {
    let Some(gid) = memory.group.map(|gid| gid.to_string()) else { return Ok(()) };
    if gid_of(cx, &user.name).await?.is_some() {
        return Ok(());
    }
    let what = format!("cannot restore the group {}, which was there before the user", user.name);
    Ok(change(cx, &what, &["groupadd", "-g", &gid, "--", &user.name]).await?)
}

/// `has_group`: there is a group of its name, which useradd(8) takes only if it is named.
async fn create(cx: &Context<'_>, user: &User, has_group: bool) -> Result<(), UserKindError> {
    let (uid, groups) = (user.uid.map(|uid| uid.to_string()), user.groups.as_ref().map(|groups| groups.join(",")));
    let system = user.system == Some(true);
    let group = user.group.clone().or_else(|| has_group.then(|| user.name.clone()));
    let mut words = vec!["useradd"];
    let options =
        [("-u", &uid), ("-g", &group), ("-G", &groups), ("-d", &user.home), ("-s", &user.shell), ("-c", &user.comment)];
    for (option, value) in options {
        words.extend(value.iter().filter(|value| !value.is_empty()).flat_map(|value| [option, value]));
    }
    if system {
        words.push("-r");
    }
    words.push(if user.create_home.unwrap_or(!system) { "-m" } else { "-M" });
    words.extend(["--", &user.name]);
    Ok(change(cx, &format!("cannot create the user {}", user.name), &words).await?)
}

async fn delete(cx: &Context<'_>, user: &User) -> Result<(), UserKindError> {
    let name = user.name.as_str();
    let remove_home = user.remove_home == Some(true);
    let words: &[&str] = if remove_home { &["userdel", "-r", "--", name] } else { &["userdel", "--", name] };
    let Err(error) = change(cx, &format!("cannot delete the user {name}"), words).await else { return Ok(()) };
    let AccountError::Refused { what, message } = error else { return Err(error.into()) };
    if entry(cx, "passwd", name).await?.is_none() {
        // The user was deleted, and something minor failed, such as removing a mail spool that was never there.
        cx.report(&message);
        return Ok(());
    }
    let message = match message.rsplit_once("process ") {
        // userdel names the process that the user still runs; the name of its program helps an administrator more than its number.
        Some((_, process)) => {
            let process = process.trim();
            let program = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            format!("it runs {} (process {process}); stop what it runs first", program.trim())
        }
        None => message,
    };
    Err(AccountError::Refused { what, message }.into())
}

/// The options of usermod(8) for what differs.
fn changes(user: &User, found: &Found) -> Result<Vec<String>, UserKindError> {
    let mut words = Vec::new();
    let mut give = |option: &str, value: &str| words.extend([option.to_owned(), value.to_owned()]);
    if let Some(uid) = user.uid.filter(|uid| *uid != found.uid) {
        give("-u", &uid.to_string());
    }
    if let Some(group) = &user.group
        && users::gid(group)?.as_raw() != found.gid
    {
        give("-g", group);
    }
    if let Some(groups) = &user.groups {
        let mut wanted = groups.clone();
        // `usermod -G` replaces the whole list, so the groups to keep are part of it.
        if user.append == Some(true) {
            wanted.extend(found.groups.iter().cloned());
        }
        wanted.sort();
        wanted.dedup();
        if wanted != found.groups {
            give("-G", &wanted.join(","));
        }
    }
    for (option, wanted, is) in
        [("-s", &user.shell, &found.shell), ("-c", &user.comment, &found.comment), ("-d", &user.home, &found.home)]
    {
        if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != is) {
            give(option, wanted);
        }
    }
    if user.home.as_ref().is_some_and(|home| *home != found.home && Path::new(&found.home).is_dir()) {
        words.push("-m".to_owned());
    }
    Ok(words)
}

/// Notes how the user differs; of its password and its keys only that they do.
fn report_differences(cx: &Context<'_>, user: &User, found: &Found) -> Result<(), UserKindError> {
    let changes = changes(user, found)?;
    let (uid, gid) = (found.uid.to_string(), nix::unistd::Gid::from_raw(found.gid));
    let (group, groups) = (users::group_name(gid), found.groups.join(","));
    for change in changes.chunks(2) {
        let (what, is) = match change[0].as_str() {
            "-u" => ("uid", &uid),
            "-g" => ("group", &group),
            "-G" => ("groups", &groups),
            "-s" => ("shell", &found.shell),
            "-c" => ("comment", &found.comment),
            "-d" => ("home", &found.home),
            _ => continue,
        };
        cx.differs(what, change.get(1).map(String::as_str), Some(is));
    }
    if moving::is_left(cx, &user.name) {
        cx.differs(&format!("files of {}", found.home), Some("of its new owner"), Some("of both owners"));
    }
    if !password_is(user, found) {
        let is_locked = found.password.starts_with('!');
        match wants_lock(user).filter(|wanted| *wanted != is_locked) {
            Some(true) => cx.differs("password", Some("locked"), Some("not locked")),
            Some(false) => cx.differs("password", Some("not locked"), Some("locked")),
            None => cx.differs("password", Some("as it was set"), Some("another")),
        }
    }
    if user.create_home == Some(true) && !Path::new(&found.home).is_dir() {
        cx.differs(&format!("home {}", found.home), Some("present"), None);
    }
    if !keys_are(user, cx, found, &Memory::of(cx, &user.name))? {
        cx.differs("ssh keys", Some("as they were set"), Some("others, or with another owner or mode"));
    }
    Ok(())
}

fn place(found: &Found) -> Place<'_> {
    Place { home: Path::new(&found.home), uid: found.uid, gid: found.gid }
}

/// The keys that the task wants, without type and comment.
fn keys_of(user: &User) -> Vec<&str> {
    user.ssh_keys.iter().filter_map(|key| key_of(key)).collect()
}

fn keys_error(user: &User, found: &Found, source: KeysError) -> UserKindError {
    UserKindError::Keys { user: user.name.clone(), home: found.home.clone(), source }
}

/// Whether the task neither wants nor has added or replaced any keys.
fn ignores_keys(user: &User, memory: &Memory) -> bool {
    let has_edited = !memory.keys.is_empty() || !memory.replaced_keys.is_empty();
    user.ssh_keys.is_empty() && user.exclusive_keys != Some(true) && !has_edited
}

/// The key file as it is; empty if there is none, or no home.
fn keys_text(user: &User, found: &Found) -> Result<Vec<u8>, UserKindError> {
    if !Path::new(&found.home).is_dir() {
        return Ok(Vec::new());
    }
    place(found).read().map_err(|source| keys_error(user, found, source))
}

/// The key file as the task wants it.
fn wanted_keys(user: &User, cx: &Context<'_>, found: &Found, memory: &Memory) -> Result<Vec<u8>, UserKindError> {
    if !Path::new(&found.home).is_dir() {
        return Err(UserKindError::NoHome(user.name.clone()));
    }
    let text = keys_text(user, found)?;
    // As after a removal, and from there as if it had always been so.
    let text = merged(&text, memory.given_back(user, cx.on_remove), &memory.keys, false);
    Ok(merged(&text, &user.ssh_keys, &memory.keys, user.exclusive_keys == Some(true)))
}

fn keys_are(user: &User, cx: &Context<'_>, found: &Found, memory: &Memory) -> Result<bool, UserKindError> {
    if ignores_keys(user, memory) {
        return Ok(true);
    }
    if !Path::new(&found.home).is_dir() {
        return Ok(user.ssh_keys.is_empty());
    }
    let text = wanted_keys(user, cx, found, memory)?;
    let place = place(found);
    if text.is_empty() && keys_text(user, found)?.is_empty() {
        return Ok(true);
    }
    place.is(&text).map_err(|source| keys_error(user, found, source))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found() -> Found {
        Found {
            uid: 1001,
            gid: 0,
            comment: "Bob".to_owned(),
            home: "/nowhere/bob".to_owned(),
            shell: "/bin/sh".to_owned(),
            groups: vec!["adm".to_owned(), "audio".to_owned()],
            password: "!$6$x".to_owned(),
        }
    }

    fn options(mut user: serde_json::Value) -> String {
        user["name"] = json!("bob");
        changes(&serde_json::from_value(user).unwrap(), &found()).unwrap().join(" ")
    }

    #[test]
    fn only_what_differs_is_changed() {
        assert_eq!(options(json!({})), "");
        assert_eq!(
            options(json!({ "uid": 1001, "group": "root", "shell": "/bin/sh", "groups": ["audio", "adm"] })),
            ""
        );
        assert_eq!(options(json!({ "uid": 7, "shell": "/bin/false", "comment": "" })), "-u 7 -s /bin/false -c ");
        assert_eq!(options(json!({ "groups": ["adm"] })), "-G adm");
        assert_eq!(options(json!({ "groups": [] })), "-G ");
        assert_eq!(options(json!({ "groups": ["adm"], "append": true })), "");
        assert_eq!(options(json!({ "groups": ["cdrom"], "append": true })), "-G adm,audio,cdrom");
        assert_eq!(options(json!({ "home": "/srv/bob" })), "-d /srv/bob");
    }
}

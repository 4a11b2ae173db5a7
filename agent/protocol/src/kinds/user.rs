//! `user`: a user of the host, with its groups and ssh keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    existence::Existence,
    kind::Kind,
    problem::{Problem, path_problem},
};
use crate::{effect::Effect, ids::TaskId};

/// A user of the host. What is not given is left as it is, or to the host's defaults for a new one. Removal deletes a user that
/// this task created; one that was there before gets back what the task changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Its name, as in passwd(5).
    pub name: String,
    /// Whether it exists; `present` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Existence>,
    /// Its numeric id; chosen by the host if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its primary group, by name or number; if not given, the one of its name, which is created if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its supplementary groups, by name: these and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// Whether it remains a member of groups that are not in `groups`; `false` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<bool>,
    /// Its home directory: an absolute path. The content of an old one is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Its shell: an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Its purpose, or the person's full name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether a new one gets an id from the range for system services; `false` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<bool>,
    /// The hash of its password, as crypt(5) writes it; `mkpasswd` or `openssl passwd -6` make one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Whether logging in with its password is disabled; keys still work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// Whether its home directory exists; if not given, a new user that is not `system` gets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_home: Option<bool>,
    /// Public keys with which one may log in as it, one line each (sshd(8), authorized_keys).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// Whether no other keys are accepted; `false` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive_keys: Option<bool>,
    /// Whether its home directory is deleted together with the user, with everything in it; `false` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_home: Option<bool>,
}

/// The types of keys that sshd(8) accepts.
const KEY_TYPES: [&str; 8] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// The part of a line of authorized_keys that is the key itself: `AAAA…`.
pub fn key_of(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    words.find(|word| KEY_TYPES.contains(word))?;
    words.next().filter(|key| key.starts_with("AAAA"))
}

impl User {
    /// Whether it is to exist.
    pub fn is_present(&self) -> bool {
        self.state.unwrap_or_default().is_present()
    }
}

impl Kind for User {
    const NAME: &'static str = "user";
    const SUMMARY: &'static str = "a user of the host, with its groups and ssh keys";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        problems.extend(name_problem("name", &self.name));
        problems.extend(self.group.iter().filter_map(|group| name_problem("group", group)));
        problems.extend(self.groups.iter().flatten().filter_map(|group| name_problem("groups", group)));
        let paths = [("home", &self.home), ("shell", &self.shell)];
        problems.extend(paths.into_iter().filter_map(|(param, path)| path_problem(param, path.as_ref()?)));
        let is_field = |text: &String| !text.contains([':', '\n', '\0']);
        if self.home.iter().chain(&self.shell).any(|path| !is_field(path)) {
            problems.push(Problem::new("home", "or `shell` has a `:` or a line break", "leave them out"));
        }
        if self.comment.as_ref().is_some_and(|comment| !is_field(comment)) {
            problems.push(Problem::new("comment", "has a `:` or a line break", "leave them out"));
        }
        if let Some(hash) = &self.password
            && (!is_field(hash) || !(hash.starts_with('$') && hash.len() > 20 || matches!(hash.as_str(), "*" | "!")))
        {
            let hint = "give what `mkpasswd` or `openssl passwd -6` prints, never the password itself";
            problems.push(Problem::new("password", "is not the hash of a password", hint));
        }
        for key in self.ssh_keys.iter().filter(|key| key.contains('\n') || key_of(key).is_none()) {
            let begin: String = key.chars().take(30).collect();
            let message = format!("has `{}`, which is not a public key", begin.escape_default());
            problems.push(Problem::new("ssh_keys", message, "give the line of a file such as `id_ed25519.pub`"));
        }
        if self.append.is_some() && self.groups.is_none() {
            problems.push(Problem::new("append", "is given without `groups`", "give `groups`, or leave it out"));
        }
        problems
    }

    fn drop_incidental(&mut self) {
        self.remove_home = None;
    }

    fn destroys(&self) -> Option<String> {
        let goes = self.remove_home == Some(true);
        goes.then(|| format!("the home directory of the user {}", self.name))
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::named("user", &self.name), "name"));
    }
}

/// Whether every host accepts it as the name of a user or group.
pub(super) fn name_problem(param: &'static str, name: &str) -> Option<Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let body = name.strip_suffix('$').unwrap_or(name);
    let good = !body.is_empty() && body.len() <= 32 && body.chars().all(plain) && !body.starts_with(['-', '.']);
    (!good).then(|| {
        let message = format!("`{}` is not a name of a user or group", name.escape_default());
        Problem::new(
            param,
            message,
            "use at most 32 letters, digits, `_`, `.` and `-`, not beginning with one of the last two",
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(value: serde_json::Value) -> Vec<String> {
        let user: User = serde_json::from_value(value).unwrap();
        user.problems().into_iter().map(|p| format!("{} {}", p.param, p.message)).collect()
    }

    #[test]
    fn what_would_break_the_hosts_tables_is_refused() {
        let hash = "$6$salt$0123456789012345678901234567890123456789";
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@example.org";
        let good = json!({ "name": "bob", "groups": ["adm"], "append": true, "home": "/home/bob", "shell": "/bin/sh",
            "comment": "Bob, of operations", "password": hash, "ssh_keys": [key, format!("restrict,pty {key}")] });
        assert!(problems(good).is_empty());
        for (param, value) in [
            ("name", json!("bob:0")),
            ("name", json!("-r")),
            ("group", json!("a,b")),
            ("groups", json!(["x y"])),
            ("home", json!("home/bob")),
            ("home", json!("/home/bob:x")),
            ("shell", json!("sh")),
            ("comment", json!("a\nroot::0:0::/:/bin/sh")),
            ("password", json!("secret")),
            ("ssh_keys", json!(["AAAAC3NzaC1lZDI1NTE5"])),
            ("ssh_keys", json!([format!("{key}\n{key}")])),
            ("append", json!(true)),
        ] {
            let mut user = json!({ "name": "bob" });
            user[param] = value;
            let problems = problems(user.clone());
            assert!(problems.len() == 1 && problems[0].starts_with(param), "{user}: {problems:?}");
        }
    }

    #[test]
    fn a_key_is_found_among_options_and_comments() {
        assert_eq!(key_of("command=\"a b\" ssh-rsa AAAAB3 me"), Some("AAAAB3"));
        assert_eq!(key_of("# ssh-rsa"), None);
        assert_eq!(key_of(""), None);
    }
}

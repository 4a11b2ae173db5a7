//! `cron`: a file of the task's own in /etc/cron.d.
//!
//! Its name has no dot, it ends with a line break and belongs to root with mode 0644, or cron would ignore it silently (cron(8)).
//! On a host without cron the task fails with an error that names alternatives.

use groundplan_protocol::kinds::Cron;

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError},
    fs::{
        files::{self, Access, FileError, Sum},
        paths::Root,
        users,
    },
};

/// Why cron would not run the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CronError {
    #[error(
        "this host has no cron; install it by a `package` task, or use a timer: a `systemd` task with a .timer unit"
    )]
    NoCron,
}

impl KindError for CronError {}

impl Kind for Cron {
    fn whole_host(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let root = &cx.host.environment.root;
        if !self.state.is_present() {
            let there = root.exists(&Self::path(cx.task))?;
            if there {
                cx.differs(&Self::path(cx.task), None, Some("present"));
            }
            return Ok((!there).into());
        }
        let has_cron = has_cron(cx);
        if !has_cron {
            cx.differs("cron", Some("installed"), None);
        }
        // The values of `env` may be secret, and are not reported.
        let (sum, root) = (Sum::of_bytes(text(self).as_bytes()), cx.host.environment.root.clone());
        let in_sync = match self.env.is_empty() {
            true => cx.is_file(&Self::path(cx.task), sum, access()?, true)?,
            false => files::is_file(&root, &Self::path(cx.task), sum, access()?)?,
        };
        if !in_sync && !self.env.is_empty() {
            cx.differs(&Self::path(cx.task), Some("as applied"), Some("something else"));
        }
        Ok((has_cron && in_sync).into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        if !self.state.is_present() {
            self.remove(cx).await?;
            return Ok(Applied { afresh: false });
        }
        if !has_cron(cx) {
            return Err(CronError::NoCron.into());
        }
        if let Some(user) = &self.user {
            users::uid(user).map_err(|source| FileError::Owner { path: Self::path(cx.task), source })?;
        }
        let (root, path) = (&cx.host.environment.root, Self::path(cx.task));
        noticed(root, &path, || files::write_text(root, &path, &text(self), access()?).map_err(Into::into))?;
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let (root, path) = (&cx.host.environment.root, Self::path(cx.task));
        Ok(cx.removed(noticed(root, &path, || Ok(files::remove_file(root, &path, false)?))?))
    }
}

/// Has `change` change the file at `path` in a way that cron notices. Once a minute cron compares when its directory and its files were
/// last changed, in whole seconds: it would never see what changes in the second in which it has just read them. So each change gets
/// a later second than the one before.
fn noticed<T>(root: &Root, path: &str, change: impl FnOnce() -> Result<T, HostError>) -> Result<T, HostError> {
    let paths = [path, DIRECTORY];
    let mut before = [None; 2];
    for (before, path) in before.iter_mut().zip(paths) {
        *before = files::changed_at(root, path)?;
    }
    let changed = change()?;
    for (before, path) in before.iter().zip(paths) {
        if let (Some(before), Some(now)) = (*before, files::changed_at(root, path)?)
            && now <= before
        {
            files::set_changed_at(root, path, before + 1)?;
        }
    }
    Ok(changed)
}

const DIRECTORY: &str = "/etc/cron.d";

fn access() -> Result<Access, HostError> {
    Ok(Access::new("/etc/cron.d", Some("0"), Some("0"), None, 0o644)?)
}

/// The text that cron reads (crontab(5)).
fn text(cron: &Cron) -> String {
    let mut text = "# Written by groundplan; changes are overwritten.\n".to_owned();
    for (name, value) in &cron.env {
        text.push_str(&format!("{name}=\"{value}\"\n"));
    }
    let user = cron.user.as_deref().unwrap_or("root");
    let fields: Vec<&str> = cron.schedule.split_whitespace().collect();
    text + &format!("{} {user} {}\n", fields.join(" "), command(cron.run.trim()))
}

/// The command as cron is to read it. To all of them an unescaped `%` is a line break and `\%` is `%`. They disagree on the rest:
/// Debian's and FreeBSD's read `\\` as one backslash, cronie and OpenBSD's as two, and a `%` after it as unescaped. So a command
/// with two backslashes in a row, or one before a `%`, is given to the shell in a form that has neither.
fn command(run: &str) -> String {
    let is_plain = !run.contains("\\\\") && !run.contains("\\%") && !run.ends_with('\\');
    if is_plain {
        return run.replace('%', "\\%");
    }
    // printf(1): with `%b`, a backslash, zero and three octal digits are a byte.
    let encoded = run.replace('\\', "\\0134").replace('%', "\\0045").replace('\'', "\\0047");
    format!("eval \"$(printf \\%b '{encoded}')\"")
}

/// Whether there is a cron daemon, by any of its names.
fn has_cron(cx: &Context<'_>) -> bool {
    let path = cx.host.environment.env.get("PATH").cloned().unwrap_or_default();
    std::env::split_paths(&path).any(|dir| ["cron", "crond", "cronie"].iter().any(|name| dir.join(name).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cron_notices_each_of_several_changes_in_a_second() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/cron.d")).unwrap();
        let (root, path) = (Root::new(dir.path().to_owned()), "/etc/cron.d/x");
        let times = || [path, DIRECTORY].map(|path| files::changed_at(&root, path).unwrap());
        let mut seen = vec![times()];
        for n in 0..4 {
            noticed(&root, path, || {
                std::fs::write(dir.path().join("etc/cron.d/x"), n.to_string()).unwrap();
                Ok(())
            })
            .unwrap();
            seen.push(times());
        }
        for pair in seen.windows(2) {
            assert!(pair[0][0] < pair[1][0] && pair[0][1] <= pair[1][1], "{seen:?}");
        }
        noticed(&root, path, || Ok(files::remove_file(&root, path, false)?)).unwrap();
        assert!(times()[1] > seen[4][1], "{seen:?}");
    }

    #[test]
    fn what_cron_reads() {
        let cron: Cron = serde_json::from_value(serde_json::json!({
            "schedule": "*/5  2 * * mon", "run": "date +%F > /tmp/x", "user": "bob", "env": {"MAILTO": "", "PATH": "/bin"}
        }))
        .unwrap();
        let lines = ["MAILTO=\"\"", "PATH=\"/bin\"", "*/5 2 * * mon bob date +\\%F > /tmp/x", ""];
        assert_eq!(text(&cron).split('\n').skip(1).collect::<Vec<_>>(), lines);
        assert_eq!(command(r"printf 'a\tb' | grep '\.'"), r"printf 'a\tb' | grep '\.'");
        let name = Cron::path(&"web.clean-up".parse().unwrap());
        assert_eq!(name, "/etc/cron.d/groundplan-web-clean-up-9169e8");
    }

    /// The command that a cron gives to the shell, from the command in its file; `None` for a `%` that cuts it. One kind of cron
    /// reads two backslashes as one.
    fn read(command: &str, halves_backslashes: bool) -> Option<String> {
        let (mut out, mut chars) = (String::new(), command.chars());
        while let Some(c) = chars.next() {
            match c {
                '%' => return None,
                '\\' => match chars.next() {
                    Some('%') => out.push('%'),
                    Some('\\') if halves_backslashes => out.push('\\'),
                    Some(next) => out.extend(['\\', next]),
                    None => out.push('\\'),
                },
                c => out.push(c),
            }
        }
        Some(out)
    }

    #[test]
    fn every_cron_runs_the_command_as_given() {
        for run in [
            r"printf '%s' a",
            r"printf 'a\nb'",
            r"printf '%s' 'a\\b'",
            r"printf '%s' 'a\%b'",
            r#"printf '%s %s' "it's" 'a\\%\b'"#,
            r"printf '%s' a\\",
            r"sed 's/\\/\//;s/%/\%/' </dev/null; printf 100%%",
        ] {
            let of = |line: &str| {
                let output = std::process::Command::new("/bin/sh").args(["-c", line]).output().unwrap();
                assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
                output.stdout
            };
            for halves_backslashes in [true, false] {
                let read = read(&command(run), halves_backslashes).unwrap_or_else(|| panic!("{run} is cut"));
                assert_eq!(of(&read), of(run), "{run}");
            }
        }
    }
}

//! Facts from an operator's own programs: each executable of a folder, named by its file name up to the first dot.
//!
//! In: the folder. Out: the output of each, as JSON if it is valid, else as text. All run side by side, each in a process group of
//! its own and for ten seconds at most. Programs that fail, hang or print too much are logged and left out.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use groundplan_protocol::state::FACTS_LIMIT;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Map, Value};
use tokio::{io::AsyncReadExt as _, process::Command, task::JoinSet, time::timeout};

use crate::log;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Most that a program may print, in bytes.
const OUTPUT: usize = 16 * 1024;
/// Most programs that are run.
const PROGRAMS: usize = 64;
/// The part of the limit for all facts that is reserved for the host's own.
const RESERVED: usize = 8 * 1024;

/// Why a program gives no fact.
#[derive(Debug, thiserror::Error)]
enum LocalError {
    #[error("cannot be run")]
    Run(#[from] io::Error),
    #[error("takes longer than {} s, or left something running that holds its output open", LIMIT.as_secs())]
    Hangs,
    #[error("prints more than {OUTPUT} bytes")]
    Long,
    #[error("prints bytes that are not UTF-8")]
    NotText,
    #[error("ended with {0}; run it by hand to see why")]
    Failed(ExitStatus),
}

/// The facts of the programs in `folder`.
pub(super) async fn facts(folder: &Path) -> Map<String, Value> {
    let mut running = JoinSet::new();
    for (name, path) in programs(folder) {
        running.spawn(async move { (name, run(&path, LIMIT).await, path) });
    }
    let mut facts = BTreeMap::new();
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((name, Ok(value), _)) => _ = facts.insert(name, value),
            Ok((_, Err(error), path)) => {
                log::warn(format_args!("{}: {}; its fact is left out", path.display(), log::chain(&error)))
            }
            Err(error) => log::warn(format_args!("the task for a fact's program panicked: {error}")),
        }
    }
    // In order of names, and not in the order in which the programs ended: which facts are left out must not change
    // from one reading to the next.
    let mut left = FACTS_LIMIT - RESERVED;
    let fits = |(name, value): &(String, Value)| {
        let length = name.len() + value.to_string().len() + 4;
        let fits = length <= left;
        match fits {
            true => left -= length,
            false => log::warn(format_args!("fact `{name}` is left out: all facts together are too large")),
        }
        fits
    };
    facts.into_iter().filter(fits).collect()
}

/// The programs and the names of their facts.
fn programs(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return found,
        Err(error) => {
            log::warn(format_args!("{}: {error}; no facts from programs", folder.display()));
            return found;
        }
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = file.split('.').next().unwrap_or_default().to_owned();
        let Ok(meta) = path.metadata() else { continue };
        let mode = meta.permissions().mode();
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !meta.is_file() || mode & 0o111 == 0 || name.is_empty() || file.ends_with('~') {
            continue;
        }
        let wrong = if !plain {
            Some("its name is not valid for a fact: use letters, digits, `_` and `-` before the first dot")
        } else if mode & 0o002 != 0 {
            Some("it is writable by everyone")
        } else if found.contains_key(&name) {
            Some("another program has the same fact name")
        } else if found.len() == PROGRAMS {
            Some("there are too many programs")
        } else {
            None
        };
        match wrong {
            Some(wrong) => log::warn(format_args!("{} is not run: {wrong}", path.display())),
            None => _ = found.insert(name, path),
        }
    }
    found
}

/// A process group that is killed when its output is not needed any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

async fn run(path: &Path, limit: Duration) -> Result<Value, LocalError> {
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env("LC_ALL", "C.UTF-8").current_dir("/").process_group(0).kill_on_drop(true);
    let mut tries = 0;
    let mut child = loop {
        match command.spawn() {
            // ETXTBSY: the program is just being written.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 20 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            spawned => break spawned?,
        }
    };
    let _group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let mut output = Vec::new();
    let ended = async {
        if let Some(stdout) = child.stdout.take() {
            stdout.take(OUTPUT as u64 + 1).read_to_end(&mut output).await?;
        }
        if output.len() > OUTPUT {
            return Err(LocalError::Long);
        }
        Ok(child.wait().await?)
    };
    // Until its output has ended as well: a process that it left running and that holds it open is reported, and killed
    // with the group.
    let status = timeout(limit, ended).await.map_err(|_| LocalError::Hangs)??;
    if !status.success() {
        return Err(LocalError::Failed(status));
    }
    let text = String::from_utf8(output).map_err(|_| LocalError::NotText)?;
    Ok(serde_json::from_str(&text).unwrap_or_else(|_| text.trim_end().into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(programs: &[(&str, u32, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode, body) in programs {
            let path = dir.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        dir
    }

    #[tokio::test]
    async fn json_is_structured_and_text_is_text() {
        let dir = folder(&[
            ("rack.sh", 0o755, "echo r7"),
            ("disks", 0o755, "echo '[{\"name\": \"sda\", \"gib\": 20}]'"),
            ("fails", 0o755, "echo no; exit 3"),
            ("large", 0o755, "head -c 20000 /dev/zero"),
            ("binary", 0o755, "printf '\\377'"),
            ("open", 0o777, "echo never"),
            ("README", 0o644, "echo never"),
            ("old~", 0o755, "echo never"),
            ("rack.py", 0o644, "echo never"),
        ]);
        let found = facts(dir.path()).await;
        assert_eq!(Value::Object(found), json!({ "rack": "r7", "disks": [{ "name": "sda", "gib": 20 }] }));
        assert!(facts(&dir.path().join("nowhere")).await.is_empty());
    }

    #[tokio::test]
    async fn what_hangs_is_ended_with_all_that_it_started() {
        let dir = folder(&[("hangs", 0o755, "echo $$ >\"$0.pid\"; sleep 100 & sleep 100")]);
        let path = dir.path().join("hangs");
        let error = run(&path, Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, LocalError::Hangs), "{error}");
        let pid = fs::read_to_string(dir.path().join("hangs.pid")).unwrap();
        let group = Pid::from_raw(pid.trim().parse().unwrap());
        for _ in 0..100 {
            if killpg(group, None).is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("its group still runs");
    }

    #[tokio::test]
    async fn all_facts_together_are_bounded() {
        let body = "head -c 16000 /dev/zero | tr '\\0' x";
        let dir = folder(&[("a", 0o755, body), ("b", 0o755, body), ("c", 0o755, body), ("d", 0o755, body)]);
        let found = facts(dir.path()).await;
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}

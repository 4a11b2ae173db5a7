//! The sample site: docs/examples/quickstart as a git repository of its own, and suggestions what to try with it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    layout::{DEFAULT_DIR, SITE},
    ports::Ports,
};
use crate::terminal::Failure;

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../docs/examples/quickstart/", $path)))),*]
    };
}

/// Every file of the sample site; a test compares the list with the directory.
const FILES: &[(&str, &str)] = files![
    "README.md",
    "inventory/nodes.toml",
    "services/app/app.conf.j2",
    "services/app/app.pl",
    "services/app/seed.txt",
    "services/app/service.toml",
    "services/database/database.conf.j2",
    "services/database/database.pl",
    "services/database/service.toml",
    "services/front/front.conf.j2",
    "services/front/front.pl",
    "services/front/service.toml",
    "site.toml",
];

/// Creates the sample site as a git repository with one commit, unless it exists already. Its ports are free ones.
pub(super) fn create(dir: &Path) -> Result<(), Failure> {
    if dir.join(".git").exists() && git(dir, &["rev-parse", "--verify", "--quiet", "HEAD"]).is_ok() {
        return Ok(());
    }
    let ports =
        Ports::free().map_err(|e| Failure::because("cannot listen on the loopback addresses of the sample site", e))?;
    for (path, text) in FILES {
        let path = dir.join(path);
        let failed = |e| Failure::because(format!("cannot write {}", path.display()), e);
        fs::create_dir_all(path.parent().unwrap_or(dir)).map_err(failed)?;
        fs::write(&path, ports.fill_in(text)).map_err(failed)?;
    }
    git(dir, &["init", "--quiet", "--initial-branch", "main"])?;
    // Without an identity the suggested `git commit` would fail; it is set only in this repository.
    if git(dir, &["config", "user.email"]).is_err() {
        git(dir, &["config", "user.name", "Quickstart"])?;
        git(dir, &["config", "user.email", "quickstart@localhost"])?;
        git(dir, &["config", "commit.gpgsign", "false"])?;
    }
    git(dir, &["add", "--all"])?;
    git(dir, &["-c", "commit.gpgsign=false", "commit", "--quiet", "--no-verify", "--message", "The sample site"])
}

fn git(dir: &Path, args: &[&str]) -> Result<(), Failure> {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(args)
        // If this runs in a git hook, these are set and would direct git to the repository of the hook.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Failure::because("cannot run git", e).hint("install git, or add its directory to PATH"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(format!("git {} failed in {}: {message}", args[0], dir.display())))
}

/// The ports that the sample site has now.
pub(super) fn ports(dir: &Path) -> Ports {
    Ports::of(&fs::read_to_string(dir.join("site.toml")).unwrap_or_default())
}

/// Suggestions for the sample site below `up`: edits to paste, and what each of them does.
pub(super) fn try_next(up: &Path, ports: Ports) -> String {
    let dir = quoted(&up.join(SITE));
    // The program as it was called: it need not be in PATH.
    let program = std::env::args().next().unwrap_or_else(|| "groundplan".to_owned());
    let state = if up == Path::new(DEFAULT_DIR) { String::new() } else { format!(" --state {}", quoted(up)) };
    let (front, database) = (ports.front, ports.next_database());
    format!(
        "\
Query it:       curl http://127.0.0.11:{front}/
Then, in another terminal, try:

  1. the application's configuration: restarts the application on beta and gamma, one after the other, and nothing else
     sed -i 's/^greeting = .*/greeting = \"good morning\"/' {dir}/services/app/service.toml && git -C {dir} commit -qam greeting

  2. a comment: changes nothing
     sed -i '1s/.*/# Another comment./' {dir}/services/app/service.toml && git -C {dir} commit -qam comment

  3. the database's port: restarts the database, then the application; the front end, which does not name it, stays
     sed -i 's/^db_port = [0-9]*/db_port = {database}/' {dir}/site.toml && git -C {dir} commit -qam 'database port'

And see:        {program} plan -C {dir} HEAD
                {program} status{state}
                {program} why beta app.server{state}
Ctrl-C stops everything.
"
    )
}

/// A path, quoted for a shell if necessary.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn every_file_of_the_sample_is_in_the_list() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/quickstart");
        let mut found = Vec::new();
        let mut folders: Vec<PathBuf> = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        assert_eq!(found, FILES.iter().map(|(path, _)| (*path).to_owned()).collect::<Vec<_>>());
    }
}

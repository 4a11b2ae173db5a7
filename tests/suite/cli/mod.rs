//! The command line as people and programs meet it: texts, JSON and exit codes of the real program on real repositories.

mod check;
mod examples;
mod help;
mod init;
mod kinds;
mod plan;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use groundplan_tests::binaries;
use tempfile::TempDir;

/// The result of a run of `groundplan`.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    /// Exit code and both outputs, as one text to compare.
    fn text(&self) -> String {
        let mut out = format!("exit {}\n", self.code);
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                out.push_str(&format!("--- {name}\n{text}"));
            }
        }
        out
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON: {e}\n{}", self.text()))
    }
}

/// Runs `groundplan` in a directory, as from a script: no terminal, and none of its variables in the environment.
fn groundplan(dir: &Path, args: &[&str]) -> Run {
    let output = Command::new(binaries::groundplan())
        .args(args)
        .current_dir(dir)
        .env_remove("GROUNDPLAN_STATE")
        .env_remove("GROUNDPLAN_SOCKET")
        .env_remove("COLUMNS")
        .output()
        .expect("groundplan runs");
    Run {
        code: output.status.code().expect("an exit code"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// The examples' folder.
fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples")
}

/// The sample site's folder.
fn quickstart() -> PathBuf {
    examples().join("quickstart")
}

/// A scratch repository.
struct Repository(TempDir);

impl Repository {
    /// The sample site as the first commit.
    fn quickstart() -> Self {
        Self::of(&quickstart())
    }

    /// A folder as the first commit.
    fn of(folder: &Path) -> Self {
        let repository = Self(tempfile::tempdir().expect("a scratch directory"));
        copy(folder, repository.path());
        repository.git(&["init", "-q", "-b", "main"]);
        repository.commit("first");
        repository
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"])
            .args(args)
            .current_dir(self.path())
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Replaces a text that is there exactly once.
    fn edit(&self, path: &str, before: &str, after: &str) {
        let path = self.path().join(path);
        let text = fs::read_to_string(&path).expect("a file");
        assert_eq!(text.matches(before).count(), 1, "{before:?} in {}", path.display());
        fs::write(path, text.replace(before, after)).expect("a file");
    }

    /// Runs `groundplan` here; commit ids and the directory are replaced by names in its output.
    fn groundplan(&self, args: &[&str]) -> Run {
        let mut run = groundplan(self.path(), args);
        let commits = self.git(&["rev-list", "--reverse", "--all"]);
        for text in [&mut run.stdout, &mut run.stderr] {
            for (n, commit) in commits.lines().enumerate() {
                *text = text.replace(commit, &format!("<commit {}>", n + 1));
            }
            *text = text.replace(&*self.path().to_string_lossy(), "<here>");
        }
        run
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}

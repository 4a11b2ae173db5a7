//! The agent as it is released: one static file, of bounded size.

use std::{fs, process::Command};

use super::workspace;

/// 4 MB with glibc: an empty client with every library that the agent uses, linked, is at 3.6 MB.
const LARGEST: u64 = 4_000_000;

fn says(program: &str, path: &str) -> String {
    let output =
        Command::new(program).arg(path).output().unwrap_or_else(|e| panic!("{program}: {e}; tests/run installs it"));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn is_static_and_small() {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let build = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--profile", "agent", "-p", "groundplan-agent", "--target", &target])
        .args(["--message-format", "json-render-diagnostics"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let messages = String::from_utf8(build.stdout).expect("JSON lines");
    let path = messages
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .find_map(|message| Some(message["executable"].as_str()?.to_owned()))
        .expect("cargo names the program");
    let file = says("file", &path);
    assert!(file.contains("static-pie linked") || file.contains("statically linked"), "{file}");
    assert!(file.contains("stripped") && !file.contains("not stripped"), "{file}");
    let ldd = says("ldd", &path);
    assert!(ldd.contains("statically linked") || ldd.contains("not a dynamic executable"), "{ldd}");
    let size = fs::metadata(&path).expect("the program").len();
    assert!(size <= LARGEST, "{size} bytes");
    let version = says(&path, "--version");
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "it runs: {version}");
}

//! The agent as it is released: one static file, of bounded size.

use std::{fs, process::Command};

use groundplan_tests::binaries;

/// What it is allowed to grow to, in bytes. The target is 4 MB with glibc and is missed since there are kinds for everything on a
/// host, see docs/benchmarks.md; this keeps it from growing unseen.
const LARGEST: u64 = 5_500_000;

fn says(program: &str, path: &str) -> String {
    let output =
        Command::new(program).arg(path).output().unwrap_or_else(|e| panic!("{program}: {e}; tests/run installs it"));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn is_static_and_small() {
    let path = binaries::static_agent();
    let path = path.to_str().expect("a plain path");
    let file = says("file", path);
    assert!(file.contains("static-pie linked") || file.contains("statically linked"), "{file}");
    assert!(file.contains("stripped") && !file.contains("not stripped"), "{file}");
    let ldd = says("ldd", path);
    assert!(ldd.contains("statically linked") || ldd.contains("not a dynamic executable"), "{ldd}");
    let size = fs::metadata(path).expect("the program").len();
    assert!(size <= LARGEST, "{size} bytes");
    let version = says(path, "--version");
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "it runs: {version}");
}

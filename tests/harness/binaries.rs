//! The real programs, as cargo builds them, beside the test binary. They are built once a run, so that they are those of this tree.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The `groundplan` program.
pub fn groundplan() -> PathBuf {
    directory().join("groundplan")
}

/// The `groundplan-agent` program; `groundplan up` finds it beside [`groundplan`].
pub fn agent() -> PathBuf {
    directory().join("groundplan-agent")
}

/// The agent as it is released: static, small. Takes minutes to build the first time.
///
/// # Panics
/// If it cannot be built; with the compiler's messages.
pub fn static_agent() -> PathBuf {
    let mut build = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/build-agent"));
    without_package(&mut build);
    build.args(["--message-format", "json-render-diagnostics"]).env("CARGO_TARGET_DIR", target());
    let build = build.output().expect("packaging/build-agent runs");
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let messages = String::from_utf8(build.stdout).expect("JSON lines");
    messages
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .find_map(|message| Some(message["executable"].as_str()?.into()))
        .expect("cargo names the program")
}

/// Cargo, on this workspace and its target directory, with the environment of a call from a shell.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    without_package(&mut cargo);
    cargo.env("CARGO_TARGET_DIR", target());
    cargo
}

/// Removes the variables that cargo sets about one package for its tests and programs. Build scripts depend on some of them (ring's on
/// `CARGO_MANIFEST_DIR` and `CARGO_PKG_NAME`): with other values than outside, cargo would compile most of the workspace again, and the next
/// build outside would do so once more.
fn without_package(command: &mut Command) {
    const BEGINNINGS: [&str; 5] = ["CARGO_BIN_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_"];
    const NAMES: [&str; 4] = ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR", "OUT_DIR"];
    for (name, _) in std::env::vars_os() {
        let is_of_a_package = name
            .to_str()
            .is_some_and(|n| NAMES.contains(&n) || BEGINNINGS.iter().any(|beginning| n.starts_with(beginning)));
        if is_of_a_package {
            command.env_remove(name);
        }
    }
}

/// Cargo's target directory.
fn target() -> PathBuf {
    profile().parent().expect("a profile's directory lies in the target directory").to_owned()
}

/// Where the running program was built: `<target>/<profile>`.
fn profile() -> PathBuf {
    let program = std::env::current_exe().expect("the running program's path");
    let directory = program.parent().expect("a program lies in a directory");
    // Tests are in `deps` below it.
    if directory.ends_with("deps") { directory.parent().expect("a profile").to_owned() } else { directory.to_owned() }
}

/// Where both are, built once a run.
fn directory() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let profile = profile();
        let mut cargo = cargo();
        // All of the workspace, with the features that `cargo test --workspace` has: nothing is compiled twice.
        cargo.args(["build", "--quiet", "--workspace", "--bins"]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "cargo could not build the programs");
        profile
    })
}

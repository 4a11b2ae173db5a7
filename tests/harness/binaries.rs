//! The real programs, as cargo builds them: looked up beside the test binary, built once a run so that they are those of this tree.

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

/// Where both are: the directory that the test binary itself was built into, `<target>/<profile>`.
fn directory() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("the test binary's path");
    let profile = test.ancestors().nth(2).expect("a test binary lies in <target>/<profile>/deps");
    let target = profile.parent().expect("a profile's directory lies in the target directory");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "groundplan", "--package", "groundplan-agent", "--bins"]);
    cargo.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    cargo.arg("--target-dir").arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo runs").success(), "cargo could not build the programs");
    profile.to_owned()
}

//! What fuzzing feeds and checks, one module a target.
//!
//! `tests/fuzz` has the programs for libFuzzer, which call these functions; the suite calls them with each file of `tests/fuzz/corpus` and
//! `tests/fuzz/regressions`, the inputs that once failed. A check panics where something does not hold, and nothing else is expected of it:
//! any input is fine. Inputs are texts where possible, so that people can read and write them.

pub mod api;
pub mod archive;
pub mod broker;
pub mod envelope;
mod files;
pub mod git;
mod host;
pub mod message;
pub mod plugin;
pub mod seeds;
pub mod selector;
pub mod site;
pub mod template;

use std::{fs, io, path::PathBuf};

/// A target: its name, and what is called with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 10] = [
    ("api", api::check),
    ("archive", archive::check),
    ("broker", broker::check),
    ("envelope", envelope::check),
    ("git", git::check),
    ("message", message::check),
    ("plugin", plugin::check),
    ("selector", selector::check),
    ("site", site::check),
    ("template", template::check),
];

/// For a program whose `main` is libFuzzer's: as Rust's own does, has writing to a closed pipe or socket be an error, not a signal.
pub fn ignore_closed_pipes() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    #[expect(unsafe_code, reason = "std does this before main, and has no function for it")]
    // SAFETY: no handler is installed; the signal is ignored.
    unsafe {
        signal(Signal::SIGPIPE, SigHandler::SigIgn).expect("a signal that can be ignored");
    }
}

/// The folder of cargo-fuzz.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The committed inputs of a target, sorted: those of its corpus, and those that once failed.
///
/// # Errors
/// It has no corpus.
pub fn inputs(target: &str) -> io::Result<Vec<PathBuf>> {
    let list = |part: &str| -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder().join(part).join(target))?.map(|entry| Ok(entry?.path())).collect()
    };
    // Not every target has failed.
    let mut all = list("regressions").unwrap_or_default();
    all.extend(list("corpus")?);
    all.sort();
    Ok(all)
}

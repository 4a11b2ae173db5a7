//! Programs of the host that kinds use.

use std::time::Instant;

use super::*;
use crate::host::{
    error::ToolError,
    kinds::context::Context,
    tool::{Answer, Tool},
};

async fn run(line: &str) -> Result<Answer, ToolError> {
    let site = Site::new();
    let (task, cancel) = (id("svc.task"), Cancel::never());
    Tool::new(&["sh", "-c", line]).stdin(b"given").ask(&Context::new(&site.host, &task, &cancel)).await
}

#[tokio::test]
async fn returns_both_streams_and_the_status() {
    let answer = run("cat; echo bad >&2; exit 3").await.unwrap();
    assert_eq!((answer.status.code(), &*answer.out, &*answer.err), (Some(3), "given", "bad"));
    // No byte is lost where the output comes in pieces.
    let answer = run("for i in 1 2 3 4 5 6 7 8 9; do head -c 100001 /dev/zero | tr '\\0' x; done").await.unwrap();
    assert_eq!(answer.out.len(), 900_009);
}

#[tokio::test]
async fn background_processes_delay_nothing() {
    let begun = Instant::now();
    assert_eq!(run("sleep 30 & echo $!").await.map(|answer| answer.out.lines().count()).unwrap(), 1);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn too_much_output_is_an_error_and_takes_no_memory() {
    const MOST: usize = 8 << 20;
    assert_eq!(run(&format!("head -c {MOST} /dev/zero")).await.unwrap().out.len(), MOST);
    let error = run(&format!("head -c {} /dev/zero", MOST + 1)).await.unwrap_err();
    assert!(error.to_string().ends_with("wrote more than 8 MiB"), "{error}");
    let before = peak();
    // The output goes to a pipe, not to a memory file, which would not be counted as memory of this process.
    let error = run("test -p /proc/self/fd/1 && head -c 1G /dev/zero").await.unwrap_err();
    assert!(matches!(error, ToolError::TooMuchOutput { .. }), "{error}");
    assert!(peak() - before < 200 << 10, "{before} KiB before, {} KiB after", peak());
    let error = run("printf '\\377'").await.unwrap_err();
    assert!(error.to_string().ends_with("wrote text that is not UTF-8"), "{error}");
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

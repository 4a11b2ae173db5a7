//! Programs of the host that kinds work with.

use std::time::Instant;

use super::*;
use crate::host::{
    error::ToolError,
    kinds::context::Context,
    tool::{Answer, Tool},
};

async fn asked(line: &str) -> Result<Answer, ToolError> {
    let site = Site::new();
    let (task, cancel) = (id("svc.task"), Cancel::never());
    Tool::new(&["sh", "-c", line]).stdin(b"given").ask(&Context::new(&site.host, &task, &cancel)).await
}

#[tokio::test]
async fn both_streams_and_the_end_are_told() {
    let answer = asked("cat; echo bad >&2; exit 3").await.unwrap();
    assert_eq!((answer.status.code(), &*answer.out, &*answer.err), (Some(3), "given", "bad"));
    // A byte is a byte, in whatever pieces it comes.
    let answer = asked("for i in 1 2 3 4 5 6 7 8 9; do head -c 100001 /dev/zero | tr '\\0' x; done").await.unwrap();
    assert_eq!(answer.out.len(), 900_009);
}

#[tokio::test]
async fn what_is_left_running_holds_nobody_up() {
    let begun = Instant::now();
    assert_eq!(asked("sleep 30 & echo $!").await.map(|answer| answer.out.lines().count()).unwrap(), 1);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_flood_is_an_error_and_takes_no_memory() {
    const MOST: usize = 8 << 20;
    assert_eq!(asked(&format!("head -c {MOST} /dev/zero")).await.unwrap().out.len(), MOST);
    let error = asked(&format!("head -c {} /dev/zero", MOST + 1)).await.unwrap_err();
    assert!(error.to_string().ends_with("wrote more than 8 MiB"), "{error}");
    let before = peak();
    // It sees where its output goes: to no file, which would be memory beside this process's own.
    let error = asked("test -p /proc/self/fd/1 && head -c 1G /dev/zero").await.unwrap_err();
    assert!(matches!(error, ToolError::TooMuchOutput { .. }), "{error}");
    assert!(peak() - before < 200 << 10, "{before} KiB before, {} KiB after", peak());
    let error = asked("printf '\\377'").await.unwrap_err();
    assert!(error.to_string().ends_with("wrote text that is not UTF-8"), "{error}");
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

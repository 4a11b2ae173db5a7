//! Help that teaches: every command, as printed.

use std::path::Path;

use insta::assert_snapshot;

use super::groundplan;

#[test]
fn help_of_every_command() {
    for command in [
        "up",
        "init",
        "check",
        "plan",
        "kinds",
        "schema",
        "serve",
        "status",
        "why",
        "history",
        "show",
        "recheck",
        "forget",
        "park",
        "unpark",
        "exec",
        "drift",
        "bootstrap",
        "trust",
        "key",
    ] {
        let run = groundplan(Path::new("/"), &[command, "--help"]);
        assert_snapshot!(format!("help_{command}"), run.text());
    }
    assert_snapshot!("help", groundplan(Path::new("/"), &["--help"]).text());
}

#[test]
fn a_wrong_call_exits_with_1_because_2_means_changes() {
    for args in [&["plan", "--bogus"][..], &["bogus"], &["why", "a b", "c"], &["status", "--format", "xml"], &[]] {
        let run = groundplan(Path::new("/"), args);
        assert_eq!(run.code, 1, "{args:?}\n{}", run.text());
        assert!(!run.stderr.is_empty(), "{args:?} prints nothing");
    }
    assert_eq!(groundplan(Path::new("/"), &["--version"]).code, 0);
}

#[test]
fn without_a_planner_the_commands_print_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let run = groundplan(dir.path(), &["status", "--state", "."]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("no planner listens on ./planner.sock"), "{}", run.text());
    assert!(run.stderr.contains("→"), "{}", run.text());
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_error() {
    let program = groundplan_tests::binaries::groundplan();
    let line = format!("'{}' schema plan | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}", program.display());
    let output = std::process::Command::new("bash").args(["-c", &line]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

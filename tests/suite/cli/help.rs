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
        "plugin",
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
        "accept",
        "key",
        "broker",
    ] {
        let run = groundplan(Path::new("/"), &[command, "--help"]);
        assert_snapshot!(format!("help_{command}"), run.text());
    }
    for command in ["config", "password"] {
        let run = groundplan(Path::new("/"), &["broker", command, "--help"]);
        assert_snapshot!(format!("help_broker_{command}"), run.text());
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

/// An argument comes before a variable of the environment, also before that of another argument.
#[test]
fn arguments_come_before_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let asked = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = std::process::Command::new(groundplan_tests::binaries::groundplan());
        command.arg("status").args(args).current_dir(dir.path());
        for variable in ["GROUNDPLAN_STATE", "GROUNDPLAN_SOCKET", "GROUNDPLAN_UP_DIR"] {
            command.env_remove(variable);
        }
        let output = command.envs(variables.iter().copied()).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let (state, socket) = (("GROUNDPLAN_STATE", "from-state"), ("GROUNDPLAN_SOCKET", "from-socket"));
    for (args, variables, socket) in [
        (&["--socket", "given"][..], &[state][..], "given"),
        (&["--socket", "given"], &[state, socket], "given"),
        (&["--state", "given"], &[socket], "given/planner.sock"),
        (&["--state", "given"], &[state, socket], "given/planner.sock"),
        (&[], &[state, socket], "from-socket"),
        (&[], &[state], "from-state/planner.sock"),
        (&[], &[("GROUNDPLAN_STATE", ""), ("GROUNDPLAN_UP_DIR", "up")], "up/planner/planner.sock"),
    ] {
        let error = asked(args, variables);
        assert!(error.contains(&format!("no planner listens on {socket}:")), "{args:?} {variables:?}: {error}");
    }
    // The broker is an argument as well.
    let error = asked(&["--broker", "mqtt://127.0.0.1:1", "--site", "s"], &[state, socket]);
    assert!(!error.contains("cannot be used with"), "{error}");
    assert!(asked(&["--state", "a", "--socket", "b"], &[]).contains("cannot be used with"));
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_error() {
    let program = groundplan_tests::binaries::groundplan();
    let line = format!("'{}' schema plan | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}", program.display());
    let output = std::process::Command::new("bash").args(["-c", &line]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

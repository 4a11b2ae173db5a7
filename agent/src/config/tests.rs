//! Configurations, and what is said of wrong ones.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{Args, Command, Config, parse_broker};

const PLANNER: &str = "ed25519:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=";

fn args(args: &[&str]) -> Args {
    Args::parse(args.iter().map(Into::into)).unwrap()
}

#[test]
fn flags_go_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, state) = (dir.path().join("agent.toml"), dir.path().join("state"));
    let text =
        format!("site = 's'\nnode = 'n'\nbroker = 'mqtt://b'\nplanner_keys = ['{PLANNER}']\nkeep_alive = '5s'\n");
    fs::write(&file, text).unwrap();
    let given = args(&[
        "--config",
        file.to_str().unwrap(),
        "--node",
        "m",
        "--state-dir",
        state.to_str().unwrap(),
        "--max-parallel",
        "2",
    ]);
    let config = Config::load(&given).unwrap();
    assert_eq!((config.site.as_str(), config.node.as_str(), config.max_parallel), ("s", "m", 2));
    assert_eq!((config.broker.host.as_str(), config.broker.port, config.keep_alive.as_secs()), ("b", 1883, 5));
    let key = state.join("node.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Config::public_key(&given).unwrap(), config.key.public(), "the key is made once");
}

#[test]
fn all_faults_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    fs::write(&file, "node = 'a b'\nbroker = 'http://x'\nmax_parallel = 0\n").unwrap();
    let error = Config::load(&args(&["-c", file.to_str().unwrap()])).unwrap_err().to_string();
    for part in ["`site` is not set", "`node`:", "`broker`:", "`planner_keys` is empty", "`max_parallel` is 0"] {
        assert!(error.contains(part), "{part} in\n{error}");
    }
    fs::write(&file, "sight = 's'\n").unwrap();
    let error = Config::load(&args(&["-c", file.to_str().unwrap()])).unwrap_err().to_string();
    assert!(error.contains("sight") && error.contains("line 1"), "{error}");
}

#[test]
fn brokers_have_one_spelling() {
    for (url, expect) in [
        ("mqtt://b", Some(("b", 1883, false))),
        ("mqtts://b.example.org:1", Some(("b.example.org", 1, true))),
        ("mqtt://[::1]:5", Some(("[::1]", 5, false))),
        ("mqtt://127.0.0.1:5/", Some(("127.0.0.1", 5, false))),
        ("mqtt://", None),
        ("b:1883", None),
        ("mqtt://b:x", None),
        ("mqtt://::1", None),
        ("mqtt://u:p@b:1", None),
    ] {
        let parsed = parse_broker(url).ok();
        assert_eq!(parsed.as_ref().map(|(h, p, t)| (h.as_str(), *p, *t)), expect, "{url}");
    }
}

#[test]
fn commands() {
    assert_eq!(args(&["--print-key"]).command, Command::PrintKey);
    assert_eq!(args(&["--exit-with-parent"]).command, Command::Run);
    assert!(Args::parse(["--nonsense".into()]).is_err());
}

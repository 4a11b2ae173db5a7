//! Valid configurations, and the messages for invalid ones.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{Args, Command, Config};

const PLANNER: &str = "ed25519:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=";

fn args(args: &[&str]) -> Args {
    Args::parse(args.iter().map(Into::into)).unwrap()
}

#[test]
fn flags_override_the_file() {
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
    assert_eq!(
        (config.broker.address.host.as_str(), config.broker.address.port, config.keep_alive.as_secs()),
        ("b", 1883, 5)
    );
    let key = state.join("node.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Config::public_key(&given).unwrap(), config.key.public(), "the key is made once");
}

#[test]
fn all_errors_are_reported_at_once() {
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

/// The TLS server name is the host of the address; with brackets no certificate would match it.
#[test]
fn an_ipv6_broker_has_no_brackets() {
    let dir = tempfile::tempdir().unwrap();
    let (file, ca) = (dir.path().join("agent.toml"), dir.path().join("ca.pem"));
    fs::write(&ca, "").unwrap();
    let text = format!(
        "site = 's'\nnode = 'n'\nbroker = 'mqtts://[::1]:8883'\nplanner_keys = ['{PLANNER}']\nstate_dir = {:?}\n\
         tls = {{ ca = {ca:?} }}\n",
        dir.path()
    );
    fs::write(&file, text).unwrap();
    let broker = Config::load(&args(&["-c", file.to_str().unwrap()])).unwrap().broker;
    assert_eq!((broker.address.host.as_str(), broker.address.port, broker.tls.is_some()), ("::1", 8883, true));
}

#[test]
fn commands() {
    assert_eq!(args(&["--print-key"]).command, Command::PrintKey);
    assert_eq!(args(&["--exit-with-parent"]).command, Command::Run);
    assert!(Args::parse(["--nonsense".into()]).is_err());
}

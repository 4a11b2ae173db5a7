//! The command line.

use std::{ffi::OsString, path::PathBuf};

use super::file::Raw;

/// The text that `--help` prints.
pub const HELP: &str = "\
groundplan-agent: carries out this node's part of a site's plans

Usage: groundplan-agent [--config FILE] [OPTIONS]

Reads FILE (/etc/groundplan/agent.toml if not given); options override its values. The minimum is:

    site = \"cloud-1\"
    node = \"db-0\"
    broker = \"mqtts://broker.example.org:8883\"
    planner_keys = [\"ed25519:…\"]          # printed by `groundplan key` on the planner

    [tls]
    ca = \"/etc/groundplan/ca.pem\"
    cert = \"/etc/groundplan/node.pem\"
    key = \"/etc/groundplan/node-key.pem\"

Then register the node's own key, which `groundplan-agent --print-key` prints, with the planner.

Identity
      --site NAME              the site
      --node NAME              the node that this agent runs on
      --key FILE               its signing key, created at the first start (STATE/node.key)
      --planner-key KEY        a planner to accept plans from: a key or a file of keys; may be repeated

Broker
      --broker URL             mqtt://HOST:PORT or mqtts://HOST:PORT
      --tls-ca FILE            certificate authority of the broker
      --tls-cert FILE          the node's certificate, and
      --tls-key FILE           its key, for mutual TLS
      --username NAME          the broker's user (the node's name), with a password from
      --password-file FILE     this file, or else from $GROUNDPLAN_BROKER_PASSWORD
      --keep-alive SPAN        MQTT keep-alive (30s)
      --silence SPAN           report that no planner is heard after this long; each beats every 60s (5m)

Work
      --state-dir DIR          ledger, blobs, records of processes (/var/lib/groundplan)
      --root DIR               directory below which all paths of tasks are (/)
      --facts-dir DIR          its programs print facts, as JSON or text (/etc/groundplan/facts.d)
      --max-parallel N         most tasks that run at a time (number of CPUs, at least 4)
      --max-blob BYTES         largest blob of a plan (268435456)
      --max-blobs BYTES        most bytes of all blobs of a plan (1073741824)
      --max-found BYTES        most bytes of replaced files, kept to be restored (268435456)
      --skip-host-kinds        with another root than /: skip what acts on the host as a whole; else it fails

Shutdown
      --stop-timeout SPAN      how long running tasks may continue after SIGTERM (30s)
      --stop-processes-on-exit stop supervised processes at shutdown; otherwise they continue and are adopted
      --exit-with-parent       shut down when standard input is closed

      --check                  say whether the agent hears from a planner, by its state directory
      --print-key              print the node's public key; create it if there is none
      --config FILE            the configuration file
      --help, --version

The keys of the file have the same names with `_` for `-`, except `planner_keys` and the table `tls`.
Exit codes: 0 shut down; 1 an error while running; 2 wrong usage or configuration.
With --check: 0 it does; 1 it has not for longer than --silence, or is not running; 2 as above.
";

/// The mode in which the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Run the agent.
    Run,
    /// Say whether a planner is heard and exit.
    Check,
    /// Print the node's public key and exit.
    PrintKey,
    /// Print [`HELP`] and exit.
    Help,
    /// Print the program's version and exit.
    Version,
}

/// A parsed command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Args {
    /// The mode in which to run.
    pub command: Command,
    /// The configuration file, if one was named.
    pub config: Option<PathBuf>,
    /// Whether to shut down when standard input is closed.
    pub exit_with_parent: bool,
    pub(super) raw: Raw,
}

/// A command line that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}; `groundplan-agent --help` lists the options")]
pub struct UsageError(String);

impl Args {
    /// Parses the arguments after the program's name.
    ///
    /// # Errors
    /// If an option is unknown, or its value cannot be parsed.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut parser = lexopt::Parser::from_args(args);
        read(&mut parser).map_err(|e| UsageError(e.to_string()))
    }
}

fn read(parser: &mut lexopt::Parser) -> Result<Args, lexopt::Error> {
    use lexopt::{Arg::Long, Arg::Short, ValueExt as _};
    let mut args = Args { command: Command::Run, config: None, exit_with_parent: false, raw: Raw::default() };
    while let Some(arg) = parser.next()? {
        let raw = &mut args.raw;
        match arg {
            Long("config") | Short('c') => args.config = Some(parser.value()?.into()),
            Long("site") => raw.site = Some(parser.value()?.string()?),
            Long("node") => raw.node = Some(parser.value()?.string()?),
            Long("broker") => raw.broker = Some(parser.value()?.string()?),
            Long("state-dir") => raw.state_dir = Some(parser.value()?.into()),
            Long("root") => raw.root = Some(parser.value()?.into()),
            Long("facts-dir") => raw.facts_dir = Some(parser.value()?.into()),
            Long("key") => raw.key = Some(parser.value()?.into()),
            Long("planner-key") => raw.planner_keys.push(parser.value()?.string()?),
            Long("tls-ca") => raw.tls.get_or_insert_default().ca = Some(parser.value()?.into()),
            Long("tls-cert") => raw.tls.get_or_insert_default().cert = Some(parser.value()?.into()),
            Long("tls-key") => raw.tls.get_or_insert_default().key = Some(parser.value()?.into()),
            Long("username") => raw.username = Some(parser.value()?.string()?),
            Long("password-file") => raw.password_file = Some(parser.value()?.into()),
            Long("max-parallel") => raw.max_parallel = Some(parser.value()?.parse()?),
            Long("max-blob") => raw.max_blob = Some(parser.value()?.parse()?),
            Long("max-blobs") => raw.max_blobs = Some(parser.value()?.parse()?),
            Long("max-found") => raw.max_found = Some(parser.value()?.parse()?),
            Long("skip-host-kinds") => raw.skip_host_kinds = Some(true),
            Long("keep-alive") => raw.keep_alive = Some(parser.value()?.parse()?),
            Long("stop-timeout") => raw.stop_timeout = Some(parser.value()?.parse()?),
            Long("stop-processes-on-exit") => raw.stop_processes_on_exit = Some(true),
            Long("exit-with-parent") => args.exit_with_parent = true,
            Long("silence") => raw.silence = Some(parser.value()?.parse()?),
            Long("check") => args.command = Command::Check,
            Long("print-key") => args.command = Command::PrintKey,
            Long("help") | Short('h') => args.command = Command::Help,
            Long("version") | Short('V') => args.command = Command::Version,
            other => return Err(other.unexpected()),
        }
    }
    Ok(args)
}

//! The command line.

use std::{ffi::OsString, path::PathBuf};

use super::file::Raw;

/// What `--help` prints.
pub const HELP: &str = "\
groundplan-agent: carries out this node's part of a site's plans

Usage: groundplan-agent [--config FILE] [OPTIONS]

Reads FILE (/etc/groundplan/agent.toml if not given); options go over what it says. The least that is needed:

    site = \"cloud-1\"
    node = \"db-0\"
    broker = \"mqtts://broker.example.org:8883\"
    planner_keys = [\"ed25519:…\"]          # printed by `groundplan key` on the planner

    [tls]
    ca = \"/etc/groundplan/ca.pem\"
    cert = \"/etc/groundplan/node.pem\"
    key = \"/etc/groundplan/node-key.pem\"

Then give the node's own key, which `groundplan-agent --print-key` prints, to the planner.

Identity
      --site NAME              the site
      --node NAME              the node that this agent is
      --key FILE               its signing key, made at the first start (STATE/node.key)
      --planner-key KEY        whose plans it takes: a key or a file of keys; may be given again

Broker
      --broker URL             mqtt://HOST:PORT or mqtts://HOST:PORT
      --tls-ca FILE            authority of the broker's certificate
      --tls-cert FILE          the node's certificate, and
      --tls-key FILE           its key, for mutual TLS
      --keep-alive SPAN        MQTT keep-alive (30s)

Work
      --state-dir DIR          ledger, blobs, records of processes (/var/lib/groundplan)
      --root DIR               put all paths of tasks below DIR (/)
      --facts-dir DIR          its programs tell facts, each printing JSON or text (/etc/groundplan/facts.d)
      --max-parallel N         tasks at a time (number of CPUs, at least 4)
      --max-blob BYTES         largest blob that a plan may name (268435456)
      --max-blobs BYTES        most that a plan's blobs may make up together (1073741824)

End
      --stop-timeout SPAN      how long running tasks may go on after SIGTERM (30s)
      --stop-processes-on-exit stop supervised processes at a clean end; else they run on and are adopted
      --exit-with-parent       end cleanly when standard input is closed

      --print-key              print the node's public key, and make it if there is none
      --config FILE            the configuration file
      --help, --version

The same names with `_` for `-` are the keys of the file, `planner_keys` and the table `tls` apart.
Exit codes: 0 a clean end; 1 an error while running; 2 wrong usage or configuration.
";

/// What the command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Be the agent.
    Run,
    /// Print the public key.
    PrintKey,
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// The command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Args {
    /// What to do.
    pub command: Command,
    /// The configuration file, if one was named.
    pub config: Option<PathBuf>,
    /// Whether to end when standard input is closed.
    pub exit_with_parent: bool,
    pub(super) raw: Raw,
}

/// A command line that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{0}; `groundplan-agent --help` lists the options")]
pub struct UsageError(String);

impl Args {
    /// Takes the arguments after the program's name.
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
            Long("max-parallel") => raw.max_parallel = Some(parser.value()?.parse()?),
            Long("max-blob") => raw.max_blob = Some(parser.value()?.parse()?),
            Long("max-blobs") => raw.max_blobs = Some(parser.value()?.parse()?),
            Long("keep-alive") => raw.keep_alive = Some(parser.value()?.parse()?),
            Long("stop-timeout") => raw.stop_timeout = Some(parser.value()?.parse()?),
            Long("stop-processes-on-exit") => raw.stop_processes_on_exit = Some(true),
            Long("exit-with-parent") => args.exit_with_parent = true,
            Long("print-key") => args.command = Command::PrintKey,
            Long("help") | Short('h') => args.command = Command::Help,
            Long("version") | Short('V') => args.command = Command::Version,
            other => return Err(other.unexpected()),
        }
    }
    Ok(args)
}

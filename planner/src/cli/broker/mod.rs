//! `groundplan broker`: passwords for the embedded broker.

mod password;

use std::process::ExitCode;

use clap::Subcommand;

use crate::terminal::{Failure, Output};

/// What brokers need: passwords for agents of the embedded one.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Password(password::Args),
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Password(args) => password::run(args, out),
    }
}

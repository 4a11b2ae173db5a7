//! `groundplan broker`: configurations of brokers, and passwords for the embedded one.

mod config;
mod password;

use std::process::ExitCode;

use clap::Subcommand;

use crate::terminal::{Failure, Output};

/// Configurations of brokers, and passwords for agents of the embedded one.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Config(Box<config::Args>),
    Password(password::Args),
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::Config(args) => config::run(args, out),
        Command::Password(args) => password::run(args, out),
    }
}

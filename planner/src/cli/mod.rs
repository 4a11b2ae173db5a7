//! The `groundplan` command line: one module for each subcommand.
//!
//! In: arguments, environment, files. Out: text or JSON on standard output, errors and progress on standard error, and one of the fixed
//! exit codes. The modules here parse arguments and connect the other parts of this crate; texts come from `terminal`.

mod accept;
mod access;
mod bootstrap;
mod broker;
mod check;
mod drift;
mod exec;
mod folder;
mod forget;
mod format;
mod history;
mod init;
mod key;
mod kinds;
mod observe;
mod park;
mod plan;
mod planner;
mod plugin;
mod recheck;
mod retry;
mod schema;
mod serve;
mod show;
mod source;
mod status;
mod trust;
mod up;
mod what;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand, error::ErrorKind};

use crate::terminal::{Color, Output};

const EXIT_CODES: &str = "\
Exit codes:
  0  success; for `plan`: nothing changes
  1  an error, also in the usage; standard error has the cause
  2  `plan`: something changes; `drift`: something has drifted;
     `status --exit-code`: something is wrong
  2, 3, 4, 130  `exec`: how the command ended; see its help";

const EXAMPLES: &str = "\
Examples:
  groundplan up                     try it: a sample site on this machine
  groundplan init my-site           create a site of your own
  groundplan check my-site          show all its errors at once
  groundplan plan main..HEAD        show what a branch would change on the nodes, and why
  groundplan serve --repo /srv/site.git --broker mqtt://127.0.0.1:1883
  groundplan bootstrap all          install agents on all hosts over ssh
  groundplan status --watch
  groundplan exec 'uptime' --on all";

/// Git-driven orchestration of hosts: restarts what a change affects, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "groundplan", version, max_term_width = 100, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    /// When to use colour; `auto` also respects NO_COLOR.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Init(init::Args),
    Check(check::Args),
    Plan(plan::Args),
    Schema(schema::Args),
    Kinds(kinds::Args),
    Plugin(plugin::Args),
    Serve(serve::Args),
    Status(status::Args),
    Why(why::Args),
    History(history::Args),
    Show(show::Args),
    Drift(drift::Args),
    Recheck(recheck::Args),
    Retry(retry::Args),
    Forget(forget::Args),
    Park(park::Args),
    Unpark(park::UnparkArgs),
    Bootstrap(bootstrap::Args),
    Broker(broker::Args),
    Trust(trust::Args),
    Accept(accept::Args),
    Exec(exec::Args),
    Key(key::Args),
}

/// Runs the command that the process's arguments name, and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    let mut out = Output::new(cli.color);
    let result = match cli.command {
        Command::Up(args) => up::run(args, &mut out),
        Command::Init(args) => init::run(&args, &mut out),
        Command::Check(args) => check::run(&args, &mut out),
        Command::Plan(args) => plan::run(&args, &mut out),
        Command::Kinds(args) => kinds::run(&args, &mut out),
        Command::Plugin(args) => plugin::run(&args, &mut out),
        Command::Schema(args) => schema::run(&args, &mut out),
        Command::Serve(args) => serve::run(args, &mut out),
        Command::Status(args) => status::run(&args, &mut out),
        Command::Why(args) => why::run(&args, &mut out),
        Command::History(args) => history::run(&args, &mut out),
        Command::Show(args) => show::run(&args, &mut out),
        Command::Drift(args) => drift::run(&args, &mut out),
        Command::Recheck(args) => recheck::run(&args, &mut out),
        Command::Retry(args) => retry::run(&args, &mut out),
        Command::Forget(args) => forget::run(&args, &mut out),
        Command::Park(args) => park::run(&args, &mut out),
        Command::Unpark(args) => park::unpark(&args, &mut out),
        Command::Bootstrap(args) => bootstrap::run(&args, &mut out),
        Command::Broker(args) => broker::run(&args, &mut out),
        Command::Trust(args) => trust::run(&args, &mut out),
        Command::Accept(args) => accept::run(&args, &mut out),
        Command::Exec(args) => exec::run(&args, &mut out),
        Command::Key(args) => key::run(&args, &mut out),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::FAILURE
        }
    }
}

/// Prints the help, the version or a usage error. clap itself would exit with 2, which here means that a plan has changes.
fn usage(e: &clap::Error) -> ExitCode {
    // A reader that closed the pipe does not want the text.
    let _ = e.print();
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

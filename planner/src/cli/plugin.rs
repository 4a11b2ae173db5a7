//! `groundplan plugin`: the description of a plugin, beside its program.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Subcommand;
use groundplan_services::plugin::{self, FOLDER, SCHEMA};

use crate::{
    plugins,
    terminal::{Failure, Output},
};

/// Work with the programs in `plugins/`, which add kinds of tasks.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Schema(SchemaArgs),
}

/// Write `plugins/NAME.schema.json`: what the program prints when it is asked for its schema.
///
/// This runs the program, with your rights: read it first. Nothing else does on a machine without an agent: `groundplan check`, `plan`,
/// `serve` and the rest read the file. Agents compare it with what the program prints before they run anything else with it, so write it
/// again, and commit it, when the program describes itself otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan plugin schema timezone && git add plugins/timezone.schema.json

Exit codes: 0 the file is up to date, 1 on errors")]
struct SchemaArgs {
    /// The plugin.
    #[arg(value_name = "NAME")]
    name: String,

    /// The site's top folder.
    #[arg(short = 'C', value_name = "DIR", default_value = ".")]
    directory: PathBuf,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let Command::Schema(SchemaArgs { name, directory }) = &args.command;
    plugin::name(name).map_err(|(message, hint)| Failure::new(message).hint(hint))?;
    let path = format!("{FOLDER}/{name}");
    let program = fs::read(directory.join(&path)).map_err(|e| Failure::because(format!("cannot read {path}"), e))?;
    let text = plugins::printed(&program).map_err(|unusable| {
        let (message, hint) = unusable.explained(&path, &program);
        Failure::new(message).hint(hint)
    })?;
    let described = format!("{path}{SCHEMA}");
    let file = directory.join(&described);
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    // The order of keys and the space between them are the committer's.
    if fs::read_to_string(&file).is_ok_and(|before| value(&before).is_some() && value(&before) == value(&text)) {
        out.print(&format!("{described} is up to date\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    fs::write(&file, text).map_err(|e| Failure::because(format!("cannot write {described}"), e))?;
    out.print(&format!("wrote {described}: commit it with the program\n"))?;
    Ok(ExitCode::SUCCESS)
}

//! `groundplan schema`: JSON schemas of the site's files and of the JSON output.

use std::process::ExitCode;

use clap::ValueEnum;
use groundplan_core::plan::PlanReport;
use schemars::{Schema, schema_for};

use crate::terminal::{Failure, Output};

/// Print the JSON schema of a kind of file, or list the kinds of files.
///
/// Editors use the schemas to complete and check TOML; `groundplan init` writes them into a site.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  groundplan schema\n  groundplan schema service > service.schema.json")]
pub(super) struct Args {
    /// The kind of file.
    #[arg(value_enum, value_name = "WHAT")]
    what: Option<Document>,
}

/// A kind of file that has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Document {
    /// site.toml
    Site,
    /// inventory/**/*.toml
    Inventory,
    /// services/<name>/service.toml
    Service,
    /// the output of `groundplan plan --format json`
    Plan,
}

impl Document {
    /// All kinds, in the order of the list.
    pub(super) const ALL: [Self; 4] = [Self::Site, Self::Inventory, Self::Service, Self::Plan];

    /// Its name on the command line and in `<name>.schema.json`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Inventory => "inventory",
            Self::Service => "service",
            Self::Plan => "plan",
        }
    }

    fn describes(self) -> &'static str {
        match self {
            Self::Site => "site.toml",
            Self::Inventory => "inventory/**/*.toml",
            Self::Service => "services/<name>/service.toml",
            Self::Plan => "the output of `groundplan plan --format json`",
        }
    }

    fn schema(self) -> Schema {
        let file = format!("{}.schema.json", self.name());
        let mut of_files = groundplan_inventory::schemas().into_iter().chain(groundplan_services::schemas());
        let found = of_files.find(|(name, _)| *name == file);
        found.map_or_else(|| schema_for!(PlanReport), |(_, schema)| schema)
    }

    /// Its JSON schema as text.
    pub(super) fn text(self) -> String {
        format!("{:#}\n", self.schema().to_value())
    }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    match args.what {
        Some(what) => out.print(&what.text())?,
        None => {
            let line = |d: &Document| format!("{:<10} {}\n", d.name(), d.describes());
            out.print(&Document::ALL.iter().map(line).collect::<String>())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

//! `groundplan check`: all errors of a site at once.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use groundplan_core::Knowledge;
use serde_json::json;

use super::{
    format::{Format, FormatArg},
    source::{self, Source},
};
use crate::{
    diagnose,
    site::{Cache, Loaded},
    terminal::{Failure, Output, Style, format::count},
};

/// Check a site and show all its errors at once, each with its place and a hint.
///
/// Checks a directory as it is, committed or not, or a commit. Exits with 0 if there is no error, with 1 if there is one.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  groundplan check                this directory\n  groundplan check my-site        that directory\n  groundplan check main~2         a commit of the repository here"
)]
pub(super) struct Args {
    /// A directory, or a revision of the repository.
    #[arg(default_value = ".", value_name = "DIR|REV")]
    what: String,

    /// The repository to find a revision in: this directory, or one above it.
    #[arg(short = 'C', value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let source = open(&args.what, &args.directory)?;
    let loaded = source.load(&Knowledge::default(), &mut Cache::default());
    let texts = |path: &str| source.text(path);
    match (args.format.format, &loaded) {
        (Format::Json, _) => {
            let (sizes, faults) = match &loaded {
                Ok(site) => (sizes(site).map(Some), Vec::new()),
                Err(faults) => ([None; 3], faults.clone()),
            };
            let [nodes, services, tasks] = sizes;
            out.json(&json!({
                "version": 1,
                "ok": loaded.is_ok(),
                "nodes": nodes,
                "services": services,
                "tasks": tasks,
                "diagnostics": if faults.is_empty() { json!([]) } else { diagnose::to_json(&faults, &texts) },
            }))?;
        }
        (Format::Text, Ok(site)) => {
            let [nodes, services, tasks] = sizes(site);
            let sizes = [count(nodes, "node"), count(services, "service"), count(tasks, "task")].join(", ");
            out.print(&format!("{sizes}: {}\n", Style::Good.paint("no errors", out.color())))?;
        }
        (Format::Text, Err(faults)) => {
            out.print(&diagnose::render(faults, &texts, out.color()))?;
        }
    }
    Ok(if loaded.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The directory of that name if there is one, else the commit.
fn open(what: &str, directory: &Path) -> Result<Source, Failure> {
    let folder = directory.join(what);
    if folder.is_dir() {
        return Source::folder(&folder);
    }
    if folder.exists() {
        return Err(Failure::new(format!("{what} is a file")).hint("name the top directory of the site"));
    }
    let neither = |e: Failure| e.hint("name the top directory of a site, or a revision of the repository here");
    let repository = source::repository(directory).map_err(neither)?;
    Source::commit(&repository, what).map_err(neither)
}

/// The numbers of nodes, services and tasks.
fn sizes(site: &Loaded) -> [usize; 3] {
    [site.inventory.nodes.len(), site.catalog.services.len(), site.desired.graph.tasks.len()]
}

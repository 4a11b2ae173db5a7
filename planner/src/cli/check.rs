//! `groundplan check`: all errors of a site at once.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use groundplan_core::Knowledge;
use serde_json::json;

use super::{
    format::{Format, FormatArg},
    source::Source,
};
use crate::{
    diagnose, lint,
    repository::{Repository, RepositoryError},
    site::{Cache, Loaded},
    terminal::{Failure, Output, Style, format::count},
};

/// Check a site and show all its errors at once, each with its place and a hint.
///
/// Checks a directory as it is, committed or not, or a commit. A site without errors gets warnings of what is probably not meant: a var
/// that nothing reads, a parameter that a plugin does not mention, two nodes of one address, a file that is not read. Exits with 0 if
/// there is no error, with 1 if there is one.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  groundplan check                this directory\n  groundplan check my-site        that directory\n  groundplan check main~2         a commit of the repository here\n  groundplan check --deny-warnings  in a pipeline: warnings fail as well"
)]
pub(super) struct Args {
    /// A directory, or a revision of the repository.
    #[arg(default_value = ".", value_name = "DIR|REV")]
    what: String,

    /// The repository to find a revision in: this directory, or one above it.
    #[arg(short = 'C', value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// Exit with 1 if there are warnings as well.
    #[arg(long)]
    deny_warnings: bool,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let source = open(&args.what, &args.directory)?;
    let loaded = source.load(&Knowledge::default(), &mut Cache::default());
    let texts = |path: &str| source.text(path);
    let found = match &loaded {
        Ok(site) => lint::warnings(site, &*source.tree),
        Err(faults) => faults.clone(),
    };
    let ok = loaded.is_ok() && (found.is_empty() || !args.deny_warnings);
    match (args.format.format, &loaded) {
        (Format::Json, _) => {
            let [nodes, services, tasks] = loaded.as_ref().map_or([None; 3], |site| sizes(site).map(Some));
            out.json(&json!({
                "version": 1,
                "ok": ok,
                "nodes": nodes,
                "services": services,
                "tasks": tasks,
                "diagnostics": diagnose::to_json(&found, &texts),
            }))?;
        }
        (Format::Text, Ok(site)) => {
            let [nodes, services, tasks] = sizes(site);
            let sizes = [count(nodes, "node"), count(services, "service"), count(tasks, "task")].join(", ");
            let good = if found.is_empty() { "no errors" } else { "no errors, but warnings" };
            let text = diagnose::render(&found, &texts, out.color());
            out.print(&format!("{text}{sizes}: {}\n", Style::Good.paint(good, out.color())))?;
        }
        (Format::Text, Err(_)) => {
            out.print(&diagnose::render(&found, &texts, out.color()))?;
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    const HINT: &str = "name the top directory of a site, or a revision of the repository here";
    let Ok(repository) = Repository::discover(directory) else {
        let failure = format!("there is no directory `{what}`, and no repository here that has such a revision");
        return Err(Failure::new(failure).hint(HINT));
    };
    if matches!(repository.rev_parse(what), Err(RepositoryError::NoCommit { .. })) {
        return Err(
            Failure::new(format!("`{what}` is no directory, and names no commit of the repository here")).hint(HINT)
        );
    }
    Source::commit(&repository, what)
}

/// The numbers of nodes, services and tasks.
fn sizes(site: &Loaded) -> [usize; 3] {
    [site.inventory.nodes.len(), site.catalog.services.len(), site.desired.graph.tasks.len()]
}

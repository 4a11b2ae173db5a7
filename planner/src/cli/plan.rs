//! `groundplan plan`: what a change would do to the nodes, and why. Computed by the same function as a deployment.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use groundplan_core::{
    AppliedState, DesiredState, Knowledge, Policy, Reason,
    knowledge::Facts,
    locate::Locator,
    plan::{PlanReport, PlannedAction, plan},
};
use groundplan_protocol::ids::{NodeId, TaskId};

use super::{
    format::{Format, FormatArg},
    planner::{self, Planner},
    source::{self, Source},
};
use crate::{
    repository::Repository,
    site::{Cache, Loaded},
    terminal::{self, Failure, Output},
};

/// Show what a change would do to the nodes, and why; needs no node and no broker.
///
/// Assumes that BASE is applied everywhere and plans TARGET: what changes, what restarts because of it, and the reason of each action,
/// down to an input in a file. Exits with 0 if nothing changes, with 2 if something does, with 1 on errors.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan plan                     the changes that are not committed yet
  groundplan plan HEAD                the last commit
  groundplan plan main..HEAD          a branch; a missing end means HEAD
  groundplan plan --from-nothing      a fresh deployment
  groundplan plan main.. --format json | jq -r '.actions[] | .action + \" \" + .node'

The JSON is described by `groundplan schema plan` and docs/plan-format.md.")]
pub(super) struct Args {
    /// BASE..TARGET, or one commit against its parent [default: the work tree against HEAD].
    #[arg(value_name = "BASE..TARGET|REV")]
    range: Option<String>,

    /// Assume that nothing is applied, whatever the base.
    #[arg(long)]
    from_nothing: bool,

    /// The repository: this directory, or one above it.
    #[arg(short = 'C', value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// What nodes have reported, as JSON: `{ "facts": { "NODE": … }, "exports": { "SERVICE.TASK": { "NODE": … } } }`
    /// [default: from the planner on this machine, if there is one].
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

/// The exit code for a plan with actions.
const CHANGES: u8 = 2;

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let (base, target) = ends(args)?;
    let knowledge = knowledge(args)?;
    // One cache for both: files and plugins that they share are read and described once.
    let mut cache = Cache::default();
    let target_site = target.load_or_report(&knowledge, &mut cache, out)?;
    let base_site = base.as_ref().map(|base| {
        base.load_or_report(&knowledge, &mut cache, out).map_err(|e| {
            e.hint("what is applied of a commit with errors is unknown: choose another base, or use --from-nothing")
        })
    });
    let base_site = base_site.transpose()?;
    let applied = applied(base_site.as_ref(), &target_site);
    let mut plan = plan(&target_site.desired, &applied, &Policy::default());
    if let Some(base) = &base_site {
        fill_in(&mut plan.actions, &base.desired);
    }
    // What was removed stands in the base.
    let text = |path: &str| target.text(path).or_else(|| base.as_ref()?.text(path));
    let mut locator = Locator::new(text);
    let commit = |source: &Source| source.commit.clone();
    let report = PlanReport::new(&plan, base.as_ref().and_then(commit), commit(&target), &mut |at| locator.find(at));
    match args.format.format {
        Format::Json => out.json(&report)?,
        Format::Text => out.print(&terminal::plan::render(&report, &target_site.desired.nodes, out.color()))?,
    }
    if let Some(first) = report.prevented.first() {
        let more = match report.prevented.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        let error = format!(
            "this change is refused: it would remove what `{first}`{more} owns, applied with `prevent_destroy = true`"
        );
        return Err(Failure::new(error)
            .hint("keep the task and what it owns, or first deploy a commit that sets `prevent_destroy = false`"));
    }
    Ok(if report.actions.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) })
}

/// The facts and exports of nodes: from the file of `--facts`, or from the planner if one can be reached; else none.
fn knowledge(args: &Args) -> Result<Knowledge, Failure> {
    let Some(path) = &args.facts else {
        return Ok(args.planner.knowledge().unwrap_or_default());
    };
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| Failure::because(format!("cannot read {name}"), e))?;
    let given: Given = serde_json::from_slice(&bytes).map_err(|e| {
        let hint =
            "it must have `facts` by node and `exports` by task and node, like `GET /v1/knowledge` of the planner";
        Failure::because(format!("{name} is not a file of facts"), e).hint(hint)
    })?;
    Ok(planner::known(given.facts, given.exports))
}

/// The content of the file of `--facts`.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Given {
    facts: BTreeMap<NodeId, Facts>,
    exports: BTreeMap<TaskId, BTreeMap<NodeId, String>>,
}

/// The base, `None` for nothing applied, and the target.
fn ends(args: &Args) -> Result<(Option<Source>, Source), Failure> {
    let repository = |()| source::repository(&args.directory);
    let commit =
        |repository: &Repository, rev: &str| Source::commit(repository, if rev.is_empty() { "HEAD" } else { rev });
    let Some(range) = &args.range else {
        if args.from_nothing {
            return Ok((None, Source::folder(&args.directory)?));
        }
        let base = commit(&repository(())?, "HEAD")
            .map_err(|e| e.hint("use --from-nothing in a repository without a commit"))?;
        if !args.directory.join(".git").exists() {
            return Err(Failure::new(format!("{} is not the top of a work tree", args.directory.display()))
                .hint("give its path with -C, or give commits to compare"));
        }
        return Ok((Some(base), Source::folder(&args.directory)?));
    };
    let repository = repository(())?;
    if let Some((base, target)) = range.split_once("..") {
        if target.starts_with('.') {
            let other = range.replacen("...", "..", 1);
            return Err(Failure::new(format!("`{range}` has three dots"))
                .hint(format!("use two dots to compare commits: {other}")));
        }
        let base = if args.from_nothing { None } else { Some(commit(&repository, base)?) };
        return Ok((base, commit(&repository, target)?));
    }
    let target = commit(&repository, range)?;
    // A root commit has no parent: its base is nothing.
    let base = if args.from_nothing { None } else { commit(&repository, &format!("{range}^")).ok() };
    Ok((base, target))
}

/// The applied state if `base` is applied everywhere; nodes that only `target` declares have nothing applied.
fn applied(base: Option<&Loaded>, target: &Loaded) -> AppliedState {
    let mut applied = base.map(|base| AppliedState::of(&base.desired)).unwrap_or_default();
    for node in &target.desired.nodes {
        applied.nodes.entry(node.clone()).or_default();
    }
    applied
}

/// Adds the values before each change: applied states have only digests of them, but the base has the values.
fn fill_in(actions: &mut [PlannedAction], base: &DesiredState) {
    for PlannedAction { instance, reasons, .. } in actions {
        // A chain goes from effect to cause: after `Triggered`, the inputs are those of the instance that triggered.
        let mut of = &*instance;
        for reason in reasons {
            match reason {
                Reason::Triggered { by, .. } => of = by,
                Reason::Changed { input, before: before @ None, .. }
                | Reason::Off { input: Some(input), before: before @ None, .. } => {
                    let inputs = base.instance(of).map(|instance| &instance.resolved.inputs);
                    *before = inputs.and_then(|inputs| inputs.iter().find(|i| i.name == *input)?.value.clone());
                }
                _ => {}
            }
        }
    }
}

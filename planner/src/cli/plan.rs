//! `groundplan plan`: what a change would do to the nodes, and why. The same function plans as when it is deployed.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use groundplan_core::{
    AppliedState, DesiredState, Knowledge, Policy, Reason,
    knowledge::Facts,
    locate::Locator,
    plan::{PlanReport, PlannedAction, plan},
};
use groundplan_protocol::ids::{NodeId, TaskId};

use super::{
    ask::{self, Planner},
    format::{Format, FormatArg},
    source::{self, Source},
};
use crate::{
    repository::Repository,
    site::{Cache, Loaded},
    terminal::{self, Failure, Output},
};

/// Show what a change would do to the nodes, and why. Needs no node and no broker.
///
/// Takes all of BASE as applied and plans TARGET: exactly what changes, what restarts because of it, and the reason for each,
/// down to an input in a file. Exits with 0 if nothing changes, with 2 if something does, with 1 on errors.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan plan                     what is not committed yet
  groundplan plan HEAD                the last commit
  groundplan plan main..HEAD          a branch; a missing end is HEAD
  groundplan plan --from-nothing      a fresh deployment
  groundplan plan main.. --format json | jq -r '.actions[] | .action + \" \" + .node'

The JSON is described by `groundplan schema plan` and docs/plan-format.md.")]
pub(super) struct Args {
    /// BASE..TARGET, or one commit against its parent; the work tree against HEAD if not given.
    #[arg(value_name = "BASE..TARGET|REV")]
    range: Option<String>,

    /// Take nothing as applied, whatever the base.
    #[arg(long)]
    from_nothing: bool,

    /// The repository: this directory, or one above it.
    #[arg(short = 'C', value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// What nodes have told, as JSON like that of `groundplan status`: `{ "facts": { "NODE": … }, "exports": { "SERVICE.TASK": { "NODE": … } } }`;
    /// the planner on this machine is asked if not given.
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

/// Something changes.
const CHANGES: u8 = 2;

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let (base, target) = ends(args)?;
    let knowledge = knowledge(args)?;
    // What both have in common is read, and its plugins asked, once.
    let mut cache = Cache::default();
    let target_site = target.load_or_tell(&knowledge, &mut cache, out)?;
    let base_site = base.as_ref().map(|base| {
        base.load_or_tell(&knowledge, &mut cache, out).map_err(|e| {
            e.hint("what was applied of a commit with errors is unknown: name another base, or --from-nothing")
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
    Ok(if report.actions.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) })
}

/// What nodes have told: by a file, or by the planner if one is there to be asked; else nothing.
fn knowledge(args: &Args) -> Result<Knowledge, Failure> {
    let Some(path) = &args.facts else {
        return Ok(args.planner.knowledge().unwrap_or_default());
    };
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| Failure::because(format!("cannot read {name}"), e))?;
    let given: Given = serde_json::from_slice(&bytes).map_err(|e| {
        let hint = "`facts` by node, `exports` by task and node: as `GET /v1/knowledge` of the planner answers";
        Failure::because(format!("{name} does not tell facts"), e).hint(hint)
    })?;
    Ok(ask::known(given.facts, given.exports))
}

/// What a file tells.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Given {
    facts: BTreeMap<NodeId, Facts>,
    exports: BTreeMap<TaskId, BTreeMap<NodeId, String>>,
}

/// Base, if there is one, and target.
fn ends(args: &Args) -> Result<(Option<Source>, Source), Failure> {
    let repository = |()| source::repository(&args.directory);
    let commit =
        |repository: &Repository, rev: &str| Source::commit(repository, if rev.is_empty() { "HEAD" } else { rev });
    let Some(range) = &args.range else {
        if args.from_nothing {
            return Ok((None, Source::folder(&args.directory)?));
        }
        let base = commit(&repository(())?, "HEAD").map_err(|e| e.hint("`--from-nothing` needs no commit"))?;
        if !args.directory.join(".git").exists() {
            return Err(Failure::new(format!("{} is not the top of a work tree", args.directory.display()))
                .hint("name it with -C, or name commits"));
        }
        return Ok((Some(base), Source::folder(&args.directory)?));
    };
    let repository = repository(())?;
    if let Some((base, target)) = range.split_once("..") {
        if target.starts_with('.') {
            let other = range.replacen("...", "..", 1);
            return Err(Failure::new(format!("`{range}` has three dots")).hint(format!("two compare commits: {other}")));
        }
        let base = if args.from_nothing { None } else { Some(commit(&repository, base)?) };
        return Ok((base, commit(&repository, target)?));
    }
    let target = commit(&repository, range)?;
    // A root commit has no parent: before it there was nothing.
    let base = if args.from_nothing { None } else { commit(&repository, &format!("{range}^")).ok() };
    Ok((base, target))
}

/// All of `base` as applied, and nothing on nodes that only `target` has.
fn applied(base: Option<&Loaded>, target: &Loaded) -> AppliedState {
    let mut applied = base.map(|base| AppliedState::of(&base.desired)).unwrap_or_default();
    for node in &target.desired.nodes {
        applied.nodes.entry(node.clone()).or_default();
    }
    applied
}

/// Values before a change: a node tells digests only, but here the base is at hand.
fn fill_in(actions: &mut [PlannedAction], base: &DesiredState) {
    for PlannedAction { instance, reasons, .. } in actions {
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

//! `groundplan plan`: what a change would do to the nodes, and why. Computed by the same function as a deployment.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

use groundplan_core::{
    AppliedState, DesiredState, Knowledge, Policy, Reason,
    knowledge::Facts,
    locate::Locator,
    plan::{ActionReport, KeyReport, PlanReport, PlannedAction, plan},
};
use groundplan_inventory::{Inventory, Node};
use groundplan_protocol::{
    effect::Action,
    ids::{NodeId, TaskId},
    kinds::{Claim, TaskParams},
    plan::OnRemove,
    state::Applied,
};

use super::{
    format::{Format, FormatArg},
    planner::{self, Planner},
    source::{self, Source},
};
use crate::{
    api::types,
    repository::Repository,
    site::{Cache, Loaded},
    terminal::{
        self, Failure, Output,
        format::{count, first_line, short},
    },
};

/// Show what a change would do to the nodes, and why; needs no node and no broker.
///
/// Assumes that BASE is applied everywhere and plans TARGET: what changes, what restarts because of it, and the reason of each action,
/// down to an input in a file. A base with errors is never applied: the newest commit before it without errors counts instead. Exits with 0
/// if nothing changes, with 2 if something does or cannot be known yet, with 1 on errors.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan plan                     the changes that are not committed yet
  groundplan plan HEAD                the last commit
  groundplan plan main...HEAD         what a branch adds since it left main
  groundplan plan main..HEAD          from what main is to what HEAD is; a missing end means HEAD
  groundplan plan --from-nothing      a fresh deployment
  groundplan plan main.. --format json | jq -r '.actions[] | .action + \" \" + .node'

The JSON is described by `groundplan schema plan` and docs/plan-format.md.")]
pub(super) struct Args {
    /// BASE..TARGET, or with three dots from the newest commit that both have, or one commit against its parent [default: the work tree, as
    /// git would commit it, against HEAD].
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

/// How many commits before a base with errors are tried.
const SEARCHED: usize = 100;

/// The exit code for a plan with actions.
const CHANGES: u8 = 2;

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let (base, target) = ends(args, out)?;
    let rewinds = base.as_ref().and_then(|base| base.rewound);
    let given = given(args)?;
    let knowledge = planner::known(given.facts, given.exports);
    let knowledge = Knowledge { elected: given.elected, present: given.present, ..knowledge };
    // One cache for both: files and plugins that they share are read and described once.
    let mut cache = Cache::default();
    let target_site = target.load_or_report(&knowledge, &mut cache, out)?;
    let (base, base_site) = match base {
        Some(base) => {
            let (base, site) = good_base(args, base, &knowledge, &mut cache, out)?;
            (Some(base), Some(site))
        }
        None => (None, None),
    };
    if let Some((before, after)) = base_site.as_ref().map(|base| (&base.site.name, &target_site.site.name))
        && before != after
    {
        let error = format!("this change is refused: it renames the site from `{before}` to `{after}`");
        return Err(Failure::new(error).hint(format!(
            "agents know the site by its name: keep `{before}`, or start a planner with another --state for a new site"
        )));
    }
    let base_desired = base_site.as_ref().map(|site| &*site.desired);
    let applied = AppliedState::preview(base_desired, &target_site.desired, &given.orphaned);
    let policy = Policy { parked: given.parked, ..Policy::default() };
    let mut plan = plan(&target_site.desired, &applied, &policy);
    if let Some(base) = &base_site {
        fill_in(&mut plan.actions, &base.desired);
    }
    // What was removed stands in the base.
    let text = |path: &str| target.text(path).or_else(|| base.as_ref()?.text(path));
    let mut locator = Locator::new(text);
    let commit = |source: &Source| source.commit.clone();
    let base_commit = base.as_ref().and_then(commit);
    let mut report =
        PlanReport::new(&plan, &target_site.desired, &applied, base_desired, base_commit, commit(&target), &mut |at| {
            locator.find(at)
        });
    if let (Some(base), Some(site)) = (&base, &base_site) {
        // The target may have the same file with another text.
        let mut locator = Locator::new(|path: &str| base.text(path));
        report.locate_prevented(&site.desired, &mut |at| locator.find(at));
        add_restored(args, &mut report, &site.desired);
        name_renamed(&mut report, site, &target_site);
        report.keys = changed_keys(&site.inventory, &target_site.inventory);
    }
    report.rewinds = rewinds;
    match args.format.format {
        Format::Json => out.json(&report)?,
        Format::Text => out.print(&terminal::plan::render(&report, &target_site.desired.nodes, out.color()))?,
    }
    if !report.prevented.is_empty() {
        return Err(prevented(&report));
    }
    // What waits may change too, unless there is no difference that it could come from.
    let may_change = !report.actions.is_empty() && base.as_ref().is_none_or(|base| !base.is_same_site(&target));
    Ok(if report.is_due() || may_change { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
}

/// Adds what removals bring back: what the nodes keep of what the removed tasks own. Asks the planner only if something is to be restored.
fn add_restored(args: &Args, report: &mut PlanReport, before: &DesiredState) {
    let restores =
        |action: &&mut ActionReport| action.action == Action::Remove && action.on_remove == Some(OnRemove::Restore);
    let mut removals = report.actions.iter_mut().filter(restores).peekable();
    if args.facts.is_some() || removals.peek().is_none() {
        return;
    }
    let found = args.planner.found();
    for action in removals {
        let id = action.instance();
        let (Some(instance), Some(found)) = (before.instance(&id), found.get(&id.node)) else { continue };
        // As agents name them.
        let mut owned = BTreeSet::new();
        instance.resolved.spec.params.claims(&id.task, &mut |stated| match &stated.claim {
            Claim::Path(path) => _ = owned.insert(format!("path {path}")),
            Claim::Named { what, name } => _ = owned.insert(format!("{what} {name}")),
            _ => {}
        });
        let members = match &instance.resolved.spec.params {
            TaskParams::Archive(archive) => Some(format!("replaced path {}/", archive.dest.trim_end_matches('/'))),
            _ => None,
        };
        let is_member = |claim: &str| members.as_ref().is_some_and(|members| claim.starts_with(members));
        let things = found.first.iter().filter(|thing| owned.contains(&thing.claim) || is_member(&thing.claim));
        action.restores = things.map(|thing| first_line(&format!("{} ({})", thing.claim, thing.what))).collect();
    }
}

/// How many of the tasks that stand in the way of a change are named.
const NAMED: usize = 5;

/// The refusal of a change that `prevent_destroy` forbids: which tasks, on which nodes, and where they say so.
fn prevented(report: &PlanReport) -> Failure {
    let mut tasks: BTreeMap<&TaskId, Vec<&str>> = BTreeMap::new();
    for instance in &report.prevented {
        tasks.entry(&instance.task).or_default().push(instance.node.as_str());
    }
    let place = |task: &TaskId| {
        let by = report.prevented_by.iter().find(|by| by.instance.task == *task)?;
        Some(by.at.line.map_or_else(|| by.at.file.clone(), |line| format!("{}:{line}", by.at.file)))
    };
    let named = tasks.iter().take(NAMED).map(|(task, nodes)| {
        let nodes = if nodes.len() > NAMED { count(nodes.len(), "node") } else { nodes.join(", ") };
        let place = place(task).map(|place| format!(" ({place})")).unwrap_or_default();
        format!("`{task}` on {nodes}{place}")
    });
    let named = named.collect::<Vec<_>>().join("; ");
    let more = match tasks.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let error = format!(
        "this change is refused, because it would remove what these tasks own, and `prevent_destroy = true` forbids that: {named}{more}"
    );
    let them = if tasks.len() == 1 { "the task" } else { "these tasks" };
    Failure::new(error).hint(format!(
        "keep {them} and what is owned, or first deploy a commit that sets `prevent_destroy = false` there, and then this one"
    ))
}

/// The base if it has no errors, else the newest commit before it that has none: a planner refuses the others.
fn good_base(
    args: &Args,
    base: Source,
    knowledge: &Knowledge,
    cache: &mut Cache,
    out: &mut Output,
) -> Result<(Source, Loaded), Failure> {
    let faults = match base.load(knowledge, cache) {
        Ok(site) => return Ok((base, site)),
        Err(faults) => faults,
    };
    let errors = format!("{} has {}", base.name, count(faults.len(), "error"));
    if let Some(commit) = &base.commit {
        let repository = source::repository(&args.directory)?;
        for before in repository.before(commit, SEARCHED).map_err(|e| source::failure("cannot read the history", e))? {
            let earlier = Source::commit(&repository, before.as_str())?;
            if let Ok(site) = earlier.load(knowledge, cache) {
                let subject = repository.describe(&before).map(|info| info.subject).unwrap_or_default();
                out.note(&format!(
                    "note: {errors}, so a planner refuses it: compared with {} {subject}, the newest commit before it without errors\n",
                    short(before.as_str())
                ));
                return Ok((earlier, site));
            }
        }
    }
    Err(Failure::new(errors).hint("no commit before it is without errors: choose another base, or use --from-nothing"))
}

/// What nodes have reported: from the file of `--facts`, or from the planner if one can be reached; else nothing.
fn given(args: &Args) -> Result<Given, Failure> {
    let Some(path) = &args.facts else {
        let known = args.planner.knowledge();
        return Ok(known.map_or_else(
            Given::default,
            |types::Knowledge { facts, exports, parked, elected, present, orphaned, .. }| Given {
                facts,
                exports,
                parked,
                elected,
                present,
                orphaned,
            },
        ));
    };
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| Failure::because(format!("cannot read {name}"), e))?;
    serde_json::from_slice(&bytes).map_err(|e| {
        let hint =
            "it must have `facts` by node and `exports` by task and node, like `GET /v1/knowledge` of the planner";
        Failure::because(format!("{name} is not a file of facts"), e).hint(hint)
    })
}

/// Names the node under which an orphaned host is declared now: its key or its address shows it.
fn name_renamed(report: &mut PlanReport, base: &Loaded, target: &Loaded) {
    for orphan in &mut report.orphaned {
        let Some(before) = base.inventory.nodes.get(&orphan.node) else { continue };
        let same = |node: &Node| {
            (before.key.is_some() && node.key == before.key)
                || (before.address.is_some() && node.address == before.address)
        };
        let new = target.inventory.nodes.iter().filter(|(id, _)| !base.inventory.nodes.contains_key(*id));
        orphan.renamed_to = new.into_iter().find(|(_, node)| same(node)).map(|(id, _)| id.clone());
    }
}

/// The nodes for which the target names another key than the base.
fn changed_keys(base: &Inventory, target: &Inventory) -> Vec<KeyReport> {
    let changed = target.nodes.iter().filter_map(|(id, node)| {
        let (before, after) = (base.nodes.get(id)?.key?, node.key?);
        let report = KeyReport { node: id.clone(), before: before.to_string(), after: after.to_string() };
        (before != after).then_some(report)
    });
    changed.collect()
}

/// The content of the file of `--facts`.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Given {
    facts: BTreeMap<NodeId, Facts>,
    exports: BTreeMap<TaskId, BTreeMap<NodeId, String>>,
    parked: BTreeSet<NodeId>,
    elected: BTreeMap<TaskId, NodeId>,
    present: BTreeSet<NodeId>,
    /// What is applied on nodes that the active commit does not declare.
    orphaned: BTreeMap<NodeId, BTreeMap<TaskId, Applied>>,
}

/// The base, `None` for nothing applied, and the target.
fn ends(args: &Args, out: &mut Output) -> Result<(Option<Source>, Source), Failure> {
    let repository = |()| source::repository(&args.directory);
    let commit =
        |repository: &Repository, rev: &str| Source::commit(repository, if rev.is_empty() { "HEAD" } else { rev });
    let Some(range) = &args.range else {
        if args.from_nothing && !args.directory.join(".git").exists() {
            return Ok((None, Source::folder(&args.directory)?));
        }
        if args.from_nothing {
            return Ok((None, Source::work_tree(&repository(())?, &args.directory)?));
        }
        let base = commit(&repository(())?, "HEAD")
            .map_err(|e| e.hint("use --from-nothing in a repository without a commit"))?;
        if !args.directory.join(".git").exists() {
            return Err(Failure::new(format!("{} is not the top of a work tree", args.directory.display()))
                .hint("give its path with -C, or give commits to compare"));
        }
        return Ok((Some(base), Source::work_tree(&repository(())?, &args.directory)?));
    };
    let repository = repository(())?;
    if let Some((base, target)) = range.split_once("..") {
        let (base, fork) = (base, target.strip_prefix('.'));
        let target = commit(&repository, fork.unwrap_or(target))?;
        if args.from_nothing {
            return Ok((None, target));
        }
        let mut base = commit(&repository, base)?;
        let (Some(from), Some(to)) = (&base.commit, &target.commit) else { return Ok((Some(base), target)) };
        if fork.is_some() {
            let Some(common) = repository.merge_base(from, to) else {
                return Err(Failure::new(format!("the two ends of `{range}` have no commit in common"))
                    .hint("compare them with two dots; in a shallow clone, first fetch more of the history"));
            };
            let name = short(common.as_str()).to_owned();
            base = Source { name, ..Source::commit(&repository, common.as_str())? };
        } else if let Ok(missing @ 1..) = repository.count_missing(from, to) {
            base.rewound = Some(missing);
            out.note(&format!(
                "note: {2} is no fast-forward of {0}: {0} has {1} that {2} lacks, which this plan takes back; with three dots, `{0}...{2}`, it shows only what {2} adds\n",
                base.name, count(missing, "commit"), target.name
            ));
        }
        return Ok((Some(base), target));
    }
    let target = commit(&repository, range)?;
    // A root commit has no parent: its base is nothing.
    let base = if args.from_nothing { None } else { commit(&repository, &format!("{range}^")).ok() };
    Ok((base, target))
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

//! The values of a scenario: sites read and resolved, what nodes have applied, what is to be checked again.
//!
//! Lines of `applied`, each about a node or an instance:
//! `n1 never reported`, `n1 has nothing`, `n1 is at older`, `app.config@n1 is not applied`, `app.config@n1 reported no inputs`,
//! `app.server@n1 restart is pending`, `app.server@n1 restart is open on config` or `… on gate db.start`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_core::{
    AppliedState, Cache, Check, DesiredState, Knowledge, NodeApplied, Plan, Policy, SourceTree,
    applied::Forget,
    locate::Locator,
    plan::plan,
    resolve,
    source::{EntryKind, MemoryTree},
};
use groundplan_protocol::{
    effect::Effect,
    ids::{GateId, InstanceId, NodeId},
    plan::TriggerSource,
    state::Obligation,
};
use groundplan_services::{
    plugin::{self, Description, ParamCheck, Plugins, Violation},
    tree as site_files,
};
use serde_json::{Map, Value};

use crate::scenario::Scenario;

/// A commit with its site resolved.
pub(crate) struct Commit {
    tree: MemoryTree,
    pub(crate) desired: DesiredState,
}

/// What a plan is made of, and what its reasons refer to.
pub(crate) struct World {
    name: String,
    /// The commit that is applied, if any is.
    base: Option<Commit>,
    /// The commit to be planned.
    pub(crate) head: Commit,
    pub(crate) applied: AppliedState,
    policy: Policy,
}

impl World {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let name = &scenario.name;
        let known = |title: &str| scenario.section(title).map(|text| knowledge(&text));
        let before = known("knowledge before").unwrap_or_default();
        let after = known("knowledge").unwrap_or_else(|| before.clone());
        let base_tree = scenario.section("before").map(|files| overlay(MemoryTree::default(), &files));
        let base = base_tree.as_ref().map(|tree| Commit::read(name, tree.clone(), &before));
        let changes = scenario.section("after").unwrap_or_default();
        let head = Commit::read(name, overlay(base_tree.clone().unwrap_or_default(), &changes), &after);
        let base_desired = base.as_ref().map(|base| &base.desired);
        let mut applied = AppliedState::preview(base_desired, &head.desired, &BTreeMap::new());
        let older = scenario.section("older").map(|files| {
            let tree = overlay(base_tree.unwrap_or_default(), &files);
            AppliedState::of(&Commit::read(name, tree, &before).desired)
        });
        for line in scenario.section("applied").unwrap_or_default().lines() {
            alter(&mut applied, older.as_ref(), line);
        }
        let policy = Policy {
            check: checks(&scenario.section("check").unwrap_or_default()),
            forget: forgets(&scenario.section("forget").unwrap_or_default()),
            parked: nodes(&scenario.section("parked").unwrap_or_default()),
        };
        Self { name: name.clone(), base, head, applied, policy }
    }

    /// The world of the commit that supersedes this one at a `stage`, `next` or `then`, if the scenario has one. What is applied then
    /// comes from the rollout.
    pub(crate) fn next(&self, scenario: &Scenario, stage: &str) -> Option<Self> {
        let section = |of: &str| scenario.section(&format!("{stage}{of}"));
        let files = section("").or_else(|| section(" plan").map(|_| String::new()))?;
        let known = section(" knowledge").or_else(|| scenario.section("knowledge"));
        let known = known.or_else(|| scenario.section("knowledge before"));
        let known = known.map(|text| knowledge(&text)).unwrap_or_default();
        let head = Commit::read(&self.name, overlay(self.head.tree.clone(), &files), &known);
        let base = Commit { tree: self.head.tree.clone(), desired: self.head.desired.clone() };
        let applied = AppliedState::default();
        let parked = nodes(&section(" parked").unwrap_or_default());
        let policy = Policy { parked, ..Policy::default() };
        Some(Self { name: self.name.clone(), base: Some(base), head, applied, policy })
    }

    pub(crate) fn plan(&self) -> Plan {
        self.plan_from(&self.applied)
    }

    pub(crate) fn plan_from(&self, applied: &AppliedState) -> Plan {
        let mut plan = plan(&self.head.desired, applied, &self.policy);
        if let Some(base) = &self.base {
            plan.recall(applied, &base.desired);
        }
        plan
    }

    /// What holds for every plan: it is the same each time, its reasons end at a place, and once it is carried out, nothing is left.
    pub(crate) fn check(&self, plan: &Plan) {
        let name = &self.name;
        assert_eq!(self.plan(), *plan, "{name}: planned again, it is another plan");
        for action in &plan.actions {
            let end = action.reasons.last().and_then(|reason| reason.place());
            assert!(end.is_some(), "{name}: the reasons of {} end nowhere", action.instance);
        }
        let mut applied = self.applied.clone();
        applied.apply(plan);
        let again = groundplan_core::plan(&self.head.desired, &applied, &Policy::default());
        let left: Vec<_> = again.due().map(|action| action.instance.to_string()).collect();
        assert!(left.is_empty(), "{name}: once it is carried out, this is planned again: {left:?}");
    }

    /// Finds lines in the commit to be planned, else in the one that is applied, which has what was removed.
    pub(crate) fn locator(&self) -> Locator<'_> {
        Locator::new(|path| {
            let read = |tree: &MemoryTree| tree.entry(path).and_then(|_| tree.read(path).ok());
            read(&self.head.tree).or_else(|| read(&self.base.as_ref()?.tree))
        })
    }
}

fn nodes(names: &str) -> BTreeSet<NodeId> {
    names.split_whitespace().map(|name| NodeId::new(name).expect("a node's name")).collect()
}

impl Commit {
    fn read(name: &str, tree: MemoryTree, knowledge: &Knowledge) -> Self {
        let wanted = tree.entries().iter().filter(|e| e.kind == EntryKind::File && site_files::wants(&e.path));
        let parsed: Vec<_> = wanted.map(|e| site_files::parse(&e.path, &tree.read(&e.path).unwrap())).collect();
        let plugins = plugins(&tree);
        let (model, faults) = site_files::merge(&parsed, tree.entries().iter().map(|e| &*e.path), &plugins);
        assert!(faults.is_empty(), "{name}: {faults:#?}");
        let site = model.site.expect("a site without faults");
        let mut cache = Cache::default();
        let mut read = || resolve(&site, &model.inventory, &model.catalog, &plugins, &tree, knowledge, &mut cache);
        let (desired, faults) = read();
        let desired = desired.unwrap_or_else(|| panic!("{name}: {faults:#?}"));
        let (again, _) = read();
        let same = again.is_some_and(|again| format!("{again:?}") == format!("{desired:?}"));
        assert!(same, "{name}: resolved with a warm cache, it is another state");
        Self { tree, desired }
    }
}

/// Puts files over a tree.
fn overlay(mut tree: MemoryTree, files: &str) -> MemoryTree {
    for file in format!("\n{files}").split("\n--- ").skip(1) {
        let (path, text) = file.split_once('\n').unwrap_or((file, ""));
        match path.strip_suffix(" removed") {
            Some(path) => tree.remove(path),
            None => tree.write(path, format!("{}\n", text.trim_end())),
        }
    }
    tree
}

/// The plugins of a tree, in which each program is what it would print.
fn plugins(tree: &MemoryTree) -> Plugins {
    /// Takes any parameters: schemas are the business of the planner's own tests.
    #[derive(Debug)]
    struct Anything;

    impl ParamCheck for Anything {
        fn violations(&self, _: &Map<String, Value>) -> Vec<Violation> {
            Vec::new()
        }
    }

    let mut plugins = Plugins::default();
    for entry in tree.entries() {
        let Some(name) = entry.path.strip_prefix("plugins/") else { continue };
        let printed = tree.read(&entry.path).unwrap();
        let description = Description::read(&printed, &|_| Ok(Box::new(Anything))).unwrap();
        plugins.known.insert(plugin::name(name).unwrap(), Arc::new(description));
    }
    plugins
}

fn knowledge(text: &str) -> Knowledge {
    let mut knowledge = Knowledge::default();
    for line in text.lines() {
        let (what, rest) = line.split_once(' ').unwrap();
        let (of, value) = rest.split_once(' ').unwrap_or((rest, ""));
        match what {
            "elected" | "runs" => {
                let InstanceId { task, node } = of.parse().unwrap();
                knowledge.elected.insert(task, node);
                knowledge.not_given_up |= what == "runs";
            }
            "present" => drop(knowledge.present.insert(NodeId::new(of).unwrap())),
            "facts" => {
                let facts = serde_json::from_str(value).unwrap_or_else(|e| panic!("{line}: {e}"));
                knowledge.facts.insert(NodeId::new(of).unwrap(), Arc::new(facts));
            }
            "export" => {
                let InstanceId { task, node } = of.parse().unwrap();
                knowledge.exports.entry(task).or_default().insert(node, value.to_owned());
            }
            _ => panic!("nothing that is known of nodes: {line}"),
        }
    }
    knowledge
}

fn forgets(text: &str) -> BTreeMap<InstanceId, Forget> {
    let forget = |line: &str| {
        let (instance, reason) = line.split_once(' ').unwrap_or((line, ""));
        (instance.parse().unwrap(), Forget { by: "root".to_owned(), reason: reason.to_owned() })
    };
    text.lines().map(forget).collect()
}

fn checks(text: &str) -> BTreeMap<InstanceId, Check> {
    let check = |line: &str| match line.split_once(' ').unwrap() {
        ("recheck", instance) => (instance.parse().unwrap(), Check::Asked),
        ("drifted", rest) => {
            let (instance, what) = rest.split_once(": ").unwrap();
            (instance.parse().unwrap(), Check::Drifted(what.to_owned()))
        }
        _ => panic!("neither recheck nor drifted: {line}"),
    };
    text.lines().map(check).collect()
}

/// Changes what is applied as a line says.
fn alter(applied: &mut AppliedState, older: Option<&AppliedState>, line: &str) {
    let (of, what) = line.split_once(' ').unwrap();
    let Ok(InstanceId { task, node }) = of.parse::<InstanceId>() else {
        let node = NodeId::new(of).unwrap();
        match what {
            "never reported" => drop(applied.nodes.remove(&node)),
            "has nothing" => drop(applied.nodes.insert(node, NodeApplied::default())),
            "is at older" => {
                let older =
                    older.and_then(|older| older.nodes.get(&node)).unwrap_or_else(|| panic!("no older: {line}"));
                applied.nodes.insert(node, older.clone());
            }
            _ => panic!("not understood: {line}"),
        }
        return;
    };
    let at = applied.nodes.get_mut(&node).unwrap_or_else(|| panic!("no such node: {line}"));
    let mut oblige = |effect: &str, fired: bool, open: Vec<TriggerSource>| {
        let effect = match effect {
            "restart" => Effect::Restart,
            "reload" => Effect::Reload,
            "run" => Effect::Run,
            _ => panic!("no effect: {line}"),
        };
        at.obligations.insert(task.clone(), Obligation { effect, fired, open });
    };
    match what {
        "is not applied" => drop(Arc::make_mut(&mut at.tasks).remove(&task)),
        "reported no inputs" => Arc::make_mut(&mut at.tasks).get_mut(&task).expect("applied").inputs.clear(),
        _ => match (what.strip_suffix(" is pending"), what.split_once(" is open on ")) {
            (Some(effect), _) => oblige(effect, true, Vec::new()),
            (_, Some((effect, on))) => {
                let on = match on.strip_prefix("gate ") {
                    Some(gate) => TriggerSource::Gate(GateId::new(gate).unwrap()),
                    None => TriggerSource::Task(on.parse().unwrap()),
                };
                oblige(effect, false, vec![on]);
            }
            _ => panic!("not understood: {line}"),
        },
    }
}

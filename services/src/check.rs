//! Services against the rest of the site: that each kind that is not built in is a plugin's and accepts its triggers, and that each
//! var has one type from the service's default to the node.
//!
//! Whether the services that groups list exist is checked where instances are placed, in the planner's core.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_inventory::{
    Diagnostic, Inventory, Located, Location, Site, Var, hint, merge::type_fault, vars::type_of,
};
use groundplan_protocol::{
    ids::{ServiceId, TaskName},
    kinds::TaskParams,
};

use crate::{
    model::{Catalog, Task, TaskTrigger},
    parse::{not_accepted, two_kinds},
    plugin::{Description, Plugins},
    task::KEYS,
};

/// Faults of keys that no task has and no plugin adds, and of triggers that a plugin's kind does not accept. `strays` are keys of tasks
/// that are not in the catalog.
pub fn plugin_kinds(catalog: &Catalog, strays: &[Located<TaskName>], plugins: &Plugins) -> Vec<Diagnostic> {
    let is_unknown = |stray: &&Located<TaskName>| !plugins.known.contains_key(&stray.value);
    let strays = strays.iter().filter(is_unknown);
    let mut faults: Vec<_> = strays.filter_map(|stray| unknown(stray.value.as_str(), &stray.at, plugins)).collect();
    for task in catalog.services.values().flat_map(|service| &service.tasks) {
        let kind = Located::new(task.params.kind().to_owned(), task.kind_at.clone());
        if let TaskParams::Plugin(plugin) = &task.params {
            match plugins.known.get(&plugin.name) {
                Some(description) => faults.extend(triggers(task, description)),
                None => faults.extend(unknown(kind.value.as_str(), &kind.at, plugins)),
            }
        }
        for stray in &task.strays {
            let name = stray.value.as_str();
            faults.extend(match plugins.known.contains_key(name) {
                true => Some(two_kinds(&task.id, kind.clone(), Located::new(name.to_owned(), stray.at.clone()))),
                false => unknown(name, &stray.at, plugins),
            });
        }
    }
    faults
}

/// The fault of an unknown key; none if it is the kind of a plugin whose own faults have been reported.
fn unknown(key: &str, at: &Location, plugins: &Plugins) -> Option<Diagnostic> {
    if plugins.faulty.contains(key) {
        return None;
    }
    let all: Vec<&str> = KEYS.iter().copied().chain(plugins.known.keys().map(TaskName::as_str)).collect();
    Some(Diagnostic::new(at.clone(), format!("unknown key `{}`", hint::excerpt(key))).hint(hint::choose(key, &all)))
}

fn triggers<'a>(task: &'a Task, description: &'a Description) -> impl Iterator<Item = Diagnostic> + 'a {
    let mut reported = BTreeSet::new();
    task.triggers.iter().filter_map(move |TaskTrigger { effect, on }| {
        let refused = !description.effects.contains(effect) && reported.insert(*effect);
        refused.then(|| not_accepted(task.params.kind(), &task.id, *effect, &description.effects, on.at.clone()))
    })
}

/// The defaults of one var, by their type.
type Defaults<'a> = BTreeMap<&'static str, Vec<(&'a ServiceId, &'a Var)>>;

/// Faults of vars that override a default of another type.
pub fn var_types(site: Option<&Site>, inventory: &Inventory, catalog: &Catalog) -> Vec<Diagnostic> {
    let mut defaults: BTreeMap<&str, Defaults<'_>> = BTreeMap::new();
    for (id, service) in &catalog.services {
        for (name, var) in &service.vars {
            defaults.entry(name).or_default().entry(type_of(&var.value)).or_default().push((id, var));
        }
    }
    let others = |name: &str, var: &Var| {
        let here = type_of(&var.value);
        let types = defaults.get(name).into_iter().flatten();
        types.filter(move |(other, _)| **other != here).flat_map(|(_, defaults)| defaults.iter().copied())
    };
    let mut faults = Vec::new();
    for (name, var) in site.into_iter().flat_map(|site| &site.vars) {
        faults.extend(others(name, var).filter_map(|(_, default)| type_fault(name, var, default)));
    }
    let mut reported: BTreeSet<(&Location, &Location)> = BTreeSet::new();
    for node in inventory.nodes.values() {
        let groups = || node.groups.iter().filter_map(|group| inventory.groups.get(group));
        for (name, var) in &node.vars {
            if site.is_some_and(|site| site.vars.contains_key(name)) {
                continue;
            }
            for (service, default) in others(name, var) {
                let runs = groups().any(|group| group.services.iter().any(|listed| listed.value == *service));
                if runs && reported.insert((&var.at, &default.at)) {
                    faults.extend(type_fault(name, var, default));
                }
            }
        }
    }
    faults
}

//! Services against the inventory: that each var has one type from the service's default to the node.
//!
//! Whether the services that groups list exist is checked where instances are placed, in the planner's core.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_inventory::{Diagnostic, Inventory, Location, Site, Var, merge::type_fault, vars::type_of};
use groundplan_protocol::ids::ServiceId;

use crate::model::Catalog;

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
    let mut told: BTreeSet<(&Location, &Location)> = BTreeSet::new();
    for node in inventory.nodes.values() {
        let groups = || node.groups.iter().filter_map(|group| inventory.groups.get(group));
        for (name, var) in &node.vars {
            if site.is_some_and(|site| site.vars.contains_key(name)) {
                continue;
            }
            for (service, default) in others(name, var) {
                let runs = groups().any(|group| group.services.iter().any(|listed| listed.value == *service));
                if runs && told.insert((&var.at, &default.at)) {
                    faults.extend(type_fault(name, var, default));
                }
            }
        }
    }
    faults
}

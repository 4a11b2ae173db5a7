//! Joins all files of site and inventory: one site, one inventory, and the faults that only show between files.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use groundplan_protocol::{
    ids::{GroupId, NodeId},
    topic::is_reserved,
};

use crate::{
    decode::At,
    diagnostic::{DeclaredIn, Diagnostic, Located, Location},
    hint,
    model::{Group, Inventory, Lifecycle, Node, Var, Vars},
    parse::{InventoryFile, SiteFile},
    schema::{GroupManifest, NodeManifest},
    vars,
};

/// The group that holds every node that is not decommissioned.
pub const ALL: &str = "all";

/// A node or group as declared, with the file it stands in.
struct Declared<'a, T> {
    file: &'a InventoryFile,
    manifest: &'a T,
    at: Location,
}

/// Joins the files, which come in the order of their paths. Their own faults are not repeated. The inventory holds what could be
/// joined in spite of faults.
pub fn merge(site: Option<&SiteFile>, files: &[&InventoryFile]) -> (Inventory, Vec<Diagnostic>) {
    let mut faults = Faults::default();
    let mut groups = BTreeMap::new();
    let mut nodes = BTreeMap::new();
    for file in files {
        declare("group", file, &file.manifest.groups, &mut groups, &mut faults.list);
        declare("node", file, &file.manifest.nodes, &mut nodes, &mut faults.list);
    }
    let group_vars: BTreeMap<GroupId, Vars> =
        groups.iter().map(|(id, group)| ((*id).clone(), vars::place(&group.manifest.vars, &group.file.path))).collect();
    let site_vars = site.and_then(|site| site.site.as_ref()).map(|site| &site.vars);

    let mut inventory = Inventory::default();
    for (id, group) in &groups {
        let services = services(group, &mut faults.list);
        let model = Group { services, nodes: BTreeSet::new(), at: group.at.clone() };
        inventory.groups.insert((*id).clone(), model);
    }
    // Every node is in it, whether or not it is declared.
    if let (Ok(all), false) = (GroupId::new(ALL), inventory.groups.contains_key(ALL)) {
        let at = Location::file("site.toml");
        inventory.groups.insert(all, Group { services: Vec::new(), nodes: BTreeSet::new(), at });
    }
    // Here and not at the nodes: the vars of a group without nodes are checked as well.
    for (group, vars) in &group_vars {
        if group.as_str() == ALL {
            faults.types(vars, &[site_vars]);
        } else {
            faults.types(vars, &[group_vars.get(ALL), site_vars]);
        }
    }
    for (id, node) in &nodes {
        // A certificate of that name would give the node the rights of a planner or an observer at the broker.
        if is_reserved(id.as_str()) {
            let fault = Diagnostic::new(node.at.clone(), format!("a node cannot be called `{id}`"));
            faults.list.push(
                fault.hint("certificates for the broker use this name for planners or observers: choose another"),
            );
        }
        let mut groups = membership(id, node, &inventory, &mut faults.list);
        let vars = node_vars(id, node, &groups, &group_vars, site_vars, &mut faults);
        // Its groups are checked all the same: they count again when the line is taken back.
        let lifecycle = node.manifest.state;
        if lifecycle == Lifecycle::Decommissioned {
            groups.clear();
        }
        for group in &groups {
            if let Some(group) = inventory.groups.get_mut(group) {
                group.nodes.insert((*id).clone());
            }
        }
        let model = Node {
            lifecycle,
            groups,
            address: node.manifest.address.as_ref().map(|address| address.value.clone()),
            labels: node.manifest.labels.clone(),
            vars,
            key: node.manifest.key.as_ref().map(|key| key.value),
            at: node.at.clone(),
        };
        inventory.nodes.insert((*id).clone(), model);
    }
    (inventory, faults.list)
}

/// The vars of a node without those of the site: its own override those of its groups, which override those of `all`.
fn node_vars(
    id: &NodeId,
    node: &Declared<'_, NodeManifest>,
    member_of: &BTreeSet<GroupId>,
    group_vars: &BTreeMap<GroupId, Vars>,
    site_vars: Option<&Vars>,
    faults: &mut Faults,
) -> Vars {
    let own = vars::place(&node.manifest.vars, &node.file.path);
    let mut merged = group_vars.get(ALL).cloned().unwrap_or_default();
    let mut from_groups = Vars::new();
    // No group overrides another: two that disagree are a fault, unless the node decides itself.
    for group in member_of.iter().filter(|group| group.as_str() != ALL) {
        for (name, var) in group_vars.get(group).into_iter().flatten() {
            if !own.contains_key(name) {
                faults.conflict(id, name, from_groups.get(name), var);
            }
            from_groups.entry(name.clone()).or_insert_with(|| var.clone());
        }
    }
    merged.extend(from_groups);
    // Against what the node's own vars override, so before they are merged in.
    faults.types(&own, &[Some(&merged), site_vars]);
    merged.extend(own);
    merged
}

/// Adds what a file declares; a name that another file has declared before is a fault.
fn declare<'a, I: Ord + std::fmt::Display, T>(
    what: &str,
    file: &'a InventoryFile,
    declared: &'a BTreeMap<At<I>, T>,
    into: &mut BTreeMap<&'a I, Declared<'a, T>>,
    faults: &mut Vec<Diagnostic>,
) {
    for (id, manifest) in declared {
        let at = id.location(&file.path);
        match into.entry(&id.value) {
            Entry::Vacant(entry) => {
                entry.insert(Declared { file, manifest, at });
            }
            Entry::Occupied(first) => faults.push(
                Diagnostic::new(at, format!("the {what} `{}` is declared twice", id.value))
                    .label("declared again")
                    .related(first.get().at.clone(), "first declared here")
                    .hint("keep one of the two, or rename one"),
            ),
        }
    }
}

/// The services of a group, each once.
fn services(
    group: &Declared<'_, GroupManifest>,
    faults: &mut Vec<Diagnostic>,
) -> Vec<Located<groundplan_protocol::ids::ServiceId>> {
    let mut services: Vec<Located<_>> = Vec::new();
    for service in &group.manifest.services {
        let service = service.clone().located(&group.file.path);
        match services.iter().find(|first| first.value == service.value) {
            None => services.push(service),
            Some(first) => faults.push(twice("service", &service.value, service.at.clone(), first.at.clone())),
        }
    }
    services
}

/// The declared groups of a node, `all` included.
fn membership(
    id: &NodeId,
    node: &Declared<'_, NodeManifest>,
    inventory: &Inventory,
    faults: &mut Vec<Diagnostic>,
) -> BTreeSet<GroupId> {
    let mut seen: BTreeMap<&GroupId, Location> = BTreeMap::new();
    let mut groups: BTreeSet<GroupId> = GroupId::new(ALL).into_iter().collect();
    for group in &node.manifest.groups {
        let at = group.location(&node.file.path);
        if let Some(first) = seen.get(&group.value) {
            faults.push(twice("group", &group.value, at, first.clone()));
            continue;
        }
        seen.insert(&group.value, at.clone());
        if inventory.groups.contains_key(&group.value) {
            groups.insert(group.value.clone());
        } else {
            let names: Vec<_> = inventory.groups.keys().map(GroupId::as_str).collect();
            faults.push(
                Diagnostic::new(at, format!("the node `{id}` is in an undeclared group `{}`", group.value))
                    .label("no such group")
                    .hint(format!(
                        "{}; declare it with `[groups.{}]`",
                        hint::choose(group.value.as_str(), &names),
                        group.value
                    ))
                    .missing_from([DeclaredIn::Inventory]),
            );
        }
    }
    groups
}

fn twice(what: &str, name: &dyn std::fmt::Display, at: Location, first: Location) -> Diagnostic {
    Diagnostic::new(at, format!("the {what} `{name}` is listed twice"))
        .label("listed again")
        .related(first, "first listed here")
        .hint("remove one of the two")
}

/// Faults of vars; each is reported once, on however many nodes it occurs.
#[derive(Default)]
struct Faults {
    list: Vec<Diagnostic>,
    /// The pairs of places that are in a fault already.
    reported: BTreeSet<(Location, Location)>,
}

impl Faults {
    /// Whether each var is of the type that the next lower level gives it.
    fn types(&mut self, vars: &Vars, lower: &[Option<&Vars>]) {
        for (name, var) in vars {
            let below = lower.iter().flatten().find_map(|level| level.get(name));
            self.list.extend(
                below
                    .and_then(|below| type_fault(name, var, below))
                    .filter(|_| below.is_some_and(|below| self.reported.insert((var.at.clone(), below.at.clone())))),
            );
        }
    }

    /// Whether two groups of a node give a var different values.
    fn conflict(&mut self, node: &NodeId, name: &str, first: Option<&Var>, second: &Var) {
        let Some(first) = first.filter(|first| first.value != second.value) else { return };
        if !self.reported.insert((second.at.clone(), first.at.clone())) {
            return;
        }
        self.list.push(
            Diagnostic::new(second.at.clone(), format!("two groups of `{node}` give `{name}` different values"))
                .label("one value")
                .related(first.at.clone(), "the other")
                .hint(format!("set it in one of the two groups only, or move it to the vars of each node such as `{node}`, which override groups")),
        );
    }
}

/// The fault of a var that overrides one of another type.
pub fn type_fault(name: &str, var: &Var, below: &Var) -> Option<Diagnostic> {
    let (here, there) = (vars::type_of(&var.value), vars::type_of(&below.value));
    (here != there).then(|| {
        Diagnostic::new(var.at.clone(), format!("the var `{name}` is {here} here, but {there} where it overrides it"))
            .label(format!("this is {here}"))
            .related(below.at.clone(), format!("this is {there}"))
            .hint(format!("give {there} in both places, or use another name"))
    })
}

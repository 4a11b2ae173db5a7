//! Made-up sites: services with tasks, each of which has one thing of the host.
//!
//! In: operations of the generator. Out: the site's files, and who owns what. Pure.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{ids::TaskId, plan::OnRemove};

use super::{
    choice::{Choice, Fault},
    things::Thing,
};

/// A task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) thing: Thing,
    pub(crate) choice: Choice,
    pub(crate) on_remove: OnRemove,
    /// Whether it comes after none of the tasks before it.
    pub(crate) free: bool,
    /// Whether what can be restarted is, when the file before it in the service changes.
    pub(crate) triggered: bool,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) tasks: Vec<Task>,
}

/// A site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) services: Vec<Service>,
}

/// The owner of a part of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) task: TaskId,
    pub(crate) thing: Thing,
    pub(crate) on_remove: OnRemove,
    pub(crate) form: u8,
    /// What does not change hands otherwise: [`Thing::identity`].
    pub(crate) identity: String,
}

impl Site {
    /// All tasks with their services' names.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = (&Service, &Task)> {
        self.services.iter().flat_map(|service| service.tasks.iter().map(move |task| (service, task)))
    }

    /// The things that tasks have.
    pub(crate) fn things(&self) -> BTreeSet<Thing> {
        self.tasks().map(|(_, task)| task.thing).collect()
    }

    /// Whether a task is to fail.
    pub(crate) fn has_faults(&self) -> bool {
        self.tasks().any(|(_, task)| task.fails())
    }

    /// What is owned, by claim.
    pub(crate) fn owners(&self) -> BTreeMap<String, Owner> {
        let mut owners = BTreeMap::new();
        for (service, task) in self.tasks() {
            let id = task.full_id(service);
            let parts = task.thing.render(&task.id, task.choice).parts;
            for (n, claim) in task.thing.claims(&id, task.choice).into_iter().enumerate() {
                // The claims of the tasks that come with it are the first.
                let part = parts.get(n).and_then(|(suffix, _)| format!("{id}{suffix}").parse().ok());
                let owner = Owner {
                    task: part.unwrap_or_else(|| id.clone()),
                    thing: task.thing,
                    on_remove: task.on_remove,
                    form: task.choice.form,
                    identity: task.thing.identity(task.choice),
                };
                let former = owners.insert(claim.clone(), owner.clone());
                // Packages that others need are there as long as one of these is.
                let is_shared = claim.ends_with("gp-lib") || claim.ends_with("gp-lib.conf");
                assert!(former.is_none() || is_shared, "{claim} has two owners, {former:?} and {owner:?}");
            }
        }
        owners
    }

    /// What no task owns any more, with its last owner, and what becomes of it.
    pub(crate) fn given_up(&self, next: &Self) -> Vec<(String, Owner, OnRemove)> {
        let (kept, policies) = (next.owners(), next.policies());
        let given_up = self.owners().into_iter().filter(|(claim, _)| !kept.contains_key(claim));
        // A task that is still there removes what it owned before by what it declares now.
        let policy = |owner: &Owner| policies.get(&owner.task).copied().unwrap_or(owner.on_remove);
        given_up.map(|(claim, owner)| (claim, owner.clone(), policy(&owner))).collect()
    }

    /// The ids of all tasks.
    pub(crate) fn ids(&self) -> BTreeSet<TaskId> {
        self.policies().into_keys().collect()
    }

    /// What the removal of each task does.
    fn policies(&self) -> BTreeMap<TaskId, OnRemove> {
        let mut policies = BTreeMap::new();
        for (service, task) in self.tasks() {
            let id = task.full_id(service);
            for (suffix, _) in task.thing.render(&task.id, task.choice).parts {
                policies.insert(format!("{id}{suffix}").parse().expect("an id"), task.on_remove);
            }
            policies.insert(id, task.on_remove);
        }
        policies
    }

    /// The inventory, with the entries of nodes, and the services, by path.
    pub(crate) fn files(&self, nodes: &[String]) -> BTreeMap<String, String> {
        let names: Vec<String> = self.services.iter().map(|service| format!("{:?}", service.name)).collect();
        let inventory = format!("[groups.g]\nservices = [{}]\n{}", names.join(", "), nodes.concat());
        let mut files = BTreeMap::from([("inventory/nodes.toml".to_owned(), inventory)]);
        for service in &self.services {
            let folder = format!("services/{}", service.name);
            let mut text = "[service]\n".to_owned();
            let mut file_before = None;
            for task in &service.tasks {
                text += &task.text(file_before);
                if let Some((name, content)) = task.thing.render(&task.id, task.choice).source {
                    files.insert(format!("{folder}/{name}"), content);
                }
                if matches!(task.thing, Thing::Path(_)) {
                    file_before = Some(task.id.as_str());
                }
            }
            files.insert(format!("{folder}/service.toml"), text);
        }
        files
    }
}

impl Task {
    /// Whether it fails on every host.
    pub(crate) fn fails(&self) -> bool {
        self.choice.fault.is_some() || matches!(self.thing, Thing::Broken(_))
    }

    /// Its id with that of its service.
    pub(crate) fn full_id(&self, service: &Service) -> TaskId {
        format!("{}.{}", service.name, self.id).parse().expect("ids are made of letters and digits")
    }

    fn text(&self, file_before: Option<&str>) -> String {
        let rendered = self.thing.render(&self.id, self.choice);
        let mut common = String::new();
        if self.on_remove != OnRemove::Restore {
            common += &format!("on_remove = \"{}\"\n", self.on_remove);
        }
        let mut text = format!("\n[[task]]\nid = \"{}\"\n{}\n{common}", self.id, rendered.kind);
        if self.free {
            text += "requires = []\n";
        }
        if let (true, Some(file), Thing::Unit(_) | Thing::Process(_)) = (self.triggered, file_before, self.thing) {
            text += &format!("restart_on = [\"{file}\"]\n");
        }
        if self.choice.fault == Some(Fault::Ready) {
            text += "ready = { command = \"false\", timeout = \"100ms\" }\n";
        }
        for (suffix, kind) in rendered.parts {
            text += &format!("\n[[task]]\nid = \"{0}{suffix}\"\n{kind}\n{common}requires = [\"{0}\"]\n", self.id);
        }
        text
    }
}

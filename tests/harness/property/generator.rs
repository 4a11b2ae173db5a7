//! The generator: from a seed, sites that change from commit to commit as operators change theirs.
//!
//! In: a seed. Out: steps, each a site, with the commits that come before it unseen, and what happens meanwhile. Every site is one that
//! `groundplan check` accepts, and what is expected of the hosts after it follows from the steps alone. Pure: equal seeds give equal steps.

use std::collections::BTreeSet;

use groundplan_protocol::plan::OnRemove;

use super::{
    choice::Choice,
    site::{Owner, Service, Site, Task},
    things::Thing,
};
use crate::simulator::rng::Rng;

/// How many sites are kept to be reverted to.
const HISTORY: usize = 12;
/// Nothing but tasks is added to a site that has fewer.
const LEAST: usize = 12;
/// No more tasks are added to a site that has so many.
const MOST: usize = 32;

/// What happens from one comparison of hosts to the next.
pub(crate) struct Step {
    /// The site that the hosts are at in the end.
    pub(crate) site: Site,
    /// Commits that no planner sees, because a later one is pushed with them.
    pub(crate) skipped: Vec<Site>,
    /// A commit that is pushed first, and superseded while it is carried out.
    pub(crate) superseded: Option<Site>,
    /// The agent is killed so many milliseconds after a push.
    pub(crate) kill: Option<u64>,
    /// What was done to the site before it, in words.
    pub(crate) done: Vec<String>,
}

/// Steps from a seed.
pub(crate) struct Generator {
    rng: Rng,
    history: Vec<Site>,
    /// Things that tasks left behind, so that nothing is known of them but that.
    left: BTreeSet<Thing>,
    /// Those of them of which a directory may have stayed.
    left_directories: BTreeSet<Thing>,
    /// What tasks may have.
    things: Vec<Thing>,
    /// Whether tasks may fail.
    faults: bool,
    names: usize,
}

impl Generator {
    /// `without`: kinds of things that no site has.
    pub(crate) fn new(seed: u64, faults: bool, without: &[String]) -> Self {
        let kind = |thing: &Thing| thing.to_string().split('(').next().unwrap_or_default().to_lowercase();
        let things = Thing::all().into_iter().filter(|thing| !without.contains(&kind(thing))).collect();
        Self {
            rng: Rng::new(seed),
            history: vec![Site::default()],
            left: BTreeSet::new(),
            left_directories: BTreeSet::new(),
            things,
            faults,
            names: 0,
        }
    }

    /// The next step.
    pub(crate) fn step(&mut self) -> Step {
        let before = self.history.last().expect("the first site is empty").clone();
        loop {
            let step = self.attempt(&before);
            if self.is_good(&before, &step) {
                for (_, owner, on_remove) in before.given_up(&step.site) {
                    if on_remove != OnRemove::Restore {
                        self.left.insert(owner.thing);
                        if owner.identity == "directory" {
                            self.left_directories.insert(owner.thing);
                        }
                    }
                }
                self.history.push(step.site.clone());
                if self.history.len() > HISTORY {
                    self.history.remove(1);
                }
                return step;
            }
        }
    }

    fn attempt(&mut self, before: &Site) -> Step {
        let (mut site, mut done) = (before.clone(), Vec::new());
        let (mut skipped, mut superseded) = (Vec::new(), None);
        let kind = self.rng.below(100);
        if kind < 12 {
            for _ in 0..self.rng.between(1, 3) {
                self.change(&mut site, &mut done);
                skipped.push(site.clone());
                done.push("| skipped".to_owned());
            }
        } else if kind < 24 {
            self.change(&mut site, &mut done);
            superseded = Some(site.clone());
            done.push("| superseded".to_owned());
        }
        self.change(&mut site, &mut done);
        let kill = self.rng.chance(12).then(|| self.rng.between(0, 400));
        done.extend(kill.map(|after| format!("agent killed after {after} ms")));
        Step { site, skipped, superseded, kill, done }
    }

    /// Whether what is expected of the hosts follows from the step.
    fn is_good(&self, before: &Site, step: &Step) -> bool {
        let restores = |from: &Site, to: &Site| {
            from.given_up(to)
                .iter()
                .all(|(_, owner, on_remove)| *on_remove == OnRemove::Restore && owner.on_remove == OnRemove::Restore)
        };
        // Whether a removal has taken place, and by which policy, is not known where tasks fail or a commit is superseded.
        let certain = !before.has_faults() && !step.site.has_faults() && step.superseded.is_none();
        let path: Vec<&Site> = [before].into_iter().chain(&step.superseded).chain([&step.site]).collect();
        let removed = path.windows(2).all(|pair| restores(pair[0], pair[1])) && restores(before, &step.site);
        let all = path.iter().copied().chain(&step.skipped);
        // A directory is not put where something was left that may be none.
        let directories =
            all.clone().flat_map(Site::tasks).filter(|(_, task)| task.thing.is_directory(task.choice.form));
        let placed = directories.map(|(_, task)| task.thing).all(|thing| !self.left.contains(&thing));
        // And nothing where a directory was left, which is never replaced.
        let placed =
            placed && all.clone().flat_map(Site::tasks).all(|(_, task)| !self.left_directories.contains(&task.thing));
        // Nor an archive where one was left: a member may be a directory now that was a file there.
        let archives = all.flat_map(Site::tasks).filter(|(_, task)| matches!(task.thing, Thing::Archive(_)));
        let placed = placed && archives.map(|(_, task)| task.thing).all(|thing| !self.left.contains(&thing));
        // The node may also come from the first to the last at once.
        let mut pairs = path.windows(2).map(|pair| (pair[0], pair[1])).chain([(before, &step.site)]);
        (certain || removed) && placed && pairs.all(|(from, to)| makes_way(from, to))
    }

    /// Applies a few operations.
    fn change(&mut self, site: &mut Site, done: &mut Vec<String>) {
        for _ in 0..self.rng.between(1, 8) {
            let count = site.tasks().count();
            if count < LEAST {
                done.push(self.add(site));
                continue;
            }
            let was = site.clone();
            let words = match self.rng.below(100) {
                0..18 if count < MOST => self.add(site),
                0..24 => self.withdraw(site),
                24..42 => self.alter(site),
                42..48 => self.set_policy(site),
                48..58 => self.rename_task(site),
                58..66 => self.rename_service(site),
                66..74 => self.move_task(site),
                74..80 => self.split(site),
                80..86 => self.merge(site),
                86..89 => self.exchange(site),
                89..92 => self.revert(site),
                92..94 => self.reorder(site),
                _ => self.fail(site),
            };
            if *site != was {
                done.push(words);
            }
        }
        if site.has_faults() && self.rng.chance(60) {
            done.push(self.repair(site));
        }
        site.services.retain(|service| !service.tasks.is_empty());
    }

    fn add(&mut self, site: &mut Site) -> String {
        let used = site.things();
        let free: Vec<Thing> = self.things.iter().copied().filter(|thing| !used.contains(thing)).collect();
        let thing = *self.rng.pick(&free);
        self.put(site, thing)
    }

    /// Puts a new task for a thing into some service.
    fn put(&mut self, site: &mut Site, thing: Thing) -> String {
        let choice = self.choice(thing);
        let on_remove = match self.rng.below(100) {
            0..6 if thing.has_policy() => OnRemove::Keep,
            6..12 if thing.has_policy() => OnRemove::Delete,
            _ => OnRemove::Restore,
        };
        if site.services.is_empty() || self.rng.chance(8) && site.services.len() < 5 {
            let name = self.service_name(site);
            site.services.push(Service { name, tasks: Vec::new() });
        }
        let service = self.rng.below(site.services.len());
        let id = self.task_name(&site.services[service]);
        let task = Task {
            id: id.clone(),
            thing,
            choice,
            on_remove,
            free: self.rng.chance(45),
            triggered: self.rng.chance(50),
        };
        let service = &mut site.services[service];
        let at = self.rng.below(service.tasks.len() + 1);
        service.tasks.insert(at, task);
        format!("add {}.{id} = {thing} {choice:?} {on_remove}", service.name)
    }

    fn choice(&mut self, thing: Thing) -> Choice {
        Choice {
            form: self.rng.below(thing.forms().into()) as u8,
            content: self.rng.below(4) as u8,
            access: self.rng.below(4) as u8,
            fault: None,
        }
    }

    fn withdraw(&mut self, site: &mut Site) -> String {
        if self.rng.chance(15) && site.services.len() > 1 {
            let at = self.rng.below(site.services.len());
            return format!("withdraw the service {}", site.services.remove(at).name);
        }
        let Some((service, at)) = self.any(site) else { return String::new() };
        let task = site.services[service].tasks.remove(at);
        format!("withdraw {}.{} = {}", site.services[service].name, task.id, task.thing)
    }

    fn alter(&mut self, site: &mut Site) -> String {
        let Some((service, at)) = self.any(site) else { return String::new() };
        let name = site.services[service].name.clone();
        let task = &mut site.services[service].tasks[at];
        let new = self.choice(task.thing);
        match self.rng.below(3) {
            0 => task.choice.content = new.content,
            1 => task.choice.form = new.form,
            _ => task.choice.access = new.access,
        }
        if !task.choice.fault.is_none_or(|fault| task.thing.faults(task.choice.form).contains(&fault)) {
            task.choice.fault = None;
        }
        format!("alter {name}.{} = {} {:?}", task.id, task.thing, task.choice)
    }

    fn set_policy(&mut self, site: &mut Site) -> String {
        let Some((service, at)) = self.any(site) else { return String::new() };
        let name = site.services[service].name.clone();
        let task = &mut site.services[service].tasks[at];
        let choices = [OnRemove::Restore, OnRemove::Restore, OnRemove::Keep, OnRemove::Delete];
        if task.thing.has_policy() {
            task.on_remove = *self.rng.pick(&choices);
        }
        format!("{name}.{} is to {}", task.id, task.on_remove)
    }

    fn rename_task(&mut self, site: &mut Site) -> String {
        let Some((service, at)) = self.any(site) else { return String::new() };
        let id = self.task_name(&site.services[service]);
        let service = &mut site.services[service];
        let old = std::mem::replace(&mut service.tasks[at].id, id.clone());
        format!("rename {}.{old} to {id}", service.name)
    }

    fn rename_service(&mut self, site: &mut Site) -> String {
        if site.services.is_empty() {
            return String::new();
        }
        let (at, name) = (self.rng.below(site.services.len()), self.service_name(site));
        let old = std::mem::replace(&mut site.services[at].name, name.clone());
        format!("rename the service {old} to {name}")
    }

    fn move_task(&mut self, site: &mut Site) -> String {
        let Some((service, at)) = self.any(site) else { return String::new() };
        let task = site.services[service].tasks.remove(at);
        let to = self.rng.below(site.services.len());
        let words = format!("move {}.{} to {}", site.services[service].name, task.id, site.services[to].name);
        self.take_in(&mut site.services[to], task);
        words
    }

    fn split(&mut self, site: &mut Site) -> String {
        if site.services.len() >= 5 || site.services.is_empty() {
            return String::new();
        }
        let (at, name) = (self.rng.below(site.services.len()), self.service_name(site));
        let tasks = std::mem::take(&mut site.services[at].tasks);
        let (stay, leave) = tasks.into_iter().partition(|_| self.rng.chance(50));
        site.services[at].tasks = stay;
        site.services.push(Service { name: name.clone(), tasks: leave });
        format!("split {} and {name}", site.services[at].name)
    }

    fn merge(&mut self, site: &mut Site) -> String {
        if site.services.len() < 2 {
            return String::new();
        }
        let gone = site.services.remove(self.rng.below(site.services.len()));
        let into = self.rng.below(site.services.len());
        for task in gone.tasks {
            self.take_in(&mut site.services[into], task);
        }
        format!("merge {} into {}", gone.name, site.services[into].name)
    }

    /// Two tasks exchange what they manage.
    fn exchange(&mut self, site: &mut Site) -> String {
        let (Some((s1, t1)), Some((s2, t2))) = (self.any(site), self.any(site)) else { return String::new() };
        let one = site.services[s1].tasks[t1].clone();
        let other = std::mem::replace(&mut site.services[s2].tasks[t2], one.clone());
        let ids = (one.id, other.id.clone());
        site.services[s2].tasks[t2].id.clone_from(&ids.1);
        if (s1, t1) != (s2, t2) {
            site.services[s1].tasks[t1] = Task { id: ids.0.clone(), ..other };
        }
        format!("exchange {}.{} and {}.{}", site.services[s1].name, ids.0, site.services[s2].name, ids.1)
    }

    fn revert(&mut self, site: &mut Site) -> String {
        let at = self.rng.below(self.history.len());
        site.clone_from(&self.history[at]);
        format!("revert by {}", self.history.len() - at)
    }

    fn reorder(&mut self, site: &mut Site) -> String {
        let Some((service, at)) = self.any(site) else { return String::new() };
        let tasks = &mut site.services[service].tasks;
        let task = tasks.remove(at);
        tasks.insert(self.rng.below(tasks.len() + 1), task);
        format!("reorder {}", site.services[service].name)
    }

    /// Has a task fail, or adds one that does.
    fn fail(&mut self, site: &mut Site) -> String {
        if !self.faults {
            return self.alter(site);
        }
        let used = site.things();
        let broken: Vec<Thing> = Thing::broken().into_iter().filter(|thing| !used.contains(thing)).collect();
        if self.rng.chance(50) && !broken.is_empty() {
            let thing = *self.rng.pick(&broken);
            return self.put(site, thing);
        }
        let Some((service, at)) = self.any(site) else { return String::new() };
        let name = site.services[service].name.clone();
        let task = &mut site.services[service].tasks[at];
        let faults = task.thing.faults(task.choice.form);
        if faults.is_empty() {
            return String::new();
        }
        task.choice.fault = Some(*self.rng.pick(faults));
        // Only a task that is new or changed is carried out.
        task.choice.content = (task.choice.content + 1) % 4;
        format!("{name}.{} = {} fails: {:?}", task.id, task.thing, task.choice)
    }

    /// Repairs or withdraws all that fails.
    fn repair(&mut self, site: &mut Site) -> String {
        let mut words = "repair".to_owned();
        for service in &mut site.services {
            let name = service.name.clone();
            service.tasks.retain_mut(|task| {
                if !task.fails() {
                    return true;
                }
                words += &format!(" {name}.{}", task.id);
                task.choice.fault = None;
                !matches!(task.thing, Thing::Broken(_)) && self.rng.chance(50)
            });
        }
        words
    }

    /// Puts a task into a service, under another id if its own is taken.
    fn take_in(&mut self, service: &mut Service, mut task: Task) {
        if service.tasks.iter().any(|other| other.id == task.id) {
            task.id = self.task_name(service);
        }
        let at = self.rng.below(service.tasks.len() + 1);
        service.tasks.insert(at, task);
    }

    /// Some task: its service and its place there.
    fn any(&mut self, site: &Site) -> Option<(usize, usize)> {
        let all: Vec<(usize, usize)> = site
            .services
            .iter()
            .enumerate()
            .flat_map(|(s, service)| (0..service.tasks.len()).map(move |t| (s, t)))
            .collect();
        (!all.is_empty()).then(|| *self.rng.pick(&all))
    }

    /// A name that the service has not; mostly one that other tasks have had.
    fn task_name(&mut self, service: &Service) -> String {
        loop {
            let name = if self.rng.chance(60) {
                format!("t{}", self.rng.below(30))
            } else {
                self.names += 1;
                format!("n{}", self.names)
            };
            if service.tasks.iter().all(|task| task.id != name) {
                return name;
            }
        }
    }

    fn service_name(&mut self, site: &Site) -> String {
        loop {
            let name = format!("s{}", self.rng.below(9));
            if site.services.iter().all(|service| service.name != name) {
                return name;
            }
        }
    }
}

/// Whether all that one task gives to another without handing it over is restored in between: otherwise what is there is neither's.
fn makes_way(before: &Site, after: &Site) -> bool {
    let now = after.owners();
    let both = before.owners().into_iter().filter_map(|(claim, was)| Some((was, now.get(&claim)?.clone())));
    let restores = |on_remove: OnRemove| on_remove == OnRemove::Restore;
    let removed = |was: &Owner, is: &Owner| {
        let is_directory = |owner: &Owner| owner.identity == "directory";
        let differs = was.identity != is.identity && !matches!(was.thing, Thing::Path(_)) && was.task != is.task;
        differs || is_directory(was) != is_directory(is)
    };
    let mut removed = both.filter(|(was, is)| removed(was, is));
    removed.all(|(was, is)| restores(was.on_remove) && restores(is.on_remove))
}

//! Made-up sites: a small grammar of nodes, groups, services and tasks, written out as the files that an operator would commit.
//!
//! In: chance. Out: a [`Sketch`], other sketches that a person might make of it, and its files. A sketch refers backwards only, so that
//! most of what is made up is without fault; what is not is refused by the real code, which is a case as well.

use std::{collections::BTreeSet, fmt::Write as _};

use groundplan_core::{
    SourceTree as _,
    source::{Entry, MemoryTree},
};

use super::rng::Rng;

/// A site in outline.
#[derive(Debug, Clone)]
pub(super) struct Sketch {
    pub(super) nodes: Vec<SketchNode>,
    services: Vec<SketchService>,
    /// A var of the site, which some tasks use.
    color: u32,
    /// Changes with commits that change nothing else.
    note: u32,
    /// Whether a file holds a fault.
    pub(super) fault: bool,
    next_task: u32,
}

/// A declared node.
#[derive(Debug, Clone)]
pub(super) struct SketchNode {
    pub(super) name: String,
    /// Numbers of its services.
    services: BTreeSet<usize>,
    size: u32,
    /// Its `state` in the inventory, if it has one.
    pub(super) state: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct SketchService {
    name: String,
    tasks: Vec<SketchTask>,
    requires: Option<String>,
    max_unavailable: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Link,
    Process,
    Command { guarded: bool },
    Export { computed: bool },
}

#[derive(Debug, Clone)]
struct SketchTask {
    name: String,
    /// What a link owns. It stays when the task is renamed.
    path: String,
    kind: Kind,
    version: u32,
    requires: Option<Vec<String>>,
    /// `restart_on`, `reload_on` or `run_on`, with the source.
    triggers: Vec<(&'static str, String)>,
    once: bool,
    when: bool,
    fact: bool,
    color: bool,
    size: bool,
    export: Option<(String, bool)>,
    fails_if_interrupted: bool,
}

impl Sketch {
    pub(super) fn any(rng: &mut Rng) -> Self {
        let (nodes, services) = (rng.between(3, 6) as usize, rng.between(2, 5) as usize);
        let mut sketch =
            Self { nodes: Vec::new(), services: Vec::new(), color: 0, note: 0, fault: false, next_task: 0 };
        for _ in 0..services {
            sketch.add_service(rng);
        }
        for n in 0..nodes {
            let mut runs: BTreeSet<usize> = (0..services).filter(|_| rng.chance(55)).collect();
            if n < services {
                runs.insert(n);
            }
            sketch.nodes.push(SketchNode { name: format!("n{n}"), services: runs, size: 0, state: None });
        }
        for extra in nodes..services {
            let n = rng.below(nodes);
            sketch.nodes[n].services.insert(extra);
        }
        sketch
    }

    fn add_service(&mut self, rng: &mut Rng) {
        let number = self.services.len();
        let before = self.references(number, usize::MAX, rng);
        let requires = (!before.is_empty() && rng.chance(35)).then(|| rng.pick(&before).clone());
        let max_unavailable = rng.chance(40).then(|| rng.between(1, 2) as u32);
        self.services.push(SketchService { name: format!("s{number}"), tasks: Vec::new(), requires, max_unavailable });
        for _ in 0..rng.between(1, 4) {
            self.add_task(number, rng);
        }
    }

    /// What the next task of a service may refer to in services before it.
    fn references(&self, service: usize, tasks: usize, rng: &mut Rng) -> Vec<String> {
        let mut found = Vec::new();
        for (s, before) in self.services.iter().enumerate().take(service) {
            for task in before.tasks.iter().take(tasks) {
                found.push(format!("{}.{}", before.name, task.name));
                if rng.chance(15) {
                    let at = self.nodes.iter().find(|node| node.services.contains(&s));
                    found.extend(
                        at.filter(|_| !task.once).map(|node| format!("{}.{}@{}", before.name, task.name, node.name)),
                    );
                }
            }
        }
        found
    }

    fn add_task(&mut self, service: usize, rng: &mut Rng) {
        self.next_task += 1;
        let name = format!("t{}", self.next_task);
        let kind = match rng.below(10) {
            0..4 => Kind::Link,
            4..7 => Kind::Process,
            7 => Kind::Command { guarded: false },
            8 => Kind::Command { guarded: true },
            _ => Kind::Export { computed: rng.chance(50) },
        };
        let local: Vec<String> = self.services[service].tasks.iter().map(|task| task.name.clone()).collect();
        let foreign = self.references(service, usize::MAX, rng);
        let mut triggers: Vec<(&'static str, String)> = Vec::new();
        let effects: &[&'static str] = match kind {
            Kind::Link => &[],
            Kind::Process => &["restart_on", "restart_on", "reload_on"],
            Kind::Command { .. } | Kind::Export { .. } => &["run_on"],
        };
        for source in local.iter().filter(|_| !effects.is_empty()) {
            if rng.chance(60) {
                triggers.push((*rng.pick(effects), source.clone()));
            }
        }
        if !effects.is_empty() && !foreign.is_empty() && rng.chance(45) {
            triggers.push((*rng.pick(effects), rng.pick(&foreign).clone()));
        }
        let mut requires = match rng.below(4) {
            0 if !foreign.is_empty() => {
                let mut requires: Vec<String> = local.last().cloned().into_iter().collect();
                requires.push(rng.pick(&foreign).clone());
                Some(requires)
            }
            1 => Some(Vec::new()),
            _ => None,
        };
        let exports: Vec<(String, bool)> = self
            .services
            .iter()
            .take(service)
            .flat_map(|before| before.tasks.iter().map(move |task| (&before.name, task)))
            .filter(|(_, task)| matches!(task.kind, Kind::Export { .. }))
            .map(|(service, task)| (format!("{service}.{}", task.name), task.once))
            .collect();
        let export = (!exports.is_empty() && rng.chance(60)).then(|| rng.pick(&exports).clone());
        if let Some((export, _)) = &export {
            requires.get_or_insert_with(|| local.last().cloned().into_iter().collect()).push(export.clone());
        }
        let once = kind != Kind::Link && rng.chance(15);
        let task = SketchTask {
            path: format!("/s{service}/{name}"),
            name,
            version: 0,
            requires,
            triggers,
            once,
            // Not elected and not there: what uses its value would wait for ever.
            when: rng.chance(8) && !once,
            fact: rng.chance(12),
            color: rng.chance(12),
            size: rng.chance(12),
            export,
            fails_if_interrupted: matches!(kind, Kind::Command { guarded: false }) && rng.chance(30),
            kind,
        };
        self.services[service].tasks.push(task);
    }

    /// What a person might make of it next.
    pub(super) fn changed(&self, rng: &mut Rng) -> Self {
        let mut next = self.clone();
        next.fault = false;
        for _ in 0..rng.between(1, 3) {
            next.change(rng);
        }
        next
    }

    /// Another text that asks for the same.
    pub(super) fn touched(&self) -> Self {
        Self { note: self.note + 1, fault: false, ..self.clone() }
    }

    fn change(&mut self, rng: &mut Rng) {
        let s = rng.below(self.services.len());
        let t = rng.below(self.services[s].tasks.len());
        match rng.below(22) {
            0..9 => {
                if let Some(task) = self.services[s].tasks.get_mut(t) {
                    task.version += 1;
                }
            }
            9 => self.color += 1,
            10 => {
                let n = rng.below(self.nodes.len());
                self.nodes[n].size += 1;
            }
            11 => self.add_task(s, rng),
            12 | 13 => self.remove_task(s, t),
            14 => {
                if let Some(task) = self.services[s].tasks.get_mut(t)
                    && !task.triggers.is_empty()
                {
                    let i = rng.below(task.triggers.len());
                    task.triggers.remove(i);
                }
            }
            15 => self.services[s].max_unavailable = rng.chance(60).then(|| rng.between(1, 2) as u32),
            16 => {
                let before = self.references(s, usize::MAX, rng);
                self.services[s].requires = (!before.is_empty() && rng.chance(60)).then(|| rng.pick(&before).clone());
            }
            17 | 18 => {
                let n = rng.below(self.nodes.len());
                if !self.nodes[n].services.remove(&s) {
                    self.nodes[n].services.insert(s);
                }
            }
            19 => {
                if let Some(task) = self.services[s].tasks.get_mut(t) {
                    task.when = !task.when && !task.once;
                }
            }
            20 => {
                if let Some(task) = self.services[s].tasks.get_mut(t) {
                    task.fact = !task.fact;
                }
            }
            _ => self.note += 1,
        }
    }

    /// Removes a task, with what refers to it.
    fn remove_task(&mut self, s: usize, t: usize) {
        if self.services[s].tasks.len() < 2 {
            return;
        }
        let name = self.services[s].tasks.remove(t).name;
        let full = format!("{}.{name}", self.services[s].name);
        let names = |of: &str, local: bool| {
            (local && of == name) || of == full || of.strip_prefix(&full).is_some_and(|rest| rest.starts_with('@'))
        };
        for (number, service) in self.services.iter_mut().enumerate() {
            let local = number == s;
            service.requires.take_if(|of| names(of, false));
            for task in &mut service.tasks {
                if let Some(requires) = &mut task.requires {
                    requires.retain(|of| !names(of, local));
                }
                task.triggers.retain(|(_, of)| !names(of, local));
                task.export.take_if(|(of, _)| *of == full);
            }
        }
    }

    /// Gives a task another name.
    pub(super) fn rename_task(&mut self, rng: &mut Rng) {
        let s = rng.below(self.services.len());
        let t = rng.below(self.services[s].tasks.len());
        if t < self.services[s].tasks.len() {
            self.relocate(s, t, s);
        }
    }

    /// Moves a task to another service, which may be a new one on the same nodes. What results may have a circle, and is refused then.
    pub(super) fn move_task(&mut self, rng: &mut Rng) {
        let s = rng.below(self.services.len());
        let target = rng.below(self.services.len() + 1);
        if self.services[s].tasks.len() < 2 || target == s {
            return;
        }
        if target == self.services.len() {
            let name = format!("s{target}");
            self.services.push(SketchService { name, tasks: Vec::new(), requires: None, max_unavailable: None });
            self.nodes.iter_mut().filter(|node| node.services.contains(&s)).for_each(|node| {
                node.services.insert(target);
            });
        }
        let t = rng.below(self.services[s].tasks.len());
        self.relocate(s, t, target);
    }

    /// Two links exchange their paths; or one gets a new path, and leaves its own to the other one, or to none.
    pub(super) fn exchange(&mut self, rng: &mut Rng) {
        let links: Vec<(usize, usize)> = self
            .services
            .iter()
            .enumerate()
            .flat_map(|(s, service)| service.tasks.iter().enumerate().map(move |(t, task)| (s, t, task)))
            .filter(|(.., task)| task.kind == Kind::Link)
            .map(|(s, t, _)| (s, t))
            .collect();
        if links.len() < 2 {
            return;
        }
        let (one, other) = (*rng.pick(&links), *rng.pick(&links));
        let path = |sketch: &Self, (s, t): (usize, usize)| sketch.services[s].tasks[t].path.clone();
        let (of_one, mut of_other) = (path(self, one), path(self, other));
        match rng.below(5) {
            0..3 if one != other => {}
            choice => {
                self.next_task += 1;
                of_other = format!("/new/t{}", self.next_task);
                if choice == 4 {
                    self.services[one.0].tasks[one.1].path = of_other;
                    return;
                }
            }
        }
        self.services[one.0].tasks[one.1].path = of_other;
        if one != other {
            self.services[other.0].tasks[other.1].path = of_one;
        }
    }

    /// Moves a task to a service under a new name, with the references to it.
    fn relocate(&mut self, s: usize, t: usize, target: usize) {
        let mut task = self.services[s].tasks.remove(t);
        self.next_task += 1;
        let (old, new) = (task.name.clone(), format!("t{}", self.next_task));
        let from = self.services[s].name.clone();
        let (old_full, new_full) = (format!("{from}.{old}"), format!("{}.{new}", self.services[target].name));
        let moved = |of: &mut String, local: bool| {
            if local && *of == old {
                *of = if target == s { new.clone() } else { new_full.clone() };
            } else if let Some(rest) =
                of.strip_prefix(&old_full).filter(|rest| rest.is_empty() || rest.starts_with('@'))
            {
                *of = format!("{new_full}{rest}");
            }
        };
        for (number, service) in self.services.iter_mut().enumerate() {
            service.requires.iter_mut().for_each(|of| moved(of, false));
            for task in &mut service.tasks {
                task.requires.iter_mut().flatten().for_each(|of| moved(of, number == s));
                task.triggers.iter_mut().for_each(|(_, of)| moved(of, number == s));
                task.export.iter_mut().for_each(|(of, _)| moved(of, false));
            }
        }
        if target != s {
            let qualify = |of: &mut String| {
                if !of.contains('.') {
                    *of = format!("{from}.{of}");
                }
            };
            task.requires.iter_mut().flatten().for_each(qualify);
            task.triggers.iter_mut().for_each(|(_, of)| qualify(of));
        }
        task.name = new;
        let tasks = &mut self.services[target].tasks;
        tasks.insert(if target == s { t } else { tasks.len() }, task);
    }

    /// Gives a service another name, with the references to it.
    pub(super) fn rename_service(&mut self, rng: &mut Rng) {
        let s = rng.below(self.services.len());
        self.next_task += 1;
        let new = format!("r{}", self.next_task);
        let old = std::mem::replace(&mut self.services[s].name, new.clone());
        let renamed = |of: &mut String| {
            if let Some(rest) = of.strip_prefix(&old).filter(|rest| rest.starts_with('.')) {
                *of = format!("{new}{rest}");
            }
        };
        for service in &mut self.services {
            service.requires.iter_mut().for_each(renamed);
            for task in &mut service.tasks {
                task.requires.iter_mut().flatten().for_each(renamed);
                task.triggers.iter_mut().for_each(|(_, of)| renamed(of));
                task.export.iter_mut().for_each(|(of, _)| renamed(of));
            }
        }
    }

    /// The node of this name.
    pub(super) fn node_mut(&mut self, name: &str) -> Option<&mut SketchNode> {
        self.nodes.iter_mut().find(|node| node.name == name)
    }

    /// Declares a node again that was declared once.
    pub(super) fn restore_node(&mut self, node: SketchNode) {
        self.nodes.push(node);
    }

    /// Declares a node under this name, with some services.
    pub(super) fn add_node(&mut self, name: &str, rng: &mut Rng) {
        let services = (0..self.services.len()).filter(|_| rng.chance(55)).collect();
        self.nodes.push(SketchNode { name: name.to_owned(), services, size: 0, state: None });
    }

    /// Declares a node no more, with the references to it.
    pub(super) fn remove_node(&mut self, name: &str) {
        self.nodes.retain(|node| node.name != name);
        self.replace_references(name, None);
    }

    /// Gives a node another name.
    pub(super) fn rename_node(&mut self, name: &str, new: &str) {
        self.nodes.iter_mut().filter(|node| node.name == name).for_each(|node| new.clone_into(&mut node.name));
        self.replace_references(name, Some(new));
    }

    fn replace_references(&mut self, name: &str, new: Option<&str>) {
        let suffix = format!("@{name}");
        let replaced = |of: &str| match of.strip_suffix(&suffix) {
            None => Some(of.to_owned()),
            Some(task) => new.map(|new| format!("{task}@{new}")),
        };
        for service in &mut self.services {
            service.requires = service.requires.take().and_then(|of| replaced(&of));
            for task in &mut service.tasks {
                task.requires = task.requires.take().map(|all| all.iter().filter_map(|of| replaced(of)).collect());
                let triggers = task.triggers.iter();
                task.triggers = triggers.filter_map(|(effect, of)| Some((*effect, replaced(of)?))).collect();
            }
        }
    }

    /// Its files in one text, for the trace.
    pub(super) fn text(&self) -> String {
        let tree = self.tree();
        let file = |entry: &Entry| {
            let bytes = tree.read(&entry.path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            format!("== {}\n{}", entry.path, bytes.unwrap_or_default())
        };
        tree.entries().iter().map(file).collect()
    }

    /// Its files.
    pub(super) fn tree(&self) -> MemoryTree {
        let mut tree = MemoryTree::default();
        let mut site = format!("# {}\nname = \"simulated\"\n\n[vars]\ncolor = \"c{}\"\n", self.note, self.color);
        if self.fault {
            site.push_str("\n[varz]\nx = 1\n");
        }
        tree.write("site.toml", site);
        let mut inventory = String::new();
        for (number, service) in self.services.iter().enumerate() {
            let _ = writeln!(inventory, "[groups.g{number}]\nservices = [\"{}\"]\n", service.name);
        }
        for node in &self.nodes {
            let groups: Vec<String> = node.services.iter().map(|service| format!("\"g{service}\"")).collect();
            let _ = writeln!(inventory, "[nodes.{}]\ngroups = [{}]", node.name, groups.join(", "));
            let state = node.state.map(|state| format!("state = \"{state}\"\n")).unwrap_or_default();
            let _ = writeln!(inventory, "{state}");
            let _ = writeln!(inventory, "[nodes.{}.vars]\nsize = \"z{}\"\n", node.name, node.size);
        }
        tree.write("inventory/nodes.toml", inventory);
        for service in &self.services {
            tree.write(format!("services/{}/service.toml", service.name), service.text());
        }
        tree
    }
}

impl SketchService {
    fn text(&self) -> String {
        let mut text = "[service]\n".to_owned();
        if let Some(requires) = &self.requires {
            let _ = writeln!(text, "requires = [\"{requires}\"]");
        }
        for task in &self.tasks {
            task.write(&mut text);
        }
        if let Some(most) = self.max_unavailable {
            let _ = writeln!(text, "\n[rollout]\nmax_unavailable = {most}");
        }
        text
    }
}

impl SketchTask {
    fn write(&self, text: &mut String) {
        let mut value = format!("v{}", self.version);
        if self.color {
            value.push_str("-{{ color }}");
        }
        if self.size {
            value.push_str("-{{ size }}");
        }
        if self.fact {
            value.push_str("-{{ facts.local.rack }}");
        }
        match &self.export {
            Some((export, true)) => {
                let _ = write!(value, "-{{{{ exports.{export} }}}}");
            }
            Some((export, false)) => {
                let _ = write!(
                    value,
                    "-{{% for n, v in exports.{export} | items %}}{{{{ n }}}}={{{{ v }}}};{{% endfor %}}"
                );
            }
            None => {}
        }
        let name = &self.name;
        let _ = writeln!(text, "\n[[task]]\nid = \"{name}\"");
        let _ = match self.kind {
            Kind::Link => writeln!(text, "link = {{ path = \"{}\", target = \"{value}\" }}", self.path),
            Kind::Process => writeln!(text, "process = {{ run = [\"run\", \"{value}\"], reload_signal = \"HUP\" }}"),
            Kind::Command { guarded: false } => writeln!(text, "command = {{ run = [\"do\", \"{value}\"] }}"),
            Kind::Command { guarded: true } => {
                writeln!(text, "command = {{ run = [\"do\", \"{value}\"], unless = [\"done\", \"{value}\"] }}")
            }
            Kind::Export { computed: false } => writeln!(text, "export = {{ value = \"{value}\" }}"),
            Kind::Export { computed: true } => writeln!(text, "export = {{ command = [\"show\", \"{value}\"] }}"),
        };
        let list = |names: &[String]| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        if let Some(requires) = &self.requires {
            let _ = writeln!(text, "requires = [{}]", list(requires));
        }
        for effect in ["restart_on", "reload_on", "run_on"] {
            let of = |(named, of): &(&str, String)| (*named == effect).then(|| of.clone());
            let sources: BTreeSet<String> = self.triggers.iter().filter_map(of).collect();
            let sources: Vec<String> = sources.into_iter().collect();
            if !sources.is_empty() {
                let _ = writeln!(text, "{effect} = [{}]", list(&sources));
            }
        }
        if self.once {
            text.push_str("once = true\n");
        }
        if self.when {
            text.push_str("when = \"facts.local.rack != 'r2'\"\n");
        }
        if self.fails_if_interrupted {
            text.push_str("on_interrupt = \"fail\"\n");
        }
    }
}

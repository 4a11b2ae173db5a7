//! Reads one `service.toml`, and reports the faults that show without any other file.
//!
//! Parameters that contain templates are checked once they are rendered, in the planner's core.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use groundplan_inventory::{
    Diagnostic, Located, Location,
    decode::{At, Document, Toggle, tables},
    hint, parse as inventory, probe, vars,
};
use groundplan_protocol::{
    duration::Span,
    effect::Effect,
    ids::{Capability, TaskName},
    kinds::{Problem, TaskParams},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    model::{Once, Service, Task, TaskTrigger},
    schema::ServiceManifest,
    task::TaskManifest,
    task_fields::{OnceFields, TaskFields},
};

/// The contents of a service's file.
#[derive(Debug, Clone)]
pub struct ServiceFile {
    /// The service, as far as it could be read.
    pub service: Arc<Service>,
    /// Keys of tasks that were left out of the service; each is a plugin's kind or unknown.
    pub strays: Vec<Located<TaskName>>,
    /// Whether something may be declared in it that could not be read.
    pub unread: bool,
    /// Every fault of this file alone, in the order of their places.
    pub diagnostics: Vec<Diagnostic>,
}

/// `once`, as the model represents it.
fn once(field: Option<Toggle<OnceFields>>) -> Option<Once> {
    match field? {
        Toggle::Off => None,
        Toggle::On => Some(Once::default()),
        Toggle::With(table) => Some(Once { failover: table.failover.map(|failover| failover.value) }),
    }
}

/// Reads the file of a service.
pub fn service(path: &Arc<str>, bytes: &[u8]) -> ServiceFile {
    let mut document = Document::parse(path, bytes);
    let syntax = !document.diagnostics.is_empty();
    let manifest = document.decode::<ServiceManifest>().unwrap_or_default();
    let mut reader = Reader { path, faults: Vec::new(), strays: Vec::new() };
    let tables = tasks_by_place(&document);
    let mut tasks: Vec<Task> = Vec::new();
    let declared = manifest.task.len();
    for manifest in manifest.task {
        let table = tables.get(&manifest.value.fields.id.span.start).copied();
        let Some(task) = reader.task(manifest.value, table) else { continue };
        match tasks.iter().find(|first| first.id == task.id) {
            Some(first) => {
                reader.faults.push(
                    Diagnostic::new(task.at, format!("the task `{}` is declared twice", task.id))
                        .label("declared again")
                        .related(first.at.clone(), "first declared here")
                        .hint("give it another id"),
                );
                if let TaskParams::Plugin(plugin) = task.params {
                    reader.strays.push(Located::new(plugin.name, task.kind_at));
                }
                reader.strays.extend(task.strays);
            }
            None => tasks.push(task),
        }
    }
    if syntax {
        // After a syntax error, what could be parsed may not be what was meant: unknown keys are not reported.
        reader.strays.clear();
        tasks.retain(|task| !matches!(task.params, TaskParams::Plugin(_)));
        tasks.iter_mut().for_each(|task| task.strays.clear());
    }
    let service = Service {
        description: manifest.service.description,
        requires: manifest.service.requires.into_iter().map(|reference| reference.located(path)).collect(),
        vars: vars::place(&manifest.vars, path),
        tasks,
        rollout: inventory::rollout(&manifest.rollout),
        drift: manifest.drift.policy,
        folder: path.strip_suffix("/service.toml").unwrap_or(path).to_owned(),
        at: Location::file(path.clone()),
    };
    reader.faults.extend(inventory::retry_fault(manifest.rollout.retry.as_ref(), path));
    if !syntax {
        document.diagnostics.append(&mut reader.faults);
    }
    let unread = document.incomplete || service.tasks.len() < declared;
    ServiceFile { service: Arc::new(service), strays: reader.strays, unread, diagnostics: document.diagnostics }
}

/// The tables of the tasks, by the place of their id.
fn tasks_by_place<'a>(document: &'a Document<'a>) -> BTreeMap<usize, &'a DeTable<'a>> {
    let tasks = document.table().and_then(|root| root.get("task")?.get_ref().as_array());
    tasks.into_iter().flat_map(tables).filter_map(|table| Some((table.get("id")?.span().start, table))).collect()
}

struct Reader<'a> {
    path: &'a Arc<str>,
    faults: Vec<Diagnostic>,
    strays: Vec<Located<TaskName>>,
}

impl Reader<'_> {
    fn at(&self, span: Range<usize>) -> Location {
        Location::new(self.path.clone(), span)
    }

    /// A task; `None` if it has two kinds, as far as they are built in.
    fn task(&mut self, manifest: TaskManifest, table: Option<&DeTable<'_>>) -> Option<Task> {
        let TaskManifest { fields, mut kinds, mut strays } = manifest;
        strays.sort_by_key(|stray| stray.span.start);
        // Without a built-in kind the first unknown key may be a plugin's; which of them are is known only to the tree
        // as a whole.
        let kind = kinds.pop().or_else(|| {
            let At { value, span } = (!strays.is_empty()).then(|| strays.remove(0))?;
            Some(At { value: TaskParams::Plugin(value), span })
        })?;
        let strays = strays.into_iter().map(|At { value, span }| Located::new(value.name, self.at(span))).collect();
        if let Some(other) = kinds.first() {
            self.two_kinds(&fields.id.value, &kind, other);
            self.strays.extend::<Vec<_>>(strays);
            return None;
        }
        let tree = |key: &str| table.and_then(|table| table.get(key));
        let places = |value: Option<&Spanned<DeValue<'_>>>, prefix: &str| -> BTreeMap<String, Range<usize>> {
            value.map(|value| inventory::places(value, prefix)).unwrap_or_default()
        };
        let params_places = places(tree(kind.value.kind()), "");
        self.params(&kind, &params_places);
        let ready_places = places(tree("ready"), "ready");
        if let Some(ready) = &fields.ready {
            let place = |key: &str| {
                let path = if key.is_empty() { "ready".to_owned() } else { format!("ready.{key}") };
                self.at(ready_places.get(&path).cloned().unwrap_or_else(|| ready.span.clone()))
            };
            let faults = probe::faults(&ready.value, true, &place);
            self.faults.extend(faults);
        }
        let prevent_destroy = fields.prevent_destroy.then(|| {
            let span = tree("prevent_destroy").map_or_else(|| fields.id.span.clone(), Spanned::span);
            self.at(span)
        });
        let triggers = self.triggers(&fields, &kind);
        self.on_remove(&fields, &kind);
        self.failover(fields.once.as_ref());
        if let (Some(at), Some(Toggle::With(OnceFields { failover: Some(failover) }))) =
            (&prevent_destroy, &fields.once)
        {
            let message =
                "a task that another node takes over is removed where it was, which `prevent_destroy` forbids";
            let fault = Diagnostic::new(at.clone(), message).label(format!("in `{}`", fields.id.value));
            let fault = fault.related(self.at(failover.span.clone()), "`failover` here");
            self.faults.push(fault.hint("leave one of the two out"));
        }
        self.faults.extend(inventory::retry_fault(fields.retry.as_ref(), self.path));
        self.provides(&fields.provides);
        let mut all: BTreeMap<String, Location> =
            params_places.into_iter().map(|(path, span)| (path, self.at(span))).collect();
        all.extend(fields.when.iter().map(|when| ("when".to_owned(), self.at(when.span.clone()))));
        all.extend(ready_places.into_iter().map(|(path, span)| (path, self.at(span))));
        Some(Task {
            at: fields.id.location(self.path),
            id: fields.id.value,
            kind_at: self.at(kind.span.clone()),
            params: kind.value,
            strays,
            places: all,
            requires: fields.requires.map(|list| list.into_iter().map(|r| r.located(self.path)).collect()),
            needed_by: fields.needed_by.into_iter().map(|reference| reference.located(self.path)).collect(),
            triggers,
            once: once(fields.once),
            when: fields.when.map(|when| when.value),
            ready: fields.ready.map(|ready| ready.value),
            provides: fields.provides.into_iter().map(|capability| capability.located(self.path)).collect(),
            conflicts: fields.conflicts.into_iter().map(|resource| resource.located(self.path)).collect(),
            prevent_destroy,
            retry: fields.retry.map(|retry| retry.map(|table| inventory::retries(&table))),
            on_interrupt: fields.on_interrupt,
            on_remove: fields.on_remove.map(|on_remove| on_remove.value).unwrap_or_default(),
        })
    }

    fn two_kinds(&mut self, id: &TaskName, kind: &At<TaskParams>, other: &At<TaskParams>) {
        let named = |kind: &At<TaskParams>| Located::new(kind.value.kind().to_owned(), self.at(kind.span.clone()));
        self.faults.push(two_kinds(id, named(kind), named(other)));
    }

    /// Reports what is wrong with parameters that are no templates.
    fn params(&mut self, kind: &At<TaskParams>, places: &BTreeMap<String, Range<usize>>) {
        let problems = kind.value.problems();
        if problems.is_empty() {
            return;
        }
        let templated = templated(&kind.value);
        let read = kind.value.given();
        let unknown: Vec<&String> =
            places.keys().filter(|key| !key.contains(['.', '[']) && !read.contains_key(*key)).collect();
        for Problem { param, message, hint } in problems {
            // A template has its value only on a node: it is checked again once it is rendered.
            if templated.iter().any(|name| name == param) {
                continue;
            }
            // What is missing was probably given by a name that is not known, which is a fault already.
            let named: Vec<&str> =
                message.split('`').skip(1).step_by(2).filter(|name| !places.contains_key(*name)).collect();
            if unknown.iter().any(|key| hint::meant(key, &named).is_some()) {
                continue;
            }
            let span = places.get(param).filter(|_| !param.is_empty()).unwrap_or(&kind.span).clone();
            let kind = kind.value.kind();
            let subject = if param.is_empty() { format!("the {kind}") } else { format!("`{param}` of the {kind}") };
            let joint = if message.starts_with('`') { ": " } else { " " };
            let message = format!("{subject}{joint}{message}");
            let mut fault = Diagnostic::new(self.at(span), message);
            fault.hint = hint;
            self.faults.push(fault);
        }
    }

    /// Its triggers, each one that the kind accepts.
    fn triggers(&mut self, fields: &TaskFields, kind: &At<TaskParams>) -> Vec<TaskTrigger> {
        let lists =
            [(Effect::Restart, &fields.restart_on), (Effect::Reload, &fields.reload_on), (Effect::Run, &fields.run_on)];
        let mut triggers = Vec::new();
        for (effect, list) in lists {
            let Some(first) = list.first() else { continue };
            let accepted = kind.value.effects();
            // What a plugin accepts is in its description, which is not at hand here.
            if accepted.contains(&effect) || matches!(kind.value, TaskParams::Plugin(_)) {
                let trigger = |on: &At<_>| TaskTrigger { effect, on: on.clone().located(self.path) };
                triggers.extend(list.iter().map(trigger));
                continue;
            }
            let at = self.at(first.span.clone());
            self.faults.push(not_accepted(kind.value.kind(), &fields.id.value, effect, accepted, at));
        }
        triggers
    }

    /// Reports `on_remove` on a kind that leaves nothing to remove.
    fn on_remove(&mut self, fields: &TaskFields, kind: &At<TaskParams>) {
        let Some(on_remove) = fields.on_remove.as_ref().filter(|_| !kind.value.leaves_something()) else { return };
        let kind = kind.value.kind();
        self.faults.push(
            Diagnostic::new(
                self.at(on_remove.span.clone()),
                format!("a `{kind}` leaves nothing that a removal could {}", on_remove.value),
            )
            .label(format!("in `{}`", fields.id.value))
            .hint("leave `on_remove` out here"),
        );
    }

    /// Reports a failover so soon that a broken connection would have it.
    fn failover(&mut self, once: Option<&Toggle<OnceFields>>) {
        let Some(Toggle::With(OnceFields { failover: Some(failover) })) = once else { return };
        if failover.value < Span::secs(1) {
            let message = format!("a failover after {} is too soon", failover.value);
            let hint = "give at least `1s`; a node counts as away as soon as its connection is gone";
            self.faults.push(Diagnostic::new(self.at(failover.span.clone()), message).hint(hint));
        }
    }

    fn provides(&mut self, provides: &[At<Capability>]) {
        for (i, capability) in provides.iter().enumerate() {
            if let Some(first) = provides[..i].iter().find(|first| first.value == capability.value) {
                self.faults.push(
                    Diagnostic::new(
                        self.at(capability.span.clone()),
                        format!("the capability `{}` is listed twice", capability.value),
                    )
                    .label("listed again")
                    .related(self.at(first.span.clone()), "first listed here")
                    .hint("remove one of the two"),
                );
            }
        }
    }
}

/// The fault of a task with two kinds, in whatever order they come.
pub(crate) fn two_kinds(id: &TaskName, one: Located<String>, other: Located<String>) -> Diagnostic {
    let (first, second) = if one.at.start < other.at.start { (one, other) } else { (other, one) };
    Diagnostic::new(second.at, format!("the task `{id}` has two kinds"))
        .label(format!("`{}` as well", second.value))
        .related(first.at, format!("`{}` here", first.value))
        .hint("split it into two tasks, each with its own id")
}

/// The fault of a trigger that its target's kind does not accept.
pub(crate) fn not_accepted(
    kind: &str,
    task: &TaskName,
    effect: Effect,
    accepted: &[Effect],
    at: Location,
) -> Diagnostic {
    let takes: Vec<_> = accepted.iter().map(|effect| format!("{effect}_on")).collect();
    let advice = if takes.is_empty() {
        format!("a `{kind}` takes no triggers: put `{effect}_on` on the task to {effect}, and name `{task}` there")
    } else {
        format!("a `{kind}` takes {}", hint::list(&takes))
    };
    Diagnostic::new(at, format!("a `{kind}` cannot be acted on by `{effect}_on`"))
        .label(format!("in `{effect}_on` of `{task}`"))
        .hint(advice)
}

/// Names of the parameters that contain templates.
fn templated(params: &TaskParams) -> Vec<String> {
    fn contains(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::String(text) => probe::is_template(text),
            serde_json::Value::Array(list) => list.iter().any(contains),
            serde_json::Value::Object(map) => map.values().any(contains),
            _ => false,
        }
    }
    params.given().into_iter().filter(|(_, value)| contains(value)).map(|(name, _)| name).collect()
}

//! Resolves one task on all its nodes: rendered where no earlier node gave the same answers, shared where one did.
//!
//! In: a task, its service, its nodes, and the results kept from before. Out: instances, or faults; a fault that several nodes have
//! is reported once. What templates include is loaded when it turns out to be needed, and the rendering starts over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::kinds::{ContentSource, TaskParams};

use groundplan_services::plugin::SCHEMA;

use super::{
    content::{Drafts, Missing},
    draft::{self, Draft},
    error::ResolveError,
    instances::Instances,
    memo::{Memo, Resolution},
    resolver::Resolver,
};
use crate::{
    desired::{Instance, NodeIx, Off, Pending},
    knowledge::{Misfit, Unknown},
    render::{Access, Fault, Named, Origins, REPORTED, RenderContext, Templates, is_template},
};

/// Why there is no result.
enum Stop {
    /// Faults, which have been reported.
    Faulty,
    /// A fault that has been reported, of a template that exceeds a limit.
    Exceeding,
    /// It includes templates that are not compiled yet.
    Missing(Missing),
}

impl Stop {
    /// What these faults, once reported, stop.
    fn after<'f>(mut faults: impl Iterator<Item = &'f Fault>) -> Self {
        // Other nodes would take as long, and in vain.
        if faults.any(|fault| fault.exceeds.is_some()) { Self::Exceeding } else { Self::Faulty }
    }
}

impl Resolver<'_, '_, '_> {
    /// Its instances; without those whose faults have been reported.
    pub(crate) fn instances(&mut self, nodes: &[NodeIx], memo: &mut Memo) -> Instances {
        let mut instances = Instances::default();
        let mut next = 0;
        // On a warm cache this is all that happens: no template is compiled.
        self.known(nodes, &mut next, &mut instances, memo);
        if next == nodes.len() {
            return instances;
        }
        // Compile, render for nodes until one needs another template, load that, start over. After each rendering `known` takes as many
        // nodes as the new result is for; so nodes that differ in nothing that the task reads cost one rendering together.
        let (drafts, mut texts) = self.drafts();
        while next < nodes.len() {
            let (templates, faults) = Templates::compile(&texts, &drafts.sinks, self.origins(), &self.run.limits);
            if !faults.is_empty() {
                self.template_faults(faults, &texts, None);
                return instances;
            }
            while next < nodes.len() {
                let node = nodes[next];
                match self.render(&drafts, &templates, &texts, node, memo) {
                    Ok(()) => self.known(nodes, &mut next, &mut instances, memo),
                    Err(Stop::Missing(missing)) => {
                        drop(templates);
                        texts.extend(missing);
                        break;
                    }
                    // A fault that did not come from anything of the node is the same on all nodes: report it once and stop.
                    Err(Stop::Faulty) if self.varies(&templates.log().take(), node) => next += 1,
                    Err(Stop::Faulty | Stop::Exceeding) => return instances,
                }
            }
        }
        instances
    }

    /// The nodes on which its `when` is certain to be false. Where a value is missing, it may still become true.
    pub(crate) fn off(&mut self, nodes: &[NodeIx]) -> Vec<NodeIx> {
        let (texts, sinks) = Default::default();
        let (templates, _) = Templates::compile(&texts, &sinks, Arc::default(), &self.run.limits);
        let is_off = |node: &NodeIx| {
            let place = self.place(*node);
            templates.log().take();
            let holds = self.holds(&templates, &place);
            !templates.log().take().iter().any(|access| place.is_unknown(access)) && holds == Ok(false)
        };
        nodes.iter().copied().filter(|node| is_off(node)).collect()
    }

    /// Whether its `when` holds; true if it has none.
    fn holds(&self, templates: &Templates<'_>, place: &RenderContext) -> Result<bool, Vec<Fault>> {
        let Some(when) = &self.task.when else { return Ok(true) };
        let name = Named::Param { folder: self.home.files.folder, param: "when" }.to_string();
        templates.condition(&name, when, place)
    }

    /// Checks what can be checked without rendering: a service that runs on no node has no vars to render with.
    pub(crate) fn check(&mut self) {
        let (drafts, mut texts) = self.drafts();
        let (templates, mut faults) = Templates::compile(&texts, &drafts.sinks, self.origins(), &self.run.limits);
        let name = self.when_name();
        faults.extend(self.task.when.as_deref().and_then(|when| templates.syntax(&name, when)));
        drop(templates);
        texts.extend(self.task.when.as_deref().map(|when| (name, when.into())));
        self.template_faults(faults, &texts, None);
        // A path that is a template itself is not known here.
        let fault = match self.task.params.source() {
            Some(ContentSource::File(path)) if !is_template(path) => self.home.files.find(path).err(),
            Some(ContentSource::Template(path)) if !is_template(path) => self.home.files.text(path).err(),
            _ => None,
        };
        fault.into_iter().for_each(|fault| self.source_fault(fault));
        if let TaskParams::Plugin(plugin) = &self.task.params
            && texts.is_empty()
            && let Err(error) = self.described(&mut plugin.clone())
        {
            self.report(error, &texts, None);
        }
    }

    /// Takes results from the memo, for nodes from `next` on, up to the first node that it has none for.
    fn known(&mut self, nodes: &[NodeIx], next: &mut usize, instances: &mut Instances, memo: &mut Memo) {
        let mut exports = BTreeSet::new();
        while let Some(node) = nodes.get(*next) {
            let place = self.place(*node);
            let (mut varies, mut facts) = (false, false);
            exports.clear();
            let found = memo.find(self.run.now, |access| {
                // What the task reads is recorded for all nodes, also on this short path: it decides what a later report can change.
                varies |= place.varies(access);
                match access {
                    Access::Fact(_) => facts = true,
                    Access::Export(task, at) => _ = exports.insert((task.clone(), Some(at.clone()))),
                    Access::Exporters(task) => _ = exports.insert((task.clone(), None)),
                    _ => {}
                }
                self.answer(&place, access)
            });
            let Some(resolution) = found else { return };
            // The memo may hold it from a run that tolerated it. This one does not: render again, for the fault.
            if matches!(resolution, Resolution::Misfit(_)) && self.run.misfit == Misfit::Refuse {
                return;
            }
            // Nothing of the node took part: the result holds for all nodes that are left.
            let same = if varies { &nodes[*next..=*next] } else { &nodes[*next..] };
            for node in same {
                let name = self.run.facts.nodes[node.0 as usize].name.value.as_str().unwrap_or_default();
                for (task, at) in &exports {
                    let elsewhere = at.as_deref().is_some_and(|at| at != name);
                    *instances.exports.entry(task.clone()).or_default() |= elsewhere;
                }
                match &resolution {
                    Resolution::Resolved(resolved) => {
                        instances.resolved.push(Instance { node: *node, resolved: resolved.clone() })
                    }
                    Resolution::Pending(on) => instances.pending.push(self.pending(*node, on)),
                    Resolution::Misfit(fault) => {
                        let unknown =
                            Unknown::Fit { fault: fault.to_string(), node: self.run.nodes[node.0 as usize].clone() };
                        instances.pending.push(Pending { node: *node, waits_for: [unknown].into() });
                    }
                    Resolution::Off(off) => instances.off.push((*node, off.clone())),
                }
            }
            if facts {
                instances.facts.extend(same);
            }
            *next += same.len();
        }
    }

    /// The missing values on a node, by what was read there in vain.
    fn pending(&self, node: NodeIx, on: &[Access]) -> Pending {
        let place = self.place(node);
        let here = || self.run.nodes[node.0 as usize].clone();
        let unknown = |access: &Access| match access {
            Access::Export(task, at) => {
                let publisher = self.run.nodes.iter().find(|node| node.as_str() == &**at)?;
                let exported = place.known.exported(task.service.as_str(), task.task.as_str());
                Some(match exported.and_then(|exported| exported.refused(at)) {
                    // Whatever the node reports next may fit: so it counts as a value that is missing.
                    Some(fault) => {
                        let fault = format!("the value of export {task} from {at} {fault}");
                        Unknown::Fit { fault, node: here() }
                    }
                    None => Unknown::Export { task: task.clone(), node: (*publisher).clone() },
                })
            }
            access if place.is_unknown(access) => Some(Unknown::Facts(here())),
            Access::Fact(name) => Some(Unknown::Fact { name: name.to_string(), node: here() }),
            _ => None,
        };
        let waits_for: BTreeSet<Unknown> = on.iter().filter_map(unknown).collect();
        Pending { node, waits_for: waits_for.into_iter().collect() }
    }

    /// What there is to render, and the templates that take part as far as that is known before rendering.
    fn drafts(&self) -> (Drafts, BTreeMap<String, Arc<str>>) {
        let folder = self.home.files.folder;
        let params = Draft::of(&self.task.params, folder, "", draft::depth(&self.task.params));
        let ready = Draft::of(&self.task.ready, folder, "ready.", 0);
        let mut texts = draft::texts([&params, &ready]);
        if let Some(ContentSource::Template(path)) = self.task.params.source()
            && let Ok(text) = self.home.files.text(path)
        {
            texts.insert(Named::File { folder, path }.to_string(), text);
        }
        let sinks = draft::sinks([&params, &ready]);
        (Drafts { params, ready, inputs: draft::parameters(self.task), sinks }, texts)
    }

    /// The vars that are made of what nodes report.
    fn origins(&self) -> Arc<Origins> {
        self.home.facts.origins(&self.run.facts)
    }

    /// Renders for one node and puts the result into `memo`, by everything that was read on the way.
    fn render(
        &mut self,
        drafts: &Drafts,
        templates: &Templates<'_>,
        texts: &BTreeMap<String, Arc<str>>,
        node: NodeIx,
        memo: &mut Memo,
    ) -> Result<(), Stop> {
        let place = self.place(node);
        // The log begins empty, with `when` first: what is read after it counts only where it holds.
        templates.log().take();
        match self.holds(templates, &place) {
            Ok(true) => {}
            held => {
                // Also what is not rendered yet: it will be once the value is known.
                let unknown = templates.log().seen().iter().any(|access| place.is_unknown(access));
                if unknown && self.calls_missing(templates, texts) {
                    return Err(Stop::Faulty);
                }
                return self.not_held(held.err(), templates, &place, node, memo);
            }
        }
        // Inputs that no template names are noted as well, so that the memo distinguishes results by them.
        templates.log().note(Access::Probes);
        if let TaskParams::Plugin(plugin) = &self.task.params {
            templates.log().note(Access::Plugin(plugin.name.as_str().into()));
            templates.log().note(Access::Plugin(format!("{}{SCHEMA}", plugin.name).into()));
        }
        let params = self.params(&drafts.params, templates, &place);
        let shipped = match &params {
            Ok(params) => self.content(params, templates, texts, &place),
            Err(_) => Ok(None),
        };
        // The probe is rendered last: what it reads decides how the result is awaited, and is no input of the fingerprint.
        let decisive = templates.log().seen();
        let ready = self.ready(&drafts.ready, templates, &place);
        // An include that is not compiled looks like a missing file to the engine, so this comes before any fault is reported.
        let main = params.as_ref().ok().and_then(|params| params.source());
        let missing = self.missing(main, &templates.log().seen(), texts);
        if !missing.is_empty() {
            return Err(Stop::Missing(missing));
        }
        let seen = templates.log().seen();
        // With a missing value rendering may succeed all the same, by `is defined` or `default`: the result would be for a value that is
        // absent and not for one that is not known yet.
        let unknown = seen.iter().any(|access| place.is_unknown(access));
        if unknown && self.calls_missing(templates, texts) {
            return Err(Stop::Faulty);
        }
        let resolution = match (params, shipped, ready) {
            (Ok(params), Ok(shipped), Ok(ready)) if !unknown => {
                Resolution::Resolved(Arc::new(self.resolved(params, shipped, ready, drafts, &place, &decisive)))
            }
            (params, shipped, ready) => {
                let errors: Vec<_> = [params.err(), shipped.err(), ready.err()].into_iter().flatten().collect();
                match self.without_result(&errors, &seen, &place) {
                    Some(resolution) => resolution,
                    None => {
                        let varies = self.varies(&seen, node);
                        let stop = Stop::after(errors.iter().filter_map(ResolveError::faults).flatten());
                        errors.into_iter().for_each(|error| self.report(error, texts, varies.then_some(node)));
                        return Err(stop);
                    }
                }
            }
        };
        self.keep(resolution, templates, &place, memo);
        Ok(())
    }

    /// Ends the rendering for a node on which `when` does not hold, or could not be rendered because of `faults`.
    fn not_held(
        &mut self,
        faults: Option<Vec<Fault>>,
        templates: &Templates<'_>,
        place: &RenderContext,
        node: NodeIx,
        memo: &mut Memo,
    ) -> Result<(), Stop> {
        let seen = templates.log().seen();
        let resolution = match &faults {
            Some(faults) => self.without_result(&[ResolveError::Faults(faults.clone())], &seen, place),
            // A missing value may have made it false, by `is defined` or `default`.
            None if seen.iter().any(|access| place.is_unknown(access)) => self.without_result(&[], &seen, place),
            None => Some(self.is_off(&seen, place)),
        };
        match resolution {
            Some(resolution) => {
                self.keep(resolution, templates, place, memo);
                Ok(())
            }
            None => {
                let varies = self.varies(&seen, node);
                let text = self.task.when.as_deref().unwrap_or_default().into();
                let texts = BTreeMap::from([(self.when_name(), text)]);
                let stop = Stop::after(faults.iter().flatten());
                self.template_faults(faults.unwrap_or_default(), &texts, varies.then_some(node));
                Err(stop)
            }
        }
    }

    /// Reports what the templates and `when` call that does not exist, whatever the values are that are missing; whether there is any. Not in
    /// the active commit: there it may be what is never rendered, and a new node is no reason to refuse it.
    fn calls_missing(&mut self, templates: &Templates<'_>, texts: &BTreeMap<String, Arc<str>>) -> bool {
        if self.run.misfit == Misfit::Wait {
            return false;
        }
        let (name, mut texts) = (self.when_name(), texts.clone());
        let when = self.task.when.as_deref();
        let faults = templates.missing(when.map(|when| (&*name, when)));
        let any = !faults.is_empty();
        texts.extend(when.map(|when| (name, when.into())));
        self.template_faults(faults, &texts, None);
        any
    }

    fn when_name(&self) -> String {
        Named::Param { folder: self.home.files.folder, param: "when" }.to_string()
    }

    fn is_off(&mut self, seen: &[Access], place: &RenderContext) -> Resolution {
        let inputs = seen.iter().filter_map(|access| self.input(place, access)).collect();
        let at = draft::place(self.task, "when");
        Resolution::Off(Arc::new(Off { when: self.task.when.clone().unwrap_or_default(), inputs, at }))
    }

    /// Puts a result into `memo`, by what was read and what the answers were.
    fn keep(&mut self, resolution: Resolution, templates: &Templates<'_>, place: &RenderContext, memo: &mut Memo) {
        let log = templates.log().take();
        let trace = log.into_iter().map(|access| (access.clone(), self.answer(place, &access))).collect();
        memo.insert(self.run.now, trace, resolution);
    }

    /// What an instance is that could not be rendered: pending, if a value is missing; a misfit, if the values that are known do not fit
    /// and may change. None if its errors are faults of the site.
    fn without_result(&self, errors: &[ResolveError], seen: &[Access], place: &RenderContext) -> Option<Resolution> {
        let faults = || errors.iter().filter_map(ResolveError::faults);
        let unknown: Vec<_> = seen.iter().filter(|access| place.is_unknown(access)).cloned().collect();
        if !unknown.is_empty() {
            // A fault that was met before any missing value was read does not depend on it. A name below `facts` or `exports` does:
            // it may be defined once the values are there.
            let is_reported = |fault: &Fault| fault.undefined.as_deref().is_some_and(|name| REPORTED.contains(&name));
            let certain = faults().flatten().any(|fault| fault.sure && !is_reported(fault));
            return (!certain).then(|| Resolution::Pending(unknown.into()));
        }
        let reads_reported =
            seen.iter().any(|access| matches!(access, Access::Fact(_) | Access::Export(..) | Access::Exporters(_)));
        // The host's own programs may still report it, so it is missing and not misspelt; but only if nothing else is wrong.
        let unreported = |access: &&Access| {
            matches!(access, Access::Fact(path) if path.starts_with("local.")) && place.fact(access).is_none()
        };
        let unreported: Vec<_> = seen.iter().filter(unreported).cloned().collect();
        let only = faults().flatten().all(|fault| fault.undefined.as_deref() == Some("facts"));
        if !unreported.is_empty() && only && errors.len() == faults().count() {
            return Some(Resolution::Pending(unreported.into()));
        }
        (reads_reported && self.run.misfit == Misfit::Wait)
            .then(|| Resolution::Misfit(errors.first().map_or_else(|| "".into(), ResolveError::first)))
    }
}

//! One task on all its nodes: rendered where no node before it gave the same answers, shared where one did.
//!
//! In: a task, its service, its nodes, and what is known from before. Out: instances, or faults; a fault that several nodes have
//! is reported once. What templates include is loaded when it is asked for, and the rendering begun again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::kinds::{ContentSource, TaskParams};

use super::{
    content::{Drafts, Missing},
    draft::{self, Draft},
    error::ResolveError,
    instances::Instances,
    memo::{Form, Memo},
    resolver::Resolver,
};
use crate::{
    desired::{Instance, NodeIx, Off, Pending},
    knowledge::{Misfit, Unknown},
    render::{Access, Fault, Named, Place, TOLD, Templates, is_template},
};

/// Why there is no result.
enum Stop {
    /// Faults, which have been reported.
    Faulty,
    /// It includes templates that are not compiled yet.
    Missing(Missing),
}

impl Resolver<'_, '_, '_> {
    /// Its instances; without those whose faults have been reported.
    pub(crate) fn instances(&mut self, nodes: &[NodeIx], memo: &mut Memo) -> Instances {
        let mut instances = Instances::default();
        let mut next = 0;
        self.known(nodes, &mut next, &mut instances, memo);
        if next == nodes.len() {
            return instances;
        }
        let (drafts, mut texts) = self.drafts();
        while next < nodes.len() {
            let (templates, faults) = Templates::compile(&texts);
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
                    // What did not ask for anything of the node itself is the same fault on all.
                    Err(Stop::Faulty) if self.varies(&templates.log().take(), node) => next += 1,
                    Err(Stop::Faulty) => return instances,
                }
            }
        }
        instances
    }

    /// Those of the nodes on which its `when` is false, as far as that is known.
    pub(crate) fn off(&mut self, nodes: &[NodeIx]) -> Vec<NodeIx> {
        let texts = BTreeMap::new();
        let (templates, _) = Templates::compile(&texts);
        let is_off = |node: &NodeIx| {
            let place = self.place(*node);
            templates.log().take();
            let holds = self.holds(&templates, &place);
            !templates.log().take().iter().any(|access| place.is_unknown(access)) && holds == Ok(false)
        };
        nodes.iter().copied().filter(|node| is_off(node)).collect()
    }

    /// Whether its `when` holds.
    fn holds(&self, templates: &Templates<'_>, place: &Place) -> Result<bool, Vec<Fault>> {
        let Some(when) = &self.task.when else { return Ok(true) };
        let name = Named::Param { folder: self.home.files.folder, param: "when" }.to_string();
        templates.condition(&name, when, place)
    }

    /// Checks what can be checked without a node: a service that runs nowhere has no vars to render with.
    pub(crate) fn check(&mut self) {
        let (_, mut texts) = self.drafts();
        let (templates, mut faults) = Templates::compile(&texts);
        let name = self.when_name();
        faults.extend(self.task.when.as_deref().and_then(|when| templates.syntax(&name, when)));
        drop(templates);
        texts.extend(self.task.when.as_deref().map(|when| (name, when.into())));
        self.template_faults(faults, &texts, None);
        let wrong = match self.task.params.source() {
            Some(ContentSource::File(path)) if !is_template(path) => self.home.files.find(path).err(),
            Some(ContentSource::Template(path)) if !is_template(path) => self.home.files.text(path).err(),
            _ => None,
        };
        wrong.into_iter().for_each(|wrong| self.wrong_source(wrong));
        if let TaskParams::Plugin(plugin) = &self.task.params
            && texts.is_empty()
            && let Err(told) = self.described(&mut plugin.clone())
        {
            self.report(told, &texts, None);
        }
    }

    /// Takes over results that are known, from `next` on, up to the first that is not.
    fn known(&mut self, nodes: &[NodeIx], next: &mut usize, instances: &mut Instances, memo: &mut Memo) {
        let mut exports = BTreeSet::new();
        while let Some(node) = nodes.get(*next) {
            let place = self.place(*node);
            let (mut varies, mut facts) = (false, false);
            exports.clear();
            let found = memo.find(self.run.now, |access| {
                varies |= place.varies(access);
                match access {
                    Access::Fact(_) => facts = true,
                    Access::Export(task, at) => _ = exports.insert((task.clone(), Some(at.clone()))),
                    Access::Exporters(task) => _ = exports.insert((task.clone(), None)),
                    _ => {}
                }
                self.answer(&place, access)
            });
            let Some(form) = found else { return };
            if matches!(form, Form::Misfit(_)) && self.run.misfit == Misfit::Refuse {
                return;
            }
            let same = if varies { &nodes[*next..=*next] } else { &nodes[*next..] };
            for node in same {
                let name = self.run.facts.nodes[node.0 as usize].name.value.as_str().unwrap_or_default();
                for (task, at) in &exports {
                    let elsewhere = at.as_deref().is_some_and(|at| at != name);
                    *instances.exports.entry(task.clone()).or_default() |= elsewhere;
                }
                match &form {
                    Form::Resolved(resolved) => {
                        instances.resolved.push(Instance { node: *node, resolved: resolved.clone() })
                    }
                    Form::Pending(on) => instances.pending.push(self.pending(*node, on)),
                    Form::Misfit(fault) => {
                        let unknown =
                            Unknown::Fit { fault: fault.to_string(), node: self.run.nodes[node.0 as usize].clone() };
                        instances.pending.push(Pending { node: *node, waits_for: [unknown].into() });
                    }
                    Form::Off(off) => instances.off.push((*node, off.clone())),
                }
            }
            if facts {
                instances.facts.extend(same);
            }
            *next += same.len();
        }
    }

    /// What is missing on a node, by what it asked for in vain.
    fn pending(&self, node: NodeIx, on: &[Access]) -> Pending {
        let place = self.place(node);
        let here = || self.run.nodes[node.0 as usize].clone();
        let unknown = |access: &Access| match access {
            Access::Export(task, at) => {
                let at = self.run.nodes.iter().find(|node| node.as_str() == &**at)?;
                Some(Unknown::Export { task: task.clone(), node: (*at).clone() })
            }
            access if place.is_unknown(access) => Some(Unknown::Facts(here())),
            Access::Fact(name) => Some(Unknown::Fact { name: name.to_string(), node: here() }),
            _ => None,
        };
        let waits_for: BTreeSet<Unknown> = on.iter().filter_map(unknown).collect();
        Pending { node, waits_for: waits_for.into_iter().collect() }
    }

    /// What there is to render, and the templates that are known to take part.
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
        (Drafts { params, ready, inputs: draft::parameters(self.task) }, texts)
    }

    /// Renders for one node and puts the result into `memo`.
    fn render(
        &mut self,
        drafts: &Drafts,
        templates: &Templates<'_>,
        texts: &BTreeMap<String, Arc<str>>,
        node: NodeIx,
        memo: &mut Memo,
    ) -> Result<(), Stop> {
        let place = self.place(node);
        templates.log().take();
        match self.holds(templates, &place) {
            Ok(true) => {}
            held => {
                let seen = templates.log().seen();
                let form = match held {
                    Err(faults) => {
                        self.excuse(&[ResolveError::Faults(faults.clone())], &seen, &place).ok_or(Some(faults))
                    }
                    Ok(_) if seen.iter().any(|access| place.is_unknown(access)) => {
                        self.excuse(&[], &seen, &place).ok_or(None)
                    }
                    Ok(_) => Ok(self.is_off(&seen, &place)),
                };
                return match form {
                    Ok(form) => {
                        self.keep(form, templates, &place, memo);
                        Ok(())
                    }
                    Err(faults) => {
                        let varies = self.varies(&seen, node);
                        let texts =
                            BTreeMap::from([(self.when_name(), self.task.when.as_deref().unwrap_or_default().into())]);
                        self.template_faults(faults.unwrap_or_default(), &texts, varies.then_some(node));
                        Err(Stop::Faulty)
                    }
                };
            }
        }
        templates.log().note(Access::Probes);
        if let TaskParams::Plugin(plugin) = &self.task.params {
            templates.log().note(Access::Plugin(plugin.name.as_str().into()));
        }
        let params = self.params(&drafts.params, templates, &place);
        let shipped = match &params {
            Ok(params) => self.content(params, templates, texts, &place),
            Err(_) => Ok(None),
        };
        let decisive = templates.log().seen();
        let ready = self.ready(&drafts.ready, templates, &place);
        let main = params.as_ref().ok().and_then(|params| params.source());
        let missing = self.missing(main, &templates.log().seen(), texts);
        if !missing.is_empty() {
            return Err(Stop::Missing(missing));
        }
        let seen = templates.log().seen();
        let unknown = seen.iter().any(|access| place.is_unknown(access));
        let form = match (params, shipped, ready) {
            (Ok(params), Ok(shipped), Ok(ready)) if !unknown => {
                Form::Resolved(Arc::new(self.resolved(params, shipped, ready, drafts, &place, &decisive)))
            }
            (params, shipped, ready) => {
                let told: Vec<_> = [params.err(), shipped.err(), ready.err()].into_iter().flatten().collect();
                match self.excuse(&told, &seen, &place) {
                    Some(form) => form,
                    None => {
                        let varies = self.varies(&seen, node);
                        told.into_iter().for_each(|told| self.report(told, texts, varies.then_some(node)));
                        return Err(Stop::Faulty);
                    }
                }
            }
        };
        self.keep(form, templates, &place, memo);
        Ok(())
    }

    fn when_name(&self) -> String {
        Named::Param { folder: self.home.files.folder, param: "when" }.to_string()
    }

    fn is_off(&mut self, seen: &[Access], place: &Place) -> Form {
        let inputs = seen.iter().filter_map(|access| self.input(place, access)).collect();
        let at = draft::place(self.task, "when");
        Form::Off(Arc::new(Off { when: self.task.when.clone().unwrap_or_default(), inputs, at }))
    }

    /// Puts a result into `memo`, by what was asked for.
    fn keep(&mut self, form: Form, templates: &Templates<'_>, place: &Place, memo: &mut Memo) {
        let log = templates.log().take();
        let trace = log.into_iter().map(|access| (access.clone(), self.answer(place, &access))).collect();
        memo.insert(self.run.now, trace, form);
    }

    /// What stands in for a result where it is nobody's fault that there is none: something is unknown, or does not fit and may change.
    fn excuse(&self, told: &[ResolveError], seen: &[Access], place: &Place) -> Option<Form> {
        let faults =
            || told.iter().filter_map(|told| if let ResolveError::Faults(faults) = told { Some(faults) } else { None });
        let unknown: Vec<_> = seen.iter().filter(|access| place.is_unknown(access)).cloned().collect();
        if !unknown.is_empty() {
            // A fault that was met before anything unknown was asked for is one in any case.
            let told_name = |fault: &Fault| fault.undefined.as_deref().is_some_and(|name| TOLD.contains(&name));
            let certain = faults().flatten().any(|fault| fault.sure && !told_name(fault));
            return (!certain).then(|| Form::Pending(unknown.into()));
        }
        let asked =
            seen.iter().any(|access| matches!(access, Access::Fact(_) | Access::Export(..) | Access::Exporters(_)));
        // The host's own programs may tell it yet.
        let untold = |access: &&Access| {
            matches!(access, Access::Fact(path) if path.starts_with("local.")) && place.fact(access).is_none()
        };
        let untold: Vec<_> = seen.iter().filter(untold).cloned().collect();
        let only = faults().flatten().all(|fault| fault.undefined.as_deref() == Some("facts"));
        if !untold.is_empty() && only && told.len() == faults().count() {
            return Some(Form::Pending(untold.into()));
        }
        (asked && self.run.misfit == Misfit::Wait)
            .then(|| Form::Misfit(told.first().map_or_else(|| "".into(), ResolveError::words)))
    }
}

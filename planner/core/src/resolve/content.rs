//! Renders the parts of one task for one node: parameters, probe, content; and puts them together.
//!
//! In: drafts with compiled templates, and the node. Out: a [`Resolved`] with the inputs that it came from, or what is wrong.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_inventory::{Diagnostic, Location, probe};
use groundplan_protocol::{
    kinds::{ContentSource, TaskParams},
    plan::TaskSpec,
    ready::Ready,
};
use groundplan_services::plugin::FOLDER;

use super::{
    draft::{self, Draft},
    error::ResolveError,
    files::{Files, Shipped},
    fingerprint::fingerprint,
    resolver::Resolver,
};
use crate::{
    desired::{Body, Input, Resolved},
    render::{Access, Named, RenderContext, Sinks, Templates},
};

/// The parts of a task that are rendered, and its inputs that are known before that.
pub(super) struct Drafts {
    pub(super) params: Draft,
    pub(super) ready: Draft,
    pub(super) inputs: Vec<Input>,
    /// Where each of them goes.
    pub(super) sinks: Sinks,
}

/// Templates that rendering turned out to need, with their texts.
pub(super) type Missing = Vec<(String, Arc<str>)>;

impl Resolver<'_, '_, '_> {
    fn strings(
        &self,
        draft: &Draft,
        templates: &Templates<'_>,
        place: &RenderContext,
    ) -> Result<Vec<String>, ResolveError> {
        let rendered: Vec<_> = draft.strings.iter().map(|s| templates.render(&s.name, place)).collect();
        let (rendered, faults): (Vec<_>, Vec<_>) = rendered.into_iter().partition(Result::is_ok);
        let faults: Vec<_> = faults.into_iter().filter_map(Result::err).flatten().collect();
        if faults.is_empty() { Ok(rendered.into_iter().flatten().collect()) } else { Err(ResolveError::Faults(faults)) }
    }

    pub(super) fn params(
        &self,
        draft: &Draft,
        templates: &Templates<'_>,
        place: &RenderContext,
    ) -> Result<TaskParams, ResolveError> {
        let mut params = if draft.strings.is_empty() {
            self.task.params.clone()
        } else {
            let strings = self.strings(draft, templates, place)?;
            draft.filled(strings).map_err(|error| self.misfit(&error))?
        };
        if let TaskParams::Plugin(plugin) = &mut params {
            self.described(plugin)?;
        }
        let problems = params.problems();
        if problems.is_empty() { Ok(params) } else { Err(ResolveError::Problems(problems)) }
    }

    pub(super) fn ready(
        &self,
        draft: &Draft,
        templates: &Templates<'_>,
        place: &RenderContext,
    ) -> Result<Option<Ready>, ResolveError> {
        if draft.strings.is_empty() {
            return Ok(self.task.ready.clone());
        }
        let strings = self.strings(draft, templates, place)?;
        let ready: Option<Ready> = draft.filled(strings).map_err(|error| self.misfit(&error))?;
        let at = |key: &str| draft::place(self.task, format!("ready.{key}").trim_end_matches('.'));
        // What is wrong with the probe as written was reported when the file was read.
        let known = self.task.ready.iter().flat_map(|ready| probe::faults(ready, true, &at)).collect::<Vec<_>>();
        let mut faults: Vec<_> = ready.iter().flat_map(|ready| probe::faults(ready, true, &at)).collect();
        faults.retain(|fault| !known.contains(fault));
        if faults.is_empty() { Ok(ready) } else { Err(ResolveError::Other(faults)) }
    }

    /// The fault for a rendered value that does not fit its parameter, such as a text where a port is expected.
    fn misfit(&self, error: &serde_json::Error) -> ResolveError {
        ResolveError::Other(vec![Diagnostic::new(
            self.task.at.clone(),
            format!("a rendered value does not fit: {error}"),
        )])
    }

    /// The content that the task ships, once its parameters are rendered; with the body of the blob if it is too large to be inline.
    pub(super) fn content(
        &mut self,
        params: &TaskParams,
        templates: &Templates<'_>,
        texts: &BTreeMap<String, Arc<str>>,
        place: &RenderContext,
    ) -> Result<Option<(Shipped, Option<Body>)>, ResolveError> {
        let files = self.home.files;
        match params.source() {
            None => Ok(None),
            Some(ContentSource::Inline(text)) => Ok(Some(shipped(text))),
            Some(ContentSource::File(path)) => {
                templates.log().note(Access::Source(path.into()));
                let shipped = files.shipped(path, self.run.contents, self.run.now).map_err(ResolveError::Source)?;
                let body = shipped.content.blob().map(|_| Body::File(format!("{}/{path}", files.folder).into()));
                Ok(Some((shipped, body)))
            }
            Some(ContentSource::Plugin(name)) => {
                let shipped =
                    self.programs().shipped(name, self.run.contents, self.run.now).map_err(ResolveError::Source)?;
                let body = shipped.content.blob().map(|_| Body::File(format!("{}/{name}", FOLDER).into()));
                Ok(Some((shipped, body)))
            }
            Some(ContentSource::Template(path)) => {
                templates.log().note(Access::Template(path.into()));
                let name = Named::File { folder: files.folder, path }.to_string();
                let rendered = if texts.contains_key(&name) {
                    templates.render(&name, place)
                } else {
                    templates.render_text(&name, &files.text(path).map_err(ResolveError::Source)?, place)
                };
                rendered.map(|text| Some(shipped(&text))).map_err(ResolveError::Faults)
            }
        }
    }

    /// Included templates that exist but are not compiled. Without the task's main template: if its path is rendered, it is compiled
    /// where it is used.
    pub(super) fn missing(
        &self,
        main: Option<ContentSource<'_>>,
        log: &[Access],
        texts: &BTreeMap<String, Arc<str>>,
    ) -> Missing {
        let folder = self.home.files.folder;
        log.iter()
            .filter_map(|access| if let Access::Template(path) = access { Some(&**path) } else { None })
            .filter(|path| main != Some(ContentSource::Template(path)))
            .map(|path| (Named::File { folder, path }.to_string(), path))
            .filter(|(name, _)| !texts.contains_key(name))
            .filter_map(|(name, path)| Some((name, self.home.files.text(path).ok()?)))
            .collect()
    }

    pub(super) fn resolved(
        &mut self,
        params: TaskParams,
        shipped: Option<(Shipped, Option<Body>)>,
        ready: Option<Ready>,
        drafts: &Drafts,
        place: &RenderContext,
        decisive: &[Access],
    ) -> Resolved {
        let mut params = params;
        // Before the fingerprint: a file that is only renamed changes nothing on the node.
        params.drop_source();
        if let (TaskParams::Plugin(plugin), Some((shipped, _))) = (&mut params, &shipped) {
            plugin.program = Some(shipped.digest);
        }
        let (digest, content, body) = match shipped {
            Some((shipped, body)) => (Some(shipped.digest), Some(shipped.content), body),
            None => (None, None, None),
        };
        let fingerprint = fingerprint(&params, digest);
        let mut inputs = drafts.inputs.clone();
        for access in decisive {
            inputs.extend(self.input(place, access));
        }
        inputs.sort();
        let external = self.probes.ready.clone();
        let spec = TaskSpec { params, content, ready, external, on_interrupt: self.task.on_interrupt };
        Resolved { spec, fingerprint, inputs, body }
    }

    /// An access as a named input, for reasons; none for what decides nothing by itself.
    pub(super) fn input(&mut self, place: &RenderContext, access: &Access) -> Option<Input> {
        let (files, programs) = (self.home.files, self.programs());
        let mut file = |word: &str, files: Files<'_>, path: &str| {
            let digest = files.shipped(path, self.run.contents, self.run.now).ok()?.digest.short();
            let at = Location::file(format!("{}/{path}", files.folder));
            Some(Input { name: format!("{word} {path}"), digest, value: None, at })
        };
        let name = match access {
            Access::Var(name) => format!("var {name}"),
            Access::Node(field) => format!("node.{}", field.name()),
            Access::Group(name) => format!("groups.{name}"),
            Access::GroupNames => "groups".to_owned(),
            Access::External(name) => format!("external.{name}"),
            Access::ExternalNames => "external".to_owned(),
            Access::SiteName => "site.name".to_owned(),
            Access::Fact(path) if path.is_empty() => "facts".to_owned(),
            Access::Fact(path) => format!("facts.{path}"),
            Access::Export(task, node) => {
                let exported = place.known.exported(task.service.as_str(), task.task.as_str())?;
                let which = if exported.once { String::new() } else { format!("[{node}]") };
                let fact = place.fact(access)?;
                let at = exported.at.clone();
                let name = format!("exports.{task}{which}");
                return Some(Input { name, digest: fact.digest().short(), value: fact.shown(), at });
            }
            // Which nodes export follows from placement, which has inputs of its own.
            Access::Exporters(_) => return None,
            Access::Template(path) => return file("template", files, path),
            Access::Source(path) => return file("source", files, path),
            Access::Plugin(name) => return file("plugin", programs, name),
            Access::Probes => return None,
        };
        let fact = place.fact(access)?;
        let at = if let Access::Fact(_) = access { self.task.at.clone() } else { fact.at.clone() };
        Some(Input { name, digest: fact.digest().short(), value: fact.shown(), at })
    }
}

fn shipped(text: &str) -> (Shipped, Option<Body>) {
    let shipped = Shipped::of(text.as_bytes());
    let body = shipped.content.blob().map(|_| Body::Bytes(text.as_bytes().into()));
    (shipped, body)
}

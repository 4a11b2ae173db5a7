//! A task being resolved: its service, the run that it is part of, and the answers to what its templates read.

use std::sync::Arc;

use groundplan_services::{Task, plugin::FOLDER};

use super::{external::Probes, files::Files, memo::Answer, run::Run};
use crate::{
    desired::NodeIx,
    render::{Access, RenderContext, ServiceFacts},
};

/// The service of the task, as all of its tasks share it.
pub(crate) struct Home<'a> {
    pub(crate) facts: Arc<ServiceFacts>,
    pub(crate) files: Files<'a>,
}

/// Resolves one task on all nodes that run it.
pub(crate) struct Resolver<'r, 'a, 'h> {
    pub(crate) run: &'r mut Run<'a>,
    pub(crate) home: &'r Home<'h>,
    pub(crate) task: &'r Task,
    pub(crate) probes: &'r Probes,
}

impl<'h> Resolver<'_, '_, 'h> {
    /// The programs of plugins.
    pub(super) fn programs(&self) -> Files<'h> {
        Files { tree: self.home.files.tree, folder: FOLDER }
    }

    pub(super) fn place(&self, node: NodeIx) -> RenderContext {
        let (site, service) = (self.run.facts.clone(), Some(self.home.facts.clone()));
        RenderContext { site, service, node: Some(node.0 as usize), known: self.run.known.clone() }
    }

    pub(super) fn varies(&self, log: &[Access], node: NodeIx) -> bool {
        let place = self.place(node);
        log.iter().any(|access| place.varies(access))
    }

    pub(super) fn answer(&self, place: &RenderContext, access: &Access) -> Answer {
        match access {
            Access::Template(path) | Access::Source(path) => self.home.files.answer(path),
            Access::Plugin(name) => self.programs().answer(name),
            Access::Probes => self.probes.digest.map_or(Answer::Absent, Answer::Value),
            access if place.is_unknown(access) => Answer::Unknown,
            // By value alone: a reported value has no place, and equal values of different nodes are to share results.
            Access::Fact(_) | Access::Export(..) | Access::Exporters(_) => {
                place.fact(access).map_or(Answer::Absent, |fact| Answer::Value(fact.digest()))
            }
            access => place.fact(access).map_or(Answer::Absent, |fact| Answer::Value(fact.placed())),
        }
    }
}

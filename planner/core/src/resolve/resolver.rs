//! A task being resolved: its service, the run that it is part of, and the answers to what templates ask for.

use std::sync::Arc;

use groundplan_services::{Task, plugin::FOLDER};

use super::{external::Probes, files::Files, memo::Answer, run::Run};
use crate::{
    desired::NodeIx,
    render::{Access, Place, ServiceFacts},
};

/// The service of a task that is resolved.
pub(crate) struct Home<'a> {
    pub(crate) facts: Arc<ServiceFacts>,
    pub(crate) files: Files<'a>,
}

/// A task that is resolved.
pub(crate) struct Resolver<'r, 'a, 'h> {
    pub(crate) run: &'r mut Run<'a>,
    pub(crate) home: &'r Home<'h>,
    pub(crate) task: &'r Task,
    pub(crate) probes: &'r Probes,
}

impl<'h> Resolver<'_, '_, 'h> {
    /// The site's own programs.
    pub(super) fn programs(&self) -> Files<'h> {
        Files { tree: self.home.files.tree, folder: FOLDER }
    }

    pub(super) fn place(&self, node: NodeIx) -> Place {
        let (site, service) = (self.run.facts.clone(), Some(self.home.facts.clone()));
        Place { site, service, node: Some(node.0 as usize), known: self.run.known.clone() }
    }

    pub(super) fn varies(&self, log: &[Access], node: NodeIx) -> bool {
        let place = self.place(node);
        log.iter().any(|access| place.varies(access))
    }

    pub(super) fn answer(&self, place: &Place, access: &Access) -> Answer {
        match access {
            Access::Template(path) | Access::Source(path) => self.home.files.answer(path),
            Access::Plugin(name) => self.programs().answer(name),
            Access::Probes => self.probes.digest.map_or(Answer::Absent, Answer::Value),
            access if place.is_unknown(access) => Answer::Unknown,
            // Equal wherever it is told.
            Access::Fact(_) | Access::Export(..) | Access::Exporters(_) => {
                place.fact(access).map_or(Answer::Absent, |fact| Answer::Value(fact.digest()))
            }
            access => place.fact(access).map_or(Answer::Absent, |fact| Answer::Value(fact.placed())),
        }
    }
}

//! Why a task could not be resolved on a node.

use std::sync::Arc;

use groundplan_inventory::Diagnostic;
use groundplan_protocol::kinds::Problem;

use super::files::FileFault;
use crate::render::Fault;

/// What is wrong with a task on a node, by the stage that found it.
pub(super) enum ResolveError {
    /// Rendering a template failed.
    Faults(Vec<Fault>),
    Problems(Vec<Problem>),
    Source(FileFault),
    /// A plugin's schema does not allow the parameters.
    Violations(Vec<Diagnostic>),
    Other(Vec<Diagnostic>),
}

impl ResolveError {
    /// The faults of templates, if that is what is wrong.
    pub(super) fn faults(&self) -> Option<&Vec<Fault>> {
        if let Self::Faults(faults) = self { Some(faults) } else { None }
    }

    /// The first message, without its place.
    pub(super) fn first(&self) -> Arc<str> {
        let words = match self {
            Self::Faults(faults) => faults.first().map(|fault| fault.message.as_str()),
            Self::Problems(problems) => problems.first().map(|problem| problem.message.as_str()),
            Self::Source(wrong) => Some(wrong.message.as_str()),
            Self::Violations(diagnostics) | Self::Other(diagnostics) => {
                diagnostics.first().map(|diagnostic| diagnostic.message.as_str())
            }
        };
        words.unwrap_or_default().into()
    }
}

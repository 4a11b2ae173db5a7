//! Turns what is wrong with a task into diagnostics.
//!
//! In: errors as each stage of the resolution has them. Out: each of them once, at the place in the site's files that it comes from.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_inventory::{Diagnostic, Location};
use groundplan_protocol::kinds::Problem;

use super::{
    draft::{self, Draft},
    error::ResolveError,
    files::FileFault,
    resolver::Resolver,
};
use crate::{
    desired::NodeIx,
    render::{Fault, Named},
};

impl Resolver<'_, '_, '_> {
    /// Reports an error; `node` if it may differ from node to node.
    pub(super) fn report(&mut self, error: ResolveError, texts: &BTreeMap<String, Arc<str>>, node: Option<NodeIx>) {
        match error {
            ResolveError::Faults(faults) => self.template_faults(faults, texts, node),
            ResolveError::Problems(problems) => self.problems(problems),
            ResolveError::Source(fault) => self.source_fault(fault),
            ResolveError::Violations(faults) => {
                self.run.faults.add_all(faults, node.map(|node| self.run.nodes[node.0 as usize]))
            }
            ResolveError::Other(diagnostics) => diagnostics.into_iter().for_each(|d| self.run.faults.add(d)),
        }
    }

    /// Reports that the file named by `source` cannot be used.
    pub(super) fn source_fault(&mut self, fault: FileFault) {
        let diagnostic = Diagnostic::new(draft::place(self.task, "source"), fault.message);
        self.run.faults.add(Diagnostic { hint: fault.hint, ..diagnostic });
    }

    /// Reports problems of rendered parameters. Those of parameters without templates were reported when the file was read.
    pub(super) fn problems(&mut self, problems: Vec<Problem>) {
        let kind = self.task.params.kind();
        let rendered = Draft::of(&self.task.params, self.home.files.folder, "", draft::depth(&self.task.params));
        for Problem { param, message, hint } in problems.into_iter().filter(|p| rendered.renders(p.param)) {
            let subject = if param.is_empty() { format!("the {kind}") } else { format!("`{param}` of the {kind}") };
            let joint = if message.starts_with('`') { ": " } else { " " };
            let diagnostic = Diagnostic::new(draft::place(self.task, param), format!("{subject}{joint}{message}"));
            self.run.faults.add(Diagnostic { hint, ..diagnostic });
        }
    }

    /// Reports faults of templates, each within its template: in a file, or in the string of a parameter in service.toml.
    pub(super) fn template_faults(
        &mut self,
        faults: Vec<Fault>,
        texts: &BTreeMap<String, Arc<str>>,
        node: Option<NodeIx>,
    ) {
        for fault in faults {
            let at = match Named::of(&fault.template) {
                Named::File { folder, path } => Location::new(format!("{folder}/{path}").into(), fault.range.clone()),
                Named::Param { param, .. } => {
                    let at = draft::place(self.task, param);
                    let text = texts.get(&fault.template).map_or("", |text| text);
                    match self.home.files.tree.read(&at.file).ok().as_deref().map(std::str::from_utf8) {
                        Some(Ok(toml)) => draft::locate(toml, &at, text, &fault.range),
                        _ => at,
                    }
                }
            };
            let mut diagnostic = Diagnostic::new(at, fault.message);
            diagnostic.hint = fault.hint;
            diagnostic.missing_from = fault.missing_from;
            if let Some(node) = node {
                diagnostic.label = format!("on node `{}`", self.run.facts.nodes[node.0 as usize].name.value);
            }
            self.run.faults.add(diagnostic);
        }
    }
}

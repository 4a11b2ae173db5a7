//! Tasks of kinds that plugins add.
//!
//! In: rendered parameters, and the plugin's description. Out: parameters as the agent gets them, or each violation of the plugin's
//! schema at the place of the parameter.

use groundplan_inventory::Diagnostic;
use groundplan_protocol::kinds::Plugin;
use groundplan_services::plugin::Violation;

use super::{draft, error::ResolveError, resolver::Resolver};

impl Resolver<'_, '_, '_> {
    /// Completes the parameters of a plugin's kind by its description, if its schema allows them.
    pub(super) fn described(&self, plugin: &mut Plugin) -> Result<(), ResolveError> {
        let Some(description) = self.run.plugins.known.get(&plugin.name) else {
            return Err(ResolveError::Other(Vec::new()));
        };
        let kind = &plugin.name;
        let fault = |Violation { param, message, hint }: Violation| {
            let at = if param.is_empty() { self.task.kind_at.clone() } else { draft::place(self.task, &param) };
            let subject = match param.as_str() {
                _ if message.starts_with("has no ") => format!("the {kind} {message}"),
                "" => format!("the {kind}: {message}"),
                param => format!("`{param}` of the {kind}: {message}"),
            };
            Diagnostic { hint, ..Diagnostic::new(at, subject) }
        };
        let faults: Vec<_> = description.violations(&plugin.params).into_iter().map(fault).collect();
        if !faults.is_empty() {
            return Err(ResolveError::Violations(faults));
        }
        description.describe(plugin);
        Ok(())
    }
}

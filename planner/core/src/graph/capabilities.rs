//! Which task provides each capability.
//!
//! In: the tasks' `provides` and the site's external capabilities. Out: one provider each. Two are a fault, whether or not
//! both run on any node: which of them counts must not depend on where services are placed.

use std::collections::BTreeMap;

use groundplan_inventory::{Diagnostic, Location};
use groundplan_protocol::ids::Capability;

use super::link::Input;
use crate::nearest::did_you_mean;

/// What provides a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    /// A task, by number.
    Task(usize),
    /// Something outside of the site, declared in site.toml.
    External,
}

/// The providers of all capabilities.
pub(super) struct Capabilities<'a>(BTreeMap<&'a Capability, (Provider, &'a Location)>);

impl<'a> Capabilities<'a> {
    /// Collects the providers; a capability that has two is a fault.
    pub(super) fn of(input: &Input<'a>, faults: &mut Vec<Diagnostic>) -> Self {
        let external = input.site.external.iter().map(|(name, external)| (name, Provider::External, &external.at));
        let tasks = input.placement.tasks.iter().enumerate().flat_map(|(number, declared)| {
            declared.task.provides.iter().map(move |p| (&p.value, Provider::Task(number), &p.at))
        });
        // External ones first, so that a task which provides the same is where the fault is shown.
        let mut all = BTreeMap::new();
        for (name, provider, at) in external.chain(tasks) {
            let Some((first, first_at)) = all.get(name).copied() else {
                all.insert(name, (provider, at));
                continue;
            };
            // A task that lists a capability twice provides it once.
            if first != provider {
                let provided = |provider| match provider {
                    Provider::Task(task) => format!("by `{}`", input.placement.name(task)),
                    Provider::External => "outside of the site, by site.toml".to_owned(),
                };
                let diagnostic = Diagnostic::new(at.clone(), format!("capability `{name}` is provided twice"))
                    .label(format!("here {}", provided(provider)))
                    .related(first_at.clone(), format!("and here {}", provided(first)))
                    .hint("let one of them provide it, or give it another name");
                faults.push(diagnostic);
            }
        }
        Self(all)
    }

    /// The provider of a capability.
    pub(super) fn provider(&self, name: &Capability) -> Option<Provider> {
        self.0.get(name).map(|(provider, _)| *provider)
    }

    /// What to do about one that has no provider.
    pub(super) fn hint(&self, name: &Capability) -> String {
        did_you_mean(name.as_str(), self.0.keys().map(|name| name.as_str()))
            .unwrap_or_else(|| format!("let a task provide it, or declare [external.\"{name}\"] in site.toml"))
    }
}

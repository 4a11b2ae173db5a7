//! Probes of external capabilities.
//!
//! In: the site's external capabilities. Out: for each with a probe, the probe as the agent gets it: its strings rendered with what
//! is the same everywhere (the site's vars, `site`, `groups`, `external`), and a port alone joined with the capability's address.

use std::collections::BTreeMap;

use groundplan_inventory::{Diagnostic, External, Site, probe};
use groundplan_protocol::{
    digest::Digest,
    ids::Capability,
    ready::{Ready, TcpTarget},
};

use super::{
    draft::{self, Draft},
    run::Run,
};
use crate::render::{RenderContext, Templates};

/// The probes of a task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probes {
    pub(crate) ready: Vec<Ready>,
    pub(crate) digest: Option<Digest>,
}

/// The probe of each external capability that has one.
pub(crate) fn probes<'a>(site: &'a Site, run: &mut Run<'_>) -> BTreeMap<&'a Capability, Ready> {
    let probes = site.external.iter().filter_map(|(name, external)| Some((name, probe_of(name, external, run)?)));
    probes.collect()
}

/// The probes that a task waits for, by the capabilities that it requires.
pub(crate) fn of_task(all: &BTreeMap<&Capability, Ready>, required: &[&Capability]) -> Probes {
    let ready: Vec<_> = required.iter().filter_map(|name| all.get(name).cloned()).collect();
    let digest = (!ready.is_empty()).then(|| Digest::of(&serde_json::to_vec(&ready).unwrap_or_default()));
    Probes { ready, digest }
}

fn probe_of(name: &Capability, external: &External, run: &mut Run<'_>) -> Option<Ready> {
    let declared = external.ready.as_ref()?;
    let draft = Draft::of(declared, "", &format!("{name}."), 0);
    let mut ready = declared.clone();
    if !draft.strings.is_empty() {
        let texts = draft::texts([&draft]);
        // Nothing that nodes report is seen here.
        let sinks = draft::sinks([&draft]);
        let (templates, mut faults) = Templates::compile(&texts, &sinks, Default::default(), &run.limits);
        let place = RenderContext { site: run.facts.clone(), service: None, node: None, known: run.known.clone() };
        let mut rendered = Vec::new();
        for string in draft.strings.iter().filter(|_| faults.is_empty()) {
            rendered.push(templates.render(&string.name, &place));
        }
        let (rendered, failed): (Vec<_>, Vec<_>) = rendered.into_iter().partition(Result::is_ok);
        faults.extend(failed.into_iter().filter_map(Result::err).flatten());
        for fault in &faults {
            let diagnostic = Diagnostic::new(external.at.clone(), fault.message.clone()).label("in its probe");
            let missing_from = fault.missing_from.clone();
            run.faults.add(Diagnostic { hint: fault.hint.clone(), missing_from, ..diagnostic });
        }
        if !faults.is_empty() {
            return None;
        }
        ready = draft.filled(rendered.into_iter().flatten().collect()).ok()?;
        for fault in probe::faults(&ready, external.address.is_some(), &|_| external.at.clone()) {
            run.faults.add(fault);
        }
    }
    if let (Some(tcp), Some(address)) = (&ready.tcp, &external.address) {
        ready.tcp = Some(join(tcp, address));
    }
    Some(ready)
}

/// Joins a port alone with `address`; an IPv6 address gets brackets.
fn join(target: &TcpTarget, address: &str) -> TcpTarget {
    let port = match target {
        TcpTarget::Port(port) => *port,
        TcpTarget::Address(text) => match text.parse() {
            Ok(port) => port,
            Err(_) => return target.clone(),
        },
    };
    let bare = address.contains(':') && !address.starts_with('[');
    TcpTarget::Address(if bare { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
}

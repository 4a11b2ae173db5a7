//! Reads one file of site or inventory, and reports the faults that show without any other file.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use groundplan_protocol::{
    blob::{MAX_BLOB, MAX_BLOBS},
    duration::Span,
    plan::Retry,
};
use toml::de::{DeTable, DeValue};

use crate::{
    decode::{At, Document, Toggle},
    diagnostic::{Diagnostic, Location},
    hint,
    model::{Drift, External, Rollout, Site},
    probe,
    schema::{DriftManifest, InventoryManifest, RetryManifest, RolloutManifest, SiteManifest},
    vars,
};

/// Length of the longest text that a template may render to, in bytes, where `site.toml` sets none.
const MAX_RENDERED: u64 = 4 << 20;

/// The contents of `site.toml`.
#[derive(Debug, Clone)]
pub struct SiteFile {
    /// The site; with the name `unnamed` if it gives no valid one, and `None` if it cannot be read at all.
    pub site: Option<Site>,
    /// Every fault of this file alone, in the order of their places.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether something may be declared in it that could not be read.
    pub unread: bool,
}

/// The contents of a file of the inventory.
#[derive(Debug, Clone)]
pub struct InventoryFile {
    /// The file's path in the repository.
    pub path: Arc<str>,
    /// Its nodes and groups, as far as they could be read.
    pub manifest: InventoryManifest,
    /// Every fault of this file alone, in the order of their places.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether something may be declared in it that could not be read.
    pub unread: bool,
}

/// Reads `site.toml`, and goes on after faults as far as possible.
pub fn site(path: &Arc<str>, bytes: &[u8]) -> SiteFile {
    let mut document = Document::parse(path, bytes);
    let syntax = document.diagnostics.len();
    let Some(manifest) = document.decode::<SiteManifest>() else {
        return SiteFile { site: None, diagnostics: document.diagnostics, unread: true };
    };
    let mut faults = Vec::new();
    // Also by a misspelt key, which is a fault of its own.
    let is_name = |key: &str| key == "name" || hint::meant(key, &["name"]).is_some();
    let given = document.table().is_some_and(|table| table.keys().any(|key| is_name(key.get_ref())));
    if manifest.name.is_none() && !given {
        faults.push(
            Diagnostic::new(Location::file(path.clone()), "the site has no name")
                .hint("add `name = \"…\"` at the top of the file"),
        );
    }
    let mut external = BTreeMap::new();
    for (capability, declared) in &manifest.external {
        faults.extend(address_fault(declared.address.as_ref(), path));
        if let Some(ready) = &declared.ready {
            let tree = document.table().and_then(|root| entry(root, &["external", capability.value.as_str(), "ready"]));
            let places = tree.map(|tree| places(tree, "")).unwrap_or_default();
            let place = |key: &str| {
                let span = places.get(key).cloned().unwrap_or_else(|| ready.span.clone());
                Location::new(path.clone(), span)
            };
            faults.extend(probe::faults(&ready.value, declared.address.is_some(), &place));
        }
        let model = External {
            address: declared.address.as_ref().map(|address| address.value.clone()),
            vars: vars::place(&declared.vars, path),
            ready: declared.ready.as_ref().map(|ready| ready.value.clone()),
            at: capability.location(path),
        };
        external.insert(capability.value.clone(), model);
    }
    faults.extend(interval_fault(manifest.drift.interval.as_ref(), path));
    faults.extend(retry_fault(manifest.rollout.retry.as_ref(), path));
    // After a syntax error, what could be parsed may not be what was meant: only that error is reported.
    if syntax == 0 {
        document.diagnostics.extend(faults);
    }
    // A stand-in, so that the rest of the tree can be checked; the missing name is a fault already, or the file could
    // not be read.
    let name = manifest.name.map(|name| name.value).or_else(|| "unnamed".parse().ok());
    let vars = vars::place(&manifest.vars, path);
    let rollout = rollout(&manifest.rollout);
    let drift = drift(&manifest.drift);
    let fast_forward_only = manifest.source.fast_forward_only.unwrap_or_default();
    let max_file = manifest.max_file_mib.map_or(MAX_BLOB, |mib| u64::from(mib.get()) << 20);
    let max_node = manifest.max_node_mib.map_or(MAX_BLOBS, |mib| u64::from(mib.get()) << 20);
    let max_rendered = manifest.max_rendered_mib.map_or(MAX_RENDERED, |mib| u64::from(mib.get()) << 20);
    let site = name.map(|name| Site {
        name,
        vars,
        external,
        rollout,
        drift,
        fast_forward_only,
        max_file,
        max_node,
        max_rendered,
    });
    SiteFile { site, diagnostics: document.diagnostics, unread: document.incomplete }
}

/// Reads a file of the inventory.
pub fn inventory(path: &Arc<str>, bytes: &[u8]) -> InventoryFile {
    let mut document = Document::parse(path, bytes);
    let syntax = !document.diagnostics.is_empty();
    let decoded = document.decode::<InventoryManifest>();
    let unread = document.incomplete;
    let manifest = decoded.unwrap_or_default();
    let mut diagnostics = document.diagnostics;
    if !syntax {
        diagnostics.extend(manifest.nodes.values().filter_map(|node| address_fault(node.address.as_ref(), path)));
    }
    InventoryFile { path: path.clone(), manifest, diagnostics, unread }
}

/// Rolling limits, as the model represents them.
pub fn rollout(manifest: &RolloutManifest) -> Rollout {
    let retry = manifest.retry.as_ref().map(|retry| retry.as_ref().map(retries));
    Rollout { max_unavailable: manifest.max_unavailable.map(u32::from), retry }
}

/// How often and how soon something is tried again, as the model represents it.
pub fn retries(manifest: &RetryManifest) -> Retry {
    let given = Retry::default();
    Retry {
        attempts: manifest.attempts.as_ref().map_or(given.attempts, |attempts| attempts.value.get()),
        backoff: manifest.backoff.as_ref().map_or(given.backoff, |backoff| backoff.value),
    }
}

/// Reports waits so short that a host would do nothing but fail.
pub fn retry_fault(retry: Option<&Toggle<RetryManifest>>, file: &Arc<str>) -> Option<Diagnostic> {
    let Some(Toggle::With(RetryManifest { backoff: Some(backoff), .. })) = retry else { return None };
    let (message, hint) = match backoff.value {
        short if short < Span::secs(1) => ("short", "give at least `1s`"),
        long if Duration::from(long) > Retry::LONGEST => ("long", "give `1h` at most"),
        _ => return None,
    };
    let message = format!("a wait of {} between two attempts is too {message}", backoff.value);
    Some(Diagnostic::new(backoff.location(file), message).hint(hint))
}

/// Settings of drift, as the model represents them.
fn drift(manifest: &DriftManifest) -> Drift {
    let given = Drift::default();
    let interval = manifest.interval.as_ref().map(|interval| Some(interval.value).filter(|span| *span > Span::secs(0)));
    Drift { policy: manifest.policy.unwrap_or(given.policy), interval: interval.unwrap_or(given.interval) }
}

/// Reports an interval so short that a node would do nothing but check.
fn interval_fault(interval: Option<&At<Span>>, file: &Arc<str>) -> Option<Diagnostic> {
    let interval = interval.filter(|interval| interval.value > Span::secs(0) && interval.value < Span::secs(1))?;
    let message = format!("an interval of {} is too short", interval.value);
    let hint = "give at least `1s`; with `0s` nodes check only on request";
    Some(Diagnostic::new(interval.location(file), message).hint(hint))
}

fn address_fault(address: Option<&At<String>>, file: &Arc<str>) -> Option<Diagnostic> {
    let address = address.filter(|address| !probe::is_plain(&address.value))?;
    let message = format!("`{}` is not an address", hint::excerpt(&address.value));
    Some(Diagnostic::new(address.location(file), message).hint("give a host name or an IP address, or leave it out"))
}

/// The value at the end of a path of keys.
pub fn entry<'a>(table: &'a DeTable<'a>, path: &[&str]) -> Option<&'a toml::Spanned<DeValue<'a>>> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    if rest.is_empty() { Some(value) } else { entry(value.get_ref().as_table()?, rest) }
}

/// The places of a value and of all below it, by path: `path`, `env.PORT`, `run[2]`; the value's own is the prefix.
pub fn places(value: &toml::Spanned<DeValue<'_>>, prefix: &str) -> BTreeMap<String, Range<usize>> {
    let mut places = BTreeMap::new();
    collect(value, prefix.to_owned(), &mut places);
    places
}

fn collect(value: &toml::Spanned<DeValue<'_>>, path: String, places: &mut BTreeMap<String, Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            table.iter().for_each(|(key, value)| collect(value, join(key.get_ref()), places));
        }
        DeValue::Array(array) => {
            array.iter().enumerate().for_each(|(i, value)| collect(value, format!("{path}[{i}]"), places));
        }
        _ => {}
    }
    places.insert(path, value.span());
}

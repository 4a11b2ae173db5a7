//! Faults of the TOML syntax, as diagnostics.
//!
//! The parser goes on after a fault, and what it then reports may only follow from that one, as after an open bracket. A later fault counts
//! if it is also one in the text by itself that begins with the next line that looks like a key or a header.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use toml::de::{DeTable, DeValue, Error};

use super::wording;
use crate::{
    diagnostic::{Diagnostic, Location},
    hint,
};

const DUPLICATE: &str = "duplicate key";

/// The faults of a text. A table that is opened again is reported once, not again for each of its keys.
pub(super) fn faults<'e>(
    file: &Arc<str>,
    text: &str,
    root: &DeValue<'_>,
    errors: impl Iterator<Item = &'e Error>,
) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    let mut spans: Vec<_> = errors.map(|error| (inside(error.span(), text), error.message())).collect();
    spans.sort_by_key(|(span, _)| span.start);
    let mut table_again: Option<usize> = None;
    for (span, message) in independent(text, spans) {
        let at = Location::new(file.clone(), span.clone());
        if message != DUPLICATE {
            let (message, hint) = wording::of(message, text, &span);
            faults.push(Diagnostic { hint, ..Diagnostic::new(at, message) });
            continue;
        }
        if table_again.is_some_and(|header| !text.get(header..span.start).unwrap_or_default().contains("\n[")) {
            continue;
        }
        let line = text.get(..span.start).and_then(|before| before.rsplit('\n').next()).unwrap_or_default();
        if line.trim_start().starts_with('[') {
            table_again = Some(span.end);
        }
        let key = text.get(span.clone()).unwrap_or_default();
        let fault = Diagnostic::new(at, format!("`{}` is given twice", hint::excerpt(key)))
            .label("given again")
            .hint("keep one of the two, or rename one");
        faults.push(match first(text, root, line, &span) {
            Some(first) => fault.related(Location::new(file.clone(), first), "first given here"),
            None => fault,
        });
    }
    faults
}

/// Those of the faults that do not follow from others.
fn independent<'e>(text: &str, faults: Vec<(Range<usize>, &'e str)>) -> Vec<(Range<usize>, &'e str)> {
    let mut kept = Vec::new();
    // Where the text by itself after the last fault of the syntax has faults; none before the first.
    let mut confirmed: Option<BTreeSet<usize>> = None;
    for (span, message) in faults {
        if confirmed.as_ref().is_some_and(|starts| !starts.contains(&span.start)) {
            continue;
        }
        if message != DUPLICATE {
            confirmed = Some(starts_after(text, span.start));
        }
        kept.push((span, message));
    }
    kept
}

/// Where the faults of the text are that begins with the first line after the one of `fault` that looks like a key or a header.
fn starts_after(text: &str, fault: usize) -> BTreeSet<usize> {
    let mut start = text.get(..fault).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    // The parser may notice only at the next line that the one before was not complete: then that one counts.
    let own = text.get(start..fault).is_some_and(|before| before.trim().is_empty());
    for line in text.get(start..).unwrap_or_default().split_inclusive('\n') {
        if (own || start > fault) && is_beginning(line) {
            break;
        }
        start += line.len();
    }
    let rest = text.get(start..).unwrap_or_default();
    let errors = DeTable::parse_recoverable(rest).1;
    errors.iter().map(|error| start + inside(error.span(), rest).start).collect()
}

/// Whether a line looks like a header or the beginning of a key and its value.
fn is_beginning(line: &str) -> bool {
    let line = line.trim_start();
    let key = || line.split_once('=').map(|(key, _)| key.trim_end());
    let plain = |c: char| c.is_alphanumeric() || "_-.\"'".contains(c);
    line.starts_with('[') || key().is_some_and(|key| !key.is_empty() && key.chars().all(plain))
}

fn inside(span: Option<Range<usize>>, text: &str) -> Range<usize> {
    let span = span.unwrap_or(0..0);
    let end = span.end.min(text.len());
    span.start.min(end)..end
}

/// Where the key at `again` stands first: for a header, in the header before it that opens the same table; for another, the
/// nearest before it.
fn first(text: &str, root: &DeValue<'_>, line: &str, again: &Range<usize>) -> Option<Range<usize>> {
    let key = text.get(again.clone())?;
    if !line.trim_start().starts_with('[') {
        let mut found = None;
        nearest(root, text, key, again.start, &mut found);
        return found;
    }
    let (path, _) = header(&format!("{line}{key}]"))?;
    let mut start = 0;
    for line in text.get(..again.start)?.split_inclusive('\n') {
        if let Some((_, span)) = header(line).filter(|(other, _)| *other == path) {
            return Some(start + span.start..start + span.end);
        }
        start += line.len();
    }
    None
}

/// The keys that the header of a table names, and where the last one stands.
fn header(line: &str) -> Option<(Vec<String>, Range<usize>)> {
    if !line.trim_start().starts_with('[') {
        return None;
    }
    let parsed = DeTable::parse(line).ok()?.into_inner();
    let (mut path, mut table, mut last) = (Vec::new(), &parsed, None);
    while let Some((key, value)) = table.iter().next() {
        path.push(key.get_ref().to_string());
        last = Some(key.span());
        let Some(below) = value.get_ref().as_table() else { break };
        table = below;
    }
    Some((path, last?))
}

fn nearest(value: &DeValue<'_>, text: &str, key: &str, before: usize, found: &mut Option<Range<usize>>) {
    match value {
        DeValue::Table(table) => {
            for (name, value) in table {
                let span = name.span();
                let nearer = found.as_ref().is_none_or(|found| found.start < span.start);
                if span.start < before && nearer && text.get(span.clone()) == Some(key) {
                    *found = Some(span);
                }
                nearest(value.get_ref(), text, key, before, found);
            }
        }
        DeValue::Array(array) => array.iter().for_each(|value| nearest(value.get_ref(), text, key, before, found)),
        _ => {}
    }
}

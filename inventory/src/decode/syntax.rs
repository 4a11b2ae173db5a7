//! Faults of the TOML syntax, as diagnostics.

use std::{ops::Range, sync::Arc};

use toml::de::{DeTable, DeValue, Error};

use crate::{
    diagnostic::{Diagnostic, Location},
    hint,
};

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
    for (span, message) in spans {
        let at = Location::new(file.clone(), span.clone());
        if message != "duplicate key" {
            faults.push(Diagnostic::new(at, message.lines().collect::<Vec<_>>().join(", ")));
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

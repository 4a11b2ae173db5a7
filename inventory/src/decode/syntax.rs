//! Faults of the TOML itself, in words.

use std::{ops::Range, sync::Arc};

use toml::de::{DeTable, DeValue, Error};

use crate::{
    diagnostic::{Diagnostic, Location},
    hint,
};

/// The faults of a text. A table that is opened again is told once, not again for each of its keys.
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

/// Where the key at `again` stands first: for the header of a table by its path, for another the nearest before it.
fn first(text: &str, root: &DeValue<'_>, line: &str, again: &Range<usize>) -> Option<Range<usize>> {
    let key = text.get(again.clone())?;
    if line.trim_start().starts_with('[') {
        let header = format!("{line}{key}]");
        let path = DeTable::parse(&header).ok()?.into_inner();
        return same(&path, root.as_table()?).filter(|span| span.start < again.start);
    }
    let mut found = None;
    nearest(root, text, key, again.start, &mut found);
    found
}

/// The range, in `tree`, of the key at the end of the only path of `path`.
fn same(path: &DeTable<'_>, tree: &DeTable<'_>) -> Option<Range<usize>> {
    let (key, below) = path.iter().next()?;
    let (here, value) = tree.get_key_value(key.get_ref().as_ref())?;
    match (below.get_ref().as_table().filter(|below| !below.is_empty()), value.get_ref().as_table()) {
        (Some(below), Some(value)) => same(below, value),
        (None, _) => Some(here.span()),
        (Some(_), None) => None,
    }
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

//! What of templates comes from nodes: what they report is data, and must not become code where it is put.
//!
//! In: the texts that are rendered together, where each goes, and which vars hold reported values. Out: where a reported value stands
//! unquoted in a shell line, and the expressions whose values must be checked when they are rendered.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use minijinja::{Value, value::ValueKind};

use super::{
    follow::{ROUNDS, Walk},
    origin::{Origin, Origins, REPORTED, Sink, Sinks},
    syntax::{is_template, joins, parsed},
};

/// A text to look through.
#[derive(Clone, Copy)]
pub(super) struct Text<'t> {
    /// The template's name.
    pub(super) name: &'t str,
    /// By which other templates include it; none for a string.
    pub(super) path: Option<&'t str>,
    pub(super) text: &'t str,
}

/// Why an expression must not stand where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misplaced {
    /// It stands in a shell line as it is.
    Unquoted,
    /// It is quoted, within something else that a shell reads on in.
    WithinQuotes,
    /// It is part of a block, where its value cannot be checked.
    Unchecked,
}

/// What is found in texts.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The expressions that must not stand where they do, by template.
    pub(super) misplaced: Vec<(String, Range<usize>, Misplaced)>,
    /// The expressions whose values are to be checked when they are rendered, by template.
    pub(super) checked: BTreeMap<String, Vec<Range<usize>>>,
}

/// Looks through the texts that may be rendered together. Those that the engine does not compile are left out.
pub(super) fn of_texts<'t>(texts: impl IntoIterator<Item = Text<'t>>, sinks: &Sinks, vars: &Origins) -> Found {
    let texts: Vec<_> = texts.into_iter().collect();
    if !texts.iter().any(|text| may_report(text.text, vars)) {
        return Found::default();
    }
    let parsed: Vec<_> = texts.iter().filter_map(|text| Some((*text, parsed(text.text)?))).collect();
    // What includes others shares its names with them; a string without includes is on its own.
    let (joined, alone): (Vec<_>, Vec<_>) = parsed.iter().partition(|(text, stmt)| text.path.is_some() || joins(stmt));
    let sink = |name: &str| sinks.get(name).copied().unwrap_or(Sink::Line);
    let shell = joined.iter().any(|(text, _)| sink(text.name) == Sink::Shell);
    let mut found = Found::default();
    for group in alone.into_iter().map(|text| vec![text]).chain([joined]) {
        let mut walk = Walk::new(vars);
        walk.files.extend(group.iter().filter_map(|(text, _)| text.path));
        walk.settle(group.iter().map(|(_, stmt)| stmt));
        for (Text { name, path, .. }, stmt) in group {
            let sink = sink(name);
            // A file may be included by a shell line, and into something else as well.
            let in_shell = sink == Sink::Shell || (shell && path.is_some());
            for put in walk.puts(stmt).into_iter().filter(|put| put.origin != Origin::Site) {
                let why = match sink {
                    _ if in_shell && put.origin != Origin::Quoted => Misplaced::Unquoted,
                    _ if in_shell && !put.apart => Misplaced::WithinQuotes,
                    Sink::Shell | Sink::Argument => continue,
                    Sink::Line if put.expression => {
                        found.checked.entry((*name).to_owned()).or_default().push(put.range);
                        continue;
                    }
                    // What macros print was looked at there.
                    Sink::Line if put.origin == Origin::Quoted => continue,
                    Sink::Line => Misplaced::Unchecked,
                };
                found.misplaced.push(((*name).to_owned(), put.range, why));
            }
        }
    }
    found
}

/// Which vars are made of reported values, from the texts of those that hold templates.
pub(super) fn of_vars(texts: &[(&Arc<str>, &str)]) -> Origins {
    let mut vars = Origins::new();
    if !texts.iter().any(|(_, text)| may_report(text, &vars)) {
        return vars;
    }
    let parsed: Vec<_> = texts.iter().filter_map(|(name, text)| Some((*name, parsed(text)?))).collect();
    for round in 0.. {
        let mut same = true;
        for (name, stmt) in &parsed {
            let mut walk = Walk::new(&vars);
            walk.settle([stmt]);
            let puts = walk.puts(stmt);
            let closed = walk.shell().is_closed();
            let all = puts.iter().map(|put| if put.apart && closed { put.origin } else { put.origin.changed() });
            let before = vars.get(*name).copied().unwrap_or(Origin::Site);
            let origin = before.and(all.fold(Origin::Site, Origin::and));
            if origin != before {
                // Vars that lead to each other in a long chain are not followed to its end.
                let origin = if round < ROUNDS { origin } else { Origin::Reported };
                vars.insert((*name).clone(), origin);
                same = false;
            }
        }
        if round > ROUNDS {
            vars.extend(parsed.iter().map(|(name, _)| ((*name).clone(), Origin::Reported)));
            same = true;
        }
        if same {
            break;
        }
    }
    vars
}

/// Whether a text may name a reported value.
fn may_report(text: &str, vars: &Origins) -> bool {
    // `debug` prints whatever the template has.
    REPORTED.iter().chain(&["debug"]).any(|name| text.contains(name)) || vars.keys().any(|name| text.contains(&**name))
}

/// The texts within a value that are templates.
pub(super) fn texts_of(value: &Value, with: &mut Vec<Arc<str>>) {
    match value.kind() {
        ValueKind::String => with.extend(value.as_str().filter(|text| is_template(text)).map(Arc::from)),
        ValueKind::Seq => value.try_iter().into_iter().flatten().for_each(|item| texts_of(&item, with)),
        ValueKind::Map => {
            let values = value.try_iter().into_iter().flatten().filter_map(|key| value.get_item(&key).ok());
            values.for_each(|value| texts_of(&value, with));
        }
        _ => {}
    }
}

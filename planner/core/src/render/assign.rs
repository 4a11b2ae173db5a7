//! What `{% set %}` and `namespace` may keep, so that values do not nest without end.
//!
//! The engine drops, prints and compares values recursively, and a namespace can carry a value through a loop, or contain itself. So each
//! value that is assigned passes a filter, which this module puts into the text of the template before it is compiled: it refuses
//! what nests deeply, and replaces what is computed when it is read by what that is. Ranges are mapped back to the text as it is written.

use std::{ops::Range, sync::LazyLock};

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    machinery::{Token, tokenize},
    value::{Kwargs, Rest, ValueKind},
};

use super::{context::is_given, quote::LINE, syntax::syntax};

/// How deeply a value that is assigned may nest.
const DEPTH: usize = 100;

/// How many parts of a value are looked through for one step.
const VISITS: usize = 8;

/// The filter for what a name gets, and that for what an attribute of a namespace gets.
const FILTERS: [&str; 2] = ["_assigned", "_kept"];

/// Where text was put into a template, by position in the result, each with its length, in ascending order.
#[derive(Debug, Default, Clone)]
pub(super) struct Inserted(Vec<(usize, usize)>);

impl Inserted {
    /// The range in the template as it is written.
    pub(super) fn original(&self, range: &Range<usize>) -> Range<usize> {
        let back = |at: usize| {
            let before = self.0.iter().take_while(|(position, _)| *position < at);
            // Of what was put in, only the part before the position counts.
            at - before.map(|(position, length)| (*length).min(at - position)).sum::<usize>()
        };
        let start = back(range.start);
        start..back(range.end).max(start)
    }
}

/// The template with the filters in it, and with [`LINE`] around the expressions at `printed`; none if it needs neither. It is to be one
/// that the engine compiles.
pub(super) fn with_filters(text: &str, printed: &[Range<usize>]) -> Option<(String, Inserted)> {
    let mut puts = if text.contains("set") { assignments(text) } else { Vec::new() };
    puts.extend(printed.iter().flat_map(|range| [(range.start, "(".to_owned()), (range.end, format!(")|{LINE}"))]));
    if puts.is_empty() {
        return None;
    }
    puts.sort_by_key(|(at, _)| *at);
    let (mut result, mut inserted, mut from) = (String::with_capacity(text.len() + puts.len() * 8), Vec::new(), 0);
    for (at, put) in puts {
        result.push_str(&text[from..at]);
        inserted.push((result.len(), put.len()));
        result.push_str(&put);
        from = at;
    }
    result.push_str(&text[from..]);
    Some((result, Inserted(inserted)))
}

/// What is to be put into a template for its assignments, with the places, in order.
fn assignments(text: &str) -> Vec<(usize, String)> {
    let mut puts: Vec<(usize, String)> = Vec::new();
    // The tag that is read: whether it is a `set`, whether it names an attribute, where its value begins, and the end of the last token.
    let (mut first, mut set, mut dotted, mut value, mut piped, mut end) = (false, false, false, None, false, 0);
    let mut depth = 0_usize;
    for (token, span) in tokenize(text, false, syntax()).map_while(Result::ok) {
        let begins = std::mem::replace(&mut first, matches!(token, Token::BlockStart));
        match token {
            Token::BlockStart => (set, dotted, value, piped, depth) = (false, false, None, false, 0),
            Token::Ident("set") if begins => set = true,
            Token::BlockEnd if set => {
                let filter = FILTERS[usize::from(dotted)];
                match value {
                    Some(start) => puts.extend([(start, "(".to_owned()), (end, format!(")|{filter}"))]),
                    None if piped => puts.push((end, format!("|{filter}"))),
                    None => {}
                }
                set = false;
            }
            Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => depth += 1,
            Token::BracketClose | Token::ParenClose | Token::BraceClose => depth = depth.saturating_sub(1),
            Token::Dot if set && value.is_none() && !piped => dotted = true,
            Token::Assign if set && depth == 0 && value.is_none() && !piped => value = Some(span.end_offset as usize),
            Token::Pipe if set && depth == 0 && value.is_none() => piped = true,
            _ => {}
        }
        end = span.end_offset as usize;
    }
    puts
}

/// Gives the environment the filters, and a `namespace` whose first values pass them too.
pub(super) fn add_to(env: &mut Environment<'_>) {
    env.add_filter(FILTERS[0], |state: &State, value: Value| match value.kind() {
        // A second name for it: a namespace, `loop`, a macro.
        ValueKind::Map | ValueKind::Plain if !is_plain(&value) => Ok(value),
        _ => bounded(state, value),
    });
    env.add_filter(FILTERS[1], |state: &State, value: Value| bounded(state, value));
    let Some(namespace) = env.globals().find(|(name, _)| *name == "namespace").map(|(_, value)| value) else { return };
    env.add_function("namespace", move |state: &mut State, tables: Rest<Value>, named: Kwargs| {
        for table in tables.iter().filter(|value| value.kind() == ValueKind::Map) {
            for key in table.try_iter()? {
                bounded(state, table.get_item(&key)?)?;
            }
        }
        for name in named.args() {
            bounded(state, named.get::<Value>(name)?)?;
        }
        let given: Vec<Value> = tables.iter().cloned().chain([Value::from(named)]).collect();
        namespace.call(state, &given)
    });
}

/// The engine's own types of lists and tables.
static PLAIN: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let samples = [Value::from_pairs([("a", 1)]), Value::from(vec![Value::from(1)])];
    samples.iter().filter_map(|value| value.as_object()).map(|object| object.type_name()).collect()
});

/// Whether a value of several parts consists of them and nothing else.
fn is_plain(value: &Value) -> bool {
    let Some(own) = value.as_object().map(|object| object.type_name()) else { return false };
    // The last is what `+` makes of two lists; the engine limits how deeply it nests these.
    PLAIN.contains(&own) || own.ends_with("::Tuple") || own.ends_with("::MergeSeq")
}

/// The value as it may be kept.
fn bounded(state: &State, value: Value) -> Result<Value, Error> {
    Ok(replaced(state, &value, DEPTH)?.unwrap_or(value))
}

/// What is to be kept in the place of a value: none if that is the value itself. What is computed when it is read is replaced by what
/// that is. An error if it nests more than `depth` levels deep, or contains something that may contain it.
fn replaced(state: &State, value: &Value, depth: usize) -> Result<Option<Value>, Error> {
    let refuse = |message: String| Err(Error::new(ErrorKind::InvalidOperation, message));
    let kind = value.kind();
    let has_parts = matches!(kind, ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::Plain);
    if !has_parts || is_given(value) {
        return Ok(None);
    }
    let plain = is_plain(value);
    let Some(depth) = depth.checked_sub(1) else {
        return refuse(format!("a value that is assigned nests more than {DEPTH} levels deep"));
    };
    if kind == ValueKind::Plain || (kind == ValueKind::Map && !plain) {
        return refuse("a namespace, a macro or `loop` cannot be kept in a list, a table or a namespace".to_owned());
    }
    // Keys of a table, else the parts themselves.
    let (mut parts, mut same) = (Vec::new(), plain);
    for (n, item) in value.try_iter()?.enumerate() {
        if n.is_multiple_of(VISITS) {
            state.consume_fuel(1)?;
        }
        let part = if kind == ValueKind::Map { value.get_item(&item)? } else { item.clone() };
        let other = replaced(state, &part, depth)?;
        same &= other.is_none();
        parts.push((item, other.unwrap_or(part)));
    }
    Ok(match kind {
        _ if same => None,
        ValueKind::Map => Some(parts.into_iter().collect()),
        _ => Some(Value::from(parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        with_filters(text, &[]).map_or_else(|| text.to_owned(), |(text, _)| text)
    }

    #[test]
    fn every_form_of_an_assignment_is_filtered() {
        for (written, compiled) in [
            ("a {{ set }} b", "a {{ set }} b"),
            ("{%- set x = 1 -%}", "{%- set x =( 1)|_assigned -%}"),
            ("{% set n.x = \"%}\" %}", "{% set n.x =( \"%}\")|_kept %}"),
            ("{% set a, b = f(x=1), 2 %}", "{% set a, b =( f(x=1), 2)|_assigned %}"),
            ("{% set a, n.b = 1, 2 %}", "{% set a, n.b =( 1, 2)|_kept %}"),
            ("{% set x %}a = b{% endset %}", "{% set x %}a = b{% endset %}"),
            ("{% set n.x | map(a=n.y) %}s{% endset %}", "{% set n.x | map(a=n.y)|_kept %}s{% endset %}"),
            ("{% raw %}{% set x = 1 %}{% endraw %}", "{% raw %}{% set x = 1 %}{% endraw %}"),
            ("{# {% set x = 1 %} #}set", "{# {% set x = 1 %} #}set"),
        ] {
            assert_eq!(rewritten(written), compiled);
        }
    }

    #[test]
    fn ranges_are_those_of_the_template_as_it_is_written() {
        let text = "{% set n.x = abc %}{{ d }}{% set y = e %}";
        let (compiled, inserted) = with_filters(text, &[]).expect("assignments");
        for word in ["n.x", "abc", "d }}", "= ", "e %}", "set"] {
            let (Some(at), Some(written)) = (compiled.find(word), text.find(word)) else { continue };
            assert_eq!(inserted.original(&(at..at + word.len())), written..written + word.len(), "{word}");
        }
        let whole = inserted.original(&(0..compiled.len()));
        assert_eq!(whole, 0..text.len());
    }
}

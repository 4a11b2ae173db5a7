//! Filters, tests and functions that templates name and that do not exist.
//!
//! The engine finds these when it comes to them, which it may not while a value is missing. In: the texts that are rendered together, and the
//! engine with its filters, tests and functions. Out: the kind of each missing one, its name, and its range. Whatever stands in one of the
//! texts as a name other than that of a call counts as defined there: a macro, an argument, an import.

use std::{collections::BTreeSet, ops::Range};

use minijinja::{
    Environment, ErrorKind,
    machinery::{Token, tokenize},
};

use super::syntax;

/// Names that stand before a bracket without being called, and those that the engine defines within blocks.
const NOT_CALLED: [&str; 27] = [
    "and",
    "block",
    "call",
    "caller",
    "do",
    "elif",
    "else",
    "extends",
    "filter",
    "for",
    "from",
    "if",
    "import",
    "in",
    "include",
    "is",
    "loop",
    "macro",
    "not",
    "or",
    "recursive",
    "self",
    "set",
    "super",
    "with",
    "varargs",
    "kwargs",
];

/// A text to look through.
#[derive(Clone, Copy)]
pub(super) struct Text<'t> {
    /// The template's name.
    pub(super) name: &'t str,
    pub(super) text: &'t str,
    /// Whether it is a condition, and not a template.
    pub(super) expression: bool,
}

/// A name of something that does not exist.
pub(super) struct Missing<'t> {
    pub(super) of: Text<'t>,
    pub(super) kind: ErrorKind,
    pub(super) name: &'t str,
    pub(super) range: Range<usize>,
}

/// What the texts name and the engine does not have, in order, each name of a text once.
pub(super) fn missing<'t>(env: &'t Environment<'_>, texts: &[Text<'t>]) -> Vec<Missing<'t>> {
    let mut used = Vec::new();
    let mut defined: BTreeSet<&str> = env.globals().map(|(name, _)| name).collect();
    for text in texts {
        scan(*text, &mut used, &mut defined);
    }
    let mut state = env.empty_state();
    let mut seen = BTreeSet::new();
    used.retain(|used| {
        let known = match used.kind {
            // Called with nothing: it complains of that, unless it does not exist.
            ErrorKind::UnknownFilter => {
                !state.apply_filter(used.name, &[]).is_err_and(|e| e.kind() == ErrorKind::UnknownFilter)
            }
            ErrorKind::UnknownTest => {
                !state.perform_test(used.name, &[]).is_err_and(|e| e.kind() == ErrorKind::UnknownTest)
            }
            _ => defined.contains(used.name),
        };
        !known && seen.insert((used.of.name, used.name))
    });
    used
}

/// Notes what a text uses, and what it may define.
fn scan<'t>(of: Text<'t>, used: &mut Vec<Missing<'t>>, defined: &mut BTreeSet<&'t str>) {
    // The kind of what the next name is, and whether that is the first of a tag.
    let (mut next, mut first, mut block) = (None, false, "");
    // A name that is called if a bracket follows.
    let mut called: Option<(&'t str, Range<usize>)> = None;
    for (token, span) in tokenize(of.text, of.expression, syntax::syntax()).map_while(Result::ok) {
        let begins = std::mem::replace(&mut first, matches!(token, Token::BlockStart));
        let expected = next.take();
        let range = span.start_offset as usize..span.end_offset as usize;
        if let Some((name, at)) = called.take() {
            match token {
                Token::ParenOpen => used.push(Missing { of, kind: ErrorKind::UnknownFunction, name, range: at }),
                _ => _ = defined.insert(name),
            }
        }
        match token {
            Token::Pipe => next = Some(ErrorKind::UnknownFilter),
            Token::Dot => next = Some(ErrorKind::UnknownMethod),
            Token::BlockStart => block = "",
            Token::Ident(name) if begins => {
                block = name;
                if name == "filter" {
                    next = Some(ErrorKind::UnknownFilter);
                }
            }
            Token::Ident(name) => match expected {
                Some(ErrorKind::UnknownTest) if name == "not" => next = expected,
                Some(kind @ (ErrorKind::UnknownFilter | ErrorKind::UnknownTest)) => {
                    used.push(Missing { of, kind, name, range });
                }
                // An attribute.
                Some(_) => {}
                None if name == "is" => next = Some(ErrorKind::UnknownTest),
                None if NOT_CALLED.contains(&name) => {}
                None if block == "macro" => _ = defined.insert(name),
                None => called = Some((name, range)),
            },
            _ => {}
        }
    }
    defined.extend(called.map(|(name, _)| name));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let text = Text { name: "t", text, expression: false };
        let env = Environment::new();
        missing(&env, &[text]).into_iter().map(|missing| missing.name.to_owned()).collect()
    }

    #[test]
    fn what_does_not_exist_is_found_wherever_it_stands() {
        assert_eq!(found("{{ a | upper | nope }}"), ["nope"]);
        assert_eq!(found("{% if a is not defined %}{{ a is odd_one }}{% endif %}"), ["odd_one"]);
        assert_eq!(found("{% for x in lookup('a') %}{{ x }}{% endfor %}"), ["lookup"]);
        assert_eq!(found("{% filter shout %}a{% endfilter %}{% set b = a | worse %}"), ["shout", "worse"]);
        assert_eq!(found("{% if false %}{{ a | nope }}{{ b | nope }}{% endif %}"), ["nope"]);
    }

    #[test]
    fn what_exists_or_may_be_defined_is_not_reported() {
        for text in [
            "{{ range(3) | join(',') }} {{ dict(a=1) }} {{ a.b(1) }} {{ 'nope(' }} nope( {{ (a) }}",
            "{% macro greet(name) %}{{ name }}{{ caller() }}{% endmacro %}{{ greet('a') }}",
            "{% call(user) list() %}{{ user }}{% endcall %}{% macro list() %}{% endmacro %}",
            "{% from 'x' import f as g %}{{ g(1) }}{% set ns = namespace(a=1) %}",
            "{{ a is none }}{{ a is not in [1] }}{{ a is eq 1 }}{{ a if (b) else (c) }}{{ not (a) }}{{ a in (1, 2) }}",
            "{% for x in a recursive %}{{ loop(x) }}{% endfor %}{{ loop.index }}{{ a is divisibleby(3) }}",
            "{# {{ a | nope }} #}{% raw %}{{ a | nope }}{% endraw %}",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}

//! Errors of values in site files: as the types report them, and as diagnostics.

use std::{fmt, ops::Range, sync::Arc};

use serde::de::{Error, Expected, Unexpected};
use toml::{
    Spanned,
    de::{DeInteger, DeValue},
};

use crate::{
    diagnostic::{Diagnostic, Location},
    hint,
};

/// What is wrong, with what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A key that the type does not have.
    UnknownField {
        /// The key.
        name: String,
        /// The keys that it has.
        expected: &'static [&'static str],
    },
    /// A key that must be there.
    MissingField(&'static str),
    /// A name that is none of the allowed ones.
    UnknownVariant {
        /// The name.
        name: String,
        /// The allowed names.
        expected: &'static [&'static str],
    },
    /// A value of another type.
    Type {
        /// What was found, such as `a list`.
        found: String,
        /// What is expected, such as `text`.
        expected: String,
        /// How to write what was meant.
        hint: Option<String>,
    },
    /// The message of the type itself: the fault and, after `: `, what is expected.
    Custom(String),
}

/// Names an element of the parsed tree by its address: the tree does not move while it is read.
pub(super) type Element = usize;

/// Where an error is, and which element to leave out so that the rest can be read.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) span: Range<usize>,
    pub(super) element: Element,
    /// The table that the element is an entry of, and its key.
    pub(super) entry: Option<(Element, String)>,
    /// If it is an element of a list: the key of that.
    pub(super) list: Option<String>,
    /// Whether the element is a table or a list of tables, which may declare something.
    pub(super) is_table: bool,
}

impl Origin {
    pub(super) fn entry(span: Range<usize>, value: &Spanned<DeValue<'_>>, entry: (Element, String)) -> Box<Self> {
        Box::new(Self { entry: Some(entry), ..*Self::element(span, value) })
    }

    pub(super) fn element(span: Range<usize>, value: &Spanned<DeValue<'_>>) -> Box<Self> {
        let is_table = match value.get_ref() {
            DeValue::Table(_) => true,
            DeValue::Array(array) => array.iter().any(|element| element.get_ref().is_table()),
            _ => false,
        };
        Box::new(Self { span, element: address(value), entry: None, list: None, is_table })
    }
}

/// The address of an element.
pub(super) fn address<T>(of: &T) -> Element {
    std::ptr::from_ref(of).addr()
}

/// An error with its place.
#[derive(Debug, Clone)]
pub struct DecodeError {
    /// What is wrong with the text at its place.
    pub cause: Cause,
    pub(super) place: Option<Box<Origin>>,
    /// Follows from a fault that is reported already.
    pub(super) quiet: bool,
}

impl DecodeError {
    fn new(cause: Cause) -> Self {
        Self { cause, place: None, quiet: false }
    }

    /// With a place, unless a nested value has given it a more exact one.
    pub(super) fn or_place(mut self, place: impl FnOnce() -> Box<Origin>) -> Self {
        self.place.get_or_insert_with(place);
        self
    }

    /// Found in the value of that key.
    pub(super) fn below(mut self, key: &str) -> Self {
        if let Some(Origin { entry: None, list: list @ None, .. }) = self.place.as_deref_mut() {
            *list = Some(key.to_owned());
        }
        self
    }

    pub(super) fn choice(found: Unexpected<'_>, among: &'static [&'static str]) -> Self {
        let expected = format!("one of {}", hint::list(among));
        Self::new(Cause::Type { found: found_words(&found), expected, hint: None })
    }

    /// A number where text is expected.
    pub(super) fn unquoted(number: &DeInteger<'_>) -> Self {
        // A mode is written in octal: with quotes, and without the prefix of TOML.
        let written = match number.radix() {
            8 => format!("0{}", number.as_str()),
            16 => format!("0x{}", number.as_str()),
            2 => format!("0b{}", number.as_str()),
            _ => number.as_str().to_owned(),
        };
        let hint = Some(format!("put it in quotes: \"{}\"", hint::excerpt(&written)));
        Self::new(Cause::Type { found: "a whole number".to_owned(), expected: "text".to_owned(), hint })
    }

    /// As a diagnostic. Without a place it is about the file as a whole; `text` is that of the file.
    pub(super) fn diagnostic(&self, file: &Arc<str>, text: &str) -> Diagnostic {
        let at = match &self.place {
            Some(place) => Location::new(file.clone(), place.span.clone()),
            None => Location::file(file.clone()),
        };
        let subject = self.place.as_ref().map_or("the file".to_owned(), |place| match &place.entry {
            Some((_, key)) => format!("`{}`", hint::excerpt(key)),
            None => format!("an element of `{}`", place.list.as_deref().map(hint::excerpt).unwrap_or_default()),
        });
        match &self.cause {
            Cause::UnknownField { name, expected } => {
                Diagnostic::new(at, format!("unknown key `{}`", hint::excerpt(name))).hint(hint::choose(name, expected))
            }
            Cause::UnknownVariant { name, expected } => {
                Diagnostic::new(at, format!("{subject} cannot be `{}`", hint::excerpt(name)))
                    .hint(hint::choose(name, expected))
            }
            Cause::MissingField(field) => {
                let diagnostic = Diagnostic::new(at, format!("{subject} has no `{field}`"));
                diagnostic.label(format!("`{field}` is missing")).hint(format!("add `{field} = …`"))
            }
            Cause::Type { found, expected, hint } => {
                let mut diagnostic = Diagnostic::new(at, format!("{subject} must be {expected}, not {found}"));
                diagnostic.label = format!("expected {expected}");
                diagnostic.hint = hint.clone().or_else(|| self.brackets(text, expected));
                diagnostic
            }
            Cause::Custom(words) => match words.split_once(": ") {
                Some((fault, expected)) => Diagnostic::new(at, fault).hint(format!("use {expected}")),
                None => Diagnostic::new(at, words),
            },
        }
    }
}

impl DecodeError {
    /// How many brackets the header should have, if that is what is wrong.
    fn brackets(&self, text: &str, expected: &str) -> Option<String> {
        let place = self.place.as_deref()?;
        let (_, key) = place.entry.as_ref()?;
        let (key, header) = (hint::excerpt(key), text.get(place.span.clone())?);
        // A header with a name behind the key, such as `[task.conf]`, stands with that key alone.
        let before = text[..place.span.start].chars().next_back();
        match (header.starts_with('[') || before == Some('['), header.starts_with("[["), expected) {
            (true, false, "a list") if !header.starts_with('[') => {
                Some(format!("write `[[{key}]]`: two brackets, once for each, and the name as a key below it"))
            }
            (true, false, "a list") => Some(format!("write `[[{key}]]`: two brackets, once for each")),
            (_, true, "a table") => Some(format!("write `[{key}]`: one bracket, and once")),
            (false, false, "a list") if header.starts_with('{') => {
                Some(format!("write `[[{key}]]`, once for each, with its keys in lines below"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic(&"".into(), "").message)
    }
}

impl std::error::Error for DecodeError {}

impl Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let words = message.to_string();
        match words.strip_prefix("data did not match any variant of untagged enum ") {
            Some(name) => Self::new(Cause::Type {
                found: "this".to_owned(),
                expected: untagged_words(name).to_owned(),
                hint: None,
            }),
            None => Self::new(Cause::Custom(words)),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected_words(&expected.to_string());
        let hint = type_hint(&found, &expected);
        Self::new(Cause::Type { found: found_words(&found), expected, hint })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(name: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Cause::UnknownVariant { name: name.to_owned(), expected })
    }

    fn unknown_field(name: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Cause::UnknownField { name: name.to_owned(), expected })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Cause::MissingField(field))
    }
}

/// What an untagged enum of the protocol accepts; serde reports no more than its name.
fn untagged_words(name: &str) -> &'static str {
    match name {
        "Run" => "a shell line or a list of arguments, all of them text",
        "TcpTarget" => "a port from 0 to 65535, or \"host:port\"",
        _ => "one of the forms that the documentation shows",
    }
}

fn found_words(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(b) => format!("`{b}`"),
        Unexpected::Unsigned(n) => format!("the number {n}"),
        Unexpected::Signed(n) => format!("the number {n}"),
        Unexpected::Float(_) => "a number with a fraction".to_owned(),
        Unexpected::Str(s) => format!("the text \"{}\"", hint::excerpt(s)),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        Unexpected::Other(words) => (*words).to_owned(),
        other => other.to_string(),
    }
}

fn expected_words(expected: &str) -> String {
    match expected {
        "a string" | "string" | "str" => "text".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "u8" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "a nonzero u32" => "a whole number of at least 1".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other => other.to_owned(),
    }
}

/// How to write what was probably meant.
fn type_hint(found: &Unexpected<'_>, expected: &str) -> Option<String> {
    match (found, expected) {
        (Unexpected::Other(_) | Unexpected::Bool(_), "text") => Some("put it in quotes".to_owned()),
        (Unexpected::Str(s), "a list") => Some(format!("write a list: [\"{}\"]", hint::excerpt(s))),
        (Unexpected::Str(s), _) if expected.contains("number") && s.parse::<i64>().is_ok() => {
            Some(format!("leave out the quotes: {s}"))
        }
        (Unexpected::Str("true" | "false" | "yes" | "no"), "`true` or `false`") => {
            Some("write `true` or `false` without quotes".to_owned())
        }
        _ => None,
    }
}

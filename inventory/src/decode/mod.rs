//! Decodes TOML into types without stopping at the first fault.
//!
//! In: the bytes of a file and a type that derives `Deserialize` with `deny_unknown_fields`. Out: the value, as far as it can be
//! read, and a diagnostic for every fault. The types are both schema and parser: a fault is recorded, the key or
//! element that has it is left out, and the rest is read again until nothing is wrong or nothing can be left out. A fault
//! that merely follows from a reported one (a required key that was left out) is not reported.

mod at;
mod error;
mod syntax;
mod toggle;
mod value;
mod wording;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use self::value::{Faulty, Value};
pub use self::{
    at::At,
    error::{Cause, DecodeError},
    toggle::Toggle,
    value::tables,
};
use crate::{
    diagnostic::{Diagnostic, Location},
    hint,
};

/// Most faults that are reported of one file: each costs a reading of the file.
const MAX_FAULTS: usize = 200;

/// A parsed file: what of it is TOML, and its faults.
#[derive(Debug)]
pub struct Document<'a> {
    file: Arc<str>,
    root: Spanned<DeValue<'a>>,
    /// The faults so far: of the syntax, then of decoding.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether something that it declares may not have been read: after a fault of the syntax, and where a table was left out.
    pub incomplete: bool,
    text: &'a str,
}

impl<'a> Document<'a> {
    /// Parses the bytes of `file`, as far as they are UTF-8 and TOML.
    pub fn parse(file: &Arc<str>, bytes: &'a [u8]) -> Self {
        let (text, encoding) = match std::str::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let start = error.valid_up_to();
                let at = Location::new(file.clone(), start..(start + error.error_len().unwrap_or(1)).min(bytes.len()));
                let fault = Diagnostic::new(at, "the file is not UTF-8").hint("save it as UTF-8, as TOML demands");
                ("", Some(fault))
            }
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        let span = table.span();
        let root = Spanned::new(span, DeValue::Table(table.into_inner()));
        let mut diagnostics: Vec<_> = encoding.into_iter().collect();
        diagnostics.extend(syntax::faults(file, text, root.get_ref(), errors.iter().take(MAX_FAULTS)));
        Self { file: file.clone(), root, incomplete: !diagnostics.is_empty(), diagnostics, text }
    }

    /// The parsed tree, for what the types do not keep, such as the places of parameters.
    pub fn table(&self) -> Option<&DeTable<'a>> {
        self.root.get_ref().as_table()
    }

    /// Reads it as `T`; `None` if the document as a whole cannot be one. After syntax faults no others are reported: what could
    /// be parsed may not be what was meant.
    pub fn decode<T: DeserializeOwned>(&mut self) -> Option<T> {
        let report = self.diagnostics.is_empty();
        let mut faulty = Faulty::default();
        let mut found = Vec::new();
        let value = loop {
            let error = match T::deserialize(Value::root(&self.root, &faulty)) {
                Ok(value) => break Some(value),
                Err(error) => error,
            };
            if !error.quiet {
                found.push(error.diagnostic(&self.file, self.text));
            }
            let Some(place) = error.place else {
                self.incomplete = true;
                break None;
            };
            self.incomplete |= place.is_table;
            if let Some((table, key)) = place.entry {
                let keys = faulty.keys.entry(table).or_default();
                if let Cause::UnknownField { name, expected } = &error.cause {
                    keys.extend(hint::meant(name, expected).map(str::to_owned));
                }
                keys.push(key);
            }
            if !faulty.elements.insert(place.element) || faulty.elements.len() > MAX_FAULTS {
                break None;
            }
        };
        if report {
            self.diagnostics = found;
        }
        value
    }
}

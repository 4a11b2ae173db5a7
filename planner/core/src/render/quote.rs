//! Filters that keep what nodes report from becoming code.
//!
//! `quote` makes one word of a shell of any text. A second filter, which the planner puts around what is made of reported values, refuses
//! text that would begin a new line.

use groundplan_protocol::kinds::{is_break, is_control};
use minijinja::{Environment, Error, ErrorKind, State, Value, value::ValueKind};

/// The filter around what is printed into a line.
pub(super) const LINE: &str = "_line";

/// How the messages of faults of that filter begin.
pub(super) const LINE_FAULT: &str = "what a node reported has ";

/// Gives the environment the filters.
pub(super) fn add_to(env: &mut Environment<'_>) {
    env.add_filter("quote", |state: &mut State, value: Value| match value.kind() {
        // Refused as every filter of a text does, which names what is undefined.
        ValueKind::Undefined => state.apply_filter("trim", &[value]),
        ValueKind::String | ValueKind::Number | ValueKind::Bool => quoted(&value.to_string()).map(Value::from),
        kind => {
            let message =
                format!("`quote` takes a text and not a {kind}; for the items of a list there is `map('quote')`");
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
    });
    env.add_filter(LINE, |value: Value| {
        let found = match value.as_str() {
            Some(text) => text.chars().find(|c| is_control(*c)),
            None => value.to_string().chars().find(|c| is_control(*c)),
        };
        match found {
            None => Ok(value),
            Some(c) if is_break(c) => Err(line_fault("a line break")),
            Some(c) => Err(line_fault(&format!("the control character {}", c.escape_default()))),
        }
    });
}

fn line_fault(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{LINE_FAULT}{what} in it, which could begin something else here"))
}

/// A text as one word of a POSIX shell.
fn quoted(text: &str) -> Result<String, Error> {
    match text.contains('\0') {
        true => Err(Error::new(ErrorKind::InvalidOperation, "`quote` cannot quote a NUL".to_owned())),
        false => Ok(format!("'{}'", text.replace('\'', "'\\''"))),
    }
}

//! The agent's log: one line each on standard error, for journald or whoever started it to keep.
//!
//! In: something to say. Out: a line, with line breaks inside it escaped so that a message of a peer cannot forge one.
//! Never fails: a closed standard error is nobody's trouble here.

use std::{fmt::Display, io::Write as _};

fn line(level: &str, message: &dyn Display) {
    let text = message.to_string().replace('\n', "\\n").replace('\r', "\\r");
    // Nobody is left to be told when standard error is closed.
    let _ = std::io::stderr().write_all(format!("{level}{text}\n").as_bytes());
}

/// Says what happened.
pub fn info(message: impl Display) {
    line("", &message);
}

/// Says what an operator should look at.
pub fn warn(message: impl Display) {
    line("warning: ", &message);
}

/// Says why the program ends; its lines stay lines, for a person waits for them.
pub fn error(message: impl Display) {
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(std::io::stderr(), "error: {message}");
}

/// An error and all that lies behind it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own message.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

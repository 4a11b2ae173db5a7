//! The agent's log: one line for each message on standard error, to be kept by journald or another supervisor.
//!
//! In: a message. Out: a line, with line breaks inside it escaped, so that text from a peer cannot forge one. It never fails: a
//! closed standard error is ignored.

use std::{fmt::Display, io::Write as _};

fn line(level: &str, message: &dyn Display) {
    let text = message.to_string().replace('\n', "\\n").replace('\r', "\\r");
    // If standard error is closed, there is nowhere to report that.
    let _ = std::io::stderr().write_all(format!("{level}{text}\n").as_bytes());
}

/// Logs an event that needs no action.
pub fn info(message: impl Display) {
    line("", &message);
}

/// Logs a problem that an operator should examine.
pub fn warn(message: impl Display) {
    line("warning: ", &message);
}

/// Prints why the program ends. Its line breaks are kept: a person reads it on a terminal.
pub fn error(message: impl Display) {
    // If standard error is closed, there is nowhere to report that.
    let _ = writeln!(std::io::stderr(), "error: {message}");
}

/// An error with all its sources, in one line.
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

//! The agent's log: one line for each message on standard error, to be kept by journald or another supervisor.
//!
//! In: a message. Out: a line of bounded length, with line breaks inside it escaped, so that text from a peer cannot forge one, and with
//! other control characters and those that change the direction of text escaped as well, so that no terminal acts on it. It never fails: a
//! closed standard error is ignored.

use std::{fmt::Display, io::Write as _};

use groundplan_protocol::{
    limits::REASON_LIMIT,
    text::{cut, escaped},
};

fn line(level: &str, message: &dyn Display) {
    let text = cut(&message.to_string(), REASON_LIMIT, "");
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
    let _ = writeln!(std::io::stderr(), "error: {}", escaped(&message.to_string(), "\n\t"));
}

/// An error with all its sources: what is reported and stored of it. It may quote what a program or a peer sent, so it is cut, and no
/// terminal acts on it; line breaks and tabs stay.
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
    cut(&text, REASON_LIMIT, "\n\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_of_bounded_length_and_harmless() {
        let error = std::io::Error::other("last\nlines\x1b[2J".to_owned() + &"x".repeat(5000));
        let text = chain(&error);
        assert!(text.starts_with("last\nlines\\u{1b}[2Jxx") && text.ends_with("x…"), "{text}");
        assert!(text.chars().count() < REASON_LIMIT + 10);
    }
}

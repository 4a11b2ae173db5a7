//! The agent's log: one line for each message on standard error, to be kept by journald or another supervisor.
//!
//! In: a message. Out: a line, with line breaks inside it escaped, so that text from a peer cannot forge one, and with other control
//! characters and those that change the direction of text escaped as well, so that no terminal acts on it. It never fails: a closed
//! standard error is ignored.

use std::{fmt::Display, io::Write as _};

fn line(level: &str, message: &dyn Display) {
    let text = escaped(&message.to_string(), "");
    // If standard error is closed, there is nowhere to report that.
    let _ = std::io::stderr().write_all(format!("{level}{text}\n").as_bytes());
}

/// The text with all characters escaped that a terminal may act on, except those of `kept`.
fn escaped(text: &str, kept: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Unicode Technical Report 36, 2.6: characters by which text is shown in another order than it has.
        let directs =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() || directs) && !kept.contains(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_acts_on_nothing_in_a_line() {
        let text = "größe\n\x1b[2J\u{202e}\t\u{9b}";
        assert_eq!(escaped(text, ""), "größe\\n\\u{1b}[2J\\u{202e}\\t\\u{9b}");
        assert_eq!(escaped(text, "\n\t"), "größe\n\\u{1b}[2J\\u{202e}\t\\u{9b}");
    }
}

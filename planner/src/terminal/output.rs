//! Standard output and standard error of a command: colour or none, text or JSON, and failures with their hints.
//!
//! In: text, or a value to serialize. A reader that closes the pipe early is no error.

use std::{
    error::Error as _,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use clap::ValueEnum;
use serde::Serialize;

use super::Failure;

// No doc comments on the variants: clap would spread one line of help over five.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// The colour or weight of a piece of text. Never the only carrier of a meaning: output without colour reads the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "1;31",
        }
    }

    /// Wraps `text` in the escape sequences of this style (ECMA-48, SGR) if `color` is true; else returns it unchanged.
    pub(crate) fn paint(self, text: &str, color: bool) -> String {
        if color && self != Self::Plain { format!("\x1b[{}m{text}\x1b[0m", self.code()) } else { text.to_owned() }
    }
}

/// Both output streams, with the choice of `--color`.
#[derive(Debug)]
pub(crate) struct Output {
    color: Color,
}

impl Output {
    /// Applies the choice of `--color` to both streams.
    pub(crate) fn new(color: Color) -> Self {
        Self { color }
    }

    fn colored(&self, terminal: bool) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        }
    }

    /// Whether text for standard output is coloured: as chosen, or on a terminal unless `NO_COLOR` is set (no-color.org).
    pub(crate) fn color(&self) -> bool {
        self.colored(io::stdout().is_terminal())
    }

    /// As [`Output::color`], for standard error.
    pub(crate) fn error_color(&self) -> bool {
        self.colored(io::stderr().is_terminal())
    }

    /// Writes text unchanged to standard output.
    ///
    /// # Errors
    /// The write failed, except because the reader closed the pipe: it has read enough.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::because("cannot write the result", e)),
            _ => Ok(()),
        }
    }

    /// Writes a value as JSON to standard output.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub(crate) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(value).map_err(|e| Failure::because("cannot write JSON", e))?;
        text.push('\n');
        self.print(&text)
    }

    /// Writes text to standard error, where it does not mix with the result.
    pub(crate) fn note(&mut self, text: &str) {
        // Standard error is the last resort: there is no place left to report that it failed.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// Writes a failure to standard error: the message, its chain of causes on one line, and a line for each hint.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        let color = self.error_color();
        let mut text = failure.to_string();
        let mut cause = failure.source();
        while let Some(e) = cause {
            let message = e.to_string();
            // Some libraries repeat the source in their own message; it would then be printed twice.
            if !text.ends_with(&message) {
                let _ = write!(text, ": {message}");
            }
            cause = e.source();
        }
        text = format!("{} {text}", Style::Bad.paint("error:", color));
        text.push('\n');
        if let Some(hint) = failure.hint_text() {
            for line in hint.lines() {
                let _ = writeln!(text, "  {} {line}", Style::Bold.paint("→", color));
            }
        }
        self.note(&text);
    }
}

//! Where a command's words go: colour or none, text or JSON, and failures that say what to do.
//!
//! A reader that closes the pipe ends the output without a word.

use std::{
    error::Error as _,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use clap::ValueEnum;
use serde::Serialize;

use super::Failure;

// When to use colour. No doc comments here: clap would spread one line of help over five.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// How a few words are set off. No meaning hangs on it alone.
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

    /// `text` in this style, if there is colour.
    pub(crate) fn paint(self, text: &str, color: bool) -> String {
        if color && self != Self::Plain { format!("\x1b[{}m{text}\x1b[0m", self.code()) } else { text.to_owned() }
    }
}

/// Standard output and standard error, with what was chosen about them.
#[derive(Debug)]
pub(crate) struct Output {
    color: Color,
}

impl Output {
    /// Writes with or without colour.
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

    /// Whether standard output has colour.
    pub(crate) fn color(&self) -> bool {
        self.colored(io::stdout().is_terminal())
    }

    /// Whether standard error has colour.
    pub(crate) fn error_color(&self) -> bool {
        self.colored(io::stderr().is_terminal())
    }

    /// Writes text, as it is, to standard output.
    ///
    /// # Errors
    /// What the system says, but for a closed pipe: whoever closed it has read enough.
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

    /// Writes text to standard error, where it does not disturb a result.
    pub(crate) fn note(&mut self, text: &str) {
        // Nobody is left to be told that telling failed.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// Writes a failure with its causes and what to do about it to standard error.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        let color = self.error_color();
        let mut text = failure.to_string();
        let mut cause = failure.source();
        while let Some(e) = cause {
            let words = e.to_string();
            // Not every library keeps a message apart from its source.
            if !text.ends_with(&words) {
                let _ = write!(text, ": {words}");
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

//! Standard output and standard error of a command: colour or none, text or JSON, and failures with their hints.
//!
//! In: text, or a value to serialize. Out: what of it is safe for a terminal, see `safe`. A reader that closes the pipe early is no error.

use std::{
    error::Error as _,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
};

use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::{
    Failure,
    safe::{ESCAPE, safe, safe_json, safe_log},
};

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

    /// Wraps `text` in the escape sequences of this style (ECMA-48, SGR) if `color` is true; else returns it unchanged. The sequences begin
    /// with [`ESCAPE`] until they are written.
    pub(crate) fn paint(self, text: &str, color: bool) -> String {
        if color && self != Self::Plain {
            format!("{ESCAPE}[{}m{text}{ESCAPE}[0m", self.code())
        } else {
            text.to_owned()
        }
    }
}

/// Clears the terminal and moves to its top left (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Both output streams, with the choice of `--color`.
#[derive(Debug)]
pub(crate) struct Output {
    color: Color,
    /// Whether the reader of standard output has closed it.
    closed: bool,
}

/// Replaces the line on standard error that is being redrawn; only for a terminal. Without text, the line is removed.
pub(crate) fn redraw(text: &str) {
    // Without line wrap (DECAWM off): of a line that wraps, only the last row would be cleared at the next draw.
    let _ = write!(io::stderr().lock(), "\r\x1b[K\x1b[?7l{}\x1b[?7h", safe(text));
}

/// The log on standard error: with its own colours, and safe for a terminal otherwise. Commit subjects and messages of nodes are in it.
#[derive(Debug)]
pub(crate) struct LogWriter;

impl io::Write for LogWriter {
    /// Takes whole lines, as the log writes them.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(safe_log(&String::from_utf8_lossy(lines)).as_bytes())?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

impl Output {
    /// Applies the choice of `--color` to both streams.
    pub(crate) fn new(color: Color) -> Self {
        Self { color, closed: false }
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

    /// Writes text to standard output, safe for a terminal.
    ///
    /// # Errors
    /// The write failed, except because the reader closed the pipe: it has read enough.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), Failure> {
        self.raw(&safe(text))
    }

    /// As [`Output::print`], on a terminal in the place of what is there.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub(crate) fn repaint(&mut self, text: &str) -> Result<(), Failure> {
        if io::stdout().is_terminal() {
            self.raw(CLEAR)?;
        }
        self.print(text)
    }

    /// Writes text unchanged to standard output: for data that is not shown, or that was asked for as it is.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub(crate) fn raw(&mut self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.closed = true,
            Err(e) => return Err(Failure::because("cannot write the result", e)),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Whether standard output is not read any more: a write has failed, or the other end of the pipe is closed.
    pub(crate) fn is_closed(&self) -> bool {
        let stdout = io::stdout();
        let mut polled = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        // Nothing is waited for: poll(2) reports an error of the pipe whether asked for or not.
        let broken = poll(&mut polled, PollTimeout::ZERO).is_ok()
            && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
        self.closed || broken
    }

    /// Writes a value as JSON to standard output.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub(crate) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Failure::because("cannot write JSON", e))?;
        self.raw(&(safe_json(&text) + "\n"))
    }

    /// Writes a value as one line of JSON to standard output.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub(crate) fn json_line<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|e| Failure::because("cannot write JSON", e))?;
        self.raw(&(safe_json(&text) + "\n"))
    }

    /// Writes text to standard error, where it does not mix with the result, safe for a terminal.
    pub(crate) fn note(&mut self, text: &str) {
        self.raw_note(&safe(text));
    }

    /// As [`Output::note`], unchanged.
    pub(crate) fn raw_note(&mut self, text: &str) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_colours_stay_around_what_is_made_safe() {
        let painted = Style::Bad.paint("a\x1b[0m", true);
        assert_eq!(safe(&painted), "\x1b[1;31ma␛[0m\x1b[0m");
        assert_eq!(safe(&Style::Bad.paint("a", false)), "a");
    }
}

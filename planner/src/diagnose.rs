//! Renders diagnostics: as text with source lines, or as JSON.
//!
//! In: diagnostics, whose places are ranges of bytes, and the bytes of the files. Out: one text or JSON list, in the order of the places,
//! the same for the same input. Accepts any bytes and ranges (not UTF-8, beyond the end, in the middle of a character); a file that
//! cannot be read is named without a source line.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use annotate_snippets::{Annotation, AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use groundplan_inventory::{Diagnostic, Location, Severity};
use groundplan_protocol::text::is_hostile;
use serde_json::{Value, json};

use crate::terminal::ESCAPE;

/// Returns the bytes of a file of the site; `None` if it cannot be read.
pub type Texts<'a> = dyn Fn(&str) -> Option<Arc<[u8]>> + 'a;

/// How many lines apart two places of one file may be to be shown in one snippet.
const APART: usize = 40;

/// The diagnostics as text, in the order of their places, each with its source lines, and their number at the end. Empty if there are
/// none. Colours begin with [`ESCAPE`], as all text for a terminal.
pub fn render(diagnostics: &[Diagnostic], texts: &Texts<'_>, color: bool) -> String {
    let ordered = ordered(diagnostics);
    let mut files = Files { texts, known: BTreeMap::new() };
    for location in ordered.iter().flat_map(|d| places(d).map(|(at, _)| at)) {
        files.load(&location.file);
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for diagnostic in &ordered {
        let (title, hint) = (plain(&diagnostic.message), diagnostic.hint.as_deref().map(plain));
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(title)).elements(elements(diagnostic, &files));
        if let Some(hint) = hint {
            group = group.element(Level::HELP.message(hint));
        }
        // Its input has no control characters, so all that begin with the escape character are the renderer's own.
        out.push_str(&renderer.render(&[group]).replace('\x1b', &ESCAPE.to_string()));
        out.push_str("\n\n");
    }
    if !ordered.is_empty() {
        out.push_str(&total(&ordered));
        out.push('\n');
    }
    out
}

/// The diagnostics as a JSON list of `{severity, file, line, column, message, label, hint, related: [{file, line, column, message}]}`, in
/// the order of their places. `severity` is `error` or `warning`. Lines and columns count from 1, columns in characters; a diagnostic of a whole file is at 1, 1. `label` and
/// `hint` may be `null`.
pub fn to_json(diagnostics: &[Diagnostic], texts: &Texts<'_>) -> Value {
    let mut files = Files { texts, known: BTreeMap::new() };
    let mut place = |at: &Location, message: &str| {
        files.load(&at.file);
        let (line, column) = files.get(&at.file).map_or((1, 1), |text| text.position(at.start));
        json!({ "file": &*at.file, "line": line, "column": column, "message": message })
    };
    let one = |diagnostic: &Diagnostic| {
        let mut value = place(&diagnostic.at, &diagnostic.message);
        let related = diagnostic.related.iter().map(|(at, text)| place(at, text));
        value["related"] = related.collect();
        value["label"] = Some(&diagnostic.label).filter(|label| !label.is_empty()).cloned().into();
        value["hint"] = diagnostic.hint.clone().into();
        value["severity"] = match diagnostic.severity {
            Severity::Error => "error".into(),
            Severity::Warning => "warning".into(),
        };
        value
    };
    Value::Array(ordered(diagnostics).into_iter().map(one).collect())
}

fn ordered(diagnostics: &[Diagnostic]) -> Vec<&Diagnostic> {
    let mut ordered: Vec<_> = diagnostics.iter().collect();
    ordered.sort();
    ordered.dedup();
    ordered
}

fn total(ordered: &[&Diagnostic]) -> String {
    let mut files: Vec<_> = ordered.iter().map(|diagnostic| &diagnostic.at.file).collect();
    files.dedup();
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let warnings = ordered.iter().filter(|diagnostic| diagnostic.severity == Severity::Warning).count();
    let kinds = [(ordered.len() - warnings, "error"), (warnings, "warning")];
    let kinds: Vec<_> = kinds.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| counted(n, what)).collect();
    format!("{} in {}", kinds.join(" and "), counted(files.len(), "file"))
}

/// The primary place of a diagnostic, then the related ones, each with its label.
fn places(diagnostic: &Diagnostic) -> impl Iterator<Item = (&Location, &str)> {
    let related = diagnostic.related.iter().map(|(at, label)| (at, label.as_str()));
    std::iter::once((&diagnostic.at, diagnostic.label.as_str())).chain(related)
}

/// Replaces what a terminal may act on, except newline: text from a site's files must not control it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if (c.is_control() || is_hostile(c)) && c != '\n' { ' ' } else { c }).collect()
}

/// Appends text of a file with what a terminal may act on replaced by characters of the same length, so that offsets stay. The renderer
/// itself replaces the control characters of ASCII.
fn push_plain(text: &mut String, part: &str) {
    text.extend(part.chars().map(|c| match c.len_utf8() {
        2 if is_hostile(c) => '·',
        3 if is_hostile(c) => char::REPLACEMENT_CHARACTER,
        _ => c,
    }));
}

/// The source snippets of a diagnostic; places of one file that are near each other share one.
fn elements<'a>(diagnostic: &'a Diagnostic, files: &'a Files<'_>) -> Vec<Element<'a>> {
    let mut pieces: Vec<Piece<'a>> = Vec::new();
    let mut elements = Vec::new();
    for (i, (at, label)) in places(diagnostic).enumerate() {
        let kind = if i == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let known = files.get(&at.file).filter(|_| at.start != 0 || at.end != 0);
        let Some(text) = known else {
            elements.push((i, Origin::path(plain(&at.file)).into()));
            if !label.is_empty() {
                elements.push((i, Level::NOTE.message(plain(label)).into()));
            }
            continue;
        };
        let line = text.line_of(at.start);
        let near = |piece: &&mut Piece<'_>| {
            std::ptr::eq(piece.text, text) && line + APART >= piece.first && line <= piece.last + APART
        };
        let mark = Mark { kind, start: at.start, end: at.end, label };
        match pieces.iter_mut().find(near) {
            Some(piece) => {
                (piece.first, piece.last) = (piece.first.min(line), piece.last.max(line));
                piece.marks.push(mark);
            }
            None => {
                pieces.push(Piece { index: i, file: &at.file, text, first: line, last: line, marks: vec![mark] });
            }
        }
    }
    elements.extend(pieces.iter().map(|piece| (piece.index, piece.snippet().into())));
    elements.sort_by_key(|(i, _)| *i);
    elements.into_iter().map(|(_, element)| element).collect()
}

/// One annotated place.
struct Mark<'a> {
    kind: AnnotationKind,
    start: usize,
    end: usize,
    label: &'a str,
}

/// A range of lines with its marks.
struct Piece<'a> {
    /// The number of the first place in it, which orders the pieces.
    index: usize,
    file: &'a str,
    text: &'a Text,
    first: usize,
    last: usize,
    marks: Vec<Mark<'a>>,
}

impl<'a> Piece<'a> {
    fn snippet(&self) -> Snippet<'a, Annotation<'a>> {
        let (start, end) = (self.text.line(self.first).start, self.text.line(self.last).end);
        let annotation = |mark: &Mark<'a>| {
            let span = self.text.within_line(mark.start..mark.end);
            let annotation = mark.kind.span(span.start - start..span.end - start);
            if mark.label.is_empty() { annotation } else { annotation.label(plain(mark.label)) }
        };
        Snippet::source(&self.text.text[start..end])
            .line_start(self.first + 1)
            .path(plain(self.file))
            .annotations(self.marks.iter().map(annotation))
    }
}

/// The files that diagnostics refer to, each read once.
struct Files<'a> {
    texts: &'a Texts<'a>,
    known: BTreeMap<Arc<str>, Option<Text>>,
}

impl Files<'_> {
    fn load(&mut self, path: &Arc<str>) {
        if !self.known.contains_key(path) {
            self.known.insert(path.clone(), (self.texts)(path).map(|bytes| Text::new(&bytes)));
        }
    }

    fn get(&self, path: &str) -> Option<&Text> {
        self.known.get(path)?.as_ref()
    }
}

/// The text of a file; bytes that are not UTF-8 are replaced, so offsets into the bytes have to be translated.
struct Text {
    text: String,
    /// The offset of each line's start in `text`.
    lines: Vec<usize>,
    /// For each invalid sequence: the offset of its end in the bytes, and how many bytes longer the text is up to there.
    grown: Vec<(usize, usize)>,
}

impl Text {
    fn new(bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(bytes.len());
        let mut grown = Vec::new();
        let mut read = 0;
        for chunk in bytes.utf8_chunks() {
            push_plain(&mut text, chunk.valid());
            read += chunk.valid().len() + chunk.invalid().len();
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                grown.push((read, text.len() - read));
            }
        }
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(i, _)| i + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        Self { text, lines, grown }
    }

    /// Translates an offset in the bytes into one in the text, at the start of a character and at most at its end.
    fn place(&self, offset: usize) -> usize {
        let before = self.grown.partition_point(|(end, _)| *end <= offset);
        let grown = before.checked_sub(1).map_or(0, |last| self.grown[last].1);
        let place = offset.saturating_add(grown).min(self.text.len());
        (0..=place).rev().find(|i| self.text.is_char_boundary(*i)).unwrap_or(0)
    }

    fn line_of(&self, offset: usize) -> usize {
        let place = self.place(offset);
        self.lines.partition_point(|start| *start <= place) - 1
    }

    /// The range of a line in the text, without the line break.
    fn line(&self, line: usize) -> Range<usize> {
        let start = self.lines[line];
        let next = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        start..start + self.text[start..next].trim_end_matches(['\n', '\r']).len()
    }

    /// Translates a range of the bytes into one of the text, cut at the end of its first line.
    fn within_line(&self, span: Range<usize>) -> Range<usize> {
        let line = self.line(self.line_of(span.start));
        let start = self.place(span.start).min(line.end);
        start..self.place(span.end).clamp(start, line.end)
    }

    /// Line and column of an offset in the bytes, counted from 1, the column in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_of(offset);
        let place = self.place(offset);
        (line + 1, self.text[self.lines[line]..place].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests;

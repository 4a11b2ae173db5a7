//! Diagnostics as people and programs read them: text with source lines, or JSON.
//!
//! In: diagnostics, whose places are ranges of bytes, and the bytes of the files. Out: one text or JSON list, in the order of the
//! places, the same for the same input. Whatever the bytes and ranges are (no UTF-8, beyond the end, in the midst of a
//! character), there is an answer; a file that cannot be had is named without a line of it.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use annotate_snippets::{Annotation, AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use groundplan_inventory::{Diagnostic, Location};
use serde_json::{Value, json};

/// Gives the bytes of a file of the site; `None` if there is no such file.
pub type Texts<'a> = dyn Fn(&str) -> Option<Arc<[u8]>> + 'a;

/// How far apart, in lines, two places of one file may be to be shown in one piece.
const APART: usize = 40;

/// The diagnostics as text, in the order of their places, with the lines they point at and their number at the end. Empty if there
/// are none.
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
        let mut group = Group::with_title(Level::ERROR.primary_title(title)).elements(elements(diagnostic, &files));
        if let Some(hint) = hint {
            group = group.element(Level::HELP.message(hint));
        }
        out.push_str(&renderer.render(&[group]));
        out.push_str("\n\n");
    }
    if !ordered.is_empty() {
        out.push_str(&total(&ordered));
        out.push('\n');
    }
    out
}

/// The diagnostics as a JSON list of `{file, line, column, message, label, hint, related: [{file, line, column, message}]}`, in the
/// order of their places. Lines and columns count from 1, columns in characters; a fault of a whole file is at 1, 1. `label` and
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
        let related = diagnostic.related.iter().map(|(at, words)| place(at, words));
        value["related"] = related.collect();
        value["label"] = Some(&diagnostic.label).filter(|label| !label.is_empty()).cloned().into();
        value["hint"] = diagnostic.hint.clone().into();
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
    format!("{} in {}", counted(ordered.len(), "error"), counted(files.len(), "file"))
}

/// The place of a diagnostic, then the further ones, each with its words.
fn places(diagnostic: &Diagnostic) -> impl Iterator<Item = (&Location, &str)> {
    let related = diagnostic.related.iter().map(|(at, words)| (at, words.as_str()));
    std::iter::once((&diagnostic.at, diagnostic.label.as_str())).chain(related)
}

/// Text for one line, without what might upset a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// The pieces of source of a diagnostic: places of one file that are near each other in one.
fn elements<'a>(diagnostic: &'a Diagnostic, files: &'a Files<'_>) -> Vec<Element<'a>> {
    let mut pieces: Vec<Piece<'a>> = Vec::new();
    let mut elements = Vec::new();
    for (i, (at, words)) in places(diagnostic).enumerate() {
        let kind = if i == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let known = files.get(&at.file).filter(|_| at.start != 0 || at.end != 0);
        let Some(text) = known else {
            elements.push((i, Origin::path(plain(&at.file)).into()));
            if !words.is_empty() {
                elements.push((i, Level::NOTE.message(plain(words)).into()));
            }
            continue;
        };
        let line = text.line_of(at.start);
        let near = |piece: &&mut Piece<'_>| {
            std::ptr::eq(piece.text, text) && line + APART >= piece.first && line <= piece.last + APART
        };
        let mark = Mark { kind, start: at.start, end: at.end, words };
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

struct Mark<'a> {
    kind: AnnotationKind,
    start: usize,
    end: usize,
    words: &'a str,
}

struct Piece<'a> {
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
            if mark.words.is_empty() { annotation } else { annotation.label(plain(mark.words)) }
        };
        Snippet::source(&self.text.text[start..end])
            .line_start(self.first + 1)
            .path(plain(self.file))
            .annotations(self.marks.iter().map(annotation))
    }
}

/// The files that diagnostics point into.
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

/// A file's text, whatever its bytes are.
struct Text {
    text: String,
    /// Where each line starts.
    lines: Vec<usize>,
    /// Ends of what is no UTF-8 in the bytes, and by how much the text has grown up to there.
    grown: Vec<(usize, usize)>,
}

impl Text {
    fn new(bytes: &[u8]) -> Self {
        let mut text = String::with_capacity(bytes.len());
        let mut grown = Vec::new();
        let mut read = 0;
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
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

    /// The place in the text of a place in the bytes, at the start of a character.
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

    /// The range of a line in the text, without its end.
    fn line(&self, line: usize) -> Range<usize> {
        let start = self.lines[line];
        let next = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        start..start + self.text[start..next].trim_end_matches(['\n', '\r']).len()
    }

    /// What a range of the bytes marks in the text: at most to the end of its first line.
    fn within_line(&self, span: Range<usize>) -> Range<usize> {
        let line = self.line(self.line_of(span.start));
        let start = self.place(span.start).min(line.end);
        start..self.place(span.end).clamp(start, line.end)
    }

    /// Line and column, from 1.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_of(offset);
        let place = self.place(offset);
        (line + 1, self.text[self.lines[line]..place].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests;

//! Lines and columns of locations in a site's files.
//!
//! In: a way to read files, and locations (byte ranges). Out: line, column and the text of the line. Each file is read and its lines are
//! indexed once, at the first location in it; every further location costs a binary search. A file that cannot be read, or is not
//! UTF-8, has no lines: its locations are named by the file alone.

use std::{collections::HashMap, ops::Range, sync::Arc};

use groundplan_inventory::Location;

use crate::source::{EntryKind, SourceTree};

/// Where a location begins in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineColumn {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// A file's text with an index of its lines.
#[derive(Debug, Clone)]
pub struct Lines {
    text: String,
    /// Byte offset at which each line begins.
    starts: Vec<usize>,
    /// Whether a column in bytes is a column in characters.
    ascii: bool,
}

impl Lines {
    /// Indexes a text in one pass over it.
    pub fn new(text: String) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let ascii = text.is_ascii();
        Self { text, starts, ascii }
    }

    /// Where a byte range begins; none for an empty range at offset 0, which stands for the file as a whole, and for a range that
    /// does not begin within the text or at the start of a character.
    pub fn find(&self, span: Range<usize>) -> Option<LineColumn> {
        if span.end == 0 || !self.text.is_char_boundary(span.start) {
            return None;
        }
        // Never 0: the first line begins at 0.
        let line = self.starts.partition_point(|start| *start <= span.start);
        let before = &self.text[self.starts[line - 1]..span.start];
        let characters = if self.ascii { before.len() } else { before.chars().count() };
        Some(LineColumn { line, column: characters + 1 })
    }

    /// The text of a line, without its end; lines count from 1.
    pub fn line(&self, number: usize) -> Option<&str> {
        let from = *self.starts.get(number.checked_sub(1)?)?;
        self.text[from..].lines().next()
    }
}

/// Reads the bytes of the file at a path.
type Read<'a> = dyn Fn(&str) -> Option<Arc<[u8]>> + 'a;

/// Finds lines and columns in many files.
pub struct Locator<'a> {
    read: Box<Read<'a>>,
    files: HashMap<Arc<str>, Option<Lines>>,
}

impl<'a> Locator<'a> {
    /// Reads files by `read`, which returns the bytes of the file at a path, or none if it cannot.
    pub fn new(read: impl Fn(&str) -> Option<Arc<[u8]>> + 'a) -> Self {
        Self { read: Box::new(read), files: HashMap::new() }
    }

    /// Reads files from a tree. Links and submodules are not read.
    pub fn of_tree(tree: &'a dyn SourceTree) -> Self {
        Self::new(|path| {
            tree.entry(path).filter(|entry| entry.kind == EntryKind::File)?;
            tree.read(path).ok()
        })
    }

    /// The lines of a file.
    pub fn lines(&mut self, file: &Arc<str>) -> Option<&Lines> {
        if !self.files.contains_key(file) {
            let text = (self.read)(file).and_then(|bytes| Some(std::str::from_utf8(&bytes).ok()?.to_owned()));
            self.files.insert(file.clone(), text.map(Lines::new));
        }
        self.files.get(file)?.as_ref()
    }

    /// The line and column at which a location begins, if its file can be read and it is not the file as a whole.
    pub fn find(&mut self, at: &Location) -> Option<LineColumn> {
        self.lines(&at.file)?.find(at.span())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemoryTree;

    fn found(text: &str, span: Range<usize>) -> Option<(usize, usize)> {
        Lines::new(text.to_owned()).find(span).map(|at| (at.line, at.column))
    }

    #[test]
    fn lines_and_columns_count_from_one_and_columns_in_characters() {
        assert_eq!(found("a\nbc\n", 0..1), Some((1, 1)));
        assert_eq!(found("a\nbc\n", 1..2), Some((1, 2)));
        assert_eq!(found("a\nbc\n", 3..4), Some((2, 2)));
        assert_eq!(found("a\nbc\n", 5..5), Some((3, 1)));
        assert_eq!(found("é\nöäx", 7..8), Some((2, 3)));
    }

    #[test]
    fn what_is_not_a_place_in_the_text_has_no_line() {
        assert_eq!(found("abc", 0..0), None);
        assert_eq!(found("abc", 4..5), None);
        assert_eq!(found("é", 1..2), None);
        assert_eq!(found("", 0..0), None);
    }

    #[test]
    fn a_line_has_its_text_without_its_end() {
        let lines = Lines::new("one\r\ntwo\n".to_owned());
        assert_eq!(
            [lines.line(0), lines.line(1), lines.line(2), lines.line(4)],
            [None, Some("one"), Some("two"), None]
        );
    }

    #[test]
    fn each_file_is_read_once() {
        let reads = std::cell::Cell::new(0);
        let mut locator = Locator::new(|path| {
            reads.set(reads.get() + 1);
            (path == "a").then(|| Arc::from(&b"x\ny"[..]))
        });
        let (a, b) = (Location::new("a".into(), 2..3), Location::new("b".into(), 0..1));
        for _ in 0..3 {
            assert_eq!(locator.find(&a), Some(LineColumn { line: 2, column: 1 }));
            assert_eq!(locator.find(&b), None);
        }
        drop(locator);
        assert_eq!(reads.get(), 2);
    }

    #[test]
    fn a_link_of_a_tree_is_not_read() {
        let mut tree = MemoryTree::new([("a", "text")]);
        tree.put_other("b", EntryKind::Symlink);
        let mut locator = Locator::of_tree(&tree);
        assert!(locator.find(&Location::new("a".into(), 1..2)).is_some());
        assert_eq!(locator.find(&Location::new("b".into(), 1..2)), None);
    }
}

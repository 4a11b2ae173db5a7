//! A tree of files as one text: each file begins with a line `--- PATH`, with ` x` after it if it is executable, or ` link` or ` module` if
//! it is a link or a submodule.

use groundplan_core::source::{EntryKind, MemoryTree};

/// The files in a text. What comes before the first of these lines is no part of it.
pub(super) fn tree(text: &[u8]) -> MemoryTree {
    let mut tree = MemoryTree::default();
    for (head, content) in files(text) {
        let (path, kind) = head.split_once(' ').unwrap_or((head, ""));
        match kind {
            "x" => tree.write_program(path, content),
            "link" => tree.put_other(path, EntryKind::Symlink),
            "module" => tree.put_other(path, EntryKind::Submodule),
            _ => tree.write(path, content),
        }
    }
    tree
}

/// The files whose head line is UTF-8: the rest of that, with the lines up to the next one.
pub(super) fn files(text: &[u8]) -> Vec<(&str, &[u8])> {
    let parts = parts(text).1.into_iter();
    parts.filter_map(|(head, content)| Some((std::str::from_utf8(head).ok()?, content))).collect()
}

/// The rest of a head line, and the lines up to the next one.
type Part<'a> = (&'a [u8], &'a [u8]);

/// What comes before the first head line; and the rest of each, with the lines up to the next one.
pub(super) fn parts(text: &[u8]) -> (&[u8], Vec<Part<'_>>) {
    let mut starts = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if let Some(head) = line.strip_prefix(b"--- ") {
            starts.push((at, at + line.len(), head.strip_suffix(b"\n").unwrap_or(head)));
        }
        at += line.len();
    }
    let first = starts.first().map_or(text.len(), |(at, ..)| *at);
    let ends = starts.iter().skip(1).map(|(at, ..)| *at).chain([text.len()]);
    (&text[..first], starts.iter().zip(ends).map(|((_, start, head), end)| (*head, &text[*start..end])).collect())
}

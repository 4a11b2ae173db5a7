//! The beginning and the end of a text that comes in pieces, in bounded memory.

use std::collections::VecDeque;

use groundplan_protocol::report::Output;

/// Collects text.
#[derive(Debug, Clone)]
pub(crate) struct Excerpt {
    /// Most of the beginning and of the end, in bytes each.
    half: usize,
    head: String,
    tail: VecDeque<u8>,
    /// Whether `head` takes no more.
    full: bool,
    omitted: u64,
}

impl Excerpt {
    /// One that keeps at most `most` bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { half: most / 2, head: String::new(), tail: VecDeque::new(), full: false, omitted: 0 }
    }

    /// Takes a piece.
    pub(crate) fn push(&mut self, text: &str) {
        let mut rest = text;
        if !self.full {
            let most = (self.half - self.head.len()).min(text.len());
            let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            self.full = end < text.len();
            self.head.push_str(&text[..end]);
            rest = &text[end..];
        }
        let skipped = rest.len().saturating_sub(self.half);
        self.tail.extend(&rest.as_bytes()[skipped..]);
        let surplus = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..surplus);
        self.omitted += (skipped + surplus) as u64;
    }

    /// What is kept; `None` if nothing came.
    pub(crate) fn output(&self) -> Option<Output> {
        if self.head.is_empty() && self.tail.is_empty() {
            return None;
        }
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        if self.omitted == 0 {
            let head = format!("{}{}", self.head, String::from_utf8_lossy(&bytes));
            return Some(Output { head, ..Output::default() });
        }
        // The first bytes may belong to a character that began before.
        let within = bytes.iter().take_while(|byte| **byte & 0xc0 == 0x80).count();
        let tail = String::from_utf8_lossy(&bytes[within..]).into_owned();
        Some(Output { head: self.head.clone(), omitted: self.omitted + within as u64, tail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end() {
        let excerpt = |pieces: &[&str]| {
            let mut excerpt = Excerpt::new(8);
            pieces.iter().for_each(|piece| excerpt.push(piece));
            excerpt.output()
        };
        assert_eq!(excerpt(&[]), None);
        let all = |text: &str| Some(Output { head: text.to_owned(), ..Output::default() });
        assert_eq!(excerpt(&["ab", "cdef", "gh"]), all("abcdefgh"));
        assert_eq!(excerpt(&["abcä", "é"]), all("abcäé"));
        let cut =
            |head: &str, omitted, tail: &str| Some(Output { head: head.to_owned(), omitted, tail: tail.to_owned() });
        assert_eq!(excerpt(&["abcdefghij"]), cut("abcd", 2, "ghij"));
        assert_eq!(excerpt(&["abcd", "efghi", "jklm"]), cut("abcd", 5, "jklm"));
        assert_eq!(excerpt(&["abcd", "äöü", "x"]), cut("abcd", 4, "üx"));
    }
}

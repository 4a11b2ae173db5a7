//! The output of a program in bounded memory: the beginning, the end, and how many bytes were between.
//!
//! In: bytes as they come. Out: text of at most `OUTPUT_LIMIT` bytes, cut between characters, never within one.

use std::collections::VecDeque;

use groundplan_protocol::report::{OUTPUT_LIMIT, Output};

/// Bytes of the beginning and of the end that are kept, each.
const HALF: usize = OUTPUT_LIMIT / 2;

/// Collects output in bounded memory: its beginning, its end, and how much was left out between.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    /// Bytes that were dropped from `tail`.
    lost: u64,
}

impl Capture {
    /// Adds a piece of output. Beyond the limit the oldest bytes of the end make room.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        // The beginning is kept as it came; whatever follows goes through the end, of which only the last bytes stay.
        let (first, rest) = bytes.split_at(bytes.len().min(HALF - self.head.len()));
        self.head.extend_from_slice(first);
        // A piece longer than the whole end need not pass through it.
        let (skipped, kept) = rest.split_at(rest.len().saturating_sub(HALF));
        let surplus = (self.tail.len() + kept.len()).saturating_sub(HALF);
        self.tail.drain(..surplus);
        self.tail.extend(kept);
        self.lost += (surplus + skipped.len()) as u64;
    }

    /// The output for the report; `None` if nothing came.
    pub(crate) fn finish(self) -> Option<Output> {
        let (mut head, tail) = (self.head, Vec::from(self.tail));
        if head.is_empty() {
            return None;
        }
        if self.lost == 0 {
            head.extend_from_slice(&tail);
            let text = String::from_utf8_lossy(&head);
            if text.len() <= OUTPUT_LIMIT {
                return Some(Output { head: text.into_owned(), ..Output::default() });
            }
            // Replacement characters made it longer than the bytes were.
            let (first, second) = head.split_at(head.len() / 2);
            return Some(join(first, second, 0));
        }
        Some(join(&head, &tail, self.lost))
    }
}

/// The output of which these are the beginning and the end.
fn join(head: &[u8], tail: &[u8], lost: u64) -> Output {
    let (head, after) = first_chars(head);
    let (tail, before) = last_chars(tail);
    Output { head, omitted: lost + (after + before) as u64, tail }
}

/// The text at the beginning of `bytes` that fits, and how many bytes are left.
fn first_chars(bytes: &[u8]) -> (String, usize) {
    let (mut text, mut used) = (String::new(), 0);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if text.len() + c.len_utf8() > HALF {
                return (text, bytes.len() - used);
            }
            text.push(c);
            used += c.len_utf8();
        }
        let bad = chunk.invalid().len();
        // Where the beginning ends within a character, its bytes count as omitted; anywhere else invalid bytes are
        // replaced.
        let cut_off = used + bad == bytes.len() && is_cut_off(chunk.invalid());
        if bad > 0 && (cut_off || text.len() + 3 > HALF) {
            break;
        }
        if bad > 0 {
            text.push(char::REPLACEMENT_CHARACTER);
            used += bad;
        }
    }
    (text, bytes.len() - used)
}

/// The text at the end of `bytes` that fits, and how many bytes come before it.
fn last_chars(bytes: &[u8]) -> (String, usize) {
    // At most three bytes continue a character that began before.
    let whole = bytes.iter().take(3).take_while(|b| *b & 0xc0 == 0x80).count();
    let text = String::from_utf8_lossy(&bytes[whole..]);
    let mut start = text.len().saturating_sub(HALF);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    (text[start..].to_owned(), whole + start)
}

/// Whether these are the first bytes of a character whose rest is missing.
fn is_cut_off(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

/// The last lines of `output`, for an error message.
pub(crate) fn last_lines(output: &Output) -> String {
    const LINES: usize = 5;
    const BYTES: usize = 600;
    let text = if output.tail.is_empty() { &output.head } else { &output.tail };
    let text = text.trim_end();
    let start = text.rmatch_indices('\n').nth(LINES - 1).map_or(0, |(at, _)| at + 1);
    let mut start = start.max(text.len().saturating_sub(BYTES));
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pieces: &[&[u8]]) -> Option<Output> {
        let mut capture = Capture::default();
        pieces.iter().for_each(|piece| capture.push(piece));
        capture.finish()
    }

    #[test]
    fn all_of_what_fits() {
        assert_eq!(captured(&[]), None);
        assert_eq!(captured(&[b"a", "ä".as_bytes()]).unwrap().head, "aä");
        assert_eq!(captured(&[b"\xff!"]).unwrap().head, "\u{fffd}!");
        let text = "ä".repeat(HALF);
        let output = captured(&[&text.as_bytes()[..HALF - 1], &text.as_bytes()[HALF - 1..]]).unwrap();
        assert_eq!((output.head, output.omitted), (text, 0));
    }

    #[test]
    fn head_and_tail_of_what_does_not() {
        let piece = "0123456789äöü".as_bytes();
        let mut capture = Capture::default();
        for _ in 0..100_000 {
            capture.push(piece);
        }
        let held = capture.head.len() + capture.tail.len();
        let output = capture.finish().unwrap();
        assert!(held <= OUTPUT_LIMIT && output.head.len() + output.tail.len() <= OUTPUT_LIMIT);
        assert!(output.head.starts_with("0123") && output.tail.ends_with("äöü"));
        assert!(!output.head.contains('\u{fffd}') && !output.tail.contains('\u{fffd}'));
        assert_eq!((output.head.len() + output.tail.len()) as u64 + output.omitted, 1_600_000);
    }

    #[test]
    fn one_large_piece_and_bytes_that_are_no_text() {
        for bytes in [vec![0xff; OUTPUT_LIMIT], vec![0xff; 10 * OUTPUT_LIMIT], vec![0x80; 3 * OUTPUT_LIMIT]] {
            let output = captured(&[&bytes]).unwrap();
            assert!(output.head.len() + output.tail.len() <= OUTPUT_LIMIT);
            assert!(output.omitted > 0);
        }
    }

    #[test]
    fn last_lines_of_output() {
        let text: String = (0..9).map(|i| format!("line {i}\n")).collect();
        let output = Output { head: text, ..Output::default() };
        assert_eq!(last_lines(&output), "line 4\nline 5\nline 6\nline 7\nline 8");
    }
}

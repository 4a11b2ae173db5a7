//! Text from elsewhere, before it is logged, stored or shown: short, and nothing in it that a terminal or a reader of a log acts on.
//!
//! In: any text: a field of a message that is not verified yet, the error of a parser that quotes it, what a program printed. Out: the same
//! with control characters and those that change the direction of text as escapes, and with a bound on its length.

/// Longest quotation of a message that cannot be used, in characters.
pub const FOREIGN: usize = 200;

/// At most `most` characters of `text`, escaped in one line; `…` stands for the rest.
pub fn foreign(text: &str, most: usize) -> String {
    cut(text, most, "")
}

/// The same, where the characters of `kept` stay as they are, such as line breaks in the output of a program.
pub fn cut(text: &str, most: usize, kept: &str) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => escaped(&text[..end], kept) + "…",
        None => escaped(text, kept),
    }
}

/// The text with all characters escaped that [`is_hostile`] names and all control characters, except those of `kept`.
pub fn escaped(text: &str, kept: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() || is_hostile(c)) && !kept.contains(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a terminal may act on the character, or show what surrounds it in another order (Unicode Technical Report 36, 2.6). Line breaks
/// and tabs are not among them.
pub fn is_hostile(c: char) -> bool {
    let directs = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(c, '\u{2028}' | '\u{2029}');
    directs || breaks || c.is_control() && c != '\n' && c != '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_acts_on_nothing_in_a_line() {
        let text = "größe\n\x1b[2J\u{202e}\t\u{9b}\u{2028}";
        assert_eq!(escaped(text, ""), "größe\\n\\u{1b}[2J\\u{202e}\\t\\u{9b}\\u{2028}");
        assert_eq!(escaped(text, "\n\t"), "größe\n\\u{1b}[2J\\u{202e}\t\\u{9b}\\u{2028}");
    }

    #[test]
    fn it_is_cut_between_characters() {
        assert_eq!(foreign("größe", 5), "größe");
        assert_eq!(foreign("größer", 5), "größe…");
        assert_eq!(foreign(&"\x1b".repeat(9), 2), "\\u{1b}\\u{1b}…");
        assert_eq!(foreign("", 0), "");
    }
}

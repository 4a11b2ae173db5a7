//! Text from elsewhere made safe for a terminal: the one place where that is done, for all that is written to it.
//!
//! In: text with names, errors, commit subjects and output of nodes in it. Out: the same with control characters, escape sequences and
//! characters that change the direction of text made visible. The sequences that this program writes itself begin with [`ESCAPE`]
//! instead of the escape character, so that they can be distinguished from those of others; only colours and weights are let through.

use std::borrow::Cow;

use groundplan_protocol::text::is_hostile;

/// Stands for the escape character until the text is written: a noncharacter, which no text for interchange contains
/// (Unicode, section 23.7).
pub(crate) const ESCAPE: char = '\u{fdd0}';

/// What is shown for a character without a picture of its own.
const REPLACEMENT: char = '\u{fffd}';

/// The text as it may be written to a terminal. Newlines and tabs stay; a carriage return before a newline is dropped.
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_hostile(c) || c == ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            ESCAPE => match sequence(rest) {
                Some(length) => {
                    out.push('\x1b');
                    out.push_str(&rest[..length]);
                    rest = &rest[length..];
                }
                None => out.push(REPLACEMENT),
            },
            '\r' if rest.starts_with('\n') => {}
            // The picture of a control character, such as ␛ (Unicode block Control Pictures).
            '\0'..='\x1f' if is_hostile(c) => out.extend(char::from_u32(0x2400 + u32::from(c))),
            '\x7f' => out.push('␡'),
            _ if is_hostile(c) => out.push(REPLACEMENT),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A log with the colours of its own writer as it may be written to a terminal: only those are let through.
pub(super) fn safe_log(text: &str) -> String {
    safe(&text.replace('\x1b', ESCAPE.encode_utf8(&mut [0; 4]))).into_owned()
}

/// JSON as it may be written to a terminal: the same value, with such characters as escapes. serde_json escapes only those below space.
pub(crate) fn safe_json(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut out, c| {
        match c {
            // Line breaks between values; within a string they are escaped already.
            '\n' => out.push(c),
            _ if is_hostile(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
        out
    })
}

/// The length of a sequence for colours and weights (ECMA-48, SGR) that `rest` begins with, without its escape character.
fn sequence(rest: &str) -> Option<usize> {
    let end = rest.find('m')?;
    let known =
        |code: &str| matches!(code, "0" | "1" | "2" | "3") || matches!(code.as_bytes(), [b'3' | b'9', b'1'..=b'6']);
    rest[..end].strip_prefix('[')?.split(';').all(known).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_elsewhere_is_shown_and_never_acted_on() {
        for (text, shown) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
            ("a\rb\r\n\x08\x7f", "a␍b\n␈␡"),
            ("\u{9b}31m\u{202e}txt.exe\u{2066}", "\u{fffd}31m\u{fffd}txt.exe\u{fffd}"),
            ("\u{fdd0}[2J \u{fdd0}[8m \u{fdd0}", "\u{fffd}[2J \u{fffd}[8m \u{fffd}"),
            ("größe 日本 👩‍👩‍👧", "größe 日本 👩‍👩‍👧"),
        ] {
            assert_eq!(safe(text), shown);
        }
    }

    #[test]
    fn a_log_keeps_the_colours_of_its_writer() {
        let line = "\x1b[2m12:00\x1b[0m \x1b[3mat\x1b[0m\x1b[2m=\x1b[0m\x1b[32m INFO\x1b[0m two\n";
        assert_eq!(safe_log(line), line);
        assert_eq!(safe_log("a\x1b[2J\x1b]0;t\x07\u{202e}\n"), "a\u{fffd}[2J\u{fffd}]0;t␇\u{fffd}\n");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({ "a": "\u{202e}\u{9b}\x1b\x7f\n" });
        let json = safe_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!json.chars().any(is_hostile), "{json}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
    }
}

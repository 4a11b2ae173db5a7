//! Text of files in whatever encoding: bytes that are not UTF-8 keep a place in a `String`, so that lines can be edited without
//! touching what is beside them.
//!
//! In: a file's bytes. Out: a text that [`bytes`] turns into exactly these bytes again. A byte that is not part of valid UTF-8
//! becomes one of the last 128 characters of Unicode, which are for private use; where a file has such a character itself, its
//! bytes are kept one by one as well. Pure.

/// Stands for the byte 0x80; those for the bytes after it follow.
const FIRST: u32 = 0x10_ff80;

/// The text of a file's bytes.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match u32::from(c) {
                FIRST.. => push_bytes(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => text.push(c),
            }
        }
        push_bytes(&mut text, chunk.invalid());
    }
    text
}

/// The bytes of a file with that text.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u32::from(c).checked_sub(FIRST).and_then(|at| u8::try_from(at + 0x80).ok()) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    text.extend(bytes.iter().filter_map(|byte| char::from_u32(FIRST + u32::from(*byte) - 0x80)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_comes_back_byte_for_byte() {
        let all: Vec<u8> = (0..=255).collect();
        for case in
            [&b""[..], "plain é ü €".as_bytes(), b"latin \xe9\n", "\u{10ff80}\u{10ffff}".as_bytes(), b"\xf4\x8f", &all]
        {
            assert_eq!(bytes(&text(case)), case);
        }
        assert_eq!(text("é = 1".as_bytes()), "é = 1");
        assert_eq!(text(b"caf\xe9\nb").lines().count(), 2);
    }
}

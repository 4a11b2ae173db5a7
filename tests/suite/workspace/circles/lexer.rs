//! Splits Rust source text into the tokens that paths and items are recognized by. Comments, literals and lifetimes are dropped.

/// A token of Rust source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword or name; a raw one without its `r#`.
    Word(String),
    /// `::`.
    Path,
    /// `(`, `[` or `{`.
    Open(char),
    /// `)`, `]` or `}`.
    Close(char),
    /// Any other single character.
    Punctuation(char),
}

impl Token {
    /// Whether it is this keyword or name.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(w) if w == word)
    }
}

/// The tokens of `source`, which must be Rust that compiles.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        let next = text.get(at + 1).copied().unwrap_or(' ');
        match c {
            '/' if next == '/' => at = end_of_line(&text, at),
            '/' if next == '*' => at = end_of_comment(&text, at),
            '"' => at = end_of_string(&text, at),
            '\'' => at = end_of_quote(&text, at),
            ':' if next == ':' => {
                tokens.push(Token::Path);
                at += 2;
            }
            '(' | '[' | '{' => {
                tokens.push(Token::Open(c));
                at += 1;
            }
            ')' | ']' | '}' => {
                tokens.push(Token::Close(c));
                at += 1;
            }
            c if c.is_alphanumeric() || c == '_' => {
                let end = end_of_word(&text, at);
                let word: String = text[at..end].iter().collect();
                at = match (word.as_str(), text.get(end)) {
                    ("r" | "br" | "cr", Some('"' | '#')) if is_raw_string(&text, end) => end_of_raw_string(&text, end),
                    ("b" | "c", Some('"')) => end_of_string(&text, end),
                    ("b", Some('\'')) => end_of_quote(&text, end),
                    // A raw name: the name follows.
                    ("r", Some('#')) => end + 1,
                    _ => {
                        if !c.is_numeric() {
                            tokens.push(Token::Word(word));
                        }
                        end
                    }
                };
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token::Punctuation(c));
                }
                at += 1;
            }
        }
    }
    tokens
}

fn end_of_line(text: &[char], at: usize) -> usize {
    text[at..].iter().position(|c| *c == '\n').map_or(text.len(), |length| at + length)
}

/// Block comments nest.
fn end_of_comment(text: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at + 1 < text.len() {
        match (text[at], text[at + 1]) {
            ('/', '*') => {
                depth += 1;
                at += 2;
            }
            ('*', '/') => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

fn end_of_word(text: &[char], at: usize) -> usize {
    text[at..].iter().position(|c| !c.is_alphanumeric() && *c != '_').map_or(text.len(), |length| at + length)
}

fn end_of_string(text: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// A raw string has a quote after its hash signs; a raw name has none.
fn is_raw_string(text: &[char], at: usize) -> bool {
    text[at..].iter().find(|c| **c != '#') == Some(&'"')
}

fn end_of_raw_string(text: &[char], at: usize) -> usize {
    let hashes = text[at..].iter().take_while(|c| **c == '#').count();
    let mut at = at + hashes + 1;
    while at < text.len() {
        if text[at] == '"' && text[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

/// The end of a character literal or of a lifetime, which both begin with a quote.
fn end_of_quote(text: &[char], at: usize) -> usize {
    if text.get(at + 1) == Some(&'\\') {
        // The escaped character may itself be a quote.
        return text[at + 3..].iter().position(|c| *c == '\'').map_or(text.len(), |length| at + 4 + length);
    }
    if text.get(at + 2) == Some(&'\'') { at + 3 } else { end_of_word(text, at + 1) }
}

#[test]
fn literals_comments_and_lifetimes_are_dropped() {
    let source = r####"fn f<'a>(x: &'a str) /* no /* nested */ path::x */ { // no::path
        let _ = ("crate::x", r#"a "quoted" crate::y"#, b'\'', '\\', 'c', b"\"", 0x1f_u8, r#type::Y); }"####;
    let words: Vec<_> = tokens(source)
        .into_iter()
        .filter_map(|token| match token {
            Token::Word(word) => Some(word),
            _ => None,
        })
        .collect();
    assert_eq!(words, ["fn", "f", "x", "str", "let", "_", "type", "Y"]);
}

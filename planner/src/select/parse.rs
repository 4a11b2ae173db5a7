//! Text → what it says. Knows no site: whether a name means anything is told when it is looked up.

use super::expr::{Expr, Term};

/// Longest selector, in bytes.
const LONGEST: usize = 64 * 1024;
/// Most parentheses and `!` within each other.
const DEEPEST: usize = 32;

/// What is wrong with a selector as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// Nothing there.
    #[error("the selector is empty; `all` means every node")]
    Nothing,
    /// Too much.
    #[error("the selector is longer than {LONGEST} bytes; name a group")]
    Long,
    /// Too many parentheses within each other.
    #[error("the selector has more than {DEEPEST} `(` and `!` within each other")]
    Deep,
    /// Something is missing.
    #[error("after `{}` there should be a node, a group, a label or a service", .before.escape_debug())]
    Missing {
        /// What comes before it.
        before: String,
    },
    /// A separator before anything else.
    #[error("a selector cannot begin with `{found}`")]
    Begins {
        /// The separator.
        found: char,
    },
    /// A `(` without `)`.
    #[error("a `(` is never closed")]
    Open,
    /// A `"` without its partner.
    #[error("a `\"` is never closed")]
    Quote,
    /// Something that has no place there.
    #[error("after `{}` there should be `,`, `&` or the end, not `{}`", .before.escape_debug(), .found.escape_debug())]
    Unexpected {
        /// What comes before it.
        before: String,
        /// What it is.
        found: char,
    },
    /// `x:…` with an `x` that means nothing.
    #[error("`{prefix}:` means nothing; there are `node:`, `group:` and `service:`")]
    Prefix {
        /// What stands before the colon.
        prefix: String,
    },
    /// A character that no name has.
    #[error("`{}` cannot be part of a name; quote a label's value: key=\"value\"", .found.escape_debug())]
    Character {
        /// The character.
        found: char,
    },
}

/// Takes a selector apart.
pub(super) fn parse(text: &str) -> Result<Expr, SyntaxError> {
    if text.len() > LONGEST {
        return Err(SyntaxError::Long);
    }
    let mut parser = Parser { text, at: 0, depth: 0 };
    if parser.peek().is_none() {
        return Err(SyntaxError::Nothing);
    }
    let expr = parser.either()?;
    match parser.peek() {
        None => Ok(expr),
        Some(found) => Err(SyntaxError::Unexpected { before: parser.before(), found }),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn either(&mut self) -> Result<Expr, SyntaxError> {
        self.list(',', Expr::Either, |parser| parser.list('&', Expr::Both, Self::part))
    }

    /// One part, or several between separators.
    fn list(
        &mut self,
        separator: char,
        join: fn(Vec<Expr>) -> Expr,
        part: impl Fn(&mut Self) -> Result<Expr, SyntaxError>,
    ) -> Result<Expr, SyntaxError> {
        let first = part(self)?;
        if self.peek() != Some(separator) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.eat(separator) {
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn part(&mut self) -> Result<Expr, SyntaxError> {
        if self.eat('!') {
            return Ok(Expr::Not(Box::new(self.within(Self::part)?)));
        }
        if self.eat('(') {
            let inner = self.within(Self::either)?;
            return match self.peek() {
                Some(')') => {
                    self.eat(')');
                    Ok(inner)
                }
                Some(found) => Err(SyntaxError::Unexpected { before: self.before(), found }),
                None => Err(SyntaxError::Open),
            };
        }
        self.term().map(Expr::Term)
    }

    fn within(&mut self, inner: impl Fn(&mut Self) -> Result<Expr, SyntaxError>) -> Result<Expr, SyntaxError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(SyntaxError::Deep);
        }
        let expr = inner(self);
        self.depth -= 1;
        expr
    }

    fn term(&mut self) -> Result<Term, SyntaxError> {
        let word = self.word();
        match self.rest().chars().next() {
            Some('=') if !word.is_empty() => {
                self.at += 1;
                Ok(Term::Label { key: word.to_owned(), value: self.value()? })
            }
            Some(':') => {
                self.at += 1;
                let kind: fn(String) -> Term = match word {
                    "node" => Term::Node,
                    "group" => Term::Group,
                    "service" => Term::Service,
                    _ => return Err(SyntaxError::Prefix { prefix: word.to_owned() }),
                };
                match self.word() {
                    "" => Err(self.missing()),
                    name => Ok(kind(name.to_owned())),
                }
            }
            found => match word {
                "" => Err(match found {
                    None | Some(',' | '&' | ')') => self.missing(),
                    Some(found) => SyntaxError::Character { found },
                }),
                "all" => Ok(Term::All),
                word if word.contains(['*', '?']) => Ok(Term::Like(word.to_owned())),
                word => Ok(Term::Name(word.to_owned())),
            },
        }
    }

    /// A name or a pattern; empty if there is none.
    fn word(&mut self) -> &'a str {
        self.skip();
        let of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '?');
        let rest = self.rest();
        let end = rest.find(|c| !of_word(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// A label's value: quoted, or up to what cannot be part of it.
    fn value(&mut self) -> Result<String, SyntaxError> {
        let rest = self.rest();
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').ok_or(SyntaxError::Quote)?;
            self.at += end + 2;
            return Ok(quoted[..end].to_owned());
        }
        let stops = |c: char| c.is_whitespace() || matches!(c, ',' | '&' | '!' | '(' | ')' | '"');
        let end = rest.find(stops).unwrap_or(rest.len());
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn peek(&mut self) -> Option<char> {
        self.skip();
        self.rest().chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        self.at += if there { wanted.len_utf8() } else { 0 };
        there
    }

    /// The last words before where it stands.
    fn before(&self) -> String {
        let before = self.text[..self.at].trim();
        let skip = before.chars().count().saturating_sub(20);
        before.chars().skip(skip).collect()
    }

    fn missing(&self) -> SyntaxError {
        match (self.before(), self.rest().chars().next()) {
            (before, Some(found)) if before.is_empty() => SyntaxError::Begins { found },
            (before, _) => SyntaxError::Missing { before },
        }
    }
}

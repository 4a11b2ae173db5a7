//! Text → expression, by recursive descent. Independent of a site: whether names exist is checked by `resolve`.
//!
//! Grammar: `or = and ("," and)*`, `and = part ("&" part)*`, `part = "!" part | "(" or ")" | term`.

use super::expr::{Expr, Term};

/// The longest selector, in bytes: one that lists every node of a site must fit.
const LONGEST: usize = 64 * 1024;
/// The deepest nesting of parentheses and `!`, because each level is a level of recursion here and wherever the expression is walked.
const DEEPEST: usize = 32;

/// A selector that does not follow the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// Only spaces.
    #[error("the selector is empty; `all` matches every node")]
    Empty,
    /// More than the limit.
    #[error("the selector is longer than {LONGEST} bytes; use a group")]
    Long,
    /// Nested too deeply.
    #[error("the selector nests more than {DEEPEST} levels of `(` and `!`")]
    Deep,
    /// An operator without its operand.
    #[error("expected a node, a group, a label or a service after `{}`", .before.escape_debug())]
    Missing {
        /// The end of the text before that place.
        before: String,
    },
    /// An operator at the beginning.
    #[error("a selector cannot begin with `{found}`")]
    Begins {
        /// The operator.
        found: char,
    },
    /// A `(` without `)`.
    #[error("a `(` is never closed")]
    Open,
    /// An opening `"` without a closing one.
    #[error("a `\"` is never closed")]
    Quote,
    /// A term, and then neither an operator nor the end.
    #[error("expected `,`, `&` or the end after `{}`, not `{}`", .before.escape_debug(), .found.escape_debug())]
    Unexpected {
        /// The end of the text before that place.
        before: String,
        /// The character there.
        found: char,
    },
    /// `x:…` with an unknown `x`.
    #[error("unknown prefix `{prefix}:`; use `node:`, `group:` or `service:`")]
    Prefix {
        /// The text before the colon.
        prefix: String,
    },
    /// A character that names cannot have.
    #[error("`{}` cannot be part of a name; quote a label's value: key=\"value\"", .found.escape_debug())]
    Character {
        /// The character.
        found: char,
    },
}

/// Parses a selector into an expression.
pub(super) fn parse(text: &str) -> Result<Expr, SyntaxError> {
    if text.len() > LONGEST {
        return Err(SyntaxError::Long);
    }
    let mut parser = Parser { text, at: 0, depth: 0 };
    if parser.peek().is_none() {
        return Err(SyntaxError::Empty);
    }
    let expr = parser.or()?;
    match parser.peek() {
        None => Ok(expr),
        Some(found) => Err(SyntaxError::Unexpected { before: parser.before(), found }),
    }
}

/// A position in the text; always at a character boundary.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// How many `(` and `!` surround the position.
    depth: usize,
}

impl<'a> Parser<'a> {
    fn or(&mut self) -> Result<Expr, SyntaxError> {
        self.list(',', Expr::Or, |parser| parser.list('&', Expr::And, Self::part))
    }

    /// One part, or several between separators. A single part is returned as it is, so that messages show no operator that was not written.
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
            return Ok(Expr::Not(Box::new(self.nested(Self::part)?)));
        }
        if self.eat('(') {
            let inner = self.nested(Self::or)?;
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

    /// Parses something nested, one level deeper.
    fn nested(&mut self, inner: impl Fn(&mut Self) -> Result<Expr, SyntaxError>) -> Result<Expr, SyntaxError> {
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
        // The character right behind the word decides: spaces around `=` and `:` are not part of the grammar.
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
                word if word.contains(['*', '?']) => Ok(Term::Pattern(word.to_owned())),
                word => Ok(Term::Name(word.to_owned())),
            },
        }
    }

    /// Reads a name or a pattern; empty if there is none. Ids have only these characters, besides the wildcards.
    fn word(&mut self) -> &'a str {
        self.skip();
        let of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '?');
        let rest = self.rest();
        let end = rest.find(|c| !of_word(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Reads a label's value: quoted, without escapes, or up to an operator or a space. May be empty.
    fn value(&mut self) -> Result<String, SyntaxError> {
        let rest = self.rest();
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').ok_or(SyntaxError::Quote)?;
            // Both quotes as well.
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

    /// Skips spaces.
    fn skip(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        self.skip();
        self.rest().chars().next()
    }

    /// Consumes the next character if it is `wanted`.
    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    /// The text before the position, for messages: at most the last 20 characters.
    fn before(&self) -> String {
        let before = self.text[..self.at].trim();
        let skip = before.chars().count().saturating_sub(20);
        before.chars().skip(skip).collect()
    }

    /// The error for a missing term.
    fn missing(&self) -> SyntaxError {
        match (self.before(), self.rest().chars().next()) {
            (before, Some(found)) if before.is_empty() => SyntaxError::Begins { found },
            (before, _) => SyntaxError::Missing { before },
        }
    }
}

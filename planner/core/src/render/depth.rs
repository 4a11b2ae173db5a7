//! How deeply a template nests, counted in its tokens before it is parsed.
//!
//! The engine's parser recurses for each operator of a chain and for each `elif`, and guards only brackets and blocks. In: a text. Out: the
//! place where it nests too deeply. The count is an upper bound of the depth of the syntax tree, which what evaluates it recurses along too.

use std::ops::Range;

use minijinja::{
    machinery::{Token, tokenize},
    syntax::SyntaxConfig,
};

/// How many operators may depend on each other in one tag.
const OPERATORS: usize = 1000;

/// How many of these may be brackets, calls and filters: each may nest the value of what it applies to.
const BRACKETS: usize = 200;

/// How many `elif` may follow on each other, also those of an `if` within the last of them.
const BRANCHES: usize = 1000;

/// What is counted of one tag, at one level of its brackets.
#[derive(Default, Clone, Copy)]
struct Level {
    operators: usize,
    brackets: usize,
}

/// What is counted of one tag.
#[derive(Default)]
struct Tag {
    levels: Vec<Level>,
    sum: Level,
}

impl Tag {
    fn begin(&mut self) {
        self.levels.clear();
        self.levels.push(Level::default());
        self.sum = Level::default();
    }

    fn count(&mut self, operators: usize, brackets: usize) {
        let Some(level) = self.levels.last_mut() else { return };
        level.operators += operators;
        level.brackets += brackets;
        self.sum.operators += operators;
        self.sum.brackets += brackets;
    }

    /// What follows does not depend on what came before at this level: the next item of a list, or what comes after the bracket.
    fn next(&mut self) {
        let Some(level) = self.levels.last_mut() else { return };
        self.sum.operators -= level.operators;
        self.sum.brackets -= level.brackets;
        *level = Level::default();
    }

    fn close(&mut self) {
        // One bracket too many is for the parser to report.
        if self.levels.len() > 1 {
            self.next();
            self.levels.pop();
        }
    }
}

/// Where a template, or with `expression` a condition, nests too deeply. What the tokenizer refuses is for the parser to report.
pub(super) fn too_deep(text: &str, expression: bool) -> Option<Range<usize>> {
    // Most strings are too short for any of the limits.
    if text.len() <= BRACKETS {
        return None;
    }
    let mut tag = Tag::default();
    tag.begin();
    let (mut branches, mut sum) = (Vec::new(), 0);
    let mut first = false;
    for (token, span) in tokenize(text, expression, SyntaxConfig::default()).map_while(Result::ok) {
        let begins = std::mem::replace(&mut first, matches!(token, Token::BlockStart));
        match token {
            Token::TemplateData(_) | Token::BlockStart | Token::VariableStart => tag.begin(),
            Token::Ident("if") if begins => branches.push(0),
            Token::Ident("elif") if begins => {
                if let Some(count) = branches.last_mut() {
                    *count += 1;
                    sum += 1;
                }
            }
            Token::Ident("endif") if begins => sum -= branches.pop().unwrap_or_default(),
            Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => {
                tag.count(1, 1);
                tag.levels.push(Level::default());
            }
            Token::BracketClose | Token::ParenClose | Token::BraceClose => tag.close(),
            Token::Comma | Token::Colon => tag.next(),
            Token::Pipe => tag.count(1, 1),
            Token::Ident("not" | "and" | "or" | "if" | "else" | "in" | "is") => tag.count(1, 0),
            Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::FloorDiv | Token::Pow | Token::Mod => {
                tag.count(1, 0);
            }
            Token::Dot | Token::Tilde | Token::Assign => tag.count(1, 0),
            Token::Eq | Token::Ne | Token::Gt | Token::Gte | Token::Lt | Token::Lte => tag.count(1, 0),
            _ => {}
        }
        if tag.sum.operators > OPERATORS || tag.sum.brackets > BRACKETS || sum > BRANCHES {
            return Some(span.start_offset as usize..span.end_offset as usize);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_every_kind_are_counted() {
        let deep = |n: usize| {
            [
                "not ".repeat(n) + "x",
                "-".repeat(n) + "x",
                "x".to_owned() + &" + x".repeat(n),
                "x".to_owned() + &" ~ x".repeat(n),
                "x".to_owned() + &" if x else x".repeat(n),
                "x".to_owned() + &" or x".repeat(n),
                "x".to_owned() + &".x".repeat(n),
                "x".to_owned() + &"[0]".repeat(n),
                "x".to_owned() + &"()".repeat(n),
                "x".to_owned() + &"|list".repeat(n),
                "x".to_owned() + &" is defined".repeat(n),
                "(not ".repeat(n) + "x",
                "[1, ".repeat(n),
                "{\"a\": ".repeat(n),
            ]
        };
        for text in deep(5000) {
            assert!(too_deep(&text, true).is_some(), "{}", &text[..40]);
            assert!(too_deep(&format!("a {{{{ {text} }}}}"), false).is_some(), "{}", &text[..40]);
        }
        for text in deep(100) {
            assert_eq!(too_deep(&text, true), None, "{}", &text[..40]);
        }
        let branches = |n: usize| format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(n));
        assert_eq!(too_deep(&branches(1001), false), Some(12 * 1000 + 10 + 3..12 * 1000 + 10 + 7));
        assert_eq!(too_deep(&branches(1000), false), None);
    }

    #[test]
    fn length_is_no_depth() {
        let table = format!("{{% set t = [{}] %}}", "{\"a\": x.y[0]|int + 1, \"b\": not z}, ".repeat(10_000));
        assert_eq!(too_deep(&table, false), None);
        let text = "{{ a.b|upper ~ '{{ ' ~ \"(((\" }}\n{# (((( #}{% if a == b and not c %}x{% elif d %}y{% endif %}"
            .repeat(5000);
        assert_eq!(too_deep(&text, false), None);
        assert_eq!(too_deep(&format!("{{% raw %}}{}{{% endraw %}}", "{{ ((((".repeat(5000)), false), None);
    }
}

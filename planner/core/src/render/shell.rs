//! Where in a shell line quotes of one's own may stand.
//!
//! In: the literal text of a line, piece by piece. Out: whether a word that is quoted by itself, put there, stays one word. That it does
//! not where a shell would read on within it: within quotes, backquotes, comments, arithmetic and here-documents. Where that cannot be
//! determined, it does not either.

/// What the shell is within.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Within {
    /// `( … )` and `$( … )`, where quotes have their meaning again.
    Commands,
    Single,
    Double,
    Backquotes,
    Comment,
    /// `$(( … ))`, and brackets in it.
    Arithmetic,
    Bracket,
    /// The bodies of here-documents, up to these lines; tabs before them are dropped.
    Here(Vec<String>),
    /// What cannot be determined.
    Unknown,
}

/// The state of a shell that has read a part of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shell {
    within: Vec<Within>,
    /// Here-documents that begin with the next line.
    pending: Vec<String>,
    /// The line of a here-document as far as it is read.
    line: String,
    /// The characters since the last that are not decided yet.
    last: Last,
}

/// The last character, as far as it decides what the next one means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Last {
    /// A blank or an operator: a word begins.
    #[default]
    Blank,
    Word,
    Backslash,
    Dollar,
}

impl Last {
    /// Whether it changes what a quote after it means.
    fn hides(self) -> bool {
        matches!(self, Self::Backslash | Self::Dollar)
    }
}

impl Shell {
    /// Whether a word that is quoted by itself may stand here.
    pub(super) fn takes_quotes(&self) -> bool {
        matches!(self.within.last(), None | Some(Within::Commands)) && !self.last.hides()
    }

    /// Reads a word that is quoted by itself, or that has no quotes.
    pub(super) fn word(&mut self) {
        self.last = Last::Word;
        self.line.push('x');
    }

    /// Forgets where it is: what was read depends on values.
    pub(super) fn lose(&mut self) {
        self.within.push(Within::Unknown);
    }

    /// Whether nothing is open that began in what was read.
    pub(super) fn is_closed(&self) -> bool {
        self.within.is_empty() && self.pending.is_empty() && !self.last.hides()
    }

    /// Goes on from either of two states, which one depends on values.
    pub(super) fn either(&mut self, other: &Self) {
        let (here, there) = (self.within.last(), other.within.last());
        let same_line = !matches!((here, there), (Some(Within::Here(_)), _)) || self.line == other.line;
        let agree = self.within == other.within && self.pending == other.pending && same_line;
        if !agree || self.last.hides() != other.last.hides() {
            self.lose();
        } else if self.last != other.last {
            // What follows may be a comment.
            self.last = Last::Blank;
        }
    }

    /// Reads literal text.
    pub(super) fn read(&mut self, text: &str) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let taken = self.next(c, rest);
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Reads what `rest` begins with; how many bytes of it.
    fn next(&mut self, c: char, rest: &str) -> usize {
        let (last, one) = (self.last, c.len_utf8());
        self.last = if c.is_whitespace() || "();|&<>".contains(c) { Last::Blank } else { Last::Word };
        match self.within.last_mut() {
            Some(Within::Unknown) => one,
            Some(Within::Here(ends)) => {
                if c != '\n' {
                    self.line.push(c);
                    return one;
                }
                let line = std::mem::take(&mut self.line);
                if ends.first().is_some_and(|end| *end == line.trim_start_matches('\t')) {
                    ends.remove(0);
                }
                if ends.is_empty() {
                    self.within.pop();
                }
                one
            }
            Some(Within::Comment) => {
                if c == '\n' {
                    self.within.pop();
                    self.begin_here();
                }
                one
            }
            Some(Within::Single) => {
                if c == '\'' {
                    self.within.pop();
                }
                one
            }
            // The character after a backslash means itself in all that is left.
            _ if last == Last::Backslash => {
                self.last = Last::Word;
                one
            }
            _ if c == '\\' => {
                self.last = Last::Backslash;
                one
            }
            Some(Within::Arithmetic | Within::Bracket) => {
                match (c, self.within.last()) {
                    ('(', _) => self.within.push(Within::Bracket),
                    (')', Some(Within::Arithmetic)) if rest.starts_with("))") => {
                        self.within.pop();
                        return 2;
                    }
                    (')', _) => _ = self.within.pop(),
                    _ => {}
                }
                one
            }
            Some(Within::Double) if c == '"' => {
                self.within.pop();
                one
            }
            Some(Within::Backquotes) if c == '`' => {
                self.within.pop();
                one
            }
            within => {
                let double = matches!(within, Some(Within::Double));
                self.command(c, rest, last, double)
            }
        }
    }

    /// Reads what begins something within a command, or within double quotes.
    fn command(&mut self, c: char, rest: &str, last: Last, double: bool) -> usize {
        let one = c.len_utf8();
        match c {
            '$' => self.last = Last::Dollar,
            '`' => self.within.push(Within::Backquotes),
            '(' if last == Last::Dollar && rest.starts_with("((") => {
                self.within.push(Within::Arithmetic);
                return 2;
            }
            '(' if last == Last::Dollar || !double => self.within.push(Within::Commands),
            _ if double => {}
            // In `$'…'` a backslash may hide the end, which depends on the shell.
            '\'' if last == Last::Dollar => self.lose(),
            '\'' => self.within.push(Within::Single),
            '"' => self.within.push(Within::Double),
            ')' if self.within.last() == Some(&Within::Commands) => _ = self.within.pop(),
            '#' if last == Last::Blank => self.within.push(Within::Comment),
            '\n' => self.begin_here(),
            '<' if rest.starts_with("<<<") => return 3,
            '<' if rest.starts_with("<<") => return 2 + self.here(&rest[2..]),
            _ => {}
        }
        one
    }

    /// Reads the word that ends a here-document; how many bytes of it.
    fn here(&mut self, rest: &str) -> usize {
        let word = rest.trim_start_matches('-').trim_start_matches([' ', '\t']);
        let length = word.find(|c: char| c.is_whitespace() || ";&|()<>".contains(c)).unwrap_or(word.len());
        self.pending.push(word[..length].chars().filter(|c| !"'\"\\".contains(*c)).collect());
        self.last = Last::Word;
        rest.len() - word.len() + length
    }

    /// Begins the here-documents that the line announced.
    fn begin_here(&mut self) {
        if !self.pending.is_empty() {
            self.line.clear();
            self.within.push(Within::Here(std::mem::take(&mut self.pending)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a quoted word may stand at each `@` of a line.
    fn places(line: &str) -> Vec<bool> {
        let (mut shell, mut found) = (Shell::default(), Vec::new());
        for (n, text) in line.split('@').enumerate() {
            if n > 0 {
                found.push(shell.takes_quotes());
                shell.word();
            }
            shell.read(text);
        }
        found
    }

    #[test]
    fn quotes_of_their_own_stand_where_a_word_may() {
        for line in [
            "ping @",
            "a=@; b 'x y' @ \"z\" @",
            "x \"$(ping @)\" @",
            "a\\\\@",
            "a \\' @ \\\" @",
            "# don't\nping @",
            "a#'b' @",
            "cat <<EOF\ndon't\nEOF\nping @",
            "cat <<-'E' | x @\n\tit's\n\tE\nping @",
            "cat <<< 'x' @",
            "echo $((1 + (2))) @",
            "(cd /; ping @)",
        ] {
            let found = places(line);
            assert!(!found.is_empty() && found.iter().all(|place| *place), "{line}");
        }
    }

    #[test]
    fn they_do_not_where_the_shell_reads_on_within_them() {
        for line in [
            "ping \"@\"",
            "ping '@'",
            "x `ping @`",
            "x \"`ping @`\"",
            "# @",
            "x # it is @",
            "\\@",
            "$@",
            "cat <<EOF\n@\nEOF\n",
            "cat <<a <<b\na\n@",
            "cat <<EOF\n@EOF\n@",
            "echo $((@))",
            "echo $((1 + (@)))",
            "echo $'a\\' @",
            "sh -c \"echo @\"",
        ] {
            let found = places(line);
            assert!(!found.is_empty() && found.iter().all(|place| !place), "{line}");
        }
    }
}

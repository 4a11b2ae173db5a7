//! What a fault of the TOML syntax means to people.
//!
//! In: the parser's message, the text, and where the fault is. Out: a message and, if what was meant can be seen, how to write it. The
//! parser names what it expected at that character, which is rarely what is wrong.

use std::ops::Range;

use crate::hint::excerpt;

/// Message and hint for a fault that the parser found.
pub(super) fn of(message: &str, text: &str, span: &Range<usize>) -> (String, Option<String>) {
    let plain = message.lines().collect::<Vec<_>>().join(", ");
    let before = text.get(..span.start).unwrap_or_default();
    let after = text.get(span.start..).unwrap_or_default();
    let line = Line::of(before, after);
    let starts = |start: &str| message.starts_with(start);
    if starts("missing escaped value") {
        let escaped = after.trim_start_matches('\\').chars().next().filter(|c| !c.is_control()).unwrap_or('s');
        let hint = format!("write `\\\\{escaped}`, or put the text in '…', where a backslash is only that");
        return (format!("`\\{escaped}` is not an escape"), Some(hint));
    }
    if starts("unexpected leading zero") {
        let number = line.word();
        let message = format!("`{number}` begins with a zero, which no number may");
        return (message, Some(format!("put it in quotes: \"{number}\"")));
    }
    if let Some(quote) = before.chars().next_back().filter(|c| matches!(c, '"' | '\''))
        && after.starts_with(|c: char| !c.is_whitespace() && !matches!(c, ',' | ']' | '}'))
        && (starts("unexpected key or value") || starts("missing comma"))
    {
        let hint = match quote {
            '"' => "put the whole text in '…', or write \\\" inside it",
            _ => "put the whole text in \"…\"",
        };
        return (format!("the text ends at this `{quote}`, and something follows"), Some(hint.to_owned()));
    }
    if line.head.trim().is_empty() && (starts("missing comma") || starts("missing key for inline table")) {
        let bracket = if starts("missing comma between array") { ']' } else { '}' };
        return (plain, Some(format!("is a `{bracket}` missing before this line?")));
    }
    if let Some(key) = line.colon_key()
        && ["invalid unquoted key", "key with no value", "missing assignment"].into_iter().any(starts)
    {
        return (plain, Some(format!("TOML assigns with `=`: {key} = …")));
    }
    if after.starts_with("//") {
        return (plain, Some("a comment begins with `#`".to_owned()));
    }
    if line.is_template() {
        return ("a template is text".to_owned(), Some("put it in quotes: \"{{ … }}\"".to_owned()));
    }
    if ["string values must be quoted", "invalid float", "invalid boolean"].into_iter().any(starts) {
        return no_value(&line.word());
    }
    if after.starts_with(',') {
        return (plain, Some("leave out the comma: a value ends with its line".to_owned()));
    }
    (plain, None)
}

/// What is wrong with an unquoted word in the place of a value.
fn no_value(word: &str) -> (String, Option<String>) {
    let hint = match word {
        "" => return ("there is no value".to_owned(), Some("write one, or leave out the line".to_owned())),
        "null" | "Null" | "None" | "nil" | "~" => "there is no such value in TOML: leave out the key".to_owned(),
        "yes" | "Yes" | "on" | "On" | "True" | "TRUE" => "write `true`, or put it in quotes if it is text".to_owned(),
        "no" | "No" | "off" | "Off" | "False" | "FALSE" => {
            "write `false`, or put it in quotes if it is text".to_owned()
        }
        _ => format!("put text in quotes: \"{word}\""),
    };
    (format!("`{word}` is not a value"), Some(hint))
}

/// The line in which a fault is, before and after it.
struct Line<'a> {
    head: &'a str,
    tail: &'a str,
}

impl<'a> Line<'a> {
    fn of(before: &'a str, after: &'a str) -> Self {
        Self { head: before.rsplit('\n').next().unwrap_or_default(), tail: after.lines().next().unwrap_or_default() }
    }

    /// The unquoted word that the fault is in.
    fn word(&self) -> String {
        let is_end = |c: char| c.is_whitespace() || "=,[]{}#\"'".contains(c);
        let from = self.head.rfind(is_end).map_or(0, |at| at + 1);
        let to = self.tail.find(is_end).unwrap_or(self.tail.len());
        excerpt(&format!("{}{}", self.head.get(from..).unwrap_or_default(), &self.tail[..to]))
    }

    /// Whether a template stands where a value should.
    fn is_template(&self) -> bool {
        self.head.ends_with('{') && self.tail.starts_with(['{', '%'])
    }

    /// The key, if the line looks like YAML: `key: value`.
    fn colon_key(&self) -> Option<String> {
        let line = format!("{}{}", self.head, self.tail);
        let (key, _) = line.trim_start().trim_start_matches("- ").split_once(':')?;
        let key = key.trim_matches('"');
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        (!key.is_empty() && key.chars().all(plain)).then(|| excerpt(key))
    }
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    /// Message and hint of the first fault of a line.
    fn of(line: &str) -> (String, String) {
        let text = format!("{line}\n[vars]\n");
        let errors = DeTable::parse_recoverable(&text).1;
        let first = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start)).expect("a fault");
        let (message, hint) = super::of(first.message(), &text, &first.span().expect("a place"));
        (message, hint.unwrap_or_default())
    }

    #[test]
    fn what_was_meant_is_in_the_hint() {
        for (line, message, hint) in [
            ("mode = 0644", "`0644` begins with a zero", "put it in quotes: \"0644\""),
            ("a = -0644", "`-0644` begins with a zero", "\"-0644\""),
            ("a = nginx", "`nginx` is not a value", "put text in quotes: \"nginx\""),
            ("a = /etc/x", "`/etc/x` is not a value", "\"/etc/x\""),
            ("a = 10m", "`10m` is not a value", "\"10m\""),
            ("a = yes", "`yes` is not a value", "write `true`"),
            ("a = False", "`False` is not a value", "write `false`"),
            ("a = null", "`null` is not a value", "leave out the key"),
            ("a = ", "there is no value", "leave out the line"),
            ("a = [1, no]", "`no` is not a value", "write `false`"),
            ("a = {{ x }}", "a template is text", "put it in quotes"),
            ("a: 5", "invalid unquoted key", "TOML assigns with `=`: a = …"),
            ("  - name: x", "", "TOML assigns with `=`: name = …"),
            ("// no", "invalid unquoted key", "a comment begins with `#`"),
            ("a = 1,", "unexpected key or value", "leave out the comma"),
            ("a = \"grep \\s\"", "`\\s` is not an escape", "write `\\\\s`, or put the text in '…'"),
            ("a = [1", "missing comma between array elements", "is a `]` missing before this line?"),
            ("a = { b = 1", "missing", "is a `}` missing before this line?"),
            ("a = \"x {{ y[\"b\"] }}\"", "the text ends at this `\"`", "put the whole text in '…'"),
            ("a = 'it's'", "the text ends at this `'`", "put the whole text in \"…\""),
        ] {
            let found = of(line);
            assert!(found.0.starts_with(message) && found.1.contains(hint), "{line}: {found:?}");
        }
    }

    #[test]
    fn any_text_has_a_wording() {
        let lines =
            ["", "[", "[[a", "a", "=", "a = \"", "a = '''", "a = \"\\", "ä = ö", "a = \"\\\u{7f}\"", "\"a\"\"b\" = 1"];
        for line in lines {
            for error in DeTable::parse_recoverable(line).1 {
                let span = error.span().unwrap_or(0..0);
                for start in 0..=line.len() + 1 {
                    super::of(error.message(), line, &(start..span.end));
                }
            }
        }
    }
}

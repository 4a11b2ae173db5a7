//! INI files as lists of lines, so that everything else stays byte for byte.
//!
//! In: a file's text. Out: the same with options set. Parsed as by Python's configparser and oslo.config: `[section]`,
//! `name = value` or `name: value`, comments after `#` and `;` at the beginning of a line, deeper indented lines continue the value
//! before. In addition, as in MySQL's and Samba's files: names without a value, lines with `!` that include other files, and
//! options indented at will (see `continues`). Sections and options may be repeated. Each line keeps its line break. Pure; a text
//! that is not an INI file is refused as a whole, with the first bad line.

#[cfg(test)]
mod tests;

use super::spot::Spot;

/// Why a text is not an INI file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct Fault {
    /// The line of the text, from 1.
    pub(crate) line: usize,
    what: String,
}

/// An INI file by its lines, so that what is not edited keeps its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    items: Vec<Item>,
}

/// A line, or an option with the lines that continue its value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    what: What,
    /// Its text in the file, line breaks included.
    raw: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Section(String),
    Option {
        name: String,
        /// Offset of the value in `raw`; `None` for a name without a value.
        at: Option<usize>,
    },
    Blank,
    /// A comment or a directive.
    Other,
}

impl Document {
    /// Parses a file's text.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut document = Self { items: Vec::new() };
        // The indentation of the option whose value may be continued.
        let mut open = None;
        for (i, raw) in text.split_inclusive('\n').enumerate() {
            let line = raw.trim_start_matches('\u{feff}');
            let fault = |what: String| Fault { line: i + 1, what };
            let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
            let bare = line.trim();
            if bare.contains('\0') {
                return Err(fault("contains a NUL byte".to_owned()));
            }
            let what = if bare.is_empty() {
                open = None;
                What::Blank
            } else if bare.starts_with(['#', ';']) {
                What::Other
            } else if open.is_some_and(|of| indent > of) && document.continues(bare) {
                document.continue_value(raw);
                continue;
            } else if let Some(header) = bare.strip_prefix('[') {
                open = None;
                What::Section(section(header).map_err(fault)?)
            } else if bare.starts_with('!') {
                open = None;
                What::Other
            } else {
                open = Some(indent);
                option(raw, bare).map_err(fault)?
            };
            document.items.push(Item { what, raw: raw.to_owned() });
        }
        Ok(document)
    }

    /// Whether a line that is indented deeper than the last option belongs to its value. In files whose programs ignore
    /// indentation it is an option of its own: if it reads as one, and the value before it is complete.
    fn continues(&self, bare: &str) -> bool {
        let Some(last) = self.last_option() else { return true };
        let (value, delimiter) = (self.items[last].value(), self.items[last].delimiter());
        // A value that begins below its name, or goes on already, may have lines of any form.
        let goes_on = self.items[last].raw.trim_end().contains('\n');
        let is_open = value.is_empty() || goes_on || value.ends_with([',', '\\']);
        (is_open && delimiter.is_some()) || !is_option(bare, delimiter)
    }

    fn last_option(&self) -> Option<usize> {
        self.items.iter().rposition(|item| matches!(item.what, What::Option { .. }))
    }

    /// Adds a line to the value of the last option, with the comments between.
    fn continue_value(&mut self, raw: &str) {
        let Some(last) = self.last_option() else { return };
        let between: String = self.items.drain(last + 1..).map(|item| item.raw).collect();
        self.items[last].raw.push_str(&between);
        self.items[last].raw.push_str(raw);
    }

    /// The values of an option, in their order.
    pub(crate) fn get(&self, section: &str, option: &str) -> Vec<String> {
        self.places(section, option).iter().map(|at| self.items[*at].value()).collect()
    }

    /// The raw text of an option, once for each repetition; for [`Document::restore`].
    pub(crate) fn raw(&self, section: &str, option: &str) -> Vec<String> {
        self.places(section, option).iter().map(|at| self.items[*at].raw.clone()).collect()
    }

    /// Where an option is, once for each repetition; for [`Document::restore`].
    pub(crate) fn spots(&self, section: &str, option: &str) -> Vec<Spot> {
        let spot = |at: usize| Spot::of(at, at + 1, |at| self.mark(at));
        self.places(section, option).into_iter().map(spot).collect()
    }

    /// Restores the raw text of an option, at `spots`, as far as they are known and the option is not there.
    pub(crate) fn restore(&mut self, section: &str, option: &str, raw: &[String], spots: &[Spot]) {
        let items: Vec<Item> =
            raw.iter().filter_map(|raw| Self::parse(raw).ok()).flat_map(|document| document.items).collect();
        let places = self.places(section, option);
        for at in places.iter().skip(items.len()).rev() {
            self.items.remove(*at);
        }
        for (n, mut item) in items.into_iter().enumerate() {
            let there = places.get(n);
            let at = there.copied().unwrap_or_else(|| self.place(section, option, spots.get(n)));
            if !item.raw.ends_with('\n') && at + usize::from(there.is_some()) < self.items.len() {
                item.raw.push_str(&self.newline(at + 1));
            }
            match there {
                Some(at) => self.items[*at] = item,
                None => self.insert(at, vec![item]),
            }
        }
    }

    /// The index at which an option was: at its spot, else after its last repetition, else where a new one would be.
    fn place(&mut self, section: &str, option: &str, spot: Option<&Spot>) -> usize {
        let header = usize::from(!section.is_empty());
        let candidates = self.spans(section).into_iter().flat_map(|(from, to)| from + header..=to);
        let best = spot.and_then(|spot| spot.find(candidates, |at| self.mark(at)));
        let last = || self.places(section, option).last().map(|last| last + 1);
        match best.or_else(last) {
            Some(at) => at,
            None => self.room(section, option),
        }
    }

    /// What distinguishes a line: the name of an option or a section, or the text of a comment.
    fn mark(&self, at: usize) -> Option<String> {
        let item = self.items.get(at)?;
        Some(match &item.what {
            What::Section(name) => format!("[{name}]"),
            What::Option { name, .. } => format!("{name} ="),
            What::Blank | What::Other => item.raw.trim().to_owned(),
        })
    }

    pub(crate) fn has_section(&self, section: &str) -> bool {
        !self.spans(section).is_empty()
    }

    /// Sets the values of an option; with none, it is removed. Whether anything changed.
    pub(crate) fn set(&mut self, section: &str, option: &str, values: &[String]) -> bool {
        let places = self.places(section, option);
        if places.iter().map(|at| self.items[*at].value()).eq(values.iter().cloned()) {
            return false;
        }
        for (at, value) in places.iter().zip(values) {
            if self.items[*at].value() != *value {
                self.items[*at] = self.items[*at].with_value(value, &self.newline(at + 1), &self.style());
            }
        }
        if let Some(more) = values.get(places.len()..).filter(|more| !more.is_empty()) {
            let at = places.last().map_or_else(|| self.room(section, option), |last| last + 1);
            let (style, newline, indent) = (self.style(), self.newline(at), self.indent(section, at));
            let item = |value: &String| Item::option(&indent, option, value, &newline, &style);
            self.insert(at, more.iter().map(item).collect());
        }
        for at in places.iter().skip(values.len()).rev() {
            self.items.remove(*at);
        }
        true
    }

    /// The text of its last line or option, if that has no line break.
    pub(crate) fn unended(&self) -> Option<String> {
        self.items.last().filter(|item| !item.raw.ends_with('\n')).map(|item| item.raw.clone())
    }

    /// Takes its line break from the last line or option, if it has that text.
    pub(crate) fn unend(&mut self, last: &str) {
        if let Some(item) = self.items.last_mut()
            && item.raw.trim_end_matches(['\r', '\n']) == last
        {
            item.raw.truncate(last.len());
        }
    }

    /// Removes all parts of a section; returns each with its place among the other sections.
    pub(crate) fn cut(&mut self, section: &str) -> Vec<(String, Spot)> {
        let sections = self.sections();
        // Of parts that follow each other, the neighbours are those that stay.
        let name = |(_, name): &(usize, String)| (name != section).then(|| name.clone());
        let spot = |n: usize| Spot {
            before: sections[..n].iter().rev().find_map(name),
            after: sections[n..].iter().find_map(name),
            at: n,
        };
        let nth = |from: usize| sections.iter().position(|(at, _)| *at == from).unwrap_or_default();
        let spans = self.spans(section);
        let spots: Vec<Spot> = spans.iter().map(|(from, _)| spot(nth(*from))).collect();
        let drain = |(from, to): &(usize, usize)| self.items.drain(*from..*to).map(|item| item.raw).collect();
        // From the last on, so that the indices before it stay.
        let mut texts: Vec<String> = spans.iter().rev().map(drain).collect();
        texts.reverse();
        texts.into_iter().zip(spots).collect()
    }

    /// Inserts the text of a section that was cut.
    pub(crate) fn paste(&mut self, text: &str, spot: &Spot) -> Result<(), Fault> {
        let mut items = Self::parse(text)?.items;
        let sections = self.sections();
        let name = |n: usize| sections.get(n).map(|(_, name)| name.clone());
        let n = spot.find(0..=sections.len(), name).unwrap_or(sections.len());
        let at = sections.get(n).map_or(self.items.len(), |(at, _)| *at);
        if let Some(last) = items.last_mut().filter(|last| at < self.items.len() && !last.raw.ends_with('\n')) {
            last.raw.push_str(&self.newline(at));
        }
        self.insert(at, items);
        Ok(())
    }

    /// The headers of all sections, each with its index.
    fn sections(&self) -> Vec<(usize, String)> {
        let header = |(at, item): (usize, &Item)| match &item.what {
            What::Section(name) => Some((at, name.clone())),
            _ => None,
        };
        self.items.iter().enumerate().filter_map(header).collect()
    }

    /// Removes a section if nothing is left in it.
    pub(crate) fn cut_if_empty(&mut self, section: &str) {
        let is_blank = |item: &Item| item.what == What::Blank;
        for (from, to) in self.spans(section).into_iter().rev() {
            let header = usize::from(!section.is_empty());
            if self.items[from + header..to].iter().all(is_blank) {
                self.items.drain(from..to);
                // The empty line that was inserted before it.
                if from > 0 && from == self.items.len() && is_blank(&self.items[from - 1]) {
                    self.items.pop();
                }
            }
        }
    }

    pub(crate) fn text(&self) -> String {
        self.items.iter().map(|item| item.raw.as_str()).collect()
    }

    /// The ranges of the parts of a section, headers included.
    fn spans(&self, section: &str) -> Vec<(usize, usize)> {
        let mut spans = Vec::new();
        let mut begun = section.is_empty().then_some(0);
        for (i, item) in self.items.iter().enumerate() {
            if let What::Section(name) = &item.what {
                spans.extend(begun.take().map(|from| (from, i)));
                begun = (name == section).then_some(i);
            }
        }
        spans.extend(begun.map(|from| (from, self.items.len())));
        spans
    }

    fn places(&self, section: &str, option: &str) -> Vec<usize> {
        let is = |i: &usize| matches!(&self.items[*i].what, What::Option { name, .. } if name == option);
        self.spans(section).into_iter().flat_map(|(from, to)| from..to).filter(is).collect()
    }

    /// The index for a new option: after the comment that shows it, else after the last option of the section.
    fn room(&mut self, section: &str, option: &str) -> usize {
        let spans = self.spans(section);
        let Some((from, to)) = spans.last().copied() else {
            let newline = self.newline(self.items.len());
            // Also after one that is there: with the section a blank line goes, and that one is to stay.
            if !self.items.is_empty() {
                let blank = Item { what: What::Blank, raw: newline.clone() };
                self.insert(self.items.len(), vec![blank]);
            }
            let header = Item { what: What::Section(section.to_owned()), raw: format!("[{section}]{newline}") };
            self.insert(self.items.len(), vec![header]);
            return self.items.len();
        };
        let shown = |item: &Item| item.what == What::Other && shows(&item.raw, option);
        let last = |is: &dyn Fn(&Item) -> bool| self.items[from..to].iter().rposition(is).map(|i| from + i + 1);
        last(&shown)
            .or_else(|| last(&|item| matches!(item.what, What::Option { .. })))
            .unwrap_or(if section.is_empty() { from } else { from + 1 })
    }

    fn insert(&mut self, at: usize, items: Vec<Item>) {
        // The last line of a file may lack its line break.
        let newline = self.newline(at);
        if let Some(before) = at.checked_sub(1).and_then(|i| self.items.get_mut(i))
            && !before.raw.ends_with('\n')
        {
            before.raw.push_str(&newline);
        }
        self.items.splice(at..at, items);
    }

    /// The line break of a new line at that index: as in the line before it, or else in the first that has one.
    fn newline(&self, at: usize) -> String {
        let of = |item: &Item| match item.raw.strip_suffix('\n') {
            Some(line) if line.ends_with('\r') => Some("\r\n"),
            Some(_) => Some("\n"),
            None => None,
        };
        self.items[..at].iter().rev().chain(&self.items[at..]).find_map(of).unwrap_or("\n").to_owned()
    }

    /// The indentation of a new option at that index: that of the option before it in its section, or else after it, or the next
    /// option would be read as the rest of its value.
    fn indent(&self, section: &str, at: usize) -> String {
        let of = |item: &Item| match item.what {
            What::Option { .. } => Some(item.raw[..indent(&item.raw)].trim_start_matches('\u{feff}').to_owned()),
            _ => None,
        };
        let Some((from, to)) = self.spans(section).into_iter().find(|(from, to)| (*from..=*to).contains(&at)) else {
            return String::new();
        };
        self.items[from..at].iter().rev().chain(&self.items[at..to]).find_map(of).unwrap_or_default()
    }

    /// The text between names and values in this file, by its first option.
    fn style(&self) -> String {
        let style = |item: &Item| match &item.what {
            What::Option { name, at: Some(at) } => {
                let head = item.raw.get(..*at)?.trim_start();
                let between = head.strip_prefix(name.as_str())?;
                (!item.value().is_empty() && !item.begins_below()).then(|| between.replace('\t', " "))
            }
            _ => None,
        };
        self.items.iter().find_map(style).unwrap_or_else(|| " = ".to_owned())
    }
}

impl Item {
    fn option(indent: &str, name: &str, value: &str, newline: &str, style: &str) -> Self {
        let head = format!("{indent}{name}{style}");
        Self::written(name, &head, lines(&head, value, newline))
    }

    /// Whether the first line of its value is the one after its name.
    fn begins_below(&self) -> bool {
        matches!(self.what, What::Option { at: Some(at), .. } if self.raw[at..].starts_with(['\r', '\n']))
    }

    /// The character between its name and its value.
    fn delimiter(&self) -> Option<char> {
        let What::Option { at: Some(at), .. } = self.what else { return None };
        self.raw.get(..at)?.chars().find(|c| matches!(c, '=' | ':'))
    }

    /// The same option with another value; the text before the value stays, and so does the missing line break at the end of a
    /// file.
    fn with_value(&self, value: &str, newline: &str, style: &str) -> Self {
        let What::Option { name, at } = &self.what else { return self.clone() };
        let head = match at {
            Some(at) if !self.value().is_empty() && !self.begins_below() => self.raw[..*at].to_owned(),
            _ => format!("{}{name}{style}", &self.raw[..indent(&self.raw)]),
        };
        let mut raw = lines(&head, value, newline);
        if !self.raw.ends_with('\n') {
            raw.truncate(raw.len() - newline.len());
        }
        Self::written(name, &head, raw)
    }

    fn written(name: &str, head: &str, raw: String) -> Self {
        let at = head.len().min(raw.trim_end().len());
        Self { what: What::Option { name: name.to_owned(), at: Some(at) }, raw }
    }

    /// The value, each of its lines trimmed, without comments between them.
    fn value(&self) -> String {
        let What::Option { at: Some(at), .. } = self.what else { return String::new() };
        let rest = self.raw.get(at..).unwrap_or_default();
        let is_value = |(i, line): &(usize, &str)| *i == 0 || !line.starts_with(['#', ';']);
        let lines = rest.split('\n').map(str::trim).enumerate().filter(is_value).map(|(_, line)| line);
        lines.collect::<Vec<_>>().join("\n").trim().to_owned()
    }
}

/// Whether an indented line reads as an option, after one with that delimiter: a name of words, then `=`, or `:` and a blank.
fn is_option(bare: &str, delimiter: Option<char>) -> bool {
    let Some((name, value)) = bare.split_once(delimiter.unwrap_or('=')) else { return false };
    let is_name = |c: char| c.is_alphanumeric() || "_-. ".contains(c);
    let is_value = match delimiter {
        Some(':') => value.is_empty() || value.starts_with([' ', '\t']),
        // `==` compares, as in a list of packages with their versions.
        _ => !value.starts_with('='),
    };
    is_value && name.starts_with(char::is_alphabetic) && name.trim_end().chars().all(is_name)
}

/// The length of the blanks before a line.
fn indent(raw: &str) -> usize {
    raw.len() - raw.trim_start_matches([' ', '\t', '\u{feff}']).len()
}

/// An option's lines.
fn lines(head: &str, value: &str, newline: &str) -> String {
    let indent: String = head.chars().take_while(|c| matches!(c, ' ' | '\t')).collect();
    let mut raw = format!("{head}{}", value.replace('\n', &format!("{newline}{indent}    ")));
    raw.truncate(raw.trim_end().len());
    raw + newline
}

fn section(header: &str) -> Result<String, String> {
    let Some((name, rest)) = header.split_once(']') else {
        return Err(format!("the section's header is not closed: `[{}`", shown(header)));
    };
    if !(rest.trim().is_empty() || rest.trim_start().starts_with(['#', ';'])) {
        return Err(format!("there is text after the section's header: `{}`", shown(rest.trim())));
    }
    let name = name.trim();
    if name.is_empty() { Err("the section has no name".to_owned()) } else { Ok(name.to_owned()) }
}

fn option(raw: &str, bare: &str) -> Result<What, String> {
    if raw.starts_with([' ', '\t']) && !bare.contains(['=', ':']) {
        return Err(format!("is indented and continues nothing: `{}`", shown(bare)));
    }
    let Some((name, _)) = bare.split_once(['=', ':']) else {
        // A name alone, such as `skip-networking`.
        if bare.contains(char::is_whitespace) {
            return Err(format!("has neither `=` nor `:`: `{}`", shown(bare)));
        }
        return Ok(What::Option { name: bare.to_owned(), at: None });
    };
    let name = name.trim_end();
    if name.is_empty() {
        return Err(format!("has no name before its value: `{}`", shown(bare)));
    }
    let delimiter = raw.find(['=', ':']).unwrap_or(0) + 1;
    let blanks = raw[delimiter..].len() - raw[delimiter..].trim_start_matches([' ', '\t']).len();
    Ok(What::Option { name: name.to_owned(), at: Some(delimiter + blanks) })
}

/// Whether a comment shows that option, as sample files do: `#debug = false`.
fn shows(comment: &str, option: &str) -> bool {
    let rest = comment.trim_start_matches([' ', '\t', '#', ';']).strip_prefix(option);
    rest.is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with('='))
}

/// The beginning of a line, enough to recognise it.
fn shown(line: &str) -> String {
    let mut out: String = line.chars().take(60).flat_map(char::escape_debug).collect();
    if line.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

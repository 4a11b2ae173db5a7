//! Inserting, replacing and removing a line or block in a text, and undoing that. Pure.

use groundplan_protocol::kinds::{Line, MARK};
use regex_lite::Regex;
use serde::{Deserialize, Serialize};

/// A text as a list of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines {
    /// The lines, without their line breaks.
    lines: Vec<String>,
    newline: &'static str,
    /// Whether the last line has a line break.
    ended: bool,
}

/// What was done, so that it can be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Done {
    /// This line was inserted.
    Inserted(String),
    /// A line was replaced by this one.
    Replaced { now: String, before: String },
    /// These lines were removed, each with the line before it.
    Removed(Vec<(Option<String>, String)>),
    /// A block was written between these markers, in place of what was between them.
    Block { begin: String, end: String, before: Option<Vec<String>> },
    /// A block was removed with its markers, from after this line.
    BlockRemoved { after: Option<String>, lines: Vec<String> },
}

/// A block whose end is missing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} begins a block, `{begin}`, and no line ends it; fix it by hand")]
pub(crate) struct Open {
    line: usize,
    begin: String,
}

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        // The file keeps its own line breaks; one that mixes them is written with CRLF throughout.
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let ended = text.is_empty() || text.ends_with('\n');
        Self { lines: text.lines().map(str::to_owned).collect(), newline, ended }
    }

    pub(super) fn text(&self) -> String {
        let mut text = self.lines.join(self.newline);
        if self.ended && !self.lines.is_empty() {
            text.push_str(self.newline);
        }
        text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Inserts or replaces what `line` wants present; returns what was done, if anything.
    pub(super) fn put(&mut self, line: &Line, task: &str) -> Result<Option<Done>, Open> {
        if let Some(block) = &line.block {
            return self.put_block(line, block, task);
        }
        let Some(text) = &line.line else { return Ok(None) };
        // `match` decides first: the line that it finds is replaced even if the wanted text is elsewhere in the file.
        let found = line.matching.as_deref().and_then(regex).and_then(|regex| self.last(&regex));
        match found {
            Some(at) if self.lines[at] == *text => Ok(None),
            Some(at) => {
                let before = std::mem::replace(&mut self.lines[at], text.clone());
                Ok(Some(Done::Replaced { now: text.clone(), before }))
            }
            None if self.lines.contains(text) => Ok(None),
            None => {
                self.insert(self.room(line), [text.clone()]);
                Ok(Some(Done::Inserted(text.clone())))
            }
        }
    }

    /// Removes what `line` wants absent; returns what was done, if anything.
    pub(super) fn take(&mut self, line: &Line, task: &str) -> Result<Option<Done>, Open> {
        if line.block.is_some() {
            let [begin, end] = markers(line, task);
            let Some((from, to)) = self.block(&begin, &end)? else { return Ok(None) };
            let after = from.checked_sub(1).map(|at| self.lines[at].clone());
            return Ok(Some(Done::BlockRemoved { after, lines: self.lines.drain(from..=to).collect() }));
        }
        let regex = line.matching.as_deref().and_then(regex);
        let goes = |text: &String| {
            Some(text) == line.line.as_ref() || regex.as_ref().is_some_and(|regex| regex.is_match(text))
        };
        let mut removed = Vec::new();
        let mut kept: Vec<String> = Vec::with_capacity(self.lines.len());
        for text in self.lines.drain(..) {
            if goes(&text) {
                removed.push((kept.last().cloned(), text));
            } else {
                kept.push(text);
            }
        }
        self.lines = kept;
        Ok((!removed.is_empty()).then_some(Done::Removed(removed)))
    }

    /// Undoes what was done, as far as it is still in the text; whether anything was undone.
    pub(super) fn undo(&mut self, done: &Done) -> bool {
        let at = |lines: &[String], text: &String| lines.iter().rposition(|line| line == text);
        match done {
            Done::Inserted(text) => at(&self.lines, text).map(|at| self.lines.remove(at)).is_some(),
            Done::Replaced { now, before } => match at(&self.lines, now) {
                Some(at) => {
                    self.lines[at].clone_from(before);
                    true
                }
                None => false,
            },
            Done::Removed(removed) => {
                let before = self.lines.len();
                let mut last: Option<(usize, &Option<String>)> = None;
                for (anchor, text) in removed {
                    // An operator, or another task, has put the line back: once is enough.
                    if self.lines.contains(text) {
                        continue;
                    }
                    // Lines that followed each other are restored in their order.
                    let room = match last {
                        Some((at, previous)) if previous == anchor => at + 1,
                        _ => match anchor {
                            Some(anchor) => at(&self.lines, anchor).map_or(self.lines.len(), |at| at + 1),
                            None => 0,
                        },
                    };
                    self.insert(room, [text.clone()]);
                    last = Some((room, anchor));
                }
                self.lines.len() > before
            }
            // A block that was inserted is removed with its markers; one that was there gets its former content.
            Done::Block { begin, end, before } => match self.block(begin, end) {
                Ok(Some((from, to))) => {
                    let lines = before
                        .iter()
                        .flat_map(|lines| [begin].into_iter().chain(lines).chain([end]).cloned().collect::<Vec<_>>());
                    self.lines.splice(from..=to, lines.collect::<Vec<_>>());
                    true
                }
                _ => false,
            },
            Done::BlockRemoved { after, lines } => {
                let there = lines.first().is_some_and(|begin| self.lines.contains(begin));
                if !there {
                    let room = match after {
                        Some(after) => at(&self.lines, after).map_or(self.lines.len(), |at| at + 1),
                        None => 0,
                    };
                    self.insert(room, lines.iter().cloned());
                }
                !there
            }
        }
    }

    fn put_block(&mut self, line: &Line, block: &str, task: &str) -> Result<Option<Done>, Open> {
        let [begin, end] = markers(line, task);
        let wanted: Vec<String> = block.lines().map(str::to_owned).collect();
        if let Some((from, to)) = self.block(&begin, &end)? {
            if self.lines[from + 1..to] == wanted {
                return Ok(None);
            }
            let before: Vec<String> = self.lines.splice(from + 1..to, wanted).collect();
            return Ok(Some(Done::Block { begin, end, before: Some(before) }));
        }
        let lines = [begin.clone()].into_iter().chain(wanted).chain([end.clone()]);
        self.insert(self.room(line), lines.collect::<Vec<_>>());
        Ok(Some(Done::Block { begin, end, before: None }))
    }

    /// The range of a block, markers included.
    fn block(&self, begin: &str, end: &str) -> Result<Option<(usize, usize)>, Open> {
        let Some(from) = self.lines.iter().position(|line| line == begin) else { return Ok(None) };
        match self.lines[from..].iter().position(|line| line == end) {
            Some(length) => Ok(Some((from, from + length))),
            None => Err(Open { line: from + 1, begin: begin.to_owned() }),
        }
    }

    /// The index at which a new line or block is inserted.
    fn room(&self, line: &Line) -> usize {
        let after = line.after.as_deref().and_then(regex).and_then(|regex| self.last(&regex)).map(|at| at + 1);
        let before = || {
            let regex = line.before.as_deref().and_then(regex)?;
            self.lines.iter().position(|line| regex.is_match(line))
        };
        // Where neither matches the line still has to be in the file: at its end.
        after.or_else(before).unwrap_or(self.lines.len())
    }

    fn last(&self, regex: &Regex) -> Option<usize> {
        self.lines.iter().rposition(|line| regex.is_match(line))
    }

    fn insert(&mut self, at: usize, lines: impl IntoIterator<Item = String>) {
        // The last line of a file may lack its line break: it gets one when another line follows.
        self.ended |= at == self.lines.len();
        self.lines.splice(at..at, lines);
    }
}

/// A regular expression, which the planner has checked.
fn regex(text: &str) -> Option<Regex> {
    Regex::new(text).ok()
}

fn markers(line: &Line, task: &str) -> [String; 2] {
    let marker = line.marker.clone().unwrap_or_else(|| format!("# {MARK} groundplan {task}"));
    ["BEGIN", "END"].map(|word| marker.replace(MARK, word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "# top\n#Port 22\nRoot yes\nRoot no\nend\n";

    fn line(params: serde_json::Value) -> Line {
        let mut all = json!({"path": "/x"});
        all.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    /// The text after `line` was applied; checks that applying twice changes nothing more, and that undoing restores it.
    fn check(text: &str, params: serde_json::Value, expect: &str) {
        let line = line(params);
        let mut lines = Lines::of(text);
        let once = |lines: &mut Lines| match line.state.is_present() {
            true => lines.put(&line, "svc.t").unwrap(),
            false => lines.take(&line, "svc.t").unwrap(),
        };
        let done = once(&mut lines);
        assert_eq!(lines.text(), expect);
        assert_eq!(once(&mut lines), None, "twice is once");
        assert_eq!(done.is_none(), text == expect);
        if let Some(done) = done {
            assert!(lines.undo(&done));
            assert_eq!(lines.text().trim_end(), text.trim_end());
        }
    }

    #[test]
    fn a_line_is_put_in_once() {
        check(TEXT, json!({"line": "end"}), TEXT);
        check(TEXT, json!({"line": "new"}), &format!("{TEXT}new\n"));
        check("a\r\nb", json!({"line": "new"}), "a\r\nb\r\nnew\r\n");
        check("", json!({"line": "new"}), "new\n");
        check(TEXT, json!({"line": "new", "after": "^Root"}), &TEXT.replace("no\n", "no\nnew\n"));
        check(TEXT, json!({"line": "new", "before": "^Root"}), &TEXT.replace("Root yes", "new\nRoot yes"));
        check(TEXT, json!({"line": "new", "before": "nowhere"}), &format!("{TEXT}new\n"));
    }

    #[test]
    fn a_line_that_is_found_is_replaced() {
        check(TEXT, json!({"line": "Port 23", "match": "^#?Port "}), &TEXT.replace("#Port 22", "Port 23"));
        check(TEXT, json!({"line": "Root maybe", "match": "^Root "}), &TEXT.replace("Root no", "Root maybe"));
        check(TEXT, json!({"line": "New 1", "match": "^New "}), &format!("{TEXT}New 1\n"));
    }

    #[test]
    fn lines_are_taken_out_and_come_back() {
        check(TEXT, json!({"match": "^Root", "state": "absent"}), "# top\n#Port 22\nend\n");
        check(TEXT, json!({"line": "# top", "state": "absent"}), &TEXT.replace("# top\n", ""));
        check(TEXT, json!({"match": "x", "state": "absent"}), TEXT);
    }

    #[test]
    fn blocks_are_between_markers() {
        let with = "a\n# BEGIN groundplan svc.t\n1\n2\n# END groundplan svc.t\nb\n";
        check("a\nb\n", json!({"block": "1\n2\n", "after": "a"}), with);
        check(with, json!({"block": "1\n3", "after": "a"}), &with.replace("2\n", "3\n"));
        check(with, json!({"block": "", "state": "absent"}), "a\nb\n");
        check("", json!({"block": "x", "marker": "; {mark} us"}), "; BEGIN us\nx\n; END us\n");
        let open =
            Lines::of("a\n# BEGIN groundplan svc.t\n1\n").put(&line(json!({"block": "1"})), "svc.t").unwrap_err();
        assert_eq!(
            open.to_string(),
            "line 2 begins a block, `# BEGIN groundplan svc.t`, and no line ends it; fix it by hand"
        );
    }
}

//! Inserting, replacing and removing a line or block in a text, and undoing that; all other lines stay as they are, with their
//! line breaks. Pure.

use groundplan_protocol::kinds::Line;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};

use crate::host::fs::spot::Spot;

/// A text as a list of lines, each with its own line break; the last may lack it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines(Vec<String>);

/// What was done, so that it can be undone.
///
/// Lines that were taken out are kept with their line breaks; one without is restored with the line break of its neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Done {
    /// This line was inserted.
    Inserted(String),
    /// A line was replaced by this one.
    Replaced { now: String, before: String },
    /// These lines were removed.
    Removed(Vec<Gone>),
    /// A block was written between these markers, in place of what was between them.
    Block { begin: String, end: String, before: Option<Vec<String>> },
    /// A block was removed with its markers, from after the line `after`, before the line `next`, as the line `at` of the text, from 0.
    BlockRemoved {
        after: Option<String>,
        lines: Vec<String>,
        #[serde(default)]
        next: Option<String>,
        #[serde(default)]
        at: usize,
    },
}

/// A line that was removed: the last line before it that stayed, itself, the first line after it that stayed, and which line of the
/// text it was, from 0. What an older agent noted has only the first two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gone(Option<String>, String, #[serde(default)] Option<String>, #[serde(default)] usize);

impl Gone {
    fn spot(&self) -> Spot {
        Spot { before: self.0.clone(), after: self.2.clone(), at: self.3 }
    }
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
        Self(text.split_inclusive('\n').map(str::to_owned).collect())
    }

    pub(super) fn text(&self) -> String {
        self.0.concat()
    }

    /// The last line, if it has no line break.
    pub(super) fn unended(&self) -> Option<String> {
        self.0.last().filter(|row| !row.ends_with('\n')).cloned()
    }

    /// Takes its line break from the last line, if it is that one.
    pub(super) fn unend(&mut self, last: &str) {
        if let Some(row) = self.0.last_mut().filter(|row| bare(row) == last) {
            row.truncate(last.len());
        }
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
            Some(at) if bare(&self.0[at]) == text => Ok(None),
            Some(at) => {
                let before = bare(&self.0[at]).to_owned();
                self.change(at, text);
                Ok(Some(Done::Replaced { now: text.clone(), before }))
            }
            None if self.find(text).is_some() => Ok(None),
            None => {
                self.insert(self.room(line), [text.clone()]);
                Ok(Some(Done::Inserted(text.clone())))
            }
        }
    }

    /// Removes what `line` wants absent; returns what was done, if anything.
    pub(super) fn take(&mut self, line: &Line, task: &str) -> Result<Option<Done>, Open> {
        if line.block.is_some() {
            let [begin, end] = line.marker_lines(task);
            let Some((from, to)) = self.block(&begin, &end)? else { return Ok(None) };
            let Spot { before: after, after: next, at } = Spot::of(from, to + 1, |at| self.mark(at));
            return Ok(Some(Done::BlockRemoved { after, lines: self.0.drain(from..=to).collect(), next, at }));
        }
        let regex = line.matching.as_deref().and_then(regex);
        let goes =
            |text: &str| line.line.as_deref() == Some(text) || regex.as_ref().is_some_and(|regex| regex.is_match(text));
        let mut removed = Vec::new();
        let mut kept: Vec<String> = Vec::with_capacity(self.0.len());
        // Those of which the next line that stays is still to come.
        let mut open = 0;
        for (at, row) in self.0.drain(..).enumerate() {
            if goes(bare(&row)) {
                removed.push(Gone(kept.last().map(|row| bare(row).to_owned()), row, None, at));
                continue;
            }
            removed[open..].iter_mut().for_each(|gone| gone.2 = Some(bare(&row).to_owned()));
            open = removed.len();
            kept.push(row);
        }
        self.0 = kept;
        Ok((!removed.is_empty()).then_some(Done::Removed(removed)))
    }

    /// Undoes what was done, as far as it is still in the text; whether anything was undone.
    pub(super) fn undo(&mut self, done: &Done) -> bool {
        match done {
            Done::Inserted(text) => self.find(text).map(|at| self.0.remove(at)).is_some(),
            Done::Replaced { now, before } => {
                let at = self.find(now);
                at.inspect(|at| self.change(*at, before)).is_some()
            }
            Done::Removed(removed) => self.restore(removed),
            // A block that was inserted is removed with its markers; one that was there gets its former content.
            Done::Block { begin, end, before } => match self.block(begin, end) {
                Ok(Some((from, to))) => {
                    match before {
                        Some(before) => self.fill(from, to, before.iter().cloned()),
                        None => _ = self.0.drain(from..=to),
                    }
                    true
                }
                _ => false,
            },
            Done::BlockRemoved { after, lines, next, at } => {
                let is_there = lines.first().is_some_and(|begin| self.find(bare(begin)).is_some());
                if !is_there {
                    let spot = Spot { before: after.clone(), after: next.clone(), at: *at };
                    self.insert(self.place(&spot), lines.iter().cloned());
                }
                !is_there
            }
        }
    }

    /// Puts lines back, each between the lines that were around it; whether any was missing.
    fn restore(&mut self, removed: &[Gone]) -> bool {
        // An operator, or another task, has put the line back: it is there already.
        let is_missing = |gone: &&Gone| self.find(bare(&gone.1)).is_none();
        let missing: Vec<&Gone> = removed.iter().filter(is_missing).collect();
        let mut last: Option<(usize, &Gone)> = None;
        for gone in &missing {
            // Lines that followed each other are restored in their order.
            let room = match last {
                Some((at, previous))
                    if (&previous.0, &previous.2) == (&gone.0, &gone.2) && gone.3 <= previous.3 + 1 =>
                {
                    at + 1
                }
                _ => self.place(&gone.spot()),
            };
            self.insert(room, [gone.1.clone()]);
            last = Some((room, gone));
        }
        !missing.is_empty()
    }

    fn put_block(&mut self, line: &Line, block: &str, task: &str) -> Result<Option<Done>, Open> {
        let [begin, end] = line.marker_lines(task);
        if let Some((from, to)) = self.block(&begin, &end)? {
            if self.0[from + 1..to].iter().map(|row| bare(row)).eq(block.lines()) {
                return Ok(None);
            }
            let before = self.0[from + 1..to].to_vec();
            self.fill(from, to, block.lines().map(str::to_owned));
            return Ok(Some(Done::Block { begin, end, before: Some(before) }));
        }
        let wanted = block.lines().map(str::to_owned);
        let lines: Vec<String> = [begin.clone()].into_iter().chain(wanted).chain([end.clone()]).collect();
        self.insert(self.room(line), lines);
        Ok(Some(Done::Block { begin, end, before: None }))
    }

    /// Replaces what is between two markers.
    fn fill(&mut self, from: usize, to: usize, lines: impl IntoIterator<Item = String>) {
        self.0.drain(from + 1..to);
        self.insert(from + 1, lines);
    }

    /// The range of a block, markers included.
    fn block(&self, begin: &str, end: &str) -> Result<Option<(usize, usize)>, Open> {
        let Some(from) = self.0.iter().position(|row| bare(row) == begin) else { return Ok(None) };
        match self.0[from..].iter().position(|row| bare(row) == end) {
            Some(length) => Ok(Some((from, from + length))),
            None => Err(Open { line: from + 1, begin: begin.to_owned() }),
        }
    }

    /// The index at which a new line or block is inserted.
    fn room(&self, line: &Line) -> usize {
        let after = line.after.as_deref().and_then(regex).and_then(|regex| self.last(&regex)).map(|at| at + 1);
        let before = || {
            let regex = line.before.as_deref().and_then(regex)?;
            self.0.iter().position(|row| regex.is_match(bare(row)))
        };
        // Where neither matches the line still has to be in the file: at its end.
        after.or_else(before).unwrap_or(self.0.len())
    }

    /// The index at which a line was, or else the end.
    fn place(&self, spot: &Spot) -> usize {
        spot.find(0..=self.0.len(), |at| self.mark(at)).unwrap_or(self.0.len())
    }

    /// A line by its number, without its line break.
    fn mark(&self, at: usize) -> Option<String> {
        self.0.get(at).map(|row| bare(row).to_owned())
    }

    fn last(&self, regex: &Regex) -> Option<usize> {
        self.0.iter().rposition(|row| regex.is_match(bare(row)))
    }

    /// The last line with that text.
    fn find(&self, text: &str) -> Option<usize> {
        self.0.iter().rposition(|row| bare(row) == text)
    }

    /// Gives a line another text; its line break stays.
    fn change(&mut self, at: usize, text: &str) {
        let row = &mut self.0[at];
        let length = bare(row).len();
        row.replace_range(..length, text);
    }

    /// Inserts lines; one without a line break gets that of the line before it, or else of the first that has one.
    fn insert(&mut self, at: usize, lines: impl IntoIterator<Item = String>) {
        let of = |row: &String| row.strip_prefix(bare(row)).filter(|end| !end.is_empty()).map(str::to_owned);
        let end = self.0[..at].iter().rev().chain(&self.0[at..]).find_map(of).unwrap_or_else(|| "\n".to_owned());
        // The last line of a file may lack its line break: it gets one when another line follows.
        if let Some(before) = at.checked_sub(1).and_then(|at| self.0.get_mut(at)).filter(|row| !row.ends_with('\n')) {
            before.push_str(&end);
        }
        let ended = |mut row: String| {
            if !row.ends_with('\n') {
                row.push_str(&end);
            }
            row
        };
        self.0.splice(at..at, lines.into_iter().map(ended).collect::<Vec<_>>());
    }
}

/// A line without its line break.
fn bare(row: &str) -> &str {
    row.strip_suffix('\n').map_or(row, |row| row.strip_suffix('\r').unwrap_or(row))
}

/// A regular expression, which the planner has checked.
fn regex(text: &str) -> Option<Regex> {
    Regex::new(text).ok()
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

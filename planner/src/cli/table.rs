//! Aligned columns, and times as people say them. Readable without colour.

use super::output::Style;

/// A cell: text, and how it is set off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell(String, Style);

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(text.into(), Style::Plain)
    }
}

impl Cell {
    /// Text in a style.
    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self(text.into(), style)
    }
}

/// Rows below a heading.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|h| Cell::styled(*h, Style::Bold)).collect()] }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text: two spaces between columns, none at the end of a line.
    pub(super) fn render(&self, color: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| self.rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.0.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            let last = row.iter().rposition(|cell| !cell.0.is_empty());
            for (c, cell) in row.iter().enumerate().take_while(|(c, _)| last.is_some_and(|last| *c <= last)) {
                line.push_str(&cell.1.paint(&cell.0, color));
                if Some(c) != last {
                    let fill = widths[c] - cell.0.chars().count() + 2;
                    line.extend(std::iter::repeat_n(' ', fill));
                }
            }
            out.push_str(&line);
            out.push('\n');
        }
        out
    }
}

/// A moment as seen from `now`, both in milliseconds since the Unix epoch: `just now`, `12 s ago`, `3 h ago`.
pub(super) fn ago(then_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0 => "just now".to_owned(),
        1..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A span of time: `84 ms`, `1.9 s`, `12 s`, `3 min 20 s`.
pub(crate) fn took(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..120_000 => format!("{} s", ms / 1000),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// A number of things: `1 node`, `3 nodes`.
pub(crate) fn count(n: usize, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

/// The first digits of a commit id, enough for people.
pub(crate) fn short(commit: &str) -> &str {
    commit.get(..9).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_where_they_end() {
        let mut table = Table::new(&["NODE", "STATE", ""]);
        table.row(["a".into(), Cell::styled("online", Style::Good), "x".into()]);
        table.row(["longer".into(), "off".into(), "".into()]);
        assert_eq!(table.render(false), "NODE    STATE\na       online  x\nlonger  off\n");
        assert!(table.render(true).contains("\x1b[32monline\x1b[0m  x"));
    }

    #[test]
    fn times_read_as_people_say_them() {
        for (then, words) in [(0, "10 days ago"), (864_000_000 - 12_300, "12 s ago"), (864_000_001, "just now")] {
            assert_eq!(ago(then, 864_000_000), words);
        }
        assert_eq!([84, 1940, 12_500, 200_000].map(took), ["84 ms", "1.9 s", "12 s", "3 min 20 s"]);
    }
}

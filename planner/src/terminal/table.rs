//! Aligned columns, readable without colour.

use super::Style;

/// One field of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell(String, Style);

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(text.into(), Style::Plain)
    }
}

impl Cell {
    /// A cell in a colour.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self(text.into(), style)
    }
}

/// Rows of cells; the first is the heading. Rows may be of different length.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows yet.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|h| Cell::styled(*h, Style::Bold)).collect()] }
    }

    /// Adds a row below the others.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text: two spaces between columns, none at the end of a line. Widths count characters, not escape sequences.
    pub(crate) fn render(&self, color: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| self.rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.0.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            // Padding would leave trailing spaces after the last cell with text: columns end there.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let mut table = Table::new(&["NODE", "STATE", ""]);
        table.row(["a".into(), Cell::styled("online", Style::Good), "x".into()]);
        table.row(["longer".into(), "off".into(), "".into()]);
        assert_eq!(table.render(false), "NODE    STATE\na       online  x\nlonger  off\n");
        assert!(table.render(true).contains("\u{fdd0}[32monline\u{fdd0}[0m  x"));
    }
}

//! Text pictures: a grid of characters, each with its style. A pipe gets the same characters without colours.

use anstyle::{Ansi256Color, Color, Style};
use unicode_width::UnicodeWidthChar as _;

use super::ellipsis::{shortened, shortened_name};
use crate::text::escape_control;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub columns: usize,
    pub rows: usize,
}

pub const WIDTH_MIN: usize = 20;
pub(crate) const CHARTS_MAX: usize = 3;

#[derive(Debug)]
pub(crate) struct Screen {
    width: usize,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    /// `None` is the right half of a wide character.
    shown: Option<char>,
    style: Style,
}

pub(crate) const PLAIN: Style = Style::new();
pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();

pub(crate) const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
pub(crate) const HOLE: char = '╱';

pub(crate) fn colour(direction: &str) -> Style {
    let code = match direction {
        "rx" => 32,
        "tx" => 36,
        _ => 169,
    };
    Style::new().fg_color(Some(Color::Ansi256(Ansi256Color(code))))
}

pub(crate) fn severity_colour(severity: &str) -> Style {
    let code = if severity == "critical" { 202 } else { 214 };
    Style::new().fg_color(Some(Color::Ansi256(Ansi256Color(code))))
}

impl Screen {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, rows: Vec::new() }
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn is_free(&self, row: usize, column: usize) -> bool {
        self.rows.get(row).and_then(|row| row.get(column)).is_some_and(|cell| cell.shown == Some(' '))
    }

    pub(crate) fn add_row(&mut self) -> usize {
        self.rows.push(vec![Cell { shown: Some(' '), style: PLAIN }; self.width]);
        self.rows.len() - 1
    }

    pub(crate) fn put(&mut self, row: usize, column: usize, shown: char, style: Style) {
        if let Some(cell) = self.rows.get_mut(row).and_then(|row| row.get_mut(column)) {
            *cell = Cell { shown: Some(shown), style };
        }
    }

    /// Returns the column after the text; what does not fit is left out.
    pub(crate) fn text(&mut self, row: usize, mut column: usize, text: &str, style: Style) -> usize {
        for c in escape_control(text).chars() {
            let width = c.width().unwrap_or(0);
            if width == 0 || column + width > self.width {
                continue;
            }
            self.put(row, column, c, style);
            if width == 2
                && let Some(cell) = self.rows.get_mut(row).and_then(|row| row.get_mut(column + 1))
            {
                cell.shown = None;
            }
            column += width;
        }
        column
    }

    pub(crate) fn text_to(&mut self, row: usize, end: usize, text: &str, style: Style) {
        self.text(row, end.saturating_sub(width(text)), text, style);
    }

    pub(crate) fn flow(&mut self, indent: usize, parts: &[Vec<(String, Style)>]) {
        let mut row = None;
        let mut column = indent;
        for part in parts {
            let length: usize = part.iter().map(|(text, _)| width(text)).sum();
            if row.is_none() || column + length > self.width && column > indent {
                row = Some(self.add_row());
                column = indent;
            }
            for (text, style) in part {
                column = self.text(row.unwrap_or(0), column, text, *style);
            }
            column += 3;
        }
    }

    pub(crate) fn wrap(&mut self, text: &str, style: Style) {
        let mut row = None;
        let mut column = 0;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let word = &cut_name(word, self.width);
            if row.is_none() || column + width(word) > self.width {
                row = Some(self.add_row());
                column = 0;
            }
            column = self.text(row.unwrap_or(0), column, word, style) + 1;
        }
    }

    pub(crate) fn print(&self) -> String {
        let mut out = String::new();
        for row in &self.rows {
            let end = row.iter().rposition(|cell| cell.shown != Some(' ')).map_or(0, |last| last + 1);
            let mut style = PLAIN;
            for cell in &row[..end] {
                let Some(shown) = cell.shown else { continue };
                if cell.style != style && shown != ' ' {
                    out.push_str(&format!("{style:#}{}", cell.style));
                    style = cell.style;
                }
                out.push(shown);
            }
            out.push_str(&format!("{style:#}\n"));
        }
        out
    }
}

pub(crate) fn width(text: &str) -> usize {
    escape_control(text).chars().map(|c| c.width().unwrap_or(0)).sum()
}

pub(crate) fn cut(text: &str, columns: usize) -> String {
    shortened(&escape_control(text), columns as f64, |text| width(text) as f64)
}

pub(crate) fn cut_name(name: &str, columns: usize) -> String {
    shortened_name(&escape_control(name), columns as f64, |text| width(text) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_no_more_columns_than_the_terminal_also_with_wide_characters() {
        let mut screen = Screen::new(6);
        let row = screen.add_row();
        assert_eq!(screen.text(row, 1, "東京都庁", PLAIN), 5);
        assert_eq!(screen.print(), " 東京\n");
        assert_eq!(cut("東京都庁", 5), "東京…");
        assert_eq!(cut_name("東京都庁", 5), "東…庁");
        assert_eq!(cut("eth0", 4), "eth0");
    }

    #[test]
    fn a_name_that_is_cut_keeps_both_ends() {
        let names = ["gw-042 enp1s0f0np0.100 rx", "gw-042 enp1s0f0np0.200 rx", "gw-042 enp1s0f0np0.200 tx"];
        assert_eq!(names.map(|name| cut_name(name, 16)), ["gw-042 e….100 rx", "gw-042 e….200 rx", "gw-042 e….200 tx"]);
        for columns in 0..26 {
            assert!(width(&cut_name(names[0], columns)) <= columns.max(1), "{columns}");
        }
        assert_eq!([1, 2, 3].map(|columns| cut_name("abcdef", columns)), ["…", "a…", "a…f"]);
    }

    #[test]
    fn styles_begin_and_end_with_their_text() {
        let mut screen = Screen::new(9);
        let row = screen.add_row();
        let end = screen.text(row, 0, "a", BOLD);
        screen.text(row, end + 1, "b", PLAIN);
        assert_eq!(screen.print(), "\u{1b}[1ma\u{1b}[0m b\n".replace("\u{1b}[0m b", " \u{1b}[0mb"));
    }
}

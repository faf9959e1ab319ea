//! Lines of a text report: wrapped to the width, indented, foreign text made safe. It knows nothing of reports.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::Style;
use crate::{
    live::span::{Line, Style as Ink},
    render::words::plain,
    table,
};

/// Prose wider than this is hard to read.
const PROSE: usize = 110;
/// Where the value of a pair begins.
const PAIR: usize = 22;

/// The text so far.
pub(super) struct Paper {
    pub(super) style: Style,
    out: String,
}

impl Paper {
    pub(super) fn new(style: Style) -> Self {
        Self { style: Style { width: style.width.max(40), ..style }, out: String::new() }
    }

    pub(super) fn done(self) -> String {
        self.out
    }

    /// Finished lines.
    pub(super) fn raw(&mut self, text: String) {
        self.out += &text;
    }

    /// One line; what is too wide is broken between words, and styles are kept.
    pub(super) fn line(&mut self, line: &Line) {
        if line.width() <= self.style.width {
            self.out += line.render(self.style.colour).trim_end();
            self.out.push('\n');
        } else {
            let text = line.render(false);
            let indent = text.len() - text.trim_start().len();
            self.words(indent, Ink::Plain, text.trim_start());
        }
    }

    pub(super) fn heading(&mut self, title: &str) {
        self.out.push('\n');
        self.line(&Line::new().with(Ink::Bold, title.to_uppercase()));
    }

    /// A paragraph.
    pub(super) fn words(&mut self, indent: usize, ink: Ink, text: &str) {
        self.block(&" ".repeat(indent), indent, ink, text);
    }

    /// A paragraph with a sign before it.
    pub(super) fn item(&mut self, sign: &str, ink: Ink, text: &str) {
        self.block(&format!("  {sign} "), 4, ink, text);
    }

    /// A term and its text.
    pub(super) fn pair(&mut self, term: &str, text: &str) {
        let stem = format!("  {term} ");
        self.block(&format!("{stem}{}", " ".repeat(PAIR.saturating_sub(stem.width()))), PAIR, Ink::Plain, text);
    }

    /// A paragraph behind a stem; on a narrow terminal it begins below it.
    pub(super) fn hanging(&mut self, stem: &str, column: usize, ink: Ink, text: &str) {
        if self.style.width < column + 30 {
            self.block(stem, 4, Ink::Plain, "");
            self.block("    ", 4, ink, text);
        } else {
            self.block(&format!("{stem}{}", " ".repeat(column.saturating_sub(stem.width()))), column, ink, text);
        }
    }

    fn block(&mut self, stem: &str, column: usize, ink: Ink, text: &str) {
        if text.is_empty() && stem.trim().is_empty() {
            return;
        }
        let width = self.style.width.min(PROSE + column);
        for (index, part) in wrapped(&plain(text), width.saturating_sub(column).max(10)).into_iter().enumerate() {
            let stem = if index == 0 { stem.to_owned() } else { " ".repeat(column) };
            let line = Line::new().with(Ink::Plain, stem).with(ink, part);
            self.out += line.render(self.style.colour).trim_end();
            self.out.push('\n');
        }
    }

    /// Rows below a heading; cells must be safe already.
    pub(super) fn table(&mut self, heading: &[&str], rows: &[Vec<String>]) {
        self.out += &table::table(self.style.width, heading, rows);
    }
}

/// Breaks between words, and within a word that is wider than the line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| line.width());
        if last > 0 && last + 1 + word.width() <= width {
            let line = lines.last_mut().expect("there is always a line");
            line.push(' ');
            line.push_str(word);
            continue;
        }
        if last > 0 {
            lines.push(String::new());
        }
        for c in word.chars() {
            let line = lines.last().map_or(0, |line| line.width());
            if line + c.width().unwrap_or(0) > width {
                lines.push(String::new());
            }
            lines.last_mut().expect("there is always a line").push(c);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_wrap_and_long_ones_break() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrapped("日本語 x", 4), ["日本", "語 x"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}

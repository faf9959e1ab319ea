//! Styled text that knows its width: cut to a column, written plain or with ANSI colours. It decides no layout.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Plain,
    /// Headings, names.
    Bold,
    /// Of less weight.
    Dim,
    /// Harm in force, failure.
    Red,
    /// Well.
    Green,
    /// Under way, doubtful.
    Yellow,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Red => "\x1b[31m",
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
        }
    }
}

/// One line: pieces of text with their styles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line(Vec<(Style, String)>);

impl Line {
    /// An empty line.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds text. Control characters, which foreign messages may hold, become spaces.
    #[must_use]
    pub(crate) fn with(mut self, style: Style, text: impl AsRef<str>) -> Self {
        let text: String = text.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if !text.is_empty() {
            self.0.push((style, text));
        }
        self
    }

    /// Adds spaces up to a column.
    #[must_use]
    pub(crate) fn pad(self, column: usize) -> Self {
        let missing = column.saturating_sub(self.width());
        self.with(Style::Plain, " ".repeat(missing))
    }

    /// Columns it takes.
    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    /// At most `width` columns; what is cut off is marked by `…`.
    pub(crate) fn cut(self, width: usize) -> Self {
        if self.width() <= width {
            return self;
        }
        let mut room = width.saturating_sub(1);
        let mut kept = Self::new();
        for (style, text) in self.0 {
            let mut piece = String::new();
            for c in text.chars() {
                let w = c.width().unwrap_or(0);
                if w > room {
                    kept.0.push((style, format!("{piece}…")));
                    return kept;
                }
                room -= w;
                piece.push(c);
            }
            kept.0.push((style, piece));
        }
        kept
    }

    /// The text, coloured or not.
    pub(crate) fn render(&self, colour: bool) -> String {
        let piece = |(style, text): &(Style, String)| {
            if colour && *style != Style::Plain { format!("{}{text}\x1b[0m", style.code()) } else { text.clone() }
        };
        self.0.iter().map(piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_by_columns_not_by_characters() {
        let line = Line::new().with(Style::Bold, "日本").with(Style::Plain, "語 text");
        assert_eq!(line.width(), 11);
        assert_eq!(line.clone().cut(6).render(false), "日本…");
        assert_eq!(line.clone().cut(11), line);
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        let line = Line::new().with(Style::Red, "a\x1b[2Jb\nc");
        assert_eq!(line.render(true), "\x1b[31ma [2Jb c\x1b[0m");
    }
}

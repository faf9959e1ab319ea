//! A region of a terminal that is drawn over again and again, in place. It leaves the last frame and the cursor behind it.

use std::io::{self, Write};

use super::span::Line;

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// The region. Dropping it shows the cursor again, whatever happened.
pub(crate) struct Screen<W: Write> {
    to: W,
    colour: bool,
    /// Widths of the lines that are on the terminal now.
    drawn: Vec<usize>,
    hidden: bool,
}

impl<W: Write> Screen<W> {
    /// Draws below the cursor's line.
    pub(crate) fn new(to: W, colour: bool) -> Self {
        Self { to, colour, drawn: Vec::new(), hidden: false }
    }

    /// Replaces the last frame. Lines must not be wider than `width`.
    pub(crate) fn draw(&mut self, lines: &[Line], width: usize) -> io::Result<()> {
        let mut frame = String::new();
        if !self.hidden {
            frame.push_str(HIDE_CURSOR);
            self.hidden = true;
        }
        frame.push_str(&self.back(width));
        for line in lines {
            frame.push_str(&line.render(self.colour));
            frame.push_str("\x1b[K\n");
        }
        frame.push_str("\x1b[J");
        self.drawn = lines.iter().map(Line::width).collect();
        // One write per frame: terminals then seldom show half of it.
        self.to.write_all(frame.as_bytes())?;
        self.to.flush()
    }

    /// To the first line of the last frame. A terminal that became narrower has wrapped its lines.
    fn back(&self, width: usize) -> String {
        let rows: usize = self.drawn.iter().map(|w| w.div_ceil(width.max(1)).max(1)).sum();
        if rows == 0 { "\r".to_owned() } else { format!("\r\x1b[{rows}A") }
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        if self.hidden {
            let _ = self.to.write_all(SHOW_CURSOR.as_bytes());
            let _ = self.to.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::span::Style;

    #[test]
    fn frames_replace_each_other_and_the_cursor_comes_back() {
        let mut bytes = Vec::new();
        let line = |text: &str| Line::new().with(Style::Plain, text);
        {
            let mut screen = Screen::new(&mut bytes, false);
            screen.draw(&[line("0123456789"), line("b")], 10).unwrap();
            screen.draw(&[line("c")], 5).unwrap();
        }
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "\x1b[?25l\r0123456789\x1b[K\nb\x1b[K\n\x1b[J\r\x1b[3Ac\x1b[K\n\x1b[J\x1b[?25h");
    }
}

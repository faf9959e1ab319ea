//! Writes calendars (RFC 5545, 3.1): lines folded and ended as the standard wants it, text escaped. What a text says cannot
//! become a line of its own.

use chrono::DateTime;

/// Longest line, in bytes without its end.
const LONGEST: usize = 75;

/// A calendar that is being written.
#[derive(Debug, Default)]
pub struct Writer(String);

impl Writer {
    /// Begins a component.
    pub fn begin(&mut self, component: &'static str) {
        self.line(&format!("BEGIN:{component}"));
    }

    /// Ends it.
    pub fn end(&mut self, component: &'static str) {
        self.line(&format!("END:{component}"));
    }

    /// A property whose value is a constant word.
    pub fn word(&mut self, name: &'static str, value: &'static str) {
        self.line(&format!("{name}:{value}"));
    }

    /// A property whose value is text of anybody.
    pub fn text(&mut self, name: &'static str, value: &str) {
        let mut line = format!("{name}:");
        for c in value.replace("\r\n", "\n").chars() {
            match c {
                '\\' | ';' | ',' => line.extend(['\\', c]),
                '\n' => line.push_str("\\n"),
                c if super::value::steers(c) => line.push(' '),
                c => line.push(c),
            }
        }
        self.line(&line);
    }

    /// A property whose value is an instant, nanoseconds since the Unix epoch.
    pub fn instant(&mut self, name: &'static str, at_ns: i64) {
        self.line(&format!("{name}:{}", DateTime::from_timestamp_nanos(at_ns).format("%Y%m%dT%H%M%SZ")));
    }

    /// What was written.
    pub fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, line: &str) {
        let mut room = LONGEST;
        for c in line.chars() {
            if c.len_utf8() > room {
                self.0.push_str("\r\n ");
                room = LONGEST - 1;
            }
            room -= c.len_utf8();
            self.0.push(c);
        }
        self.0.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &str) -> String {
        let mut writer = Writer::default();
        writer.text("SUMMARY", value);
        writer.finish()
    }

    #[test]
    fn text_never_becomes_a_line_of_its_own() {
        for hostile in
            ["a\r\nBEGIN:VEVENT", "a\nX:y", "a\rX:y", "a\u{85}X:y", "a\u{2028}X:y", "\0\u{1b}[0m", "a\u{b}b\u{c}c"]
        {
            let text = written(hostile);
            assert_eq!(text.matches(['\r', '\n', '\u{85}', '\u{2028}', '\u{b}', '\u{c}']).count(), 2, "{text:?}");
            assert!(text.starts_with("SUMMARY:") && text.ends_with("\r\n"));
        }
        assert_eq!(written("a,b;c\\d\ne\r\nf"), "SUMMARY:a\\,b\\;c\\\\d\\ne\\nf\r\n");
    }

    #[test]
    fn lines_are_folded_at_75_bytes_and_between_letters() {
        let value = "Größe 🚀 ".repeat(40);
        let text = written(&value);
        assert!(text.split("\r\n").all(|line| line.len() <= LONGEST), "{text}");
        assert!(text.matches("\r\n ").count() > 5);
        assert_eq!(text.replace("\r\n ", ""), format!("SUMMARY:{value}\r\n"));
        assert_eq!(written(&"x".repeat(LONGEST - 8)).matches("\r\n").count(), 1, "just fits");
        assert_eq!(written(&"x".repeat(LONGEST - 7)).matches("\r\n").count(), 2);
    }
}

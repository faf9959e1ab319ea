//! Content lines of a calendar (RFC 5545, 3.1): unfolded, split into name, parameters and value, each with its place. It
//! gives no meaning to names.

use std::ops::Range;

use crate::diagnostic::{Findings, Span};

/// One content line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its name in capitals.
    pub(super) name: String,
    /// Names of its parameters in capitals, with their values; of several values the commas are kept.
    params: Params,
    text: String,
    value: usize,
    /// From which byte of the text on each line of the file has it.
    pieces: Vec<Piece>,
}

type Params = Vec<(String, String)>;

/// A part of a content line that stands on one line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    byte: usize,
    line: usize,
    /// Column of the part's first character.
    column: usize,
}

impl Line {
    /// What stands behind the colon.
    pub(super) fn value(&self) -> &str {
        &self.text[self.value..]
    }

    /// The value of a parameter.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value cut at commas, each part with its place in the value.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        cut(self.value(), ',')
    }

    /// Where the name stands.
    pub(super) fn span(&self) -> Span {
        self.place(0..self.name.len())
    }

    /// Where the value stands.
    pub(super) fn value_span(&self) -> Span {
        self.within(0..self.value().len())
    }

    /// Where a part of the value stands.
    pub(super) fn within(&self, part: Range<usize>) -> Span {
        self.place(self.value + part.start..self.value + part.end)
    }

    fn place(&self, bytes: Range<usize>) -> Span {
        let piece = self.pieces.iter().rev().find(|piece| piece.byte <= bytes.start).or(self.pieces.first());
        let Some(piece) = piece else { return Span::default() };
        let before = self.text.get(piece.byte..bytes.start).unwrap_or_default().chars().count();
        let width = self.text.get(bytes).unwrap_or_default().chars().count();
        Span { line: piece.line, column: piece.column + before, width: width.max(1) }
    }
}

/// A text cut at a character, each part with its place.
pub(super) fn cut(text: &str, at: char) -> impl Iterator<Item = (&str, Range<usize>)> {
    let mut from = 0;
    text.split(at).map(move |part| {
        let place = from..from + part.len();
        from = place.end + at.len_utf8();
        (part, place)
    })
}

/// The content lines of a text, in order. What is none is told and left out.
pub(super) fn lines(text: &str, findings: &mut Findings<'_>) -> Vec<Line> {
    let mut all: Vec<(String, Vec<Piece>)> = Vec::new();
    for (n, physical) in text.split(['\n', '\r']).enumerate() {
        let line = n + 1;
        match (physical.strip_prefix([' ', '\t']), all.last_mut()) {
            (Some(more), Some((text, pieces))) => {
                pieces.push(Piece { byte: text.len(), line, column: 2 });
                text.push_str(more);
            }
            _ if physical.trim().is_empty() => {}
            _ => all.push((physical.to_owned(), vec![Piece { byte: 0, line, column: 1 }])),
        }
    }
    let mut found = Vec::with_capacity(all.len());
    for (text, pieces) in all {
        let width = text.chars().count();
        let span = Span { line: pieces[0].line, column: 1, width };
        match split(&text) {
            Some((name, params, value)) => found.push(Line { name, params, text, value, pieces }),
            None => findings.error(
                span,
                "this is no line of a calendar",
                "a line is NAME:VALUE; what belongs to the line before begins with a blank",
            ),
        }
    }
    found
}

/// Name, parameters, and where the value begins.
fn split(text: &str) -> Option<(String, Params, usize)> {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let mut at = text.find([';', ':'])?;
    let name = text[..at].to_ascii_uppercase();
    let mut params = Vec::new();
    while text[at..].starts_with(';') {
        let equals = at + text[at..].find('=')?;
        let param = text[at + 1..equals].to_ascii_uppercase();
        let (value, end) = values(text, equals + 1)?;
        if !word(&param) {
            return None;
        }
        params.push((param, value));
        at = end;
    }
    (word(&name) && text[at..].starts_with(':')).then_some((name, params, at + 1))
}

/// The values of a parameter without their quotes, and where they end.
fn values(text: &str, mut at: usize) -> Option<(String, usize)> {
    let mut all = String::new();
    loop {
        if let Some(quoted) = text[at..].strip_prefix('"') {
            let end = quoted.find('"')?;
            all.push_str(&quoted[..end]);
            at += end + 2;
        } else {
            let end = at + text[at..].find([';', ':', ','])?;
            all.push_str(&text[at..end]);
            at = end;
        }
        if !text[at..].starts_with(',') {
            return Some((all, at));
        }
        all.push(',');
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Line>, usize) {
        let mut findings = Findings::new("c.ics", text);
        let lines = lines(text, &mut findings);
        (lines, findings.errors())
    }

    #[test]
    fn folded_lines_are_one_and_know_where_each_part_stands() {
        let (lines, errors) =
            read("SUMMARY;LANGUAGE=en:Jahres\n wechsel\n\t: ruhig\nRRULE:FREQ=YEARLY;BY\n MONTH=12\n\n");
        assert_eq!((lines.len(), errors), (2, 0));
        assert_eq!((lines[0].value(), lines[0].param("LANGUAGE")), ("Jahreswechsel: ruhig", Some("en")));
        let month = lines[1].value().find("MONTH").unwrap();
        assert_eq!(lines[1].within(month..month + 8), Span { line: 5, column: 2, width: 8 });
        assert_eq!(lines[1].within(0..11), Span { line: 4, column: 7, width: 11 });
    }

    #[test]
    fn parameters_may_be_quoted_and_hold_what_ends_others() {
        let (lines, _) = read("attendee;cn=\"a;b:c\",d;tzid=Europe/London:x;y:z\n");
        assert_eq!((lines[0].name.as_str(), lines[0].value()), ("ATTENDEE", "x;y:z"));
        assert_eq!((lines[0].param("CN"), lines[0].param("TZID")), (Some("a;b:c,d"), Some("Europe/London")));
    }

    #[test]
    fn what_is_no_line_is_told() {
        for bad in ["hello", ":x", "A B:x", "A;:x", "A;B:x", "A;B=\"x:y", "A;B=x", "A;B=\"x\"y:z", "é:x", "A;é=1:x"] {
            assert_eq!(read(bad).1, 1, "{bad}");
        }
        assert_eq!(read("a line\nthat was broken\nby hand: no").1, 3);
    }
}

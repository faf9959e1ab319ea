//! What is wrong with a source text and where, ready to be shown to a person or sent as data. It never decides what is wrong.

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is taken, but probably does not mean what its author thinks.
    Warning,
}

/// A place in a source text. The default is the very beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters; at least 1, and within the line.
    pub width: usize,
}

impl Default for Span {
    fn default() -> Self {
        Self { line: 1, column: 1, width: 1 }
    }
}

/// One thing that is wrong, with its place and its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Name of the file, for people.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line; of a very long one the part around `column`.
    pub source_line: String,
    /// Characters of `source_line` before the place.
    pub caret: usize,
    /// Characters to underline, at least 1.
    pub width: usize,
    /// What is wrong: a lower-case fragment that names the object.
    pub message: String,
    /// What to do instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// `file:line:column: error: message`, the line, a caret below the place, and the help; no newline at the end.
    pub fn render(&self) -> String {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut text = format!("{}:{}:{}: {word}: {}", self.file, self.line, self.column, self.message);
        if !self.source_line.trim().is_empty() {
            // Tabs are kept in the line of carets, so that both lines are indented alike in any terminal.
            let indent: String =
                self.source_line.chars().take(self.caret).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            text.push_str(&format!("\n    {}\n    {indent}{}", self.source_line, "^".repeat(self.width)));
        }
        if let Some(help) = &self.help {
            text.push_str(&format!("\nhelp: {help}"));
        }
        harmless(&text)
    }
}

/// Whether a character turns writing round (Unicode's property `Bidi_Control`, UAX #9), or is there and not seen (U+FEFF).
pub fn turns(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}')
}

/// Foreign text that may have several lines, made to steer no terminal and turn no writing round; each such character still
/// takes one place.
pub fn harmless(text: &str) -> String {
    let steers = |c: char| turns(c) || (c.is_control() && !matches!(c, '\n' | '\t'));
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// More errors than this of one text are counted, not listed: nobody reads them.
const MOST_LISTED: usize = 100;
/// Of longer lines only a part is shown.
const LONGEST_LINE: usize = 160;

/// Collects what is wrong with one source text.
#[derive(Debug)]
pub struct Findings<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
    list: Vec<Diagnostic>,
    errors: usize,
    left_out: usize,
}

impl<'a> Findings<'a> {
    /// For this text, with `\n` or `\r` between lines.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, lines: text.split(['\n', '\r']).collect(), list: Vec::new(), errors: 0, left_out: 0 }
    }

    /// An empty collection for the same text, to try something out.
    #[must_use]
    pub fn scratch(&self) -> Self {
        Self { file: self.file, lines: self.lines.clone(), list: Vec::new(), errors: 0, left_out: 0 }
    }

    /// Takes over everything a scratch collection found.
    pub fn absorb(&mut self, other: Findings<'_>) {
        self.errors += other.errors;
        self.left_out += other.left_out;
        self.list.extend(other.list);
    }

    /// Notes an error; an empty `help` is none.
    pub fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.errors += 1;
        self.note(Severity::Error, span, message.into(), help.into());
    }

    /// Notes a warning; an empty `help` is none.
    pub fn warning(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.note(Severity::Warning, span, message.into(), help.into());
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Everything, in the order of the text: `Err` when there is an error, else the warnings.
    pub fn finish(mut self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        self.list.sort_by_key(|d| (d.line, d.column));
        if self.left_out > 0 {
            let last = self.list.last().map_or_else(Span::default, |d| Span { line: d.line, ..Span::default() });
            let message = format!("{} more are not listed", self.left_out);
            self.left_out = 0;
            let closing = self.diagnostic(Severity::Error, last, message, "mend these first".into());
            self.list.push(closing);
        }
        if self.errors == 0 { Ok(self.list) } else { Err(self.list) }
    }

    fn note(&mut self, severity: Severity, span: Span, message: String, help: String) {
        let full = self.list.len() >= MOST_LISTED;
        // No error is crowded out by warnings.
        let spare = self.list.iter().rposition(|known| full && severity < known.severity);
        if full && spare.is_none() {
            self.left_out += 1;
            return;
        }
        let diagnostic = self.diagnostic(severity, span, message, help);
        if !self.list.contains(&diagnostic) {
            if let Some(spare) = spare {
                self.list.remove(spare);
                self.left_out += 1;
            }
            self.list.push(diagnostic);
        }
    }

    fn diagnostic(&self, severity: Severity, span: Span, message: String, help: String) -> Diagnostic {
        let line: Vec<char> = self.lines.get(span.line.saturating_sub(1)).unwrap_or(&"").chars().collect();
        let before = span.column.saturating_sub(1).min(line.len());
        let start = if line.len() > LONGEST_LINE { before.saturating_sub(LONGEST_LINE / 4) } else { 0 };
        let end = line.len().min(start + LONGEST_LINE);
        // Control characters could steer the terminal they are shown on.
        let shown = line[start..end].iter().map(|c| if c.is_control() && *c != '\t' { '\u{fffd}' } else { *c });
        Diagnostic {
            severity,
            file: self.file.to_owned(),
            line: span.line,
            column: span.column,
            source_line: shown.collect(),
            caret: before - start,
            width: span.width.clamp(1, (end - before).max(1)),
            message,
            help: Some(help).filter(|h| !h.is_empty()),
        }
    }
}

/// `a, b or c`, each in backquotes.
pub(crate) fn any_of<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{}`", w.as_ref())).collect();
    match quoted.as_slice() {
        [] => "nothing".into(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// The known word that was probably meant: the same but for case and hyphens, or few typing mistakes away.
pub fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let plain = |w: &str| w.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<Vec<_>>();
    let asked = plain(word);
    if asked.len() > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|k| (distance(&asked, &plain(k)), k))
        .filter(|(distance, k)| *distance <= asked.len().min(k.len()).div_ceil(3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_shown_and_does_nothing() {
        let text = "name: \"a\u{1b}[2J\u{202e}\u{9b}\"\n";
        let mut findings = Findings::new("x\u{7}.yaml", text);
        let span = Span { line: 1, column: 7, width: 3 };
        findings.error(span, "a\u{0}b is no name", "write\u{2066} another");
        let shown = findings.finish().unwrap_err()[0].render();
        assert!(!shown.contains(['\u{0}', '\u{7}', '\u{1b}', '\u{9b}', '\u{202e}', '\u{2066}']), "{shown:?}");
        assert!(shown.contains("a\u{fffd}b is no name"), "{shown:?}");
    }

    #[test]
    fn a_diagnostic_shows_the_line_and_the_way_out() {
        let mut findings = Findings::new("a.yaml", "name: x\n\tevery: 50\n");
        findings.error(Span { line: 2, column: 9, width: 2 }, "the unit is missing", "write 50ms");
        let list = findings.finish().unwrap_err();
        assert_eq!(
            list[0].render(),
            "a.yaml:2:9: error: the unit is missing\n    \tevery: 50\n    \t       ^^\nhelp: write 50ms"
        );
    }

    #[test]
    fn a_long_line_is_cut_and_control_characters_are_not_passed_on() {
        let text = format!("{}\u{9b}here{}", "a".repeat(5000), "b".repeat(5000));
        let mut findings = Findings::new("a.json", &text);
        findings.error(Span { line: 1, column: 5002, width: 4 }, "wrong", "");
        let list = findings.finish().unwrap_err();
        assert_eq!(list[0].source_line.chars().count(), 160);
        assert!(list[0].source_line.contains("\u{fffd}here"), "{}", list[0].source_line);
        assert_eq!((list[0].column, list[0].caret, list[0].width), (5002, 40, 4));
    }

    #[test]
    fn a_flood_is_counted_and_places_outside_the_text_do_no_harm() {
        let mut findings = Findings::new("a.yaml", "");
        for line in 0..500 {
            findings.error(Span { line, column: line, width: line }, "wrong", "");
        }
        let list = findings.finish().unwrap_err();
        assert_eq!(list.len(), 101);
        assert_eq!(list[100].message, "400 more are not listed");
    }

    #[test]
    fn warnings_crowd_out_no_error() {
        let mut findings = Findings::new("a.yaml", "");
        for line in 1..200 {
            findings.warning(Span { line, ..Span::default() }, "odd", "");
        }
        findings.error(Span { line: 500, ..Span::default() }, "wrong", "");
        let list = findings.finish().unwrap_err();
        assert_eq!((list.len(), list[99].message.as_str()), (101, "wrong"));
        assert_eq!(list[100].message, "100 more are not listed");
    }

    #[test]
    fn near_words_are_found() {
        let known = ["net-delay", "net-loss", "process-kill", "http"];
        for (word, found) in [
            ("net-dealy", Some("net-delay")),
            ("netDelay", Some("net-delay")),
            ("htpp", Some("http")),
            ("processkil", Some("process-kill")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), found, "{word}");
        }
    }
}

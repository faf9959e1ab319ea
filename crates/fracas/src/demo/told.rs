//! What the demo says while it goes: a line for each step. Results of runs are printed by the command line itself.

use std::io::{self, IsTerminal as _, Write};

use fracas_cli::{
    args::{ColorChoice, Global, OutputForm},
    context::Surroundings,
};

/// Columns of a step's name.
const NAME: usize = 12;
/// Columns of what is said of a step.
const TEXT: usize = 88;

/// How the demo speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    quiet: bool,
    /// Standard output belongs to programs: people are spoken to beside it.
    aside: bool,
    /// A line may be written over.
    live: bool,
    colour: bool,
}

impl Told {
    /// As the options and the terminal have it.
    pub(super) fn new(global: &Global, surroundings: &Surroundings) -> Self {
        let aside = global.output == OutputForm::Json;
        let terminal = if aside { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let colour = match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !surroundings.no_color && !surroundings.dumb_terminal,
        };
        Self { quiet: global.quiet, aside, live: terminal && !surroundings.dumb_terminal, colour }
    }

    /// A heading, with a line of air before it.
    pub(super) fn heading(self, text: &str) {
        self.write(&format!("\n{}\n", self.styled("1", text)));
    }

    /// A step that begins; on a terminal it is written over when it is done.
    pub(super) fn begun(self, step: &str, text: &str) {
        if self.live {
            self.write(&format!("{}{}", self.name(step), self.styled("2", text)));
        }
    }

    /// A step that is done, with what came of it; further lines stand below the first.
    pub(super) fn done(self, step: &str, text: &str) {
        let over = if self.live { "\r\x1b[K" } else { "" };
        let lines: Vec<String> = text.lines().flat_map(wrapped).collect();
        let text = lines.join(&format!("\n{}", " ".repeat(NAME)));
        self.write(&format!("{over}{}{text}\n", self.name(step)));
    }

    /// A line.
    pub(super) fn line(self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Ends a step that was begun and will not be done.
    pub(super) fn broken(self) {
        if self.live {
            self.write("\r\x1b[K");
        }
    }

    /// A verdict's word, well visible.
    pub(super) fn verdict(self, word: &str, code: u8) -> String {
        let colour = match code {
            0 => "32",
            3 => "33",
            _ => "31",
        };
        self.styled(colour, &format!("{:<14}", word.replace('-', " ").to_uppercase()))
    }

    fn name(self, step: &str) -> String {
        self.styled("1", &format!("{step:<NAME$}"))
    }

    fn styled(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn write(self, text: &str) {
        if self.quiet {
            return;
        }
        // Nobody listens any more when it fails; what the demo does is not changed by that.
        let _ = if self.aside { put(io::stderr().lock(), text) } else { put(io::stdout().lock(), text) };
    }
}

/// Lines of whole words; what does not fit goes on below the first word.
fn wrapped(line: &str) -> Vec<String> {
    let indent = line.len() - line.trim_start().len();
    let mut lines = vec![" ".repeat(indent)];
    for word in line.split_whitespace() {
        let last = lines.len() - 1;
        let empty = lines[last].trim().is_empty();
        if !empty && lines[last].chars().count() + 1 + word.chars().count() > TEXT {
            lines.push(format!("{}{word}", " ".repeat(indent + 2)));
        } else {
            lines[last] += if empty { "" } else { " " };
            lines[last] += word;
        }
    }
    lines
}

fn put(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_below_their_first_word() {
        assert_eq!(wrapped("  one two"), ["  one two"]);
        let (long, word) = ("x".repeat(TEXT), "y".repeat(50));
        assert_eq!(wrapped(&format!("a {long} b")), ["a", &format!("  {long}"), "  b"]);
        assert_eq!(wrapped(&format!("  {word} {word}")), [format!("  {word}"), format!("    {word}")]);
        assert_eq!(wrapped(""), [""]);
    }
}

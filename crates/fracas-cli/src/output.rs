//! Where results go: standard output as text or JSON, notices to standard error. Colours and width are settled once.

use std::io::{self, IsTerminal as _, Write};

use fracas_model::diagnostic::harmless;
use serde::Serialize;
use serde_json::Value;

use crate::{
    args::{ColorChoice, Global, OutputForm},
    context::Surroundings,
    error::CliError,
    times::Zone,
};

/// Columns where standard output is no terminal.
const PIPE_WIDTH: usize = 120;

/// How this process may print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// For programs instead of people.
    pub(crate) json: bool,
    /// Results only.
    pub(crate) quiet: bool,
    /// Colours on standard output.
    pub(crate) colour: bool,
    /// Standard output is a terminal that can move its cursor.
    pub(crate) live: bool,
    /// Somebody sits there and can be asked.
    pub(crate) asks: bool,
    /// What "local time" means.
    pub(crate) zone: Zone,
}

impl Output {
    /// From the options, the environment and the terminal.
    pub(crate) fn new(global: &Global, surroundings: &Surroundings) -> Self {
        let terminal = io::stdout().is_terminal();
        let json = global.output == OutputForm::Json;
        let colour = match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !surroundings.no_color && !surroundings.dumb_terminal,
        };
        Self {
            json,
            quiet: global.quiet,
            colour: colour && !json,
            live: terminal && !surroundings.dumb_terminal && !json && !global.quiet,
            asks: terminal && io::stdin().is_terminal() && !json,
            zone: Zone::Local,
        }
    }

    /// Writes text for people: whatever it holds from elsewhere steers no terminal and turns no writing round.
    pub(crate) fn text(self, text: &str) -> io::Result<()> {
        if self.json { self.raw(text) } else { self.raw(&safe(text, self.colour)) }
    }

    /// Writes text as it is, for programs.
    #[expect(clippy::unused_self, reason = "all writing goes through the chosen output")]
    pub(crate) fn raw(self, text: &str) -> io::Result<()> {
        let mut to = io::stdout().lock();
        to.write_all(text.as_bytes())?;
        to.flush()
    }

    /// Writes one line.
    pub(crate) fn line(self, line: &str) -> io::Result<()> {
        self.text(&format!("{line}\n"))
    }

    /// Writes a value on one line, its schema first: `{"schema":"fracas.runs/v1", ...}`.
    pub(crate) fn json(self, schema: &str, value: &impl Serialize) -> io::Result<()> {
        self.line(&tagged(schema, value).to_string())
    }

    /// Says something beside the result, on standard error; nothing when quiet.
    pub(crate) fn notice(self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{}", harmless(text));
        }
    }

    /// Asks whoever sits there.
    pub(crate) async fn agreed(self, question: &str) -> Result<bool, CliError> {
        self.text(question)?;
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = line.await.map_err(|e| CliError::failure(e.to_string()))??;
        Ok(matches!(line.trim(), "y" | "Y" | "yes"))
    }

    /// Size of the terminal: columns and rows.
    pub(crate) fn size() -> (usize, usize) {
        let size = rustix::termios::tcgetwinsize(io::stdout());
        match size {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (PIPE_WIDTH, 50),
        }
    }
}

/// Harmless text, in which only colours stay, where there are some.
fn safe(text: &str, colour: bool) -> String {
    let mut parts = text.split('\x1b');
    let mut all = harmless(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| !matches!(c, '[' | ';' | '0'..='9')).unwrap_or(0);
        if colour && part.starts_with('[') && part[end..].starts_with('m') {
            all.push('\x1b');
            all.push_str(&harmless(part));
        } else {
            all.push_str(&harmless(&format!("\x1b{part}")));
        }
    }
    all
}

/// The value as an object that names its schema; what is no object stands under `value`.
pub(crate) fn tagged(schema: &str, value: &impl Serialize) -> Value {
    let value = serde_json::to_value(value).unwrap_or(Value::Null);
    let mut object = match value {
        Value::Object(object) => object,
        other => [("value".to_owned(), other)].into_iter().collect(),
    };
    object.insert("schema".to_owned(), schema.into());
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn only_colours_steer_the_terminal() {
        let hostile = "a\x1b[31mred\x1b[0m\x1b[2J\x1b]0;x\x07\u{202e}\u{9b}1m\n\tb\x1b";
        assert_eq!(
            safe(hostile, true),
            "a\x1b[31mred\x1b[0m\u{fffd}[2J\u{fffd}]0;x\u{fffd}\u{fffd}\u{fffd}1m\n\tb\u{fffd}"
        );
        assert!(!safe(hostile, false).contains('\x1b'));
        assert_eq!(safe("plain, ünïcode\n", false), "plain, ünïcode\n");
    }

    fn output(arguments: &[&str], surroundings: &Surroundings) -> Output {
        let arguments = ["fracas", "runs"].iter().chain(arguments);
        Output::new(&Cli::try_parse_from(arguments).unwrap().global, surroundings)
    }

    #[test]
    fn colours_are_for_those_who_ask_and_never_in_json() {
        let plain = Surroundings::default();
        assert!(output(&["--color", "always"], &plain).colour);
        assert!(!output(&["--color", "always", "--output", "json"], &plain).colour);
        assert!(!output(&["--color", "never"], &plain).colour);
        let no_color = Surroundings { no_color: true, ..Surroundings::default() };
        assert!(!output(&[], &no_color).colour);
        assert!(output(&["--color", "always"], &no_color).colour);
    }

    #[test]
    fn every_object_names_its_schema() {
        assert_eq!(
            tagged("fracas.x/v1", &serde_json::json!({"a": 1})).to_string(),
            r#"{"a":1,"schema":"fracas.x/v1"}"#
        );
        assert_eq!(tagged("fracas.x/v1", &[1, 2]).to_string(), r#"{"schema":"fracas.x/v1","value":[1,2]}"#);
    }
}

//! Source text to a checked experiment, with every mistake told at once. It decides nothing about hosts or runs.

pub(crate) mod form;
mod lower;
mod meaning;
mod overlap;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    catalogue::Catalogue,
    check::check,
    diagnostic::{Diagnostic, Findings, Span, any_of, nearest},
    experiment::Experiment,
    gameday, parameters,
    shape::Shape,
    tree::{self, Node},
};

pub use form::{API_VERSION, experiment_shape};
pub(crate) use {lower::fill, lower::lower, meaning::review};

/// What a document says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadExperiment {
    /// Typed values.
    pub experiment: Experiment,
    /// The JSON of `experiment`: what a run's history holds and what the digest of intent is over.
    pub canonical: Value,
    /// The document in its own form with parameters applied and defaults filled in; reading it gives the same again.
    pub document: Value,
    /// Values of all parameters.
    pub parameters: BTreeMap<String, Value>,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Reads an experiment. `file` is its name for messages, `given` are values for its parameters as text.
///
/// The error is every mistake found, warnings among them, in the order of the text; never empty.
pub fn read_experiment(
    file: &str,
    text: &str,
    given: &BTreeMap<String, String>,
    catalogue: &Catalogue,
) -> Result<ReadExperiment, Vec<Diagnostic>> {
    let text = tree::normalise(text);
    let mut findings = Findings::new(file, &text);
    let parsed = tree::parse(&text, &mut findings).filter(|root| kind_is_built(root, &mut findings));
    let Some(mut root) = parsed else { return findings.finish().and_then(|_| unreadable(file, "no tree")) };

    let parameters = parameters::apply(&mut root, given, &mut findings);
    let mut document = check(&root, &experiment_shape(catalogue), &mut findings).unwrap_or(Value::Null);
    lower::fill(&mut document);
    meaning::review(&root, &document, catalogue, &mut findings);

    let warnings = findings.finish()?;
    let typed = serde_json::from_value::<Experiment>(lower::lower(&document, catalogue));
    let experiment = typed.or_else(|error| unreadable(file, &error.to_string()))?;
    let canonical = serde_json::to_value(&experiment).or_else(|error| unreadable(file, &error.to_string()))?;
    parameters::escape(&mut document);
    Ok(ReadExperiment { experiment, canonical, document, parameters: parameters.values(), warnings })
}

/// Reads whatever can be run: an experiment, or a game day with the `files` that its sections name.
///
/// The error is every mistake found in any of them; never empty.
pub fn read(
    file: &str,
    text: &str,
    files: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
    catalogue: &Catalogue,
) -> Result<ReadExperiment, Vec<Diagnostic>> {
    if gameday::is_game_day(text) {
        gameday::read_game_day(file, text, files, given, catalogue)
    } else {
        read_experiment(file, text, given, catalogue)
    }
}

/// Reads any other document of the form `shape`: canonical JSON and warnings, or every mistake.
pub fn read_generic(file: &str, text: &str, shape: &Shape) -> Result<(Value, Vec<Diagnostic>), Vec<Diagnostic>> {
    let text = tree::normalise(text);
    let mut findings = Findings::new(file, &text);
    let value = tree::parse(&text, &mut findings).and_then(|root| check(&root, shape, &mut findings));
    let warnings = findings.finish()?;
    value.map_or_else(|| unreadable(file, "no value"), |value| Ok((value, warnings)))
}

/// A commented experiment to start from: it is valid, and needs a host labelled `role=db`.
pub fn starter() -> &'static str {
    include_str!("document/starter.yaml")
}

/// Other kinds are refused at once: their keys would only be called unknown.
fn kind_is_built(root: &Node, findings: &mut Findings<'_>) -> bool {
    const LATER: [&str; 1] = ["Drill"];
    let Some(kind) = root.get("kind") else { return true };
    let Some(word) = kind.text().filter(|word| *word != "Experiment") else { return true };
    if LATER.contains(&word) {
        let help = "write `kind: Experiment`; a timeline may ask people with `approval`";
        findings.error(kind.span, format!("`kind: {word}` is not built yet"), help);
    } else if word == "GameDay" {
        let help = "`fracas run FILE` runs it; what its sections name are experiments";
        findings.error(kind.span, "this is a game day, not an experiment", help);
    } else if word == "Schedule" {
        let help = "`fracas schedule set FILE` sends it, `fracas schedule next FILE` shows what it would do";
        findings.error(kind.span, "this is a schedule, not an experiment", help);
    } else if word == "GuardRails" {
        findings.error(
            kind.span,
            "these are guard-rails, not an experiment",
            "`fracas guard-rails set FILE` sends them",
        );
    } else if word == "HostPolicy" {
        let help = "it belongs on the host, in the file that its agent is started with";
        findings.error(kind.span, "this is a host's policy, not an experiment", help);
    } else {
        let help = match nearest(word, ["Experiment", "GameDay"].into_iter().chain(LATER)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write {}", any_of(&["Experiment"])),
        };
        findings.error(kind.span, format!("there is no kind of document `{word}`"), help);
    }
    false
}

/// A bug of ours, told without a panic: the checks let something pass that the types do not.
pub(crate) fn unreadable<T>(file: &str, why: &str) -> Result<T, Vec<Diagnostic>> {
    debug_assert!(false, "checked but unreadable: {why}");
    let mut findings = Findings::new(file, "");
    let help = "this is a mistake in fracas, not in the document: please report it";
    findings.error(Span::default(), format!("the document was checked but could not be read: {why}"), help);
    Err(findings.finish().err().unwrap_or_default())
}

#[cfg(test)]
pub(crate) mod tests;

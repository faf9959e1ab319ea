//! Source texts to a checked game day, with every mistake of every file told at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    compile::{Approval, Part, compile},
    form::game_day_shape,
};
use crate::{
    catalogue::Catalogue,
    check::check,
    diagnostic::{Diagnostic, Findings, Severity},
    document::{self, ReadExperiment, read_experiment},
    experiment::{Day, Experiment, OnFailure},
    id::SectionId,
    parameters,
    tree::{self, Node},
    units::Dur,
};

/// Whether a text says that it is a game day, whatever else is wrong with it.
pub fn is_game_day(text: &str) -> bool {
    root(text).is_some_and(|root| root.get("kind").and_then(Node::text) == Some("GameDay"))
}

/// The files that the sections of a game day name, as far as the text can be read; nothing for other documents.
pub fn files(text: &str) -> Vec<String> {
    let root = root(text).filter(|root| root.get("kind").and_then(Node::text) == Some("GameDay"));
    let sections = root.as_ref().and_then(|root| root.get("sections")).map(Node::items).unwrap_or_default();
    let mut names: Vec<String> =
        sections.iter().filter_map(|s| s.get("experiment")?.text().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    names
}

fn root(text: &str) -> Option<Node> {
    let text = tree::normalise(text);
    tree::parse(&text, &mut Findings::new("", &text))
}

/// Reads a game day. `file` is its name for messages, `files` are the texts that its sections name, `given` are values for
/// its parameters as text.
///
/// The error is every mistake found in it and in the files, warnings among them; never empty.
pub fn read_game_day(
    file: &str,
    text: &str,
    files: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
    catalogue: &Catalogue,
) -> Result<ReadExperiment, Vec<Diagnostic>> {
    let text = tree::normalise(text);
    let mut findings = Findings::new(file, &text);
    let Some(mut root) = tree::parse(&text, &mut findings) else {
        return findings.finish().and_then(|_| document::unreadable(file, "no tree"));
    };
    let parameters = parameters::apply(&mut root, given, &mut findings);
    let mut day = check(&root, &game_day_shape(catalogue), &mut findings).unwrap_or(Value::Null);
    document::fill(&mut day);
    document::review(&root, &day, catalogue, &mut findings);
    let mut reading = Reading { file, files, catalogue, findings: &mut findings, told: Vec::new() };
    let parts = reading.sections(&root, &day);
    let told = reading.told;

    let (mut all, wrong) = match findings.finish() {
        Ok(warnings) => (warnings, told.iter().any(|one| one.severity == Severity::Error)),
        Err(all) => (all, true),
    };
    all.extend(told);
    if wrong {
        return Err(all);
    }
    let parts = parts.map_or_else(|| document::unreadable(file, "a section is missing"), Ok)?;
    let experiment = whole(&day, &parts, catalogue).map(|whole| compile(whole, parts));
    let experiment = experiment.or_else(|error| document::unreadable(file, &error.to_string()))?;
    let canonical = serde_json::to_value(&experiment);
    let canonical = canonical.or_else(|error| document::unreadable(file, &error.to_string()))?;
    parameters::escape(&mut day);
    Ok(ReadExperiment { experiment, canonical, document: day, parameters: parameters.values(), warnings: all })
}

struct Reading<'r, 'a> {
    file: &'r str,
    files: &'r BTreeMap<String, String>,
    catalogue: &'r Catalogue,
    findings: &'r mut Findings<'a>,
    /// What is wrong in the files of the sections.
    told: Vec<Diagnostic>,
}

impl Reading<'_, '_> {
    /// `None` where any cannot be read; that was told.
    fn sections(&mut self, root: &Node, day: &Value) -> Option<Vec<Part>> {
        let nodes = root.get("sections").map(Node::items).unwrap_or_default();
        let values = day.get("sections").and_then(Value::as_array).cloned().unwrap_or_default();
        let (mut parts, mut seen) = (Vec::new(), BTreeMap::new());
        for (i, node) in nodes.iter().enumerate() {
            if let Some(id) = node.get("id").and_then(Node::text)
                && let Some(first) = seen.insert(id, node.span.line)
            {
                let span = node.get("id").map_or(node.span, |id| id.span);
                let help = format!("the first stands on line {first}; give each section an id of its own");
                self.findings.error(span, format!("a second section is called `{id}`"), help);
            }
            parts.push(self.section(node, values.get(i)));
        }
        parts.into_iter().collect()
    }

    fn section(&mut self, node: &Node, value: Option<&Value>) -> Option<Part> {
        let name = node.get("experiment")?;
        let file = name.text()?;
        let Some(text) = self.files.get(file) else {
            let help = "it must stand beside the game day, under this name";
            self.findings.error(name.span, format!("there is no file `{file}`"), help);
            return None;
        };
        let written = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let given = value.and_then(|v| v.get("parameters")).and_then(Value::as_object);
        let given: BTreeMap<String, String> =
            given.into_iter().flatten().map(|(name, value)| (name.clone(), written(value))).collect();
        let experiment = match read_experiment(&beside(self.file, file), text, &given, self.catalogue) {
            Ok(read) => {
                self.tell(read.warnings);
                read.experiment
            }
            Err(wrong) => {
                self.tell(wrong);
                return None;
            }
        };
        let value = value?;
        Some(Part {
            id: SectionId::new(value.get("id")?.as_str()?),
            file: file.to_owned(),
            wait_before: value.get("waitBefore").and_then(Value::as_str).and_then(|text| text.parse::<Dur>().ok()),
            approval: value.get("approval").and_then(|said| serde_json::from_value::<Approval>(said.clone()).ok()),
            on_failure: serde_json::from_value::<OnFailure>(value.get("onFailure")?.clone()).ok()?,
            experiment,
        })
    }

    /// Two sections may have one file: what is wrong in it is told once.
    fn tell(&mut self, found: Vec<Diagnostic>) {
        for one in found {
            if !self.told.contains(&one) {
                self.told.push(one);
            }
        }
    }
}

/// The name of a file beside another, for messages.
fn beside(file: &str, name: &str) -> String {
    match file.rsplit_once('/') {
        Some((folder, _)) if !name.starts_with('/') => format!("{folder}/{name}"),
        _ => name.to_owned(),
    }
}

/// What the day itself says, as an experiment without a timeline.
fn whole(day: &Value, parts: &[Part], catalogue: &Catalogue) -> Result<Experiment, serde_json::Error> {
    let mut whole = document::lower(day, catalogue);
    let fields = whole.as_object_mut().map(std::mem::take).unwrap_or_default();
    let (about, mut fields): (Map<String, Value>, Map<String, Value>) = fields
        .into_iter()
        .filter(|(key, _)| key != "sections")
        .partition(|(key, _)| ["purpose", "owner", "participants"].contains(&key.as_str()));
    let day: Day = serde_json::from_value(Value::Object(about))?;
    fields.insert("timeline".into(), json!([]));
    let experiments = || parts.iter().map(|part| &part.experiment);
    if !fields.contains_key("lease") {
        let shortest = experiments().map(|e| e.lease).min().unwrap_or(Dur::from_secs(15));
        fields.insert("lease".into(), serde_json::to_value(shortest)?);
    }
    if !fields.contains_key("recovery") {
        let stable = experiments().map(|e| e.recovery.stable_for).max().unwrap_or_default();
        let give_up = experiments().map(|e| e.recovery.give_up_after).max().unwrap_or_default();
        fields.insert("recovery".into(), json!({ "stableFor": stable, "giveUpAfter": give_up }));
    }
    let whole: Experiment = serde_json::from_value(Value::Object(fields))?;
    Ok(Experiment { day: Some(day), ..whole })
}

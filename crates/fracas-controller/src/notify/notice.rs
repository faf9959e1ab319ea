//! One thing to tell: what it is about, in which words, what it opens and closes.
//!
//! It is data. Which facts lead to one is [`super::derive`]'s business, how it travels that of the channels.

use chrono::{DateTime, SecondsFormat};
use fracas_model::{
    event::Event,
    notice::{Interest, Kind},
    time::Stamp,
};
use serde_json::{Map, Value};

/// Longest text of one field, in characters; a reason that is longer says no more to somebody who is paged.
pub(super) const LONGEST: usize = 500;
/// Longest summary, in characters: fits a line of mail and a page.
pub(super) const LONGEST_SUMMARY: usize = 250;
/// Reasons and hosts listed.
const LISTED: usize = 10;

/// How bad it is; the words are those of PagerDuty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Worth a look.
    Warning,
    /// Something went wrong.
    Error,
    /// A host may still have something on it.
    Critical,
}

impl Severity {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// Something that needs a person until it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The same when it opens and when it closes.
    pub key: String,
    /// The kind of notice that opens it: whoever wants those is told the end too.
    pub of: Kind,
    /// Whether this opens or closes it.
    pub opens: bool,
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The stream and the number of the fact, `run/ID/12`: the same however often it is sent.
    pub id: String,
    /// What it is about.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, by name: `run/ID`, `host/ID`, `schedule/NAME`, `halt`.
    pub subject: String,
    /// In which environment; empty: it concerns all of them.
    pub environment: String,
    /// When the controller knew.
    pub at: Stamp,
    /// One line.
    pub summary: String,
    /// What else is known, by names out of [`PLACEHOLDERS`]: text, numbers and lists of text.
    pub fields: Vec<(&'static str, Value)>,
    /// What it opens and closes.
    pub incidents: Vec<Incident>,
}

/// Every name that a template may use. A notice that has no such field leaves its place empty.
pub const PLACEHOLDERS: [&str; 19] = [
    "id",
    "event",
    "time",
    "severity",
    "summary",
    "environment",
    "experiment",
    "run",
    "verdict",
    "exitCode",
    "reason",
    "entry",
    "host",
    "hostId",
    "hosts",
    "schedule",
    "due",
    "count",
    "by",
];

/// An instant as programs and people can both read it, UTC.
pub(super) fn instant(wall_ns: i64) -> String {
    DateTime::from_timestamp_nanos(wall_ns).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Foreign text on one line and not too long: names of hosts, reasons and patterns come from anywhere.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let plain = plain.trim();
    if plain.chars().count() <= most {
        return plain.to_owned();
    }
    plain.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

impl Notice {
    pub(super) fn new(event: &Event, kind: Kind, severity: Severity, subject: String, summary: &str) -> Self {
        Self {
            id: format!("{}/{}", event.stream, event.seq),
            kind,
            severity,
            subject,
            environment: String::new(),
            at: event.received.clone(),
            summary: one_line(summary, LONGEST_SUMMARY),
            fields: Vec::new(),
            incidents: Vec::new(),
        }
    }

    /// One that somebody asked for, to try a channel out; as an incident it opens and closes at once.
    pub fn test(id: String, at: Stamp, channel: &str, by: &str) -> Self {
        let incident = |opens| Incident { key: id.clone(), of: Kind::Test, opens };
        Self {
            kind: Kind::Test,
            severity: Severity::Info,
            subject: format!("notify/{channel}"),
            environment: String::new(),
            at,
            summary: one_line(
                &format!("test of the channel {channel}, asked for by {by}: nothing has happened"),
                LONGEST_SUMMARY,
            ),
            fields: vec![("by", text(by))],
            incidents: vec![incident(true), incident(false)],
            id,
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(super) fn opening(self, key: String) -> Self {
        let of = self.kind;
        self.incident(Incident { key, of, opens: true })
    }

    pub(super) fn closing(self, key: String, of: Kind) -> Self {
        self.incident(Incident { key, of, opens: false })
    }

    pub(super) fn incident(mut self, incident: Incident) -> Self {
        self.incidents.push(incident);
        self
    }

    /// Whether somebody with this interest is to be told.
    pub fn concerns(&self, interest: &Interest) -> bool {
        let there = self.environment.is_empty()
            || interest.environments.is_empty()
            || interest.environments.contains(&self.environment);
        let wanted = if interest.incidents {
            self.incidents.iter().any(|incident| interest.on.contains(&incident.of))
        } else {
            interest.on.contains(&self.kind)
        };
        there && wanted
    }

    /// What stands for a name out of [`PLACEHOLDERS`]; empty when this notice has no such field.
    pub fn value(&self, name: &str) -> String {
        match name {
            "id" => self.id.clone(),
            "event" => self.kind.name().to_owned(),
            "time" => instant(self.at.wall_ns),
            "severity" => self.severity.name().to_owned(),
            "summary" => self.summary.clone(),
            "environment" => self.environment.clone(),
            _ => self.fields.iter().find(|(known, _)| *known == name).map(|(_, v)| written(v)).unwrap_or_default(),
        }
    }

    /// What is known, a line for each field, for people.
    pub fn details(&self) -> String {
        let fixed = ["event", "time", "severity", "environment"].map(|name| (name, self.value(name)));
        let fields = self.fields.iter().map(|(name, value)| (*name, written(value)));
        let lines = fixed.into_iter().chain(fields).filter(|(_, value)| !value.is_empty());
        let lines: Vec<String> = lines.map(|(name, value)| format!("{name}: {value}")).collect();
        lines.join("\n")
    }

    /// What is known, for programs.
    pub fn data(&self) -> Map<String, Value> {
        let fixed = ["severity", "environment", "summary"].map(|name| (name.to_owned(), Value::from(self.value(name))));
        let fixed = fixed.into_iter().filter(|(_, value)| *value != "");
        fixed.chain(self.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()))).collect()
    }
}

fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(written).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    }
}

/// Foreign text as a field.
pub(super) fn text(text: &str) -> Value {
    one_line(text, LONGEST).into()
}

/// Several of them; how many are left out is said.
pub(super) fn texts<'t>(all: impl ExactSizeIterator<Item = &'t String>) -> Value {
    let more = all.len().saturating_sub(LISTED);
    let mut listed: Vec<Value> = all.take(LISTED).map(|one| text(one)).collect();
    if more > 0 {
        listed.push(format!("and {more} more").into());
    }
    Value::Array(listed)
}

//! Signals: what alerting tools tell, read from what they send, and the rules by which a run knows its own alerts. Pure;
//! what is made of them is the report's business.
//!
//! The payload is Alertmanager's, version 4 (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>).
//! Two facts of it shape what is kept: `startsAt` is when the rule's hold time was over, not when its condition became true,
//! and `endsAt` of an alert that fires is no end but how long the message is good.

use std::{collections::BTreeMap, fmt};

use chrono::DateTime;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};

use crate::pattern;

/// Longest payload that is read, bytes.
pub const LONGEST_PAYLOAD: usize = 1 << 20;
/// Most alerts of one payload.
pub const MOST_ALERTS: usize = 1000;
/// Most labels of one alert; more are left out, by name.
const MOST_LABELS: usize = 64;
/// Longest name and longest value of a label, bytes; the rest is cut off.
const LONGEST_LABEL: [usize; 2] = [128, 1024];
/// Longest summary, bytes.
const LONGEST_SUMMARY: usize = 200;
/// The only version that is known.
const VERSION: &str = "4";

/// Whether an alert fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AlertState {
    /// It does.
    Firing,
    /// It does not any more.
    Resolved,
}

/// One alert as its source told it once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// By which its source knows it.
    pub id: String,
    /// Whether it fires.
    pub state: AlertState,
    /// Its labels, within bounds.
    pub labels: BTreeMap<String, String>,
    /// What it says, in one line; may be empty.
    pub summary: String,
    /// Since when it fires, by its source's wall clock, nanoseconds since the Unix epoch.
    pub starts_wall_ns: i64,
    /// Since when it does not, by the same clock; of resolved ones only.
    pub ends_wall_ns: Option<i64>,
}

/// What one payload told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its alerts.
    pub signals: Vec<Signal>,
    /// Alerts that the source left out of it.
    pub truncated: u64,
    /// Alerts that cannot be read, such as those without a beginning.
    pub unreadable: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    #[serde(default)]
    version: String,
    #[serde(default)]
    truncated_alerts: u64,
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    #[serde(default)]
    status: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    starts_at: String,
    #[serde(default)]
    ends_at: String,
    #[serde(default)]
    fingerprint: String,
}

impl Signal {
    /// The alert's name: its label `alertname`, or what its source knows it by.
    pub fn name(&self) -> &str {
        self.labels.get("alertname").map_or(self.id.as_str(), String::as_str)
    }

    /// How much of a history it takes, bytes, about.
    pub fn size(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        labels + self.id.len() + self.summary.len() + 128
    }

    /// What tells it from others, one firing of an alert and its end: a source tells again and again that one still fires.
    pub fn key(&self) -> (&str, i64, AlertState) {
        (&self.id, self.starts_wall_ns, self.state)
    }
}

/// Reads a payload of Alertmanager's; keys that are not known are passed over.
///
/// # Errors
/// It is none, too long, of another version or of too many alerts; the error is a fragment for whoever sent it.
pub fn alertmanager(payload: &[u8]) -> Result<Told, String> {
    if payload.len() > LONGEST_PAYLOAD {
        return Err(format!("a payload has at most {LONGEST_PAYLOAD} bytes"));
    }
    let read = serde_json::from_slice::<Payload>(payload);
    let payload = read.map_err(|e| format!("not a payload of Alertmanager's webhook: {e}"))?;
    if payload.version != VERSION {
        return Err(format!("version {:?} of Alertmanager's payload is not known, {VERSION:?} is", payload.version));
    }
    if payload.alerts.len() > MOST_ALERTS {
        return Err(format!("more than {MOST_ALERTS} alerts: set max_alerts of the receiver"));
    }
    let mut told = Told { truncated: payload.truncated_alerts, ..Told::default() };
    for alert in payload.alerts {
        match alert.read() {
            Some(signal) => told.signals.push(signal),
            None => told.unreadable += 1,
        }
    }
    Ok(told)
}

impl Alert {
    fn read(self) -> Option<Signal> {
        let state = match self.status.as_str() {
            "firing" => AlertState::Firing,
            "resolved" => AlertState::Resolved,
            _ => return None,
        };
        let [name, value] = LONGEST_LABEL;
        let labels = self.labels.into_iter().take(MOST_LABELS);
        let labels: BTreeMap<String, String> = labels.map(|(k, v)| (cut(k, name), cut(v, value))).collect();
        let said = ["summary", "description"].iter().find_map(|key| self.annotations.get(*key));
        let summary = said.map(|said| cut(said.replace(['\n', '\r', '\t'], " "), LONGEST_SUMMARY)).unwrap_or_default();
        // Older ones send none: labels are what an alert is known by.
        let id = if self.fingerprint.is_empty() {
            labels.iter().map(|(k, v)| format!("{k}={v};")).collect()
        } else {
            self.fingerprint
        };
        let starts_wall_ns = instant(&self.starts_at)?;
        let ends_wall_ns = instant(&self.ends_at).filter(|_| state == AlertState::Resolved);
        Some(Signal { id: cut(id, value), state, labels, summary, starts_wall_ns, ends_wall_ns })
    }
}

/// An instant of RFC 3339 in nanoseconds since the Unix epoch; the year 1 is none.
fn instant(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt()
}

fn cut(mut text: String, longest: usize) -> String {
    text.truncate(text.floor_char_boundary(longest));
    text
}

/// A condition on one label, as Alertmanager writes it: `alertname=CheckoutDown`, `severity=~"critical|page"`, `team!=x`,
/// `env!~test.*`. A pattern must fit the whole value; a label that is not there is empty.
#[derive(Clone, Debug)]
pub struct Matcher {
    label: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Is(String),
    IsNot(String),
    Fits(Regex),
    FitsNot(Regex),
}

impl Matcher {
    /// Reads one.
    ///
    /// # Errors
    /// It is none; the error is a fragment for people.
    pub fn read(text: &str) -> Result<Self, String> {
        let none = || format!("{text:?} is no matcher: write `label=value`, `!=`, `=~` or `!~`");
        let at = text.find(['=', '!']).ok_or_else(none)?;
        let (label, rest) = text.split_at(at);
        let label = label.trim();
        let sign = ["=~", "!~", "!=", "="].into_iter().find(|sign| rest.starts_with(sign)).ok_or_else(none)?;
        let value = rest[sign.len()..].trim();
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = quoted.map_or_else(|| value.to_owned(), |value| value.replace("\\\"", "\"").replace("\\\\", "\\"));
        // What Prometheus lets a label be called.
        let begins = label.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
        if !begins || !label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':') {
            return Err(none());
        }
        let whole = || {
            // By itself first: what closes a group that it did not open would mean something else in ours.
            if !value.is_empty() {
                pattern::pattern(&value)?;
            }
            pattern::pattern(&format!("^(?:{value})$"))
        };
        let test = match sign {
            "=~" => Test::Fits(whole()?),
            "!~" => Test::FitsNot(whole()?),
            "!=" => Test::IsNot(value),
            _ => Test::Is(value),
        };
        Ok(Self { label: label.to_owned(), test })
    }

    /// Whether labels fulfil it.
    pub fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.label).map_or("", String::as_str);
        match &self.test {
            Test::Is(wanted) => value == wanted,
            Test::IsNot(unwanted) => value != unwanted,
            Test::Fits(pattern) => pattern.is_match(value),
            Test::FitsNot(pattern) => !pattern.is_match(value),
        }
    }
}

/// The conditions of one rule: all of them.
#[derive(Clone, Debug)]
pub struct Matchers(Option<Vec<Matcher>>);

impl Matchers {
    /// Reads them; what cannot be read, which a checked document does not have, is fulfilled by nothing.
    pub fn read(texts: &[String]) -> Self {
        Self(texts.iter().map(|text| Matcher::read(text)).collect::<Result<_, _>>().ok())
    }

    /// Whether labels fulfil all of them.
    pub fn fit(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.as_ref().is_some_and(|all| all.iter().all(|matcher| matcher.fits(labels)))
    }
}

impl fmt::Display for AlertState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        })
    }
}

#[cfg(test)]
mod tests;

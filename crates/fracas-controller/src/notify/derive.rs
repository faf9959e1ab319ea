//! Which facts of the histories are worth telling, and in which words: one fact, at most one notice.
//!
//! Pure: a fold that remembers only names and what is still open. It knows neither channels nor receivers.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat};
use fracas_model::{
    event::{AbortKind, Body, Event, VerdictWord},
    id::{HostId, ItemKey, RunId},
    notice::{Interest, Kind},
    schedule::{Due, Fact, Skip},
    time::Stamp,
};
use serde_json::{Map, Value};

/// Longest text of one field, in characters; a reason that is longer says no more to somebody who is paged.
const LONGEST: usize = 500;
/// Longest summary, in characters: fits a line of mail and a page.
const LONGEST_SUMMARY: usize = 250;
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
    fn new(event: &Event, kind: Kind, severity: Severity, subject: String, summary: &str) -> Self {
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

    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn opening(self, key: String) -> Self {
        let of = self.kind;
        self.incident(Incident { key, of, opens: true })
    }

    fn closing(self, key: String, of: Kind) -> Self {
        self.incident(Incident { key, of, opens: false })
    }

    fn incident(mut self, incident: Incident) -> Self {
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
        fixed.into_iter().chain(self.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()))).collect()
    }
}

fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(written).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    }
}

fn text(text: &str) -> Value {
    one_line(text, LONGEST).into()
}

fn texts<'t>(all: impl Iterator<Item = &'t String>) -> Value {
    Value::Array(all.take(LISTED).map(|one| text(one)).collect())
}

/// What of the histories must be remembered to tell a fact in words that people understand.
#[derive(Debug, Default)]
pub struct Known {
    runs: BTreeMap<RunId, KnownRun>,
    hosts: BTreeMap<HostId, String>,
    /// Environment of each schedule.
    schedules: BTreeMap<String, String>,
}

/// A run that is not over.
#[derive(Debug, Default)]
struct KnownRun {
    /// The last fact that was taken.
    seq: u64,
    experiment: String,
    environment: String,
    hosts: BTreeMap<HostId, String>,
    /// When a controller took it over last.
    resumed: Option<Stamp>,
    lost: BTreeSet<HostId>,
    undo_failed: BTreeSet<ItemKey>,
    /// Incidents that are open, with the kind that opened them.
    open: BTreeMap<String, Kind>,
}

impl Known {
    /// Whether the earlier facts of its stream must be taken before this one can be told.
    pub fn lacks(&self, event: &Event) -> bool {
        if event.seq <= 1 {
            return false;
        }
        match &event.body {
            Body::Aborted { .. }
            | Body::Finished { .. }
            | Body::HostContact { .. }
            | Body::Resumed { .. }
            | Body::UndoFailed { .. }
            | Body::Undone { .. } => named(event, "run/").is_some_and(|run| !self.runs.contains_key(&RunId::from(run))),
            Body::HostQuarantined { .. } | Body::HostReleased { .. } => {
                named(event, "host/").is_some_and(|host| !self.hosts.contains_key(&HostId::from(host)))
            }
            Body::Schedule { .. } => named(event, "schedule/").is_some_and(|name| !self.schedules.contains_key(name)),
            _ => false,
        }
    }

    /// Takes the next fact of its stream; what is to be told of it. A fact of a run that was taken before is no news.
    pub fn take(&mut self, event: &Event) -> Option<Notice> {
        if let Some(run) = named(event, "run/") {
            return self.run(&RunId::from(run), event);
        }
        if let Some(host) = named(event, "host/") {
            return self.host(&HostId::from(host), event);
        }
        if let (Some(name), Body::Schedule { fact, .. }) = (named(event, "schedule/"), &event.body) {
            return self.schedule(name, fact, event);
        }
        halt(event)
    }

    fn run(&mut self, id: &RunId, event: &Event) -> Option<Notice> {
        if let Body::Planned { document, hosts, by, environment, .. } = &event.body {
            let experiment = document.get("name").and_then(Value::as_str).unwrap_or_default();
            let run = KnownRun {
                seq: event.seq,
                experiment: one_line(experiment, LONGEST),
                environment: environment.clone(),
                hosts: hosts.clone(),
                ..KnownRun::default()
            };
            let summary = format!("{} started by {by}", run.called(id));
            let notice = run.notice(id, event, Kind::RunStarted, Severity::Info, &summary);
            let notice = notice.with("by", text(by)).with("hosts", texts(hosts.values()));
            self.runs.insert(id.clone(), run);
            return Some(notice);
        }
        if matches!(event.body, Body::ReportSealed { .. }) {
            self.runs.remove(id);
            return None;
        }
        let run = self.runs.get_mut(id)?;
        if event.seq <= run.seq {
            return None;
        }
        run.seq = event.seq;
        run.take(id, event)
    }

    fn host(&mut self, id: &HostId, event: &Event) -> Option<Notice> {
        let called = |known: &Self| known.hosts.get(id).cloned().unwrap_or_else(|| id.to_string());
        let (kind, severity, summary) = match &event.body {
            Body::HostEnrolled { name, .. } => {
                self.hosts.insert(id.clone(), one_line(name, LONGEST));
                return None;
            }
            Body::HostQuarantined { run, .. } => {
                let why = format!("host {} is quarantined: run {run} was left unconfirmed on it", called(self));
                (Kind::HostQuarantined, Severity::Critical, why)
            }
            Body::HostReleased { why, .. } => (
                Kind::HostReleased,
                Severity::Info,
                format!("host {} is not quarantined any more: {why}", called(self)),
            ),
            _ => return None,
        };
        let notice = Notice::new(event, kind, severity, event.stream.clone(), &summary);
        let notice = notice.with("host", called(self)).with("hostId", id.as_str());
        Some(match &event.body {
            Body::HostQuarantined { run, .. } => notice.with("run", run.as_str()).opening(event.stream.clone()),
            Body::HostReleased { why, .. } => {
                notice.with("reason", text(why)).closing(event.stream.clone(), Kind::HostQuarantined)
            }
            _ => notice,
        })
    }

    fn schedule(&mut self, name: &str, fact: &Fact, event: &Event) -> Option<Notice> {
        if let Fact::Set { environment, .. } = fact {
            self.schedules.insert(name.to_owned(), environment.clone());
            return None;
        }
        let environment = self.schedules.get(name).cloned().unwrap_or_default();
        let new = |kind, severity, summary: &str| Notice {
            environment,
            ..Notice::new(event, kind, severity, event.stream.clone(), summary).with("schedule", name)
        };
        let at = |due: &Due| instant(due.at_ns);
        Some(match fact {
            Fact::Started { due, run } => {
                let summary = format!("schedule {name}: run {run} started for {}", at(due));
                let notice = new(Kind::ScheduleStarted, Severity::Info, &summary);
                let notice = notice.with("run", run.as_str()).with("due", at(due));
                notice.closing(event.stream.clone(), Kind::ScheduleSkipped)
            }
            Fact::Skipped { from, to, count, reason } => {
                let when = if *count == 1 { at(from) } else { format!("{count} times, {} to {}", at(from), at(to)) };
                let summary = format!("schedule {name} skipped {when}: {reason}");
                let meant = matches!(reason, Skip::NotAllowedThen | Skip::Blackout { .. } | Skip::Paused { .. });
                let notice = if meant {
                    new(Kind::ScheduleWithheld, Severity::Info, &summary)
                } else {
                    new(Kind::ScheduleSkipped, Severity::Warning, &summary).opening(event.stream.clone())
                };
                notice.with("due", at(from)).with("count", *count).with("reason", text(&reason.to_string()))
            }
            Fact::Paused { reason, by } => {
                let summary = format!("schedule {name} is paused by {by}: {reason}");
                let notice = new(Kind::SchedulePaused, Severity::Info, &summary);
                notice.with("reason", text(reason)).with("by", text(by))
            }
            Fact::Resumed { by } => {
                let summary = format!("schedule {name} goes on, by {by}");
                new(Kind::ScheduleResumed, Severity::Info, &summary).with("by", text(by))
            }
            Fact::Set { .. } | Fact::Queued { .. } | Fact::Removed { .. } => return None,
        })
    }
}

impl KnownRun {
    /// `run ID of EXPERIMENT`, with the environment where that says something.
    fn called(&self, id: &RunId) -> String {
        match self.environment.as_str() {
            "" | "default" => format!("run {id} of {}", self.experiment),
            environment => format!("run {id} of {} in {environment}", self.experiment),
        }
    }

    fn host(&self, host: &HostId) -> String {
        self.hosts.get(host).map_or_else(|| host.to_string(), |name| one_line(name, LONGEST))
    }

    fn notice(&self, id: &RunId, event: &Event, kind: Kind, severity: Severity, summary: &str) -> Notice {
        let notice = Notice::new(event, kind, severity, event.stream.clone(), summary);
        let environment = self.environment.clone();
        Notice { environment, ..notice }.with("experiment", text(&self.experiment)).with("run", id.as_str())
    }

    fn take(&mut self, id: &RunId, event: &Event) -> Option<Notice> {
        match &event.body {
            Body::Resumed { .. } => {
                self.resumed = Some(event.received.clone());
                None
            }
            Body::HostContact { host, connected, .. } => self.contact(id, event, host, *connected),
            Body::UndoFailed { item, failures, .. } => {
                self.undo_failed.insert(item.clone());
                let host = self.host(&item.host);
                let what = format!("{}: {} on {host} could not be undone yet", self.called(id), item.entry);
                let summary = format!("{what}: {}", failures.join("; "));
                let notice = self.notice(id, event, Kind::UndoFailed, Severity::Critical, &summary);
                let notice = notice.with("reason", texts(failures.iter())).with("entry", item.entry.as_str());
                Some(self.opens(notice.with("host", host).with("hostId", item.host.as_str()), undo_key(id, item)))
            }
            Body::Undone { item, .. } if self.undo_failed.remove(item) => {
                let host = self.host(&item.host);
                let summary = format!("{}: {} on {host} is undone after all", self.called(id), item.entry);
                let notice = self.notice(id, event, Kind::UndoDone, Severity::Info, &summary);
                let notice = notice.with("entry", item.entry.as_str()).with("host", host);
                let key = undo_key(id, item);
                self.open.remove(&key);
                Some(notice.with("hostId", item.host.as_str()).closing(key, Kind::UndoFailed))
            }
            Body::Aborted { cause, why, .. } => {
                let summary = format!("{} is being ended: {cause}", self.called(id));
                // What a person did, or what never began, needs no other person.
                let meant = matches!(why, AbortKind::Gate | AbortKind::Stop | AbortKind::Halt);
                let severity = if meant { Severity::Warning } else { Severity::Error };
                let notice = self.notice(id, event, Kind::RunAborted, severity, &summary).with("reason", text(cause));
                Some(if meant { notice } else { self.opens(notice, event.stream.clone()) })
            }
            Body::Finished { verdict, exit_code, reasons, .. } => {
                let reason = reasons.first().map(|reason| format!(": {reason}")).unwrap_or_default();
                let summary = format!("{}: {}{reason}", self.called(id), verdict.name());
                let notice = self.notice(id, event, Kind::RunFinished, severity_of(verdict), &summary);
                let notice = notice.with("verdict", verdict.name()).with("exitCode", *exit_code);
                let mut notice = notice.with("reason", texts(reasons.iter()));
                // A host that was left open is an incident of its own from here on.
                for (key, of) in std::mem::take(&mut self.open) {
                    notice = notice.closing(key, of);
                }
                let series = format!("experiment/{}/{}", self.environment, self.experiment);
                Some(match verdict {
                    VerdictWord::Pass => notice.closing(series, Kind::RunFinished),
                    VerdictWord::Fail | VerdictWord::Error | VerdictWord::UndoUnconfirmed => notice.opening(series),
                    VerdictWord::Inconclusive | VerdictWord::Aborted | VerdictWord::Refused => notice,
                })
            }
            _ => None,
        }
    }

    /// Hosts that are not in contact as a controller begins were left by the controller; those that stay away are told by
    /// what comes of that.
    fn contact(&mut self, id: &RunId, event: &Event, host: &HostId, connected: bool) -> Option<Notice> {
        let key = format!("run/{id}/host/{host}");
        let name = self.host(host);
        let notice = if connected {
            if !self.lost.remove(host) {
                return None;
            }
            self.open.remove(&key);
            let summary = format!("host {name} is in contact again during {}", self.called(id));
            self.notice(id, event, Kind::HostBack, Severity::Info, &summary).closing(key, Kind::HostLost)
        } else {
            if self.resumed.as_ref() == Some(&event.received) || !self.lost.insert(host.clone()) {
                return None;
            }
            let summary = format!("host {name} went out of contact during {}", self.called(id));
            let notice = self.notice(id, event, Kind::HostLost, Severity::Error, &summary);
            self.opens(notice, key)
        };
        Some(notice.with("host", name).with("hostId", host.as_str()))
    }

    fn opens(&mut self, notice: Notice, key: String) -> Notice {
        self.open.insert(key.clone(), notice.kind);
        notice.opening(key)
    }
}

fn undo_key(id: &RunId, item: &ItemKey) -> String {
    format!("run/{id}/undo/{}/{}/{}/{}", item.entry, item.occurrence, item.generation, item.host)
}

fn severity_of(verdict: &VerdictWord) -> Severity {
    match verdict {
        VerdictWord::Pass => Severity::Info,
        VerdictWord::Inconclusive | VerdictWord::Aborted | VerdictWord::Refused => Severity::Warning,
        VerdictWord::Fail | VerdictWord::Error => Severity::Error,
        VerdictWord::UndoUnconfirmed => Severity::Critical,
    }
}

fn halt(event: &Event) -> Option<Notice> {
    named(event, "audit/")?;
    let (kind, severity, did, by, reason) = match &event.body {
        Body::Halted { by, reason, .. } => (Kind::HaltSet, Severity::Error, "everything is halted", by, reason),
        Body::HaltCleared { by, reason, .. } => (Kind::HaltCleared, Severity::Info, "the halt is cleared", by, reason),
        _ => return None,
    };
    let notice = Notice::new(event, kind, severity, "halt".into(), &format!("{did} by {by}: {reason}"));
    let notice = notice.with("by", text(by)).with("reason", text(reason));
    let incident = Incident { key: "halt".into(), of: Kind::HaltSet, opens: kind == Kind::HaltSet };
    Some(notice.incident(incident))
}

/// The rest of a stream's name behind a prefix.
fn named<'e>(event: &'e Event, prefix: &str) -> Option<&'e str> {
    event.stream.strip_prefix(prefix)
}

#[cfg(test)]
mod tests;

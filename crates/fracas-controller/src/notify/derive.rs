//! Which facts of the histories are worth telling, and in which words: one fact, at most one notice.
//!
//! Pure: a fold that remembers only names and what is still open. It knows neither channels nor receivers.

use std::collections::{BTreeMap, BTreeSet};

use fracas_model::{
    event::{AbortKind, Body, Event, VerdictWord},
    experiment::{Action, Experiment},
    id::{EntryId, HostId, ItemKey, RunId},
    notice::Kind,
    schedule::{Due, Fact, Skip},
    time::Stamp,
    units::Dur,
};
use serde_json::Value;

use super::notice::{Incident, LONGEST, Notice, Severity, instant, one_line, text, texts};

/// Whether anything is ever told of such a fact, or must be remembered of it.
pub(super) fn matters(body: &Body) -> bool {
    matches!(
        body,
        Body::Planned { .. }
            | Body::Resumed { .. }
            | Body::HostContact { .. }
            | Body::UndoFailed { .. }
            | Body::Undone { .. }
            | Body::EntryStarted { .. }
            | Body::EntrySkipped { .. }
            | Body::EntryEnded { .. }
            | Body::EntryFailed { .. }
            | Body::Decided { .. }
            | Body::Aborted { .. }
            | Body::Finished { .. }
            | Body::ReportSealed { .. }
            | Body::HostEnrolled { .. }
            | Body::HostQuarantined { .. }
            | Body::HostReleased { .. }
            | Body::HostDuplicated { .. }
            | Body::HostTrusted { .. }
            | Body::HostRevoked { .. }
            | Body::HostCertificateLow { .. }
            | Body::HostCertificateUsed { .. }
            | Body::Halted { .. }
            | Body::HaltCleared { .. }
            | Body::Schedule { .. }
    )
}

/// What of the histories must be remembered to tell a fact in words that people understand.
#[derive(Debug, Default)]
pub struct Known {
    runs: BTreeMap<RunId, KnownRun>,
    hosts: BTreeMap<HostId, String>,
    /// Hosts of whose certificate little was left.
    low: BTreeSet<HostId>,
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
    /// What its entries ask, and how long each waits for an answer.
    questions: BTreeMap<EntryId, (String, Dur)>,
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
            | Body::EntryStarted { .. }
            | Body::EntrySkipped { .. }
            | Body::EntryEnded { .. }
            | Body::EntryFailed { .. }
            | Body::Decided { .. }
            | Body::Finished { .. }
            | Body::HostContact { .. }
            | Body::Resumed { .. }
            | Body::UndoFailed { .. }
            | Body::Undone { .. } => named(event, "run/").is_some_and(|run| !self.runs.contains_key(&RunId::from(run))),
            Body::HostQuarantined { .. }
            | Body::HostReleased { .. }
            | Body::HostDuplicated { .. }
            | Body::HostTrusted { .. }
            | Body::HostRevoked { .. }
            | Body::HostCertificateLow { .. }
            | Body::HostCertificateUsed { .. } => {
                named(event, "host/").is_some_and(|host| !self.hosts.contains_key(&HostId::from(host)))
            }
            Body::Schedule { .. } => named(event, "schedule/").is_some_and(|name| !self.schedules.contains_key(name)),
            _ => false,
        }
    }

    /// Takes the next fact of its stream; what is to be told of it. A fact of a run that was taken before is no news.
    pub fn take(&mut self, event: &Event) -> Option<Notice> {
        if !matters(&event.body) {
            return None;
        }
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
                questions: questions(document),
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
        if let Body::HostEnrolled { name, .. } = &event.body {
            self.hosts.insert(id.clone(), one_line(name, LONGEST));
            return None;
        }
        // A host that has no name in its history is called by its id from here on.
        let name = self.hosts.entry(id.clone()).or_insert_with(|| id.to_string()).clone();
        let (stream, of) = (event.stream.clone(), Kind::HostQuarantined);
        let (twins, low) = (format!("{stream}/duplicate"), format!("{stream}/certificate"));
        let notice = |kind, severity, summary: &str| {
            let notice = Notice::new(event, kind, severity, stream.clone(), summary);
            notice.with("host", name.clone()).with("hostId", id.as_str())
        };
        Some(match &event.body {
            Body::HostQuarantined { run, .. } => {
                let summary = format!("host {name} is quarantined: run {run} was left unconfirmed on it");
                notice(of, Severity::Critical, &summary).with("run", run.as_str()).opening(stream.clone())
            }
            Body::HostReleased { why, .. } => {
                let summary = format!("host {name} is not quarantined any more: {why}");
                let notice = notice(Kind::HostReleased, Severity::Info, &summary);
                notice.with("reason", text(why)).closing(stream.clone(), of)
            }
            Body::HostDuplicated { why, .. } => {
                let summary = format!("host {name} seems to be two, and gets no fault: {why}");
                notice(Kind::HostDuplicate, Severity::Critical, &summary).with("reason", text(why)).opening(twins)
            }
            Body::HostTrusted { by, reason, .. } => {
                let summary = format!("host {name} is one again, says {by}: {reason}");
                let notice = notice(Kind::HostTrusted, Severity::Info, &summary).with("by", text(by));
                notice.with("reason", text(reason)).closing(twins, Kind::HostDuplicate)
            }
            Body::HostRevoked { by, reason, .. } => {
                let summary = format!("host {name} is revoked by {by}: {reason}");
                let notice = notice(Kind::HostRevoked, Severity::Warning, &summary).with("by", text(by));
                let notice = notice.with("reason", text(reason)).closing(twins, Kind::HostDuplicate);
                notice.closing(low, Kind::CertificateLow)
            }
            Body::HostCertificateLow { until_s, .. } => {
                self.low.insert(id.clone());
                let until = instant(until_s.saturating_mul(1_000_000_000));
                let summary =
                    format!("the certificate of host {name} ends at {until}, and its agent does not renew it");
                notice(Kind::CertificateLow, Severity::Warning, &summary).opening(low)
            }
            Body::HostCertificateUsed { .. } if self.low.remove(id) => {
                let summary = format!("host {name} uses its next certificate");
                notice(Kind::CertificateRenewed, Severity::Info, &summary).closing(low, Kind::CertificateLow)
            }
            _ => return None,
        })
    }

    fn schedule(&mut self, name: &str, fact: &Fact, event: &Event) -> Option<Notice> {
        if let Fact::Set { environment, .. } = fact {
            self.schedules.insert(name.to_owned(), environment.clone());
            return None;
        }
        let environment = self.schedules.entry(name.to_owned()).or_default().clone();
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
            Fact::Set { .. } | Fact::Queued { .. } | Fact::Removed { .. } | Fact::SetBack { .. } | Fact::Summary(_) => {
                return None;
            }
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
                // The host tries on and tells each new reason; that it has not succeeded is told once.
                if !self.undo_failed.insert(item.clone()) {
                    return None;
                }
                let host = self.host(&item.host);
                let what = format!("{}: {} on {host} could not be undone yet", self.called(id), item.entry);
                let summary = format!("{what}: {}", failures.join("; "));
                let notice = self.notice(id, event, Kind::UndoFailed, Severity::Critical, &summary);
                let notice = notice.with("reason", texts(failures.iter())).with("entry", text(item.entry.as_str()));
                Some(self.opens(notice.with("host", host).with("hostId", item.host.as_str()), undo_key(id, item)))
            }
            Body::Undone { item, .. } if self.undo_failed.remove(item) => {
                let host = self.host(&item.host);
                let summary = format!("{}: {} on {host} is undone after all", self.called(id), item.entry);
                let notice = self.notice(id, event, Kind::UndoDone, Severity::Info, &summary);
                let notice = notice.with("entry", text(item.entry.as_str())).with("host", host);
                let key = undo_key(id, item);
                self.open.remove(&key);
                Some(notice.with("hostId", item.host.as_str()).closing(key, Kind::UndoFailed))
            }
            Body::Aborted { cause, why, .. } => {
                let summary = format!("{} is being ended: {cause}", self.called(id));
                // What a person did, or what never began, needs no other person.
                let meant = matches!(why, AbortKind::Gate | AbortKind::NoGo | AbortKind::Stop | AbortKind::Halt);
                let severity = if meant { Severity::Warning } else { Severity::Error };
                let mut notice =
                    self.notice(id, event, Kind::RunAborted, severity, &summary).with("reason", text(cause));
                // It waits for no answer any more.
                for (key, of) in self.open.extract_if(.., |_, of| *of == Kind::DecisionWanted) {
                    notice = notice.closing(key, of);
                }
                Some(if meant { notice } else { self.opens(notice, event.stream.clone()) })
            }
            Body::EntryStarted { entry, at, .. } => self.asks(id, event, entry, at),
            Body::Decided { entry, go, by, note, .. } => {
                let answer = if *go { "go" } else { "no-go" };
                let note = if note.is_empty() { String::new() } else { format!(": {note}") };
                let told = self.answered(id, event, entry, &format!("{answer} by {by}{note}"))?;
                Some(told.with("by", text(by)).with("reason", text(note.trim_start_matches(": "))))
            }
            Body::EntryEnded { entry, .. } => self.answered(id, event, entry, "it waits for no answer any more"),
            Body::EntrySkipped { entry, why, .. } | Body::EntryFailed { entry, why, .. } => {
                Some(self.answered(id, event, entry, why)?.with("reason", text(why)))
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

    /// An entry that asks begins to wait for its answer.
    fn asks(&mut self, id: &RunId, event: &Event, entry: &EntryId, at: &Stamp) -> Option<Notice> {
        let (question, deadline) = self.questions.get(entry)?;
        let limit = instant(at.wall_ns.saturating_add(deadline.ns()));
        let summary = format!("{} asks, until {limit}: {entry}: {question}", self.called(id));
        let notice = self.notice(id, event, Kind::DecisionWanted, Severity::Warning, &summary);
        let notice = notice.with("reason", text(question)).with("entry", text(entry.as_str())).with("due", limit);
        Some(self.opens(notice, decision_key(id, entry)))
    }

    /// Nothing is told of an entry that waits for no answer.
    fn answered(&mut self, id: &RunId, event: &Event, entry: &EntryId, how: &str) -> Option<Notice> {
        let key = decision_key(id, entry);
        let of = self.open.remove(&key)?;
        let summary = format!("{}: {entry}: {how}", self.called(id));
        let notice = self.notice(id, event, Kind::DecisionMade, Severity::Info, &summary);
        Some(notice.with("entry", text(entry.as_str())).closing(key, of))
    }

    fn opens(&mut self, notice: Notice, key: String) -> Notice {
        self.open.insert(key.clone(), notice.kind);
        notice.opening(key)
    }
}

/// What the entries of a document ask.
fn questions(document: &Value) -> BTreeMap<EntryId, (String, Dur)> {
    let experiment: Result<Experiment, _> = serde_json::from_value(document.clone());
    let asks = |entry: fracas_model::experiment::Entry| match entry.action {
        Action::Approval { question, deadline, .. } => Some((entry.id, (question, deadline))),
        _ => None,
    };
    // A document that cannot be read is no run either, and its driver says so.
    experiment.map(|experiment| experiment.timeline.into_iter().filter_map(asks).collect()).unwrap_or_default()
}

fn decision_key(id: &RunId, entry: &EntryId) -> String {
    format!("run/{id}/decision/{entry}")
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

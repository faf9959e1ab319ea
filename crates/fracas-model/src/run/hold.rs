//! Entries at which a run waits for something to be seen or said, and the sections of a game day: when each begins and
//! is over. It decides nothing about faults.

use super::{
    EntryState, Run,
    decide::{Decision, SEAL},
};
use crate::{
    event::{AbortKind, Body},
    experiment::{Action, Entry, OnFailure, Otherwise, Section},
    id::{EntryId, ProbeId, ServiceId},
    time::Stamp,
};

/// How the question of an entry was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Go, or not.
    pub go: bool,
    /// Who said so (a pseudonymous id).
    pub by: String,
    /// In a few words.
    pub note: String,
}

impl Answer {
    /// `no-go by p-1abcde: the replica lags`.
    pub fn text(&self) -> String {
        let note = if self.note.is_empty() { String::new() } else { format!(": {}", self.note) };
        format!("{} by {}{note}", if self.go { "go" } else { "no-go" }, self.by)
    }
}

impl Run {
    /// The entry that somebody means who is to answer its question: its own name, or that of its section.
    pub fn question(&self, name: &str) -> Option<&EntryId> {
        let asks = |entry: &&Entry| matches!(entry.action, Action::Approval { .. });
        let mut asking = self.experiment.timeline.iter().filter(asks).map(|entry| &entry.id);
        asking.clone().find(|id| id.as_str() == name).or_else(|| {
            let section = self.experiment.sections.iter().find(|section| section.id.as_str() == name)?;
            asking.find(|id| **id == section.added("approval"))
        })
    }

    /// Whether somebody may answer the question of an entry at `now`.
    ///
    /// # Errors
    /// Why not.
    pub fn may_decide(&self, entry: &EntryId, by: &str, now: &Stamp) -> Result<(), String> {
        let Some(Action::Approval { deadline, .. }) = self.action(entry) else {
            return Err(format!("{entry} asks nothing"));
        };
        let state = &self.entries[entry];
        if let Some(answer) = &state.answer {
            return Err(format!("{entry} was answered already: {}", answer.text()));
        }
        if state.over.is_some() || self.aborted.is_some() || self.stop.is_some() {
            return Err(format!("{entry} waits for no answer any more"));
        }
        let Some(asked) = &state.started else { return Err(format!("{entry} does not ask yet")) };
        if now.boot_ns >= asked.later(*deadline).boot_ns {
            return Err(format!("{entry} waited {deadline} for an answer, and that is over"));
        }
        if by == self.by {
            return Err("whoever started the run does not decide: somebody else must".to_owned());
        }
        Ok(())
    }

    /// Takes an answer; one that does not count changes nothing.
    pub(super) fn decided(&mut self, entry: &EntryId, go: bool, by: &str, note: &str, at: &Stamp) {
        if self.may_decide(entry, by, at).is_ok()
            && let Some(state) = self.entries.get_mut(entry)
        {
            state.answer = Some(Answer { go, by: by.to_owned(), note: note.to_owned() });
        }
    }

    /// Whether a probe is to look now, as far as its section goes.
    pub(super) fn looks(&self, probe: &ProbeId) -> bool {
        self.experiment.section_of(probe.as_str()).is_none() || self.in_force(probe.as_str()).is_some()
    }

    /// Since when what bears this name is in force, if it is: since the gate, or since its section began.
    pub(super) fn in_force(&self, name: &str) -> Option<&Stamp> {
        match self.experiment.section_of(name) {
            None => self.gate.as_ref(),
            Some(section) => self.begun(section).filter(|_| !self.over(section)),
        }
    }

    /// What an entry's waits count from when nothing of its timeline came before it.
    pub(super) fn origin_of(&self, entry: &Entry) -> Option<Stamp> {
        match self.experiment.section_of(entry.id.as_str()) {
            None => self.gate.clone(),
            Some(section) => self.begun(section).cloned(),
        }
    }

    /// When the first entry of a section started, or was passed over.
    pub(super) fn begun(&self, section: &Section) -> Option<&Stamp> {
        let mut states = self.entries_of(section).map(|entry| &self.entries[&entry.id]);
        states.find_map(|state| state.started.as_ref().or(state.over.as_ref()))
    }

    pub(super) fn over(&self, section: &Section) -> bool {
        self.entries.get(&section.last()).is_some_and(|state| state.over.is_some())
    }

    fn entries_of<'a>(&'a self, section: &'a Section) -> impl Iterator<Item = &'a Entry> {
        let timeline = self.experiment.timeline.iter();
        timeline.filter(|entry| self.experiment.section_of(entry.id.as_str()).is_some_and(|one| one.id == section.id))
    }

    /// Nothing was done that the services of a section would have to recover from.
    pub(super) fn nothing_to_recover(&self, entry: &Entry) -> bool {
        let Action::Recovery { .. } = entry.action else { return false };
        let Some(section) = self.experiment.section_of(entry.id.as_str()) else { return false };
        let mut faults = self.entries_of(section).filter(|entry| matches!(entry.action, Action::Fault { .. }));
        faults.all(|fault| self.entries[&fault.id].started.is_none())
    }

    /// What becomes of a started entry that waits for something to be seen or said.
    pub(super) fn hold(&self, entry: &Entry, state: &EntryState, now: &Stamp, decision: &mut Decision) {
        let Some(started) = &state.started else { return };
        match &entry.action {
            Action::Check { probes, hold_for, give_up_after, on_failure } => {
                // What nobody can look at is not well.
                let unseen = |probe: &ProbeId| self.vantages.get(probe).is_none_or(Vec::is_empty);
                let mut short = probes.iter().filter(|probe| unseen(probe) || !self.held(probe, started, *hold_for));
                let (short, unopened) = (short.next(), self.unopened_for(entry, *give_up_after));
                if short.is_none() && unopened.is_none() {
                    return decision.append.push(ended(entry, now));
                }
                // The last word of what was seen in time comes after it.
                let limit = started.later(*give_up_after + SEAL).boot_ns;
                if now.boot_ns < limit {
                    return decision.wait_until(limit);
                }
                let why = match (short, unopened) {
                    (Some(short), _) => {
                        let up = self.worst_up(short).min(*give_up_after).human();
                        format!("was not met within {give_up_after}: {short} was up for {up} of {hold_for}")
                    }
                    (None, unopened) => format!("was not met: {}", unopened.unwrap_or_default()),
                };
                decision.append.push(match on_failure {
                    OnFailure::Continue => failed(entry, why, now),
                    OnFailure::Stop => aborted(AbortKind::Gate, format!("{} {why}", entry.id), now),
                });
            }
            Action::Approval { deadline, otherwise, .. } => {
                let limit = started.later(*deadline).boot_ns;
                let why = match &state.answer {
                    Some(answer) if answer.go => return decision.append.push(ended(entry, now)),
                    Some(answer) => answer.text(),
                    None if now.boot_ns < limit => return decision.wait_until(limit),
                    None => format!("nobody decided within {deadline}"),
                };
                decision.append.push(match otherwise {
                    Otherwise::Skip => failed(entry, why, now),
                    Otherwise::Stop => aborted(AbortKind::NoGo, format!("{}: {why}", entry.id), now),
                });
            }
            Action::Recovery { services } => {
                let watched = services.iter().filter(|service| self.probes_of(service).next().is_some());
                let open: Vec<ServiceId> = watched.filter(|service| !self.settled(service, started)).cloned().collect();
                let limit = started.later(self.experiment.recovery.give_up_after).boot_ns;
                if open.is_empty() {
                    decision.append.push(ended(entry, now));
                } else if now.boot_ns < limit {
                    decision.wait_until(limit);
                } else {
                    decision.append.push(Body::GaveUp { services: open, at: now.clone() });
                    decision.append.push(ended(entry, now));
                }
            }
            Action::Fault { .. } | Action::Wait { .. } => {}
        }
    }
}

fn ended(entry: &Entry, now: &Stamp) -> Body {
    Body::EntryEnded { entry: entry.id.clone(), at: now.clone() }
}

fn failed(entry: &Entry, why: String, now: &Stamp) -> Body {
    Body::EntryFailed { entry: entry.id.clone(), why, at: now.clone() }
}

fn aborted(why: AbortKind, cause: String, now: &Stamp) -> Body {
    Body::Aborted { cause, why, at: now.clone() }
}

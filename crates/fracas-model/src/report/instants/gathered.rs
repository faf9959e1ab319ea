//! What a run's history tells of each instant, on the clock it was read from. What follows is not its business.

use std::collections::BTreeMap;

use super::{Known, Name};
use crate::{
    event::UndoCause,
    experiment::Trigger,
    id::{EntryId, ItemKey, ServiceId},
    mark::Mark,
    report::{
        alerts::{Fired, Rules, WITHIN, fired, offset_of},
        cause_text,
        services::Incident,
        story::{Item, Marked, Story},
        verdict::abort_word,
    },
    time::{ClockId, Stamp},
};

/// Earliest, latest, and the event that tells it.
type Told = (i64, i64, u64);

/// What is known of one service.
pub(super) struct Gathered<'a> {
    pub story: &'a Story,
    pub service: Option<&'a ServiceId>,
    pub incident: Option<&'a Incident>,
}

impl Gathered<'_> {
    pub(super) fn known(&self) -> BTreeMap<Name, Known> {
        let mut known = BTreeMap::new();
        if let Some(entry) = self.entry() {
            let of_entry = [
                (Name::Planned, self.planned(&entry)),
                (Name::Commanded, self.commanded(&entry)),
                (Name::Effective, self.effective(&entry)),
                (Name::Reverted, self.reverted(&entry)),
            ];
            known.extend(of_entry.into_iter().filter_map(|(name, at)| Some((name, at?))));
        }
        if let Some(incident) = self.incident {
            let at = |lo, hi, how: &str| Known {
                clock: incident.clock.clone(),
                lo,
                hi,
                placed: None,
                how: how.into(),
                events: incident.outage.events.clone(),
            };
            let outage = &incident.outage;
            known.insert(Name::Impact, at(outage.start_lo, Some(outage.start_hi), "as its probe saw"));
            let how = if outage.end_hi.is_some() { "as its probe saw" } else { "it was not back when last seen" };
            known.insert(Name::Recovered, at(Some(outage.end_lo), outage.end_hi, how));
        }
        for (name, at) in self.alerted(known.get(&Name::Effective)) {
            known.insert(name, at);
        }
        // The first that was told counts: a second acknowledgement acknowledges nothing.
        for mark in self.marks() {
            let at = self.told(mark);
            let name = Name::marked(mark.mark);
            if known.get(&name).is_none_or(|other| at.placed < other.placed) {
                known.insert(name, at);
            }
        }
        let first = [Name::Alerted, Name::Declared, Name::Detected].into_iter().filter_map(|name| {
            let at = known.get(&name)?;
            let how = if name == Name::Detected { at.how.clone() } else { format!("{}, {}", name.words(), at.how) };
            Some(Known { how, ..at.clone() })
        });
        // All are the controller's stamps, if not always of one boot of it.
        if let Some(first) = first.min_by_key(|at| at.placed) {
            known.insert(Name::Detected, first);
        }
        known
    }

    /// When the first alert of a rule for this service fired, when the word of one came here, and when the last of them was
    /// resolved. One that fired before the fault took effect proves nothing, and a section has its alerts while it lasts.
    fn alerted(&self, effective: Option<&Known>) -> Vec<(Name, Known)> {
        let Some(from) = effective.and_then(|at| Some(self.story.offset(&at.clock, at.lo?))) else { return Vec::new() };
        let experiment = self.story.experiment.as_ref();
        let section = |name: &str| experiment.and_then(|experiment| experiment.section_of(name));
        let own = self.service.and_then(|service| section(service.as_str()));
        let over = own.and_then(|own| self.story.entries.get(&own.last())?.over);
        let rules = Rules::of(self.story);
        let speaks = |one: &Fired<'_>| {
            rules.fulfilled(one.signal).any(|(id, service)| match (service, section(id.as_str())) {
                (Some(service), _) => Some(service) == self.service,
                (None, of) => of.is_none_or(|of| own.is_some_and(|own| own.id == of.id)),
            })
        };
        let counts = |placed: (i64, i64)| placed.1 >= from && over.is_none_or(|over| placed.0 <= over);
        let mine = fired(self.story).into_iter().filter(speaks);
        let mine = mine.filter_map(|one| one.placed(self.story).filter(|at| counts(*at)).map(|placed| (placed, one)));
        let mine: Vec<((i64, i64), Fired<'_>)> = mine.collect();
        let mut told = Vec::new();
        if let Some((placed, first)) = mine.iter().min_by_key(|(placed, _)| *placed) {
            let how = format!(
                "alert {} of {}, whose clock is taken to be within {WITHIN}; the word came {} after",
                first.signal.name(),
                first.source,
                first.underway().human()
            );
            let (clock, events) = (first.came.clock.clone(), first.events.clone());
            let (lo, hi) = (first.at.map(|at| at.0), first.at.map(|at| at.1));
            told.push((Name::Alerted, Known { clock, lo, hi, placed: Some(*placed), how, events }));
        }
        // Where somebody says when a responder was notified, that is it: the word here is for a machine.
        let notified = self.marks().any(|mark| mark.mark == Mark::Notified);
        let words = mine.iter().map(|(_, one)| (self.story.since_origin(one.came), one));
        if let Some((at, first)) = words.min_by_key(|(at, _)| *at).filter(|_| !notified) {
            let (clock, boot_ns) = (first.came.clock.clone(), Some(first.came.boot_ns));
            let how = format!("the word of alert {} came here", first.signal.name());
            let events = first.events.iter().take(1).copied().collect();
            let placed = Some((at, at));
            told.push((Name::Notified, Known { clock, lo: boot_ns, hi: boot_ns, placed, how, events }));
        }
        let ends: Option<Vec<(i64, i64, &Stamp)>> = mine.iter().map(|(_, one)| one.ended()).collect();
        let placed =
            |(lo, hi, came): (i64, i64, &Stamp)| (offset_of(self.story, lo, came), offset_of(self.story, hi, came));
        if let Some(last) = ends.into_iter().flatten().max_by_key(|end| placed(*end)) {
            let (lo, hi, came) = last;
            let how = format!("its source's word, whose clock is taken to be within {WITHIN}");
            let events = mine.iter().filter_map(|(_, one)| one.events.last().copied()).collect();
            let clock = came.clock.clone();
            told.push((
                Name::Resolved,
                Known { clock, lo: Some(lo), hi: Some(hi), placed: Some(placed(last)), how, events },
            ));
        }
        told
    }

    fn marks(&self) -> impl Iterator<Item = &Marked> {
        self.story.marks.iter().filter(|mark| mark.service.is_none() || mark.service.as_ref() == self.service)
    }

    /// The attempt whose fault is told of: that which the outage is counted from, else the first that took effect, else
    /// the first that was asked for.
    fn entry(&self) -> Option<(EntryId, u32, u32)> {
        let of_incident = self.incident.and_then(|incident| incident.opened_by.clone());
        of_incident.or_else(|| {
            let experiment = self.story.experiment.as_ref()?;
            let section = |name: &str| experiment.section_of(name).map(|section| &section.id);
            let mine = |entry: &EntryId| self.service.is_none_or(|s| section(s.as_str()) == section(entry.as_str()));
            let effective = self.story.items.iter().filter(|(key, item)| mine(&key.entry) && item.effective.is_some());
            let first = effective.min_by_key(|(_, item)| {
                let from = item.effective.as_ref().map(|effective| &effective.from);
                from.map_or(i64::MAX, |from| self.story.clocks.place(&from.clock, from.boot_ns))
            });
            let asked = || {
                let mut keys = self.story.items.keys().filter(|key| mine(&key.entry)).collect::<Vec<_>>();
                keys.sort_by_key(|key| self.story.entries.get(&key.entry).and_then(|times| times.started));
                keys.into_iter().next()
            };
            let key = first.map(|(key, _)| key).or_else(asked)?;
            Some((key.entry.clone(), key.occurrence, key.generation))
        })
    }

    fn items<'a>(&'a self, of: &'a (EntryId, u32, u32)) -> impl Iterator<Item = (&'a ItemKey, &'a Item)> + Clone {
        self.story.items.iter().filter(|(key, _)| (&key.entry, key.occurrence, key.generation) == (&of.0, of.1, of.2))
    }

    /// Only an offset is known beforehand: what waits for something else has no planned instant.
    fn planned(&self, of: &(EntryId, u32, u32)) -> Option<Known> {
        let entry = self.story.experiment.as_ref()?.timeline.iter().find(|entry| entry.id == of.0)?;
        let Trigger::At(offset) = entry.trigger else { return None };
        let gate = self.story.gate.as_ref()?;
        let at = gate.boot_ns.saturating_add(offset.ns());
        let how = format!("at {offset} in the document");
        let placed = self.story.since_origin(gate).saturating_add(offset.ns());
        let placed = Some((placed, placed));
        Some(Known { clock: gate.clock.clone(), lo: Some(at), hi: Some(at), placed, how, events: Vec::new() })
    }

    fn commanded(&self, of: &(EntryId, u32, u32)) -> Option<Known> {
        let (at, seq) = self.story.entries.get(&of.0)?.asked.as_ref()?;
        let (lo, how) = (Some(at.boot_ns), "the controller's decision".to_owned());
        let placed = self.story.since_origin(at);
        let placed = Some((placed, placed));
        Some(Known { clock: at.clock.clone(), lo, hi: lo, placed, how, events: vec![*seq] })
    }

    /// The first of its hosts.
    fn effective(&self, of: &(EntryId, u32, u32)) -> Option<Known> {
        let spans = self.items(of).filter_map(|(_, item)| {
            let between = item.effective.as_ref()?;
            Some((&between.from, &between.to, item.effective_seq))
        });
        let (clock, spans) = self.together(spans.collect())?;
        let (lo, hi) = (spans.iter().map(|s| s.0).min(), spans.iter().map(|s| s.1).min());
        let how = on_hosts("around the system call", spans.len(), "first");
        Some(Known { clock, lo, hi, placed: None, how, events: spans.iter().map(|s| s.2).collect() })
    }

    /// The last of its hosts, where all have said so.
    fn reverted(&self, of: &(EntryId, u32, u32)) -> Option<Known> {
        let lasting = self.items(of).filter(|(_, item)| item.effective.is_some() && !item.one_shot());
        if lasting.clone().any(|(_, item)| item.undone.is_none()) {
            return None;
        }
        let causes: Vec<UndoCause> = lasting.clone().filter_map(|(_, item)| Some(item.undone.as_ref()?.0)).collect();
        let spans = lasting.filter_map(|(_, item)| {
            let (_, between, _) = item.undone.as_ref()?;
            Some((&between.from, &between.to, item.undone_seq))
        });
        let (clock, spans) = self.together(spans.collect())?;
        let (lo, hi) = (spans.iter().map(|s| s.0).max(), spans.iter().map(|s| s.1).max());
        let why = self.why(*causes.iter().find(|cause| **cause != UndoCause::Expired).or(causes.first())?);
        let how = on_hosts(&why, spans.len(), "last");
        Some(Known { clock, lo, hi, placed: None, how, events: spans.iter().map(|s| s.2).collect() })
    }

    fn why(&self, cause: UndoCause) -> String {
        match (&self.story.aborted, cause) {
            (Some((kind, why)), UndoCause::NotDesired) => format!("{}: {why}", abort_word(*kind)),
            _ => cause_text(cause).to_owned(),
        }
    }

    /// Several spans on one clock: their own if they share it, else the controller's.
    fn together(&self, spans: Vec<(&Stamp, &Stamp, u64)>) -> Option<(ClockId, Vec<Told>)> {
        let clock = spans.first()?.0.clock.clone();
        if spans.iter().all(|(from, to, _)| from.clock == clock && to.clock == clock) {
            return Some((clock, spans.iter().map(|(from, to, seq)| (from.boot_ns, to.boot_ns, *seq)).collect()));
        }
        let controller = self.story.clocks.controller()?.clone();
        let on = |(from, to, seq): &(&Stamp, &Stamp, u64)| {
            let (lo, _) = self.story.clocks.to(from, &controller)?;
            let (_, hi) = self.story.clocks.to(to, &controller)?;
            Some((lo, hi, *seq))
        };
        // A host that no map reaches may have been the first or the last.
        let all: Option<Vec<_>> = spans.iter().map(on).collect();
        Some((controller, all?))
    }

    fn told(&self, mark: &Marked) -> Known {
        let mut how = match &mark.did {
            Some(did) => format!("{did}, as {} says", mark.by),
            None => format!("as {} says", mark.by),
        };
        if !mark.note.is_empty() {
            how = format!("{how}: {}", mark.note);
        }
        let (from, to) = (&mark.when.from, &mark.when.to);
        Known {
            clock: from.clock.clone(),
            lo: Some(from.boot_ns),
            hi: Some(to.boot_ns),
            placed: Some((self.story.since_origin(from), self.story.since_origin(to))),
            how,
            events: vec![mark.seq],
        }
    }
}

fn on_hosts(how: &str, hosts: usize, which: &str) -> String {
    if hosts > 1 { format!("{how}, {which} of {hosts} hosts") } else { how.to_owned() }
}

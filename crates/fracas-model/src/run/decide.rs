//! What a run does next: given the fold and the instant, the events to append and when to look again.

use chrono::DateTime;

use super::{EntryState, Phase, Run, Sight};
use crate::{
    event::{AbortKind, Body, UndoCause},
    experiment::{Action, AfterWhat, Entry, OnInterrupt, Trigger},
    id::{EntryId, HostId, ItemKey, ProbeId, ServiceId},
    report::cause_text,
    time::Stamp,
    units::Dur,
};

/// Summaries of readings arrive up to a second after the look.
pub(super) const SEAL: Dur = Dur::from_secs(1);
/// How often an interrupted fault is asked for anew.
const MAX_GENERATIONS: u32 = 3;
/// Added to the give-up time and the lease before an unconfirmed undo ends a run, and to an item's own time and the
/// lease before its host's silence does (house rule).
const UNDO_GRACE: Dur = Dur::from_secs(30);
/// An entry that is late by more than this is not started any more: whoever watched the run does not expect it.
const TOO_LATE: Dur = Dur::from_secs(60);

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Facts to append; then fold and decide again.
    pub append: Vec<Body>,
    /// The run is over: append `Finished` with the verdict of the history.
    pub finish: bool,
    /// Decide again at this instant (controller boot time) even if nothing happens.
    pub wake_ns: Option<i64>,
}

impl Decision {
    pub(super) fn one(body: Body) -> Self {
        Self { append: vec![body], ..Self::default() }
    }

    pub(super) fn wait_until(&mut self, ns: i64) {
        self.wake_ns = Some(self.wake_ns.map_or(ns, |known| known.min(ns)));
    }
}

impl Run {
    /// The next step from here, at `now` on the controller's clock.
    pub fn decide(&self, now: &Stamp) -> Decision {
        if matches!(self.phase, Phase::Finished) {
            return Decision::default();
        }
        if let Phase::Undoing { since } = &self.phase {
            return self.finish_undo(now, since);
        }
        if self.aborted.is_some() {
            return Decision::one(Body::UndoStarted { at: now.clone() });
        }
        if let Some((why, cause)) = self.reason_to_abort(now) {
            return Decision::one(Body::Aborted { cause, why, at: now.clone() });
        }
        let mut decision = match &self.phase {
            Phase::Planned => Decision::one(Body::GateStarted { at: now.clone() }),
            Phase::Gating { since } => self.gate(now, since),
            Phase::Running => self.timeline(now),
            Phase::Recovering { since } => self.recover(now, since),
            Phase::Undoing { .. } | Phase::Finished => Decision::default(),
        };
        decision.append.extend(self.recoveries(now));
        // A lease that has run out was seen to already; only one that has yet to run out is waited for.
        let items = self.given_up_for_lost().chain(self.overdue()).map(|(_, at_ns)| at_ns);
        if let Some(ns) = items.chain(self.losing()).filter(|at_ns| *at_ns > now.boot_ns).min() {
            decision.wait_until(ns);
        }
        if let Some(ns) = self.rest_ends(now) {
            decision.wait_until(ns);
        }
        decision
    }

    /// Items that are open on hosts out of contact, each with the instant from which nothing good can come of it any
    /// more. Once its lease has run out the host has undone it, or will never say. Where it ended by itself before that,
    /// or may be applied anew, the host's word is waited for as long as a recovery is.
    fn given_up_for_lost(&self) -> impl Iterator<Item = (&ItemKey, i64)> {
        let open = self.items.iter().filter(|(_, item)| !item.closed() && (item.failed.is_none() || item.touched));
        open.filter_map(|(key, item)| {
            let since = self.lost_contact.get(&key.host)?;
            let lease = since.later(self.experiment.lease);
            let entry = self.experiment.timeline.iter().find(|e| e.id == key.entry)?;
            let Action::Fault { duration, .. } = &entry.action else { return None };
            let ends = item.asked.as_ref().zip(*duration).map(|(at, length)| at.later(length));
            let over = ends.is_none_or(|at| at.boot_ns <= lease.boot_ns);
            let patient = over || entry.on_interrupt == OnInterrupt::Reapply;
            let limit = if patient { lease.later(self.experiment.recovery.give_up_after) } else { lease };
            Some((key, limit.boot_ns))
        })
    }

    /// Items that are open on hosts in contact, each with the instant at which its end should have been heard of, whatever
    /// went well or badly there.
    fn overdue(&self) -> impl Iterator<Item = (&ItemKey, i64)> {
        let open = self.items.iter().filter(|(key, item)| !item.closed() && !self.lost_contact.contains_key(&key.host));
        open.filter_map(|(key, item)| {
            let Action::Fault { duration, .. } = self.action(&key.entry)? else { return None };
            let ends = item.asked.as_ref()?.later(duration.unwrap_or_default());
            let back = self.back_in_contact.get(&key.host).map_or(i64::MIN, |at| at.boot_ns);
            let grace = self.experiment.lease + UNDO_GRACE;
            Some((key, ends.boot_ns.max(back).saturating_add(grace.ns())))
        })
    }

    fn reason_to_abort(&self, now: &Stamp) -> Option<(AbortKind, String)> {
        if let Some(made_ns) = self.restored {
            let made = DateTime::from_timestamp_nanos(made_ns).format("%Y-%m-%d %H:%M:%S UTC");
            let cause = format!("the controller's history was restored from a backup made at {made}");
            return Some((AbortKind::Controller, cause));
        }
        if self.rebooted || now.clock != self.clock {
            return Some((AbortKind::Controller, "the controller's machine was started anew during the run".into()));
        }
        let waited = elapsed(now, &self.planned);
        if matches!(self.phase, Phase::Planned) && waited > TOO_LATE {
            let cause = format!("it was accepted {} before the controller could start it", waited.human());
            return Some((AbortKind::Controller, cause));
        }
        if let Some(why) = &self.broken {
            return Some((AbortKind::GuardRail, why.clone()));
        }
        if let Some((by, reason)) = &self.stop {
            let halted = by.starts_with("halt:");
            let kind = if halted { AbortKind::Halt } else { AbortKind::Stop };
            return Some((kind, if halted { reason.clone() } else { format!("stopped by {by}: {reason}") }));
        }
        if let Some(refused) = &self.refused_look {
            return Some((AbortKind::Fault, refused.clone()));
        }
        if let Some(cause) = self.stopped(now) {
            return Some((AbortKind::StopCondition, cause));
        }
        if let Some((key, _)) = self.given_up_for_lost().find(|(_, at_ns)| *at_ns <= now.boot_ns) {
            let (host, lease) = (self.name(&key.host), self.experiment.lease);
            let cause = format!("{} on {host}: contact was lost for longer than the lease of {lease}", key.entry);
            return Some((AbortKind::Fault, cause));
        }
        if let Some((key, _)) = self.overdue().find(|(_, at_ns)| *at_ns <= now.boot_ns) {
            let (item, host) = (&self.items[key], self.name(&key.host));
            let what = if item.touched { "its undo was not confirmed" } else { "the host said nothing about it" };
            return Some((
                AbortKind::Fault,
                format!("{} on {host}: {what}, long after it should have ended", key.entry),
            ));
        }
        // A canary that did not hold was taken back.
        let lasting = self.items.iter().filter(|(key, _)| self.stands(&key.entry));
        lasting.into_iter().find_map(|(key, item)| {
            let entry = self.experiment.timeline.iter().find(|e| e.id == key.entry)?;
            if let Some(failure) = &item.failed
                && entry.required
            {
                return Some((AbortKind::Fault, format!("{} on {} {failure}", key.entry, self.name(&key.host))));
            }
            let given_up = entry.on_interrupt == OnInterrupt::Fail || key.generation >= MAX_GENERATIONS;
            let last = self.entries[&key.entry].generation == key.generation;
            let cause = item.undone.filter(|_| item.interrupted() && given_up && last)?;
            let (host, why) = (self.name(&key.host), cause_text(cause));
            let kind = if cause == UndoCause::NotDesired { AbortKind::Controller } else { AbortKind::Fault };
            Some((kind, format!("{} on {host} was interrupted: {why}", key.entry)))
        })
    }

    pub(super) fn name<'a>(&'a self, host: &'a HostId) -> &'a str {
        self.names.get(host).map_or(host.as_str(), String::as_str)
    }

    fn gate(&self, now: &Stamp, since: &Stamp) -> Decision {
        let mut probes =
            self.experiment.steady_state.iter().flat_map(|gate| gate.probes.iter().map(move |p| (gate, p)));
        let Some((gate, short)) = probes.find(|(gate, p)| self.worst_up(p) < gate.hold_for) else {
            // What is lost can be told only of what was written before.
            let Some((cause, within)) = self.unopened() else {
                return Decision::one(Body::GatePassed { at: now.clone() });
            };
            if elapsed(now, since) >= within {
                return Decision::one(Body::Aborted { cause, why: AbortKind::Gate, at: now.clone() });
            }
            return Decision { wake_ns: Some(since.later(within).boot_ns), ..Decision::default() };
        };
        if elapsed(now, since) >= gate.give_up_after {
            let cause = format!(
                "steady state was not met within {}: {short} was up for {} of {}",
                gate.give_up_after,
                self.worst_up(short).human(),
                gate.hold_for
            );
            return Decision::one(Body::Aborted { cause, why: AbortKind::Gate, at: now.clone() });
        }
        Decision { wake_ns: Some(since.later(gate.give_up_after).boot_ns), ..Decision::default() }
    }

    fn timeline(&self, now: &Stamp) -> Decision {
        let mut decision = Decision::default();
        for entry in &self.experiment.timeline {
            let state = &self.entries[&entry.id];
            if state.over.is_some() {
                continue;
            }
            if state.started.is_none() {
                self.start(entry, now, &mut decision);
            } else {
                self.carry_on(entry, state, now, &mut decision);
            }
        }
        let over = |e: &Entry| self.through(&e.id).is_some();
        if decision.append.is_empty() && self.experiment.timeline.iter().all(over) {
            decision.append.push(Body::RecoveryStarted { at: now.clone() });
        }
        decision
    }

    fn start(&self, entry: &Entry, now: &Stamp, decision: &mut Decision) {
        let skip = |why: String| Body::EntrySkipped { entry: entry.id.clone(), why, at: now.clone() };
        let due = self.due(entry);
        // In a game day its section must have begun: until then nothing of it has happened.
        let reached = match &due {
            Due::At(ns) | Due::Until(ns, _) => *ns <= now.boot_ns,
            Due::Never(_) => true,
            Due::Unknown => false,
        };
        if let Action::Fault { target, .. } = &entry.action
            && self.targets.get(target).is_none_or(Vec::is_empty)
            && (reached || self.experiment.sections.is_empty())
        {
            return decision.append.push(skip(format!("target {target} matches no host")));
        }
        // To look or to ask late does no harm: what comes after counts from there.
        let harmless = !matches!(entry.action, Action::Fault { .. } | Action::Wait { .. });
        match due {
            Due::At(ns) if ns <= now.boot_ns && self.nothing_to_recover(entry) => {
                decision.append.push(skip("no fault of the section was started".into()));
            }
            Due::At(ns) if !harmless && now.boot_ns.saturating_sub(ns) > TOO_LATE.ns() => {
                decision.append.push(Body::Aborted {
                    cause: format!(
                        "{} was due {} ago, when the controller was away",
                        entry.id,
                        Dur::from_ns(now.boot_ns - ns).human()
                    ),
                    why: AbortKind::Controller,
                    at: now.clone(),
                });
            }
            Due::At(ns) if ns <= now.boot_ns => decision.append.push(Body::EntryStarted {
                entry: entry.id.clone(),
                occurrence: 0,
                generation: 1,
                at: now.clone(),
            }),
            Due::Never(why) => decision.append.push(skip(why)),
            Due::Until(ns, why) if ns <= now.boot_ns => decision.append.push(skip(why)),
            Due::At(ns) | Due::Until(ns, _) => decision.wait_until(ns),
            Due::Unknown => {}
        }
    }

    fn carry_on(&self, entry: &Entry, state: &EntryState, now: &Stamp, decision: &mut Decision) {
        let ended = Body::EntryEnded { entry: entry.id.clone(), at: now.clone() };
        match &entry.action {
            Action::Wait { duration } => {
                let end = state.started.as_ref().map_or(0, |s| s.later(*duration).boot_ns);
                if end <= now.boot_ns { decision.append.push(ended) } else { decision.wait_until(end) }
            }
            Action::Fault { .. } => {
                let mut mine = self.items.iter().filter(|(key, _)| key.entry == entry.id);
                let again = entry.on_interrupt == OnInterrupt::Reapply
                    && state.generation < MAX_GENERATIONS
                    && mine.clone().any(|(key, item)| key.generation == state.generation && item.interrupted());
                if again {
                    decision.append.push(Body::EntryStarted {
                        entry: entry.id.clone(),
                        occurrence: 0,
                        generation: state.generation + 1,
                        at: now.clone(),
                    });
                } else if self.narrow(&entry.id) {
                    self.roll_out(entry, state, now, decision);
                } else if mine.all(|(_, item)| item.closed()) {
                    decision.append.push(ended);
                }
            }
            Action::Check { .. } | Action::Approval { .. } | Action::Recovery { .. } => {
                self.hold(entry, state, now, decision);
            }
        }
    }

    /// When an entry was over, if nothing of it is left on any host: of a canary that did not hold the fault is undone after
    /// that.
    pub(super) fn through(&self, id: &EntryId) -> Option<&Stamp> {
        let state = self.entries.get(id)?;
        let mut mine = self.items.iter().filter(|(key, _)| key.entry == *id);
        state.over.as_ref().filter(|_| state.failed.is_none() || mine.all(|(_, item)| item.closed()))
    }

    pub(super) fn due(&self, entry: &Entry) -> Due {
        let Some(gate) = &self.gate else { return Due::Unknown };
        let Trigger::After { what, delay } = &entry.trigger else {
            let Trigger::At(offset) = &entry.trigger else { return Due::Unknown };
            return Due::At(gate.later(*offset).boot_ns);
        };
        let of = |id, pick: fn(&EntryState) -> Option<&Stamp>| {
            let Some(state) = self.entries.get(id) else { return Due::Never(format!("entry {id} does not exist")) };
            match pick(state) {
                Some(stamp) => Due::At(stamp.later(*delay).boot_ns),
                None if state.skipped.is_some() => Due::Never(format!("entry {id} was skipped")),
                None if state.failed.is_some() => {
                    Due::Never(format!("entry {id}: {}", state.failed.as_deref().unwrap_or_default()))
                }
                None if state.ended.is_some() => Due::Never(format!("entry {id} never became effective")),
                None => Due::Unknown,
            }
        };
        match what {
            AfterWhat::Started(id) => of(id, |s| s.started.as_ref()),
            AfterWhat::Effective(id) => of(id, |s| s.effective.as_ref()),
            AfterWhat::Ended(id) => of(id, |s| s.ended.as_ref()),
            AfterWhat::Recovered(service) => self.due_recovered(entry, service, *delay),
            AfterWhat::Over(ids) => {
                let over = ids.iter().map(|id| Some(self.through(id)?.later(*delay).boot_ns));
                over.collect::<Option<Vec<i64>>>()
                    .map_or(Due::Unknown, |all| Due::At(all.into_iter().max().unwrap_or(gate.boot_ns)))
            }
        }
    }

    fn due_recovered(&self, entry: &Entry, service: &ServiceId, delay: Dur) -> Due {
        if let Some(why) = self.held_back(entry) {
            return Due::Never(why);
        }
        let from = match self.before(entry).map(|before| &self.entries[&before.id]) {
            None => self.origin_of(entry),
            Some(state) if state.skipped.is_some() => state.over.clone(),
            Some(state) => state.effective.clone().or_else(|| state.ended.clone()),
        };
        let Some(from) = from else { return Due::Unknown };
        let after_outage = self.recovered.get(service).filter(|at| at.boot_ns >= from.boot_ns);
        if let Some(at) = after_outage {
            return Due::At(at.later(delay).boot_ns);
        }
        if !self.fallen.contains_key(service) && self.steady_since(service, &from) {
            return Due::At(from.later(self.experiment.recovery.stable_for + delay).boot_ns);
        }
        let deadline = from.later(self.experiment.recovery.give_up_after).boot_ns;
        Due::Until(deadline, format!("{service} was not stable within {}", self.experiment.recovery.give_up_after))
    }

    /// The entry before this one in its timeline, or in its section of one.
    fn before(&self, entry: &Entry) -> Option<&Entry> {
        let position = self.experiment.timeline.iter().position(|e| e.id == entry.id)?;
        let before = &self.experiment.timeline[position.checked_sub(1)?];
        let section = |entry: &Entry| self.experiment.section_of(entry.id.as_str()).map(|section| section.id.clone());
        (section(before) == section(entry)).then_some(before)
    }

    /// Why an entry must not start, if a look or a question failed on which it depends, also by way of others that were
    /// skipped for it: a no-go holds back whatever was to follow.
    fn held_back(&self, entry: &Entry) -> Option<String> {
        let mut entry = entry;
        // Nothing waits for itself; the bound is for a history that says so.
        for _ in &self.experiment.timeline {
            let Trigger::After { what, .. } = &entry.trigger else { return None };
            let cause = match what {
                AfterWhat::Started(id) | AfterWhat::Effective(id) | AfterWhat::Ended(id) => {
                    self.experiment.timeline.iter().find(|e| e.id == *id)?
                }
                AfterWhat::Recovered(_) => self.before(entry)?,
                AfterWhat::Over(_) => return None,
            };
            let state = &self.entries[&cause.id];
            if let Some(why) = &state.failed {
                return Some(format!("entry {}: {why}", cause.id));
            }
            state.skipped.as_ref()?;
            entry = cause;
        }
        None
    }

    fn recover(&self, now: &Stamp, since: &Stamp) -> Decision {
        let open: Vec<ServiceId> = self.watched().into_iter().filter(|s| !self.settled(s, since)).collect();
        if open.is_empty() || self.gave_up {
            return Decision::one(Body::UndoStarted { at: now.clone() });
        }
        let deadline = since.later(self.experiment.recovery.give_up_after).boot_ns;
        if now.boot_ns >= deadline {
            return Decision::one(Body::GaveUp { services: open, at: now.clone() });
        }
        Decision { wake_ns: Some(deadline), ..Decision::default() }
    }

    fn finish_undo(&self, now: &Stamp, since: &Stamp) -> Decision {
        let silent = self.silent();
        // Of a restored run nobody can say that nothing happened: only its hosts can.
        let unreached = |key: &&ItemKey| self.items[*key].out_of_reach && self.restored.is_none();
        let unreached: Vec<&ItemKey> = silent.iter().copied().filter(unreached).collect();
        if !unreached.is_empty() {
            let facts = unreached.into_iter().map(|item| Body::Withdrawn { item: item.clone(), at: now.clone() });
            return Decision { append: facts.collect(), ..Decision::default() };
        }
        let grace = self.experiment.recovery.give_up_after + self.experiment.lease + UNDO_GRACE;
        let deadline = since.later(grace).boot_ns;
        let over = now.boot_ns >= deadline;
        if over && !silent.is_empty() {
            let facts = silent.into_iter().map(|item| Body::Unanswered { item: item.clone(), at: now.clone() });
            return Decision { append: facts.collect(), ..Decision::default() };
        }
        let waiting = !silent.is_empty() || !self.unconfirmed().is_empty();
        if waiting && !over {
            return Decision { wake_ns: Some(deadline), ..Decision::default() };
        }
        self.finish_ledgers(now).unwrap_or(Decision { finish: true, ..Decision::default() })
    }

    fn recoveries(&self, now: &Stamp) -> Vec<Body> {
        let stable = self.experiment.recovery.stable_for;
        self.fallen
            .keys()
            .filter(|service| self.probes_of(service).all(|p| self.worst_up(p) >= stable))
            .filter_map(|service| {
                let seen = self.sights.iter().filter(|((p, _), _)| self.speaks_for(p, service)).map(|(_, sight)| sight);
                let last = seen.max_by_key(|sight| sight.since)?;
                let edge = last.edge_at.as_ref()?;
                let since = edge.later(Dur::from_ns(last.since - edge.boot_ns));
                Some(Body::ServiceRecovered { service: (*service).clone(), since, at: now.clone() })
            })
            .collect()
    }

    /// Services that some probe speaks for, but for those of sections, which are over when their sections are.
    fn watched(&self) -> Vec<ServiceId> {
        let whole = self.experiment.services.keys().filter(|s| self.experiment.section_of(s.as_str()).is_none());
        whole.filter(|s| self.probes_of(s).next().is_some()).cloned().collect()
    }

    pub(super) fn settled(&self, service: &ServiceId, since: &Stamp) -> bool {
        !self.fallen.contains_key(service) && self.steady_since(service, since)
    }

    /// Up from before `from` until a stable window after it, by the controller's clock; sealing may lag a second.
    pub(super) fn steady_since(&self, service: &ServiceId, from: &Stamp) -> bool {
        let stable = self.experiment.recovery.stable_for;
        self.probes_of(service).all(|probe| self.held(probe, from, stable))
    }

    /// The same of one probe and any window.
    pub(super) fn held(&self, probe: &ProbeId, from: &Stamp, window: Dur) -> bool {
        let seen = from.later(window + SEAL).boot_ns;
        self.vantages[probe].iter().all(|host| {
            let sight = self.sights.get(&(probe.clone(), host.clone()));
            let late = |s: &Sight| self.looked_until(s).is_none_or(|ns| ns >= from.later(window).boot_ns);
            sight.is_some_and(|s| s.ok == Some(true) && s.up_for() >= window && s.heard >= seen && late(s))
        })
    }

    /// When the last look of a stretch ended at the earliest, on the controller's clock: what was kept while there was no
    /// contact is heard late. `None` while the clocks were not compared.
    fn looked_until(&self, sight: &Sight) -> Option<i64> {
        let edge = sight.edge_at.as_ref()?;
        let map = self.clock_maps.get(&edge.clock).filter(|map| map.to == self.clock)?;
        Some(map.translate(&Stamp { boot_ns: sight.until, ..edge.clone() })?.0)
    }

    pub(super) fn probes_of<'a>(&'a self, service: &'a ServiceId) -> impl Iterator<Item = &'a ProbeId> {
        self.experiment.probes.keys().filter(move |probe| self.speaks_for(probe, service))
    }

    fn speaks_for(&self, probe: &ProbeId, service: &ServiceId) -> bool {
        self.experiment.probes.get(probe).is_some_and(|p| p.service.as_ref() == Some(service))
    }

    /// How long a probe was seen up from its worst vantage.
    pub(super) fn worst_up(&self, probe: &ProbeId) -> Dur {
        let hosts = self.vantages.get(probe).filter(|h| !h.is_empty());
        hosts.map_or(Dur::ZERO, |hosts| {
            let up = |host| self.sights.get(&(probe.clone(), host)).map_or(Dur::ZERO, Sight::up_for);
            hosts.iter().cloned().map(up).min().unwrap_or_default()
        })
    }
}

/// When an entry is due, as far as that is known.
pub(super) enum Due {
    At(i64),
    Until(i64, String),
    Unknown,
    Never(String),
}

fn elapsed(now: &Stamp, since: &Stamp) -> Dur {
    now.since(since).unwrap_or_default()
}

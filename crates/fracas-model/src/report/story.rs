//! One pass over a run's history: who, what, when, by item and by track. No judgement.

use std::collections::BTreeMap;

use super::{ItemMoment, ItemStep, Times, Verdict, clocks::Clocks, ledgers};
use crate::{
    estimate::Track,
    event::{AbortKind, Between, Body, Event, Measured, Proof, UndoCause},
    experiment::Experiment,
    id::{EntryId, HostId, ItemKey, ProbeId, RunId, ServiceId, TargetId},
    mark::Mark,
    plan::{Kind, Plan},
    run::Answer,
    signal::Signal,
    time::{ClockId, Stamp},
    units::Dur,
};

/// What `Planned` says, without the document.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub run: RunId,
    pub source_name: String,
    pub by: String,
    pub environment: String,
    pub seed: u64,
    pub intent: String,
    pub plan: String,
    pub targets: BTreeMap<TargetId, Vec<HostId>>,
    pub hosts: BTreeMap<HostId, String>,
    pub canaries: BTreeMap<EntryId, Vec<HostId>>,
    pub refused: Vec<String>,
}

/// One item's facts.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    pub plan: Option<Plan>,
    pub moments: Vec<ItemMoment>,
    pub effective: Option<Between>,
    pub effective_seq: u64,
    pub spent: Option<bool>,
    pub undone: Option<(UndoCause, Between, Vec<String>)>,
    pub undone_seq: u64,
    pub undoing: Option<(UndoCause, Stamp)>,
    pub proof: Option<Proof>,
    pub measured: Vec<Measured>,
    pub refused: Option<String>,
    pub failed: Option<String>,
    pub undo_failures: Vec<String>,
    pub touched: bool,
    pub unanswered: bool,
    pub found_clean: bool,
}

impl Item {
    /// Nothing to undo: it fired, or every step of its plan is a one-shot.
    pub(super) fn one_shot(&self) -> bool {
        let only_spent = |p: &Plan| !p.steps.is_empty() && p.steps.iter().all(|s| s.kind() == Kind::Spent);
        self.spent.is_some() || self.plan.as_ref().is_some_and(only_spent)
    }

    /// The host changed something lasting and has not confirmed that it is gone.
    pub(super) fn unconfirmed(&self) -> bool {
        self.unanswered || (self.touched && !self.found_clean && self.undone.is_none() && !self.one_shot())
    }
}

/// What one vantage saw of one probe on one clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    pub track: Track,
    pub looks: u64,
    pub failed: u64,
    pub missed: u64,
    pub gaps: Vec<crate::event::Look>,
    pub digests: Vec<String>,
}

/// When an entry started, ended, or why it did not.
#[derive(Clone, Debug, Default)]
pub(super) struct EntryTimes {
    pub asked: Option<(Stamp, u64)>,
    pub started: Option<i64>,
    pub widened: Option<i64>,
    pub ended: Option<i64>,
    pub skipped: Option<String>,
    pub failed: Option<String>,
    pub answer: Option<String>,
    /// When it ended, was skipped or failed.
    pub over: Option<i64>,
}

/// What somebody told of a moment, and nobody took back.
#[derive(Clone, Debug)]
pub(super) struct Marked {
    pub mark: Mark,
    pub service: Option<ServiceId>,
    pub when: Between,
    pub by: String,
    pub did: Option<String>,
    pub note: String,
    pub seq: u64,
}

/// What an alerting tool told at once.
#[derive(Clone, Debug)]
pub(super) struct Signalled {
    pub source: String,
    pub signals: Vec<Signal>,
    pub left_out: u64,
    pub at: Stamp,
    pub seq: u64,
}

impl Signalled {
    fn of(event: &Event) -> Option<Self> {
        let Body::Signalled { source, signals, left_out, at, .. } = &event.body else { return None };
        let (source, signals, at) = (source.clone(), signals.clone(), at.clone());
        Some(Self { source, signals, left_out: *left_out, at, seq: event.seq })
    }
}

/// Everything the report is made of.
#[derive(Clone, Debug)]
pub(super) struct Story {
    pub head: Head,
    pub experiment: Option<Experiment>,
    pub unreadable: Option<String>,
    pub clocks: Clocks,
    pub planned: Option<Stamp>,
    pub gate: Option<Stamp>,
    pub first: Option<Stamp>,
    pub last: Option<Stamp>,
    pub items: BTreeMap<ItemKey, Item>,
    pub entries: BTreeMap<EntryId, EntryTimes>,
    pub watches: BTreeMap<(ProbeId, ClockId), Watch>,
    pub refused_probes: BTreeMap<(ProbeId, HostId), String>,
    pub ledgers: ledgers::Book,
    /// Hosts began to look, and to write.
    pub steady: bool,
    /// Ledgers were to be read back.
    pub closed: bool,
    /// At which rate probes that may rest ticked from when on, on their vantages' clocks.
    paces: BTreeMap<(ProbeId, ClockId), Vec<(i64, Dur)>>,
    pub aborted: Option<(AbortKind, String)>,
    pub gave_up: Vec<ServiceId>,
    pub marks: Vec<Marked>,
    pub signals: Vec<Signalled>,
    pub resumed: u32,
    pub lost: Vec<HostId>,
    pub finished: Option<Verdict>,
}

impl Story {
    pub(super) fn read(events: &[Event]) -> Self {
        let mut story = Self {
            head: Head {
                run: RunId::new(events.first().map_or("", |e| e.stream.trim_start_matches("run/"))),
                source_name: String::new(),
                by: String::new(),
                environment: String::new(),
                seed: 0,
                intent: String::new(),
                plan: String::new(),
                targets: BTreeMap::new(),
                hosts: BTreeMap::new(),
                canaries: BTreeMap::new(),
                refused: Vec::new(),
            },
            experiment: None,
            unreadable: Some("the history does not start with a plan".into()),
            clocks: Clocks::default(),
            planned: None,
            gate: None,
            first: events.first().map(|e| e.received.clone()),
            last: events.last().map(|e| e.received.clone()),
            items: BTreeMap::new(),
            entries: BTreeMap::new(),
            watches: BTreeMap::new(),
            refused_probes: BTreeMap::new(),
            ledgers: BTreeMap::new(),
            steady: false,
            closed: false,
            paces: BTreeMap::new(),
            aborted: None,
            gave_up: Vec::new(),
            marks: Vec::new(),
            signals: Vec::new(),
            resumed: 0,
            lost: Vec::new(),
            finished: None,
        };
        // Clocks first: placing an early event may need a map that came later.
        for event in events {
            story.clocks.see(event, stamp_of(&event.body));
            if let Body::ClockSeen { map } = &event.body {
                story.clocks.see_map(map);
            }
        }
        for event in events {
            story.take(event);
        }
        for (key, paces) in std::mem::take(&mut story.paces) {
            if let Some(watch) = story.watches.get_mut(&key) {
                watch.track.paced(paces);
            }
        }
        story
    }

    /// Offset 0 on the controller's clock.
    pub(super) fn origin(&self) -> Option<&Stamp> {
        self.gate.as_ref().or(self.planned.as_ref()).or(self.first.as_ref())
    }

    /// Offset of an instant of any clock, for drawing and for lists.
    pub(super) fn offset(&self, clock: &ClockId, boot_ns: i64) -> i64 {
        self.clocks.place(clock, boot_ns).saturating_sub(self.origin().map_or(0, |o| o.boot_ns))
    }

    /// Offset of a stamp.
    pub(super) fn offset_of(&self, at: &Stamp) -> i64 {
        self.offset(&at.clock, at.boot_ns)
    }

    pub(super) fn times(&self) -> Times {
        let wall = |stamp: Option<&Stamp>| stamp.map_or(0, |s| s.wall_ns);
        let span = |stamp: Option<&Stamp>| stamp.map_or(0, |s| self.since_origin(s));
        Times {
            planned_wall_ns: wall(self.planned.as_ref().or(self.first.as_ref())),
            origin_wall_ns: wall(self.origin()),
            gate_passed: self.gate.is_some(),
            ended_wall_ns: wall(self.last.as_ref()),
            first_ns: span(self.planned.as_ref().or(self.first.as_ref())),
            last_ns: span(self.last.as_ref()),
            finished: self.finished.is_some(),
        }
    }

    /// Offset of a controller's stamp; after a reboot of the controller only wall time links the two.
    pub(super) fn since_origin(&self, stamp: &Stamp) -> i64 {
        let Some(origin) = self.origin() else { return 0 };
        // A stored stamp may be any number.
        if origin.clock == stamp.clock {
            stamp.boot_ns.saturating_sub(origin.boot_ns)
        } else {
            stamp.wall_ns.saturating_sub(origin.wall_ns)
        }
    }

    /// Items that a probe has to do with: in a game day those of its own section.
    pub(super) fn items_seen_by(&self, probe: &ProbeId) -> impl Iterator<Item = (&ItemKey, &Item)> {
        self.items_of(probe.as_str())
    }

    /// Items that what bears this name has to do with.
    pub(super) fn items_of(&self, name: &str) -> impl Iterator<Item = (&ItemKey, &Item)> {
        let of = |name: &str| self.experiment.as_ref().and_then(|e| Some(&e.section_of(name)?.id));
        let section = of(name);
        self.items.iter().filter(move |(key, _)| section.is_none() || section == of(key.entry.as_str()))
    }

    fn take(&mut self, event: &Event) {
        match &event.body {
            Body::Planned { .. } => self.plan(&event.body),
            Body::GatePassed { at } => self.gate = Some(at.clone()),
            Body::EntryStarted { entry, at, .. } => {
                let ns = self.since_origin(at);
                let times = self.entries.entry(entry.clone()).or_default();
                times.started.get_or_insert(ns);
                times.asked.get_or_insert_with(|| (at.clone(), event.seq));
            }
            Body::RolloutWidened { entry, at } => {
                let ns = self.since_origin(at);
                self.entries.entry(entry.clone()).or_default().widened.get_or_insert(ns);
            }
            Body::EntrySkipped { entry, why, at } => {
                let ns = self.since_origin(at);
                let times = self.entries.entry(entry.clone()).or_default();
                (times.skipped, times.over) = (Some(why.clone()), Some(ns));
            }
            Body::EntryEnded { entry, at } => {
                let ns = self.since_origin(at);
                let times = self.entries.entry(entry.clone()).or_default();
                (times.ended, times.over) = (Some(ns), Some(ns));
            }
            Body::EntryFailed { entry, why, at } => {
                let ns = self.since_origin(at);
                let times = self.entries.entry(entry.clone()).or_default();
                (times.failed, times.over) = (Some(why.clone()), Some(ns));
            }
            Body::Decided { entry, go, by, note, .. } => {
                let answer = Answer { go: *go, by: by.clone(), note: note.clone() };
                let times = self.entries.entry(entry.clone()).or_default();
                // As the run machine takes it: the first that counts.
                if *by != self.head.by && times.started.is_some() && times.over.is_none() {
                    times.answer.get_or_insert_with(|| answer.text());
                }
            }
            Body::Marked { mark, service, when, by, did, note, .. } => self.marks.push(Marked {
                mark: *mark,
                service: service.clone(),
                when: when.clone(),
                by: by.clone(),
                did: did.clone(),
                note: note.clone(),
                seq: event.seq,
            }),
            Body::Signalled { .. } => self.signals.extend(Signalled::of(event)),
            Body::MarkRetracted { mark, service, .. } => {
                self.marks.retain(|known| known.mark != *mark || known.service != *service);
            }
            Body::Aborted { cause, why, .. } => {
                self.aborted.get_or_insert((*why, cause.clone()));
            }
            Body::GaveUp { services, .. } => self.gave_up.extend(services.iter().cloned()),
            Body::Resumed { .. } => self.resumed += 1,
            Body::HostContact { host, connected: false, .. } => self.lost.push(host.clone()),
            Body::Finished { verdict, exit_code, reasons, .. } => {
                self.finished =
                    Some(Verdict { word: verdict.clone(), exit_code: *exit_code, reasons: reasons.clone() });
                self.last = Some(event.received.clone());
            }
            Body::ProbeRefused { probe, refusal, at } => {
                self.refused_probes.insert((probe.clone(), at.clock.host.clone()), refusal.to_string());
            }
            Body::ProbeStarted { probe, at } => self.paced(probe, None, at),
            Body::PaceChanged { probe, every, at } => self.paced(probe, Some(*every), at),
            Body::Edge { probe, at, .. } if !self.in_time(probe, at, at.boot_ns) => {}
            Body::Gap { probe, at, between, .. } | Body::ReadingsSealed { probe, at, between, .. }
                if !self.in_time(probe, at, between.s) => {}
            Body::Edge { probe, ok, before, after, at, .. } => {
                self.watch(probe, at).track.edge(*ok, *before, *after, event.seq);
            }
            Body::Gap { probe, missed, between, at, .. } => {
                let watch = self.watch(probe, at);
                watch.track.gap(*between);
                watch.gaps.push(*between);
                // A host may say any number.
                watch.missed = watch.missed.saturating_add(*missed);
            }
            Body::ReadingsSealed { probe, digest, between, ok, failed, at } => {
                let watch = self.watch(probe, at);
                watch.track.sealed(*between, *ok, *failed, event.seq);
                watch.looks += u64::from(*ok) + u64::from(*failed);
                watch.failed += u64::from(*failed);
                watch.digests.push(digest.clone());
            }
            Body::GateStarted { .. } => self.steady = true,
            Body::LedgersClosed { .. } => self.closed = true,
            body if body.ledger().is_some() => ledgers::take(&mut self.ledgers, body, self.closed),
            _ => self.take_item(event),
        }
    }

    /// Whether the section of a probe was not over when it looked: a host may hear late that it is.
    fn in_time(&self, probe: &ProbeId, at: &Stamp, boot_ns: i64) -> bool {
        let section = self.experiment.as_ref().and_then(|experiment| experiment.section_of(probe.as_str()));
        let over = section.and_then(|section| self.entries.get(&section.last())?.over);
        over.is_none_or(|over| self.offset(&at.clock, boot_ns) <= over)
    }

    /// A probe that starts looks at its full rate until it says otherwise.
    fn paced(&mut self, probe: &ProbeId, every: Option<Dur>, at: &Stamp) {
        let Some(known) = self.experiment.as_ref().and_then(|experiment| experiment.probes.get(probe)) else { return };
        if known.slowest() > known.every {
            // A host may say any number.
            let every = every.map_or(known.every, |every| every.clamp(known.every, known.slowest()));
            self.paces.entry((probe.clone(), at.clock.clone())).or_default().push((at.boot_ns, every));
        }
    }

    fn watch(&mut self, probe: &ProbeId, at: &Stamp) -> &mut Watch {
        self.watches.entry((probe.clone(), at.clock.clone())).or_default()
    }

    fn plan(&mut self, body: &Body) {
        let Body::Planned {
            run,
            document,
            source_name,
            intent,
            plan,
            seed,
            targets,
            hosts,
            canaries,
            rehearsed,
            by,
            environment,
            at,
            ..
        } = body
        else {
            return;
        };
        let refused = rehearsed.iter().flat_map(|r| {
            let host = hosts.get(&r.item.host).map_or(r.item.host.as_str(), String::as_str).to_owned();
            r.refusals.iter().map(move |refusal| format!("{} on {host}: {refusal}", r.item.entry))
        });
        self.head = Head {
            run: run.clone(),
            source_name: source_name.clone(),
            by: by.clone(),
            environment: environment.clone(),
            seed: *seed,
            intent: intent.clone(),
            plan: plan.clone(),
            targets: targets.clone(),
            hosts: hosts.clone(),
            canaries: canaries.clone(),
            refused: refused.collect(),
        };
        self.planned = Some(at.clone());
        match serde_json::from_value(document.clone()) {
            Ok(experiment) => (self.experiment, self.unreadable) = (Some(experiment), None),
            Err(error) => self.unreadable = Some(format!("the kept document cannot be read: {error}")),
        }
    }

    fn take_item(&mut self, event: &Event) {
        let Some(key) = event.body.item() else { return };
        if let Body::Unanswered { .. } = event.body {
            self.items.entry(key.clone()).or_default().unanswered = true;
        }
        if let Body::FoundClean { .. } = event.body {
            self.items.entry(key.clone()).or_default().found_clean = true;
        }
        let (step, at) = match &event.body {
            Body::Refused { at, .. } => (ItemStep::Refused, at),
            Body::Applying { at, .. } => (ItemStep::Applying, at),
            Body::Active { effective, .. } => (ItemStep::Active, &effective.to),
            Body::Checked { proof, at, .. } => (
                match proof {
                    Proof::Verified => ItemStep::Verified,
                    Proof::Ineffective { .. } => ItemStep::Ineffective,
                    Proof::Unverified { .. } => ItemStep::Unverified,
                },
                at,
            ),
            Body::Spent { effective, .. } => (ItemStep::Spent, &effective.to),
            Body::Undoing { at, .. } => (ItemStep::Undoing, at),
            Body::Undone { between, .. } => (ItemStep::Undone, &between.to),
            Body::UndoFailed { at, .. } => (ItemStep::UndoFailed, at),
            Body::Failed { at, .. } => (ItemStep::Failed, at),
            _ => return,
        };
        let moment = ItemMoment { step, at_ns: self.clocks.place(&at.clock, at.boot_ns), seq: event.seq };
        let item = self.items.entry(key.clone()).or_default();
        item.moments.push(moment);
        match &event.body {
            Body::Refused { refusal, .. } => item.refused = Some(refusal.to_string()),
            Body::Applying { plan, .. } => (item.touched, item.plan) = (true, Some(plan.clone())),
            Body::Active { effective, .. } => {
                (item.touched, item.effective, item.effective_seq) = (true, Some(effective.clone()), event.seq);
            }
            // The last word before the undo counts: afterwards there is nothing left to see.
            Body::Checked { .. } if item.undoing.is_some() || item.undone.is_some() => {}
            Body::Checked { proof, measured, .. } => {
                item.proof = Some(proof.clone());
                if !measured.is_empty() {
                    item.measured.clone_from(measured);
                }
            }
            Body::Spent { certain, effective, .. } => {
                (item.spent, item.effective, item.effective_seq) = (Some(*certain), Some(effective.clone()), event.seq);
            }
            Body::Undoing { cause, at, .. } => item.undoing = Some((*cause, at.clone())),
            Body::Undone { cause, between, superseded, .. } => {
                item.undone = Some((*cause, between.clone(), superseded.clone()));
                item.undone_seq = event.seq;
            }
            Body::UndoFailed { failures, .. } => item.undo_failures.clone_from(failures),
            Body::Failed { failure, .. } => item.failed = Some(failure.clone()),
            _ => {}
        }
    }
}

/// The instant a body tells of, on the clock of whoever saw it.
pub(super) fn stamp_of(body: &Body) -> Option<&Stamp> {
    Some(match body {
        Body::Active { effective, .. } | Body::Spent { effective, .. } => &effective.to,
        Body::Undone { between, .. } => &between.to,
        Body::Planned { at, .. }
        | Body::GateStarted { at }
        | Body::GatePassed { at }
        | Body::EntryStarted { at, .. }
        | Body::RolloutWidened { at, .. }
        | Body::EntrySkipped { at, .. }
        | Body::EntryEnded { at, .. }
        | Body::EntryFailed { at, .. }
        | Body::Decided { at, .. }
        | Body::Marked { at, .. }
        | Body::MarkRetracted { at, .. }
        | Body::Signalled { at, .. }
        | Body::ServiceRecovered { at, .. }
        | Body::StopRequested { at, .. }
        | Body::Aborted { at, .. }
        | Body::RecoveryStarted { at }
        | Body::GaveUp { at, .. }
        | Body::UndoStarted { at }
        | Body::HostContact { at, .. }
        | Body::Withdrawn { at, .. }
        | Body::Unanswered { at, .. }
        | Body::FoundClean { at, .. }
        | Body::Restored { at, .. }
        | Body::Resumed { at }
        | Body::Finished { at, .. }
        | Body::Refused { at, .. }
        | Body::Applying { at, .. }
        | Body::Checked { at, .. }
        | Body::Undoing { at, .. }
        | Body::UndoFailed { at, .. }
        | Body::Failed { at, .. }
        | Body::ProbeStarted { at, .. }
        | Body::PaceChanged { at, .. }
        | Body::ProbeRefused { at, .. }
        | Body::Edge { at, .. }
        | Body::StopConditionMet { at, .. }
        | Body::Gap { at, .. }
        | Body::ReadingsSealed { at, .. }
        | Body::LedgersClosed { at }
        | Body::LedgersReleased { at }
        | Body::LedgerOpened { at, .. }
        | Body::LedgerRefused { at, .. }
        | Body::MarkersWritten { at, .. }
        | Body::LedgerRead { at, .. }
        | Body::LedgerTroubled { at, .. }
        | Body::LedgerDropped { at, .. } => at,
        _ => return None,
    })
}

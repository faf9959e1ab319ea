//! The ledgers of a run: what each host said of its own, what is desired of it next, and what the run waits for.
//!
//! ```text
//! write (gate .. all undone) -> LedgersClosed -> read -> LedgersReleased -> drop -> finished
//! ```
//! The ledger of a section of a game day is written from its beginning to its end, then read back and removed.
//! Everything that the report makes of a ledger is in the history before its place is removed: one that could not be read
//! back is left, and named.

use super::{Phase, Run, decide::Decision};
use crate::{
    desired::{LedgerItem, LedgerWork},
    event::{Body, Event},
    experiment::{Entry, Ledger, Section},
    id::{HostId, LedgerId},
    ledger::{place, token},
    time::Stamp,
    units::Dur,
};

/// How long the places of ledgers are waited for to be made, where the document sets no limit for its steady state.
const OPEN_WITHIN: Dur = Dur::from_secs(60);
/// How long a ledger is tried to be read back, from all being undone: a service that has not come back until then is down.
const READ_WITHIN: Dur = Dur::from_secs(60);
/// How long a place is tried to be removed: a few attempts, of which each is given 10 s.
const DROP_WITHIN: Dur = Dur::from_secs(40);

/// How the ledgers of a run stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledgers {
    /// Of each host.
    pub each: std::collections::BTreeMap<(LedgerId, HostId), LedgerState>,
    /// Hosts were asked to keep them.
    pub asked: bool,
    /// Since when they are read back.
    pub closed: Option<Stamp>,
    /// Since when their places are removed.
    pub released: Option<Stamp>,
}

/// How the ledger of one host stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LedgerState {
    /// Its place was made.
    pub opened: bool,
    /// Its host will not keep it.
    pub refused: bool,
    /// It was read back, whole.
    pub read: bool,
    /// Its place is gone.
    pub dropped: bool,
    /// What failed last.
    pub trouble: Option<String>,
}

impl Ledgers {
    fn wait_anew(since: &mut Option<Stamp>, at: &Stamp) {
        if let Some(since) = since {
            since.clone_from(at);
        }
    }

    /// The controller's boot time began anew.
    pub(super) fn begin_anew(&mut self, at: &Stamp) {
        Self::wait_anew(&mut self.closed, at);
        Self::wait_anew(&mut self.released, at);
    }
}

impl Run {
    /// Takes what a host says of its ledgers; whether the event was that.
    pub(super) fn apply_ledger(&mut self, event: &Event, host: &HostId) -> bool {
        let (Body::LedgerOpened { ledger, .. }
        | Body::LedgerRefused { ledger, .. }
        | Body::LedgerRead { ledger, .. }
        | Body::LedgerTroubled { ledger, .. }
        | Body::LedgerDropped { ledger, .. }) = &event.body
        else {
            return false;
        };
        if !self.experiment.ledgers.get(ledger).is_some_and(|known| self.writers(known).contains(host)) {
            return true;
        }
        let state = self.ledgers.each.entry((ledger.clone(), host.clone())).or_default();
        match &event.body {
            Body::LedgerOpened { .. } => (state.opened, state.trouble) = (true, None),
            Body::LedgerRefused { refusal, .. } => {
                state.refused = true;
                if self.ledgers.closed.is_none() {
                    self.refused_look.get_or_insert_with(|| format!("ledger {ledger}: {refusal}"));
                }
            }
            Body::LedgerRead { last, .. } => (state.read, state.trouble) = (state.read || *last, None),
            Body::LedgerTroubled { why, .. } => state.trouble = Some(why.clone()),
            Body::LedgerDropped { .. } => (state.dropped, state.trouble) = (true, None),
            _ => {}
        }
        true
    }

    /// The hosts that write a ledger.
    fn writers<'a>(&'a self, ledger: &'a Ledger) -> &'a [HostId] {
        let target = ledger.from.clone().unwrap_or_else(|| super::OBSERVER.into());
        self.targets.get(&target).map_or(&[], Vec::as_slice)
    }

    /// Whether hosts were asked for a ledger: those of a section once that began.
    fn asked(&self, id: &LedgerId) -> bool {
        let section = self.experiment.section_of(id.as_str());
        self.ledgers.asked && section.is_none_or(|section| self.begun(section).is_some())
    }

    /// What should be done about a ledger.
    fn work(&self, id: &LedgerId, state: &LedgerState) -> LedgerWork {
        let section = self.experiment.section_of(id.as_str());
        let through = section.is_some_and(|section| self.over(section));
        // Whoever never heard of a place of ours removes what may be there; what was not read is not removed.
        let droppable = state.read || (!state.opened && self.ledgers.released.is_some());
        match &self.ledgers.closed {
            _ if droppable && (through || self.ledgers.released.is_some()) => LedgerWork::Drop,
            None if !through => LedgerWork::Write,
            _ => LedgerWork::Read,
        }
    }

    /// Every ledger of every host that should keep one.
    fn kept(&self) -> impl Iterator<Item = (&LedgerId, &Ledger, &HostId, LedgerState)> {
        let asked = self.experiment.ledgers.iter().filter(|(id, _)| self.asked(id));
        asked.flat_map(move |(id, ledger)| {
            self.writers(ledger).iter().map(move |host| {
                let state = self.ledgers.each.get(&(id.clone(), host.clone())).cloned().unwrap_or_default();
                (id, ledger, host, state)
            })
        })
    }

    /// Hosts that keep ledgers.
    pub(super) fn ledger_hosts(&self) -> impl Iterator<Item = &HostId> {
        self.experiment.ledgers.values().flat_map(|ledger| self.writers(ledger))
    }

    /// What should be done about ledgers on this host.
    pub fn desired_ledgers(&self, host: &HostId) -> Vec<LedgerItem> {
        if matches!(self.phase, Phase::Planned | Phase::Finished) {
            return Vec::new();
        }
        let mine = self.kept().filter(|(_, _, of, state)| *of == host && !state.refused && !state.dropped);
        mine.map(|(id, ledger, _, state)| LedgerItem {
            run: self.id.clone(),
            ledger: id.clone(),
            kind: ledger.kind.clone(),
            params: ledger.params.clone(),
            every: ledger.every,
            timeout: ledger.timeout,
            place: place(&self.id, id, host),
            token: token(&self.id, id, host),
            made: state.opened,
            work: self.work(id, &state),
            until: self.experiment.recovery.give_up_after + self.experiment.lease + Dur::from_secs(180),
        })
        .collect()
    }

    /// What keeps the timeline from beginning: a ledger that is not open yet, with how long it is waited for.
    pub(super) fn unopened(&self) -> Option<(String, Dur)> {
        let within = self.experiment.steady_state.as_ref().map_or(OPEN_WITHIN, |gate| gate.give_up_after);
        self.not_open(None, within).map(|why| (why, within))
    }

    /// What keeps a section from going on after this check, if that is of its steady state.
    pub(super) fn unopened_for(&self, check: &Entry, within: Dur) -> Option<String> {
        let section = self.experiment.section_of(check.id.as_str())?;
        if check.id != section.steady_state() {
            return None;
        }
        self.not_open(Some(section), within)
    }

    /// A ledger of a section, or of no section, that is not open, in words.
    fn not_open(&self, section: Option<&Section>, within: Dur) -> Option<String> {
        let of = |id: &LedgerId| self.experiment.section_of(id.as_str()).map(|of| &of.id) == section.map(|of| &of.id);
        let mut mine = self.kept().filter(|(id, _, _, _)| of(id));
        let (id, _, host, state) = mine.find(|(_, _, _, state)| !state.opened && !state.refused)?;
        let why = state.trouble.unwrap_or_else(|| "its host said nothing about it".to_owned());
        Some(format!("ledger {id} on {} was not opened within {within}: {why}", self.name(host)))
    }

    /// What is to be done about ledgers once all is undone; nothing when they are through.
    pub(super) fn finish_ledgers(&self, now: &Stamp) -> Option<Decision> {
        // A place may have been made of which nobody has heard yet; what is out of contact was not asked, or says so later.
        let unheard = |host: &HostId, state: &LedgerState| !state.opened && self.lost_contact.contains_key(host);
        let open = self.kept().filter(|(_, _, _, state)| !state.refused && !state.dropped);
        let mut open = open.filter(|(_, _, host, state)| !unheard(host, state)).peekable();
        open.peek()?;
        let Some(closed) = &self.ledgers.closed else {
            return Some(Decision::one(Body::LedgersClosed { at: now.clone() }));
        };
        let Some(released) = &self.ledgers.released else {
            let deadline = closed.later(READ_WITHIN).boot_ns;
            if open.any(|(_, _, _, state)| state.opened && !state.read) && now.boot_ns < deadline {
                return Some(Decision { wake_ns: Some(deadline), ..Decision::default() });
            }
            return Some(Decision::one(Body::LedgersReleased { at: now.clone() }));
        };
        let deadline = released.later(DROP_WITHIN).boot_ns;
        let going = open.any(|(_, _, _, state)| state.read || !state.opened);
        (going && now.boot_ns < deadline).then(|| Decision { wake_ns: Some(deadline), ..Decision::default() })
    }
}

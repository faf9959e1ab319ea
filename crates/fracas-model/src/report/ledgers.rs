//! Ledgers: the account of each, and how a service's recovery point objective was met. From events alone, as the verdict is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Judgement, ServiceReport, story::Story};
use crate::{
    event::{Body, Event, Look},
    experiment::Ledger,
    id::{HostId, LedgerId, ServiceId},
    ledger::{Account, Found, Life, Lost, Outcome, account, place},
    time::{ClockId, Interval},
    units::Dur,
};

/// Most spans of lost markers that a report lists; all are counted.
const MOST_SPANS: usize = 20;
/// Most reasons why a ledger was not written to that are told.
const MOST_REASONS: usize = 5;

/// What the history tells of one ledger of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    lives: BTreeMap<(u64, ClockId), Life>,
    found: Vec<Found>,
    /// The clock and the instants of the reading whose parts were told last.
    part: Option<(ClockId, Look)>,
    read: Option<(ClockId, Look)>,
    refused: Option<String>,
    trouble: Option<String>,
    /// Why it was not written to all the time.
    interrupted: Vec<String>,
    opened: bool,
    dropped: bool,
}

/// Every ledger of every host that spoke of one.
pub(super) type Book = BTreeMap<(LedgerId, HostId), Pages>;

/// Takes an event, if it is one of a ledger.
pub(super) fn take(book: &mut Book, body: &Body, closed: bool) {
    match body {
        Body::LedgerOpened { ledger, at, .. } => {
            let pages = book.entry((ledger.clone(), at.clock.host.clone())).or_default();
            (pages.opened, pages.trouble) = (true, None);
        }
        Body::LedgerRefused { ledger, refusal, at } => {
            book.entry((ledger.clone(), at.clock.host.clone())).or_default().refused = Some(refusal.to_string());
        }
        Body::MarkersWritten { ledger, life, markers, at, .. } => {
            let pages = book.entry((ledger.clone(), at.clock.host.clone())).or_default();
            let empty = || Life { life: *life, clock: at.clock.clone(), markers: Vec::new() };
            let known = pages.lives.entry((*life, at.clock.clone())).or_insert_with(empty);
            known.markers.extend(markers.unpack());
        }
        Body::LedgerRead { ledger, found, last, between, at } => {
            let pages = book.entry((ledger.clone(), at.clock.host.clone())).or_default();
            if pages.read.is_none() {
                let reading = (at.clock.clone(), *between);
                // What a reader told that died before its end does not count.
                if pages.part.as_ref() != Some(&reading) {
                    pages.found.clear();
                }
                pages.found.extend(found.iter().copied());
                pages.read = last.then(|| reading.clone());
                (pages.part, pages.trouble) = (Some(reading), None);
            }
        }
        Body::LedgerTroubled { ledger, why, at, .. } => {
            let pages = book.entry((ledger.clone(), at.clock.host.clone())).or_default();
            let known = pages.interrupted.len() >= MOST_REASONS || pages.interrupted.contains(why);
            if pages.opened && !closed && pages.read.is_none() && !known {
                pages.interrupted.push(why.clone());
            }
            pages.trouble = Some(why.clone());
        }
        Body::LedgerDropped { ledger, at, .. } => {
            // Why it was never opened is still to be told.
            book.entry((ledger.clone(), at.clock.host.clone())).or_default().dropped = true;
        }
        _ => {}
    }
}

/// One ledger of one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerReport {
    /// The ledger.
    pub ledger: LedgerId,
    /// The service whose data it speaks for.
    pub service: ServiceId,
    /// Name in the catalogue.
    pub kind: String,
    /// Where it was written from.
    pub host: HostId,
    /// Its place: a table, a key.
    pub place: String,
    /// From the sending of one marker to the next.
    pub every: Dur,
    /// When a marker counted as unknown.
    pub timeout: Dur,
    /// The account; `None` when it could not be balanced.
    pub account: Option<Account>,
    /// Where the spans of lost markers lie: from the acknowledgement of the first to the sending of the last, as offsets. In
    /// the order of the account's spans, of which it lists the first 20.
    pub lost_at: Vec<(i64, i64)>,
    /// Why there is no account.
    pub not_measured: Option<String>,
    /// Why the place was left behind, or may have been; it can be removed by hand.
    pub left: Option<String>,
    /// Why it was not written to all the time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interrupted: Vec<String>,
}

/// How a service did against its recovery point objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryPoint {
    /// How much time of acknowledged writes was lost at least and at most, of its worst ledger.
    pub achieved: Option<Interval>,
    /// Acknowledged markers that were lost, over all its ledgers.
    pub lost: u64,
    /// Acknowledged markers, over all its ledgers.
    pub acknowledged: u64,
    /// How that stands against the objective.
    pub judgement: Judgement,
}

/// The accounts of all ledgers that the document names.
pub(super) fn reports(story: &Story) -> Vec<LedgerReport> {
    let Some(experiment) = &story.experiment else { return Vec::new() };
    let unknown = Pages::default();
    let observer = story.head.targets.get(&crate::run::OBSERVER.into()).map_or(&[][..], Vec::as_slice);
    let mut reports = Vec::new();
    for (id, ledger) in &experiment.ledgers {
        let writers = ledger
            .from
            .as_ref()
            .map_or(observer, |target| story.head.targets.get(target).map_or(&[][..], Vec::as_slice));
        for host in writers {
            let pages = story.ledgers.get(&(id.clone(), host.clone())).unwrap_or(&unknown);
            reports.push(report(story, id, ledger, host, pages));
        }
    }
    reports
}

fn report(story: &Story, id: &LedgerId, ledger: &Ledger, host: &HostId, pages: &Pages) -> LedgerReport {
    let lives: Vec<Life> = pages.lives.values().cloned().collect();
    let not_measured = match (&pages.refused, pages.opened, &pages.read, &pages.trouble) {
        (Some(why), ..) => Some(why.clone()),
        (None, false, _, Some(why)) => Some(format!("its place was not made: {why}")),
        (None, false, _, None) => Some("its host said nothing about it".to_owned()),
        (None, true, None, Some(why)) => Some(format!("it could not be read back: {why}")),
        (None, true, None, None) => Some("it was not read back".to_owned()),
        (None, true, Some(_), _) => None,
    };
    let read = pages.read.as_ref().filter(|_| not_measured.is_none());
    let mut account = read.map(|(clock, look)| account(&lives, &pages.found, (clock, *look)));
    let not_measured =
        not_measured.or_else(|| account.as_ref()?.achieved.is_none().then(|| "no marker was acknowledged".to_owned()));
    let clock_of = |lost: &Lost| pages.lives.keys().find(|(life, _)| *life == lost.life).map(|(_, clock)| clock);
    let mut lost_at = Vec::new();
    if let Some(account) = &mut account {
        account.spans.truncate(MOST_SPANS);
        let lies = |lost: &Lost| {
            let clock = clock_of(lost)?;
            Some((story.offset(clock, lost.from.c), story.offset(clock, lost.to.s)))
        };
        lost_at.extend(account.spans.iter().filter_map(lies));
    }
    let left = match (pages.opened, &pages.refused) {
        _ if pages.dropped || !story.steady => None,
        (true, _) => {
            Some(pages.trouble.clone().unwrap_or_else(|| "its host did not say that it is removed".to_owned()))
        }
        // What is there is somebody else's.
        (false, Some(_)) => None,
        (false, None) => {
            let why = pages.trouble.clone().unwrap_or_else(|| "its host said nothing about it".to_owned());
            Some(format!("it may have been made; {why}"))
        }
    };
    LedgerReport {
        ledger: id.clone(),
        service: ledger.service.clone(),
        kind: ledger.kind.clone(),
        host: host.clone(),
        place: place(&story.head.run, id, host),
        every: ledger.every,
        timeout: ledger.timeout,
        account,
        lost_at,
        not_measured,
        left: left.filter(|_| story.finished.is_some()),
        interrupted: pages.interrupted.clone(),
    }
}

/// Tells each service how much of its data was lost; `None` where it has neither ledger nor objective.
pub(super) fn recovery_points(story: &Story, ledgers: &[LedgerReport], services: &mut [ServiceReport]) {
    for service in services {
        let mine: Vec<&LedgerReport> = ledgers.iter().filter(|ledger| ledger.service == service.service).collect();
        if mine.is_empty() && service.rpo.is_none() {
            continue;
        }
        let unmeasured = mine.iter().find_map(|one| {
            let why = one.not_measured.as_ref()?;
            let name = story.head.hosts.get(&one.host).map_or(one.host.as_str(), String::as_str);
            Some(format!("ledger {} on {name}: {why}", one.ledger))
        });
        let accounts = || mine.iter().filter_map(|one| one.account.as_ref());
        let worst = accounts()
            .filter_map(|account| account.achieved)
            .reduce(|a, b| Interval { lo: a.lo.max(b.lo), hi: a.hi.zip(b.hi).map(|(a, b)| a.max(b)) });
        let (lost, acknowledged) =
            accounts().fold((0, 0), |(lost, all), one| (lost + one.lost, all + one.acknowledged));
        let every = mine.iter().map(|one| one.every).max().unwrap_or_default();
        let judgement = match (service.rpo, unmeasured, worst) {
            (None, ..) => Judgement::NoObjective,
            (Some(_), _, None) if mine.is_empty() => {
                let named = story.experiment.as_ref().is_some_and(|experiment| {
                    experiment.ledgers.values().any(|ledger| ledger.service == service.service)
                });
                let why = if named { "no host was drawn that would write" } else { "no ledger speaks for its data" };
                Judgement::NotMeasured { why: why.into() }
            }
            // What one ledger misses no other makes up for.
            (Some(rpo), None, Some(achieved)) => judged(rpo, achieved, lost, acknowledged, every),
            (Some(rpo), Some(why), Some(achieved)) => match judged(rpo, achieved, lost, acknowledged, every) {
                missed @ Judgement::Missed { .. } => missed,
                _ => Judgement::NotMeasured { why },
            },
            (Some(_), why, None) => Judgement::NotMeasured { why: why.unwrap_or_default() },
        };
        // Where nothing was broken, what is kept proves nothing.
        let calm = !story.items_of(service.service.as_str()).any(|(_, item)| item.effective.is_some());
        let judgement = match judgement {
            Judgement::Met { .. } | Judgement::Inconclusive { .. } if calm => {
                Judgement::NotMeasured { why: "no fault took effect".into() }
            }
            judgement => judgement,
        };
        service.recovery_point = Some(RecoveryPoint { achieved: worst, lost, acknowledged, judgement });
    }
}

/// Places that were left behind.
pub(super) fn warnings(ledgers: &[LedgerReport]) -> Vec<String> {
    let left = ledgers.iter().filter_map(|one| Some((one, one.left.as_ref()?)));
    let left = left.map(|(one, why)| {
        format!("ledger {}: {} of {} was not removed ({why}): remove it by hand", one.ledger, one.place, one.service)
    });
    let interrupted = ledgers.iter().flat_map(|one| one.interrupted.iter().map(move |why| (one, why)));
    let interrupted =
        interrupted.map(|(one, why)| format!("ledger {} was not written to all the time: {why}", one.ledger));
    left.chain(interrupted).collect()
}

fn judged(rpo: Dur, achieved: Interval, lost: u64, acknowledged: u64, every: Dur) -> Judgement {
    let said = in_words(achieved, lost, acknowledged);
    if achieved.hi.is_some_and(|hi| hi <= rpo) {
        return Judgement::Met { why: format!("{said}, objective {rpo}") };
    }
    if achieved.lo > rpo || (rpo == Dur::ZERO && lost > 0) {
        return Judgement::Missed { why: format!("{said}, objective {rpo}") };
    }
    // With nothing lost the bound is a period and what a write takes at most.
    let longer = achieved.hi.map_or(Dur::ZERO, |hi| Dur::from_ns((hi.ns() - every.ns()).max(0)));
    let period = Dur::from_ms((rpo.ns() - longer.ns()) / 1_000_000);
    let settled_by_period = (lost == 0 && period >= Dur::from_ms(10)).then_some(period);
    let help = match settled_by_period {
        Some(period) => format!("markers every {} or less would settle it", period.human()),
        None if rpo == Dur::ZERO => "that nothing is lost at all no ledger can show".to_owned(),
        None => "markers closer together, or a shorter timeout of theirs, would tell more".to_owned(),
    };
    Judgement::Inconclusive { why: format!("{said}, objective {rpo}: {help}"), settled_by_period }
}

/// `2 of 310 acknowledged markers lost: between 95 ms and 305 ms of data`; nothing lost is never told as no time.
pub fn in_words(achieved: Interval, lost: u64, acknowledged: u64) -> String {
    match (lost, achieved.hi) {
        (0, Some(hi)) => format!("none of {acknowledged} acknowledged markers lost: at most {} of data", hi.human()),
        (0, None) => format!(
            "none of {acknowledged} acknowledged markers lost; how much between and after them, nobody can tell"
        ),
        (_, Some(hi)) => format!(
            "{lost} of {acknowledged} acknowledged markers lost: between {} and {} of data",
            achieved.lo.human(),
            hi.human()
        ),
        (_, None) => format!(
            "{lost} of {acknowledged} acknowledged markers lost, the first one included: at least {} of data",
            achieved.lo.human()
        ),
    }
}

/// Events of ledgers in words; `None` for others.
pub(super) fn text(body: &Body) -> Option<String> {
    Some(match body {
        Body::LedgersClosed { .. } => "all is undone: ledgers are read back".into(),
        Body::LedgersReleased { .. } => "what ledgers showed is kept: their places are removed".into(),
        Body::LedgerOpened { ledger, place, .. } => format!("{ledger}: markers are written into {place}"),
        Body::LedgerRefused { ledger, refusal, .. } => format!("{ledger} cannot be kept: {refusal}"),
        Body::MarkersWritten { ledger, markers, why, .. } => {
            let told = markers.unpack();
            let of = |kind| told.iter().filter(|marker| marker.outcome == kind).count();
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            format!(
                "{ledger}: {} acknowledged, {} failed, {} unknown{why}",
                of(Outcome::Acknowledged),
                of(Outcome::Failed),
                of(Outcome::Unknown)
            )
        }
        Body::LedgerRead { ledger, found, last, .. } => {
            let markers = found.iter().fold(0_u64, |sum, stretch| sum.saturating_add(stretch.count));
            format!("{ledger}: {markers} markers read back{}", if *last { "" } else { ", and more" })
        }
        Body::LedgerTroubled { ledger, place, why, .. } => format!("{ledger} in {place}: {why}"),
        Body::LedgerDropped { ledger, place, .. } => format!("{ledger}: nothing is left of {place}"),
        _ => return None,
    })
}

/// Whether an event only says that a ledger goes on as it should.
pub(super) fn routine(event: &Event) -> bool {
    matches!(&event.body, Body::MarkersWritten { markers, .. } if markers.outcome.iter().all(|outcome| *outcome == 0))
}

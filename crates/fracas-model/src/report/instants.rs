//! The instants of a trouble, from planned to all clear, and the times between them, each with its definition, its bounds and
//! whose clocks it rests on. Nothing here is judged.
//!
//! The letters of the field (TTD, TTA, TTR ...) mean different lengths to different people. So instants are told, and every
//! length is the difference of two of them, by name. An instant is known within bounds on one clock; a difference of two
//! instants of one clock adds their bounds, and one across clocks those of the clock maps as well.

mod gathered;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::gathered::Gathered;
use super::{clocks::Clocks, services::Incident, story::Story};
use crate::{
    id::{HostId, ServiceId},
    mark::Mark,
    time::{ClockId, Interval, Stamp},
    units::Dur,
};

/// Instants and the times between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// Of which service; `None`: of a run whose document names none.
    pub service: Option<ServiceId>,
    /// What is known, in the order of the numbers.
    pub instants: Vec<Instant>,
    /// What follows.
    pub metrics: Vec<Metric>,
}

/// An instant, known within bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instant {
    /// `t0` to `t13`; `detected` for the first of alert, declaration and whatever else was noticed.
    pub id: String,
    /// In words: `fault effective`.
    pub name: String,
    /// Earliest, nanoseconds from the origin as the report draws it; absent when nothing bounds it.
    pub lo_ns: Option<i64>,
    /// Latest.
    pub hi_ns: Option<i64>,
    /// Whose clock it was read from.
    pub clock: HostId,
    /// How it is known: `as p-7 says`, `its duration ended`.
    pub how: String,
    /// The events that tell it.
    pub events: Vec<u64>,
}

/// A length of time between two instants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// `ttd`, `tta`, `ttm`, `ttr` ...
    pub id: String,
    /// In words: `time to detect`.
    pub name: String,
    /// The instant it begins with.
    pub from: String,
    /// The instant it ends with.
    pub to: String,
    /// What it is, in one line: `detected - t2 (fault effective)`.
    pub definition: String,
    /// How long; absent where `missing` says why.
    pub length: Option<Interval>,
    /// Whose clocks it rests on.
    pub clocks: Vec<HostId>,
    /// Why it is not known.
    pub missing: Option<String>,
    /// What a reader must know to read it rightly.
    pub caveat: Option<String>,
}

/// Which instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Planned,
    Commanded,
    Effective,
    Impact,
    Alerted,
    Detected,
    Notified,
    Acknowledged,
    Declared,
    Mitigated,
    Reverted,
    Recovered,
    Verified,
    Resolved,
}

impl Name {
    fn id(self) -> &'static str {
        match self {
            Self::Planned => "t0",
            Self::Commanded => "t1",
            Self::Effective => "t2",
            Self::Impact => "t3",
            // t4, an alert's condition becoming true, is told by no person.
            Self::Alerted => "t5",
            Self::Detected => "detected",
            Self::Notified => "t6",
            Self::Acknowledged => "t7",
            Self::Declared => "t8",
            Self::Mitigated => "t9",
            Self::Reverted => "t10",
            Self::Recovered => "t11",
            Self::Verified => "t12",
            Self::Resolved => "t13",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Planned => "fault planned",
            Self::Commanded => "fault commanded",
            Self::Effective => "fault effective",
            Self::Impact => "impact on the service",
            Self::Alerted => "alert fired",
            Self::Detected => "detected",
            Self::Notified => "responder notified",
            Self::Acknowledged => "acknowledged",
            Self::Declared => "incident declared",
            Self::Mitigated => "impact stopped",
            Self::Reverted => "fault reverted",
            Self::Recovered => "service recovered",
            Self::Verified => "data verified",
            Self::Resolved => "alert resolved",
        }
    }

    fn marked(mark: Mark) -> Self {
        match mark {
            Mark::Alerted => Self::Alerted,
            Mark::Notified => Self::Notified,
            Mark::Detected => Self::Detected,
            Mark::Acknowledged => Self::Acknowledged,
            Mark::Declared => Self::Declared,
            Mark::Mitigated => Self::Mitigated,
            Mark::Verified => Self::Verified,
            Mark::Resolved => Self::Resolved,
        }
    }
}

/// An instant on the clock it was read from.
#[derive(Clone, Debug)]
struct Known {
    clock: ClockId,
    lo: Option<i64>,
    hi: Option<i64>,
    /// The controller's own stamps as offsets: after a boot of the controller only wall time places them.
    placed: Option<(i64, i64)>,
    how: String,
    events: Vec<u64>,
}

/// Every length that is told: id, words, from, to, and whether a person must tell one of the two.
const METRICS: [(&str, &str, Name, Name); 13] = [
    ("timeToInject", "time to inject", Name::Commanded, Name::Effective),
    ("timeToImpact", "time to impact", Name::Effective, Name::Impact),
    ("ttd", "time to detect", Name::Effective, Name::Detected),
    ("ttn", "time to notify", Name::Alerted, Name::Notified),
    ("tta", "time to acknowledge", Name::Notified, Name::Acknowledged),
    ("ttaFromDetection", "detection to acknowledgement", Name::Detected, Name::Acknowledged),
    ("ttaFromFault", "fault to acknowledgement", Name::Effective, Name::Acknowledged),
    ("ttm", "time to mitigate", Name::Effective, Name::Mitigated),
    ("outage", "outage", Name::Impact, Name::Recovered),
    ("ttr", "time to recover", Name::Effective, Name::Recovered),
    ("residual", "residual", Name::Reverted, Name::Recovered),
    ("wrt", "work recovery time", Name::Recovered, Name::Verified),
    ("timeToAllClear", "time to all clear", Name::Recovered, Name::Resolved),
];

/// Those that every report tells of, known or not.
const ALWAYS: [&str; 4] = ["ttd", "ttaFromFault", "ttm", "ttr"];

/// Of each service; of the whole run when there is none.
pub(super) fn timings(story: &Story, incidents: &BTreeMap<ServiceId, Incident>) -> Vec<Timing> {
    let Some(experiment) = &story.experiment else { return Vec::new() };
    let mut services: Vec<Option<&ServiceId>> = experiment.services.keys().map(Some).collect();
    if services.is_empty() {
        services.push(None);
    }
    services
        .into_iter()
        .map(|service| {
            let incident = service.and_then(|service| incidents.get(service));
            let known = Gathered { story, service, incident }.known();
            Timing {
                service: service.cloned(),
                instants: known.iter().map(|(name, at)| instant(story, *name, at)).collect(),
                metrics: metrics(story, incident, &known),
            }
        })
        .collect()
}

fn instant(story: &Story, name: Name, at: &Known) -> Instant {
    let offset = |ns: Option<i64>| ns.map(|ns| story.offset(&at.clock, ns));
    let (lo_ns, hi_ns) = match at.placed {
        Some((lo, hi)) => (Some(lo), Some(hi)),
        None => (offset(at.lo), offset(at.hi)),
    };
    Instant {
        id: name.id().into(),
        name: name.words().into(),
        lo_ns,
        hi_ns,
        clock: at.clock.host.clone(),
        how: at.how.clone(),
        events: at.events.clone(),
    }
}

fn metrics(story: &Story, incident: Option<&Incident>, known: &BTreeMap<Name, Known>) -> Vec<Metric> {
    let metric = |(id, name, from, to): (&str, &str, Name, Name)| {
        let length = match (known.get(&from), known.get(&to)) {
            (Some(a), Some(b)) => difference(&story.clocks, a, b).map_err(|why| {
                if why == Order::Before {
                    format!("{} came before {}", to.words(), from.words())
                } else {
                    "no clock map links the two clocks".to_owned()
                }
            }),
            (a, b) => Err(missing(if a.is_none() { from } else { to }, a.is_some() || b.is_some())),
        };
        let of = |name: Name| match (name.id(), name.words()) {
            (id, words) if id == words => id.to_owned(),
            (id, words) => format!("{id} ({words})"),
        };
        let mut clocks: Vec<HostId> =
            [from, to].iter().filter_map(|name| Some(known.get(name)?.clock.host.clone())).collect();
        clocks.dedup();
        let lifted_first = || {
            known.get(&to)?.hi?;
            let ended = known.get(&Name::Reverted);
            let before = match to {
                // What the probe saw of it counts, whichever fault opened the outage.
                Name::Recovered => match (incident?.recovered_before_revert, ended) {
                    (None, None) => return None,
                    (before, _) => before,
                },
                Name::Mitigated => {
                    let (lo, hi) = apart(&story.clocks, ended?, known.get(&to)?)?;
                    if hi.is_some_and(|hi| hi < 0) { Some(true) } else { lo.filter(|lo| *lo >= 0).map(|_| false) }
                }
                _ => return None,
            };
            let why = ended.map(|ended| format!(" ({})", ended.how)).unwrap_or_default();
            match before {
                Some(true) => None,
                Some(false) => Some(format!("the fault was lifted first{why}: not the work of responders alone")),
                None => Some("which came first, the lifting of the fault or this, cannot be told".to_owned()),
            }
        };
        Metric {
            id: id.into(),
            name: name.into(),
            from: from.id().into(),
            to: to.id().into(),
            definition: format!("{} - {}", of(to), of(from)),
            clocks: if length.is_ok() { clocks } else { Vec::new() },
            caveat: if length.is_ok() && id != "residual" { lifted_first() } else { None },
            length: length.as_ref().ok().copied(),
            missing: length.err(),
        }
    };
    let told = METRICS.into_iter().map(metric);
    told.filter(|metric| metric.length.is_some() || ALWAYS.contains(&metric.id.as_str())).collect()
}

fn missing(name: Name, other: bool) -> String {
    let mark = Mark::ALL.into_iter().find(|mark| Name::marked(*mark) == name);
    match (name, mark) {
        (_, Some(mark)) => format!("nobody told: fracas mark RUN {mark}"),
        (Name::Effective, _) => "no fault took effect".into(),
        (Name::Impact | Name::Recovered, _) if other => "no outage was seen".into(),
        _ => format!("{} is not known", name.words()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The end surely came before the beginning.
    Before,
    /// Nobody can tell.
    Unknown,
}

/// `to - from`, on the clock of `to`; `None`: no clock map links the two.
fn apart(clocks: &Clocks, from: &Known, to: &Known) -> Option<(Option<i64>, Option<i64>)> {
    let (from_lo, from_hi) = if from.clock == to.clock {
        (from.lo, from.hi)
    } else {
        let stamp = |boot_ns| Stamp { clock: from.clock.clone(), boot_ns, wall_ns: 0, bound_ns: -1 };
        let on = |ns: Option<i64>| ns.map(|ns| clocks.to(&stamp(ns), &to.clock).ok_or(())).transpose().ok();
        (on(from.lo)?.map(|(lo, _)| lo), on(from.hi)?.map(|(_, hi)| hi))
    };
    let length = |end: Option<i64>, start: Option<i64>| end.zip(start).map(|(end, start)| end.saturating_sub(start));
    Some((length(to.lo, from_hi), length(to.hi, from_lo)))
}

/// The same as a length.
fn difference(clocks: &Clocks, from: &Known, to: &Known) -> Result<Interval, Order> {
    let (lo, hi) = apart(clocks, from, to).ok_or(Order::Unknown)?;
    if hi.is_some_and(|hi| hi < 0) {
        return Err(Order::Before);
    }
    let lo = lo.unwrap_or(0).max(0);
    Ok(Interval { lo: Dur::from_ns(lo), hi: hi.map(|hi| Dur::from_ns(hi.max(lo))) })
}

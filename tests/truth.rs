//! What the test's own eye saw of outages, and how a report's intervals are held against it.
//!
//! An answer proves "up at some instant of this look", a failure "down at some instant". So the eye, too, knows only an
//! interval; a report that contains the truth cannot lie beside it.

use std::{fmt, time::Duration};

use fracas_sim::lab::Stream;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::{
    history::{Run, nanoseconds},
    rig::{Going, LIMIT, Rig},
    stage::part,
};

/// All hosts of a lab share this clock with the trial.
pub(crate) fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Shortest and longest that something can have been, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) lo: i64,
    pub(crate) hi: i64,
}

impl Range {
    /// How little is known.
    pub(crate) fn width(self) -> i64 {
        self.hi - self.lo
    }

    /// Whether both can be true of one thing.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.lo <= other.hi && other.lo <= self.hi
    }

    /// A closed interval of a report.
    pub(crate) fn of(interval: &Value) -> Self {
        Self { lo: nanoseconds(&interval["lo"]), hi: nanoseconds(&interval["hi"]) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} to {:.2} ms", self.lo as f64 / 1e6, self.hi as f64 / 1e6)
    }
}

/// One outage as the eye saw it: looks as (begin, end) in nanoseconds of the clock all hosts of a lab share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    /// The last answer before.
    pub(crate) last_up: (i64, i64),
    /// The first failure.
    pub(crate) first_down: (i64, i64),
    /// The last failure.
    pub(crate) last_down: (i64, i64),
    /// The first answer after.
    pub(crate) first_up: (i64, i64),
}

impl Outage {
    /// How long it was.
    pub(crate) fn length(&self) -> Range {
        Range { lo: self.last_down.0 - self.first_down.1, hi: self.first_up.1 - self.last_up.0 }
    }

    /// How long it took from something that happened within `since` until it was over.
    pub(crate) fn until_up(&self, since: Range) -> Range {
        Range { lo: self.last_down.0 - since.hi, hi: self.first_up.1 - since.lo }
    }
}

/// The eye at work.
pub(crate) struct Eye(Going);

impl Eye {
    /// Looks from a host at `kind` (`http`, `ping`) at an address, until asked.
    pub(crate) fn open(rig: &Rig, from: &str, kind: &str, address: &str, timeout: Duration) -> Self {
        let timeout = timeout.as_millis().to_string();
        let going = Going::start(&rig.host(from), part(&["ask", kind, address, &timeout]).stdin(Stream::Pipe));
        let eye = Self(going);
        eye.0.find("a first answer", |line| (line["ok"] == true).then_some(()));
        eye
    }

    /// Closes it; the outages it saw to their ends, in order.
    pub(crate) fn close(mut self) -> Vec<Outage> {
        self.0.close();
        let said = self.0.end(LIMIT).good();
        // The service may have come up only after the eye was open.
        let up = said.json().into_iter().skip_while(|line| line["ok"] != true).skip(1);
        let edges: Vec<Value> = up.filter(|line| line.get("before").is_some()).collect();
        let look = |edge: &Value, which: &str| {
            let at = |end: usize| edge[which][end].as_i64().expect("instant");
            (at(0), at(1))
        };
        let outage = |pair: &[Value]| {
            let [down, up] = pair else { unreachable!("chunks of two") };
            assert!(down["ok"] == false && up["ok"] == true, "{said:?}");
            Outage {
                last_up: look(down, "before"),
                first_down: look(down, "now"),
                last_down: look(up, "before"),
                first_up: look(up, "now"),
            }
        };
        edges.chunks_exact(2).map(outage).collect()
    }
}

/// Holds the outages a probe reported against those the eye saw: as many, and none beside the truth. Gives how many are as
/// narrow as a probe of this pace can be: 2 x (period + p99 latency), where `waits` is the time that a failing look takes
/// beside.
///
/// A machine that stalls just then makes an interval wider, never wrong; such an outage does not count as narrow.
pub(crate) fn hold(run: &Run, probe: &str, seen: &[Outage], waits: Duration) -> usize {
    let report = run.probe(probe);
    let episodes = report["episodes"].as_array().expect("episodes").iter();
    let outages: Vec<Range> = episodes.map(|e| Range::of(&e["outage"])).collect();
    let seen: Vec<Range> = seen.iter().map(Outage::length).collect();
    let shown = |ranges: &[Range]| ranges.iter().map(Range::to_string).collect::<Vec<_>>().join(", ");
    assert_eq!(outages.len(), seen.len(), "reported {}; seen {}\n{}", shown(&outages), shown(&seen), run.story());
    let n = report["baseline"]["n"].as_u64().unwrap_or_default();
    let p99_ms = report["baseline"]["p99Ms"].as_f64().unwrap_or_else(|| panic!("no p99 of {n} looks"));
    let latency = p99_ms * 1e6 + waits.as_nanos() as f64;
    let bound = (2.0 * (nanoseconds(&report["every"]) as f64 + latency)) as i64;
    for (outage, truth) in outages.iter().zip(&seen) {
        assert!(outage.meets(*truth), "reported {outage}, the truth is {truth}\n{}", run.story());
    }
    let narrow = outages.iter().filter(|outage| outage.width() <= bound).count();
    eprintln!(
        "{probe}: reported {}; seen {}; {narrow} of {} within the width of {:.2} ms (baseline p99 {p99_ms:.2} ms, n = {n})",
        shown(&outages),
        shown(&seen),
        outages.len(),
        bound as f64 / 1e6,
    );
    narrow
}

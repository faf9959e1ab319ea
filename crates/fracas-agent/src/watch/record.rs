//! What one probe saw, turned into facts: edges at once, raw readings and gaps sealed about every second. Pure.

use fracas_model::{
    desired::ProbeItem,
    estimate::{Edge, Edges},
    event::{Body, Look, Reading, Readings},
    id::ProbeId,
    stop::Meter,
    time::Stamp,
    units::Dur,
};
use sha2::{Digest as _, Sha256};

use super::Sight;

/// Looks of one probe until they are told.
///
/// Readings arrive in order of completion, and looks may overlap. A look counts as a change only when the state that
/// is already known cannot explain it; see [`Edges`], which the estimator uses too. Every reading, explained or not,
/// is in the sealed blob.
#[derive(Debug)]
pub struct Recorder {
    stream: String,
    probe: ProbeId,
    edges: Edges,
    /// Of the edge told last: its clock, and why it fails.
    told: Option<(Stamp, String)>,
    /// Send instant of the first look of the present stretch of failures.
    failing_since: Option<i64>,
    meters: Vec<Meter>,
    readings: Vec<Reading>,
    gaps: Vec<Gap>,
}

#[derive(Debug)]
struct Gap {
    missed: u64,
    between: Look,
    why: String,
}

impl Recorder {
    /// Nothing seen yet of this probe.
    pub fn new(item: &ProbeItem) -> Self {
        Self {
            stream: format!("run/{}", item.run),
            probe: item.probe.clone(),
            edges: Edges::of(item.timeout),
            told: None,
            failing_since: None,
            meters: item.stop.iter().map(|when| Meter::new(*when)).collect(),
            readings: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// Takes a completed look; `now` is read after its completion. Gives what is to be told at once: an edge if it is one,
    /// and every stop condition that is met by it.
    pub fn looked(&mut self, reading: Reading, now: &Stamp) -> Vec<Sight> {
        let at = now.later(Dur::from_ns(reading.look.c - now.boot_ns));
        let mut sights = self.changed(&reading, &at);
        let (look, failing_since) = (reading.look, self.failing_since);
        let met = self.meters.iter_mut().filter_map(|meter| meter.looked(look.c, reading.ok, failing_since));
        for why in met.collect::<Vec<_>>() {
            let last = if reading.why.is_empty() { why } else { format!("{why}: {}", reading.why) };
            let (probe, at) = (self.probe.clone(), at.clone());
            sights.push(self.sight(Body::StopConditionMet { probe, why: last, look, at }));
        }
        self.readings.push(reading);
        sights
    }

    /// Takes what the kernel told of an instant. It may be a change, but it is no look: nobody counts it.
    pub fn told(&mut self, reading: &Reading, now: &Stamp) -> Vec<Sight> {
        let at = now.later(Dur::from_ns(reading.look.c - now.boot_ns));
        self.changed(reading, &at)
    }

    fn changed(&mut self, reading: &Reading, at: &Stamp) -> Vec<Sight> {
        let mut sights = Vec::new();
        if let Some(edge) = self.edges.see(reading.look, reading.ok) {
            let owed = self.edges.owed();
            sights.extend(owed.into_iter().filter_map(|edge| self.told_again(edge)));
            self.failing_since = (!edge.ok).then_some(edge.after.s);
            self.told = Some((at.clone(), reading.why.clone()));
            sights.push(self.edge(edge, at.clone(), reading.why.clone()));
        }
        sights
    }

    /// The change told last once more, with another look before it; all else as it was told first.
    fn told_again(&self, edge: Edge) -> Option<Sight> {
        let (at, why) = self.told.clone()?;
        Some(self.edge(edge, at, why))
    }

    fn edge(&self, edge: Edge, at: Stamp, why: String) -> Sight {
        let Edge { ok, before, after } = edge;
        self.sight(Body::Edge { probe: self.probe.clone(), ok, before, after, why, at })
    }

    /// Takes ticks that did not happen; runs of them with one reason become one gap.
    pub fn missed(&mut self, missed: u64, between: Look, why: &str) {
        match self.gaps.last_mut() {
            // A reading in between ends the gap.
            Some(gap) if gap.why == why && self.readings.last().is_none_or(|r| r.look.s < gap.between.s) => {
                gap.missed += missed;
                gap.between.c = between.c;
            }
            _ => self.gaps.push(Gap { missed, between, why: why.to_owned() }),
        }
    }

    /// Whether anything waits to be sealed.
    pub fn pending(&self) -> bool {
        !self.readings.is_empty() || !self.gaps.is_empty()
    }

    /// Tells everything that waits.
    pub fn seal(&mut self, now: &Stamp) -> Vec<Sight> {
        let again = self.edges.again();
        let mut sights: Vec<Sight> = again.into_iter().filter_map(|edge| self.told_again(edge)).collect();
        for Gap { missed, between, why } in std::mem::take(&mut self.gaps) {
            sights.push(self.sight(Body::Gap { probe: self.probe.clone(), missed, between, why, at: now.clone() }));
        }
        let mut readings = std::mem::take(&mut self.readings);
        readings.sort_by_key(|r| r.look.s);
        if let Some(first) = readings.first() {
            let last = readings.iter().map(|r| r.look.c).max().unwrap_or(first.look.c);
            let ok = readings.iter().filter(|r| r.ok).count();
            // Columns of numbers and texts only: it cannot fail to serialise.
            let blob = serde_json::to_vec(&Readings::pack(&readings)).unwrap_or_default();
            let digest = Sha256::digest(&blob).iter().map(|b| format!("{b:02x}")).collect();
            let mut sight = self.sight(Body::ReadingsSealed {
                probe: self.probe.clone(),
                digest,
                between: Look { s: first.look.s, c: last },
                ok: u32::try_from(ok).unwrap_or(u32::MAX),
                failed: u32::try_from(readings.len() - ok).unwrap_or(u32::MAX),
                at: now.clone(),
            });
            sight.blob = Some(blob);
            sights.push(sight);
        }
        sights
    }

    /// A fact of this probe's run.
    pub(super) fn sight(&self, body: Body) -> Sight {
        Sight { stream: self.stream.clone(), body, blob: None }
    }
}

#[cfg(test)]
mod tests {
    use fracas_model::{catalogue::Params, id::HostId, stop::StopWhen, time::ClockId};

    use super::*;

    fn recorder() -> Recorder {
        Recorder::new(&ProbeItem {
            run: "r1".into(),
            probe: "up".into(),
            kind: "tcp".into(),
            params: Params::default(),
            every: Dur::from_ms(10),
            at_rest: None,
            timeout: Dur::from_ms(50),
            stop: vec![StopWhen::FailingFor(Dur::from_ns(50))],
            until: Dur::from_secs(60),
        })
    }

    fn now(boot_ns: i64) -> Stamp {
        let clock = ClockId { host: HostId::from("h"), boot: "b".into() };
        Stamp { clock, boot_ns, wall_ns: boot_ns, bound_ns: -1 }
    }

    fn reading(s: i64, c: i64, ok: bool) -> Reading {
        Reading { look: Look { s, c }, ok, why: if ok { String::new() } else { "status 500".into() } }
    }

    #[test]
    fn a_change_is_told_at_once_with_the_looks_on_both_sides() {
        let mut recorder = recorder();
        assert_eq!(recorder.looked(reading(0, 2, true), &now(3)).len(), 1, "the first reading");
        assert!(recorder.looked(reading(10, 12, true), &now(13)).is_empty());
        let mut told = recorder.looked(reading(20, 22, false), &now(25));
        let edge = told.remove(0);
        assert!(told.is_empty());
        assert_eq!(edge.stream, "run/r1");
        let Body::Edge { ok, before, after, why, at, .. } = edge.body else { panic!("not an edge") };
        assert_eq!((ok, before, after), (false, Some(Look { s: 10, c: 12 }), Look { s: 20, c: 22 }));
        assert_eq!((why.as_str(), at.boot_ns), ("status 500", 22));
    }

    #[test]
    fn the_look_by_which_a_stop_condition_is_met_is_told_at_once() {
        let mut recorder = recorder();
        let told: Vec<Vec<Body>> = [reading(0, 5, false), reading(10, 49, false), reading(40, 50, false)]
            .into_iter()
            .map(|r| recorder.looked(r, &now(60)).into_iter().map(|sight| sight.body).collect())
            .collect();
        assert!(matches!(told[0][..], [Body::Edge { ok: false, .. }]), "{told:?}");
        assert!(told[1].is_empty(), "{told:?}");
        let [Body::StopConditionMet { why, look, at, .. }] = &told[2][..] else { panic!("{told:?}") };
        assert_eq!((why.as_str(), *look), ("was failing for 50 ns (limit 50ns): status 500", Look { s: 40, c: 50 }));
        assert_eq!(at.boot_ns, 50);
    }

    #[test]
    fn a_look_that_was_out_during_the_outage_is_no_new_outage() {
        let mut recorder = recorder();
        let edges: Vec<bool> = [
            reading(0, 1, true),
            reading(100, 150, false),
            reading(170, 171, true),
            // Sent while it was down, given up after it came back.
            reading(140, 190, false),
            reading(180, 181, true),
        ]
        .into_iter()
        .flat_map(|r| recorder.looked(r, &now(1000)))
        .filter_map(|sight| match sight.body {
            Body::Edge { ok, .. } => Some(ok),
            _ => None,
        })
        .collect();
        assert_eq!(edges, [true, false, true]);
    }

    #[test]
    fn a_change_is_told_again_where_a_look_given_up_later_shows_it_more_closely() {
        let mut recorder = recorder();
        for r in [reading(0, 1, true), reading(100, 101, false), reading(400, 401, true), reading(300, 700, false)] {
            recorder.looked(r, &now(1000));
        }
        let told = recorder.seal(&now(1000)).remove(0).body;
        let Body::Edge { ok, before, after, why, at, .. } = told else { panic!("{told:?}") };
        assert_eq!((ok, before, after), (true, Some(Look { s: 300, c: 700 }), Look { s: 400, c: 401 }));
        assert_eq!((why.as_str(), at.boot_ns), ("", 401), "all else as it was told first");
        // Where the next change comes first, it is told before that.
        recorder.looked(reading(350, 900, false), &now(1000));
        let told = recorder.looked(reading(1000, 1001, false), &now(1002));
        let oks: Vec<bool> = told.iter().map(|s| matches!(&s.body, Body::Edge { ok: true, .. })).collect();
        assert_eq!(oks, [true, false], "{told:?}");
    }

    #[test]
    fn a_seal_holds_every_reading_in_order_of_sending() {
        let mut recorder = recorder();
        assert!(!recorder.pending());
        for r in [reading(10, 11, true), reading(20, 21, true), reading(0, 50, false)] {
            recorder.looked(r, &now(60));
        }
        let sealed = recorder.seal(&now(70));
        let [Sight { body: Body::ReadingsSealed { digest, between, ok, failed, .. }, blob: Some(blob), .. }] =
            &sealed[..]
        else {
            panic!("{sealed:?}")
        };
        assert_eq!((*between, *ok, *failed, digest.len()), (Look { s: 0, c: 50 }, 2, 1, 64));
        let unpacked = serde_json::from_slice::<Readings>(blob).unwrap().unpack();
        assert_eq!(unpacked.iter().map(|r| r.look.s).collect::<Vec<_>>(), [0, 10, 20]);
        assert!(recorder.seal(&now(80)).is_empty(), "sealed once");
    }

    #[test]
    fn missed_ticks_of_one_reason_become_one_gap() {
        let mut recorder = recorder();
        recorder.missed(1, Look { s: 10, c: 10 }, "late");
        recorder.missed(2, Look { s: 20, c: 30 }, "late");
        recorder.missed(1, Look { s: 40, c: 40 }, "4 looks are still out");
        let gaps: Vec<_> = recorder
            .seal(&now(50))
            .into_iter()
            .filter_map(|s| match s.body {
                Body::Gap { missed, between, .. } => Some((missed, between.s, between.c)),
                _ => None,
            })
            .collect();
        assert_eq!(gaps, [(3, 10, 30), (1, 40, 40)]);
    }
}

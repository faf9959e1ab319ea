//! Services: each probe's outages laid beside the faults, on the vantage's clock, and the worst of them per service.

use std::collections::BTreeMap;

use super::{
    Episode, Judgement, ProbeReport, Seen, Segment, ServiceReport,
    judge::{self, Calm, Case, Ending},
    story::{Item, Story, Watch},
    vantages::{self, Phase},
};
use crate::{
    estimate::{Estimate, Outage, Rules, between},
    event::{Look, Proof},
    experiment::{Experiment, Probe, RtoFrom, Service},
    id::{EntryId, HostId, ItemKey, ProbeId, ServiceId},
    time::{ClockId, Interval},
    units::Dur,
};

/// A fault of one item as it lies on one vantage's clock.
#[derive(Clone, Debug)]
struct Fault {
    /// Attempts of one entry belong together.
    group: (EntryId, u32, u32),
    one_shot: bool,
    /// Bounds on the vantage clock; `None` without clock maps.
    effective: Option<(i64, i64)>,
    /// Never later than it became effective, maps or not: only to say which came first.
    earliest: i64,
    /// Bounds of the undo; `None` without maps, or while not undone.
    reverted: Option<(i64, i64)>,
    undone: bool,
    early_end: Option<String>,
}

/// How far a guessed place on another clock may be off: messages take at most this long in an orderly network.
const GUESS_NS: i64 = 250_000_000;

/// The outage of a service that counts, as one vantage saw it: what instants are told of.
#[derive(Clone, Debug)]
pub(super) struct Incident {
    /// The clock of the vantage.
    pub clock: ClockId,
    /// What was seen.
    pub outage: Outage,
    /// The attempt of an entry whose fault it is counted from.
    pub opened_by: Option<(EntryId, u32, u32)>,
    /// Whether the service came back while the fault was still active; `None` when that cannot be told.
    pub recovered_before_revert: Option<bool>,
}

/// Phases of being down by vantage: a probe from a host, which may have been booted anew.
type SeenDown<'a> = BTreeMap<(&'a ProbeId, &'a HostId), Vec<(ClockId, Phase)>>;

/// What came of one track.
struct Viewed {
    report: ProbeReport,
    judgement: Judgement,
    incident: Option<Incident>,
    phases: Vec<Phase>,
}

impl Incident {
    /// The longest is told of.
    fn length(&self) -> (i64, Dur) {
        (self.outage.duration.hi.map_or(i64::MAX, Dur::ns), self.outage.duration.lo)
    }
}

/// What is made of all that was seen.
#[derive(Default)]
pub(super) struct Found {
    pub probes: Vec<ProbeReport>,
    pub services: Vec<ServiceReport>,
    /// The longest outage of each service that had one.
    pub incidents: BTreeMap<ServiceId, Incident>,
}

/// All probes and all services.
pub(super) fn services(story: &Story) -> Found {
    let Some(experiment) = &story.experiment else { return Found::default() };
    let mut probes = Vec::new();
    let mut incidents: BTreeMap<ServiceId, Incident> = BTreeMap::new();
    let mut seen_down: BTreeMap<ServiceId, SeenDown<'_>> = BTreeMap::new();
    let mut judged: BTreeMap<_, Vec<(Option<Interval>, Judgement)>> = BTreeMap::new();
    for ((id, clock), watch) in &story.watches {
        let Some(probe) = experiment.probes.get(id) else { continue };
        let service = probe.service.as_ref().and_then(|s| experiment.services.get(s));
        let view = View { story, experiment, id, probe, service, clock, watch };
        let Viewed { report, judgement, incident, phases } = view.report();
        if let Some(service) = &probe.service {
            let mine = seen_down.entry(service.clone()).or_default().entry((id, &clock.host)).or_default();
            mine.extend(phases.into_iter().map(|phase| (clock.clone(), phase)));
        }
        if let (Some(service), Some(incident)) = (&probe.service, incident)
            && incidents.get(service).is_none_or(|known| known.length() < incident.length())
        {
            incidents.insert(service.clone(), incident);
        }
        if let Some(service) = &probe.service {
            let counted = report.episodes.iter().filter(|e| !e.pre_existing);
            judged.entry(service.clone()).or_default().push((worst(counted.map(|e| e.outage)), judgement));
        }
        probes.push(report);
    }
    for ((id, host), why) in &story.refused_probes {
        if let Some(probe) = experiment.probes.get(id) {
            probes.push(ProbeReport { refused: Some(why.clone()), ..blank(id, probe, host) });
        }
    }
    let services = experiment
        .services
        .iter()
        .map(|(id, service)| {
            let speaks = |p: &&ProbeReport| p.service.as_ref() == Some(id);
            let mine: Vec<&ProbeReport> = probes.iter().filter(speaks).collect();
            let has_probe = experiment.probes.values().any(|p| p.service.as_ref() == Some(id));
            let judgement = judge::worst(judged.remove(id).unwrap_or_default()).unwrap_or_else(|| {
                let refused = mine.iter().find_map(|p| p.refused.as_ref());
                let why = match refused {
                    Some(why) => format!("its probe could not run: {why}"),
                    None if has_probe => "its probe never looked".into(),
                    None => "no probe speaks for it".into(),
                };
                if service.rto.is_some() { Judgement::NotMeasured { why } } else { Judgement::NoObjective }
            });
            let seen: Vec<_> = seen_down.remove(id).unwrap_or_default().into_values().collect();
            let together = vantages::together(&story.clocks, &seen);
            ServiceReport { together, ..sum_up(id.clone(), service, judgement, &mine) }
        })
        .collect();
    Found { probes, services, incidents }
}

fn blank(id: &ProbeId, probe: &Probe, host: &HostId) -> ProbeReport {
    ProbeReport {
        probe: id.clone(),
        service: probe.service.clone(),
        kind: probe.kind.clone(),
        host: host.clone(),
        every: probe.every,
        every_at_rest: probe.every_at_rest,
        rested: None,
        timeout: probe.timeout,
        looks: 0,
        failed: 0,
        missed: 0,
        refused: None,
        episodes: Vec::new(),
        strip: Vec::new(),
        baseline: None,
        under_fault: None,
    }
}

/// One track and what is needed to read it.
struct View<'a> {
    story: &'a Story,
    experiment: &'a Experiment,
    id: &'a ProbeId,
    probe: &'a Probe,
    service: Option<&'a Service>,
    clock: &'a ClockId,
    watch: &'a Watch,
}

impl View<'_> {
    fn report(&self) -> Viewed {
        let (every, timeout) = (self.probe.every, self.probe.timeout);
        let rules = Rules { stable_for: self.experiment.recovery.stable_for, every, timeout };
        let found = self.watch.track.estimate(rules);
        let faults = self.faults();
        let told: Vec<(Episode, Incident)> = found.outages.iter().map(|o| self.episode(o.clone(), &faults)).collect();
        let counts = told.iter().filter(|(episode, _)| !episode.pre_existing);
        let incident = counts.map(|(_, incident)| incident).max_by_key(|incident| incident.length()).cloned();
        let episodes: Vec<Episode> = told.into_iter().map(|(episode, _)| episode).collect();
        let counted: Vec<&Episode> = episodes.iter().filter(|e| !e.pre_existing).collect();
        let judgement = if counted.is_empty() {
            judge::calm(&self.calm(&found, &faults))
        } else {
            judge::worst(counted.iter().map(|e| (Some(e.outage), e.judgement.clone())))
                .unwrap_or(Judgement::NoObjective)
        };
        let report = ProbeReport {
            looks: self.watch.looks,
            failed: self.watch.failed,
            missed: self.watch.missed,
            rested: self.rested(&faults),
            strip: self.strip(&found),
            episodes,
            ..blank(self.id, self.probe, &self.clock.host)
        };
        let first = faults.first().map(|first| (first.earliest, first.effective.map_or(first.earliest, |(_, hi)| hi)));
        let phases = first.map_or_else(Vec::new, |first| vantages::phases(&found, first));
        Viewed { report, judgement, incident, phases }
    }

    fn faults(&self) -> Vec<Fault> {
        let seen = self.story.items_seen_by(self.id);
        let mut faults: Vec<Fault> = seen.filter_map(|(key, item)| self.fault(key, item)).collect();
        faults.sort_by_key(|f| f.earliest);
        faults
    }

    fn fault(&self, key: &ItemKey, item: &Item) -> Option<Fault> {
        if matches!(item.proof, Some(Proof::Ineffective { .. })) {
            return None;
        }
        let effective = item.effective.as_ref()?;
        let clocks = &self.story.clocks;
        let mapped = clocks.span(effective, self.clock);
        let guessed = || {
            let on_controller = clocks.place(&effective.from.clock, effective.from.boot_ns);
            // The vantage's clock differs by a nearly constant offset: two steps find its reading.
            let step = |x: i64| x - (clocks.place(self.clock, x) - on_controller);
            step(step(on_controller)) - GUESS_NS
        };
        let aborted =
            self.story.aborted.as_ref().map(|(kind, why)| format!("{}: {why}", super::verdict::abort_word(*kind)));
        let taken_back = || self.story.entries.get(&key.entry)?.failed.clone();
        let aborted = aborted.or_else(taken_back);
        let cause = item.undone.as_ref().map(|(c, ..)| *c).or(item.undoing.as_ref().map(|(c, _)| *c));
        Some(Fault {
            group: (key.entry.clone(), key.occurrence, key.generation),
            one_shot: item.one_shot(),
            effective: mapped,
            earliest: mapped.map_or_else(guessed, |(lo, _)| lo),
            reverted: item.undone.as_ref().and_then(|(_, between, _)| clocks.span(between, self.clock)),
            undone: item.undone.is_some(),
            early_end: cause.and_then(|c| judge::early_end(c, aborted.as_deref())),
        })
    }

    fn episode(&self, mut outage: Outage, faults: &[Fault]) -> (Episode, Incident) {
        let before: Vec<&Fault> = faults.iter().filter(|f| f.earliest <= outage.start_hi).collect();
        // A fault known to the nanosecond only raises the lower edge of impact: nothing is hit before it is.
        if let (Some(lo), Some(first)) = (outage.start_lo, before.iter().map(|f| f.earliest).min())
            && before.iter().all(|f| f.effective.is_some())
        {
            outage.start_lo = Some(lo.max(first.min(outage.start_hi)));
            outage.duration = between(outage.start_lo, outage.start_hi, outage.end_lo, outage.end_hi);
        }
        // The downtime of a single phase is the outage itself.
        if outage.blips == 0 {
            outage.downtime = outage.duration;
        }
        let opened_by = before.iter().max_by_key(|f| f.earliest).map(|f| f.group.clone());
        let opening: Option<(i64, i64)> =
            before.iter().filter(|f| Some(&f.group) == opened_by.as_ref()).filter_map(|f| f.effective).min();
        let lifting = Self::lifting(&outage, faults);
        let service = self.service.copied_rto();
        let from_fault = opening.map(|(lo, hi)| between(Some(lo), hi, outage.end_lo, outage.end_hi));
        let counted_from = match service.1 {
            RtoFrom::Impact => Some(outage.start_hi),
            RtoFrom::Fault => opening.map(|(_, hi)| hi),
        };
        let case = Case {
            rto: service.0,
            from: service.1,
            outage: outage.duration,
            recovery_from_fault: from_fault,
            residual: lifting.residual,
            while_active: lifting
                .lifted_lo
                .zip(counted_from)
                .map(|(lo, from)| Dur::from_ns(lo.saturating_sub(from).max(0))),
            ending: lifting.ending.clone(),
            every: self.probe.every,
            grain: self.grain(&outage),
        };
        let pre_existing = before.is_empty();
        let offset = |ns| self.story.offset(self.clock, ns);
        let incident = Incident {
            clock: self.clock.clone(),
            outage: outage.clone(),
            opened_by: opened_by.clone(),
            recovered_before_revert: lifting.recovered_before,
        };
        let episode = Episode {
            pre_existing,
            after_entry: opened_by.map(|(entry, ..)| entry),
            start_lo_ns: outage.start_lo.map(offset),
            start_hi_ns: offset(outage.start_hi),
            end_lo_ns: offset(outage.end_lo),
            end_hi_ns: outage.end_hi.map(offset),
            outage: outage.duration,
            recovery_from_fault: from_fault,
            residual: lifting.residual,
            recovered_before_revert: lifting.recovered_before,
            downtime: outage.downtime,
            blips: outage.blips,
            down_edges: outage.down_edges,
            up_edges: outage.up_edges,
            judgement: if pre_existing { Judgement::NoObjective } else { judge::outage(&case) },
            events: outage.events,
        };
        (episode, incident)
    }

    /// How the undo of lasting faults lies to the end of an outage.
    fn lifting(outage: &Outage, faults: &[Fault]) -> Lifting {
        let end_hi = outage.end_hi.unwrap_or(i64::MAX);
        let over_before = |f: &Fault| f.reverted.is_some_and(|(_, hi)| outage.start_lo.is_some_and(|lo| hi < lo));
        let active = faults.iter().filter(|f| !f.one_shot && f.earliest <= end_hi && !over_before(f));
        let active: Vec<&Fault> = active.collect();
        let mut lifting = Lifting { ending: Ending::ByItself, residual: None, recovered_before: None, lifted_lo: None };
        if active.is_empty() {
            return lifting;
        }
        if active.iter().any(|f| f.undone && f.reverted.is_none()) {
            lifting.ending = Ending::Unknown { full_time: false };
            return lifting;
        }
        let reverts: Vec<(&Fault, (i64, i64))> = active.iter().filter_map(|f| Some((*f, f.reverted?))).collect();
        let possible: Vec<_> = reverts.into_iter().filter(|(_, (lo, _))| *lo < end_hi).collect();
        let Some((_, last)) = possible.iter().max_by_key(|(_, span)| *span) else {
            lifting.recovered_before = outage.end_hi.map(|_| true);
            return lifting;
        };
        lifting.residual = Some(between(Some(last.0), last.1, outage.end_lo, outage.end_hi));
        lifting.lifted_lo = possible.iter().map(|(_, (lo, _))| *lo).min();
        let certain = possible.iter().any(|(_, (_, hi))| *hi <= outage.end_lo);
        lifting.recovered_before = certain.then_some(false);
        let early = possible.iter().find_map(|(fault, _)| fault.early_end.clone());
        lifting.ending = match early {
            Some(why) if certain => Ending::Early(why),
            None if certain => Ending::FullTime,
            early => Ending::Unknown { full_time: early.is_none() },
        };
        lifting
    }

    /// The period at which an outage was seen to begin and end, on the average of the two.
    fn grain(&self, outage: &Outage) -> Dur {
        let track = &self.watch.track;
        let period = |from, to| track.slowest(from, to, self.probe.every).ns();
        let begun = period(outage.start_lo.unwrap_or(outage.start_hi), outage.start_hi);
        let ended = period(outage.end_lo, outage.end_hi.unwrap_or(outage.end_lo));
        Dur::from_ns(begun / 2 + ended / 2)
    }

    /// The most that lay between two looks because the probe was at rest while it should not have been.
    fn rested(&self, faults: &[Fault]) -> Option<Dur> {
        let (every, stable) = (self.probe.every, self.experiment.recovery.stable_for.ns());
        let under_fault = faults.iter().map(|fault| {
            let over = if fault.undone || fault.one_shot { fault.reverted.or(fault.effective) } else { None };
            (
                fault.effective.map_or(fault.earliest, |(lo, _)| lo),
                over.map_or(i64::MAX, |(_, hi)| hi.saturating_add(stable)),
            )
        });
        let spans: Vec<(i64, i64)> = under_fault.collect();
        let slower = self.watch.track.slower(every);
        let unseen = slower.flat_map(|(time, period)| {
            let both = spans.iter().map(move |(from, to)| time.c.min(*to).saturating_sub(time.s.max(*from)));
            // A look at its full rate came at most one period before and after.
            both.filter(|both| *both > 0).map(move |both| period.min(Dur::from_ns(both) + every + every))
        });
        unseen.max()
    }

    fn calm(&self, found: &Estimate, faults: &[Fault]) -> Calm {
        let from = faults.first().map(|f| f.earliest);
        let until = faults.iter().filter_map(|f| f.reverted.or(f.effective)).map(|(_, hi)| hi).max();
        let covered = found.covered.unwrap_or(Look { s: i64::MAX, c: i64::MIN });
        let every = self.rested(faults).unwrap_or(self.probe.every);
        // A one-shot takes effect at once; give the service one period to show it.
        let last_look = until.map_or(from, Some).map(|at| at.saturating_sub(self.probe.timeout.ns()));
        let watched = from.is_some_and(|at| covered.s <= at.saturating_add(every.ns()))
            && last_look.is_some_and(|at| covered.c >= at);
        let holes = self.watch.gaps.iter().chain(&found.holes).filter(|h| from.is_none_or(|at| h.c >= at));
        let hole = holes.map(|h| h.c.saturating_sub(h.s)).max().unwrap_or_default();
        let blind = hole.saturating_add(every.ns()).saturating_add(self.probe.timeout.ns());
        let rests = self.watch.track.slower(self.probe.every).filter(|(time, _)| from.is_none_or(|at| time.c >= at));
        Calm {
            rto: self.service.and_then(|s| s.rto),
            fault: !faults.is_empty(),
            watched,
            blind: Dur::from_ns(blind),
            at_rest: rests.map(|(_, period)| period + self.probe.timeout).max().filter(|rest| rest.ns() > blind),
            every: self.probe.every,
        }
    }

    /// Stretches of up, down and unknown, drawn on the controller's clock.
    fn strip(&self, found: &Estimate) -> Vec<Segment> {
        let Some(covered) = found.covered else { return Vec::new() };
        let offset = |ns| self.story.offset(self.clock, ns);
        let mut strip = Vec::new();
        let mut push = |from: i64, to: i64, state| {
            if to > from {
                strip.push(Segment { from_ns: offset(from), to_ns: offset(to), state });
            }
        };
        let state = |ok| if ok { Seen::Up } else { Seen::Down };
        let mut at = covered.s;
        for pair in found.changes.windows(2) {
            let lo = pair[1].lo.unwrap_or(pair[1].hi).max(at);
            push(at, lo, state(pair[0].ok));
            push(lo, pair[1].hi, Seen::Changing);
            at = pair[1].hi.max(lo);
        }
        if let Some(last) = found.changes.last() {
            push(at, covered.c, state(last.ok));
        }
        // Gaps too short to matter for the stable window are drawn as well.
        let short = self.watch.gaps.iter().filter(|gap| !found.holes.contains(gap));
        for hole in found.holes.iter().chain(short) {
            push(hole.s, hole.c, Seen::Gap);
        }
        strip
    }
}

struct Lifting {
    ending: Ending,
    residual: Option<Interval>,
    recovered_before: Option<bool>,
    lifted_lo: Option<i64>,
}

/// The objective of a service that may not be there.
trait Objective {
    fn copied_rto(&self) -> (Option<Dur>, RtoFrom);
}

impl Objective for Option<&Service> {
    fn copied_rto(&self) -> (Option<Dur>, RtoFrom) {
        self.map_or((None, RtoFrom::Impact), |s| (s.rto, s.rto_from))
    }
}

fn sum_up(service: ServiceId, document: &Service, judgement: Judgement, probes: &[&ProbeReport]) -> ServiceReport {
    let counted = |p: &&ProbeReport| p.episodes.iter().filter(|e| !e.pre_existing).cloned().collect::<Vec<_>>();
    let per_probe: Vec<Vec<Episode>> = probes.iter().map(counted).collect();
    let all = || per_probe.iter().flatten();
    let before_revert: Vec<bool> = all().filter_map(|e| e.recovered_before_revert).collect();
    let largest = |count: fn(&Episode) -> u32| per_probe.iter().map(|p| p.iter().map(count).sum()).max().unwrap_or(0);
    let mut events: Vec<u64> = all().flat_map(|e| e.events.iter().copied()).collect();
    events.sort_unstable();
    events.dedup();
    ServiceReport {
        service,
        rto: document.rto,
        rto_from: document.rto_from,
        rpo: document.rpo,
        mtpd: document.mtpd,
        prove_every: document.prove_every,
        judgement,
        outage: worst(all().map(|e| e.outage)),
        span: worst(per_probe.iter().filter(|p| p.len() > 1).filter_map(|p| span(p))),
        outages: per_probe.iter().map(|p| p.len() as u32).max().unwrap_or(0),
        recovery_from_fault: worst(all().filter_map(|e| e.recovery_from_fault)),
        residual: worst(all().filter_map(|e| e.residual)),
        recovered_before_revert: (!before_revert.is_empty()).then(|| before_revert.iter().all(|b| *b)),
        downtime: worst(per_probe.iter().filter(|p| !p.is_empty()).map(|p| {
            let lo = p.iter().map(|e| e.downtime.lo).sum();
            let hi = p.iter().map(|e| e.downtime.hi.map(Dur::ns)).sum::<Option<i64>>().map(Dur::from_ns);
            Interval { lo, hi }
        })),
        blips: largest(|e| e.blips),
        down_edges: largest(|e| e.down_edges),
        up_edges: largest(|e| e.up_edges),
        together: None,
        failing: None,
        degraded: None,
        recovery_point: None,
        pre_existing: probes.iter().map(|p| p.episodes.iter().filter(|e| e.pre_existing).count()).max().unwrap_or(0)
            as u32,
        events,
    }
}

fn span(episodes: &[Episode]) -> Option<Interval> {
    let (first, last) = (episodes.first()?, episodes.last()?);
    Some(between(first.start_lo_ns, first.start_hi_ns, last.end_lo_ns, last.end_hi_ns))
}

/// The largest of several unknown lengths lies between the largest lower and the largest upper bound.
fn worst(intervals: impl Iterator<Item = Interval>) -> Option<Interval> {
    intervals.reduce(|a, b| Interval { lo: a.lo.max(b.lo), hi: a.hi.zip(b.hi).map(|(x, y)| x.max(y)) })
}

/// What a reader must know about what was seen.
pub(super) fn warnings(story: &Story, services: &[ServiceReport], probes: &[ProbeReport]) -> Vec<String> {
    let mut warnings = Vec::new();
    let name = |host: &HostId| story.head.hosts.get(host).map_or(host.to_string(), Clone::clone);
    for service in services {
        if service.pre_existing > 0 {
            warnings.push(format!(
                "{} was already failing before the first fault ({} outages): they are shown, not judged",
                service.service, service.pre_existing
            ));
        }
        if let Some(rto) = service.rto {
            let slow = probes.iter().filter(|p| p.service.as_ref() == Some(&service.service));
            for probe in slow.filter(|p| 2 * (p.every + p.timeout).ns() > rto.ns() / 10) {
                warnings.push(format!(
                    "{} looks every {} with a timeout of {}: coarse for an objective of {rto}",
                    probe.probe, probe.every, probe.timeout
                ));
            }
        }
    }
    for probe in probes {
        if let Some(why) = &probe.refused {
            warnings.push(format!("{} could not run on {}: {why}", probe.probe, name(&probe.host)));
        }
        if let Some(rested) = probe.rested.filter(|rested| rested.ns() > 3 * probe.every.ns()) {
            warnings.push(format!(
                "{} from {} was at rest while a fault was in effect: up to {} lay between two looks",
                probe.probe,
                name(&probe.host),
                rested.human_up()
            ));
        }
        if probe.missed > 0 {
            warnings.push(format!("{} from {} missed {} ticks", probe.probe, name(&probe.host), probe.missed));
        }
    }
    // Vantages of one probe are alike in what its document says.
    let mut said = std::collections::BTreeSet::new();
    warnings.retain(|warning| said.insert(warning.clone()));
    let fault_hosts = story.items.iter().filter(|(_, item)| item.effective.is_some()).map(|(key, _)| &key.host);
    for host in fault_hosts.collect::<std::collections::BTreeSet<_>>() {
        let unmapped = story.watches.keys().any(|(_, clock)| {
            let effective =
                story.items.iter().filter(|(k, _)| k.host == *host).filter_map(|(_, i)| i.effective.as_ref());
            clock.host != *host && effective.clone().any(|b| story.clocks.span(b, clock).is_none())
        });
        if unmapped {
            warnings.push(format!(
                "no clock map links {} with every vantage: recovery from fault is not given",
                name(host)
            ));
        }
    }
    warnings
}

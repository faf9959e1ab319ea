//! Estimated outages against outages whose truth is known: by the ten thousand in simulation, by the hundred in real time,
//! and what a peer makes of the same ones. The estimator itself is in the model.

mod peer;
mod real;
mod service;
mod simulated;
mod tally;
mod truth;

use fracas_agent::watch::Sight;
use fracas_model::{
    estimate::{Rules, Track},
    event::{Body, Reading, Readings},
    stats::passed_bound,
};

use self::{
    peer::Peer,
    real::{Play, Played},
    simulated::Weather,
    tally::{Tally, mean, ms, rank},
    truth::{Fate, Judged, Looked, Outcome, Shape},
};
use super::{say, table};

/// One millisecond.
const MS: i64 = 1_000_000;

/// Periods that are tried.
const PERIODS_MS: [i64; 7] = [10, 20, 50, 100, 200, 500, 1000];

/// What may be asked of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// No real time.
    pub(super) simulated: bool,
    /// Without Chaos Toolkit.
    pub(super) without_peer: bool,
    /// Of every draw.
    pub(super) seed: u64,
}

const CAPTION: &str = "\
Truth: from the beginning of the first dip that a failing look met to the end of the last such dip; of a partial outage,
each failed request is a dip. Missed: no look met it; long enough: though a dip lasted longer than a period and the p99
latency (and a timeout, where it hangs). Held: impact, recovery and length lie within their intervals. Narrow: held, and
not wider than 2 x (period + p99 latency of all looks at the service) + what the truth is uncertain by; or by its own
looks: or not wider than the same with the p99 latency of the looks at this outage, since of many looks only the few at an outage
may end at the timeout. Wider by looks: late, missed or slow looks leave no closer bound. Error: middle of the interval
less the truth. Bounds are Clopper-Pearson's. Milliseconds.
";

pub(super) fn run(quick: bool, asked: &Asked) -> anyhow::Result<()> {
    say(CAPTION)?;
    simulation(quick, asked.seed)?;
    if asked.simulated {
        return Ok(());
    }
    // Found or made before anything is timed.
    let peer = if asked.without_peer { None } else { Some(Peer::ready()?) };
    let (seconds, each) = if quick { (30, 2) } else { (240, 4) };
    let play = real::play(seconds, each, peer.as_ref().map(|p| (p, each / 2 * PERIODS_MS.len())), asked.seed)?;
    real_time(&play)
}

fn real_time(play: &Play) -> anyhow::Result<()> {
    let judged: Vec<Judged> = play.services.iter().map(|s| truth::judge(&s.script, &s.looked)).collect();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let looks: usize = play.services.iter().map(|s| s.looked.readings.len()).sum();
    let missed: u64 = play.services.iter().map(|s| s.missed).sum();
    let heading = format!(
        "recovery, real time (HTTP services on loopback, the agent's own watcher: {looks} looks, {missed} ticks missed; \
         load average {} at the end)",
        load.join(" ")
    );
    by_period(&heading, judged.iter())?;
    by_shape("the same by shape", judged.iter(), None)?;
    let all = Tally::of(&judged, |_| true);
    say(&format!(
        "  {} of {} found outages held; if all are, that holds for more than {:.2} % of such outages (95 %)\n",
        all.held(),
        all.met(),
        passed_bound(all.held(), all.met()) * 100.0
    ))?;
    if play.services.iter().all(|s| s.peer.is_none()) {
        return Ok(());
    }
    beside(play, &judged)
}

/// Fracas and Chaos Toolkit at the same outages of the services that both looked at.
fn beside(play: &Play, judged: &[Judged]) -> anyhow::Result<()> {
    let both: Vec<(&Played, &Judged)> = play.services.iter().zip(judged).filter(|(s, _)| s.peer.is_some()).collect();
    let mut rows = Vec::new();
    for period in PERIODS_MS.map(Some).into_iter().chain([None]) {
        let mine = both.iter().flat_map(|(_, j)| &j.outcomes);
        let mine: Vec<_> = mine.filter(|o| period.is_none_or(|ms| o.every_ns == ms * MS)).collect();
        let found = || mine.iter().filter_map(|o| if let Fate::Found(found) = o.fate { Some(found) } else { None });
        let errors: Vec<i64> = found().filter_map(|f| f.error_whole).collect();
        let held = found().filter(|f| f.held).count();
        let missed = mine.iter().filter(|o| !matches!(o.fate, Fate::Found(_))).count();
        let name = period.map_or("Fracas, all of these".into(), |ms| format!("Fracas, period {ms} ms"));
        rows.push(row(name, mine.len(), missed, errors, format!("{held} of {} hold", found().count())));
    }
    let (mut n, mut missed, mut errors) = (0, 0, Vec::new());
    let mut ended = std::collections::BTreeMap::<&str, u32>::new();
    for (played, _) in &both {
        let Some(told) = &played.peer else { continue };
        *ended.entry(&told.ended).or_default() += 1;
        for scripted in &played.script {
            n += 1;
            let whole = peer::moved(&scripted.whole, play.wall_offset);
            let truth = i64::midpoint(whole.up.lo, whole.up.hi) - i64::midpoint(whole.down.lo, whole.down.hi);
            match peer::length(&told.samples, &whole) {
                Some(length) => errors.push(length - truth),
                None => missed += 1,
            }
        }
    }
    rows.push(row("Chaos Toolkit, gap 1 s".into(), n, missed, errors, "gives none".into()));
    table(
        "recovery, beside Chaos Toolkit at the same outages (error: middle of the interval, or first failing sample to the next \
         that is well, less the length of the whole script; milliseconds)",
        &["who", "outages", "missed", "error mean", "p50 of |error|", "max", "interval"],
        &rows,
    )?;
    let ended: Vec<String> = ended.iter().map(|(how, n)| format!("{n} x {how}")).collect();
    say(&format!("  its experiments ended: {}\n", ended.join("; ")))
}

fn row(name: String, n: usize, missed: usize, errors: Vec<i64>, interval: String) -> Vec<String> {
    let bias = mean(&errors).map_or("-".into(), |b| format!("{:+.1}", b / 1e6));
    let mut errors: Vec<i64> = errors.iter().map(|e| e.abs()).collect();
    errors.sort_unstable();
    let (p50, max) = (ms(rank(&errors, 0.5)), ms(errors.last().copied()));
    vec![name, n.to_string(), missed.to_string(), bias, p50, max, interval]
}

fn simulation(quick: bool, seed: u64) -> anyhow::Result<()> {
    const OUTAGES: usize = 20;
    let services = if quick { 10 * PERIODS_MS.len() } else { 144 * PERIODS_MS.len() };
    let mut all: Vec<(Weather, Judged)> = Vec::new();
    for index in 0..services {
        let lot = simulated::lot(seed, index, OUTAGES);
        all.push((lot.weather, truth::judge(&lot.script, &lot.looked)));
    }
    let judged = || all.iter().map(|(_, j)| j);
    let heading = format!(
        "recovery, simulated ({} outages of 20 ms to 30 s and more, {services} services, seed {seed})",
        services * OUTAGES
    );
    by_period(&heading, judged())?;
    by_shape("the same by shape", judged(), None)?;
    by_shape("the same by shape, of 100 ms only", judged(), Some(100))?;
    let weather = |which: Weather| {
        let mine = || all.iter().filter(|(w, _)| *w == which).map(|(_, j)| j);
        let mut tally = Tally::of(mine(), |_| true);
        tally.invented = mine().map(|j| j.invented.len() as u32).sum();
        tally
    };
    let rows = [("fair".to_owned(), weather(Weather::Fair)), ("rough".to_owned(), weather(Weather::Rough))];
    tally::print(
        "the same by weather (rough: 1 % of ticks late by up to a period, 0.3 % lost with up to four more, 2 % of answers slow \
         up to the timeout)",
        "weather",
        &rows,
    )
}

fn by_period<'a>(heading: &str, judged: impl Iterator<Item = &'a Judged> + Clone) -> anyhow::Result<()> {
    let row = |name: String, is: &dyn Fn(i64) -> bool| {
        let mut tally = Tally::of(judged.clone(), |o| is(o.every_ns));
        tally.invented = judged.clone().flat_map(|j| &j.invented).filter(|every| is(**every)).count() as u32;
        (name, tally)
    };
    let mut rows: Vec<(String, Tally)> =
        PERIODS_MS.iter().map(|ms| row(format!("{ms} ms"), &|every| every == ms * MS)).collect();
    rows.push(row("all".into(), &|_| true));
    tally::print(heading, "period", &rows)
}

/// By shape; of one period, if it is told. What was invented has none.
fn by_shape<'a>(
    heading: &str,
    judged: impl Iterator<Item = &'a Judged> + Clone,
    period_ms: Option<i64>,
) -> anyhow::Result<()> {
    let about = |o: &Outcome, shape| o.shape == shape && period_ms.is_none_or(|ms| o.every_ns == ms * MS);
    let row = |shape: Shape| (shape.name().to_owned(), Tally::of(judged.clone(), |o| about(o, shape)));
    let rows: Vec<(String, Tally)> = Shape::ALL.into_iter().map(row).collect();
    tally::print(heading, "shape", &rows)?;
    let whole = |(name, tally): &(String, Tally)| {
        let held = tally.found.iter().filter(|f| f.held_whole).count();
        format!("{name} {held} of {}", tally.found.len())
    };
    let told: Vec<String> = rows.iter().map(whole).collect();
    say(&format!(
        "  of those found, the length of the whole script, unmet dips included, lies inside: {}",
        told.join(", ")
    ))?;
    let Some(period) = period_ms else { return say("") };
    // Of shorter ones, only those are met that the looks happen to fall into, and the interval begins at nothing.
    let long = |(name, tally): &(String, Tally)| {
        let long = tally.found.iter().filter(|f| f.truth > 2 * period * MS);
        let errors: Vec<i64> = long.filter_map(|f| f.error).collect();
        format!("{name} {} (n = {})", mean(&errors).map_or("-".into(), |e| format!("{:+.2}", e / 1e6)), errors.len())
    };
    let told: Vec<String> = rows.iter().map(long).collect();
    say(&format!("  mean error of those longer than two periods: {}\n", told.join(", ")))
}

/// What one probe told, put together as a report does it.
#[derive(Debug, Default)]
struct Kept {
    track: Track,
    readings: Vec<Reading>,
    missed: u64,
    last: i64,
}

impl Kept {
    fn take_all(&mut self, sights: Vec<Sight>) {
        for sight in &sights {
            self.take(sight);
        }
    }

    fn take(&mut self, sight: &Sight) {
        match &sight.body {
            Body::Edge { ok, before, after, .. } => self.track.edge(*ok, *before, *after, 0),
            Body::Gap { missed, between, .. } => {
                self.track.gap(*between);
                self.missed += missed;
            }
            Body::ReadingsSealed { between, ok, failed, .. } => {
                self.track.sealed(*between, *ok, *failed, 0);
                let blob = sight.blob.as_deref().unwrap_or_default();
                // Our own agent packed it.
                let readings = serde_json::from_slice::<Readings>(blob).unwrap_or_default();
                self.readings.extend(readings.unpack());
            }
            _ => {}
        }
    }

    fn looked(mut self, rules: Rules) -> Looked {
        self.readings.sort_by_key(|r| r.look.s);
        Looked { rules, readings: self.readings, track: self.track }
    }
}

//! One probe's life: tick, look, record, until nobody asks for it any more.

use std::{cmp, io};

use fracas_model::{
    desired::ProbeItem,
    event::{Body, Look, Reading},
    plan::Refusal,
    time::Stamp,
    units::Dur,
};
use fracas_probes::{Dated, Lookout, Seen, Told};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    Sight,
    pace::{Alarm as _, Pace},
    record::Recorder,
};
use crate::crash::{self, Task};

/// Longest time a reading waits to be told.
pub(super) const SEAL_AFTER: std::time::Duration = std::time::Duration::from_secs(1);
/// Longest time a probe may take to be prepared: what it reads then is local.
const PREPARE: std::time::Duration = std::time::Duration::from_secs(10);
/// Fastest tick, nanoseconds: what the promise on lateness was measured for.
pub(super) const FASTEST: i64 = 10_000_000;
/// Most looks of one probe that are out at once: each may hold a connection, and a host has few descriptors.
pub(super) const MOST_OUT: i64 = 128;

/// What one probe needs.
pub(super) struct Tended<P> {
    pub(super) item: ProbeItem,
    pub(super) lookout: Box<dyn Lookout>,
    pub(super) pace: P,
    pub(super) out: mpsc::UnboundedSender<Sight>,
    /// It ends at once when the sender is gone.
    pub(super) asked: watch::Receiver<Asked>,
}

/// What may change while a probe runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Boot time at which it ends by itself.
    pub(super) until_ns: i64,
    /// Nothing is at stake: it may tick this seldom.
    pub(super) at_rest: Option<Dur>,
}

/// A rate of ticks: each rate of a probe has its own instants, fixed for as long as the probe runs.
#[derive(Clone, Copy, Debug)]
struct Rate {
    every: i64,
    first: i64,
}

impl Rate {
    fn of(item: &ProbeItem, started: &Stamp, every: i64) -> Self {
        Self { every, first: started.boot_ns + phase(item, started.clock.host.as_str(), every) }
    }

    /// The first tick after an instant, so at most one period later.
    fn after(&self, at: i64) -> i64 {
        self.first + ((at - self.first).div_euclid(self.every) + 1) * self.every
    }
}

/// How many looks may be out: what the timeout explains and one more, at least 4, at most 128. `every`, in nanoseconds, is
/// the period in which the probe really ticks.
pub fn cap(item: &ProbeItem, every: i64) -> usize {
    let every = every.max(1);
    let explained = item.timeout.ns().max(0) / every + i64::from(item.timeout.ns() % every != 0) + 1;
    explained.clamp(4, MOST_OUT) as usize
}

/// When, within the first period, this probe of this run ticks: fixed for a run, unlike for all others, so that probes
/// and vantages do not beat in step with each other or with the service. Nanoseconds from the start of the probe, as
/// `every` is; its first tick is due then.
pub fn phase(item: &ProbeItem, host: &str, every: i64) -> i64 {
    let digest = Sha256::digest(format!("{}/{}/{host}", item.run, item.probe));
    let head = digest.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    (head % every.unsigned_abs().max(1)) as i64
}

impl<P: Pace> Tended<P> {
    /// Prepares, then ticks until it is stopped or its time is over, then seals what is left.
    pub(super) async fn run(mut self) -> Result<(), Refusal> {
        if !self.prepared().await? {
            return Ok(());
        }
        self.tick().await.map_err(|e| {
            let way_out = "raise the agent's limit of open files, or run fewer probes";
            Refusal::new(format!("the host gives no timer: {e}"), way_out)
        })
    }

    /// Whether it may begin; false when it was stopped meanwhile.
    async fn prepared(&mut self) -> Result<bool, Refusal> {
        let kind = &self.item.kind;
        let late = |_| {
            let why = format!("{kind}: what it must read on this host did not come within {} s", PREPARE.as_secs());
            Refusal::new(why, "look at the file it names and at the disk it lies on")
        };
        let asked = &mut self.asked;
        let stopped = async { while asked.changed().await.is_ok() {} };
        tokio::select! {
            biased;
            prepared = tokio::time::timeout(PREPARE, self.lookout.prepare()) => prepared.map_err(late)?.map(|()| true),
            () = stopped => Ok(false),
        }
    }

    /// From tick to tick, as it is asked for now.
    fn every(&self) -> i64 {
        let full = self.item.every.ns().max(FASTEST);
        self.asked.borrow().at_rest.map_or(full, |at_rest| at_rest.ns().max(full))
    }

    async fn tick(mut self) -> io::Result<()> {
        let full = self.item.every.ns().max(FASTEST);
        let cap = cap(&self.item, full);
        let mut recorder = Recorder::new(&self.item);
        let mut alarm = self.pace.alarm()?;
        let started = self.pace.now();
        self.asked.mark_unchanged();
        let mut rate = Rate::of(&self.item, &started, self.every());
        let mut due = rate.first;
        alarm.arm(due)?;
        self.tell(recorder.sight(Body::ProbeStarted { probe: self.item.probe.clone(), at: started.clone() }));
        if rate.every != full {
            self.tell(recorder.sight(self.pace_changed(rate, started.clone())));
        }
        let mut looks = FuturesUnordered::new();
        // At most one look beside the ticks, and no more often than the fastest probe ticks: a process that ends as soon as
        // it is started anew would have looks without end.
        let mut beside = FuturesUnordered::new();
        let mut beside_from = Instant::now();
        let mut seal_at: Option<Instant> = None;
        loop {
            crash::within(Task::Probe);
            tokio::select! {
                biased;
                rang = alarm.rang() => {
                    rang?;
                    let now = self.pace.boot_ns();
                    if now >= self.asked.borrow().until_ns {
                        let why = "it was not asked for any more: there was no contact with the controller";
                        recorder.missed(1, Look { s: due, c: due }, why);
                        break;
                    }
                    let late = (now - due) / rate.every;
                    if late > 0 {
                        let between = Look { s: due, c: due + (late - 1) * rate.every };
                        recorder.missed(late.unsigned_abs(), between, "the host did not wake in time");
                        due += late * rate.every;
                    }
                    if looks.len() + beside.len() < cap {
                        looks.push(look(&self.pace, &*self.lookout, &self.item));
                    } else {
                        recorder.missed(1, Look { s: due, c: due }, &format!("{cap} looks are still out"));
                    }
                    due = rate.after(due);
                    alarm.arm(due)?;
                }
                // A look beside the ticks; they go on as they were.
                () = stirred(&*self.lookout, beside_from), if beside.is_empty() && looks.len() < cap => {
                    beside_from = Instant::now() + std::time::Duration::from_nanos(FASTEST.unsigned_abs());
                    beside.push(look(&self.pace, &*self.lookout, &self.item));
                }
                Some(reading) = beside.next(), if !beside.is_empty() => {
                    self.looked(&mut recorder, reading);
                }
                Some(reading) = looks.next(), if !looks.is_empty() => {
                    self.looked(&mut recorder, reading);
                }
                () = sleep_until(seal_at.unwrap_or_else(Instant::now)), if seal_at.is_some() => {
                    self.tell_all(recorder.seal(&self.pace.now()));
                    seal_at = None;
                }
                asked = self.asked.changed() => {
                    if asked.is_err() {
                        break;
                    }
                    let every = self.every();
                    if every != rate.every {
                        let at = self.pace.now();
                        rate = Rate::of(&self.item, &started, every);
                        due = due.min(rate.after(at.boot_ns));
                        alarm.arm(due)?;
                        self.tell(recorder.sight(self.pace_changed(rate, at)));
                    }
                }
            }
            if seal_at.is_none() && recorder.pending() {
                seal_at = Some(Instant::now() + SEAL_AFTER);
            }
        }
        self.tell_all(recorder.seal(&self.pace.now()));
        Ok(())
    }

    fn looked(&self, recorder: &mut Recorder, mut reading: Reading) {
        let now = self.pace.now();
        let Told { before, complete } = self.lookout.told();
        // Of the time before the look, so before it.
        for Dated { at, seen } in before {
            let told = Reading { look: Look { s: at, c: at }, ok: seen.is_ok(), why: seen.err().unwrap_or_default() };
            self.tell_all(recorder.told(&told, &now));
        }
        if let Some(complete) = complete {
            let Look { s, c } = reading.look;
            reading.look.c = complete.clamp(s, c);
        }
        self.tell_all(recorder.looked(reading, &now));
    }

    fn pace_changed(&self, rate: Rate, at: Stamp) -> Body {
        Body::PaceChanged { probe: self.item.probe.clone(), every: Dur::from_ns(rate.every), at }
    }

    fn tell(&self, sight: Sight) {
        // Nobody listens only when the whole agent ends.
        let _ = self.out.send(sight);
    }

    fn tell_all(&self, sights: Vec<Sight>) {
        for sight in sights {
            self.tell(sight);
        }
    }
}

/// Ends when the kernel told of something worth a look, not before this instant: what is told until then is kept.
async fn stirred(lookout: &dyn Lookout, from: Instant) {
    sleep_until(from).await;
    lookout.stirred().await;
}

/// One look, bounded by the probe's timeout; a look that is given up failed at that moment.
async fn look<P: Pace>(pace: &P, lookout: &dyn Lookout, item: &ProbeItem) -> Reading {
    let s = pace.boot_ns();
    let seen: Seen = match tokio::time::timeout(item.timeout.std(), lookout.look()).await {
        Ok(seen) => seen,
        Err(_) => Err(format!("no answer within {}", item.timeout)),
    };
    let c = cmp::max(pace.boot_ns(), s);
    Reading { look: Look { s, c }, ok: seen.is_ok(), why: seen.err().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use fracas_model::{catalogue::Params, time::ClockId};

    use super::*;

    #[test]
    fn the_next_tick_of_any_rate_comes_at_most_one_period_later() {
        let started =
            Stamp { clock: ClockId { host: "h".into(), boot: "b".into() }, boot_ns: 7_000, wall_ns: 0, bound_ns: -1 };
        for run in 0..50 {
            let item = ProbeItem {
                run: format!("r{run}").as_str().into(),
                probe: "up".into(),
                kind: "tcp".into(),
                params: Params::default(),
                every: Dur::from_ns(100),
                at_rest: None,
                timeout: Dur::from_ns(100),
                stop: Vec::new(),
                until: Dur::from_secs(1),
            };
            for every in [1, 100, 1000, 999] {
                let rate = Rate::of(&item, &started, every);
                assert!((started.boot_ns..started.boot_ns + every).contains(&rate.first));
                // Before the first tick too: another rate may have been in force until now.
                for at in [0, started.boot_ns - 1, started.boot_ns, rate.first - 1, rate.first, 12_345, 1 << 60] {
                    let next = rate.after(at);
                    assert!(next > at && next <= at + every && (next - rate.first) % every == 0, "{at} {rate:?}");
                }
                assert_eq!(rate.after(rate.after(9_999)), rate.after(9_999) + every);
            }
        }
    }
}

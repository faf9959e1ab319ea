//! How much processor time a burn really takes, measured from outside the worker since it began.
//! `added` reads the run time the kernel accounts to its threads, `total` the idle time of the cores.

use std::{collections::BTreeMap, fs};

use fracas_model::{
    event::{Measured, Proof},
    id::ItemKey,
    plan::{Burn, BurnMode},
};

use crate::host::{clock, cpu, processes::Stat};

/// Shorter observations say little: run time in /proc lags by up to a tick, idle time is printed in steps of 10 ms.
const LEAST_NS: i64 = 500_000_000;
/// Windows for the worst second are closed at the first look this long after the last one.
const WINDOW_NS: i64 = 950_000_000;

/// All loads, by item.
#[derive(Debug, Default)]
pub(super) struct Loads(BTreeMap<ItemKey, Load>);

/// One load since it began.
#[derive(Debug)]
pub(super) struct Load {
    burn: Burn,
    pid: i32,
    threads: Vec<(u32, i32)>,
    begun: Sample,
    last: Sample,
    windows: u64,
    worst: Option<f64>,
}

/// Boot time and a counter in nanoseconds, one pair per core: run time of our thread, or idle time of the core.
type Sample = Vec<(i64, i64)>;

impl Loads {
    pub(super) fn insert(&mut self, key: &ItemKey, load: Load) {
        self.0.insert(key.clone(), load);
    }

    pub(super) fn remove(&mut self, key: &ItemKey) {
        self.0.remove(key);
    }

    /// What was used since the beginning, and the second that was furthest from what was asked.
    pub(super) fn check(&mut self, key: &ItemKey) -> (Proof, Vec<Measured>) {
        match self.0.get_mut(key) {
            Some(load) => load.check(),
            None => {
                (Proof::Unverified { why: "the worker of this load was started by an earlier agent".into() }, vec![])
            }
        }
    }
}

impl Load {
    /// From now on.
    pub(super) fn begin(burn: &Burn, pid: i32, threads: Vec<(u32, i32)>) -> Self {
        let mut load = Self { burn: burn.clone(), pid, threads, begun: vec![], last: vec![], windows: 0, worst: None };
        load.begun = load.sample().unwrap_or_default();
        load.last = load.begun.clone();
        load
    }

    /// `None` when a thread is gone.
    fn sample(&self) -> Option<Sample> {
        let idle = (self.burn.mode == BurnMode::Total).then(cpu::idle_ns);
        let one = |(core, tid): &(u32, i32)| {
            let counter = match &idle {
                Some(idle) => *idle.get(core)?,
                None => run_ns(self.pid, *tid)?,
            };
            Some((clock::boot_ns(), counter))
        };
        self.threads.iter().map(one).collect()
    }

    /// Percent per core between two samples.
    fn percents(&self, from: &Sample, to: &Sample) -> Vec<f64> {
        let one = |((t0, c0), (t1, c1)): (&(i64, i64), &(i64, i64))| {
            let share = (c1 - c0) as f64 / (t1 - t0).max(1) as f64;
            100.0 * if self.burn.mode == BurnMode::Total { 1.0 - share } else { share }
        };
        from.iter().zip(to).map(one).collect()
    }

    fn check(&mut self) -> (Proof, Vec<Measured>) {
        let asked = self.burn.percent.0;
        let alive = Stat::of(self.pid).is_some_and(|s| !s.dead());
        let (Some(now), true) = (self.sample(), alive && !self.begun.is_empty()) else {
            return (Proof::Ineffective { why: "the threads that burn are gone".into() }, vec![]);
        };
        let elapsed = |from: &Sample| now.iter().zip(from).map(|(a, b)| a.0 - b.0).min().unwrap_or(0);
        if elapsed(&self.last) >= WINDOW_NS {
            let furthest = |a: f64, b: f64| if (b - asked).abs() > (a - asked).abs() { b } else { a };
            let window = self.percents(&self.last, &now);
            self.worst = window.into_iter().chain(self.worst).reduce(furthest);
            self.windows += 1;
            self.last.clone_from(&now);
        }
        let percents = self.percents(&self.begun, &now);
        let mean = percents.iter().sum::<f64>() / percents.len() as f64;
        let measured = |what: &str, got| Measured {
            what: what.into(),
            unit: "%".into(),
            asked: Some(asked),
            got,
            p99: None,
            n: self.windows.max(1),
            by: match self.burn.mode {
                BurnMode::Added => "run time of the threads in /proc".into(),
                BurnMode::Total => "idle time of the cores in /proc/stat".into(),
            },
        };
        let mut all = vec![measured("core load", mean)];
        all.extend(self.worst.map(|worst| measured("core load, worst second", worst)));
        let observed = elapsed(&self.begun);
        if observed < LEAST_NS {
            let why = format!("measured for {} ms only", observed / 1_000_000);
            return (Proof::Unverified { why }, all);
        }
        (self.judge(&percents), all)
    }

    /// Each core's mean must come within a tenth of what was asked, at least 2 and at most 5 points.
    /// In `total`, others may use more than was asked; that is not our failure.
    fn judge(&self, percents: &[f64]) -> Proof {
        let asked = self.burn.percent.0;
        let slack = (asked / 10.0).clamp(2.0, 5.0);
        let off = |got: f64| match self.burn.mode {
            BurnMode::Added => (got - asked).abs() > slack,
            BurnMode::Total => asked - got > slack,
        };
        match self.threads.iter().zip(percents).find(|(_, got)| off(**got)) {
            None => Proof::Verified,
            Some(((core, _), got)) => Proof::Ineffective {
                why: format!(
                    "asked {asked} % of core {core}, measured {got:.1} %: does something of higher priority use it, or \
                     does a cgroup limit the agent?"
                ),
            },
        }
    }
}

/// Run time of a thread; in clock ticks where the kernel has no scheduler statistics.
fn run_ns(pid: i32, tid: i32) -> Option<i64> {
    let exact = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok();
    let exact = exact.and_then(|s| s.split(' ').next()?.parse().ok());
    exact.or_else(|| Some(Stat::of_thread(pid, tid)?.cpu_ticks.cast_signed() * (1_000_000_000 / cpu::TICKS_PER_SECOND)))
}

#[cfg(test)]
mod tests {
    use fracas_model::units::Percent;

    use super::*;

    fn load(mode: BurnMode) -> Load {
        let burn = Burn { percent: Percent(50.0), mode, cores: vec![0] };
        Load { burn, pid: 0, threads: vec![(0, 0)], begun: vec![], last: vec![], windows: 0, worst: None }
    }

    #[test]
    fn percents_are_use_or_what_is_not_idle() {
        let (from, to) = (vec![(0, 0)], vec![(1_000_000_000, 300_000_000)]);
        assert_eq!(load(BurnMode::Added).percents(&from, &to), [30.0]);
        assert_eq!(load(BurnMode::Total).percents(&from, &to), [70.0]);
    }

    #[test]
    fn others_may_use_more_than_the_total() {
        assert_eq!(load(BurnMode::Total).judge(&[90.0]), Proof::Verified);
        assert!(matches!(load(BurnMode::Total).judge(&[44.0]), Proof::Ineffective { .. }));
        assert!(matches!(load(BurnMode::Added).judge(&[90.0]), Proof::Ineffective { .. }));
        assert_eq!(load(BurnMode::Added).judge(&[51.0]), Proof::Verified);
    }
}

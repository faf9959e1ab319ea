//! The role `burn`: threads pinned to cores that use a given share of processor time, as exactly as the scheduler lets
//! them. It verifies nothing; the agent measures it from outside, see [`crate::host::linux`].
//!
//! One closed loop per core: time owed grows with the wall clock, time used is read from the thread's own clock
//! (`CLOCK_THREAD_CPUTIME_ID`, exact, where ticks would miss or count double what runs between them). Slices have
//! a random length, so that neither ticks nor periodic work of others can fall in step with them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use fracas_model::plan::{Burn, BurnMode};
use rand::RngExt as _;
use rustix::{
    thread::{CpuSet, clock_nanosleep_relative, gettid, sched_setaffinity},
    time::{ClockId, Timespec, clock_gettime},
};
use serde_json::json;

use super::worker::orders::{Order, Orders};
use crate::crash::{self, Task};

/// Shortest and longest slice, nanoseconds: short enough that a request of some ten milliseconds sees the average.
const SLICE_NS: std::ops::Range<i64> = 10_000_000..20_000_000;
/// Time owed is forgotten beyond this, so that a thread starved for long does not make up for all of it.
const MOST_OWED_NS: f64 = 250e6;
/// Time owed is paid back at this share of the core at most: the mean comes right again, and no second is far off.
const PAY_BACK: f64 = 0.1;
/// How often `total` looks at what others use. Reading /proc/stat costs a millisecond on large machines.
const LOOK: Duration = Duration::from_millis(100);
/// `total` remembers an error of at most this much.
const STEER_NS: f64 = 100e6;
/// `total` spreads the correction of an error over this many seconds.
const CORRECT_SECS: f64 = 0.5;

/// What a thread and its controller share.
#[derive(Debug, Default)]
struct Share {
    /// Bits of the share to use, 0 to 1.
    rate: AtomicU64,
    /// Nanoseconds used so far.
    used: AtomicI64,
}

/// Runs the role: one order `{"burn": ...}`, answered with `{"threads": [[core, tid], ...]}`; then burns until the end.
pub fn role(_arguments: &[String]) -> i32 {
    let Ok(mut orders) = Orders::open() else { return 1 };
    let mut running = false;
    loop {
        match orders.next(None) {
            Some(Order::Do(order)) => {
                let burn = order.get("burn").cloned().unwrap_or_default();
                let reply = match serde_json::from_value::<Burn>(burn) {
                    Ok(burn) if !running => start(&burn).inspect(|_| running = true),
                    Ok(_) => Err("it burns already".to_owned()),
                    Err(error) => Err(format!("not a burn order: {error}")),
                };
                let replied = match reply {
                    Ok(threads) => orders.reply(&json!({ "threads": threads })),
                    Err(error) => orders.refuse(&error),
                };
                if replied.is_err() {
                    return 1;
                }
            }
            // Returning from `main` ends every thread.
            _ => return 0,
        }
    }
}

fn start(burn: &Burn) -> Result<Vec<(u32, i32)>, String> {
    // Best effort, not permitted without privilege: what is asked is asked of the core, also when others want it.
    // -10 weighs nine times an ordinary process. -20 would weigh 87 times, and keep the agent itself waiting for a
    // quarter of a second.
    let _ = rustix::process::setpriority_process(None, -10);
    let share = (burn.percent.0 / 100.0).clamp(0.0, 1.0);
    let (placed, places) = mpsc::channel();
    let mut cores = Vec::new();
    for core in &burn.cores {
        let shared = Arc::new(Share::default());
        shared.rate.store(share.to_bits(), Ordering::Relaxed);
        cores.push((*core, shared.clone()));
        let (core, placed) = (*core, placed.clone());
        let run = move || match pin(core) {
            Ok(()) => {
                let _ = placed.send(Ok((core, gettid().as_raw_nonzero().get())));
                run(&shared);
            }
            Err(error) => {
                let _ = placed.send(Err(error));
            }
        };
        let started = thread::Builder::new().name(format!("burn-{core}")).stack_size(128 * 1024).spawn(run);
        started.map_err(|e| format!("no thread for core {core}: {e}"))?;
    }
    if burn.mode == BurnMode::Total {
        let steer = move || steer(share, &cores);
        thread::Builder::new().name("steer".into()).spawn(steer).map_err(|e| e.to_string())?;
    }
    let mut threads =
        burn.cores.iter().map(|_| places.recv().map_err(|e| e.to_string())?).collect::<Result<Vec<_>, _>>()?;
    threads.sort_unstable();
    Ok(threads)
}

fn pin(core: u32) -> Result<(), String> {
    let not = |e: &str| format!("core {core} cannot be used: {e}; is it online and in the agent's cpuset?");
    if core as usize >= CpuSet::MAX_CPU {
        return Err(not("the number is too high"));
    }
    let mut only = CpuSet::new();
    only.set(core as usize);
    sched_setaffinity(None, &only).map_err(|e| not(&e.to_string()))?;
    // The default slack of 50 us would make every slice late.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    Ok(())
}

/// Burns the share for ever.
fn run(share: &Share) -> ! {
    let mut random = rand::rng();
    let (mut at, mut used) = (ns(ClockId::Monotonic), ns(ClockId::ThreadCPUTime));
    let mut owed = 0.0_f64;
    loop {
        crash::within(Task::Burn);
        let rate = f64::from_bits(share.rate.load(Ordering::Relaxed));
        let slice = random.random_range(SLICE_NS);
        // What will be owed at the end of the slice is burned at its start.
        let goal = used + (rate * slice as f64 + f64::min(owed, PAY_BACK * slice as f64)) as i64;
        let mut spent = ns(ClockId::ThreadCPUTime);
        while spent < goal && ns(ClockId::Monotonic) < at + slice {
            spin();
            spent = ns(ClockId::ThreadCPUTime);
        }
        let left = at + slice - ns(ClockId::Monotonic);
        if left > 0 {
            let _ = clock_nanosleep_relative(ClockId::Monotonic, &Timespec { tv_sec: 0, tv_nsec: left });
        }
        let (now, spent) = (ns(ClockId::Monotonic), ns(ClockId::ThreadCPUTime));
        owed = (owed + rate * (now - at) as f64 - (spent - used) as f64).clamp(-MOST_OWED_NS, MOST_OWED_NS);
        share.used.store(spent, Ordering::Relaxed);
        (at, used) = (now, spent);
    }
}

/// About 10 us of arithmetic between two looks at the clock.
fn spin() {
    let mut x = 1_u64;
    for _ in 0..4096 {
        x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    }
}

fn ns(clock: ClockId) -> i64 {
    let t = clock_gettime(clock);
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

/// Sets each core's rate so that everybody's use together reaches `share`; never below nothing.
///
/// Busy is all that is not idle: with a tickless kernel idle time is exact to the 10 ms /proc prints it in, while the
/// ticks of `user` and `system` miss short runs.
fn steer(share: f64, cores: &[(u32, Arc<Share>)]) {
    let mut others = vec![0.0_f64; cores.len()];
    let mut owed = vec![0.0_f64; cores.len()];
    let mut last: Option<(i64, Vec<i64>, Vec<i64>)> = None;
    loop {
        crash::within(Task::Steer);
        let idle = idle_ns();
        let now = ns(ClockId::Monotonic);
        let idle: Vec<i64> = cores.iter().map(|(core, _)| idle.get(core).copied().unwrap_or(0)).collect();
        let used: Vec<i64> = cores.iter().map(|(_, s)| s.used.load(Ordering::Relaxed)).collect();
        if let Some((then, idle_then, used_then)) = &last {
            let wall = (now - then).max(1) as f64;
            for (i, (_, shared)) in cores.iter().enumerate() {
                let busy = wall - (idle[i] - idle_then[i]) as f64;
                let foreign = (busy - (used[i] - used_then[i]) as f64) / wall;
                // Followed over about half a second: one look errs by up to 10 ms of 100.
                others[i] += (foreign.clamp(0.0, 1.0) - others[i]) * 0.2;
                owed[i] = (owed[i] + share * wall - busy).clamp(-STEER_NS, STEER_NS);
                let rate = share - others[i] + owed[i] / 1e9 / CORRECT_SECS;
                shared.rate.store(rate.clamp(0.0, 1.0).to_bits(), Ordering::Relaxed);
            }
        }
        last = Some((now, idle, used));
        thread::sleep(LOOK);
    }
}

/// Idle time of each core since boot, waiting for devices included, from /proc/stat.
pub(crate) fn idle_ns() -> std::collections::BTreeMap<u32, i64> {
    parse_idle(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn parse_idle(stat: &str) -> std::collections::BTreeMap<u32, i64> {
    let line = |line: &str| {
        // The first line, `cpu  `, is the sum of the others.
        let numbered = line.strip_prefix("cpu").filter(|rest| !rest.starts_with(' '))?;
        let mut words = numbered.split_ascii_whitespace();
        let core = words.next()?.parse::<u32>().ok()?;
        let mut ticks = words.skip(3).map(|w| w.parse::<i64>().ok());
        let (idle, iowait) = (ticks.next()??, ticks.next()??);
        Some((core, (idle + iowait) * (1_000_000_000 / TICKS_PER_SECOND)))
    };
    stat.lines().take_while(|l| l.starts_with("cpu")).filter_map(line).collect()
}

/// `USER_HZ`, in which /proc counts: 100 in the ABI of every architecture this is built for.
pub(crate) const TICKS_PER_SECOND: i64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_read_per_core() {
        let stat = "cpu  1 2 3 400 5 6 7 8 0 0\ncpu0 1 2 3 200 1 6 7 8 0 0\ncpu12 1 2 3 100 2 0 0 0 0 0\nintr 1 2\n";
        let tick = 1_000_000_000 / TICKS_PER_SECOND;
        let idle = parse_idle(stat);
        assert_eq!(idle.into_iter().collect::<Vec<_>>(), [(0, 201 * tick), (12, 102 * tick)]);
    }
}

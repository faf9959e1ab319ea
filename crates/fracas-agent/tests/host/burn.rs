//! A load is what was asked, measured by this program's own clock from the kernel's accounting, on an idle or busy core.

use std::{
    thread,
    time::{Duration, Instant},
};

use fracas_agent::host::{Host as _, Reverted, processes::Stat};
use fracas_model::{
    event::Proof,
    plan::{Burn, BurnMode, Check, Step},
    units::Percent,
};
use libtest_mimic::Trial;

use crate::{
    stage::{host, key, lives, run},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("a_load_is_what_was_asked", added), trial("a_load_brings_the_core_to_the_total", total)]
}

fn burn(percent: f64, mode: BurnMode) -> (Step, Check) {
    let (percent, cores) = (Percent(percent), vec![0]);
    (Step::Burn(Burn { percent, mode, cores: cores.clone() }), Check::CpuUse { percent, cores, mode })
}

fn added() {
    let (host, key) = (host(), key("added"));
    let (step, check) = burn(50.0, BurnMode::Added);
    let (handle, _) = run(host.apply(&key, 0, &step)).expect("burns");
    let pid = i32::try_from(handle["worker"]["pid"].as_i64().expect("pid")).expect("pid");
    let ticks = || Stat::of(pid).expect("lives").cpu_ticks;
    let (begun, before, idle_before) = (Instant::now(), ticks(), (Instant::now(), idle()));
    assert!(matches!(run(host.check(&key, &check)).0, Proof::Unverified { .. }));
    for _ in 0..3 {
        thread::sleep(Duration::from_secs(1));
        run(host.check(&key, &check));
    }
    let share = (ticks() - before) as f64 / begun.elapsed().as_secs_f64();
    let (proof, measured) = run(host.check(&key, &check));
    eprintln!("asked 50 %: the clock of this test says {share:.2} %, the agent {measured:?}");
    // What the agent says must be what this clock says, whatever else runs here; and a load that fell short because the
    // core was taken must not be called verified.
    assert!((share - measured[0].got).abs() < 3.0);
    let reached = (measured[0].got - 50.0).abs() <= 5.0;
    assert_eq!(proof == Proof::Verified, reached, "{proof:?}");
    assert!(reached || others_took_the_core(&idle_before), "{measured:?}");
    assert_eq!(run(host.revert(&key, 0, &step, Some(&handle))), Ok(Reverted::Undone));
    assert!(!lives(pid));
    assert_eq!(run(host.revert(&key, 0, &step, Some(&handle))), Ok(Reverted::Undone), "again");
    assert_eq!(run(host.revert(&key, 0, &step, None)), Ok(Reverted::NothingThere));
}

/// Idle time of core 0 since boot, in hundredths of a second.
fn idle() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
    let line = stat.lines().find(|l| l.starts_with("cpu0 ")).expect("core 0");
    line.split_ascii_whitespace().skip(4).take(2).map(|w| w.parse::<f64>().expect("ticks")).sum()
}

/// Whether the core was hardly idle since then: only then may a load fall short.
fn others_took_the_core((since, idle_then): &(Instant, f64)) -> bool {
    (idle() - idle_then) / (since.elapsed().as_secs_f64() * 100.0) < 0.1
}

fn total() {
    let (host, key) = (host(), key("total"));
    // 30 % by somebody else, then 70 % in all.
    let (other, _) = burn(30.0, BurnMode::Added);
    run(host.apply(&crate::stage::key("other"), 0, &other)).expect("burns");
    let (step, check) = burn(70.0, BurnMode::Total);
    run(host.apply(&key, 0, &step)).expect("burns");
    for _ in 0..3 {
        thread::sleep(Duration::from_secs(1));
        run(host.check(&key, &check));
    }
    let (proof, measured) = run(host.check(&key, &check));
    eprintln!("asked 70 % in all beside 30 %: {measured:?}");
    assert_eq!(proof, Proof::Verified);
    assert_eq!(run(host.revert(&key, 0, &step, None)), Ok(Reverted::Undone));
    let lost = run(host.lost());
    assert!(lost.is_empty(), "{lost:?}");
}

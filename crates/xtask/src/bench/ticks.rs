//! How late a probe's looks begin, at the fastest rate a document may ask for.

use std::{net::TcpListener, thread, time::Duration};

use fracas_agent::{
    host::clock::Clock,
    watch::{Watcher as _, thread::ThreadWatcher},
};
use fracas_model::{
    catalogue::Params,
    desired::ProbeItem,
    event::{Body, Readings},
    policy::Policy,
    units::Dur,
};
use serde_json::json;

use super::{Sample, table};

const EVERY: Dur = Dur::from_ms(10);

pub(super) fn run(quick: bool) -> anyhow::Result<()> {
    let wanted = if quick { 300 } else { 6000 };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            drop(stream);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let item = ProbeItem {
        run: "bench".into(),
        probe: "tick".into(),
        kind: "tcp".into(),
        params: Params(json!({ "address": address }).as_object().cloned().unwrap_or_default()),
        every: EVERY,
        at_rest: None,
        timeout: EVERY,
        stop: Vec::new(),
        until: Dur::from_secs(600),
    };
    let (starts, missed) = runtime.block_on(async {
        let mut watcher = ThreadWatcher::new(fracas_probes::ALL, Policy::builtin(), Clock::of("bench".into()));
        watcher.set(std::slice::from_ref(&item));
        let (mut starts, mut missed) = (Vec::new(), 0);
        while starts.len() < wanted {
            let sight = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await?;
            match (&sight.body, &sight.blob) {
                (Body::ReadingsSealed { .. }, Some(blob)) => {
                    starts.extend(serde_json::from_slice::<Readings>(blob)?.unpack().iter().map(|r| r.look.s));
                }
                (Body::Gap { missed: more, .. }, _) => missed += more,
                (Body::ProbeRefused { refusal, .. }, _) => anyhow::bail!("the probe was refused: {refusal}"),
                _ => {}
            }
        }
        anyhow::Ok((starts, missed))
    })?;
    let late = Sample::new(lateness(&starts));
    let row = [vec!["look begun after its tick".to_owned()], late.cells(), vec![missed.to_string()]].concat();
    table("ticks (tcp probe every 10 ms, milliseconds)", &["what", "n", "p50", "p99", "max", "missed"], &[row])
}

/// How late each look began. Ticks lie on a grid of 10 ms whose place is not told: most looks begin shortly after their
/// tick, so on the circle of 10 ms the tick is where the most crowded stretch begins, however late a few looks were.
fn lateness(starts: &[i64]) -> Vec<i64> {
    const BIN: i64 = 100_000;
    let phase = |s: &i64| s.rem_euclid(EVERY.ns());
    let mut bins = vec![0_u32; (EVERY.ns() / BIN) as usize];
    for s in starts {
        bins[(phase(s) / BIN) as usize] += 1;
    }
    let crowded = (0..bins.len()).max_by_key(|bin| bins[*bin]).unwrap_or(0);
    let before = |bin: usize| (bin + bins.len() - 1) % bins.len();
    let mut first = crowded;
    while bins[before(first)] > 0 && before(first) != crowded {
        first = before(first);
    }
    let inside = starts.iter().map(phase).filter(|p| (p / BIN) as usize == first);
    let tick = inside.min().unwrap_or(0);
    starts.iter().map(|s| (phase(s) - tick).rem_euclid(EVERY.ns())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_is_later_than_half_a_tick_moves_no_other() {
        let late = [10_000, 120_000, 6_100_000, 30_000, 8_900_000, 0, 50_000, 90_000];
        for place in [0, 7_000_000, 9_950_000] {
            let tick = |n: usize| place + n as i64 * EVERY.ns();
            let starts: Vec<i64> = late.iter().enumerate().map(|(n, late)| tick(n) + late).collect();
            assert_eq!(lateness(&starts), late);
        }
    }
}

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
        timeout: EVERY,
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

/// How late each look began. Ticks lie on a grid of 10 ms whose place is not told: looks begin at their tick or later, so
/// on the circle of 10 ms the widest stretch in which none began ends at the tick.
fn lateness(starts: &[i64]) -> Vec<i64> {
    let phase = |s: &i64| s.rem_euclid(EVERY.ns());
    let mut phases: Vec<i64> = starts.iter().map(phase).collect();
    phases.sort_unstable();
    let before = phases.iter().cycle().skip(phases.len().saturating_sub(1));
    let gaps = phases.iter().zip(before).map(|(this, last)| ((this - last).rem_euclid(EVERY.ns()), *this));
    let tick = gaps.max().map_or(0, |(_, tick)| tick);
    starts.iter().map(|s| (phase(s) - tick).rem_euclid(EVERY.ns())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_is_later_than_half_a_tick_moves_no_other() {
        let late = [10_000, 120_000, 6_100_000, 30_000, 8_900_000, 0];
        let starts: Vec<i64> =
            (0..).map(|n| 7_000_000 + n * EVERY.ns()).zip(late).map(|(tick, late)| tick + late).collect();
        assert_eq!(lateness(&starts), late);
    }
}

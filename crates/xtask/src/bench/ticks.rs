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
    // Ticks lie on a grid of 10 ms, one look each unless one was missed; the look that was least late gives its place.
    let first = starts.first().copied().unwrap_or(0);
    let tick = |(i, s): (usize, &i64)| match missed {
        0 => s - first - i as i64 * EVERY.ns(),
        _ => (s - first + EVERY.ns() / 2).rem_euclid(EVERY.ns()) - EVERY.ns() / 2,
    };
    let offsets: Vec<i64> = starts.iter().enumerate().map(tick).collect();
    let grid = offsets.iter().min().copied().unwrap_or(0);
    let late = Sample::new(offsets.into_iter().map(|offset| offset - grid).collect());
    let row = [vec!["look begun after its tick".to_owned()], late.cells(), vec![missed.to_string()]].concat();
    table("ticks (tcp probe every 10 ms, milliseconds)", &["what", "n", "p50", "p99", "max", "missed"], &[row])
}

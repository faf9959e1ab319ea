//! The scripted services in real time, looked at by the agent's own watcher, and by a peer. It holds nothing against the
//! truth itself.

use std::thread;

use fracas_agent::{
    host::clock::{Clock, boot_ns, wall_ns},
    watch::{Watcher as _, thread::ThreadWatcher},
};
use fracas_model::{catalogue::Params, desired::ProbeItem, estimate::Rules, event::Body, policy::Policy, units::Dur};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::{
    Kept, MS, PERIODS_MS,
    peer::{Peer, Told},
    service::{Mode, Service, wait_until},
    truth::{Dip, Looked, Scripted, Shape, Span},
};
use crate::bench::{say, until};

/// One service after its script.
pub(super) struct Played {
    pub(super) script: Vec<Scripted>,
    pub(super) looked: Looked,
    /// Ticks that the host did not make in time.
    pub(super) missed: u64,
    pub(super) peer: Option<Told>,
}

/// All of them.
pub(super) struct Play {
    pub(super) services: Vec<Played>,
    /// Wall clock less boot time, nanoseconds.
    pub(super) wall_offset: i64,
}

/// One outage as it is meant to be: what the service turns to, and when, in boot time.
struct Planned {
    shape: Shape,
    turns: Vec<(i64, Mode)>,
}

fn rules(every_ms: i64) -> Rules {
    // Long enough that a busy host is not an outage.
    let timeout_ms = (2 * every_ms).clamp(250, 500);
    Rules {
        stable_for: Dur::from_ms((10 * (every_ms + timeout_ms)).max(2000)),
        every: Dur::from_ms(every_ms),
        timeout: Dur::from_ms(timeout_ms),
    }
}

/// From 20 ms to `most`, as many short ones as long ones.
fn length(dice: &mut ChaCha8Rng, most: i64) -> i64 {
    let (lo, hi) = (((20 * MS) as f64).ln(), (most as f64).ln());
    dice.random_range(lo..hi).exp() as i64
}

/// Outages one after the other until `end`.
fn plan(dice: &mut ChaCha8Rng, rules: Rules, begin: i64, end: i64) -> Vec<Planned> {
    let (timeout, unit) = (rules.timeout.ns(), rules.every.ns() + rules.timeout.ns());
    let mut planned = Vec::new();
    let mut at = begin + dice.random_range(0..2 * unit);
    while at < end {
        let shape = Shape::ALL[dice.random_range(0..Shape::ALL.len())];
        let most = (end - at).clamp(40 * MS, 30_000 * MS);
        let turns = match shape {
            Shape::Refused => vec![(at, Mode::Refused), (at + length(dice, most), Mode::Up)],
            Shape::Failing => vec![(at, Mode::Failing), (at + length(dice, most), Mode::Up)],
            Shape::Hanging => vec![(at, Mode::Hanging), (at + length(dice, most), Mode::Up)],
            Shape::Flapping => {
                let mut turns = Vec::new();
                let mut from = at;
                for mode in [Mode::Refused, Mode::Failing, Mode::Refused] {
                    let to = from + length(dice, most.min(2000 * MS));
                    turns.extend([(from, mode), (to, Mode::Up)]);
                    from = to + unit * dice.random_range(110..200) / 100;
                }
                turns
            }
            Shape::Slow => {
                let up = at + length(dice, most.min(3000 * MS));
                let good_at = up + length(dice, most.min(3000 * MS));
                let slow = Mode::Slow { good_at, timeout_ns: timeout };
                vec![(at, Mode::Refused), (up, slow), (good_at + 4 * timeout, Mode::Up)]
            }
            Shape::Partial => {
                let to = at + length(dice, most);
                let mode = Mode::Partial { percent: dice.random_range(50..95), salt: dice.random() };
                vec![(at, mode), (to, Mode::Up)]
            }
        };
        let over = turns.last().map_or(at, |(at, _)| *at);
        at = over + rules.stable_for.ns() + unit * dice.random_range(400..800) / 100;
        planned.push(Planned { shape, turns });
    }
    planned
}

/// What came of a plan, from the instants of its turns.
fn scripted(planned: &Planned, turned: &[Span], service: &Service) -> Option<Scripted> {
    let (first, last) = (*turned.first()?, *turned.last()?);
    let dips: Vec<Dip> = match (planned.shape, &planned.turns[..]) {
        (Shape::Slow, [_, (_, Mode::Slow { good_at, .. }), _]) => {
            let back = turned.get(1)?;
            vec![Dip { down: first, up: Span { lo: back.lo.max(*good_at), hi: back.hi.max(*good_at) } }]
        }
        (Shape::Partial, _) => {
            let mine =
                service.failed("/fracas").into_iter().filter(|s| first.lo <= s.lo && s.hi <= last.hi + 1000 * MS);
            mine.map(|span| Dip { down: span, up: span }).collect()
        }
        _ => turned.chunks_exact(2).map(|pair| Dip { down: pair[0], up: pair[1] }).collect(),
    };
    let up = if planned.shape == Shape::Slow { dips.first()?.up } else { last };
    Some(Scripted { shape: planned.shape, dips, whole: Dip { down: first, up } })
}

/// Plays scripts of so many seconds on `each` services of every period; the peer looks at `peers` of them.
pub(super) fn play(seconds: i64, each: usize, peer: Option<(&Peer, usize)>, seed: u64) -> anyhow::Result<Play> {
    let n = each * PERIODS_MS.len();
    let mut services = Service::start(n + 1)?;
    let over = services.remove(n);
    over.turn(Mode::Hanging)?;
    let rules: Vec<Rules> = (0..n).map(|i| rules(PERIODS_MS[i % PERIODS_MS.len()])).collect();
    let items: Vec<ProbeItem> = services.iter().zip(&rules).enumerate().map(|(i, (s, r))| item(i, s, *r)).collect();
    let mut watcher = ThreadWatcher::new(fracas_probes::ALL, Policy::builtin(), Clock::of("bench".into()));
    watcher.set(&items);
    let dir = tempfile::tempdir()?;
    let mut peers = Vec::new();
    if let Some((peer, most)) = peer {
        for (service, rules) in services.iter().zip(&rules).take(most) {
            peers.push(peer.start(dir.path(), service.port, over.port, rules.timeout.ns())?);
        }
    }
    // Chaos Toolkit asks once before it begins, and must find the service up.
    for (i, service) in services.iter().enumerate() {
        until("every prober looks at its service", || (service.asked("/fracas") > 3).then_some(()))?;
        if i < peers.len() {
            until("Chaos Toolkit looks", || (service.asked("/peer") > 1).then_some(()))?;
        }
    }
    let begin = boot_ns() + 1000 * MS;
    let end = begin + seconds * 1000 * MS;
    let plans: Vec<Vec<Planned>> = rules
        .iter()
        .enumerate()
        .map(|(i, rules)| {
            let mut dice = ChaCha8Rng::seed_from_u64(seed);
            dice.set_stream(1_000_000 + i as u64);
            plan(&mut dice, *rules, begin, end)
        })
        .collect();
    say(&format!(
        "playing {} outages on {n} services for {seconds} s, seed {seed}, {} of the services under Chaos Toolkit too ...",
        plans.iter().map(Vec::len).sum::<usize>(),
        peers.len()
    ))?;
    let turned = turn(&services, &plans)?;
    let longest = rules.iter().map(|r| r.stable_for.ns() + 4 * (r.every.ns() + r.timeout.ns())).max().unwrap_or(0);
    wait_until(boot_ns() + longest);
    let mut kept = close(watcher, n)?;
    over.turn(Mode::Up)?;
    let wall_offset = wall_ns() - boot_ns();
    let mut told: Vec<Option<Told>> = Vec::new();
    for peer in peers {
        told.push(Some(peer.told()?));
    }
    told.resize_with(n, || None);
    let mut played = Vec::new();
    for (((((service, rules), plan), turned), kept), peer) in
        services.iter().zip(rules).zip(&plans).zip(&turned).zip(kept.drain(..)).zip(told)
    {
        let script = plan.iter().zip(turned).filter_map(|(p, t)| scripted(p, t, service)).collect();
        let missed = kept.missed;
        played.push(Played { script, looked: kept.looked(rules), missed, peer });
    }
    Ok(Play { services: played, wall_offset })
}

fn item(i: usize, service: &Service, rules: Rules) -> ProbeItem {
    let url = format!("http://127.0.0.1:{}/fracas", service.port);
    ProbeItem {
        run: "bench".into(),
        probe: format!("p{i}").as_str().into(),
        kind: "http".into(),
        params: Params(json!({ "url": url }).as_object().cloned().unwrap_or_default()),
        every: rules.every,
        at_rest: None,
        timeout: rules.timeout,
        stop: Vec::new(),
        until: Dur::from_secs(3600),
    }
}

/// Turns every service when its plan says so, on a thread that does nothing else; the instants, laid out as the plans.
fn turn(services: &[Service], plans: &[Vec<Planned>]) -> anyhow::Result<Vec<Vec<Vec<Span>>>> {
    let mut order: Vec<(i64, usize, usize, Mode)> = Vec::new();
    for (service, plan) in plans.iter().enumerate() {
        for (outage, planned) in plan.iter().enumerate() {
            order.extend(planned.turns.iter().map(|(at, mode)| (*at, service, outage, *mode)));
        }
    }
    order.sort_by_key(|(at, ..)| *at);
    let mut turned: Vec<Vec<Vec<Span>>> = plans.iter().map(|plan| vec![Vec::new(); plan.len()]).collect();
    thread::scope(|scope| {
        let turning = scope.spawn(|| {
            for (at, service, outage, mode) in order {
                wait_until(at);
                turned[service][outage].push(services[service].turn(mode)?);
            }
            anyhow::Ok(())
        });
        turning.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that turns the services panicked")))
    })?;
    Ok(turned)
}

/// Stops the probes and sorts what they told.
fn close(mut watcher: ThreadWatcher, n: usize) -> anyhow::Result<Vec<Kept>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sights = runtime.block_on(watcher.close());
    let mut kept: Vec<Kept> = (0..n).map(|_| Kept::default()).collect();
    for sight in &sights {
        let probe = match &sight.body {
            Body::Edge { probe, .. } | Body::Gap { probe, .. } | Body::ReadingsSealed { probe, .. } => probe,
            Body::ProbeRefused { refusal, .. } => anyhow::bail!("a probe was refused: {refusal}"),
            _ => continue,
        };
        if let Some(kept) = probe.as_str().strip_prefix('p').and_then(|i| kept.get_mut(i.parse::<usize>().ok()?)) {
            kept.take(sight);
        }
    }
    Ok(kept)
}

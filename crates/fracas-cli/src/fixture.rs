//! A small whole history for the tests of this crate: one kill, one delay, one service that fails and recovers.

use fracas_model::{
    event::{Between, Body, Event, Look, Measured, Origin, Proof, UndoCause, VerdictWord},
    id::ItemKey,
    plan::{Check, Plan},
    time::{ClockId, Stamp},
};
use serde_json::json;

/// 2026-11-24T02:45:00Z.
pub(crate) const START: i64 = 1_795_488_300_000_000_000;

/// An instant so many milliseconds after [`START`], on the controller's clock.
pub(crate) fn stamp(ms: i64) -> Stamp {
    let clock = ClockId { host: "c".into(), boot: "b".into() };
    Stamp { clock, boot_ns: ms * 1_000_000, wall_ns: START + ms * 1_000_000, bound_ns: 0 }
}

/// The controller's event.
pub(crate) fn event(seq: u64, body: Body) -> Event {
    Event { stream: "run/r1".into(), seq, received: stamp(0), origin: None, body }
}

/// The end of a run.
pub(crate) fn finished(exit_code: u8) -> Body {
    Body::Finished { verdict: VerdictWord::Pass, exit_code, reasons: Vec::new(), at: stamp(60_000) }
}

fn item(entry: &str) -> ItemKey {
    ItemKey { run: "r1".into(), entry: entry.into(), occurrence: 0, host: "h1".into(), generation: 1 }
}

fn planned() -> Body {
    let document = json!({
        "apiVersion": "fracas/v1", "kind": "Experiment", "name": "shop-survives",
        "services": {"shop": {"rto": "30s"}},
        "targets": {"primary": {"select": "role=db"}, "edge": {"select": "role=edge"}},
        "probes": {"shop-up": {"service": "shop", "kind": "http", "params": {}, "from": "edge", "every": "50ms", "timeout": "50ms"}},
        "timeline": [
            {"id": "kill", "trigger": {"at": "0s"},
             "action": {"fault": {"fault": "crash", "params": {}, "target": "primary", "duration": null}}},
            {"id": "slow", "trigger": {"after": {"what": {"recovered": "shop"}, "delay": "0s"}},
             "action": {"fault": {"fault": "lag", "params": {}, "target": "primary", "duration": "20s"}}}
        ],
        "recovery": {"stableFor": "5s", "giveUpAfter": "5m"},
        "limits": {}, "lease": "15s"
    });
    Body::Planned {
        run: "r1".into(),
        document,
        source: String::new(),
        source_name: "shop.yaml".into(),
        files: std::collections::BTreeMap::new(),
        intent: "aa".into(),
        plan: "bb".into(),
        seed: 7,
        targets: [("primary".into(), vec!["h1".into()]), ("edge".into(), vec!["h2".into()])].into(),
        hosts: [("h1".into(), "db-1".into()), ("h2".into(), "edge-1".into())].into(),
        canaries: std::collections::BTreeMap::new(),
        rehearsed: Vec::new(),
        by: "p1".into(),
        environment: "default".into(),
        at: stamp(0),
    }
}

fn edge(ms: i64, ok: bool) -> Body {
    let look = |at: i64| Look { s: at * 1_000_000, c: (at + 1) * 1_000_000 };
    let why = if ok { String::new() } else { "connection refused".into() };
    Body::Edge { probe: "shop-up".into(), ok, before: Some(look(ms - 50)), after: look(ms), why, at: stamp(ms + 1) }
}

fn delay_plan() -> Plan {
    let check = Check::Gone { processes: Vec::new() };
    Plan { steps: Vec::new(), claims: Vec::new(), check, summary: "hold packets for 200ms".into() }
}

fn delayed(got: f64) -> Measured {
    let (what, unit, by) = ("added delay".into(), "ms".into(), "probe packets".into());
    Measured { what, unit, asked: Some(200.0), got, p99: None, n: 50, by }
}

/// The whole history; host events come from `h1` (faults) and `h2` (the probe).
pub(crate) fn history() -> Vec<Event> {
    let between = |from: i64, to: i64| Between { from: stamp(from), to: stamp(to) };
    let bodies: Vec<(Option<&str>, Body)> = vec![
        (None, planned()),
        (None, Body::GateStarted { at: stamp(100) }),
        (Some("h2"), edge(150, true)),
        (None, Body::GatePassed { at: stamp(10_000) }),
        (None, Body::EntryStarted { entry: "kill".into(), occurrence: 0, generation: 1, at: stamp(10_000) }),
        (Some("h1"), Body::Spent { item: item("kill"), certain: true, effective: between(10_050, 10_051) }),
        (
            Some("h1"),
            Body::Checked { item: item("kill"), proof: Proof::Verified, measured: Vec::new(), at: stamp(10_060) },
        ),
        (None, Body::EntryEnded { entry: "kill".into(), at: stamp(10_070) }),
        (Some("h2"), edge(10_200, false)),
        (Some("h2"), edge(13_400, true)),
        (None, Body::ServiceRecovered { service: "shop".into(), since: stamp(13_400), at: stamp(18_500) }),
        (None, Body::EntryStarted { entry: "slow".into(), occurrence: 0, generation: 1, at: stamp(18_500) }),
        (Some("h1"), Body::Applying { item: item("slow"), plan: delay_plan(), at: stamp(18_520) }),
        (Some("h1"), Body::Active { item: item("slow"), effective: between(18_530, 18_531) }),
        (
            Some("h1"),
            Body::Checked {
                item: item("slow"),
                proof: Proof::Verified,
                measured: vec![delayed(201.3)],
                at: stamp(20_000),
            },
        ),
        (Some("h1"), Body::Undoing { item: item("slow"), cause: UndoCause::Expired, at: stamp(38_530) }),
        (
            Some("h1"),
            Body::Undone {
                item: item("slow"),
                cause: UndoCause::Expired,
                between: between(38_531, 38_540),
                superseded: Vec::new(),
            },
        ),
        (None, Body::EntryEnded { entry: "slow".into(), at: stamp(38_600) }),
        (None, Body::RecoveryStarted { at: stamp(38_600) }),
        (None, Body::UndoStarted { at: stamp(43_600) }),
        (None, finished(0)),
        (None, Body::ReportSealed { model: "1".into(), digest: "cc".into() }),
    ];
    let numbered = bodies.into_iter().zip(1..);
    numbered
        .map(|((host, body), seq)| {
            let origin = host.map(|h| Origin { host: h.into(), outbox: "o".into(), seq });
            Event { origin, ..event(seq, body) }
        })
        .collect()
}

/// [`history`] as plain lines, one hour east of UTC.
pub(crate) const LINES: &[&str] = &[
    "2026-11-24T02:45:00.000Z 03:45:00.000+01:00             run r1: shop-survives from shop.yaml, seed 7: edge = edge-1; primary = db-1",
    "2026-11-24T02:45:00.100Z 03:45:00.100+01:00             waiting for steady state",
    "2026-11-24T02:45:00.151Z 03:45:00.151+01:00             edge-1: shop-up ok",
    "2026-11-24T02:45:10.000Z 03:45:10.000+01:00    +0.000s  steady state held: the clock of the timeline starts",
    "2026-11-24T02:45:10.000Z 03:45:10.000+01:00    +0.000s  kill started",
    "2026-11-24T02:45:10.051Z 03:45:10.051+01:00    +0.051s  kill on db-1 fired",
    "2026-11-24T02:45:10.060Z 03:45:10.060+01:00    +0.060s  kill on db-1 verified",
    "2026-11-24T02:45:10.070Z 03:45:10.070+01:00    +0.070s  kill ended",
    "2026-11-24T02:45:10.201Z 03:45:10.201+01:00    +0.201s  edge-1: shop-up failing: connection refused",
    "2026-11-24T02:45:13.401Z 03:45:13.401+01:00    +3.401s  edge-1: shop-up ok",
    "2026-11-24T02:45:18.500Z 03:45:18.500+01:00    +8.500s  shop recovered: up for the whole stable window",
    "2026-11-24T02:45:18.500Z 03:45:18.500+01:00    +8.500s  slow started",
    "2026-11-24T02:45:18.520Z 03:45:18.520+01:00    +8.520s  slow on db-1 applying: hold packets for 200ms",
    "2026-11-24T02:45:18.531Z 03:45:18.531+01:00    +8.531s  slow on db-1 active",
    "2026-11-24T02:45:20.000Z 03:45:20.000+01:00   +10.000s  slow on db-1 verified; added delay: asked 200 ms, measured 201.3 ms, n = 50, by probe packets",
    "2026-11-24T02:45:38.530Z 03:45:38.530+01:00   +28.530s  slow on db-1 undoing: its duration ended",
    "2026-11-24T02:45:38.540Z 03:45:38.540+01:00   +28.540s  slow on db-1 undone and read back (its duration ended)",
    "2026-11-24T02:45:38.600Z 03:45:38.600+01:00   +28.600s  slow ended",
    "2026-11-24T02:45:38.600Z 03:45:38.600+01:00   +28.600s  timeline through: waiting for services to be stable",
    "2026-11-24T02:45:43.600Z 03:45:43.600+01:00   +33.600s  nothing is desired any more: waiting for hosts to confirm",
    "2026-11-24T02:46:00.000Z 03:46:00.000+01:00   +50.000s  verdict: pass",
];

//! The real watcher with real timers and scripted looks: edges, seals, gaps, refusals, ends.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::atomic::{AtomicI64, AtomicU32, Ordering},
};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    event::{Body, Readings},
    shape::{Field, Shape},
    tolerance::Values,
    units::Dur,
};
use fracas_probes::{LookFuture, Lookout};

use super::*;

/// Looks that do as their parameter says.
struct Scripted;

struct Script(String);

static LOOKS: AtomicU32 = AtomicU32::new(0);
static HANGING: AtomicI64 = AtomicI64::new(0);
static STUCK: AtomicU32 = AtomicU32::new(0);

struct Hanging;

impl Drop for Hanging {
    fn drop(&mut self) {
        HANGING.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Probe for Scripted {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "scripted".into(),
            summary: String::new(),
            help: String::new(),
            params: vec![Field::optional("script", Shape::Text { max: 64 }, "What the looks do.")],
            reading: Vec::new(),
            example: String::new(),
        }
    }

    fn ready(&self, params: &Params, _policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        match params.text("script") {
            Some("refuse") => Err(Refusal::new("not here", "elsewhere")),
            script => Ok(Box::new(Script(script.unwrap_or("ok").to_owned()))),
        }
    }
}

impl Lookout for Script {
    fn look(&self) -> LookFuture {
        match self.0.as_str() {
            "hang" => Box::pin(async {
                HANGING.fetch_add(1, Ordering::SeqCst);
                let _hanging = Hanging;
                std::future::pending().await
            }),
            // Not even at an await: such a look holds its thread.
            "stuck" => Box::pin(async {
                STUCK.store(1, Ordering::SeqCst);
                while STUCK.load(Ordering::SeqCst) == 1 {
                    std::thread::park_timeout(std::time::Duration::from_millis(10));
                }
                Ok(Values::new())
            }),
            "fifth fails" => Box::pin(async {
                if LOOKS.fetch_add(1, Ordering::SeqCst) == 4 { Err("status 500".into()) } else { Ok(Values::new()) }
            }),
            _ => Box::pin(async { Ok(Values::new()) }),
        }
    }

    fn stirred(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        if self.0 == "stirs" { Box::pin(std::future::ready(())) } else { Box::pin(std::future::pending()) }
    }
}

fn item(script: &str, every_ms: i64, timeout_ms: i64) -> ProbeItem {
    let mut params = Params::default();
    params.0.insert("script".into(), script.into());
    ProbeItem {
        run: "r1".into(),
        probe: script.replace(' ', "-").as_str().into(),
        kind: "scripted".into(),
        params,
        every: Dur::from_ms(every_ms),
        at_rest: None,
        timeout: Dur::from_ms(timeout_ms),
        stop: Vec::new(),
        until: Dur::from_secs(600),
    }
}

fn watcher() -> ThreadWatcher {
    ThreadWatcher::new(&[&Scripted], Policy::builtin(), Clock::of("h".into()))
}

/// Facts up to the first that satisfies, that one included.
async fn until(watcher: &mut ThreadWatcher, enough: impl Fn(&Body) -> bool) -> Vec<Sight> {
    let mut sights = Vec::new();
    loop {
        sights.push(watcher.next().await);
        if sights.last().is_some_and(|s| enough(&s.body)) {
            return sights;
        }
    }
}

fn kinds(sights: &[Sight]) -> BTreeMap<&'static str, u32> {
    let mut kinds = BTreeMap::new();
    for sight in sights {
        let kind = match &sight.body {
            Body::ProbeStarted { .. } => "started",
            Body::ProbeRefused { .. } => "refused",
            Body::Edge { .. } => "edge",
            Body::Gap { .. } => "gap",
            Body::ReadingsSealed { .. } => "sealed",
            _ => "other",
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

#[tokio::test(flavor = "current_thread")]
async fn a_dip_of_one_look_gives_three_edges_and_every_reading_is_sealed() {
    let mut watcher = watcher();
    watcher.set(&[item("fifth fails", 10, 50)]);
    let mut sights = until(&mut watcher, |b| matches!(b, Body::ReadingsSealed { .. })).await;
    sights.extend(watcher.close().await);
    let edges: Vec<bool> = sights
        .iter()
        .filter_map(|s| match &s.body {
            Body::Edge { ok, .. } => Some(*ok),
            _ => None,
        })
        .collect();
    assert_eq!(edges, [true, false, true]);
    assert!(matches!(sights[0].body, Body::ProbeStarted { .. }));
    let readings: Vec<_> = sights
        .iter()
        .filter_map(|s| s.blob.as_deref())
        .flat_map(|blob| serde_json::from_slice::<Readings>(blob).unwrap().unpack())
        .collect();
    assert_eq!(readings.len(), LOOKS.load(Ordering::SeqCst) as usize, "every look is in a blob");
    assert_eq!(readings.iter().filter(|r| !r.ok).count(), 1);
    assert!(readings.iter().all(|r| r.look.s <= r.look.c));
    let first = readings[0].look.s;
    // Start to start at a fixed rate: the k-th look never begins before its time, however late others were.
    let early = readings.iter().map(|r| (r.look.s - first) % 10_000_000).min().unwrap();
    assert!(early >= 0, "{early}");
}

#[tokio::test(flavor = "current_thread")]
async fn looks_beside_the_ticks_have_a_pace() {
    let mut watcher = watcher();
    watcher.set(&[ProbeItem { every: Dur::from_secs(3600), ..item("stirs", 10, 50) }]);
    let sights = until(&mut watcher, |b| matches!(b, Body::ReadingsSealed { .. })).await;
    let Some(started) = sights.iter().find_map(|s| match &s.body {
        Body::ProbeStarted { at, .. } => Some(at.boot_ns),
        _ => None,
    }) else {
        panic!("{sights:?}")
    };
    let blob = sights.last().unwrap().blob.clone().unwrap();
    let readings = serde_json::from_slice::<Readings>(&blob).unwrap().unpack();
    let last = readings.iter().map(|reading| reading.look.c).max().unwrap();
    // One at the beginning, one per 10 ms, and a tick that may fall among them.
    let most = 2 + (last - started) / 10_000_000;
    assert!(readings.len() > 2 && readings.len() as i64 <= most, "{} looks, at most {most}", readings.len());
    watcher.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn hanging_looks_are_given_up_capped_and_released() {
    let mut watcher = watcher();
    // A timeout of ten periods allows eleven looks out; a missed tick needs a look that outlives its timeout, so the
    // cap is seen through the floor of four: nothing is missed here, and everything fails.
    watcher.set(&[item("hang", 10, 100)]);
    let sights = until(&mut watcher, |b| matches!(b, Body::ReadingsSealed { .. })).await;
    let kinds = kinds(&sights);
    assert_eq!(kinds["edge"], 1);
    let Some(Body::ReadingsSealed { ok, failed, .. }) = sights.last().map(|s| s.body.clone()) else { panic!() };
    assert!(ok == 0 && failed > 10, "{ok} ok, {failed} failed");
    let blob = sights.last().unwrap().blob.clone().unwrap();
    let readings = serde_json::from_slice::<Readings>(&blob).unwrap().unpack();
    for reading in &readings {
        assert_eq!(reading.why, "no answer within 100ms");
        assert!(reading.look.c - reading.look.s >= 100_000_000, "given up when it says: {reading:?}");
    }
    assert!(HANGING.load(Ordering::SeqCst) <= 11, "capped");
    watcher.close().await;
    assert_eq!(HANGING.load(Ordering::SeqCst), 0, "released");
}

#[tokio::test(flavor = "current_thread")]
async fn what_cannot_run_is_refused_once() {
    let mut watcher = watcher();
    let unknown = ProbeItem { kind: "telepathy".into(), ..item("x", 10, 10) };
    for _ in 0..3 {
        watcher.set(&[item("refuse", 10, 10), unknown.clone()]);
    }
    let sights = watcher.close().await;
    assert_eq!(kinds(&sights), BTreeMap::from([("refused", 2)]));
    assert!(sights.iter().any(|s| matches!(&s.body, Body::ProbeRefused { refusal, .. } if refusal.why == "not here")));
}

#[tokio::test(flavor = "current_thread")]
async fn asked_again_it_goes_on_and_unasked_it_ends() {
    let mut watcher = watcher();
    let short = ProbeItem { until: Dur::from_ms(60), ..item("ok", 10, 10) };
    watcher.set(std::slice::from_ref(&short));
    watcher.set(&[ProbeItem { until: Dur::from_ms(70), ..short.clone() }]);
    // It ends by itself and seals what it saw; nobody stopped it.
    let sights = until(&mut watcher, |b| matches!(b, Body::ReadingsSealed { .. })).await;
    assert_eq!(kinds(&sights)["started"], 1, "asked again it is the same probe");
    let Some(Body::ReadingsSealed { ok, .. }) = sights.last().map(|s| s.body.clone()) else { panic!() };
    assert!((1..=8).contains(&ok), "{ok} looks in 70 ms");
    let gap = sights.iter().find_map(|s| match &s.body {
        Body::Gap { missed, why, .. } => Some((*missed, why.as_str())),
        _ => None,
    });
    let why = "it was not asked for any more: there was no contact with the controller";
    assert_eq!(gap, Some((1, why)), "it says so when it ends by itself");
    // Stopped by a new set, it seals too.
    watcher.set(&[item("ok", 10, 10)]);
    until(&mut watcher, |b| matches!(b, Body::Edge { .. })).await;
    watcher.set(&[]);
    until(&mut watcher, |b| matches!(b, Body::ReadingsSealed { .. })).await;
}

#[tokio::test(flavor = "current_thread")]
async fn at_another_rate_it_is_the_same_probe() {
    let mut watcher = watcher();
    let full = item("ok", 20, 20);
    let rests = ProbeItem { at_rest: Some(Dur::from_secs(3600)), ..full.clone() };
    let paced = |every: Dur| move |body: &Body| matches!(body, Body::PaceChanged { every: now, .. } if *now == every);
    watcher.set(std::slice::from_ref(&rests));
    let mut sights = until(&mut watcher, paced(Dur::from_secs(3600))).await;
    watcher.set(std::slice::from_ref(&full));
    sights.extend(until(&mut watcher, |b| matches!(b, Body::ReadingsSealed { .. })).await);
    let looks = sights.iter().find_map(|s| match &s.body {
        Body::ReadingsSealed { ok, .. } => Some(*ok),
        _ => None,
    });
    assert!(looks.is_some_and(|looks| looks > 2), "the next look did not come an hour later");
    watcher.set(std::slice::from_ref(&rests));
    sights.extend(until(&mut watcher, paced(Dur::from_secs(3600))).await);
    watcher.set(std::slice::from_ref(&full));
    sights.extend(until(&mut watcher, |b| matches!(b, Body::ReadingsSealed { .. })).await);
    sights.extend(watcher.close().await);
    let kinds = kinds(&sights);
    assert_eq!((kinds["started"], kinds["edge"]), (1, 1), "neither started nor seen anew: {kinds:?}");
    let at = |every: Dur| {
        let told = sights.iter().filter_map(|s| match &s.body {
            Body::PaceChanged { every: now, at, .. } if *now == every => Some(at.boot_ns),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    let (rested, woken) = (at(Dur::from_secs(3600)), at(full.every));
    assert_eq!((rested.len(), woken.len()), (2, 2), "{sights:?}");
    let blobs = sights.iter().filter_map(|s| s.blob.as_deref());
    let readings: Vec<_> = blobs.flat_map(|blob| serde_json::from_slice::<Readings>(blob).unwrap().unpack()).collect();
    assert!(readings.iter().all(|r| !(rested[0]..woken[0]).contains(&r.look.s)), "it rests until it is told");
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_refused_stays_so_at_any_rate() {
    let mut watcher = watcher();
    let refused = item("refuse", 10, 10);
    watcher.set(std::slice::from_ref(&refused));
    watcher.set(&[ProbeItem { at_rest: Some(Dur::from_secs(1)), ..refused.clone() }]);
    watcher.set(&[refused]);
    assert_eq!(kinds(&watcher.close().await), BTreeMap::from([("refused", 1)]));
}

#[tokio::test(flavor = "current_thread")]
async fn without_probes_there_is_no_thread() {
    let mut watcher = watcher();
    watcher.set(&[]);
    assert!(watcher.orders.is_none());
    assert!(watcher.close().await.is_empty());
}

#[tokio::test(flavor = "current_thread")]
async fn a_thread_that_is_stuck_does_not_keep_the_agent() {
    let mut watcher = watcher();
    watcher.set(&[item("stuck", 10, 10)]);
    while STUCK.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let begun = tokio::time::Instant::now();
    watcher.close().await;
    assert!(begun.elapsed() >= CLOSING && begun.elapsed() < 2 * CLOSING);
    STUCK.store(2, Ordering::SeqCst);
}

#[tokio::test(flavor = "current_thread")]
async fn what_the_policy_does_not_allow_never_looks() {
    let mut watcher = ThreadWatcher::new(&[&Scripted], Policy::nothing(), Clock::of("h".into()));
    watcher.set(&[item("ok", 10, 10)]);
    let sights = watcher.close().await;
    assert_eq!(kinds(&sights), BTreeMap::from([("refused", 1)]));
    let refused =
        |s: &Sight| matches!(&s.body, Body::ProbeRefused { refusal, .. } if refusal.instead.contains("allowProbes"));
    assert!(refused(&sights[0]), "{sights:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn parameters_of_a_newer_document_are_refused_by_name() {
    let mut watcher = watcher();
    let mut newer = item("ok", 10, 10);
    newer.params.0.insert("sharpness".into(), 3.into());
    watcher.set(&[newer]);
    let sights = watcher.close().await;
    let named =
        |s: &Sight| matches!(&s.body, Body::ProbeRefused { refusal, .. } if refusal.why.contains("`sharpness`"));
    assert!(sights.len() == 1 && named(&sights[0]), "{sights:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn new_rules_stop_what_runs_and_let_run_what_was_refused() {
    let mut watcher = watcher();
    watcher.set(&[item("ok", 10, 10)]);
    until(&mut watcher, |b| matches!(b, Body::Edge { .. })).await;
    watcher.allow(&Policy::nothing());
    until(&mut watcher, |b| matches!(b, Body::ProbeRefused { .. })).await;
    until(&mut watcher, |b| matches!(b, Body::ReadingsSealed { .. })).await;
    watcher.allow(&Policy::builtin());
    until(&mut watcher, |b| matches!(b, Body::ProbeStarted { .. })).await;
    watcher.close().await;
}

#[tokio::test(flavor = "current_thread")]
async fn an_exit_is_seen_before_the_next_tick() {
    let dir = tempfile::tempdir().unwrap();
    // A name of its own: the test machine runs other things.
    let program = dir.path().join("fracas-exits");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let mut child = std::process::Command::new(&program).arg("600").spawn().unwrap();
    let mut watcher = ThreadWatcher::new(fracas_probes::ALL, Policy::builtin(), Clock::of("h".into()));
    let params = [("name".to_owned(), "fracas-exits".into()), ("count".to_owned(), 1.into())].into_iter().collect();
    // The first tick comes within a period, the second an hour later.
    let hour = Dur::from_secs(3600);
    let mut slow = ProbeItem { kind: "process".into(), params: Params(params), ..item("", 100, 1000) };
    let early = (0..1_000_000).map(|n| format!("r{n}")).find(|run| {
        slow.run = run.as_str().into();
        crate::watch::tend::phase(&slow, "h", hour.ns()) < 1_000_000_000
    });
    slow.run = early.unwrap().as_str().into();
    slow.every = hour;
    watcher.set(&[slow]);
    let edge = |ok: bool| move |body: &Body| matches!(body, Body::Edge { ok: now, .. } if *now == ok);
    until(&mut watcher, edge(true)).await;
    child.kill().unwrap();
    until(&mut watcher, edge(false)).await;
    child.wait().unwrap();
    watcher.close().await;
}

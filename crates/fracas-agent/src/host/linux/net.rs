//! Network faults in the kernel-owned way: one worker for all of them, asked to add, remove and report. And the look
//! whether packets suffer, whichever way was taken.
//!
//! The worker owns the rules: when it ends, however it ends, the kernel removes them. It lives on without a fault,
//! because removing a base chain empties every packet queue of the namespace, also other programs'.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fracas_model::{
    event::{Between, Measured, Proof},
    id::ItemKey,
    plan::{Effect, Filter, Impair, Protocol},
    process::ProcessRef,
    units::Dur,
};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    LinuxHost, aside,
    calls::Go,
    held::until,
    netem::{Suffered, suffered},
};
use crate::{
    crash::{self, Boundary},
    host::{
        Failure, Handle, Reverted, clock,
        net::worker::{Ask, Stats},
        netlink::{
            diag::{self, Connection},
            nft,
        },
        processes::{Stat, same},
        worker::Worker,
    },
};

/// How long the worker may take to answer; adding a fault takes about a millisecond, draining a busy queue more.
const ANSWER: Duration = Duration::from_secs(4);
/// How long the rules of an earlier worker may take to vanish after its death: 1.8 ms where it was measured.
const VANISH: Duration = Duration::from_secs(2);
/// How long reading all sockets before a fault may take.
const LOOK: Duration = Duration::from_secs(1);
/// A connection without an acknowledgement for this long says nothing about packets now.
const FRESH_MS: u32 = 2_000;
/// Lateness that a held packet may have beside its delay: timers and scheduling of a busy machine.
const LATE: Dur = Dur::from_ms(30);
/// Share of packets that may pass undelayed, for want of room, before the fault counts as weaker than asked.
const PASSED: f64 = 0.01;

/// The network worker and what it does for whom.
#[derive(Debug, Default)]
pub(super) struct Net {
    worker: Option<Shared>,
    faults: BTreeMap<String, Watched>,
    deadlines: BTreeMap<ItemKey, i64>,
    /// Median round trip of matching TCP connections before a fault by netem, milliseconds.
    before_netem: BTreeMap<ItemKey, f64>,
}

/// The worker, lent to blocking threads one at a time.
#[derive(Clone, Debug)]
struct Shared {
    worker: Arc<Mutex<Worker>>,
    pid: i32,
}

/// A fault that the worker holds.
#[derive(Debug)]
struct Watched {
    key: ItemKey,
    /// Median round trip of matching TCP connections before, milliseconds.
    before_ms: Option<f64>,
    lost: bool,
}

impl Shared {
    fn ask(&self, ask: &Ask) -> Result<Value, Failure> {
        self.ask_if(ask, &Go::default())
    }

    /// The same, unless it was called off while somebody else talked to the worker.
    fn ask_if(&self, ask: &Ask, go: &Go) -> Result<Value, Failure> {
        let order = serde_json::to_value(ask).map_err(|e| Failure(e.to_string()))?;
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        go.on()?;
        worker.call(&order, ANSWER)
    }

    fn alive(&self) -> bool {
        // Somebody is talking to it: then the answer tells.
        self.worker.try_lock().map_or(true, |worker| worker.alive())
    }

    fn fate(&self) -> String {
        let locked = self.worker.try_lock();
        locked.map_or_else(|_| "the network worker ended".into(), |mut worker| worker.fate())
    }
}

impl Net {
    /// Each fault of the item ends by itself in the worker after this much time, should the agent hang until then.
    pub(super) fn deadline(&mut self, key: &ItemKey, left: Dur) {
        self.deadlines.insert(key.clone(), clock::boot_ns().saturating_add(left.ns()));
        for id in self.faults.iter().filter(|(_, fault)| fault.key == *key).map(|(id, _)| id) {
            self.tell_deadline(key, id);
        }
    }

    fn tell_deadline(&self, key: &ItemKey, id: &str) {
        let (Some(shared), Some(at)) = (&self.worker, self.deadlines.get(key)) else { return };
        let left_ns = at.saturating_sub(clock::boot_ns()).max(1).unsigned_abs();
        let until = serde_json::to_value(Ask::Until { id: id.to_owned(), left_ns }).unwrap_or_default();
        // While somebody waits for an answer it stays as it was; the next renewal of the lease tells it again.
        if let Ok(mut worker) = shared.worker.try_lock()
            && let Err(error) = worker.send(&until)
        {
            tracing::warn!(%error, "deadline of a network fault");
        }
    }

    /// What round trips were before a fault that is being undone matters no more.
    pub(super) fn forget_round_trip(&mut self, key: &ItemKey) {
        self.before_netem.remove(key);
    }

    /// A fault is gone; gives the worker's number.
    fn forget(&mut self, key: &ItemKey, id: &str) -> Option<i32> {
        self.faults.remove(id);
        if !self.faults.values().any(|fault| fault.key == *key) {
            self.deadlines.remove(key);
        }
        self.worker.as_ref().map(|shared| shared.pid)
    }

    /// Items whose rules went with the worker, each told once.
    pub(super) fn lost(&mut self) -> Vec<(ItemKey, String)> {
        let Some(shared) = self.worker.as_ref().filter(|shared| !shared.alive()) else { return Vec::new() };
        let fate = shared.fate();
        let fresh = self.faults.values_mut().filter(|fault| !fault.lost);
        let tell = |fault: &mut Watched| {
            fault.lost = true;
            (fault.key.clone(), fate.clone())
        };
        fresh.map(tell).collect()
    }
}

impl LinuxHost {
    /// Adds a fault to the worker's rules.
    pub(super) async fn impair(
        &self,
        key: &ItemKey,
        index: usize,
        impair: &Impair,
    ) -> Result<(Handle, Between), Failure> {
        let shared = self.net_worker().await?;
        let (id, pid) = (id(key, index), shared.pid);
        let (ask, clock) = (Ask::Add { id: id.clone(), impair: impair.clone() }, self.clock.clone());
        crash::at(Boundary::AmidStep);
        let before_ms = if delays(&impair.effect) { round_trip_now(&impair.filter).await } else { None };
        let add = move |go: &Arc<Go>| {
            let from = clock.now();
            let reply = shared.ask_if(&ask, go)?;
            Ok((reply, clock.since(from)))
        };
        let (reply, between) = self.act(key, add).await?;
        let mut net = self.net.borrow_mut();
        net.faults.insert(id.clone(), Watched { key: key.clone(), before_ms, lost: false });
        net.tell_deadline(key, &id);
        let ticks = Stat::of(pid).map_or(0, |s| s.start_ticks);
        let table = reply["table"].clone();
        Ok((json!({ "worker": { "pid": pid, "startTicks": ticks }, "table": table }), between))
    }

    /// The worker that lives, or a new one.
    async fn net_worker(&self) -> Result<Shared, Failure> {
        let known = self.net.borrow().worker.clone().filter(Shared::alive);
        if let Some(shared) = known {
            return Ok(shared);
        }
        let spawner = self.spawner.clone();
        let started = aside(move || spawner.spawn("net")).await?;
        let worker = started.map_err(|e| Failure(format!("the network worker cannot be started: {e}")))?;
        let shared = Shared { pid: worker.pid(), worker: Arc::new(Mutex::new(worker)) };
        self.net.borrow_mut().worker = Some(shared.clone());
        Ok(shared)
    }

    /// Takes a fault out of the rules, or waits until those of a dead worker are gone.
    pub(super) async fn mend(&self, key: &ItemKey, index: usize, handle: Option<&Handle>) -> Result<Reverted, Failure> {
        let id = id(key, index);
        let known = self.net.borrow().faults.contains_key(&id);
        let living = self.net.borrow().worker.clone().filter(Shared::alive);
        if let Some(shared) = living {
            // Also when it is not known: an answer that was not waited for may have added it.
            let ask = Ask::Remove { id: id.clone() };
            // The worker itself reads back that the fault's chains are gone.
            self.act(key, move |go| shared.ask_if(&ask, go)).await?;
        }
        crash::at(Boundary::BeforeReadBack);
        let ours = self.net.borrow_mut().forget(key, &id);
        match handle {
            Some(handle) => vanished(handle, ours).await,
            None if known => Ok(Reverted::Undone),
            None => Ok(Reverted::NothingThere),
        }
    }

    /// Whether packets really suffer, by what the worker's rules counted and by what TCP measured.
    pub(super) async fn packets(&self, key: &ItemKey, filter: &Filter, effect: &Effect) -> (Proof, Vec<Measured>) {
        let (shared, ids, before_ms) = {
            let net = self.net.borrow();
            let mine: Vec<(&String, &Watched)> = net.faults.iter().filter(|(_, fault)| fault.key == *key).collect();
            let before_ms = mine.first().and_then(|(_, fault)| fault.before_ms);
            let ids: Vec<String> = mine.into_iter().map(|(id, _)| id.clone()).collect();
            (net.worker.clone(), ids, before_ms)
        };
        let (Some(shared), false) = (shared, ids.is_empty()) else {
            return self.netem_packets(key, filter, effect).await;
        };
        let (delays, filter) = (delays(effect), filter.clone());
        let looked = aside(move || {
            let mut all = Vec::new();
            for id in ids {
                let reply = shared.ask(&Ask::Stats { id })?;
                all.push(serde_json::from_value::<Stats>(reply).map_err(|e| Failure(e.to_string()))?);
            }
            Ok::<_, Failure>((all, if delays { round_trip(&filter) } else { None }))
        });
        match looked.await {
            Ok(Ok((stats, now))) => judge(effect, &stats, before_ms, now),
            Ok(Err(failure)) | Err(failure) => (Proof::Unverified { why: failure.0 }, Vec::new()),
        }
    }
}

impl LinuxHost {
    /// Remembers what round trips were before packets are held, for comparing.
    pub(super) async fn remember_round_trip(&self, key: &ItemKey, filter: &Filter) {
        if self.net.borrow().before_netem.contains_key(key) {
            return;
        }
        if let Some(before) = round_trip_now(filter).await {
            self.net.borrow_mut().before_netem.insert(key.clone(), before);
        }
    }

    async fn netem_packets(&self, key: &ItemKey, filter: &Filter, effect: &Effect) -> (Proof, Vec<Measured>) {
        let before_ms = self.net.borrow().before_netem.get(key).copied();
        let (of, delays, filter) = (key.clone(), delays(effect), filter.clone());
        let look = move || suffered(&of).map(|seen| (seen, if delays { round_trip(&filter) } else { None }));
        let looked = aside(look).await;
        match looked {
            Ok(Ok((seen, now))) => judge_netem(effect, seen, before_ms, now),
            Ok(Err(failure)) | Err(failure) => (Proof::Unverified { why: failure.0 }, Vec::new()),
        }
    }
}

fn id(key: &ItemKey, index: usize) -> String {
    format!("{key}/{index}")
}

/// The rules of a worker that is not ours any more go with it; those of ours were removed before.
async fn vanished(handle: &Handle, ours: Option<i32>) -> Result<Reverted, Failure> {
    let old = ProcessRef {
        pid: handle["worker"]["pid"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
        start_ticks: handle["worker"]["startTicks"].as_u64().unwrap_or(0),
        name: "worker".into(),
    };
    let table = handle["table"].as_str().unwrap_or_default().to_owned();
    if ours == Some(old.pid) && same(&old).is_some() {
        return Ok(Reverted::Undone);
    }
    let gone = || same(&old).is_none() && (table.is_empty() || matches!(nft::table_exists(&table), Ok(false)));
    if until(VANISH, gone).await {
        Ok(Reverted::Undone)
    } else {
        let pid = old.pid;
        Err(Failure(format!("rules of the network worker {pid} are still there: end it with kill -9 {pid}")))
    }
}

/// Median round trip before a fault, milliseconds. It is only for comparing: a host with very many sockets goes without.
async fn round_trip_now(filter: &Filter) -> Option<f64> {
    let filter = filter.clone();
    let looked = tokio::time::timeout(LOOK, aside(move || round_trip(&filter))).await;
    looked.ok()?.ok()?.map(|(ms, _)| ms)
}

/// Whether round trips say anything of an effect. Nobody looks at them in vain: the kernel walks through all sockets for
/// them, those that wait for their end too, which takes long where there are many.
fn delays(effect: &Effect) -> bool {
    matches!(effect, Effect::Delay { .. })
}

/// Median round trip of the fresh TCP connections that a filter means, milliseconds, and how many there are.
fn round_trip(filter: &Filter) -> Option<(f64, u64)> {
    if !matches!(filter.protocol, None | Some(Protocol::Tcp)) {
        return None;
    }
    let all = diag::connections().ok()?;
    let fresh = |c: &&Connection| c.last_ack_ms < FRESH_MS && c.rtt_us > 0 && means(filter, c);
    let mut found: Vec<u32> = all.iter().filter(fresh).map(|c| c.rtt_us).collect();
    found.sort_unstable();
    let middle = found.get(found.len() / 2)?;
    Some((f64::from(*middle) / 1000.0, found.len() as u64))
}

/// Whether packets of this connection are meant.
fn means(filter: &Filter, connection: &Connection) -> bool {
    let (far, ports) = (connection.remote.0.to_canonical(), [connection.local.1, connection.remote.1]);
    let within = |net: &str| net.parse::<IpNet>().is_ok_and(|n| n.contains(&far));
    let passes = filter.pass_remotes.iter().any(|(net, port)| within(net) && (*port == 0 || ports[1] == *port))
        || filter.pass_ports.iter().any(|port| ports.contains(port));
    !far.is_loopback()
        && !passes
        && matches!(filter.protocol, None | Some(Protocol::Tcp))
        && (filter.remotes.is_empty() || filter.remotes.iter().any(|net| within(net)))
        && (filter.ports.is_empty() || filter.ports.iter().any(|(a, b)| ports.iter().any(|p| (a..=b).contains(&p))))
}

fn judge(effect: &Effect, stats: &[Stats], before_ms: Option<f64>, now: Option<(f64, u64)>) -> (Proof, Vec<Measured>) {
    let total = |of: fn(&Stats) -> u64| stats.iter().map(of).sum::<u64>();
    let matched = total(|s| s.matched);
    let mut measured = Vec::new();
    let proof = match effect {
        Effect::Delay { delay, jitter } => delayed(*delay, *jitter, stats, &mut measured),
        Effect::Loss { percent } => lost(percent.0, matched, total(|s| s.lost), &mut measured),
    };
    if let (Effect::Delay { .. }, Some((got, n))) = (effect, now) {
        let by = "the kernel's own estimate on matching TCP connections".to_owned();
        let mut told = |what: &str, got, n| {
            let by = by.clone();
            measured.push(Measured { what: what.into(), unit: "ms".into(), asked: None, got, p99: None, n, by });
        };
        if let Some(before) = before_ms {
            told("TCP round trip before", before, n);
        }
        told("TCP round trip", got, n);
    }
    let unasked = total(|s| s.unasked);
    if unasked > 0 {
        measured.push(Measured {
            what: "packets lost that nobody asked for".into(),
            unit: "packets".into(),
            asked: Some(0.0),
            got: unasked as f64,
            p99: None,
            n: matched,
            by: "counters of the kernel's queue".into(),
        });
    }
    if matched == 0 {
        return (Proof::Unverified { why: "no matching traffic".into() }, measured);
    }
    (proof, measured)
}

/// netem tells how many packets it held, not for how long: that is seen by what TCP measured, before and now.
fn judge_netem(
    effect: &Effect,
    seen: Suffered,
    before_ms: Option<f64>,
    now: Option<(f64, u64)>,
) -> (Proof, Vec<Measured>) {
    let mut measured = Vec::new();
    let (delay, jitter) = match effect {
        Effect::Delay { delay, jitter } => (*delay, *jitter),
        Effect::Loss { percent } => {
            let proof = lost(percent.0, seen.matched, seen.lost, &mut measured);
            return (proof, measured);
        }
    };
    if seen.matched == 0 {
        return (Proof::Unverified { why: "no matching traffic".into() }, measured);
    }
    let mut told = |what: &str, unit: &str, asked, got, n, by: &str| {
        let (what, unit, by) = (what.into(), unit.into(), by.into());
        measured.push(Measured { what, unit, asked, got, p99: None, n, by });
    };
    let tcp = "the kernel's own estimate on matching TCP connections";
    let added = before_ms.zip(now).map(|(before, (after, n))| (after - before, n));
    let asked = delay.ns() as f64 / 1e6;
    if let Some((added, n)) = added {
        told("added to the TCP round trip", "ms", Some(asked), added, n, tcp);
    } else if let Some((after, n)) = now {
        told("TCP round trip", "ms", None, after, n, tcp);
    }
    told(
        "packets held and let go",
        "packets",
        None,
        seen.released as f64,
        seen.matched,
        "counters of the kernel's netem",
    );
    if seen.dropped > 0 {
        let by = "counters of the kernel's netem";
        told(
            "packets lost that nobody asked for",
            "packets",
            Some(0.0),
            f64::from(seen.dropped as u32),
            seen.matched,
            by,
        );
    }
    let proof = if seen.released == 0 {
        Proof::Unverified { why: "no packet was held to the end yet".into() }
    } else if seen.dropped as f64 > PASSED * seen.matched as f64 {
        let why = format!("{} of {} packets were lost: more came than can be held", seen.dropped, seen.matched);
        Proof::Ineffective { why }
    } else if added.is_some_and(|(added, _)| added < asked / 2.0 - jitter.ns() as f64 / 1e6) {
        // Smoothed estimates follow within some round trips; by far too little after that is no delay at all.
        let got = added.map_or(0.0, |(added, _)| added);
        Proof::Ineffective { why: format!("asked {delay}, round trips became longer by {got:.1} ms") }
    } else {
        Proof::Verified
    };
    (proof, measured)
}

fn delayed(delay: Dur, jitter: Dur, stats: &[Stats], measured: &mut Vec<Measured>) -> Proof {
    let Some(one) = stats.iter().find(|s| s.hold_n > 0) else {
        return Proof::Unverified { why: "no packet was held to the end yet".into() };
    };
    let ms = |ns: u64| ns as f64 / 1e6;
    let asked = delay.ns() as f64 / 1e6;
    measured.push(Measured {
        what: "added delay".into(),
        unit: "ms".into(),
        asked: Some(asked),
        got: ms(one.hold_p50_ns),
        p99: (one.hold_n >= 299).then(|| ms(one.hold_p99_ns)),
        n: one.hold_n,
        by: "time from arrival to release of each packet".into(),
    });
    let (received, passed) =
        (stats.iter().map(|s| s.received).sum::<u64>(), stats.iter().map(|s| s.passed).sum::<u64>());
    if passed as f64 > PASSED * (received + passed) as f64 {
        let why = format!("{passed} of {} packets passed undelayed: more came than can be held", received + passed);
        return Proof::Ineffective { why };
    }
    let middle = Dur::from_ns(one.hold_p50_ns.cast_signed());
    let (lo, hi) = (delay - jitter - Dur::from_ms(1), delay + jitter + LATE);
    if middle < lo || middle > hi {
        return Proof::Ineffective { why: format!("asked {delay}, held {}", middle.human()) };
    }
    Proof::Verified
}

/// A share is right when what was asked lies within four standard errors of what was seen, and something was lost.
fn lost(percent: f64, matched: u64, lost: u64, measured: &mut Vec<Measured>) -> Proof {
    if matched == 0 {
        return Proof::Unverified { why: "no matching traffic".into() };
    }
    let (n, asked) = (matched as f64, percent / 100.0);
    let got = lost as f64 / n;
    measured.push(Measured {
        what: "loss".into(),
        unit: "%".into(),
        asked: Some(percent),
        got: got * 100.0,
        p99: None,
        n: matched,
        by: "the kernel's counters of matching and of dropped packets".into(),
    });
    // Fewer than this expected losses could be none by chance (e^-7 is under a thousandth).
    if n * asked < 7.0 && lost == 0 {
        return Proof::Unverified { why: format!("only {matched} packets matched: too few to tell") };
    }
    let error = (asked * (1.0 - asked) / n).sqrt();
    if lost == 0 || (got - asked).abs() > 4.0 * error + 0.5 / n {
        return Proof::Ineffective { why: format!("asked {percent} %, lost {lost} of {matched} packets") };
    }
    Proof::Verified
}

#[cfg(test)]
mod tests {
    use fracas_model::units::Percent;

    use super::*;

    fn delay() -> Effect {
        Effect::Delay { delay: Dur::from_ms(200), jitter: Dur::ZERO }
    }

    fn held(p50_ms: u64, n: u64, passed: u64) -> Vec<Stats> {
        let hold_p50_ns = p50_ms * 1_000_000;
        vec![Stats { matched: n + passed, received: n, hold_n: n, hold_p50_ns, passed, ..Stats::default() }]
    }

    #[test]
    fn a_delay_is_verified_by_packets_that_were_held() {
        let proof = |stats: &[Stats]| judge(&delay(), stats, None, None).0;
        assert_eq!(proof(&held(200, 10, 0)), Proof::Verified);
        assert!(matches!(proof(&held(20, 10, 0)), Proof::Ineffective { .. }));
        assert!(matches!(proof(&held(200, 100, 50)), Proof::Ineffective { .. }));
        assert!(matches!(proof(&held(0, 0, 0)), Proof::Unverified { .. }));
    }

    #[test]
    fn a_loss_is_verified_by_enough_packets() {
        let proof = |matched, lost| {
            let stats = [Stats { matched, lost, ..Stats::default() }];
            judge(&Effect::Loss { percent: Percent(10.0) }, &stats, None, None).0
        };
        assert_eq!(proof(1000, 97), Proof::Verified);
        assert!(matches!(proof(20, 0), Proof::Unverified { .. }));
        assert!(matches!(proof(1000, 0), Proof::Ineffective { .. }));
        assert!(matches!(proof(1000, 300), Proof::Ineffective { .. }));
        assert!(matches!(proof(0, 0), Proof::Unverified { .. }));
    }

    #[test]
    fn a_connection_is_meant_by_its_far_end_and_ports() {
        let connection = |far: &str, port| Connection {
            local: ("10.0.0.1".parse().expect("address"), 5432),
            remote: (far.parse().expect("address"), port),
            rtt_us: 1,
            last_ack_ms: 0,
        };
        let filter = Filter {
            remotes: vec!["10.0.0.0/8".into()],
            ports: vec![(5432, 5432)],
            pass_remotes: vec![("10.9.0.1/32".into(), 0), ("10.9.0.2/32".into(), 7767)],
            pass_ports: vec![22],
            ..Filter::default()
        };
        assert!(means(&filter, &connection("10.1.1.1", 40_000)));
        assert!(!means(&filter, &connection("192.0.2.1", 40_000)));
        assert!(!means(&filter, &connection("10.9.0.1", 40_000)));
        assert!(!means(&filter, &connection("10.9.0.2", 7767)));
        assert!(means(&filter, &connection("10.9.0.2", 7768)));
        assert!(!means(&filter, &connection("10.1.1.1", 22)));
    }
}

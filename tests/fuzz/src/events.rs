//! Histories of runs made of events that each are valid, in orders that nobody planned: every fold must hold.

use std::collections::BTreeMap;

use fracas_controller::driver::stream_of;
use fracas_model::{
    event::{AbortKind, Between, Body, Event, Look, Measured, Origin, Proof, Readings, UndoCause, VerdictWord},
    id::ItemKey,
    plan::{Plan, Refusal},
    time::{ClockId, ClockMap, Stamp},
    units::Dur,
};
use fracas_sim::fixture;
use libfuzzer_sys::arbitrary::{Result, Unstructured};

use crate::{
    Target, sessions,
    world::{self, HOSTS},
};

pub(crate) const EVENTS: Target = Target { name: "events", take, seeds };

/// Most events of one history; reports of longer ones are a matter of time only.
const MOST: usize = 64;

/// The beginning of a run on both hosts.
pub(crate) fn planned() -> Body {
    let read = world::small();
    Body::Planned {
        run: "r1".into(),
        document: read.canonical.clone(),
        source: world::SMALL.to_owned(),
        source_name: "small.yaml".to_owned(),
        files: std::collections::BTreeMap::new(),
        intent: "0".repeat(64),
        plan: "1".repeat(64),
        seed: 7,
        targets: [("box".into(), HOSTS.map(Into::into).to_vec())].into(),
        hosts: HOSTS.map(|host| (host.into(), host[..4].to_owned())).into(),
        canaries: BTreeMap::new(),
        rehearsed: Vec::new(),
        by: "admin".to_owned(),
        environment: "default".to_owned(),
        at: world::stamp("c", 1_000_000_000),
    }
}

/// One of the items of [`planned`].
pub(crate) fn item(entry: usize, host: usize) -> ItemKey {
    ItemKey {
        run: "r1".into(),
        entry: ["pause", "kill"][entry % 2].into(),
        occurrence: 0,
        host: HOSTS[host % 2].into(),
        generation: 1,
    }
}

fn measured(got: f64) -> Measured {
    let (what, unit, by) = ("stopped".into(), "%".into(), "a look".into());
    Measured { what, unit, asked: Some(100.0), got, p99: Some(got), n: 3, by }
}

fn plan() -> Plan {
    fixture::plan(fixture::every_step(0))
}

/// What the first host tells in a run in which all goes well, with the blobs.
pub(crate) fn of_a_host() -> Vec<(Body, Vec<u8>)> {
    let at = |ms: i64| world::stamp(HOSTS[0], ms * 1_000_000);
    let between = |from: i64| Between { from: at(from), to: at(from + 1) };
    let look = |from: i64| Look { s: from * 1_000_000, c: (from + 1) * 1_000_000 };
    let item = item(0, 0);
    let readings = Readings { s: vec![5, 5], took: vec![1, 1], failed: vec![-1, 0], whys: vec!["refused".into()] };
    let blob = serde_json::to_vec(&readings).expect("JSON");
    let digest = fracas_controller::chain::hex(&fracas_controller::chain::sha256(&blob));
    let map = ClockMap { from: at(0).clock, to: world::stamp("c", 0).clock, at_ns: 5, lo_ns: -3, hi_ns: 3 };
    let measured = measured(0.0);
    let probe = || "up".into();
    let facts = vec![
        Body::ClockSeen { map },
        Body::ProbeStarted { probe: probe(), at: at(1) },
        Body::PaceChanged { probe: probe(), every: Dur::from_secs(1), at: at(1) },
        Body::Edge { probe: probe(), ok: true, before: None, after: look(2), why: String::new(), at: at(3) },
        Body::Applying { item: item.clone(), plan: plan(), at: at(2000) },
        Body::Active { item: item.clone(), effective: between(2001) },
        Body::Checked { item: item.clone(), proof: Proof::Verified, measured: vec![measured], at: at(2003) },
        Body::Edge {
            probe: probe(),
            ok: false,
            before: Some(look(2000)),
            after: look(2100),
            why: "gone".into(),
            at: at(2101),
        },
        Body::Gap { probe: probe(), missed: 3, between: look(2200), why: "busy".into(), at: at(2201) },
        Body::Undoing { item: item.clone(), cause: UndoCause::Expired, at: at(4000) },
        Body::Undone { item: item.clone(), cause: UndoCause::Expired, between: between(4001), superseded: vec![] },
        Body::Edge {
            probe: probe(),
            ok: true,
            before: Some(look(4000)),
            after: look(4100),
            why: String::new(),
            at: at(4101),
        },
        Body::Spent { item: self::item(1, 0), certain: true, effective: between(5000) },
        Body::UndoFailed { item: item.clone(), failures: vec!["no".into()], at: at(6000) },
        Body::Failed { item: item.clone(), failure: "no".into(), at: at(6001) },
        Body::Refused { item, refusal: Refusal::new("no", "another"), at: at(6002) },
        Body::ProbeRefused { probe: probe(), refusal: Refusal::new("no", "another"), at: at(6003) },
    ];
    let mut told: Vec<(Body, Vec<u8>)> = facts.into_iter().map(|fact| (fact, Vec::new())).collect();
    told.push((Body::ReadingsSealed { probe: probe(), digest, between: look(5), ok: 1, failed: 1, at: at(7) }, blob));
    told
}

fn take(data: &[u8]) {
    let mut chance = Unstructured::new(data);
    let mut bodies = vec![planned()];
    let mut readings = BTreeMap::new();
    while !chance.is_empty() && bodies.len() < MOST {
        let Ok((body, sealed)) = body(&mut chance) else { break };
        readings.extend(sealed);
        bodies.push(body);
    }
    let history: Vec<Event> = (1..).zip(bodies).map(|(seq, body)| event(seq, body)).collect();
    sessions::judge(&history, &readings);
}

fn event(seq: u64, body: Body) -> Event {
    let host = body.item().map(|item| item.host.clone());
    let origin = host.map(|host| Origin { host, outbox: "o".to_owned(), seq });
    Event { stream: stream_of(&"r1".into()), seq, received: world::stamp("c", seq as i64), origin, body }
}

/// An instant that a clock can show; most of them near each other.
fn instant(chance: &mut Unstructured<'_>) -> Result<i64> {
    Ok(match chance.int_in_range(0..=7)? {
        0 => chance.int_in_range(0..=i64::MAX / 4)?,
        1 => 0,
        2 => i64::MAX / 4,
        _ => i64::from(chance.arbitrary::<u16>()?) * 1_000_000,
    })
}

fn stamp(chance: &mut Unstructured<'_>, host: &str) -> Result<Stamp> {
    let wall_ns = if chance.ratio(1, 8)? { chance.arbitrary()? } else { world::NOW_NS };
    let boot = if chance.ratio(1, 8)? { "b2" } else { "b" };
    let clock = ClockId { host: host.into(), boot: boot.into() };
    Ok(Stamp { clock, boot_ns: instant(chance)?, wall_ns, bound_ns: chance.arbitrary::<i32>()?.into() })
}

fn look(chance: &mut Unstructured<'_>) -> Result<Look> {
    let s = instant(chance)?;
    Ok(Look { s, c: s.saturating_add(chance.int_in_range(0..=5_000_000_000)?).min(i64::MAX / 4).max(s) })
}

fn between(chance: &mut Unstructured<'_>, host: &str) -> Result<Between> {
    Ok(Between { from: stamp(chance, host)?, to: stamp(chance, host)? })
}

fn text(chance: &mut Unstructured<'_>) -> Result<String> {
    Ok(chance.arbitrary::<&str>()?.chars().take(40).collect())
}

fn body(chance: &mut Unstructured<'_>) -> Result<(Body, Option<(String, Readings)>)> {
    let number: usize = chance.int_in_range(0..=1)?;
    let (host, item) = (HOSTS[number], item(chance.int_in_range(0..=1)?, number));
    let cause = *chance.choose(&[
        UndoCause::Expired,
        UndoCause::NotDesired,
        UndoCause::LeaseLost,
        UndoCause::AgentRestart,
        UndoCause::Reboot,
    ])?;
    let probe = "up".into();
    let mut sealed = None;
    let entry = item.entry.clone();
    let by_controller = chance.arbitrary()?;
    let whose = if by_controller { "c" } else { host };
    let at = stamp(chance, whose)?;
    let refusal = Refusal::new("no", "another");
    let body = if by_controller {
        match chance.int_in_range(0..=18)? {
            0 => Body::GateStarted { at },
            1 => Body::GatePassed { at },
            2 => Body::EntryStarted { entry, occurrence: 0, generation: chance.int_in_range(0..=2)?, at },
            3 => Body::EntrySkipped { entry, why: text(chance)?, at },
            4 => Body::EntryEnded { entry, at },
            5 => Body::ServiceRecovered { service: "web".into(), since: stamp(chance, host)?, at },
            6 => Body::StopRequested { by: text(chance)?, reason: text(chance)?, at },
            7 => {
                let why = *chance.choose(&[
                    AbortKind::Gate,
                    AbortKind::GuardRail,
                    AbortKind::StopCondition,
                    AbortKind::Stop,
                    AbortKind::Fault,
                ])?;
                Body::Aborted { cause: text(chance)?, why, at }
            }
            8 => Body::GuardRailBroken { why: text(chance)?, at },
            9 => Body::RecoveryStarted { at },
            10 => Body::GaveUp { services: vec!["web".into()], at },
            11 => Body::UndoStarted { at },
            12 => Body::HostContact { host: host.into(), connected: chance.arbitrary()?, at },
            13 => {
                let (lo_ns, width) = (chance.arbitrary::<i32>()?.into(), i64::from(chance.arbitrary::<u32>()?));
                let from = at.clock.clone();
                let from = ClockId { host: host.into(), ..from };
                let to = ClockId { host: "c".into(), boot: "b".into() };
                Body::ClockSeen { map: ClockMap { from, to, at_ns: instant(chance)?, lo_ns, hi_ns: lo_ns + width } }
            }
            14 => Body::Withdrawn { item, at },
            15 => Body::Unanswered { item, at },
            16 => Body::Resumed { at },
            17 => Body::Finished { verdict: VerdictWord::Pass, exit_code: 0, reasons: vec![text(chance)?], at },
            _ => Body::ReportSealed { model: text(chance)?, digest: text(chance)? },
        }
    } else {
        match chance.int_in_range(0..=15)? {
            0 => Body::Refused { item, refusal, at },
            1 => Body::Applying { item, plan: plan(), at },
            2 => Body::Active { item, effective: between(chance, host)? },
            3 | 4 => {
                let proofs = [
                    Proof::Verified,
                    Proof::Ineffective { why: "no".into() },
                    Proof::Unverified { why: "no traffic".into() },
                ];
                let proof = chance.choose(&proofs)?;
                // JSON has no other numbers than finite ones.
                let measured = measured(chance.arbitrary::<i64>()? as f64 * 1e270);
                Body::Checked { item, proof: proof.clone(), measured: vec![measured], at }
            }
            5 => Body::Spent { item, certain: chance.arbitrary()?, effective: between(chance, host)? },
            6 => Body::Undoing { item, cause, at },
            7 => Body::Undone { item, cause, between: between(chance, host)?, superseded: vec![] },
            8 => Body::UndoFailed { item, failures: vec![text(chance)?], at },
            9 => Body::Failed { item, failure: text(chance)?, at },
            10 => Body::ProbeStarted { probe, at },
            11 => {
                let before = if chance.arbitrary()? { Some(look(chance)?) } else { None };
                Body::Edge { probe, ok: chance.arbitrary()?, before, after: look(chance)?, why: text(chance)?, at }
            }
            12 => Body::Gap { probe, missed: chance.arbitrary()?, between: look(chance)?, why: text(chance)?, at },
            13 => Body::ProbeRefused { probe, refusal, at },
            14 => Body::PaceChanged { probe, every: Dur::from_ns(chance.arbitrary()?), at },
            _ => {
                let digest = text(chance)?;
                let readings = Readings {
                    s: chance.arbitrary()?,
                    took: chance.arbitrary()?,
                    failed: chance.arbitrary()?,
                    whys: vec![text(chance)?],
                };
                sealed = Some((digest.clone(), readings));
                let (ok, failed) = (chance.arbitrary()?, chance.arbitrary()?);
                Body::ReadingsSealed { probe, digest, between: look(chance)?, ok, failed, at }
            }
        }
    };
    Ok((body, sealed))
}

/// Bytes that stand for nothing in particular; the generator makes events of any.
fn seeds() -> Vec<Vec<u8>> {
    let byte = |seed: usize, at: usize| {
        let mixed = (seed * 0x9e37 + at).wrapping_mul(0x85eb_ca6b) >> 7;
        mixed as u8
    };
    (0..12).map(|seed| (0..64 << (seed % 5)).map(|at| byte(seed, at)).collect()).collect()
}

//! An outbox on a real disk: nothing is lost or told twice while its file lives.

use fracas_model::{
    event::{Readings, UndoCause},
    id::ItemKey,
    time::{ClockId, ClockMap},
};

use super::*;
use crate::disk::FileDisk;

const STREAM: &str = "run/r";

fn stamp(boot_ns: i64) -> Stamp {
    Stamp { clock: ClockId { host: "h".into(), boot: "b".into() }, boot_ns, wall_ns: 0, bound_ns: 0 }
}

fn undoing(n: u32) -> Body {
    let item = ItemKey { run: "r".into(), entry: "e".into(), occurrence: n, host: "h".into(), generation: 1 };
    Body::Undoing { item, cause: UndoCause::Expired, at: stamp(n.into()) }
}

fn sealed(n: i64) -> Body {
    Body::ReadingsSealed {
        probe: "p".into(),
        digest: "00".into(),
        between: Look { s: n, c: n + 1 },
        ok: 3,
        failed: 1,
        at: stamp(n),
    }
}

async fn open(dir: &tempfile::TempDir, boot: &str) -> Outbox<FileDisk> {
    Outbox::open(FileDisk::new(dir.path()).expect("a disk"), &boot.into(), uuid::Uuid::new_v4().to_string()).await
}

async fn seqs(outbox: &Outbox<FileDisk>) -> Vec<u64> {
    outbox.pending(0, usize::MAX).await.unwrap().iter().map(|w| w.seq).collect()
}

#[tokio::test]
async fn facts_wait_until_acknowledged_even_through_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = open(&dir, "b").await;
    for n in 0..5 {
        outbox.append(STREAM, &undoing(n), b"").await;
    }
    let id = outbox.id().to_owned();
    outbox.ack(&id, 2).await;
    drop(outbox);
    let mut again = open(&dir, "b").await;
    assert_eq!((again.id(), again.last_seq()), (id.as_str(), 5));
    assert_eq!(seqs(&again).await, [3, 4, 5]);
    let waiting = again.pending(3, 1).await.unwrap();
    assert_eq!(waiting.len(), 1, "at least one, whatever its size");
    assert_eq!(serde_json::from_slice::<Body>(&waiting[0].body).unwrap(), undoing(3));
    again.ack("another life", 5).await;
    assert_eq!(seqs(&again).await, [3, 4, 5]);
    again.ack(&id, 5).await;
    assert!(again.is_empty());
    assert_eq!(again.append(STREAM, &undoing(9), b"").await, 6, "numbers are not given twice");
}

#[tokio::test]
async fn a_new_boot_numbers_what_is_left_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = open(&dir, "b").await;
    for n in 0..3 {
        outbox.append(STREAM, &undoing(n), b"").await;
    }
    let id = outbox.id().to_owned();
    outbox.ack(&id, 1).await;
    drop(outbox);
    let again = open(&dir, "c").await;
    assert_ne!(again.id(), id);
    assert_eq!(seqs(&again).await, [1, 2]);
}

#[tokio::test]
async fn a_torn_or_damaged_file_keeps_every_whole_fact() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = open(&dir, "b").await;
    let blob = serde_json::to_vec(&Readings::default()).unwrap();
    outbox.append(STREAM, &sealed(5), &blob).await;
    outbox.append(STREAM, &undoing(1), b"").await;
    outbox.append(STREAM, &undoing(2), b"").await;
    drop(outbox);
    let path = dir.path().join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 3);
    std::fs::write(&path, &bytes).unwrap();
    let again = open(&dir, "b").await;
    let waiting = again.pending(0, usize::MAX).await.unwrap();
    assert_eq!(waiting.iter().map(|w| w.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(waiting[0].blob, blob);
}

#[tokio::test]
async fn when_there_is_no_room_readings_are_given_up_and_the_gap_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::new(dir.path()).expect("a disk");
    let mut outbox = Outbox::with_limit(disk, &"b".into(), "o".into(), 20_000).await;
    for n in 0..100 {
        outbox.append(STREAM, &sealed(n * 10), &[7; 500]).await;
        if n % 20 == 0 {
            outbox.append(STREAM, &undoing(n as u32), b"").await;
        }
    }
    let waiting = outbox.pending(0, usize::MAX).await.unwrap();
    let bodies: Vec<Body> = waiting.iter().map(|w| serde_json::from_slice(&w.body).unwrap()).collect();
    assert_eq!(bodies.iter().filter(|b| matches!(b, Body::Undoing { .. })).count(), 5, "facts are never given up");
    let kept = bodies.iter().filter(|b| matches!(b, Body::ReadingsSealed { .. })).count() as u64;
    let lost: u64 = bodies
        .iter()
        .filter_map(|b| match b {
            Body::Gap { missed, .. } => Some(missed),
            _ => None,
        })
        .sum();
    assert_eq!((kept * 4 + lost, kept < 100), (400, true), "every reading is there or told as missed");
}

#[tokio::test]
async fn edges_gaps_and_clocks_have_a_bound_too_and_what_happened_to_items_stays() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::new(dir.path()).expect("a disk");
    let mut outbox = Outbox::with_limit(disk, &"b".into(), "o".into(), 20_000).await;
    let look = |n: i64| Look { s: n * 10, c: n * 10 + 5 };
    for n in 1..=2000_i64 {
        // A service that flaps, seen by two probes, while the controller is away.
        for probe in ["p", "q"] {
            let (probe, at) = (probe.into(), stamp(n));
            let before = Some(look(n - 1));
            let edge = Body::Edge { probe, ok: n % 2 == 0, before, after: look(n), why: String::new(), at };
            outbox.append(STREAM, &edge, b"").await;
        }
        let (near, far) = (stamp(n).clock, ClockId { host: "c".into(), boot: "b".into() });
        let map = ClockMap { from: near, to: far, at_ns: n, lo_ns: 0, hi_ns: 1 };
        outbox.append(STREAM, &Body::ClockSeen { map }, b"").await;
        if n % 200 == 0 {
            outbox.append(STREAM, &undoing(n as u32), b"").await;
        }
        assert!(outbox.bytes <= 20_000 + 1_000, "{} bytes wait", outbox.bytes);
    }
    let waiting = outbox.pending(0, usize::MAX).await.unwrap();
    assert!(waiting.windows(2).all(|w| w[0].seq < w[1].seq));
    let bodies: Vec<Body> = waiting.iter().map(|w| serde_json::from_slice(&w.body).unwrap()).collect();
    assert_eq!(bodies.iter().filter(|b| matches!(b, Body::Undoing { .. })).count(), 10);
    assert!(bodies.iter().any(|b| matches!(b, Body::ClockSeen { map } if map.at_ns == 2000)), "the last one stays");
    for name in ["p", "q"] {
        let mut covered: Vec<Look> = bodies
            .iter()
            .filter_map(|b| match b {
                Body::Gap { probe, between, .. } if probe.as_str() == name => Some(*between),
                Body::Edge { probe, before: Some(before), after, .. } if probe.as_str() == name => {
                    Some(Look { s: before.s, c: after.c })
                }
                _ => None,
            })
            .collect();
        covered.sort_by_key(|l| l.s);
        assert_eq!(covered[0].s, 0);
        let whole = covered.iter().fold(0, |end, l| if l.s <= end { end.max(l.c) } else { end });
        assert_eq!(whole, 20_005, "no change is hidden: {covered:?}");
    }
}

#[tokio::test]
async fn a_file_whose_numbers_no_controller_would_take_begins_a_new_life() {
    let life = |next| encode(&Head::Life { id: "life".into(), boot: "b".into(), next }, &[]);
    let fact = |seq| encode(&Head::Fact { seq, stream: STREAM.into(), body: Box::new(undoing(1)) }, &[]);
    let files = [
        [life(1), fact(u64::MAX)].concat(),
        [life(1), fact(1 << 63)].concat(),
        [life(1), fact(2), fact(1)].concat(),
        [life(1), fact(1), fact(1)].concat(),
        [life(u64::MAX), fact(1)].concat(),
        [life(0), fact(0)].concat(),
    ];
    for file in files {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), &file).unwrap();
        let mut outbox = open(&dir, "b").await;
        assert_ne!(outbox.id(), "life");
        outbox.append(STREAM, &undoing(2), &[]).await;
        let numbers = seqs(&outbox).await;
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "all that waited is told, in order");
        assert!(numbers.len() >= 2);
    }
}

//! Histories: order, chain, waking, closing, and hostile reports.

use std::task::{Context, Waker};

use fracas_model::{
    event::{Between, Look, UndoCause, VerdictWord},
    id::ItemKey,
    time::{ClockId, ClockMap},
    units::Dur,
};

use super::*;
use crate::{chain::sha256, clock::ManualClock, store::memory::MemoryStore};

fn stamp(host: &str, boot_ns: i64) -> Stamp {
    Stamp { clock: ClockId { host: host.into(), boot: "b".into() }, boot_ns, wall_ns: boot_ns, bound_ns: -1 }
}

fn gate(at: i64) -> Body {
    Body::GateStarted { at: stamp("controller", at) }
}

fn sealed() -> Fact {
    let report = b"{}".to_vec();
    let body = Body::ReportSealed { model: "1".to_owned(), digest: chain::hex(&sha256(&report)) };
    Fact { body, origin: None, blob: Some(report) }
}

fn item(run: &str, host: &str) -> ItemKey {
    ItemKey { run: run.into(), entry: "e".into(), occurrence: 0, host: host.into(), generation: 1 }
}

fn undoing(run: &str, host: &str, clock: &str) -> Body {
    Body::Undoing { item: item(run, host), cause: UndoCause::Expired, at: stamp(clock, 1) }
}

fn reported(seq: u64, stream: &str, body: &Body) -> Reported {
    Reported { seq, stream: stream.to_owned(), body: serde_json::to_vec(body).unwrap(), blob: None }
}

fn readings(blob: &[u8]) -> Body {
    Body::ReadingsSealed {
        probe: "p".into(),
        digest: chain::hex(&sha256(blob)),
        between: Look { s: 0, c: 1 },
        ok: 1,
        failed: 0,
        at: stamp("h", 1),
    }
}

async fn history() -> (History, MemoryStore, Arc<ManualClock>) {
    let (store, clock) = (MemoryStore::new(), Arc::new(ManualClock::new(stamp("controller", 0))));
    (History::open(Arc::new(store.clone()), clock.clone()).await.unwrap(), store, clock)
}

#[tokio::test]
async fn stamps_numbers_and_chains() {
    let (history, _, clock) = history().await;
    history.append("run/a", vec![gate(1), gate(2)]).await.unwrap();
    clock.advance(Dur::from_ms(5));
    let events = history.append("run/a", vec![gate(3)]).await.unwrap();
    assert_eq!((events[0].seq, events[0].received.boot_ns), (3, 5_000_000));
    assert_eq!(history.read("run/a", 2).await.unwrap(), events);
    let mut hash = chain::genesis("run/a");
    for record in history.read_stored("run/a", 0, 10).await.unwrap() {
        hash = chain::link(&hash, &record.stored);
        assert_eq!(record.hash, hash);
    }
}

#[tokio::test]
async fn listeners_are_told_what_is_durable_in_order_and_those_too_slow_how_much_they_missed() {
    let (history, store, _) = history().await;
    let mut told = history.listen();
    history.append("run/a", vec![gate(1), gate(2)]).await.unwrap();
    store.set_full(true);
    assert!(history.append("run/a", vec![gate(3)]).await.is_err());
    store.set_full(false);
    history.append("run/b", vec![gate(4)]).await.unwrap();
    let mut heard = Vec::new();
    while let Ok(event) = told.try_recv() {
        heard.push((event.stream.clone(), event.seq));
    }
    assert_eq!(heard, [("run/a".to_owned(), 1), ("run/a".to_owned(), 2), ("run/b".to_owned(), 1)]);
    for _ in 0..=BACKLOG {
        history.append("run/a", vec![gate(5)]).await.unwrap();
    }
    assert!(matches!(told.try_recv(), Err(broadcast::error::TryRecvError::Lagged(1))));
}

#[tokio::test]
async fn many_writers_of_one_stream_make_one_order() {
    let (history, ..) = history().await;
    let writers: Vec<_> = (0..50)
        .map(|i| {
            let history = history.clone();
            tokio::spawn(async move { history.append("run/a", vec![gate(i), gate(i)]).await.unwrap()[0].seq })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.await.unwrap() % 2, 1, "the two of one append stay together");
    }
    assert_eq!(history.read("run/a", 0).await.unwrap().len(), 100);
}

#[tokio::test]
async fn an_append_survives_its_caller_and_wakes_watchers() {
    let (history, ..) = history().await;
    let mut head = history.subscribe("run/a").await.unwrap();
    assert_eq!(*head.borrow_and_update(), 0);
    {
        let mut append = std::pin::pin!(history.append("run/a", vec![gate(1)]));
        let mut waker = Context::from_waker(Waker::noop());
        assert!(append.as_mut().poll(&mut waker).is_pending());
    }
    head.changed().await.unwrap();
    assert_eq!(*head.borrow(), 1);
    assert_eq!(*history.subscribe("run/a").await.unwrap().borrow(), 1);
}

#[tokio::test]
async fn conditions_hold_for_the_whole_append() {
    let (history, ..) = history().await;
    let first = Extra { expected: Some(0), idempotency: Some(("k".into(), "a".into())), ..Extra::default() };
    history.append_with("run/a", vec![gate(1)], first.clone()).await.unwrap();
    let again = history.append_with("run/a", vec![gate(1)], first.clone()).await;
    assert!(matches!(again, Err(HistoryError::Store(StoreError::Conflict { expected: 0, actual: 1, .. }))));
    let taken = history.append_with("run/b", vec![gate(1)], first).await;
    assert!(matches!(taken, Err(HistoryError::Store(StoreError::KeyTaken { .. }))));
    assert_eq!(history.read("run/b", 0).await.unwrap(), []);
    history.append("run/b", vec![gate(1)]).await.unwrap();
}

#[tokio::test]
async fn a_full_store_is_an_error_and_then_goes_on() {
    let (history, store, _) = history().await;
    history.append("run/a", vec![gate(1)]).await.unwrap();
    store.set_full(true);
    let full = history.append("run/a", vec![gate(2)]).await;
    assert!(matches!(full, Err(HistoryError::Store(StoreError::Full { .. }))));
    store.set_full(false);
    assert_eq!(history.append("run/a", vec![gate(2)]).await.unwrap()[0].seq, 2);
}

#[tokio::test]
async fn the_former_owner_is_fenced_out() {
    let (old, store, clock) = history().await;
    old.append("run/a", vec![gate(1)]).await.unwrap();
    let new = History::open(Arc::new(store), clock).await.unwrap();
    assert_eq!((old.epoch(), new.epoch()), (1, 2));
    let late = old.append("run/a", vec![gate(2)]).await;
    assert!(matches!(late, Err(HistoryError::Store(StoreError::Fenced { ours: 1, owner: 2 }))));
    new.append("run/a", vec![gate(2)]).await.unwrap();
}

#[tokio::test]
async fn the_epoch_can_be_raised_under_way_and_only_by_its_owner() {
    let (history, store, clock) = history().await;
    let writers: Vec<_> = (0..50)
        .map(|i| {
            let history = history.clone();
            tokio::spawn(async move { history.append(&format!("run/{i}"), vec![gate(i)]).await })
        })
        .collect();
    assert_eq!(history.raise_epoch(9).await.unwrap(), 10);
    assert_eq!(history.raise_epoch(7).await.unwrap(), 10, "it is above that already");
    for writer in writers {
        writer.await.unwrap().expect("no commit under way is fenced out");
    }
    let next = History::open(Arc::new(store), clock).await.unwrap();
    assert_eq!(next.epoch(), 11);
    let late = history.raise_epoch(20).await;
    assert!(matches!(late, Err(HistoryError::Store(StoreError::Fenced { ours: 10, owner: 11 }))), "{late:?}");
}

#[tokio::test]
async fn a_sealed_stream_is_closed_and_its_head_is_in_the_audit_stream() {
    let (history, store, clock) = history().await;
    history.append("run/a", vec![gate(1)]).await.unwrap();
    let finished =
        Body::Finished { verdict: VerdictWord::Pass, exit_code: 0, reasons: vec![], at: stamp("controller", 1) };
    history.append("run/a", vec![finished]).await.unwrap();
    let early = history.seal("run/a", "audit/c", 1, sealed(), None).await;
    assert!(
        matches!(early, Err(HistoryError::Store(StoreError::Conflict { .. }))),
        "it is not about all that was told"
    );
    history.seal("run/a", "audit/c", 2, sealed(), None).await.unwrap();
    assert_eq!(history.blob(&chain::hex(&sha256(b"{}"))).await.unwrap().as_deref(), Some(&b"{}"[..]), "it is kept");
    let head = store.head("run/a").await.unwrap();
    let audit = history.read("audit/c", 0).await.unwrap();
    let Body::StreamClosed { stream, seq, hash, .. } = &audit[0].body else { panic!("{audit:?}") };
    assert_eq!((stream.as_str(), *seq, hash.clone()), ("run/a", 3, chain::hex(&head.hash)));
    assert!(matches!(history.append("run/a", vec![gate(9)]).await, Err(HistoryError::Closed { .. })));
    let next = History::open(Arc::new(store), clock).await.unwrap();
    assert!(matches!(next.append("run/a", vec![gate(9)]).await, Err(HistoryError::Closed { .. })), "after a restart");
    let late = vec![reported(1, "run/a", &undoing("a", "h", "h"))];
    let ingested = next.ingest(&"h".into(), "o", late, &|_| true).await.unwrap();
    assert_eq!((ingested.acked, ingested.taken, ingested.dropped.len()), (1, 0, 1));
    let counted = |history: &History| history.meters().dropped_facts();
    assert_eq!(counted(&next), [("late", 0), ("late_fault", 1), ("refused", 0)]);
    let blob = b"columns".to_vec();
    let late = Reported { blob: Some(blob.clone()), ..reported(2, "run/a", &readings(&blob)) };
    next.ingest(&"h".into(), "o", vec![late], &|_| true).await.unwrap();
    assert_eq!(counted(&next), [("late", 1), ("late_fault", 1), ("refused", 0)]);
}

#[tokio::test]
async fn reports_are_taken_once_whatever_is_sent_again() {
    let (history, ..) = history().await;
    history.append("run/a", vec![gate(1)]).await.unwrap();
    history.append("run/b", vec![gate(1)]).await.unwrap();
    let host = HostId::from("h");
    let all: Vec<Reported> = (1..=6)
        .map(|seq| {
            let run = if seq % 2 == 0 { "a" } else { "b" };
            reported(seq, &format!("run/{run}"), &undoing(run, "h", "h"))
        })
        .collect();
    let first = history.ingest(&host, "o", all[..4].to_vec(), &|_| true).await.unwrap();
    assert_eq!((first.acked, first.taken), (4, 4));
    let second = history.ingest(&host, "o", all.clone(), &|_| true).await.unwrap();
    assert_eq!((second.acked, second.taken), (6, 2));
    let third = history.ingest(&host, "o", all[..2].to_vec(), &|_| true).await.unwrap();
    assert_eq!((third.acked, third.taken), (6, 0));
    let origins = |events: Vec<Event>| events.into_iter().filter_map(|e| Some(e.origin?.seq)).collect::<Vec<_>>();
    assert_eq!(origins(history.read("run/a", 0).await.unwrap()), [2, 4, 6]);
    assert_eq!(origins(history.read("run/b", 0).await.unwrap()), [1, 3, 5]);
    let two = (history.ingest(&host, "p", all.clone(), &|_| true), history.ingest(&host, "p", all, &|_| true));
    let (one, other) = tokio::join!(two.0, two.1);
    assert_eq!(one.unwrap().taken + other.unwrap().taken, 6, "two sessions of one host at once");
}

#[tokio::test]
async fn hostile_facts_are_dropped_one_by_one() {
    let (history, ..) = history().await;
    history.append("run/a", vec![gate(1)]).await.unwrap();
    history.append("host/h", vec![gate(1)]).await.unwrap();
    history.append("host/other", vec![gate(1)]).await.unwrap();
    let blob = b"columns".to_vec();
    let with_blob =
        |seq, body: &Body, blob: &[u8]| Reported { blob: Some(blob.to_vec()), ..reported(seq, "run/a", body) };
    let huge = vec![7; MAX_BLOB_BYTES + 1];
    let deep = Reported { body: vec![b'['; 60_000], ..reported(14, "run/a", &gate(1)) };
    let long = Reported { body: vec![b' '; MAX_BODY_BYTES + 1], ..reported(15, "run/a", &gate(1)) };
    let between = Between { from: stamp("h", 1), to: stamp("other", 1) };
    let report = vec![
        reported(1, "run/a", &undoing("a", "h", "h")),
        reported(2, "host/h", &undoing("a", "h", "h")),
        with_blob(3, &readings(&blob), &blob),
        reported(4, "run/a", &gate(1)),
        reported(5, "run/a", &undoing("a", "other", "h")),
        reported(6, "run/a", &undoing("b", "h", "h")),
        reported(7, "run/a", &undoing("a", "h", "other")),
        reported(8, "run/a", &Body::Active { item: item("a", "h"), effective: between }),
        reported(9, "host/other", &undoing("a", "h", "h")),
        reported(10, "run/b", &undoing("b", "h", "h")),
        reported(11, "audit/c", &undoing("a", "h", "h")),
        reported(12, "run/a", &readings(&blob)),
        with_blob(13, &readings(&blob), b"other"),
        deep,
        long,
        with_blob(16, &undoing("a", "h", "h"), &blob),
        with_blob(17, &readings(&huge), &huge),
        reported(18, "run/gone", &undoing("gone", "h", "h")),
        reported(19, "run/a", &undoing("a", "h", "h")),
    ];
    let may = |stream: &str| ["run/a", "run/gone"].contains(&stream);
    let ingested = history.ingest(&"h".into(), "o", report, &may).await.unwrap();
    let dropped: Vec<u64> = ingested.dropped.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(dropped, (4..=18).collect::<Vec<_>>(), "{:?}", ingested.dropped);
    assert_eq!((ingested.acked, ingested.taken), (19, 4));
    assert_eq!(history.meters().dropped_facts(), [("late", 0), ("late_fault", 1), ("refused", 14)]);
    assert_eq!(history.blob(&chain::hex(&sha256(&blob))).await.unwrap(), Some(blob));
}

#[tokio::test]
async fn a_host_may_compare_its_own_clock_with_the_controllers_and_no_other() {
    let (history, ..) = history().await;
    history.append("run/a", vec![gate(1)]).await.unwrap();
    let clock = |host: &str| ClockId { host: host.into(), boot: "b".into() };
    let seen = |from: &str, to: &str, hi_ns| Body::ClockSeen {
        map: ClockMap { from: clock(from), to: clock(to), at_ns: 1, lo_ns: 2, hi_ns },
    };
    let report = vec![
        reported(1, "run/a", &seen("h", "controller", 3)),
        reported(2, "run/a", &seen("other", "controller", 3)),
        reported(3, "run/a", &seen("h", "other", 3)),
        reported(4, "run/a", &seen("h", "controller", 1)),
    ];
    let ingested = history.ingest(&"h".into(), "o", report, &|_| true).await.unwrap();
    assert_eq!((ingested.taken, ingested.dropped.len()), (1, 3), "{:?}", ingested.dropped);
}

#[tokio::test]
async fn a_report_out_of_form_is_refused_whole() {
    let (history, ..) = history().await;
    let one = |seq| reported(seq, "run/a", &undoing("a", "h", "h"));
    let many: Vec<Reported> = (1..=MAX_REPORT_EVENTS as u64 + 1).map(one).collect();
    for (outbox, report) in [
        ("", vec![one(1)]),
        ("a/b", vec![one(1)]),
        (&*"x".repeat(65), vec![one(1)]),
        ("o", vec![one(2), one(2)]),
        ("o", vec![one(0)]),
        ("o", vec![one(u64::MAX)]),
        ("o", many),
    ] {
        let refused = history.ingest(&"h".into(), outbox, report, &|_| true).await;
        assert!(matches!(refused, Err(HistoryError::BadReport { .. })), "{outbox}: {refused:?}");
    }
    assert_eq!(history.ingest(&"h".into(), "o", vec![], &|_| true).await.unwrap().acked, 0);
}

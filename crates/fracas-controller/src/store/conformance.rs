//! What every store must do, run against each of them.

use fracas_model::id::{HostId, RunId};

use super::{
    Batch, Commit, Cursor, Cut, Head, Listed, NewEvent, OUTBOXES_PER_HOST, Portion, RunIndex, Store, StoreError,
    memory, sqlite,
};
use crate::chain::{Digest, link, sha256};

/// A batch that is chained as histories do it.
pub(super) fn batch(stream: &str, head: Head, texts: &[&str]) -> Batch {
    let mut hash = head.hash;
    let mut chained = |text: &&str| {
        hash = link(&hash, text.as_bytes());
        NewEvent { stored: text.as_bytes().to_vec(), hash, blob: None }
    };
    Batch { stream: stream.to_owned(), expected_seq: head.seq, events: texts.iter().map(&mut chained).collect() }
}

pub(super) fn one(epoch: u64, batch: Batch) -> Commit {
    Commit { epoch, batches: vec![batch], ..Commit::default() }
}

fn row(run: &str, started_wall_ns: i64) -> RunIndex {
    RunIndex {
        run: run.into(),
        name: "n".to_owned(),
        state: "planned".to_owned(),
        verdict: String::new(),
        exit_code: 0,
        reason: String::new(),
        started_wall_ns,
        ended_wall_ns: None,
        by: "somebody".to_owned(),
        environment: "default".to_owned(),
    }
}

fn with_index(row: RunIndex) -> Commit {
    Commit { index: Some(row), ..Commit::default() }
}

fn with_cursor(host: &HostId, outbox: &str, expected: u64, seq: u64) -> Commit {
    let cursor = Cursor { host: host.clone(), outbox: outbox.to_owned(), expected, seq };
    Commit { cursor: Some(cursor), ..Commit::default() }
}

fn with_key(key: &str, run: &str) -> Commit {
    Commit { idempotency: Some((key.to_owned(), run.into())), ..Commit::default() }
}

async fn appends_and_reads_back_in_order(store: &dyn Store) {
    assert_eq!(store.head("run/a").await, Ok(Head::genesis("run/a")));
    store.commit(one(0, batch("run/a", Head::genesis("run/a"), &["1", "2", "3"]))).await.unwrap();
    let head = store.head("run/a").await.unwrap();
    assert_eq!(head.seq, 3);
    store.commit(one(0, batch("run/a", head, &["4"]))).await.unwrap();
    let texts = |records: Vec<super::Stored>| -> Vec<(u64, String)> {
        records.into_iter().map(|r| (r.seq, String::from_utf8(r.stored).unwrap())).collect()
    };
    let all = store.read("run/a", 0, 10).await.unwrap();
    assert_eq!(all[3].hash, store.head("run/a").await.unwrap().hash);
    assert_eq!(texts(all), [(1, "1".into()), (2, "2".into()), (3, "3".into()), (4, "4".into())]);
    assert_eq!(texts(store.read("run/a", 1, 2).await.unwrap()), [(2, "2".into()), (3, "3".into())]);
    assert_eq!(store.read("run/a", 4, 10).await, Ok(vec![]));
    assert_eq!(store.read("run/none", 0, 10).await, Ok(vec![]));
    assert_eq!(store.read("run/a", u64::MAX, usize::MAX).await, Ok(vec![]));
}

async fn refuses_a_wrong_number(store: &dyn Store) {
    let first = batch("run/a", Head::genesis("run/a"), &["1"]);
    store.commit(one(0, first.clone())).await.unwrap();
    let conflict = StoreError::Conflict { what: "run/a".to_owned(), expected: 0, actual: 1 };
    assert_eq!(store.commit(one(0, first)).await, Err(conflict));
    let ahead = Batch { expected_seq: 5, ..batch("run/a", Head::genesis("run/a"), &["x"]) };
    assert!(matches!(store.commit(one(0, ahead)).await, Err(StoreError::Conflict { actual: 1, .. })));
    assert_eq!(store.head("run/a").await.unwrap().seq, 1);
}

async fn a_commit_is_all_or_nothing(store: &dyn Store) {
    store.commit(one(0, batch("run/b", Head::genesis("run/b"), &["1"]))).await.unwrap();
    let bytes = b"blob".to_vec();
    let mut good = batch("run/a", Head::genesis("run/a"), &["1"]);
    good.events[0].blob = Some((sha256(&bytes), bytes.clone()));
    let stale = batch("run/b", Head::genesis("run/b"), &["again"]);
    let host = HostId::from("h");
    let commit = Commit { batches: vec![good, stale], ..with_cursor(&host, "o", 0, 7) };
    let commit = Commit { index: Some(row("a", 1)), idempotency: Some(("k".into(), "a".into())), ..commit };
    assert!(matches!(store.commit(commit.clone()).await, Err(StoreError::Conflict { .. })));
    assert_eq!(store.streams("").await.unwrap(), ["run/b"]);
    assert_eq!(store.blob(sha256(&bytes)).await, Ok(None));
    assert_eq!(store.cursor(&host, "o").await, Ok(0));
    assert_eq!(store.runs(9).await, Ok(vec![]));
    assert_eq!(store.idempotency("k").await, Ok(None));

    let Commit { mut batches, .. } = commit.clone();
    batches.pop();
    store.commit(Commit { batches, ..commit }).await.unwrap();
    assert_eq!(store.streams("").await.unwrap(), ["run/a", "run/b"]);
    assert_eq!(store.cursor(&host, "o").await, Ok(7));
    assert_eq!(store.runs(9).await, Ok(vec![(row("a", 1), 1)]));
    assert_eq!(store.idempotency("k").await, Ok(Some(RunId::from("a"))));
    let nothing: Digest = [0; 32];
    assert_eq!(store.blobs(vec![nothing, sha256(&bytes)]).await, Ok(vec![None, Some(bytes)]));
}

async fn fences_out_the_former_owner(store: &dyn Store) {
    let (first, second) = (store.next_epoch().await.unwrap(), store.next_epoch().await.unwrap());
    assert_eq!((first, second), (1, 2));
    let late = batch("run/a", Head::genesis("run/a"), &["1"]);
    let fenced = StoreError::Fenced { ours: 1, owner: 2 };
    assert_eq!(store.commit(one(first, late.clone())).await, Err(fenced));
    assert_eq!(store.streams("").await, Ok(vec![]));
    store.commit(one(second, late)).await.unwrap();
    // A higher epoch than any granted is believed, and fences too.
    store.commit(one(9, batch("run/b", Head::genesis("run/b"), &["1"]))).await.unwrap();
    assert!(matches!(store.commit(with_key("k", "a")).await, Err(StoreError::Fenced { owner: 9, .. })));
    assert_eq!(store.next_epoch().await, Ok(10));
    assert_eq!(store.raise_epoch(9, 30).await, Err(StoreError::Fenced { ours: 9, owner: 10 }));
    assert_eq!(store.raise_epoch(10, 30).await, Ok(31));
}

async fn moves_cursors_from_where_they_stand(store: &dyn Store) {
    let (a, b) = (HostId::from("a"), HostId::from("b"));
    store.commit(with_cursor(&a, "o", 0, 5)).await.unwrap();
    assert_eq!((store.cursor(&a, "o").await, store.cursor(&b, "o").await), (Ok(5), Ok(0)));
    assert!(matches!(store.commit(with_cursor(&a, "o", 4, 6)).await, Err(StoreError::Conflict { actual: 5, .. })));
    store.commit(with_cursor(&a, "o", 5, 6)).await.unwrap();
    for other in 0..OUTBOXES_PER_HOST {
        store.commit(with_cursor(&a, &format!("o{other}"), 0, 1)).await.unwrap();
    }
    assert_eq!(store.cursor(&a, "o").await, Ok(0), "the oldest outbox is forgotten");
    assert_eq!(store.cursor(&a, "o0").await, Ok(1));
}

async fn keeps_one_run_for_a_key(store: &dyn Store) {
    store.commit(with_key("k", "r1")).await.unwrap();
    let taken = StoreError::KeyTaken { key: "k".to_owned(), run: "r1".into() };
    assert_eq!(store.commit(with_key("k", "r2")).await, Err(taken));
    assert_eq!(store.idempotency("k").await, Ok(Some("r1".into())));
    assert_eq!(store.idempotency("other").await, Ok(None));
}

async fn lists_runs_newest_first_and_by_prefix(store: &dyn Store) {
    for (run, started) in [("0abc", 30), ("0abd", 10), ("0b", 20)] {
        store.commit(with_index(row(run, started))).await.unwrap();
    }
    let ended = RunIndex { state: "finished".to_owned(), ended_wall_ns: Some(99), exit_code: 6, ..row("0abd", 10) };
    store.commit(with_index(ended.clone())).await.unwrap();
    // The clock went back twice; what came last is the last all the same, and a change does not make it newer.
    let names = |rows: Vec<(RunIndex, u64)>| rows.into_iter().map(|(r, _)| r.run.to_string()).collect::<Vec<_>>();
    assert_eq!(names(store.runs(9).await.unwrap()), ["0b", "0abd", "0abc"]);
    assert_eq!(names(store.runs(2).await.unwrap()), ["0b", "0abd"]);
    let elsewhere = RunIndex { environment: "it's \"there\"".to_owned(), ..row("c", 5) };
    store.commit(with_index(elsewhere.clone())).await.unwrap();
    let [here, there] = [row("0b", 20).environment, elsewhere.environment];
    assert_eq!(names(store.runs_in(vec![here.clone()], 2).await.unwrap()), ["0b", "0abd"]);
    assert_eq!(names(store.runs_in(vec![there.clone()], 2).await.unwrap()), ["c"]);
    assert_eq!(names(store.runs_in(vec![there, here], 9).await.unwrap()), ["c", "0b", "0abd", "0abc"]);
    assert_eq!(store.runs_in(vec![], 9).await, Ok(vec![]));
    assert_eq!(store.run_prefix("0abd").await, Ok(vec![(ended, 0)]));
    assert_eq!(names(store.run_prefix("0ab").await.unwrap()), ["0abc", "0abd"]);
    assert_eq!(names(store.run_prefix("").await.unwrap()), ["0abc", "0abd", "0b", "c"]);
    assert_eq!(store.run_prefix("%").await, Ok(vec![]));
}

async fn lists_streams_by_prefix(store: &dyn Store) {
    for stream in ["run/a", "run/\u{e9}", "runs", "host/x"] {
        store.commit(one(0, batch(stream, Head::genesis(stream), &["1"]))).await.unwrap();
        store
            .commit(one(
                0,
                Batch { stream: format!("{stream}-empty"), ..Batch::clone(&batch(stream, Head::genesis(""), &[])) },
            ))
            .await
            .unwrap();
    }
    assert_eq!(store.streams("run/").await.unwrap(), ["run/a", "run/\u{e9}"]);
    assert_eq!(store.streams("").await.unwrap(), ["host/x", "run/a", "run/\u{e9}", "runs"]);
}

const ALL: Portion = Portion { records: usize::MAX, bytes: usize::MAX };

/// A batch whose records have these blobs.
fn with_blobs(stream: &str, blobs: &[&[u8]]) -> Batch {
    let texts: Vec<String> = (0..blobs.len()).map(|n| format!("{stream} {n}")).collect();
    let mut batch = batch(stream, Head::genesis(stream), &texts.iter().map(String::as_str).collect::<Vec<_>>());
    for (event, blob) in batch.events.iter_mut().zip(blobs) {
        event.blob = Some((sha256(blob), blob.to_vec()));
    }
    batch
}

fn place(store: &[super::Stored], seq: u64) -> Head {
    let record = store.iter().find(|record| record.seq == seq).unwrap();
    Head { seq, hash: record.hash }
}

async fn a_stream_that_is_cut_off_whole_is_not_there_for_anybody(store: &dyn Store) {
    store
        .commit(Commit { index: Some(row("a", 1)), ..one(0, with_blobs("run/a", &[b"own", b"shared"])) })
        .await
        .unwrap();
    store.commit(Commit { index: Some(row("b", 2)), ..one(0, with_blobs("run/b", &[b"shared"])) }).await.unwrap();
    let upto = store.head("run/a").await.unwrap();
    let cut = Cut { stream: "run/a".into(), upto };
    store.cut(0, vec![cut.clone()]).await.unwrap();
    assert_eq!(store.streams("").await.unwrap(), ["run/b"]);
    assert_eq!(store.listed("run/").await.unwrap().len(), 1);
    assert_eq!(store.read("run/a", 0, 9).await, Ok(vec![]));
    assert_eq!(store.head("run/a").await, Ok(Head::genesis("run/a")));
    assert_eq!(store.runs(9).await.unwrap().into_iter().map(|(row, _)| row.run).collect::<Vec<_>>(), ["b".into()]);
    assert_eq!(store.run_prefix("a").await, Ok(vec![]));
    // Again changes nothing, and wiping takes only what nothing else refers to.
    store.cut(0, vec![cut]).await.unwrap();
    while store.wipe(Portion { records: 1, bytes: 1 }).await.unwrap() {}
    assert_eq!(store.blob(sha256(b"own")).await, Ok(None));
    assert_eq!(store.blob(sha256(b"shared")).await, Ok(Some(b"shared".to_vec())));
    assert_eq!(store.read("run/b", 0, 9).await.unwrap().len(), 1);
    assert_eq!(store.wipe(ALL).await, Ok(false));
}

async fn a_beginning_that_is_cut_off_leaves_the_rest_as_it_was(store: &dyn Store) {
    store.commit(one(0, with_blobs("schedule/s", &[b"1", b"2", b"3", b"4"]))).await.unwrap();
    let before = store.read("schedule/s", 0, 9).await.unwrap();
    let (second, end) = (place(&before, 2), store.head("schedule/s").await.unwrap());
    store.cut(0, vec![Cut { stream: "schedule/s".into(), upto: second }]).await.unwrap();
    assert_eq!(store.read("schedule/s", 0, 9).await.unwrap(), before[2..]);
    assert_eq!(store.read("schedule/s", 1, 1).await.unwrap(), before[2..3]);
    let listed = store.listed("").await.unwrap();
    assert_eq!(listed, [Listed { stream: "schedule/s".into(), base: second, head: end }]);
    while store.wipe(ALL).await.unwrap() {}
    assert_eq!(store.listed("").await.unwrap(), listed);
    assert_eq!((store.blob(sha256(b"2")).await, store.blob(sha256(b"3")).await), (Ok(None), Ok(Some(b"3".to_vec()))));
    // It goes on, and can be cut again; what is gone already is passed over.
    store.commit(one(0, batch("schedule/s", end, &["5"]))).await.unwrap();
    let fourth = place(&before, 4);
    let cuts = [second, fourth].map(|upto| Cut { stream: "schedule/s".into(), upto });
    store.cut(0, cuts.to_vec()).await.unwrap();
    assert_eq!(store.read("schedule/s", 0, 9).await.unwrap().len(), 1);
    assert_eq!(store.head("schedule/s").await.unwrap().seq, 5);
}

async fn cuts_are_all_or_nothing_and_only_of_what_is_meant(store: &dyn Store) {
    for stream in ["run/a", "run/b"] {
        store.commit(one(0, batch(stream, Head::genesis(stream), &["1", "2"]))).await.unwrap();
    }
    let good = Cut { stream: "run/a".into(), upto: store.head("run/a").await.unwrap() };
    for upto in [Head { seq: 2, hash: [7; 32] }, Head { seq: 3, hash: [7; 32] }] {
        let cuts = vec![good.clone(), Cut { stream: "run/b".into(), upto }];
        let conflict = StoreError::Conflict { what: "run/b".into(), expected: upto.seq, actual: 2 };
        assert_eq!(store.cut(0, cuts).await, Err(conflict));
    }
    store.next_epoch().await.unwrap();
    assert_eq!(store.cut(0, vec![good.clone()]).await, Err(StoreError::Fenced { ours: 0, owner: 1 }));
    assert_eq!(store.streams("").await.unwrap(), ["run/a", "run/b"]);
    let stranger = Cut { stream: "run/none".into(), upto: good.upto };
    store.cut(1, vec![stranger, good]).await.unwrap();
    assert_eq!(store.streams("").await.unwrap(), ["run/b"]);
}

macro_rules! on_every_store {
    ($($property:ident)*) => { $(
        mod $property {
            #[tokio::test]
            async fn in_memory() {
                super::$property(&super::memory::MemoryStore::new()).await;
            }

            #[tokio::test]
            async fn on_disk() {
                let folder = tempfile::tempdir().unwrap();
                super::$property(&super::sqlite::SqliteStore::open(&folder.path().join("h.db")).unwrap()).await;
            }
        }
    )* };
}

on_every_store! {
    appends_and_reads_back_in_order
    refuses_a_wrong_number
    a_commit_is_all_or_nothing
    fences_out_the_former_owner
    moves_cursors_from_where_they_stand
    keeps_one_run_for_a_key
    lists_runs_newest_first_and_by_prefix
    lists_streams_by_prefix
    a_stream_that_is_cut_off_whole_is_not_there_for_anybody
    a_beginning_that_is_cut_off_leaves_the_rest_as_it_was
    cuts_are_all_or_nothing_and_only_of_what_is_meant
}

#[tokio::test]
async fn a_full_memory_store_writes_nothing_until_there_is_room() {
    let store = memory::MemoryStore::new();
    let first = one(0, batch("run/a", Head::genesis("run/a"), &["1"]));
    store.set_full(true);
    assert!(matches!(store.commit(first.clone()).await, Err(StoreError::Full { .. })));
    assert!(matches!(store.next_epoch().await, Err(StoreError::Full { .. })));
    store.set_full(false);
    store.clone().commit(first).await.unwrap();
    assert_eq!(store.head("run/a").await.unwrap().seq, 1, "clones are one store");
}

//! Every way of tampering that the store's file allows, and which of them only a signature outside can see.

use std::{path::Path, sync::Arc};

use fracas_model::{
    chain::{genesis, link, sha256},
    event::{Body, Event, VerdictWord},
    time::{ClockId, Stamp},
};
use rusqlite::Connection;

use super::*;
use crate::{
    clock::ManualClock,
    history::{Fact, Reported},
};

struct Rig {
    folder: tempfile::TempDir,
    dir: DataDir,
    identity: Identity,
}

const RUN: &str = "run/a";
const AUDIT: &str = "audit/c";

fn stamp(host: &str) -> Stamp {
    let clock = ClockId { host: host.into(), boot: "b".into() };
    Stamp { clock, boot_ns: 1, wall_ns: 1_795_000_000_000_000_000, bound_ns: -1 }
}

fn gate() -> Body {
    Body::GateStarted { at: stamp("c") }
}

impl Rig {
    /// A closed run of five records with a blob, an open one of two, and the audit stream signed after the close.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&folder.path().join("d")).unwrap();
        let identity = Identity::open(&dir, &[], stamp("c").wall_ns).unwrap();
        let rig = Self { folder, dir, identity };
        let history = rig.history().await;
        history.append(RUN, vec![gate(), gate()]).await.unwrap();
        let blob = b"columns".to_vec();
        let look = fracas_model::event::Look { s: 0, c: 1 };
        let digest = hex(&sha256(&blob));
        let sealed =
            Body::ReadingsSealed { probe: "p".into(), digest, between: look, ok: 1, failed: 0, at: stamp("h") };
        let body = serde_json::to_vec(&sealed).unwrap();
        let report = vec![Reported { seq: 1, stream: RUN.to_owned(), body, blob: Some(blob) }];
        assert_eq!(history.ingest(&"h".into(), "o", report, &|_| true).await.unwrap().taken, 1);
        let (verdict, at) = (VerdictWord::Pass, stamp("c"));
        let finished = Body::Finished { verdict, exit_code: 0, reasons: vec![], at };
        history.append(RUN, vec![finished]).await.unwrap();
        let report = b"{\"report\":1}".to_vec();
        let body = Body::ReportSealed { model: "1".to_owned(), digest: hex(&sha256(&report)) };
        let sealed = Fact { body, origin: None, blob: Some(report) };
        history.seal(RUN, AUDIT, 4, sealed, None).await.unwrap();
        vouch(&history, &rig.identity, &rig.dir, AUDIT).await.unwrap();
        history.append(AUDIT, vec![gate()]).await.unwrap();
        history.append("run/b", vec![gate(), gate()]).await.unwrap();
        rig
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("h.db")
    }

    async fn history(&self) -> History {
        let store = SqliteStore::open(&self.path()).unwrap();
        History::open(Arc::new(store), Arc::new(ManualClock::new(stamp("c")))).await.unwrap()
    }

    async fn verify(&self) -> Verification {
        let store = SqliteStore::open(&self.path()).unwrap();
        verify(&store, kept_heads(&self.dir).unwrap(), self.identity.audit_public()).await.unwrap()
    }

    async fn after(&self, statements: &str) -> Verification {
        tamper(&self.path(), statements);
        self.verify().await
    }
}

fn tamper(path: &Path, statements: &str) {
    Connection::open(path).unwrap().execute_batch(statements).unwrap();
}

fn finding<'a>(verification: &'a Verification, stream: &str) -> &'a StreamFinding {
    verification.streams.iter().find(|found| found.stream == stream).unwrap()
}

fn broken(verification: &Verification, stream: &str) -> (u64, String) {
    assert!(!verification.whole());
    finding(verification, stream).broken.clone().unwrap_or_else(|| panic!("{stream} is whole: {verification:?}"))
}

/// The `UPDATE`s that make the chain of a stream right again after its records were changed, as a forger would.
fn rechain(path: &Path, stream: &str) {
    let connection = Connection::open(path).unwrap();
    let id: i64 = connection.query_row("SELECT id FROM stream WHERE name = ?1", [stream], |row| row.get(0)).unwrap();
    let mut rows = connection.prepare("SELECT seq, stored FROM event WHERE stream = ?1 ORDER BY seq").unwrap();
    let records: Vec<(i64, Vec<u8>)> =
        rows.query_map([id], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let mut hash = genesis(stream);
    for (seq, stored) in &records {
        hash = link(&hash, stored);
        connection.execute("UPDATE event SET hash = ?1 WHERE stream = ?2 AND seq = ?3", (&hash[..], id, seq)).unwrap();
    }
    let head = (records.last().unwrap().0, &hash[..], id);
    connection.execute("UPDATE stream SET seq = ?1, hash = ?2 WHERE id = ?3", head).unwrap();
}

const OF_RUN: &str = "stream = (SELECT id FROM stream WHERE name = 'run/a')";

#[tokio::test]
async fn a_whole_history_is_whole_and_says_what_only_the_database_vouches_for() {
    let rig = Rig::new().await;
    let verification = rig.verify().await;
    assert!(verification.whole(), "{verification:?}");
    let vouched = |stream| (finding(&verification, stream).records, finding(&verification, stream).vouched);
    assert_eq!((vouched(RUN), vouched(AUDIT), vouched("run/b")), ((5, 5), (2, 1), (2, 0)));
    let store = SqliteStore::open(&rig.path()).unwrap();
    let unsigned = verify(&store, vec![], rig.identity.audit_public()).await.unwrap();
    assert!(unsigned.whole());
    assert!(unsigned.streams.iter().all(|found| found.vouched == 0), "{unsigned:?}");
    assert_eq!(verify_stream(&store, RUN).await.unwrap().records, 5);
}

#[tokio::test]
async fn a_changed_byte_is_found_at_its_record() {
    let rig = Rig::new().await;
    let found =
        rig.after(&format!("UPDATE event SET stored = CAST(stored || ' ' AS BLOB) WHERE seq = 4 AND {OF_RUN}")).await;
    assert_eq!(broken(&found, RUN), (4, "its bytes do not have its hash".to_owned()));
    assert_eq!(finding(&found, RUN).records, 3);
}

#[tokio::test]
async fn a_removed_record_is_found() {
    let rig = Rig::new().await;
    let found = rig.after(&format!("DELETE FROM event WHERE seq = 2 AND {OF_RUN}")).await;
    assert_eq!(broken(&found, RUN), (2, "it is missing: the next one is 3".to_owned()));
    let found =
        rig.after("DELETE FROM event WHERE seq = 2 AND stream = (SELECT id FROM stream WHERE name = 'run/b')").await;
    assert_eq!(broken(&found, "run/b"), (2, "it is missing: the head says 2 records".to_owned()));
}

#[tokio::test]
async fn a_forged_chain_does_not_fit_the_audit_stream_nor_that_its_signed_head() {
    let rig = Rig::new().await;
    let change = format!("UPDATE event SET stored = CAST(stored || ' ' AS BLOB) WHERE seq = 1 AND {OF_RUN}");
    tamper(&rig.path(), &change);
    rechain(&rig.path(), RUN);
    let found = rig.verify().await;
    assert_eq!(broken(&found, RUN), (5, "it is not the record that the audit stream knows".to_owned()));

    // The forger goes on and rewrites the audit stream too: now only the signed head outside the store knows.
    let head = SqliteStore::open(&rig.path()).unwrap().head(RUN).await.unwrap();
    let connection = Connection::open(rig.path()).unwrap();
    let of_audit = "stream = (SELECT id FROM stream WHERE name = 'audit/c') AND seq = 1";
    let stored: Vec<u8> =
        connection.query_row(&format!("SELECT stored FROM event WHERE {of_audit}"), [], |row| row.get(0)).unwrap();
    let mut event: Event = serde_json::from_slice(&stored).unwrap();
    let Body::StreamClosed { hash, .. } = &mut event.body else { panic!("{event:?}") };
    *hash = hex(&head.hash);
    let forged = serde_json::to_vec(&event).unwrap();
    connection.execute(&format!("UPDATE event SET stored = ?1 WHERE {of_audit}"), [forged]).unwrap();
    drop(connection);
    rechain(&rig.path(), AUDIT);
    let found = rig.verify().await;
    assert_eq!(broken(&found, AUDIT), (1, "it is not the record that a signed head knows".to_owned()));
}

#[tokio::test]
async fn a_stream_cut_short_or_gone_or_grown_is_found() {
    let rig = Rig::new().await;
    tamper(&rig.path(), &format!("DELETE FROM event WHERE seq > 3 AND {OF_RUN}"));
    rechain(&rig.path(), RUN);
    let found = rig.verify().await;
    assert_eq!(broken(&found, RUN), (4, "it is missing: the audit stream knows 5 records".to_owned()));
    let found = rig.after(&format!("DELETE FROM event WHERE {OF_RUN}; DELETE FROM stream WHERE name = 'run/a'")).await;
    assert_eq!(found.general, ["stream run/a is gone"]);

    let rig = Rig::new().await;
    let grown = format!(
        "INSERT INTO event (stream, seq, stored, hash) SELECT stream, 6, CAST(replace(CAST(stored AS TEXT), '\"seq\":5', '\"seq\":6') AS BLOB), hash FROM event WHERE seq = 5 AND {OF_RUN}"
    );
    tamper(&rig.path(), &grown);
    rechain(&rig.path(), RUN);
    assert_eq!(broken(&rig.verify().await, RUN).0, 6);
}

#[tokio::test]
async fn records_of_another_stream_or_place_are_found() {
    let rig = Rig::new().await;
    tamper(
        &rig.path(),
        "UPDATE event SET stored = (SELECT stored FROM event AS o WHERE o.seq = 1 AND o.stream = event.stream)
         WHERE seq = 2 AND stream = (SELECT id FROM stream WHERE name = 'run/b')",
    );
    rechain(&rig.path(), "run/b");
    assert_eq!(broken(&rig.verify().await, "run/b"), (2, "it says it is record 1 of run/b".to_owned()));
}

#[tokio::test]
async fn blobs_are_held_against_their_digest() {
    let rig = Rig::new().await;
    let changed = rig.after("UPDATE blob SET bytes = x'00'").await;
    assert_eq!(
        finding(&changed, RUN).blobs,
        [(3, "its readings were changed".to_owned()), (5, "its report was changed".to_owned())]
    );
    let missing = rig.after("DELETE FROM blob").await;
    assert_eq!(
        finding(&missing, RUN).blobs,
        [(3, "its readings are missing".to_owned()), (5, "its report is missing".to_owned())]
    );
    assert!(!missing.whole() && finding(&missing, RUN).broken.is_none());
}

#[tokio::test]
async fn a_signature_that_does_not_hold_is_said() {
    let rig = Rig::new().await;
    let mut heads = kept_heads(&rig.dir).unwrap();
    heads[0].seq += 1;
    let store = SqliteStore::open(&rig.path()).unwrap();
    let found = verify(&store, heads, rig.identity.audit_public()).await.unwrap();
    assert_eq!(found.general, ["signature of head 2 of audit/c does not hold"]);
    rig.dir.append_line(HEADS_FILE, "x").unwrap();
    assert!(kept_heads(&rig.dir).unwrap_err().to_string().contains("line 2 is not a signed head"));
}

fn listing(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn a_directory_is_verified_as_it_lies_there() {
    let rig = Rig::new().await;
    let folder = rig.dir.path().to_owned();
    std::fs::rename(rig.path(), folder.join(STORE_FILE)).unwrap();
    let held = verify_dir(&folder, vec![], None).await.unwrap_err().to_string();
    assert!(held.contains("is in use by process"), "{held}");
    let Rig { folder: _keep, dir, identity } = rig;
    drop(dir);
    let before = listing(&folder);
    let found = verify_dir(&folder, vec![], None).await.unwrap();
    assert!(found.whole(), "{found:?}");
    assert_eq!((found.signed, found.records()), (1, 9));
    assert_eq!(listing(&folder), before, "nothing was changed");
    // Heads from elsewhere count as well, and a key that did not sign them is told.
    let foreign = sign(identity.audit(), AUDIT, Head { seq: 2, hash: [9; 32] }, 1);
    let found = verify_dir(&folder, vec![foreign], None).await.unwrap();
    assert_eq!(broken(&found, AUDIT).1, "it is not the record that a signed head knows");
    let found = verify_dir(&folder, vec![], Some(vec![1; 32])).await.unwrap();
    assert!(found.general[0].contains("does not hold"), "{found:?}");
    tamper(&folder.join(STORE_FILE), "UPDATE event SET stored = x'7b7d' WHERE seq = 2");
    assert!(!verify_dir(&folder, vec![], None).await.unwrap().whole());
    std::fs::write(folder.join(STORE_FILE), "not a history").unwrap();
    let found = verify_dir(&folder, vec![], None).await.unwrap();
    assert!(found.general[0].contains("is not a history"), "{found:?}");
    let none = verify_dir(&folder.join("none"), vec![], None).await.unwrap_err().to_string();
    assert!(none.contains("cannot open"), "{none}");
}

#[tokio::test]
async fn a_history_that_was_cut_off_is_verified_with_its_log() {
    let rig = Rig::new().await;
    let folder = rig.dir.path().to_owned();
    let history = rig.history().await;
    history.append("run/c", vec![gate(), gate()]).await.unwrap();
    // As a kill leaves it: the last commits are in the log alone.
    for (name, to) in [("h.db", STORE_FILE.to_owned()), ("h.db-wal", format!("{STORE_FILE}-wal"))] {
        std::fs::copy(rig.folder.path().join(name), folder.join(to)).unwrap();
    }
    drop(history);
    let Rig { folder: _keep, dir, .. } = rig;
    drop(dir);
    let found = verify_dir(&folder, vec![], None).await.unwrap();
    assert!(found.whole() && finding(&found, "run/c").records == 2, "{found:?}");
}

#[tokio::test]
async fn a_report_is_as_it_was_sealed() {
    let rig = Rig::new().await;
    let changed = rig.after("UPDATE blob SET bytes = x'7b7d' WHERE hex(bytes) LIKE '7B%'").await;
    assert_eq!(finding(&changed, RUN).blobs, [(5, "its report was changed".to_owned())]);
}

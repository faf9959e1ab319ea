//! What only the store on disk can get wrong: files that are not what they should be, full disks, groups.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use futures_util::future::join_all;

use super::*;
use crate::store::conformance::{batch, one};

async fn filled(path: &Path, streams: usize) {
    let store = SqliteStore::open(path).unwrap();
    let text = "x".repeat(3000);
    for stream in (0..streams).map(|i| format!("run/{i}")) {
        store.commit(one(0, batch(&stream, Head::genesis(&stream), &[&text, &text]))).await.unwrap();
    }
}

fn refusal(path: &Path) -> StoreError {
    SqliteStore::open(path).expect_err("the file must be refused")
}

#[tokio::test]
async fn keeps_its_contents_and_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.db");
    filled(&path, 2).await;
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.streams("").await.unwrap(), ["run/0", "run/1"]);
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

#[tokio::test]
async fn refuses_a_newer_schema_by_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.db");
    filled(&path, 1).await;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    assert_eq!(refusal(&path), StoreError::Newer { path: path.clone(), found: 7, known: 2 });
    assert!(refusal(&path).to_string().contains("start the newer controller"), "{}", refusal(&path));
}

#[tokio::test]
async fn refuses_damaged_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.db");
    filled(&path, 40).await;
    let whole = fs::read(&path).unwrap();
    for length in [whole.len() / 2, whole.len() - 4096, 4096] {
        fs::write(&path, &whole[..length]).unwrap();
        let refusal = refusal(&path);
        assert!(matches!(refusal, StoreError::Damaged { .. }), "{length}: {refusal}");
    }
    File::create(&path).unwrap();
    assert!(matches!(refusal(&path), StoreError::Damaged { .. }));
    let mut scratched = whole.clone();
    scratched[4096..12288].fill(0xee);
    fs::write(&path, scratched).unwrap();
    assert!(matches!(refusal(&path), StoreError::Damaged { .. }));
    fs::write(&path, whole).unwrap();
    assert_eq!(SqliteStore::open(&path).unwrap().streams("").await.unwrap().len(), 40);
}

#[tokio::test]
async fn refuses_what_is_not_a_history() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.db");
    fs::write(&path, "not a database, but long enough to have a header".repeat(100)).unwrap();
    assert!(matches!(refusal(&path), StoreError::Foreign { .. }), "{}", refusal(&path));
    let other = folder.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(refusal(&other), StoreError::Foreign { .. }), "{}", refusal(&other));
    let orphan = folder.path().join("gone.db");
    fs::write(folder.path().join("gone.db-wal"), "log").unwrap();
    assert!(refusal(&orphan).to_string().contains("gone.db-wal is there"), "{}", refusal(&orphan));
    let nowhere = folder.path().join("none/h.db");
    assert!(matches!(refusal(&nowhere), StoreError::Failed { .. }), "{}", refusal(&nowhere));
}

/// What the first version of the schema made, as it made it.
const FIRST: &str = "
    CREATE TABLE owner (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL) STRICT;
    INSERT INTO owner (id, epoch) VALUES (1, 3);
    CREATE TABLE stream (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, seq INTEGER NOT NULL, hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE event (
        stream INTEGER NOT NULL REFERENCES stream (id), seq INTEGER NOT NULL CHECK (seq > 0),
        stored BLOB NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (stream, seq)
    ) STRICT;
    CREATE TABLE blob (digest BLOB PRIMARY KEY NOT NULL, bytes BLOB NOT NULL) STRICT;
    CREATE TABLE cursor (
        id INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT NOT NULL, outbox TEXT NOT NULL, seq INTEGER NOT NULL,
        UNIQUE (host, outbox)
    ) STRICT;
    CREATE TABLE run (
        run TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, verdict TEXT NOT NULL,
        exit_code INTEGER NOT NULL, reason TEXT NOT NULL, started_wall_ns INTEGER NOT NULL, ended_wall_ns INTEGER,
        requester TEXT NOT NULL, environment TEXT NOT NULL
    ) STRICT;
    CREATE INDEX run_by_start ON run (started_wall_ns, run);
    CREATE TABLE idempotency (key TEXT PRIMARY KEY NOT NULL, run TEXT NOT NULL) STRICT;
    PRAGMA application_id = 1179795779;
    PRAGMA user_version = 1;
";

/// A history of the first version: one run with readings, a record that is no JSON any more, one that only speaks of seals.
fn first_version(path: &Path) -> [Digest; 2] {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(FIRST).unwrap();
    let (readings, other) = (crate::chain::sha256(b"readings"), crate::chain::sha256(b"other"));
    let sealed = format!(r#"{{"body":{{"kind":"readingsSealed","digest":"{}"}}}}"#, crate::chain::hex(&readings));
    let texts = [sealed.as_str(), "Sealed\" {{", r#"{"body":{"kind":"called","method":"Sealed\""}}"#];
    let records = batch("run/a", Head::genesis("run/a"), &texts);
    for (seq, event) in (1..).zip(&records.events) {
        let values = (seq, &event.stored, &event.hash[..]);
        connection.execute("INSERT INTO event VALUES (1, ?1, ?2, ?3)", values).unwrap_or_else(|_| {
            // The stream's row comes first.
            let hash = &records.events[2].hash[..];
            connection.execute("INSERT INTO stream VALUES (1, 'run/a', 3, ?1)", [hash]).unwrap();
            connection.execute("INSERT INTO event VALUES (1, ?1, ?2, ?3)", values).unwrap()
        });
    }
    for (digest, bytes) in [(readings, &b"readings"[..]), (other, b"other")] {
        connection.execute("INSERT INTO blob VALUES (?1, ?2)", (&digest[..], bytes)).unwrap();
    }
    [readings, other]
}

#[tokio::test]
async fn a_history_of_the_first_version_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.db");
    let [readings, other] = first_version(&path);
    // Looked at, it is as if it were of now, and is not changed.
    let bytes = fs::read(&path).unwrap();
    let looked = SqliteStore::open_to_read(&path).unwrap();
    let (listed, records) = (looked.listed("").await.unwrap(), looked.read("run/a", 0, 9).await.unwrap());
    assert_eq!((listed[0].base, listed[0].head.seq, records.len()), (Head::genesis("run/a"), 3, 3));
    drop(looked);
    assert_eq!(fs::read(&path).unwrap(), bytes);

    let store = SqliteStore::open(&path).unwrap();
    assert_eq!((store.listed("").await.unwrap(), store.read("run/a", 0, 9).await.unwrap()), (listed.clone(), records));
    assert_eq!(store.next_epoch().await, Ok(4));
    // Blobs go with the records that name them, and others stay.
    store.cut(4, vec![Cut { stream: "run/a".into(), upto: listed[0].head }]).await.unwrap();
    while store.wipe(Portion { records: 9, bytes: 1 << 20 }).await.unwrap() {}
    assert_eq!((store.blob(readings).await, store.blob(other).await), (Ok(None), Ok(Some(b"other".to_vec()))));
    drop(store);
    SqliteStore::open(&path).unwrap();
}

/// Whether a file, or its log, still has these bytes somewhere.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    let log = format!("{}-wal", path.display());
    let all = [fs::read(path).unwrap(), fs::read(log).unwrap_or_default()].concat();
    all.windows(bytes.len()).any(|window| window == bytes)
}

#[tokio::test]
async fn what_was_wiped_is_in_the_file_no_more_and_gives_its_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.db");
    let store = SqliteStore::open(&path).unwrap();
    let mut cuts = Vec::new();
    for run in 0..40 {
        let stream = format!("run/{run}");
        let mut records = batch(&stream, Head::genesis(&stream), &["a record that is secret", &"s".repeat(9000)]);
        let blob = [format!("readings of {run}, secret too ").into_bytes(), vec![b'z'; 300_000]].concat();
        records.events[1].blob = Some((crate::chain::sha256(&blob), blob));
        store.commit(one(0, records)).await.unwrap();
        cuts.push(Cut { upto: store.head(&stream).await.unwrap(), stream });
    }
    let last = cuts.pop().unwrap();
    store.cut(0, cuts).await.unwrap();
    let portion = Portion { records: 1, bytes: 256 << 10 };
    let mut portions = 0;
    while store.wipe(portion).await.unwrap() {
        portions += 1;
    }
    assert!(portions >= 39 * 2, "{portions}");
    drop(store);
    for secret in [&b"a record that is secret"[..], b"readings of 7, secret"] {
        assert_eq!(
            holds(&path, secret),
            secret == b"a record that is secret",
            "the one that stays has that record too"
        );
    }
    let left = fs::metadata(&path).unwrap().len();
    assert!(left < 6 << 20, "of 12 MiB, {left} bytes are left");
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.streams("").await.unwrap(), [last.stream.clone()]);
    store.cut(0, vec![last]).await.unwrap();
    while store.wipe(portion).await.unwrap() {}
    drop(store);
    assert!(!holds(&path, b"a record that is secret"));
}

#[tokio::test]
async fn wiping_that_was_cut_off_goes_on_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.db");
    filled(&path, 30).await;
    let store = SqliteStore::open(&path).unwrap();
    let listed = store.listed("").await.unwrap();
    store.cut(0, listed.into_iter().map(|one| Cut { stream: one.stream, upto: one.head }).collect()).await.unwrap();
    assert_eq!(store.wipe(Portion { records: 1, bytes: 1 }).await, Ok(true));
    // As a kill leaves it.
    let copy = folder.path().join("copy.db");
    for end in ["", "-wal"] {
        fs::copy(format!("{}{end}", path.display()), format!("{}{end}", copy.display())).unwrap();
    }
    let store = SqliteStore::open(&copy).unwrap();
    assert_eq!(store.streams("").await.unwrap(), Vec::<String>::new());
    while store.wipe(Portion { records: 7, bytes: 1 << 20 }).await.unwrap() {}
    drop(store);
    let rows: i64 = Connection::open(&copy)
        .unwrap()
        .query_row("SELECT (SELECT count(*) FROM event) + (SELECT count(*) FROM stream)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_copy_is_of_one_instant_while_appends_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (path, to) = (folder.path().join("h.db"), folder.path().join("copy.db"));
    filled(&path, 600).await;
    let store = SqliteStore::open(&path).unwrap();
    // Two streams that grow together: a copy that has one ahead of the other is of no one instant.
    let text = "t".repeat(2000);
    let mut pair = (0_u64, 0_u64);
    let copying = store.copy_to(&to);
    tokio::pin!(copying);
    let copied = loop {
        tokio::select! {
            biased;
            copied = &mut copying => break copied,
            () = tokio::task::yield_now() => {
                let (a, b) = (store.head("run/a").await.unwrap(), store.head("run/b").await.unwrap());
                let both = vec![batch("run/a", a, &[&text]), batch("run/b", b, &[&text])];
                store.commit(Commit { batches: both, ..Commit::default() }).await.unwrap();
                pair.0 += 1;
            }
        }
    };
    copied.unwrap();
    assert!(pair.0 > 0, "nothing was appended meanwhile");
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = SqliteStore::open(&to).unwrap();
    let (a, b) = (copy.head("run/a").await.unwrap().seq, copy.head("run/b").await.unwrap().seq);
    pair.1 = a;
    assert!(a == b && pair.1 <= pair.0, "{a} {b} {pair:?}");
    for stream in copy.streams("").await.unwrap() {
        assert_eq!(crate::verify::verify_stream(&copy, &stream).await.unwrap().blobs, []);
    }
    assert!(matches!(store.copy_to(&to).await, Err(StoreError::Failed { .. })), "it overwrites nothing");
}

#[tokio::test]
async fn an_interrupted_beginning_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("h.db.new"), "half").unwrap();
    filled(&folder.path().join("h.db"), 1).await;
    assert!(!folder.path().join("h.db.new").exists());
}

#[tokio::test]
async fn one_refused_request_does_not_spoil_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("h.db")).unwrap();
    let commits = (0..200).map(|i| {
        // Every tenth wants the stream of its predecessor once more.
        let stream = format!("run/{}", if i % 10 == 9 { i - 1 } else { i });
        store.commit(one(0, batch(&stream, Head::genesis(&stream), &["1"])))
    });
    let results = join_all(commits).await;
    for (i, pair) in results.chunks(2).enumerate() {
        let won = pair.iter().filter(|result| result.is_ok()).count();
        assert_eq!(won, if i % 5 == 4 { 1 } else { 2 }, "{pair:?}");
    }
    assert_eq!(store.streams("").await.unwrap().len(), 180);
}

/// Runs this test's own binary again, inside a mount namespace with a small tmpfs, as the part after `FULL`.
#[tokio::test]
async fn a_full_disk_loses_nothing_and_room_heals_it() {
    const MARK: &str = "FRACAS_TEST_SMALL_DISK";
    if let Some(folder) = std::env::var_os(MARK) {
        return fill_the_disk(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let namespace = |program: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--"]).args(program);
        command
    };
    let mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder.path().to_str().unwrap()];
    let possible = namespace(&mount).output().is_ok_and(|done| done.status.success());
    if !possible {
        assert_ne!(std::env::var("FRACAS_REQUIRE").as_deref(), Ok("all"), "cannot mount a tmpfs in a namespace");
        eprintln!("skipped: no tmpfs in a user namespace here");
        return;
    }
    let script = format!("{} && exec \"$@\"", mount.join(" "));
    let own = std::env::current_exe().unwrap();
    let test = "store::sqlite::tests::a_full_disk_loses_nothing_and_room_heals_it";
    let done = namespace(&["sh", "-c", &script, "sh", own.to_str().unwrap(), "--exact", test, "--nocapture"])
        .env(MARK, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

async fn fill_the_disk(folder: &Path) {
    let path = folder.join("h.db");
    let store = SqliteStore::open(&path).unwrap();
    let ballast = folder.join("ballast");
    fs::write(&ballast, vec![7; 512 << 10]).unwrap();
    let text = "y".repeat(20_000);
    let mut head = Head::genesis("run/a");
    let full = loop {
        match store.commit(one(0, batch("run/a", head, &[&text]))).await {
            Ok(()) => head = store.head("run/a").await.unwrap(),
            Err(error) => break error,
        }
    };
    assert_eq!(full, StoreError::Full { path: path.clone() });
    assert!(head.seq > 5, "only {} fitted", head.seq);
    assert_eq!(store.head("run/a").await.unwrap(), head, "reading goes on, and shows nothing of the failed append");
    assert!(matches!(store.next_epoch().await, Ok(_) | Err(StoreError::Full { .. })));
    fs::remove_file(ballast).unwrap();
    store.commit(one(9, batch("run/a", head, &[&text]))).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.read("run/a", 0, usize::MAX).await.unwrap().len() as u64, head.seq + 1);
}

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

//! A controller whose disk is gone: what comes back, what is refused, and what heads signed since then say.

use std::{
    io::{Cursor, Write as _},
    os::unix::fs::PermissionsExt as _,
};

use fracas_model::{event::Event, units::Dur};

use super::*;
use crate::{
    clock::ManualClock,
    keep::{
        house::{AUDIT, DAY, House, ID, stamp},
        offline,
    },
};

/// Some time after all that a [`House`] lived through.
fn late(id: HostId) -> io::Result<Arc<dyn Clock>> {
    assert_eq!(id.as_str(), ID);
    Ok(Arc::new(ManualClock::new(stamp().later(Dur::from_ns(DAY.ns() * 501)))))
}

async fn backed_up(house: &House, with_keys: bool) -> Vec<u8> {
    let ready = house.keeper.backup("admin", with_keys).await.unwrap();
    let mut bytes = Vec::new();
    ready.write(&mut bytes).unwrap();
    bytes
}

async fn restored(bytes: &[u8], to: &Path, heads: Vec<SignedHead>) -> Result<Restored, RestoreError> {
    restore(Path::new("the.tar"), Cursor::new(bytes), to, heads, None, &late).await
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_of_a_working_controller_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::lived(&folder.path().join("d"), 0).await;
    let public = house.keeper.public_key().to_vec();
    let bytes = backed_up(&house, true).await;
    assert!(!house.dir.join(super::super::COPY).exists());
    // Life goes on, and heads are signed and kept elsewhere.
    house.ended("later").await;
    let newer = house.keeper.vouch().await.unwrap();
    let runs = house.runs().await;
    drop(house);

    let to = folder.path().join("elsewhere");
    let done = restored(&bytes, &to, vec![]).await.unwrap();
    assert!(done.found.whole() && done.found.complete(), "{:?}", done.found);
    assert_eq!((done.open, done.manifest.audit.as_str(), done.manifest.with_keys), (1, AUDIT, true));
    assert!(done.found.unvouched().all(|one| !one.stream.starts_with("audit/")), "the copy is signed to its end");
    for (name, mode) in [("", 0o700), ("history.sqlite", 0o600), ("audit.key", 0o600), ("ca.pem", 0o644)] {
        assert_eq!(fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    assert_eq!(names(folder.path()), ["d", "elsewhere"], "nothing else is left");

    let house = House::open(&to, Dur::from_ns(DAY.ns() * 501)).await;
    assert_eq!(house.keeper.public_key(), public);
    assert_eq!(house.runs().await, runs[1..]);
    let told: Vec<Event> = house.history().read("run/open", 0).await.unwrap();
    assert!(matches!(told.last().unwrap().body, Body::Restored { .. }), "an open run says what happened");
    house.keeper.vouch().await.unwrap();
    let mut heads = verify::kept_heads(&house.dir).unwrap();
    let found = house.verify().await;
    assert!(found.whole() && found.complete(), "{found:?}");
    // The head from after the backup is not taken for tampering, and is not passed over either.
    heads.push(newer.clone());
    let found = verify::verify(&**house.store(), heads, &public).await.unwrap();
    assert!(found.whole() && !found.complete(), "{found:?}");
    assert_eq!((found.newer[0].seq, found.newer[0].copy), (newer.seq, done.manifest.audit_seq));
}

#[tokio::test]
async fn without_keys_it_can_be_looked_at_and_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::lived(&folder.path().join("d"), 0).await;
    let secrets = ["audit.key", "ca.key", "server.key", "admin.token", "admin.digest"];
    let texts: Vec<Vec<u8>> = secrets.iter().map(|name| fs::read(house.dir.join(name)).unwrap()).collect();
    let bytes = backed_up(&house, false).await;
    for (name, text) in secrets.iter().zip(&texts) {
        assert!(!bytes.windows(text.len()).any(|window| window == text), "{name} is in it");
    }
    let to = folder.path().join("look");
    restored(&bytes, &to, vec![]).await.unwrap();
    assert_eq!(names(&to), ["audit.pub", "ca.pem", "controller.id", "heads.jsonl", "history.sqlite", "lock"]);
    let found = verify::verify_dir(&to, vec![], None).await.unwrap();
    assert!(found.whole() && found.signed > 1, "{found:?}");
    // A controller there would have to make keys anew, of which no host knows: it does not begin.
    let dir = DataDir::open(&to).unwrap();
    let refused = crate::identity::Identity::open(&dir, &[], 0).err().unwrap().to_string();
    assert!(refused.contains("ca.key"), "{refused}");
    for name in ["ca.key", "server.key"] {
        fs::copy(folder.path().join("d").join(name), to.join(name)).unwrap();
    }
    let refused = crate::identity::Identity::open(&dir, &[], 0).err().unwrap().to_string();
    assert!(refused.contains("audit.key") && refused.contains("put it back from a backup"), "{refused}");
}

#[tokio::test]
async fn a_backup_of_a_stopped_controller_changes_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d");
    let house = House::lived(&path, 0).await;
    let spool = folder.path().join("spool");
    let held = offline(&path, &spool, true, 1).await.unwrap_err().to_string();
    assert!(held.contains("is in use by process"), "{held}");
    // As a kill leaves it: with a log.
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in names(&path).iter().filter(|name| *name != "lock" && !name.ends_with("-shm")) {
        fs::copy(path.join(name), copy.join(name)).unwrap();
    }
    let before: Vec<_> = names(&copy).into_iter().map(|name| (fs::read(copy.join(&name)).unwrap(), name)).collect();
    let mut bytes = Vec::new();
    offline(&copy, &spool, true, 7).await.unwrap().write(&mut bytes).unwrap();
    assert!(!spool.exists());
    for (content, name) in before {
        assert!(fs::read(copy.join(&name)).unwrap() == content, "{name} was changed");
    }
    let done = restored(&bytes, &folder.path().join("new"), vec![]).await.unwrap();
    assert_eq!((done.manifest.made_wall_ns, done.manifest.epoch), (7, house.history().epoch()));
    assert!(done.found.whole());
    let none = offline(&folder.path().join("new/none"), &spool, true, 1).await.unwrap_err().to_string();
    assert!(none.contains("cannot open"), "{none}");
    fs::create_dir(folder.path().join("empty")).unwrap();
    let empty = offline(&folder.path().join("empty"), &spool, true, 1).await.unwrap_err().to_string();
    assert!(empty.contains("there is no history in it"), "{empty}");
}

#[tokio::test]
async fn what_is_damaged_forged_or_in_the_way_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::lived(&folder.path().join("d"), 0).await;
    let bytes = backed_up(&house, true).await;
    let to = folder.path().join("to");
    let clean = |what: &str| assert_eq!(names(folder.path()), ["d", "to"], "{what} left something");
    fs::create_dir(&to).unwrap();
    let mut changed = bytes.clone();
    let at = changed.windows(14).rposition(|window| window == b"readings of ol").unwrap();
    changed[at] ^= 1;
    let error = restored(&changed, &to, vec![]).await.unwrap_err().to_string();
    assert!(error.contains("history.sqlite: its bytes do not have its digest"), "{error}");
    clean("a damaged archive");
    let error = restored(&bytes[..bytes.len() / 2], &to, vec![]).await.unwrap_err().to_string();
    assert!(error.contains("it is damaged"), "{error}");
    clean("half an archive");
    // Forged with all its digests: the chain and the signed heads in it still know.
    let forged = forged(&bytes, folder.path()).await;
    let error = restored(&forged, &to, vec![]).await.unwrap_err().to_string();
    assert!(error.contains("is not whole") && error.contains("run/young record 3"), "{error}");
    clean("a forged archive");
    // A head that was kept elsewhere and is not of this history.
    let key = AuditKey::open(&house.dir).unwrap().unwrap();
    let other = verify::sign(&key, AUDIT, crate::store::Head { seq: 2, hash: [9; 32] }, 1);
    let error = restored(&bytes, &to, vec![other]).await.unwrap_err().to_string();
    assert!(error.contains("not the record that a signed head knows"), "{error}");
    clean("a history that a head outside contradicts");
    // An earlier try that was cut off is no obstacle, and nothing of it comes along.
    fs::create_dir(folder.path().join(".to.restoring")).unwrap();
    fs::write(folder.path().join(".to.restoring/rubbish"), "x").unwrap();
    restored(&bytes, &to, vec![]).await.unwrap();
    clean("an earlier try");
    assert!(!to.join("rubbish").exists());
    let error = restored(&bytes, &to, vec![]).await.unwrap_err();
    assert!(matches!(error, RestoreError::Occupied(_)), "{error}");
    let error = restored(&bytes, &folder.path().join("no/such"), vec![]).await.unwrap_err();
    assert!(matches!(error, RestoreError::Place(_)), "{error}");
}

/// The same archive with a changed record in its history, and every digest made right.
async fn forged(bytes: &[u8], folder: &Path) -> Vec<u8> {
    let out = folder.join("forging");
    fs::create_dir(&out).unwrap();
    let dir = DataDir::open(&out).unwrap();
    let manifest = archive::read(bytes, |_, known| dir.create(known.name, known.access)).unwrap();
    let connection = rusqlite::Connection::open(out.join(STORE_FILE)).unwrap();
    let change = "UPDATE event SET stored = CAST(replace(CAST(stored AS TEXT), 'pass', 'fail') AS BLOB) WHERE seq = 3
                  AND stream = (SELECT id FROM stream WHERE name = 'run/young')";
    assert_eq!(connection.execute(change, []).unwrap(), 1);
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    let file = |known: &archive::Known| {
        let from = File::open(out.join(known.name)).ok()?;
        Some(archive::Packed::new(known.name, Box::new(from)).unwrap())
    };
    let mut forged = Vec::new();
    archive::write(&mut forged, manifest, archive::FILES.iter().filter_map(file).collect()).unwrap();
    forged.flush().unwrap();
    fs::remove_dir_all(out).unwrap();
    forged
}

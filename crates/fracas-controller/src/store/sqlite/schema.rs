//! Opening the file: the schema and its versions, the settings durability rests on, and what each error means.
//!
//! A file that is not surely a whole history of a known version is refused, never repaired.

use std::{
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    backup::{Backup, StepResult},
    ffi,
};

use crate::store::StoreError;

/// `FRAC`: tells a history from any other SQLite file.
const APPLICATION_ID: i64 = 0x4652_4143;

/// How a file of each version becomes one of the next; the length of the list is this build's version.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE owner (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL) STRICT;
    INSERT INTO owner (id, epoch) VALUES (1, 0);
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
",
    "
    ALTER TABLE stream ADD COLUMN floor INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE stream ADD COLUMN floor_hash BLOB;
    ALTER TABLE event ADD COLUMN blob BLOB;
    UPDATE event SET blob = CASE WHEN json_valid(CAST(stored AS TEXT))
        THEN unhex(json_extract(CAST(stored AS TEXT), '$.body.digest')) END
        WHERE instr(stored, CAST('Sealed\"' AS BLOB)) > 0;
    CREATE INDEX event_by_blob ON event (blob) WHERE blob IS NOT NULL;
    CREATE TABLE wiping (stream INTEGER PRIMARY KEY REFERENCES stream (id)) STRICT;
",
];

/// What a file of the first version looks like to one that only reads it: nothing was ever cut off.
const AS_NOW: &str = "
    CREATE TEMP VIEW stream AS SELECT id, name, seq, hash, 0 AS floor, NULL AS floor_hash FROM main.stream;
";

/// A file up to this size is checked through and through when it is opened; a larger one as it is read.
const CHECKED_BYTES: u64 = 64 << 20;

/// Nobody but us opens the file for writing, so only a backup tool is ever waited for.
const BUSY: Duration = Duration::from_secs(5);

/// Pages that are copied at once, and the pause after them, in which whoever appends has the disk to itself.
const COPIED_PAGES: std::ffi::c_int = 256;
const BREATH: Duration = Duration::from_millis(1);

/// Opens the writing connection; begins a new file when there is none.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |e: io::Error| explain_io(path, &e);
    if !path.try_exists().map_err(failed)? {
        let log = sibling(path, "-wal");
        if log.try_exists().map_err(failed)? {
            let detail = format!("the file is gone but its log {} is there", log.display());
            return Err(StoreError::Damaged { path: path.to_owned(), detail });
        }
        create(path)?;
    }
    let size = fs::metadata(path).map_err(failed)?.len();
    if size == 0 {
        return Err(StoreError::Damaged { path: path.to_owned(), detail: "it is empty".to_owned() });
    }
    let said = |e: rusqlite::Error| explain(path, &e);
    let mut connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(said)?;
    connection.busy_timeout(BUSY).map_err(said)?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(said)?;
    if application != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_owned(), detail: "another program's database".to_owned() });
    }
    refuse_newer(&connection, path)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(said)?;
    // An answer means: on the disk. NORMAL would lose acknowledged commits with the power.
    connection.pragma_update(None, "synchronous", "FULL").map_err(said)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(said)?;
    // What was pruned is not to be found in the file any more.
    connection.pragma_update(None, "secure_delete", true).map_err(said)?;
    if size <= CHECKED_BYTES {
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(said)?;
        if found != "ok" {
            return Err(StoreError::Damaged { path: path.to_owned(), detail: found });
        }
    }
    migrate(&mut connection).map_err(said)?;
    Ok(connection)
}

/// Opens the reading connection of a file that [`open`] has accepted.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let said = |e: rusqlite::Error| explain(path, &e);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(said)?;
    connection.busy_timeout(BUSY).map_err(said)?;
    Ok(connection)
}

/// Opens a file that nobody writes, to look at it only: as it is, or, where a crash left a log, through that log.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let failed = |e: io::Error| explain_io(path, &e);
    let said = |e: rusqlite::Error| explain(path, &e);
    let size = fs::metadata(path).map_err(failed)?.len();
    if size == 0 {
        return Err(StoreError::Damaged { path: path.to_owned(), detail: "it is empty".to_owned() });
    }
    let logged = fs::metadata(sibling(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = if logged {
        // SQLite makes an index of the log beside it; the history and the log stay as they are.
        Connection::open_with_flags(path, flags).map_err(said)?
    } else {
        Connection::open_with_flags(immutable(path), flags | OpenFlags::SQLITE_OPEN_URI).map_err(said)?
    };
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(said)?;
    if application != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_owned(), detail: "another program's database".to_owned() });
    }
    refuse_newer(&connection, path)?;
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(said)?;
    if found != "ok" {
        return Err(StoreError::Damaged { path: path.to_owned(), detail: found });
    }
    if version(&connection).map_err(said)? == 1 {
        connection.execute_batch(AS_NOW).map_err(said)?;
    }
    Ok(connection)
}

/// Copies everything that `from` shows at this instant into a new file that only its owner may read.
pub(super) fn copy(from: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |e: io::Error| explain_io(path, &e);
    let said = |e: rusqlite::Error| explain(path, &e);
    File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let copied = (|| {
        // With a transaction of its own every step sees the same instant.
        let snapshot = from.unchecked_transaction()?;
        snapshot.query_row("SELECT epoch FROM owner", [], |_| Ok(()))?;
        let mut to = Connection::open(path)?;
        // The copy counts only when it is whole and synced below.
        to.pragma_update(None, "journal_mode", "OFF")?;
        to.pragma_update(None, "synchronous", "OFF")?;
        let copying = Backup::new(&snapshot, &mut to)?;
        while copying.step(COPIED_PAGES)? != StepResult::Done {
            std::thread::sleep(BREATH);
        }
        drop(copying);
        to.close().map_err(|(_, e)| e)
    })();
    copied.map_err(said)?;
    File::open(path).and_then(|file| file.sync_all()).map_err(failed)
}

/// The file's address by which SQLite takes it for one that nothing changes.
fn immutable(path: &Path) -> std::ffi::OsString {
    let mut address = std::ffi::OsString::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => address.push(format!("%{byte:02x}")),
            other => address.push(std::ffi::OsStr::from_bytes(std::slice::from_ref(other))),
        }
    }
    address.push("?immutable=1");
    address
}

/// Makes the file under another name and renames it when it is whole: a file under its own name is never half made.
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |e: io::Error| explain_io(path, &e);
    let said = |e: rusqlite::Error| explain(path, &e);
    let draft = sibling(path, ".new");
    for leftover in [draft.clone(), sibling(&draft, "-journal")] {
        match fs::remove_file(leftover) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
    }
    File::options().write(true).create_new(true).mode(0o600).open(&draft).map_err(failed)?;
    let mut connection = Connection::open(&draft).map_err(said)?;
    // Only a file that begins so, before anything is in it, can give room back while it is in use.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(said)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(said)?;
    migrate(&mut connection).map_err(said)?;
    connection.close().map_err(|(_, e)| said(e))?;
    File::open(&draft).and_then(|file| file.sync_all()).map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn refuse_newer(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let known = MIGRATIONS.len() as i64;
    match version(connection).map_err(|e| explain(path, &e))? {
        found if found > known => Err(StoreError::Newer { path: path.to_owned(), found, known }),
        found if found < 0 => {
            Err(StoreError::Damaged { path: path.to_owned(), detail: format!("schema version {found}") })
        }
        _ => Ok(()),
    }
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    for (at, step) in (0..).zip(MIGRATIONS) {
        if version(connection)? == at {
            let transaction = connection.transaction()?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "user_version", at + 1)?;
            transaction.commit()?;
        }
    }
    Ok(())
}

/// What an error of SQLite means for whoever runs the controller.
pub(super) fn explain(path: &Path, error: &rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let rusqlite::Error::SqliteFailure(code, said) = error else {
        // A column of another type than the schema's: somebody else wrote there.
        return StoreError::Damaged { path, detail: error.to_string() };
    };
    let detail = said.clone().unwrap_or_else(|| code.to_string());
    match (code.code, code.extended_code) {
        // Growing the shared index of the log fails with a code of its own.
        (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => StoreError::Full { path },
        (ErrorCode::DatabaseCorrupt, _) => StoreError::Damaged { path, detail },
        (ErrorCode::NotADatabase, _) => StoreError::Foreign { path, detail },
        _ => StoreError::Failed { path, detail },
    }
}

fn explain_io(path: &Path, error: &io::Error) -> StoreError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path },
        _ => StoreError::Failed { path, detail: error.to_string() },
    }
}

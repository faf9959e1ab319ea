//! Cutting records off, which takes effect at once, and wiping them, which takes its time.
//!
//! It does not know why anything goes; it only checks that what goes is what was meant.
//!
//! ```text
//! cut:   the floor of a stream rises, or its name is taken away   (one small transaction)
//! wipe:  records below the floor, and blobs of theirs alone       (many small ones; a crash loses none of the rest)
//! ```

use rusqlite::{Connection, OptionalExtension};

use super::write::epoch;
use crate::{
    chain::Digest,
    store::{Cut, Portion, StoreError},
};

/// Pages that the file may have free before it is made smaller: what is appended next takes them.
const SPARE_PAGES: i64 = 1024;

/// Cuts off; as [`crate::store::Store::cut`].
pub(super) fn cut(connection: &Connection, ours: u64, cuts: &[Cut]) -> rusqlite::Result<Result<u64, StoreError>> {
    let owner = epoch(connection)?;
    if ours < owner {
        return Ok(Err(StoreError::Fenced { ours, owner }));
    }
    for cut in cuts {
        if let Err(refusal) = check(connection, cut)? {
            return Ok(Err(refusal));
        }
    }
    for cut in cuts {
        apply(connection, cut)?;
    }
    Ok(Ok(0))
}

/// Number, end and floor of a stream.
fn place(connection: &Connection, stream: &str) -> rusqlite::Result<Option<(i64, i64, i64)>> {
    let mut rows = connection.prepare_cached("SELECT id, seq, floor FROM stream WHERE name = ?1")?;
    rows.query_row([stream], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
}

fn check(connection: &Connection, Cut { stream, upto }: &Cut) -> rusqlite::Result<Result<(), StoreError>> {
    let Some((id, end, floor)) = place(connection, stream)?.filter(|(.., floor)| *floor < upto.seq as i64) else {
        return Ok(Ok(()));
    };
    debug_assert!(floor <= end, "a floor is never above the end");
    let mut rows = connection.prepare_cached("SELECT hash FROM event WHERE stream = ?1 AND seq = ?2")?;
    let found: Option<Digest> = rows.query_row((id, upto.seq as i64), |row| row.get(0)).optional()?;
    if found == Some(upto.hash) {
        return Ok(Ok(()));
    }
    Ok(Err(StoreError::Conflict { what: stream.clone(), expected: upto.seq, actual: end as u64 }))
}

fn apply(connection: &Connection, Cut { stream, upto }: &Cut) -> rusqlite::Result<()> {
    let upto_seq = upto.seq as i64;
    let Some((id, end, floor)) = place(connection, stream)?.filter(|(.., floor)| *floor < upto_seq) else {
        return Ok(());
    };
    debug_assert!(floor <= upto_seq, "only what is above the floor is cut off");
    let execute = |text: &str, values: &[&dyn rusqlite::ToSql]| connection.prepare_cached(text)?.execute(values);
    execute("UPDATE stream SET floor = ?2, floor_hash = ?3 WHERE id = ?1", &[&id, &upto_seq, &&upto.hash[..]])?;
    if upto_seq == end {
        // Nobody can ask for a stream by such a name, nor append to it.
        execute("UPDATE stream SET name = 'gone ' || id WHERE id = ?1", &[&id])?;
        if let Some(run) = stream.strip_prefix("run/") {
            execute("DELETE FROM run WHERE run = ?1", &[&run])?;
        }
    }
    execute("INSERT OR IGNORE INTO wiping (stream) VALUES (?1)", &[&id])?;
    Ok(())
}

/// Wipes; 1 when there is more, else 0.
pub(super) fn wipe(connection: &Connection, portion: Portion) -> rusqlite::Result<u64> {
    let next = "SELECT id, seq, floor FROM wiping JOIN stream ON id = stream LIMIT 1";
    let next: Option<(i64, i64, i64)> =
        connection.prepare_cached(next)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let Some((id, end, floor)) = next else { return shrink(connection, portion) };
    let (upto, blobs) = chosen(connection, id, floor, portion)?;
    let execute = |text: &str, values: &[&dyn rusqlite::ToSql]| connection.prepare_cached(text)?.execute(values);
    if let Some(upto) = upto {
        execute("DELETE FROM event WHERE stream = ?1 AND seq <= ?2", &[&id, &upto])?;
    }
    for digest in blobs {
        execute(
            "DELETE FROM blob WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM event WHERE blob = ?1)",
            &[&&digest[..]],
        )?;
    }
    if upto.is_none_or(|upto| upto >= floor) {
        execute("DELETE FROM wiping WHERE stream = ?1", &[&id])?;
        if floor == end {
            execute("DELETE FROM stream WHERE id = ?1", &[&id])?;
        }
    }
    Ok(1)
}

/// The last record of a portion, and the blobs of its records.
fn chosen(
    connection: &Connection,
    stream: i64,
    floor: i64,
    portion: Portion,
) -> rusqlite::Result<(Option<i64>, Vec<Digest>)> {
    let mut rows = connection.prepare_cached(
        "SELECT seq, length(stored), event.blob, coalesce(length(bytes), 0) FROM event
         LEFT JOIN blob ON digest = event.blob
         WHERE stream = ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
    )?;
    let limit = i64::try_from(portion.records.max(1)).unwrap_or(i64::MAX);
    let mut rows = rows.query((stream, floor, limit))?;
    let (mut upto, mut blobs, mut bytes) = (None, Vec::new(), 0_usize);
    while let Some(row) = rows.next()? {
        let size = row.get::<_, i64>(1)?.saturating_add(row.get(3)?);
        bytes = bytes.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        if upto.is_some() && bytes > portion.bytes {
            break;
        }
        upto = Some(row.get(0)?);
        // One of another length was never ours, and stays.
        blobs.extend(row.get::<_, Option<Vec<u8>>>(2)?.and_then(|digest| Digest::try_from(digest).ok()));
    }
    Ok((upto, blobs))
}

/// What `PRAGMA auto_vacuum` says of a file that can give pages back a few at a time.
const INCREMENTAL: i64 = 2;

/// Gives some free pages at the end of the file back, where the file was begun so that it can.
fn shrink(connection: &Connection, portion: Portion) -> rusqlite::Result<u64> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    if number("auto_vacuum")? != INCREMENTAL {
        return Ok(0);
    }
    let pages = i64::try_from(portion.bytes).unwrap_or(i64::MAX) / number("page_size")?.max(1);
    let free = number("freelist_count")? - SPARE_PAGES;
    if free <= 0 {
        return Ok(0);
    }
    // Each row of the answer is a page that was given back.
    let text = format!("PRAGMA incremental_vacuum({})", pages.clamp(1, free));
    let mut given = connection.prepare(&text)?;
    let mut rows = given.query([])?;
    while rows.next()?.is_some() {}
    Ok(u64::from(free > pages))
}

//! The writing thread: takes every request that waits, writes them in one transaction, answers after its commit.
//!
//! It only checks conditions (number, cursor, epoch, key) and writes; it never looks inside an event.

use std::path::Path;

use fracas_model::id::{HostId, RunId};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{schema::explain, wipe};
use crate::{
    chain::Digest,
    store::{Batch, Commit, Cursor, Cut, Head, OUTBOXES_PER_HOST, Portion, RunIndex, StoreError},
};

/// Requests written in one transaction at most; bounds the wait of the first and the size of the log.
const GROUP: usize = 256;

/// What the writing thread can be asked.
#[derive(Debug)]
pub(super) enum Request {
    /// Write.
    Commit(Box<Commit>, oneshot::Sender<Result<(), StoreError>>),
    /// Raise the epoch by one, or for its owner above another.
    Epoch(Option<(u64, u64)>, oneshot::Sender<Result<u64, StoreError>>),
    /// Cut records off, as the owner of this epoch.
    Cut(u64, Vec<Cut>, oneshot::Sender<Result<(), StoreError>>),
    /// Wipe some of what was cut off.
    Wipe(Portion, oneshot::Sender<Result<bool, StoreError>>),
}

/// The refusals of a request, inside, and the failure of the whole transaction, outside.
type Group = Result<Vec<Result<u64, StoreError>>, StoreError>;

/// Serves until every sender is gone.
pub(super) fn run(mut connection: Connection, path: &Path, mut inbox: mpsc::Receiver<Request>) {
    let mut waiting = Vec::with_capacity(GROUP);
    while inbox.blocking_recv_many(&mut waiting, GROUP) > 0 {
        // Wiping comes last and by itself: nobody who appends waits for it if it can be helped.
        let wipes: Vec<Request> = waiting.extract_if(.., |request| matches!(request, Request::Wipe(..))).collect();
        let outcome = write(&mut connection, path, &waiting);
        let several = waiting.len() > 1;
        match outcome {
            Ok(results) => {
                for (request, result) in waiting.drain(..).zip(results) {
                    request.answer(result);
                }
            }
            // One request may be what does not fit: the others must not suffer.
            Err(_) if several => {
                for request in waiting.drain(..) {
                    let alone = write(&mut connection, path, std::slice::from_ref(&request));
                    request.answer(alone.and_then(|mut results| results.remove(0)));
                }
            }
            Err(failure) => waiting.drain(..).for_each(|request| request.answer(Err(failure.clone()))),
        }
        for request in wipes {
            let outcome = write(&mut connection, path, std::slice::from_ref(&request));
            request.answer(outcome.and_then(|mut results| results.remove(0)));
        }
    }
}

impl Request {
    /// Nobody may be waiting any more; that is their business.
    fn answer(self, result: Result<u64, StoreError>) {
        match self {
            Self::Commit(_, reply) | Self::Cut(_, _, reply) => drop(reply.send(result.map(|_| ()))),
            Self::Epoch(_, reply) => drop(reply.send(result)),
            Self::Wipe(_, reply) => drop(reply.send(result.map(|more| more > 0))),
        }
    }
}

fn write(connection: &mut Connection, path: &Path, requests: &[Request]) -> Group {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let failure = |e: rusqlite::Error| explain(path, &e);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failure)?;
    let mut results = Vec::with_capacity(requests.len());
    for request in requests {
        results.push(match request {
            Request::Commit(commit, _) => match check(&transaction, commit).map_err(failure)? {
                Ok(()) => apply(&transaction, commit).map(|()| Ok(0)).map_err(failure)?,
                Err(refusal) => Err(refusal),
            },
            Request::Cut(epoch, cuts, _) => wipe::cut(&transaction, *epoch, cuts).map_err(failure)?,
            Request::Wipe(portion, _) => wipe::wipe(&transaction, *portion).map(Ok).map_err(failure)?,
            Request::Epoch(raise, _) => {
                let owner = epoch(&transaction).map_err(failure)?;
                match raise {
                    Some((ours, _)) if *ours < owner => Err(StoreError::Fenced { ours: *ours, owner }),
                    _ => {
                        let next = raise.map_or(owner, |(_, above)| owner.max(above)) + 1;
                        transaction.execute("UPDATE owner SET epoch = ?1", [next as i64]).map_err(failure)?;
                        Ok(next)
                    }
                }
            }
        });
    }
    // Dropped without this, for any reason above, the transaction is rolled back.
    transaction.commit().map_err(failure)?;
    Ok(results)
}

fn check(connection: &Connection, commit: &Commit) -> rusqlite::Result<Result<(), StoreError>> {
    let owner = epoch(connection)?;
    if commit.epoch < owner {
        return Ok(Err(StoreError::Fenced { ours: commit.epoch, owner }));
    }
    for Batch { stream, expected_seq, .. } in &commit.batches {
        let actual = head(connection, stream)?.seq;
        if actual != *expected_seq {
            return Ok(Err(StoreError::Conflict { what: stream.clone(), expected: *expected_seq, actual }));
        }
    }
    if let Some(Cursor { host, outbox, expected, .. }) = &commit.cursor {
        let actual = cursor(connection, host, outbox)?;
        if actual != *expected {
            let what = format!("cursor {host}/{outbox}");
            return Ok(Err(StoreError::Conflict { what, expected: *expected, actual }));
        }
    }
    if let Some((key, _)) = &commit.idempotency
        && let Some(run) = idempotency(connection, key)?
    {
        return Ok(Err(StoreError::KeyTaken { key: key.clone(), run }));
    }
    Ok(Ok(()))
}

fn apply(connection: &Connection, commit: &Commit) -> rusqlite::Result<()> {
    let execute = |text: &str, values: &[&dyn rusqlite::ToSql]| connection.prepare_cached(text)?.execute(values);
    execute("UPDATE owner SET epoch = ?1 WHERE epoch < ?1", &[&(commit.epoch as i64)])?;
    for batch in &commit.batches {
        append(connection, batch)?;
    }
    if let Some(Cursor { host, outbox, seq, .. }) = &commit.cursor {
        execute(
            "INSERT INTO cursor (host, outbox, seq) VALUES (?1, ?2, ?3)
             ON CONFLICT (host, outbox) DO UPDATE SET seq = excluded.seq",
            &[&host.as_str(), outbox, &(*seq as i64)],
        )?;
        execute(
            "DELETE FROM cursor WHERE host = ?1 AND id NOT IN
             (SELECT id FROM cursor WHERE host = ?1 ORDER BY id DESC LIMIT ?2)",
            &[&host.as_str(), &(OUTBOXES_PER_HOST as i64)],
        )?;
    }
    if let Some(row) = &commit.index {
        put_run(connection, row)?;
    }
    if let Some((key, run)) = &commit.idempotency {
        execute("INSERT INTO idempotency (key, run) VALUES (?1, ?2)", &[key, &run.as_str()])?;
    }
    Ok(())
}

fn append(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    let Some(last) = batch.events.last() else { return Ok(()) };
    let end = batch.expected_seq + batch.events.len() as u64;
    let stream: i64 = connection
        .prepare_cached(
            "INSERT INTO stream (name, seq, hash) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET seq = excluded.seq, hash = excluded.hash RETURNING id",
        )?
        .query_row((&batch.stream, end as i64, &last.hash[..]), |row| row.get(0))?;
    let mut insert =
        connection.prepare_cached("INSERT INTO event (stream, seq, stored, hash, blob) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (seq, event) in (batch.expected_seq + 1..).zip(&batch.events) {
        let blob = event.blob.as_ref().map(|(digest, _)| &digest[..]);
        insert.execute((stream, seq as i64, &event.stored, &event.hash[..], blob))?;
        if let Some((digest, bytes)) = &event.blob {
            connection
                .prepare_cached("INSERT OR IGNORE INTO blob (digest, bytes) VALUES (?1, ?2)")?
                .execute((&digest[..], bytes))?;
        }
    }
    Ok(())
}

fn put_run(connection: &Connection, row: &RunIndex) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            // An update keeps the row, and so its place in the order of insertion.
            "INSERT INTO run (run, name, state, verdict, exit_code, reason, started_wall_ns,
             ended_wall_ns, requester, environment) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (run) DO UPDATE SET name = excluded.name, state = excluded.state, verdict = excluded.verdict,
             exit_code = excluded.exit_code, reason = excluded.reason, started_wall_ns = excluded.started_wall_ns,
             ended_wall_ns = excluded.ended_wall_ns, requester = excluded.requester,
             environment = excluded.environment",
        )?
        .execute((
            row.run.as_str(),
            &row.name,
            &row.state,
            &row.verdict,
            row.exit_code,
            &row.reason,
            row.started_wall_ns,
            row.ended_wall_ns,
            &row.by,
            &row.environment,
        ))?;
    Ok(())
}

/// The epoch that owns the file.
pub(super) fn epoch(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT epoch FROM owner")?.query_row([], |row| Ok(row.get::<_, i64>(0)? as u64))
}

/// The end of a stream.
pub(super) fn head(connection: &Connection, stream: &str) -> rusqlite::Result<Head> {
    let mut rows = connection.prepare_cached("SELECT seq, hash FROM stream WHERE name = ?1")?;
    let found = rows.query_row([stream], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Digest>(1)?))).optional()?;
    Ok(found.map_or_else(|| Head::genesis(stream), |(seq, hash)| Head { seq: seq as u64, hash }))
}

/// How far an outbox has been taken.
pub(super) fn cursor(connection: &Connection, host: &HostId, outbox: &str) -> rusqlite::Result<u64> {
    let mut rows = connection.prepare_cached("SELECT seq FROM cursor WHERE host = ?1 AND outbox = ?2")?;
    let found = rows.query_row((host.as_str(), outbox), |row| row.get::<_, i64>(0)).optional()?;
    Ok(found.unwrap_or(0) as u64)
}

/// The run a key stands for.
pub(super) fn idempotency(connection: &Connection, key: &str) -> rusqlite::Result<Option<RunId>> {
    let mut rows = connection.prepare_cached("SELECT run FROM idempotency WHERE key = ?1")?;
    rows.query_row([key], |row| Ok(RunId::new(row.get::<_, String>(0)?))).optional()
}

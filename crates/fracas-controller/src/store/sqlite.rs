//! The store on disk: SQLite with one thread that writes, in groups, and one that reads.
//!
//! An async caller never touches the file: it sends a request to a thread and awaits the answer.
//!
//! ```text
//! commit, epochs     --> writer thread: take all that wait, BEGIN IMMEDIATE .. COMMIT (one fsync), answer each
//! read, head, ...    --> reader thread: a second, read-only connection; WAL lets it read while the other writes
//! ```

mod schema;
mod wipe;
mod write;

use std::{
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use fracas_model::id::{HostId, RunId};
use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::{mpsc, oneshot};

use self::write::Request;
use super::{Answer, Commit, Cut, Head, Listed, PREFIX_ROWS, Portion, RunIndex, Store, StoreError, Stored};
use crate::chain::Digest;

/// Requests that may wait for each thread before callers wait too.
const WAITING: usize = 1024;

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    // Dropped in this order. The connection that closes last tidies up, which only the writing one can: after an orderly
    // end the file is whole without its log, and a copy of it is a backup.
    reader: Hand<Job>,
    /// None: opened to read only.
    writer: Option<Hand<Request>>,
    path: PathBuf,
}

/// A thread that works as long as it may be asked. Dropping waits for it, so that the file is closed before the data
/// directory is unlocked.
struct Hand<T> {
    ask: Option<mpsc::Sender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Hand<T> {
    fn start(name: &str, work: impl FnOnce(mpsc::Receiver<T>) + Send + 'static) -> std::io::Result<Self> {
        let (ask, asked) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(asked))?;
        Ok(Self { ask: Some(ask), thread: Some(thread) })
    }

    async fn ask(&self, request: T) -> Result<(), StoreError> {
        let ask = self.ask.as_ref().ok_or(StoreError::Closed)?;
        ask.send(request).await.map_err(|_| StoreError::Closed)
    }
}

impl<T> std::fmt::Debug for Hand<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hand").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl<T> Drop for Hand<T> {
    fn drop(&mut self) {
        self.ask.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl SqliteStore {
    /// Opens the history at `path`, or begins one (mode 0600) when there is no file. Blocks while it checks the file
    /// and brings an older schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Foreign`], [`StoreError::Newer`], [`StoreError::Full`] or
    /// [`StoreError::Failed`], each with the way out in its text.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let writing = schema::open(path)?;
        let reading = schema::open_reader(path)?;
        let failed = |e: std::io::Error| StoreError::Failed { path: path.to_owned(), detail: e.to_string() };
        let owner = path.to_owned();
        let writer =
            Hand::start("history-write", move |requests| write::run(writing, &owner, requests)).map_err(failed)?;
        let reader = read(reading).map_err(failed)?;
        Ok(Self { reader, writer: Some(writer), path: path.to_owned() })
    }

    /// Opens the history at `path`, which no controller uses, to read it and to change nothing of it.
    ///
    /// # Errors
    /// As [`open`](Self::open); no file is an error too. Whatever would write fails.
    pub fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let failed = |e: std::io::Error| StoreError::Failed { path: path.to_owned(), detail: e.to_string() };
        let reader = read(schema::open_to_read(path)?).map_err(failed)?;
        Ok(Self { reader, writer: None, path: path.to_owned() })
    }

    /// The epoch that owns the file.
    pub async fn epoch(&self) -> Result<u64, StoreError> {
        self.ask(write::epoch).await
    }

    /// Sends a question to the reading thread.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<'_, T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody may be waiting any more.
            let _ = reply.send(question(connection));
        });
        Box::pin(async move {
            self.reader.ask(job).await?;
            answer.await.map_err(|_| StoreError::Closed)?.map_err(|e| schema::explain(&self.path, &e))
        })
    }

    /// Sends a request to the writing thread.
    fn tell<'a, T: Send + 'static>(
        &'a self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let Some(writer) = &self.writer else {
                let detail = "it was opened to read only".to_owned();
                return Err(StoreError::Failed { path: self.path.clone(), detail });
            };
            writer.ask(request(reply)).await?;
            answer.await.map_err(|_| StoreError::Closed)?
        })
    }
}

/// The thread that answers questions.
fn read(connection: Connection) -> std::io::Result<Hand<Job>> {
    Hand::start("history-read", move |mut jobs: mpsc::Receiver<Job>| {
        while let Some(job) = jobs.blocking_recv() {
            job(&connection);
        }
    })
}

const RUN_COLUMNS: &str = "run, run.name, state, verdict, exit_code, reason, started_wall_ns, ended_wall_ns, \
     requester, environment, coalesce((SELECT seq FROM stream WHERE stream.name = 'run/' || run), 0)";

fn run_row(row: &Row<'_>) -> rusqlite::Result<(RunIndex, u64)> {
    let index = RunIndex {
        run: RunId::new(row.get::<_, String>(0)?),
        name: row.get(1)?,
        state: row.get(2)?,
        verdict: row.get(3)?,
        exit_code: row.get(4)?,
        reason: row.get(5)?,
        started_wall_ns: row.get(6)?,
        ended_wall_ns: row.get(7)?,
        by: row.get(8)?,
        environment: row.get(9)?,
    };
    Ok((index, row.get::<_, i64>(10)? as u64))
}

fn listed_row(row: &Row<'_>) -> rusqlite::Result<Listed> {
    let stream: String = row.get(0)?;
    let head = Head { seq: row.get::<_, i64>(1)? as u64, hash: row.get(2)? };
    let base = match row.get::<_, Option<Digest>>(4)? {
        Some(hash) => Head { seq: row.get::<_, i64>(3)? as u64, hash },
        None => Head::genesis(&stream),
    };
    Ok(Listed { stream, base, head })
}

/// Smallest text above every text that begins with `prefix` (but those that go on with the last code point).
fn after_prefix(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}

impl Store for SqliteStore {
    fn commit(&self, commit: Commit) -> Answer<'_, ()> {
        self.tell(move |reply| Request::Commit(Box::new(commit), reply))
    }

    fn next_epoch(&self) -> Answer<'_, u64> {
        self.tell(|reply| Request::Epoch(None, reply))
    }

    fn raise_epoch(&self, ours: u64, above: u64) -> Answer<'_, u64> {
        self.tell(move |reply| Request::Epoch(Some((ours, above)), reply))
    }

    fn cut(&self, epoch: u64, cuts: Vec<Cut>) -> Answer<'_, ()> {
        self.tell(move |reply| Request::Cut(epoch, cuts, reply))
    }

    fn wipe(&self, portion: Portion) -> Answer<'_, bool> {
        self.tell(move |reply| Request::Wipe(portion, reply))
    }

    fn copy_to<'a>(&'a self, path: &'a Path) -> Answer<'a, ()> {
        let (from, to, reading) = (self.path.clone(), path.to_owned(), self.writer.is_none());
        let (reply, answer) = oneshot::channel();
        // On a thread and a connection of its own: it takes long, and nobody must wait for it.
        let started = std::thread::Builder::new().name("history-copy".to_owned()).spawn(move || {
            let opened = if reading { schema::open_to_read(&from) } else { schema::open_reader(&from) };
            let copied = opened.and_then(|connection| schema::copy(&connection, &to));
            if copied.is_err() {
                // It may not even have been made.
                let _ = std::fs::remove_file(&to);
            }
            let _ = reply.send(copied);
        });
        Box::pin(async move {
            started.map_err(|e| StoreError::Failed { path: self.path.clone(), detail: e.to_string() })?;
            answer.await.map_err(|_| StoreError::Closed)?
        })
    }

    fn read<'a>(&'a self, stream: &'a str, after: u64, limit: usize) -> Answer<'a, Vec<Stored>> {
        let stream = stream.to_owned();
        self.ask(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT event.seq, stored, event.hash FROM event JOIN stream ON stream.id = event.stream
                 WHERE name = ?1 AND event.seq > max(?2, floor) ORDER BY event.seq LIMIT ?3",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            rows.query_map((stream, after, limit), |row| {
                Ok(Stored { seq: row.get::<_, i64>(0)? as u64, stored: row.get(1)?, hash: row.get(2)? })
            })?
            .collect()
        })
    }

    fn head<'a>(&'a self, stream: &'a str) -> Answer<'a, Head> {
        let stream = stream.to_owned();
        self.ask(move |connection| write::head(connection, &stream))
    }

    fn streams<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<String>> {
        let range = (prefix.to_owned(), after_prefix(prefix));
        self.ask(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT name FROM stream WHERE name >= ?1 AND name < ?2 AND floor < seq ORDER BY name",
            )?;
            rows.query_map(range, |row| row.get(0))?.collect()
        })
    }

    fn listed<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Listed>> {
        let range = (prefix.to_owned(), after_prefix(prefix));
        self.ask(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT name, seq, hash, floor, floor_hash FROM stream
                 WHERE name >= ?1 AND name < ?2 AND floor < seq ORDER BY name",
            )?;
            rows.query_map(range, listed_row)?.collect()
        })
    }

    fn blob(&self, digest: Digest) -> Answer<'_, Option<Vec<u8>>> {
        self.ask(move |connection| find_blob(connection, &digest))
    }

    fn blobs(&self, digests: Vec<Digest>) -> Answer<'_, Vec<Option<Vec<u8>>>> {
        self.ask(move |connection| digests.iter().map(|digest| find_blob(connection, digest)).collect())
    }

    fn cursor<'a>(&'a self, host: &'a HostId, outbox: &'a str) -> Answer<'a, u64> {
        let (host, outbox) = (host.clone(), outbox.to_owned());
        self.ask(move |connection| write::cursor(connection, &host, &outbox))
    }

    fn runs(&self, limit: usize) -> Answer<'_, Vec<(RunIndex, u64)>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.ask(move |connection| {
            let text = format!("SELECT {RUN_COLUMNS} FROM run ORDER BY rowid DESC LIMIT ?1");
            connection.prepare_cached(&text)?.query_map([limit], run_row)?.collect()
        })
    }

    fn runs_in(&self, environments: Vec<String>, limit: usize) -> Answer<'_, Vec<(RunIndex, u64)>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.ask(move |connection| {
            let wanted = serde_json::to_string(&environments).expect("texts");
            let text = format!(
                "SELECT {RUN_COLUMNS} FROM run WHERE environment IN (SELECT value FROM json_each(?1)) \
                 ORDER BY rowid DESC LIMIT ?2"
            );
            connection.prepare_cached(&text)?.query_map((wanted, limit), run_row)?.collect()
        })
    }

    fn run_prefix<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<(RunIndex, u64)>> {
        let range = (prefix.to_owned(), after_prefix(prefix), PREFIX_ROWS as i64);
        self.ask(move |connection| {
            let text = format!("SELECT {RUN_COLUMNS} FROM run WHERE run >= ?1 AND run < ?2 ORDER BY run LIMIT ?3");
            connection.prepare_cached(&text)?.query_map(range, run_row)?.collect()
        })
    }

    fn idempotency<'a>(&'a self, key: &'a str) -> Answer<'a, Option<RunId>> {
        let key = key.to_owned();
        self.ask(move |connection| write::idempotency(connection, &key))
    }
}

fn find_blob(connection: &Connection, digest: &Digest) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut rows = connection.prepare_cached("SELECT bytes FROM blob WHERE digest = ?1")?;
    rows.query_row([&digest[..]], |row| row.get(0)).optional()
}

#[cfg(test)]
mod tests;

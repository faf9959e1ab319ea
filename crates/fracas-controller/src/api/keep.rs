//! The record on the wire: streams and records for whoever proves them, prunes, and backups in pieces.

use std::{
    io::{self, Write},
    pin::Pin,
};

use fracas_model::{
    access::{self, Right},
    chain::digest_from_hex,
    event::{Body, Event},
    units::Dur,
};
use fracas_proto::{
    to_json,
    v1::{
        BackupPiece, BackupRequest, GetHeadsReply, GetHeadsRequest, KeptStream, ListStreamsRequest, PruneReply,
        PruneRequest, ReadRecordsRequest, Record,
    },
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tonic::{Response, Status};

use super::{Act, Api, Reply, carried_through, reasoned, status};
use crate::{
    access::Principal,
    history::{History, HistoryError},
    keep::{Asked, BackupError, Keeper, PruneError, Rules},
    store::{Listed, Stored},
};

/// An answer in many messages.
pub(super) type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Records read at once; with what is beside them they are a few.
const PAGE: (usize, usize) = (256, 16);
/// Bytes of a piece of a backup.
const PIECE: usize = 64 << 10;
/// Pieces that may wait for the network.
const PIECES: usize = 8;
/// Most signed heads in one answer.
const HEADS: u32 = 10_000;

impl Api {
    fn keeper(&self) -> Result<&Keeper, Status> {
        self.keeper.as_deref().ok_or_else(|| Status::failed_precondition("this controller keeps nothing on a disk"))
    }

    /// Whether the caller may read what is kept of everybody. A proof asks once for each stream, so it counts as looking.
    pub(super) async fn proves(&self, by: &Principal, method: &'static str) -> Result<(), Status> {
        let needs = &[Right::Govern];
        self.sees(by, Act { method, needs, environment: access::EVERYWHERE, about: "" }).await
    }

    pub(super) async fn streams(&self, wire: ListStreamsRequest) -> Reply<Streamed<KeptStream>> {
        let listed = self.history.store().listed(&wire.prefix).await.map_err(|e| status(&e.into()))?;
        Ok(Response::new(stream::iter(listed.into_iter().map(kept).map(Ok)).boxed()))
    }

    pub(super) async fn records(&self, wire: ReadRecordsRequest) -> Reply<Streamed<Record>> {
        let history = self.history.clone();
        let end = history.store().head(&wire.stream).await.map_err(|e| status(&e.into()))?.seq;
        let pages = stream::unfold(Some(wire.after), move |after| {
            let (history, stream) = (history.clone(), wire.stream.clone());
            async move {
                let after = after.filter(|after| *after < end)?;
                match page(&history, &stream, after, end, wire.beside).await {
                    // Pruned meanwhile.
                    Ok(records) if records.is_empty() => None,
                    Ok(records) => {
                        let last = records.last().map(|record| record.seq);
                        Some((records.into_iter().map(Ok).collect::<Vec<_>>(), last))
                    }
                    Err(error) => Some((vec![Err(status(&error))], None)),
                }
            }
        });
        Ok(Response::new(pages.flat_map(stream::iter).boxed()))
    }

    pub(super) fn heads(&self, wire: GetHeadsRequest) -> Reply<GetHeadsReply> {
        let keeper = self.keeper()?;
        let heads = keeper.heads(wire.limit.clamp(1, HEADS) as usize);
        let heads = heads.map_err(|e| Status::unavailable(e.to_string()))?;
        let public_key = keeper.public_key().to_vec();
        Ok(Response::new(GetHeadsReply { heads_json: heads.iter().map(to_json).collect(), public_key }))
    }

    pub(super) async fn pruned(&self, wire: PruneRequest, by: Principal) -> Reply<PruneReply> {
        if wire.older_than_ns < 0 {
            return Err(Status::invalid_argument("an age cannot be below zero"));
        }
        let reason = if wire.dry_run { wire.reason } else { reasoned(wire.reason)? };
        let rules = Rules { older_than: Dur::from_ns(wire.older_than_ns), keep_last: wire.keep_last };
        let asked = Asked { rules, by: by.id, reason, dry_run: wire.dry_run };
        self.keeper()?;
        let keeper = self.keeper.clone().expect("there is one");
        carried_through(async move {
            let pruned = keeper.prune(&asked).await.map_err(|e| not_pruned(&e))?;
            let stay = pruned.stay.into_iter().map(|(why, runs)| (why.words().to_owned(), runs));
            Ok(Response::new(PruneReply {
                runs: pruned.runs.iter().map(ToString::to_string).collect(),
                schedules: pruned.schedules,
                records: pruned.records,
                stay: stay.collect(),
            }))
        })
        .await
    }

    pub(super) async fn backed_up(&self, wire: &BackupRequest, by: &Principal) -> Reply<Streamed<BackupPiece>> {
        let ready = self.keeper()?.backup(&by.id, !wire.without_keys).await.map_err(|e| no_backup(&e))?;
        let (send, receive) = mpsc::channel(PIECES);
        // It reads and sends at the pace of whoever takes it, and ends when nobody does.
        tokio::task::spawn_blocking(move || {
            let mut pieces = io::BufWriter::with_capacity(PIECE, Pieces(send.clone()));
            let written = ready.write(&mut pieces).and_then(|()| pieces.flush());
            if let Err(error) = written {
                let _ = send.blocking_send(Err(Status::unavailable(format!("the backup broke off: {error}"))));
            }
        });
        let pieces = stream::unfold(receive, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
        Ok(Response::new(pieces.boxed()))
    }
}

/// Sends what is written as pieces.
struct Pieces(mpsc::Sender<Result<BackupPiece, Status>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = BackupPiece { bytes: bytes.to_vec() };
        self.0.blocking_send(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn kept(Listed { stream, base, head }: Listed) -> KeptStream {
    let (seq, hash) = (head.seq, head.hash.to_vec());
    KeptStream { stream, seq, hash, base_seq: base.seq, base_hash: base.hash.to_vec() }
}

/// Some records after a number, not beyond `end`.
async fn page(
    history: &History,
    stream: &str,
    after: u64,
    end: u64,
    beside: bool,
) -> Result<Vec<Record>, HistoryError> {
    let most = usize::try_from(end - after).unwrap_or(usize::MAX);
    let stored = history.read_stored(stream, after, most.min(if beside { PAGE.1 } else { PAGE.0 })).await?;
    let digests: Vec<_> = stored.iter().map(|record| beside.then(|| digest(record)).flatten()).collect();
    let mut blobs = history.store().blobs(digests.iter().flatten().copied().collect()).await?.into_iter();
    let records = stored.into_iter().zip(digests).map(|(Stored { seq, stored, hash }, digest)| {
        let beside = digest.and_then(|_| blobs.next().flatten());
        Record { seq, stored, hash: hash.to_vec(), beside }
    });
    Ok(records.collect())
}

/// The digest of what is kept beside a record.
fn digest(record: &Stored) -> Option<fracas_model::chain::Digest> {
    match serde_json::from_slice::<Event>(&record.stored).ok()?.body {
        Body::ReadingsSealed { digest, .. } | Body::ReportSealed { digest, .. } => digest_from_hex(&digest),
        _ => None,
    }
}

fn not_pruned(error: &PruneError) -> Status {
    match error {
        PruneError::Busy => Status::failed_precondition(error.to_string()),
        PruneError::History(error) => status(error),
        PruneError::Vouch(_) => Status::unavailable(error.to_string()),
    }
}

fn no_backup(error: &BackupError) -> Status {
    let text = error.to_string();
    match error {
        BackupError::Busy | BackupError::Nothing(_) => Status::failed_precondition(text),
        BackupError::Room { .. } => Status::resource_exhausted(text),
        BackupError::History(error) => status(error),
        _ => Status::unavailable(text),
    }
}

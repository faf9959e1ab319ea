//! Calls about the record itself: streams and records as they are kept, signed heads, prunes, backups.

use std::collections::BTreeMap;

use fracas_model::{
    chain::{Digest, Head, Stored},
    evidence::SignedHead,
    id::RunId,
    units::Dur,
};
use fracas_proto::v1;
use futures_util::{StreamExt as _, stream::BoxStream};
use serde::Serialize;

use super::{Client, ClientError};

/// A stream as the controller says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptStream {
    /// Its name.
    pub stream: String,
    /// What its first kept record follows.
    pub base: Head,
    /// Its end.
    pub head: Head,
}

/// A record, and what is kept beside it where that was asked for.
pub type KeptRecord = (Stored, Option<Vec<u8>>);

/// What goes, or would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneAnswer {
    /// Runs.
    pub runs: Vec<RunId>,
    /// Schedules of which the oldest facts do.
    pub schedules: Vec<String>,
    /// Records of both.
    pub records: u64,
    /// Why runs stay, in words, and how many.
    pub stay: BTreeMap<String, u64>,
}

/// What is asked of a prune.
#[derive(Clone, Debug)]
pub struct PruneOrder {
    /// What ended longer ago goes.
    pub older_than: Dur,
    /// But not so many runs, the newest.
    pub keep_last: u64,
    /// Only say what would go.
    pub dry_run: bool,
    /// Why, for the history.
    pub reason: String,
}

impl Client {
    /// Streams whose names begin so, in the order of their names.
    pub async fn streams(&self, prefix: &str) -> Result<Vec<KeptStream>, ClientError> {
        let request = v1::ListStreamsRequest { prefix: prefix.to_owned() };
        let mut listed = self.calls.clone().list_streams(request).await.map_err(|e| self.error(&e))?.into_inner();
        let mut streams = Vec::new();
        while let Some(one) = listed.message().await.map_err(|e| self.error(&e))? {
            let base = Head { seq: one.base_seq, hash: self.digest(&one.base_hash)? };
            let head = Head { seq: one.seq, hash: self.digest(&one.hash)? };
            streams.push(KeptStream { stream: one.stream, base, head });
        }
        Ok(streams)
    }

    /// Records of a stream after a number, to the end it has now; with what is beside them if asked.
    pub async fn records(
        &self,
        stream: &str,
        after: u64,
        beside: bool,
    ) -> Result<BoxStream<'static, Result<KeptRecord, ClientError>>, ClientError> {
        let request = v1::ReadRecordsRequest { stream: stream.to_owned(), after, beside };
        let records = self.calls.clone().read_records(request).await.map_err(|e| self.error(&e))?.into_inner();
        let client = self.clone();
        let record = move |record: Result<v1::Record, tonic::Status>| {
            let record = record.map_err(|status| client.error(&status))?;
            let hash = client.digest(&record.hash)?;
            Ok((Stored { seq: record.seq, stored: record.stored, hash }, record.beside))
        };
        Ok(records.map(record).boxed())
    }

    /// The newest signed heads, newest last, and the key that signed them.
    pub async fn heads(&self, limit: u32) -> Result<(Vec<SignedHead>, Vec<u8>), ClientError> {
        let reply = self.calls.clone().get_heads(v1::GetHeadsRequest { limit }).await.map_err(|e| self.error(&e))?;
        let reply = reply.into_inner();
        let heads: Result<Vec<SignedHead>, _> =
            reply.heads_json.iter().map(|text| self.decode("a signed head", text.as_bytes())).collect();
        Ok((heads?, reply.public_key))
    }

    /// Removes what is old for good, or says what that would be.
    pub async fn prune(&self, what: &PruneOrder) -> Result<PruneAnswer, ClientError> {
        let PruneOrder { older_than, keep_last, dry_run, reason } = what.clone();
        let request = v1::PruneRequest { older_than_ns: older_than.ns(), keep_last, dry_run, reason };
        let reply = self.calls.clone().prune(request).await.map_err(|e| self.error(&e))?.into_inner();
        Ok(PruneAnswer {
            runs: reply.runs.into_iter().map(RunId::new).collect(),
            schedules: reply.schedules,
            records: reply.records,
            stay: reply.stay.into_iter().collect(),
        })
    }

    /// Everything of the controller as one archive, in pieces.
    pub async fn backup(
        &self,
        without_keys: bool,
    ) -> Result<BoxStream<'static, Result<Vec<u8>, ClientError>>, ClientError> {
        let request = v1::BackupRequest { without_keys };
        let pieces = self.calls.clone().backup(request).await.map_err(|e| self.error(&e))?.into_inner();
        let client = self.clone();
        Ok(pieces.map(move |piece| piece.map(|piece| piece.bytes).map_err(|status| client.error(&status))).boxed())
    }

    fn digest(&self, bytes: &[u8]) -> Result<Digest, ClientError> {
        let skew = || ClientError::Skew { address: self.address.clone(), why: "a hash has not 32 bytes".to_owned() };
        bytes.try_into().map_err(|_| skew())
    }
}

//! Walks a controller's whole history after the controller has ended, as an auditor would.

use std::path::Path;

use fracas_controller::{
    datadir::DataDir,
    identity::Identity,
    server::STORE_FILE,
    store::sqlite::SqliteStore,
    verify::{kept_heads, verify as walk},
};
use serde_json::json;

use super::say;

/// The part `verify`: says what is wrong with the history in this data directory; an empty list when nothing is.
pub(super) fn verify(dir: &str) {
    let dir = DataDir::open(Path::new(dir)).expect("data directory");
    let wall = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec * 1_000_000_000;
    let identity = Identity::open(&dir, &[], wall).expect("identity");
    let store = SqliteStore::open(&dir.join(STORE_FILE)).expect("store");
    let heads = kept_heads(&dir).expect("signed heads");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let found = runtime.block_on(walk(&store, &heads, identity.audit_public())).expect("walked");
    let broken =
        found.streams.iter().filter_map(|s| s.broken.as_ref().map(|(seq, why)| format!("{} {seq}: {why}", s.stream)));
    let blobs =
        found.streams.iter().flat_map(|s| s.blobs.iter().map(move |(seq, why)| format!("{} {seq}: {why}", s.stream)));
    let wrong: Vec<String> = found.general.iter().cloned().chain(broken).chain(blobs).collect();
    let records: u64 = found.streams.iter().map(|s| s.records).sum();
    say(&json!({ "wrong": wrong, "records": records, "signed": heads.len() }));
}

//! Notices on their way to real receivers on this machine: what arrives, how often, in which order, and what becomes of it
//! when receivers are away, slow or hostile, and when the controller ends in the middle.

mod http;
mod mail;
mod receiver;
mod whole;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use fracas_model::{
    event::{Body, Event},
    notice::Fact,
    time::{ClockId, Stamp},
    units::Dur,
};

use super::*;
use crate::{
    clock::{Clock, ManualClock, SystemClock},
    store::memory::MemoryStore,
};

/// Longest that anything here may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Tries follow each other at once.
const QUICK: Pace = Pace { first: Duration::from_millis(1), most: Duration::from_millis(20) };
const CONTROLLER: &str = "5f0c2f8e-0000-4000-8000-000000000001";

/// 2026-11-24T02:45:00Z.
fn stamp() -> Stamp {
    let clock = ClockId { host: CONTROLLER.into(), boot: "b".into() };
    Stamp { clock, boot_ns: 0, wall_ns: 1_795_488_300_000_000_000, bound_ns: -1 }
}

/// A history whose clock stands still, its store, and the clock.
async fn history() -> (History, MemoryStore, Arc<ManualClock>) {
    let (store, clock) = (MemoryStore::new(), Arc::new(ManualClock::new(stamp())));
    (again(&store, &clock).await, store, clock)
}

/// The next controller's history over the same store.
async fn again(store: &MemoryStore, clock: &Arc<ManualClock>) -> History {
    History::open(Arc::new(store.clone()), Arc::clone(clock) as Arc<dyn Clock>).await.unwrap()
}

/// Channels from a list as it stands in a configuration.
fn channels(list: &str) -> Vec<Channel> {
    let text = format!("apiVersion: fracas/v1\nkind: ControllerConfig\nnotifications:\n{list}");
    crate::config::read_file("c.yaml", &text).unwrap().notifications
}

async fn begin(history: &History, list: &str) -> Notices {
    let notices = Notices::at(history, &CONTROLLER.into(), channels(list), QUICK);
    // From here on what is recorded is told, also to channels that are new.
    within(heard(&notices)).await;
    notices
}

/// Waits until everything recorded so far is with the lanes.
async fn heard(notices: &Notices) {
    let (answer, answered) = oneshot::channel();
    notices.0.asks.send(Ask::Heard(answer)).map_err(drop).expect("it listens");
    answered.await.expect("it answers");
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("in time")
}

async fn quarantine(history: &History, host: &str) {
    let body = Body::HostQuarantined { run: "r1".into(), at: history.now() };
    history.append(&format!("host/{host}"), vec![body]).await.unwrap();
}

async fn release(history: &History, host: &str) {
    let body = Body::HostReleased { why: "it reported that it is clean".into(), at: history.now() };
    history.append(&format!("host/{host}"), vec![body]).await.unwrap();
}

async fn halt(history: &History, reason: &str) {
    let body = Body::Halted { by: "admin".into(), reason: reason.into(), at: history.now() };
    history.append("audit/c", vec![body]).await.unwrap();
}

/// What became of a channel's notices, in order: the notice, how often it was tried, and why it was given up.
async fn became(history: &History, channel: &str) -> Vec<(String, u32, Option<String>)> {
    let events = history.read(&format!("notify/{channel}"), 0).await.unwrap();
    let fact = |event: Event| match event.body {
        Body::Notice { fact: Fact::Sent { notice, attempts, .. }, .. } => Some((notice, attempts, None)),
        Body::Notice { fact: Fact::GaveUp { notice, attempts, why, .. }, .. } => Some((notice, attempts, Some(why))),
        _ => None,
    };
    events.into_iter().filter_map(fact).collect()
}

/// A file that holds a secret.
fn secret(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, format!("{text}\n")).unwrap();
    path.display().to_string()
}

//! What goes up one connection: facts from the outbox in order and in limited flight, and how the clocks compare.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use fracas_model::{
    event::Body,
    id::RunId,
    time::{ClockId, ClockMap, Stamp},
};
use fracas_proto::v1::{AgentMessage, Grant, Report, ReportedEvent, TakenDesired, agent_message::Message as Up};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Broken, Shared,
    offset::{Exchange, Offset, narrower},
};
use crate::{
    crash::{self, Task},
    disk::Disk,
};

/// Size of one report.
const REPORT_BYTES: usize = 256 * 1024;
/// Reports that may be on their way unacknowledged: enough to fill a long line, little enough to hold in memory.
const IN_FLIGHT: u32 = 4;
/// Pause before facts are sent again that the controller did not acknowledge, or the disk did not give.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a run is told of the clocks when nothing has changed.
const CLOCK_EVERY_NS: i64 = 10_000_000_000;

/// One connection's upward half.
pub(super) struct Upward<D> {
    sender: mpsc::UnboundedSender<AgentMessage>,
    shared: Rc<Shared<D>>,
    /// Last number sent on this connection.
    sent: u64,
    in_flight: u32,
    again: Option<Instant>,
    /// A desired state that was taken when the outbox ended with this number, which the controller has not yet.
    taken: Option<(TakenDesired, u64)>,
    offset: Offset,
    /// Runs this host takes part in, and what each was last told of the clocks.
    runs: BTreeMap<RunId, Option<ClockMap>>,
}

impl<D: Disk> Upward<D> {
    pub(super) fn new(sender: mpsc::UnboundedSender<AgentMessage>, shared: Rc<Shared<D>>) -> Self {
        Self {
            sender,
            shared,
            sent: 0,
            in_flight: 0,
            again: None,
            taken: None,
            offset: Offset::default(),
            runs: BTreeMap::new(),
        }
    }

    pub(super) fn send(&self, message: Up) -> Result<(), Broken> {
        self.sender.send(AgentMessage { message: Some(message) }).map_err(|_| Broken::Ended)
    }

    /// Sends what waits in the outbox, as far as may be in flight.
    pub(super) async fn report(&mut self) {
        crash::within(Task::Upward);
        while self.again.is_none() && self.in_flight < IN_FLIGHT {
            let outbox = self.shared.outbox.lock().await;
            let batch = match outbox.pending(self.sent, REPORT_BYTES).await {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::warn!(%error, "the outbox cannot be read");
                    self.again = Some(Instant::now() + AGAIN);
                    return;
                }
            };
            let Some(last) = batch.last() else { return };
            self.sent = last.seq;
            let events =
                batch.into_iter().map(|w| ReportedEvent { seq: w.seq, stream: w.stream, body: w.body, blob: w.blob });
            let report = Report { outbox: outbox.id().to_owned(), events: events.collect() };
            drop(outbox);
            self.in_flight += 1;
            if self.send(Up::Report(report)).is_err() {
                // The line broke; the stream's end says so too.
                return;
            }
        }
    }

    /// Says that a desired state was taken, once the controller has all that was told before: then it knows that of what
    /// it took back nothing else happened.
    pub(super) async fn taken(&mut self, epoch: u64, revision: u64) -> Result<(), Broken> {
        let taken = TakenDesired { epoch, revision };
        let outbox = self.shared.outbox.lock().await;
        self.taken = (!outbox.is_empty()).then(|| (taken, outbox.last_seq()));
        if self.taken.is_none() { self.send(Up::Taken(taken)) } else { Ok(()) }
    }

    /// Resolves when something should be sent again; never while nothing is.
    pub(super) async fn again(&mut self) {
        match self.again {
            Some(at) => {
                sleep_until(at).await;
                self.again = None;
            }
            None => std::future::pending().await,
        }
    }

    /// The controller has committed facts.
    pub(super) async fn acknowledged(&mut self, outbox: &str, seq: u64) {
        let mut waiting = self.shared.outbox.lock().await;
        waiting.ack(outbox, seq).await;
        drop(waiting);
        if let Some((taken, _)) = self.taken.take_if(|(_, told)| *told <= seq) {
            // A line that broke says so itself.
            let _ = self.send(Up::Taken(taken));
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 && seq < self.sent {
            // It did not commit all it was sent: send the rest again, without haste.
            self.sent = seq;
            self.again = Some(Instant::now() + AGAIN);
        }
        self.report().await;
    }

    /// Which runs this host takes part in; true when one is new.
    pub(super) fn set_runs(&mut self, runs: BTreeSet<RunId>) -> bool {
        let fresh = runs.iter().any(|run| !self.runs.contains_key(run));
        self.runs = runs.into_iter().map(|run| (run.clone(), self.runs.remove(&run).flatten())).collect();
        fresh
    }

    /// Takes a grant as a comparison of clocks, and tells the runs that do not know better.
    pub(super) async fn clock_read(&mut self, now: &Stamp, far: &ClockId, grant: &Grant) {
        let exchange = Exchange {
            sent: grant.echo_boot_ns,
            far_received: grant.received_ns,
            far_sent: grant.sent_ns,
            received: now.boot_ns,
        };
        let Some(map) = self.offset.see(&now.clock, far, exchange).cloned() else { return };
        let mut told_any = false;
        for (run, told) in &mut self.runs {
            let due = told.as_ref().is_none_or(|t| narrower(&map, t) || map.at_ns - t.at_ns >= CLOCK_EVERY_NS);
            if due {
                let body = Body::ClockSeen { map: map.clone() };
                self.shared.outbox.lock().await.append(&format!("run/{run}"), &body, &[]).await;
                *told = Some(map.clone());
                told_any = true;
            }
        }
        if told_any {
            self.report().await;
        }
    }
}

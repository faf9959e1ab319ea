//! What a controller tells of itself: metrics for Prometheus, and whether it lives and is ready. It decides nothing, and no
//! name of a run, a host, a schedule or a person is in it. The table of all metrics is in METRICS.md beside this crate.
//!
//! ```text
//! counted where it happens   (meters.rs, calls.rs)  --\
//! counted from durable facts (facts.rs)             ---- registry -> text.rs -> serve.rs: /metrics
//! read when asked            (now.rs)               --/
//! tasks, history, listeners  (standing.rs)          ------------------------>            /healthz, /readyz
//! ```

mod calls;
mod facts;
mod meters;
mod now;
pub mod serve;
mod standing;
mod text;

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use fracas_model::event::Event;
use prometheus_client::{
    metrics::{gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};
use tokio::{
    sync::broadcast::Receiver,
    task::{AbortHandle, JoinHandle},
};

pub use self::{
    calls::Calls,
    meters::{AuditMeters, Counts, DoorMeters, HistoryMeters, Open, REFUSALS, SessionMeters},
    now::Parts,
    text::Format,
};
use self::{
    facts::Facts,
    now::{Doors, Now},
    standing::{Phase, Standing},
};
use crate::controller::Controller;

/// Before the name of every metric.
const PREFIX: &str = "fracas";
/// So long after the last write that failed it is tried whether the history can be written again. Whoever has something to
/// write tries every second: then theirs is the word that counts.
const QUIET: Duration = Duration::from_secs(5);

/// The metrics of one controller. Clones are one.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    registry: Mutex<Registry>,
    doors: Doors,
    /// None as long as the controller starts.
    parts: OnceLock<Parts>,
    /// The tasks without which a controller is none, by name.
    tasks: OnceLock<Vec<(&'static str, AbortHandle)>>,
}

impl Metrics {
    /// Of a controller that began to start at this wall time, nanoseconds since the Unix epoch.
    pub fn new(started_wall_ns: i64) -> Self {
        let (mut registry, doors) = (Registry::with_prefix(PREFIX), Doors::default());
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of the controller", version);
        let started = ConstGauge::new(started_wall_ns as f64 / 1e9);
        let help = "When the controller began to start, Unix time";
        registry.register_with_unit("start_time", help, Unit::Seconds, started);
        registry.register_collector(Box::new(doors.clone()));
        let (registry, parts, tasks) = (Mutex::new(registry), OnceLock::new(), OnceLock::new());
        Self(Arc::new(Shared { registry, doors, parts, tasks }))
    }

    /// The listeners' meters: of the front, the fleet and the metrics.
    pub fn doors(&self) -> [&DoorMeters; 3] {
        let Doors { front, fleet, metrics } = &self.0.doors;
        [front, fleet, metrics]
    }

    /// Tells of these parts from now on, whose runs and schedules have been taken up. The task that is returned counts what
    /// is told of their history, until `closed` resolves.
    pub async fn attach(
        &self,
        parts: Parts,
        told: Receiver<Arc<Event>>,
        closed: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let (facts, controller) = (Facts::default(), parts.controller.clone());
        let (history, runs) = (controller.history().clone(), controller.runs().clone());
        facts.look(&history, &runs).await;
        {
            let mut registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
            facts.register(&mut registry);
            register(&mut registry, &controller);
            let now = Now { parts: parts.clone(), facts: facts.clone() };
            registry.register_collector(Box::new(now));
            registry.register_collector(Box::new(controller.calls().clone()));
        }
        // There is one start.
        let _ = self.0.parts.set(parts);
        tokio::spawn(async move {
            tokio::select! {
                () = facts.listen(told, history, runs) => {}
                () = closed => {}
            }
        })
    }

    /// From now on the controller is ready as long as these tasks run.
    pub fn up(&self, tasks: Vec<(&'static str, AbortHandle)>) {
        let _ = self.0.tasks.set(tasks);
    }

    /// All metrics as text.
    pub fn exposition(&self, format: Format) -> String {
        let mut text = String::with_capacity(64 << 10);
        {
            let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("a text takes whatever is written");
        }
        match format {
            Format::OpenMetrics => text,
            Format::Plain => text::plain(&text),
        }
    }

    /// Why the process should be ended and started again; nothing when it is well.
    pub fn ailments(&self) -> Vec<String> {
        self.standing().ailments()
    }

    /// Why the controller cannot be used now; nothing when it can.
    pub async fn obstacles(&self) -> Vec<String> {
        if let Some(parts) = self.0.parts.get() {
            let history = parts.controller.history();
            // Where nothing is written because nothing happens, only trying shows that it could be again.
            if history.meters().trouble().is_some_and(|trouble| trouble.since.elapsed() >= QUIET) {
                // What came of it is noted where it is tried.
                let _ = history.try_write().await;
            }
        }
        self.standing().obstacles()
    }

    fn standing(&self) -> Standing {
        let (parts, tasks) = (self.0.parts.get(), self.0.tasks.get());
        let phase = match (parts, tasks) {
            (Some(parts), _) if parts.controller.runs().is_closed() => Phase::Draining,
            (Some(_), Some(_)) => Phase::Up,
            _ => Phase::Starting,
        };
        let ended = tasks.into_iter().flatten().filter(|(_, task)| task.is_finished()).map(|(name, _)| *name);
        let stuck = self.0.doors.all().into_iter().filter(|(_, door)| door.is_stuck()).map(|(name, _)| name);
        Standing {
            phase,
            ended: ended.collect(),
            history: parts.and_then(|parts| parts.controller.history().meters().trouble()).map(|trouble| trouble.class),
            stuck: stuck.collect(),
        }
    }
}

/// What the parts of a controller count by themselves.
fn register(registry: &mut Registry, controller: &Controller) {
    let HistoryMeters { took, failures, reports, facts, dropped, .. } = controller.history().meters().clone();
    let help = "Time from an append to its commit; of those that were made";
    registry.register_with_unit("history_append_duration", help, Unit::Seconds, took);
    registry.register("history_append_failures", "Appends that failed, by class", failures);
    registry.register("reports_ingested", "Reports of hosts that were taken", reports);
    registry.register("facts_ingested", "Facts of hosts that were appended", facts);
    registry.register("facts_dropped", "Facts of hosts that were dropped for good, by reason", dropped);
    let SessionMeters { opened, closed, leases } = controller.sessions().clone();
    registry.register("agent_sessions_opened", "Sessions of agents that began", opened);
    registry.register("agent_sessions_closed", "Sessions of agents that ended, by reason", closed);
    registry.register("leases_granted", "Leases granted to agents", leases);
    let refused = controller.runs().refused().clone();
    registry.register("runs_refused", "Starts of runs that were refused, by reason", refused);
}

#[cfg(test)]
mod tests;

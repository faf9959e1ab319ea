//! What is so at the instant of a scrape: it is read then and kept nowhere. It reads no history.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc};

use fracas_model::id::RunId;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
    registry::Unit,
};
use tokio::sync::watch;

use super::{
    facts::Facts,
    meters::{AuditMeters, DoorMeters},
};
use crate::{
    controller::Controller,
    identity::{Identity, holds_until},
};

/// Parts of a running controller that are looked at.
#[derive(Clone)]
pub struct Parts {
    /// The controller.
    pub controller: Controller,
    /// Its certificates.
    pub identity: Arc<Identity>,
    /// The file of its history, if it has one.
    pub file: Option<PathBuf>,
    /// When the head of its audit stream was signed.
    pub audit: AuditMeters,
    /// Number of the last record of that stream.
    pub heads: watch::Receiver<u64>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("controller", &self.controller).finish_non_exhaustive()
    }
}

/// Asks the parts at each scrape.
#[derive(Debug)]
pub(super) struct Now {
    pub(super) parts: Parts,
    pub(super) facts: Facts,
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let out = &mut encoder;
        let (fleet, runs) = (self.parts.controller.fleet(), self.parts.controller.runs());
        let census = fleet.census();
        gauge(out, "controller_epoch", "Epoch of the controller; it rises with each start.", fleet.mark().0)?;
        gauge(out, "halted", "Whether everything is halted: 1 or 0.", u32::from(census.halted))?;
        let active: BTreeSet<RunId> = runs.active().into_iter().collect();
        gauges(out, "runs_active", "Runs that have not ended, by state.", "state", self.facts.running(&active))?;
        gauge(out, "faults_desired", "Faults that hosts should suffer now.", census.desired as u64)?;
        let hosts = [("connected", census.connected), ("away", census.away)];
        gauges(out, "hosts", "Hosts of the fleet, by contact; without observers.", "state", hosts)?;
        let withheld = [
            ("quarantined", census.quarantined),
            ("journal", census.in_trouble),
            ("cordoned", census.cordoned),
            ("revoked", census.revoked),
            ("duplicate", census.duplicate),
        ];
        gauges(out, "hosts_withheld", "Hosts that get no fault, by reason.", "reason", withheld)?;
        let observers = [("connected", census.observers), ("away", census.observers_away)];
        gauges(out, "observers", "Observers of the controller, by contact.", "state", observers)?;
        self.schedules(out)?;
        self.history(out)?;
        self.certificates(out, census.first_end_s)
    }
}

impl Now {
    fn schedules(&self, out: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let all = self.parts.controller.schedules().all();
        let paused = all.values().filter(|state| state.paused.is_some()).count();
        let waiting: usize = all.values().map(|state| state.waiting.len()).sum();
        let states = [("active", all.len() - paused), ("paused", paused)];
        gauges(out, "schedules", "Schedules that are kept, by state.", "state", states)?;
        gauge(out, "schedule_dues_waiting", "Due times that wait for something to end.", waiting as u64)
    }

    fn history(&self, out: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let size = |suffix: &str| {
            let mut path = self.parts.file.clone()?.into_os_string();
            path.push(suffix);
            fs::metadata(path).ok().map(|file| file.len())
        };
        let help = "Size of the history on the disk, its log included.";
        let mut encoder = out.encode_descriptor("history_size", help, Some(&Unit::Bytes), MetricType::Gauge)?;
        if let Some(file) = size("") {
            encoder.encode_gauge(&(file + size("-wal").unwrap_or(0)))?;
        }
        let ((wall_ns, signed), head) = (self.parts.audit.last(), *self.parts.heads.borrow());
        let help = "When the head of the audit stream was last signed, Unix time.";
        let mut encoder =
            out.encode_descriptor("audit_signed_timestamp", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        if wall_ns > 0 {
            encoder.encode_gauge(&(wall_ns as f64 / 1e9))?;
        }
        let help = "Records of the audit stream after the last signed head.";
        gauge(out, "audit_unsigned_records", help, head.saturating_sub(signed))
    }

    fn certificates(&self, out: &mut DescriptorEncoder<'_>, hosts: Option<i64>) -> std::fmt::Result {
        let help = "When certificates of the controller expire, and the first one of its hosts, Unix time.";
        let unit = Unit::Seconds;
        let mut encoder =
            out.encode_descriptor("certificate_expiry_timestamp", help, Some(&unit), MetricType::Gauge)?;
        let identity = &self.parts.identity;
        let until = [
            ("server", holds_until(&identity.server().leaf())),
            ("authority", holds_until(identity.ca_der())),
            ("host", hosts),
        ];
        for (which, until) in until {
            if let Some(seconds) = until {
                encoder.encode_family(&[("certificate", which)])?.encode_gauge(&seconds)?;
            }
        }
        Ok(())
    }
}

/// The meters of the three listeners.
#[derive(Clone, Debug, Default)]
pub(super) struct Doors {
    pub(super) front: DoorMeters,
    pub(super) fleet: DoorMeters,
    pub(super) metrics: DoorMeters,
}

impl Doors {
    pub(super) fn all(&self) -> [(&'static str, &DoorMeters); 3] {
        [("front", &self.front), ("fleet", &self.fleet), ("metrics", &self.metrics)]
    }
}

impl Collector for Doors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let counted = self.all().map(|(name, door)| (name, door.counted()));
        let open = counted.map(|(name, (open, _))| (name, open));
        gauges(&mut encoder, "connections", "Connections that are open, by listener.", "listener", open)?;
        let help = "Connections that the kernel gave, by listener.";
        let mut accepted = encoder.encode_descriptor("connections_accepted", help, None, MetricType::Counter)?;
        for (name, (_, value)) in counted {
            ConstCounter::new(value).encode(accepted.encode_family(&[("listener", name)])?)?;
        }
        let help = "Connections that were not kept, by listener and reason.";
        let mut refused = encoder.encode_descriptor("connections_refused", help, None, MetricType::Counter)?;
        for (name, door) in self.all() {
            for (reason, value) in door.refusals() {
                let labels = [("listener", name), ("reason", reason)];
                ConstCounter::new(value).encode(refused.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: impl EncodeGaugeValue) -> std::fmt::Result {
    out.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

/// One gauge for each word of a label.
fn gauges<const N: usize>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: [(&'static str, impl TryInto<i64>); N],
) -> std::fmt::Result {
    let mut encoder = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (word, value) in values {
        encoder.encode_family(&[(label, word)])?.encode_gauge(&value.try_into().unwrap_or(i64::MAX))?;
    }
    Ok(())
}

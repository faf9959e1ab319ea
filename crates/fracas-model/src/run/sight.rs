//! What one probe saw from one vantage, as far as the run machine must know: up or down, since when, seen until when.

use crate::{
    event::{Body, Event},
    time::Stamp,
    units::Dur,
};

/// An unbroken stretch of equal readings, on two clocks: the vantage's looks and the controller's receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The last edge, on the vantage's clock: tells which clock the looks count on.
    pub edge_at: Option<Stamp>,
    /// Up, down, or nothing seen yet.
    pub ok: Option<bool>,
    /// Send instant of the first look of the stretch, vantage boot time.
    pub since: i64,
    /// Completion of the last look known, vantage boot time.
    pub until: i64,
    /// When the last word came in, controller boot time.
    pub heard: i64,
}

impl Sight {
    /// Takes an edge, a gap or a summary. A gap longer than a quarter of the stable window starts the stretch anew:
    /// nobody saw whether the service was up in between.
    pub(crate) fn see(&mut self, event: &Event, stable: Dur) {
        self.heard = event.received.boot_ns;
        match &event.body {
            Body::Edge { ok, after, at, .. } => {
                self.edge_at = Some(at.clone());
                if self.ok != Some(*ok) {
                    self.ok = Some(*ok);
                    self.since = after.s;
                }
                self.until = self.until.max(after.c);
            }
            Body::Gap { between, .. } if between.c.saturating_sub(between.s) > stable.ns() / 4 => {
                self.since = between.c;
            }
            Body::ReadingsSealed { between, .. } => self.until = self.until.max(between.c),
            _ => {}
        }
    }

    /// How long the service was seen up without a failure, up to the last look known.
    pub fn up_for(&self) -> Dur {
        if self.ok == Some(true) { Dur::from_ns(self.until.saturating_sub(self.since).max(0)) } else { Dur::ZERO }
    }

    /// How long it was seen failing without a success.
    pub fn down_for(&self) -> Dur {
        if self.ok == Some(false) { Dur::from_ns(self.until.saturating_sub(self.since).max(0)) } else { Dur::ZERO }
    }
}

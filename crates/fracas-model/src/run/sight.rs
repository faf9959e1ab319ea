//! What one probe saw from one vantage, as far as the run machine must know: up or down, since when, seen until when.

use std::collections::VecDeque;

use crate::{
    event::{Body, Event},
    time::Stamp,
    units::Dur,
};

/// The longest window of an error budget.
const MEMORY: Dur = Dur::from_secs(3600);
/// The longest reason of a vantage that is kept, characters.
pub(super) const LONGEST_WHY: usize = 300;
/// Summaries come about every second.
const MOST_FAILED: usize = 2 * 3600;

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
    /// Why it failed when the stretch began, in a few words.
    pub why: String,
    /// When the last word came in, controller boot time.
    pub heard: i64,
    /// Failed looks of the last hour, by the send instant of the summary's first look.
    failed: VecDeque<(i64, u32)>,
}

impl Sight {
    /// Takes an edge, a gap or a summary. A gap longer than a quarter of the stable window starts the stretch anew:
    /// nobody saw whether the service was up in between.
    pub(crate) fn see(&mut self, event: &Event, stable: Dur) {
        // What was seen before the vantage was booted anew was told on another clock.
        let now = match &event.body {
            Body::Edge { at, .. } | Body::Gap { at, .. } | Body::ReadingsSealed { at, .. } => Some(&at.clock),
            _ => None,
        };
        if now.is_some_and(|now| self.edge_at.as_ref().is_some_and(|before| before.clock != *now)) {
            *self = Self::default();
        }
        self.heard = event.received.boot_ns;
        match &event.body {
            Body::Edge { ok, after, why, at, .. } => {
                self.edge_at = Some(at.clone());
                // A host may say as much as it likes.
                self.why = why.chars().take(LONGEST_WHY).collect();
                if self.ok != Some(*ok) {
                    self.ok = Some(*ok);
                    self.since = after.s;
                }
                self.until = self.until.max(after.c);
            }
            Body::Gap { between, .. } if between.c.saturating_sub(between.s) > stable.ns() / 4 => {
                self.since = between.c;
            }
            Body::ReadingsSealed { between, failed, .. } => {
                self.until = self.until.max(between.c);
                if *failed > 0 {
                    self.failed.push_back((between.s, *failed));
                }
                let begin = self.until.saturating_sub(MEMORY.ns());
                while self.failed.len() > MOST_FAILED || self.failed.front().is_some_and(|(s, _)| *s < begin) {
                    self.failed.pop_front();
                }
            }
            _ => {}
        }
    }

    /// How long the service was seen up without a failure, up to the last look known.
    pub fn up_for(&self) -> Dur {
        if self.ok == Some(true) { Dur::from_ns(self.until.saturating_sub(self.since).max(0)) } else { Dur::ZERO }
    }

    /// How many looks of the last so much time failed, up to the last look known and at most an hour. Summaries that reach
    /// out of that time do not count.
    pub fn failed_within(&self, window: Dur) -> u64 {
        let begin = self.until.saturating_sub(window.ns());
        self.failed.iter().filter(|(s, _)| *s > begin).map(|(_, failed)| u64::from(*failed)).sum()
    }

    /// How long it was seen failing without a success.
    pub fn down_for(&self) -> Dur {
        if self.ok == Some(false) { Dur::from_ns(self.until.saturating_sub(self.since).max(0)) } else { Dur::ZERO }
    }
}

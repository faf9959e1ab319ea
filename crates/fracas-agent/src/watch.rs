//! Probes that tick beside the faults: which ones run, and what they saw as facts. Looking itself is in
//! `fracas-probes`; judging is in the model.
//!
//! [`Watcher`] is level-triggered: it is told the whole set that is wanted, again and again. The real one,
//! [`thread::ThreadWatcher`], ticks on a thread of its own, so that the session's and the reconciler's work is never
//! felt in a reading; the simulated world ticks the same code in place with [`roster::Roster`].

use fracas_model::{
    desired::{LedgerItem, ProbeItem},
    event::Body,
    policy::Policy,
};

use crate::host::Local;

mod ledger;
pub mod pace;
pub mod record;
pub mod roster;
mod tend;
pub mod thread;

pub use tend::{cap, phase};

/// One fact that a probe brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// The stream it belongs to: `run/ID`.
    pub stream: String,
    /// The fact.
    pub body: Body,
    /// The bytes that a `ReadingsSealed` names by digest.
    pub blob: Option<Vec<u8>>,
}

/// Runs probes.
pub trait Watcher {
    /// What should run now: starts what is new, stops what is gone, and lets what stays run `until` longer.
    fn set(&mut self, wanted: &[ProbeItem]);
    /// What ledgers should be kept now: begins what is new, and hands what stays its work; what is gone ends, and its place
    /// is left as it is.
    fn keep(&mut self, wanted: &[LedgerItem]);
    /// The rules have changed: stops what they no longer allow, and lets what they allow now run.
    fn allow(&mut self, policy: &Policy);
    /// The next fact; waits for ever while no probe runs. Safe to drop and call again.
    fn next(&mut self) -> Local<'_, Sight>;
    /// Stops everything and gives what was not taken yet, the last readings sealed.
    fn close(&mut self) -> Local<'_, Vec<Sight>>;
}

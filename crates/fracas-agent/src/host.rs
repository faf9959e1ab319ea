//! The only door to the machine: facts, steps and their inverses, read-back, measurements.
//!
//! The real one is [`linux`]; the simulated one lives in `fracas-sim`.

use std::{future::Future, pin::Pin};

use fracas_model::{
    event::{Between, Measured, Proof},
    facts::{Facts, HostFacts, Question},
    id::ItemKey,
    plan::{Check, Step},
    time::Stamp,
    units::Dur,
};
use serde_json::Value;

pub mod clock;
pub mod cpu;
pub mod facts;
pub mod files;
pub mod fill;
pub mod linux;
pub mod net;
pub mod netlink;
pub mod processes;
pub mod residue;
pub mod seize;
pub mod signal;
pub mod swap;
pub mod systemd;
pub mod trials;
pub mod worker;

/// A boxed future that need not be `Send`: the agent runs on one thread.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What applying a step left, as the journal keeps it: handles, indexes, worker numbers. `Null` when nothing is needed.
pub type Handle = Value;

/// The world said no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// How reverting a step ended; each was read back from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reverted {
    /// It is gone.
    Undone,
    /// There was nothing of ours.
    NothingThere,
    /// Somebody else changed it; it was left alone. Says what.
    Superseded(String),
}

/// The machine, or a simulation of it.
pub trait Host {
    /// Now, on this host's clock.
    fn now(&self) -> Stamp;
    /// What seldom changes, with every capability tried (may take a second; called at start and on request).
    fn facts(&self) -> Local<'_, HostFacts>;
    /// Fills the answers a planner asked for; `base` comes with host, policy and controllers filled in.
    fn answer<'a>(&'a self, base: Facts, questions: &'a [Question]) -> Local<'a, Result<Facts, Failure>>;
    /// How long an item may still last, from now: told before its first step and again whenever that changes (a lease
    /// was renewed). Workers then end by themselves should the agent hang. A host may ignore it.
    fn deadline(&self, _key: &ItemKey, _left: Dur) {}
    /// Does one step. `Between` is stamped just before and just after the call that makes it effective.
    /// A step that fails has changed nothing, or its revert with `Handle::Null` cleans what it did.
    fn apply<'a>(
        &'a self,
        key: &'a ItemKey,
        index: usize,
        step: &'a Step,
    ) -> Local<'a, Result<(Handle, Between), Failure>>;
    /// Undoes one step and reads back. Idempotent; also right for a step that was never or only partly applied
    /// (`handle` is `None` then). Never called for spent steps.
    fn revert<'a>(
        &'a self,
        key: &'a ItemKey,
        index: usize,
        step: &'a Step,
        handle: Option<&'a Handle>,
    ) -> Local<'a, Result<Reverted, Failure>>;
    /// Looks whether the effect is there, from outside the mechanism where possible. Called again and again while
    /// the fault is active (about every second) and once just before undo; each answer covers the time since apply.
    fn check<'a>(&'a self, key: &'a ItemKey, check: &'a Check) -> Local<'a, (Proof, Vec<Measured>)>;
    /// Items whose held steps ended by themselves since the last call (a worker died), with the reason.
    fn lost(&self) -> Local<'_, Vec<(ItemKey, String)>>;
}

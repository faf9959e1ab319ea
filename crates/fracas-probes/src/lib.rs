//! The probe catalogue: one file per probe. A probe looks at something once and says what it saw; it never judges.
//!
//! To add a probe: copy the file that is nearest to it and add one line to [`ALL`].

use std::{future::Future, pin::Pin};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
};

/// What one look saw: `Ok` when every condition held, else why not in a few words (at most 120 bytes, no secrets).
pub type Seen = Result<(), String>;

/// A future on the probe thread's own single-threaded runtime.
pub type LookFuture = Pin<Box<dyn Future<Output = Seen>>>;

/// A probe made ready: parameters parsed, names not yet resolved.
pub trait Lookout {
    /// Looks once, with a fresh connection and fresh resolution. The caller bounds it in time by dropping the future;
    /// dropping must release everything (sockets, child processes).
    fn look(&self) -> LookFuture;
}

/// A kind of probe.
pub trait Probe: Sync {
    /// Name, parameters, help.
    fn info(&self) -> ProbeInfo;
    /// Parses checked parameters. Refuses what this host or its policy does not allow.
    fn ready(&self, params: &Params, policy: &Policy) -> Result<Box<dyn Lookout>, Refusal>;
}

/// Every probe there is.
pub const ALL: &[&dyn Probe] = &[];

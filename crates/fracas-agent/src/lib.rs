//! The agent: reconciles what is desired against its journal, runs steps, looks, and reports what really happened.

pub mod command;
pub mod crash;
pub mod dial;
pub mod disk;
pub mod enrol;
pub mod forget;
pub mod guard;
pub mod host;
pub mod identity;
pub mod install;
pub mod journal;
pub mod lock;
pub mod logging;
pub mod notify;
pub mod outbox;
pub mod reconcile;
pub mod reexec;
pub mod rules;
pub mod run;
pub mod service;
pub mod session;
pub mod watch;

pub use reexec::reexec;

//! The controller: histories, the fleet, runs and who may call them.
//!
//! It computes what each host should suffer and sends that whole set; it never sends a command to a host.

pub mod access;
pub mod agents;
pub mod api;
pub mod approvals;
pub mod audit;
pub mod clock;
pub mod config;
pub mod controller;
pub mod datadir;
pub mod driver;
pub mod enrol;
pub mod feeds;
pub mod fleet;
pub mod history;
pub mod identity;
pub mod keep;
pub mod listen;
pub mod metrics;
pub mod notify;
mod outgoing;
mod pages;
pub mod people;
pub mod results;
pub mod runs;
pub mod schedules;
pub mod server;
mod signals;
pub mod signin;
pub mod store;
pub mod tokens;
pub mod verify;

pub use fracas_model::chain;

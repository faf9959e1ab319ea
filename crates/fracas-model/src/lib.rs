//! The nouns and the pure decisions of Fracas: documents, plans, runs, estimates, verdicts, reports.
//!
//! Nothing here does I/O, reads a clock, draws a global random number or awaits. Time and randomness are arguments.

pub mod catalogue;
pub mod desired;
pub mod event;
pub mod experiment;
pub mod facts;
pub mod id;
pub mod plan;
pub mod policy;
pub mod process;
pub mod run;
pub mod shape;
pub mod time;
pub mod units;

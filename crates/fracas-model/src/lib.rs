//! The nouns and the pure decisions of Fracas: documents, plans, runs, estimates, verdicts, reports.
//!
//! Nothing here does I/O, reads a clock, draws a global random number or awaits. Time and randomness are arguments.

pub mod access;
pub mod approval;
pub mod catalogue;
pub mod chain;
pub mod check;
pub mod desired;
pub mod diagnostic;
pub mod digest;
pub mod document;
pub mod estimate;
pub mod event;
pub mod evidence;
pub mod experiment;
pub mod facts;
pub mod gameday;
pub mod guard;
pub mod ical;
pub mod id;
pub mod identity;
pub mod ledger;
pub mod mark;
pub mod notice;
pub mod parameters;
pub mod pattern;
pub mod plan;
pub mod policy;
pub mod process;
pub mod report;
pub mod run;
pub mod schedule;
pub mod schema;
pub mod selector;
pub mod series;
pub mod shape;
pub mod signal;
pub mod stats;
pub mod stop;
pub mod target;
pub mod time;
pub mod tolerance;
pub mod tree;
pub mod trend;
pub mod units;

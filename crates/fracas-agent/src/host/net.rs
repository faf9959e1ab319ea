//! Network faults of this host: the worker that holds and drops packets by rules of its own, netem where the kernel has
//! it, trials of both, and the look at whether packets really suffer. It plans nothing.

pub mod histogram;
pub mod program;
pub mod rules;
pub mod worker;

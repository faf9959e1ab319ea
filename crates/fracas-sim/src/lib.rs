//! The simulated world for tests, and the labs. Product crates never use it.

pub mod crash;
pub mod fake_disk;
pub mod fake_host;
pub mod fixture;

//! The simulated world for tests, and the labs. Product crates use the namespace lab alone, for the demo.

pub mod crash;
pub mod fake_disk;
pub mod fake_host;
pub mod fixture;
pub mod lab;
pub mod need;
#[cfg(feature = "world")]
pub mod world;

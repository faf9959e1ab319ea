//! The simulated world for tests, and the labs.

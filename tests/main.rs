//! The workspace's end-to-end tests; they start here and have their own harness.
fn main() {}

//! The binary an operator installs: composition root only.

fn main() {}

//! The agent: reconciles what is desired against its journal, runs steps, looks, and reports what really happened.

pub mod host;

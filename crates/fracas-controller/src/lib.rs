//! The controller: keeps histories, decides by asking the model, and tells every host what it should be suffering.
//!
//! It never links a fault or a probe, and it never acts on a host: desired state goes down, history comes up.

pub mod chain;
pub mod clock;
pub mod datadir;
pub mod history;
pub mod identity;
pub mod listen;
pub mod store;
pub mod tokens;
pub mod verify;

//! The wire: generated gRPC code and the only conversions between wire and model. It decides nothing.
//!
//! `generated/` is renewed by `cargo xtask codegen` from `proto/`; a test fails when it is stale.

/// Version of the session protocol that this build speaks.
pub const PROTOCOL: u32 = 1;

/// Messages, clients and servers of package `fracas.v1`.
#[expect(missing_docs, clippy::pedantic, reason = "generated")]
pub mod v1 {
    include!("generated/fracas.v1.rs");
}

/// The compiled descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptor.bin");

/// A message whose text part is not what the model expects.
#[derive(Debug, thiserror::Error)]
#[error("{what} of the message is malformed: {source}")]
pub struct Malformed {
    what: &'static str,
    source: serde_json::Error,
}

/// Model value to the JSON text of a message field.
pub fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("model values have only text keys and finite numbers")
}

/// JSON text of a message field to its model value; `what` names the field for the error.
pub fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|source| Malformed { what, source })
}

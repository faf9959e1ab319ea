//! `fracas version`: what this build is and what it can talk to.

use serde_json::json;

use crate::{Session, error::CliError, exit};

pub(crate) fn version(session: &Session<'_>) -> Result<u8, CliError> {
    let (version, protocol) = (env!("CARGO_PKG_VERSION"), fracas_proto::PROTOCOL);
    if session.output.json {
        session.output.json("fracas.version/v1", &json!({ "version": version, "protocol": protocol }))?;
    } else {
        session.output.line(&format!("fracas {version} (session protocol {protocol})"))?;
    }
    Ok(exit::PASS)
}

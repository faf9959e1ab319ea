//! Generates the gRPC code of `fracas-proto` from `proto/`, without protoc. It decides nothing about the wire.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;

const PROTOS: [&str; 3] = ["fracas/v1/agent.proto", "fracas/v1/operator.proto", "fracas/v1/sign_in.proto"];

/// Renews the checked-in files.
pub(crate) fn write() -> Result<()> {
    generate(&root().join("crates/fracas-proto/src/generated"))
}

/// Fails when the checked-in files differ from what `proto/` gives.
pub(crate) fn check() -> Result<()> {
    let fresh = std::env::temp_dir().join(format!("fracas-codegen-{}", std::process::id()));
    let outcome = generate(&fresh).and_then(|()| compare(&fresh));
    fs::remove_dir_all(&fresh).ok();
    outcome
}

fn compare(fresh: &Path) -> Result<()> {
    let kept = root().join("crates/fracas-proto/src/generated");
    for name in ["fracas.v1.rs", "descriptor.bin"] {
        let new = fs::read(fresh.join(name)).context(name)?;
        let old = fs::read(kept.join(name)).context(name)?;
        ensure!(new == old, "{name} is stale: run cargo xtask codegen");
    }
    Ok(())
}

fn generate(to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let descriptors = protox::compile(PROTOS, [root().join("proto")])?;
    fs::write(to.join("descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().out_dir(to).compile_fds(descriptors)?;
    Ok(())
}

/// The workspace's top folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[cfg(test)]
mod tests {
    #[test]
    fn generated_code_is_current() {
        super::check().unwrap();
    }
}

//! `fracas controller verify`: proves a history whole where no controller runs, and says what nothing but the database
//! vouches for. It reads only; what whole means is the model's business.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;
use fracas_cli::{
    args::{Global, OutputForm},
    verification,
};
use fracas_controller::{
    datadir::DataDirError,
    verify::{SignedHead, Verification, VerifyError, public_key, read_heads, verify_dir},
};

use crate::inside;

/// The end of the help.
pub(super) const HELP: &str = "Example:
  fracas controller verify --data-dir /var/lib/fracas
  fracas controller verify --data-dir copy --heads vault/heads.jsonl --audit-key vault/audit.pub --output json

Stop the controller first, or verify a copy of its data directory; one that runs is verified by `fracas audit verify`. \
Copies of heads.jsonl and audit.pub that were kept elsewhere prove more than those beside the history, which whoever \
changed it could have changed too.

Exit codes: 0 whole, 1 broken, 3 whole, but signed heads know of more (a restored copy), 5 it could not be verified.";

/// Arguments of `controller verify`.
#[derive(Clone, Debug, Args)]
pub(super) struct VerifyArgs {
    /// The data directory [default: /var/lib/fracas, or below XDG_DATA_HOME]
    #[arg(long, value_name = "DIR", env = "FRACAS_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// What it is held against.
    #[command(flatten)]
    outside: Outside,
}

/// Witnesses from outside a data directory.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Outside {
    /// Signed heads that were kept elsewhere, as in heads.jsonl; may be repeated
    #[arg(long, value_name = "FILE")]
    heads: Vec<PathBuf>,
    /// The public key that signed them, kept elsewhere [default: audit.pub of the data directory]
    #[arg(long, value_name = "FILE")]
    audit_key: Option<PathBuf>,
}

impl Outside {
    /// What is in the files.
    pub(super) fn read(&self) -> Result<(Vec<SignedHead>, Option<Vec<u8>>), String> {
        let read = |path: &Path| std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()));
        let mut heads = Vec::new();
        for path in &self.heads {
            heads.extend(read_heads(path, &read(path)?).map_err(|e| e.to_string())?);
        }
        let key = match &self.audit_key {
            Some(path) => Some(public_key(path, &read(path)?).map_err(|e| e.to_string())?),
            None => None,
        };
        Ok((heads, key))
    }
}

/// Verifies, prints, gives the exit code.
pub(super) fn main(args: &VerifyArgs, global: &Global) -> u8 {
    match found(args) {
        Ok((dir, found)) => {
            let dir = dir.display().to_string();
            let text = match global.output {
                OutputForm::Json => format!("{}\n", verification::data(("dataDir", &dir), &found)),
                OutputForm::Text => verification::text(&format!("in {dir}"), &found),
            };
            // Whoever reads may have left; the exit code says it all.
            let _ = std::io::stdout().write_all(text.as_bytes());
            verification::code(&found)
        }
        Err(error) => inside::fatal(&error),
    }
}

fn found(args: &VerifyArgs) -> Result<(PathBuf, Verification), String> {
    let dir = super::data_dir(args.data_dir.clone())?;
    let (heads, key) = args.outside.read()?;
    let runtime = inside::runtime().map_err(|e| e.to_string())?;
    let found = runtime.block_on(verify_dir(&dir, heads, key)).map_err(|error| match error {
        VerifyError::DataDir(DataDirError::InUse { .. }) => {
            format!("{error}; or verify it as it runs: fracas audit verify; or verify a copy of the directory")
        }
        error => error.to_string(),
    })?;
    Ok((dir, found))
}

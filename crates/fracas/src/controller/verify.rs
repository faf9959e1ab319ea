//! `fracas controller verify`: proves a history whole where no controller runs, and says what nothing but the database
//! vouches for. It reads only; what whole means is the controller library's business.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;
use fracas_cli::{
    args::{Global, OutputForm},
    exit,
};
use fracas_controller::{
    datadir::DataDirError,
    verify::{DirVerification, StreamFinding, VerifyError, public_key, read_heads, verify_dir},
};
use serde_json::{Value, json};

use crate::inside;

/// Exit code for a history that is not whole.
const BROKEN: u8 = 1;

/// The end of the help.
pub(super) const HELP: &str = "Example:
  fracas controller verify --data-dir /var/lib/fracas
  fracas controller verify --data-dir copy --heads vault/heads.jsonl --audit-key vault/audit.pub --output json

Stop the controller first, or verify a copy of its data directory. Copies of heads.jsonl and audit.pub that were kept \
elsewhere prove more than those beside the history, which whoever changed it could have changed too.

Exit codes: 0 whole, 1 broken, 5 it could not be verified.";

/// Arguments of `controller verify`.
#[derive(Clone, Debug, Args)]
pub(super) struct VerifyArgs {
    /// The data directory [default: /var/lib/fracas, or below XDG_DATA_HOME]
    #[arg(long, value_name = "DIR", env = "FRACAS_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Signed heads that were kept elsewhere, as in heads.jsonl; may be repeated
    #[arg(long, value_name = "FILE")]
    heads: Vec<PathBuf>,
    /// The public key that signed them, kept elsewhere [default: audit.pub of the data directory]
    #[arg(long, value_name = "FILE")]
    audit_key: Option<PathBuf>,
}

/// Verifies, prints, gives the exit code.
pub(super) fn main(args: &VerifyArgs, global: &Global) -> u8 {
    match found(args) {
        Ok((dir, found)) => {
            let text = match global.output {
                OutputForm::Json => format!("{}\n", data(&dir, &found)),
                OutputForm::Text => text(&dir, &found),
            };
            // Whoever reads may have left; the exit code says it all.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if found.found.whole() { exit::PASS } else { BROKEN }
        }
        Err(error) => inside::fatal(&error),
    }
}

fn found(args: &VerifyArgs) -> Result<(PathBuf, DirVerification), String> {
    let dir = super::data_dir(args.data_dir.clone())?;
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()));
    let mut heads = Vec::new();
    for path in &args.heads {
        heads.extend(read_heads(path, &read(path)?).map_err(|e| e.to_string())?);
    }
    let key = match &args.audit_key {
        Some(path) => Some(public_key(path, &read(path)?).map_err(|e| e.to_string())?),
        None => None,
    };
    let found =
        inside::runtime().map_err(|e| e.to_string())?.block_on(verify_dir(&dir, heads, key)).map_err(|error| {
            match error {
                VerifyError::DataDir(DataDirError::InUse { .. }) => {
                    format!("{error}; or verify a copy of the directory: what is being written cannot be proved whole")
                }
                error => error.to_string(),
            }
        })?;
    Ok((dir, found))
}

/// What is wrong with a stream: number of the record, and why.
fn wrong(stream: &StreamFinding) -> impl Iterator<Item = (u64, &str)> {
    stream.broken.iter().chain(&stream.blobs).map(|(seq, why)| (*seq, why.as_str()))
}

/// Streams with records that no signature covers.
fn unvouched(found: &DirVerification) -> impl Iterator<Item = &StreamFinding> {
    found.found.streams.iter().filter(|stream| stream.vouched < stream.records)
}

fn text(dir: &Path, found: &DirVerification) -> String {
    let mut text = String::new();
    for why in &found.found.general {
        let _ = writeln!(text, "BROKEN: {why}");
    }
    for stream in &found.found.streams {
        for (seq, why) in wrong(stream) {
            let _ = writeln!(text, "BROKEN: {} record {seq}: {why}", stream.stream);
        }
    }
    let word = if found.found.whole() { "whole" } else { "BROKEN" };
    let (records, streams) = (found.found.records(), found.found.streams.len());
    let _ = writeln!(text, "history in {}: {word}; {records} records in {streams} streams are chained", dir.display());
    let _ = writeln!(text, "held against {} signed heads", found.signed);
    let mut bare = unvouched(found).peekable();
    if bare.peek().is_some() {
        let _ = writeln!(text, "only the database vouches for:");
    }
    for stream in bare {
        let _ = writeln!(text, "  {} records {} to {}", stream.stream, stream.vouched + 1, stream.records);
    }
    text
}

fn data(dir: &Path, found: &DirVerification) -> Value {
    let broken =
        found.found.streams.iter().flat_map(|stream| {
            wrong(stream).map(|(seq, why)| json!({ "stream": stream.stream, "seq": seq, "why": why }))
        });
    let general = found.found.general.iter().map(|why| json!({ "stream": null, "seq": null, "why": why }));
    let bare = unvouched(found)
        .map(|stream| json!({ "stream": stream.stream, "from": stream.vouched + 1, "to": stream.records }));
    json!({
        "schema": "fracas.verification/v1",
        "dataDir": dir.display().to_string(),
        "whole": found.found.whole(),
        "records": found.found.records(),
        "streams": found.found.streams.len(),
        "signedHeads": found.signed,
        "lastSignedWallNs": found.last_signed_wall_ns,
        "broken": general.chain(broken).collect::<Vec<_>>(),
        "onlyTheDatabase": bare.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use fracas_controller::verify::Verification;

    use super::*;

    fn stream(name: &str, vouched: u64, broken: Option<(u64, String)>) -> StreamFinding {
        StreamFinding { stream: name.into(), records: 5, vouched, broken, blobs: vec![] }
    }

    #[test]
    fn what_is_wrong_comes_first_and_what_nothing_vouches_for_last() {
        let streams =
            vec![stream("audit/c", 5, None), stream("run/a", 0, Some((6, "its bytes do not have its hash".into())))];
        let found = Verification { streams, general: vec!["stream run/b is gone".into()] };
        let found = DirVerification { found, signed: 2, last_signed_wall_ns: Some(7) };
        assert_eq!(
            text(Path::new("/d"), &found),
            "BROKEN: stream run/b is gone\nBROKEN: run/a record 6: its bytes do not have its hash\n\
             history in /d: BROKEN; 10 records in 2 streams are chained\nheld against 2 signed heads\n\
             only the database vouches for:\n  run/a records 1 to 5\n"
        );
        let data = data(Path::new("/d"), &found);
        assert_eq!(data["broken"][1], json!({ "stream": "run/a", "seq": 6, "why": "its bytes do not have its hash" }));
        assert_eq!(data["onlyTheDatabase"], json!([{ "stream": "run/a", "from": 1, "to": 5 }]));
        assert_eq!(data["whole"], false);
    }
}

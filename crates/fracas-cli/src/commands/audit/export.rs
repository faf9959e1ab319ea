//! Evidence for somebody who has no Fracas and trusts none: records as they are kept, signed heads, and how to check them.
//!
//! It is fetched, not judged: what is wrong with a history must be there for the auditor to find.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use fracas_model::{
    chain::{Stored, digest_from_hex, hex, sha256},
    evidence::{SignedHead, Walk},
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::{
    Session,
    args::AuditExportArgs,
    client::{Client, KeptStream},
    error::CliError,
    exit, times, words,
};

/// How to check it, for people.
const README: &str = include_str!("README.txt");
/// And for a Python of any age from 3.8 on.
const CHECK: &str = include_str!("check.py");
/// Signed heads that go along.
const HEADS: u32 = 1000;
/// An Ed25519 public key as OpenSSL reads it begins with this (RFC 8410, SubjectPublicKeyInfo).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

pub(super) async fn export(session: &Session<'_>, given: &AuditExportArgs) -> Result<u8, CliError> {
    let to = &given.to;
    if to.exists() {
        return Err(CliError::usage(format!("{} is there already: name a new place", to.display())));
    }
    let client = session.client()?;
    let since = given.since.map(|since| since.wall_ns(times::now()));
    let mut sink = Sink::new(to)?;
    let done = match write(&client, since, &mut sink).await {
        Ok(counted) => sink.finish().map(|()| counted),
        Err(error) => {
            sink.forget();
            Err(error)
        }
    };
    let Counted { records, streams } = done?;
    if session.output.json {
        let to = to.display().to_string();
        session.output.json("fracas.export/v1", &json!({ "to": to, "records": records, "streams": streams }))?;
    } else {
        let what = format!("{} of {}", words::count(records, "record"), words::count(streams, "stream"));
        session.output.line(&format!("{what} are in {}; its README.txt says how to check them", to.display()))?;
    }
    Ok(exit::PASS)
}

/// How much it was.
struct Counted {
    records: usize,
    streams: usize,
}

async fn write(client: &Client, since: Option<i64>, sink: &mut Sink) -> Result<Counted, CliError> {
    // Before the records: a head must not know more than they do.
    let (heads, public) = client.heads(HEADS).await?;
    let (mut index, mut blobs, mut records) = (Vec::new(), BTreeSet::new(), 0);
    for one in client.streams("").await? {
        let Some(stream) = fetched(client, &one, since, &mut blobs, sink).await? else { continue };
        let file = format!("streams/{}.jsonl", file_name(&one.stream));
        sink.put(&file, stream.text.as_bytes())?;
        records += stream.records;
        index.push(json!({ "stream": one.stream, "file": file, "records": stream.records }));
    }
    sink.put("streams.jsonl", lines(&index).as_bytes())?;
    signed(&heads, &public, sink)?;
    let manifest = json!({
        "format": "fracas.evidence/v1", "controller": client.address(), "fetchedWallNs": times::now(),
        "program": env!("CARGO_PKG_VERSION"), "sinceWallNs": since,
    });
    sink.put("manifest.json", format!("{manifest}\n").as_bytes())?;
    sink.put("README.txt", README.as_bytes())?;
    sink.put("check.py", CHECK.as_bytes())?;
    Ok(Counted { records, streams: index.len() })
}

/// The key and the heads, also in the form that OpenSSL takes.
fn signed(heads: &[SignedHead], public: &[u8], sink: &mut Sink) -> Result<(), CliError> {
    let values: Vec<Value> = heads.iter().map(|head| serde_json::to_value(head).unwrap_or_default()).collect();
    sink.put("heads.jsonl", lines(&values).as_bytes())?;
    sink.put("audit.pub", hex(public).as_bytes())?;
    let der = [&SPKI[..], public].concat();
    sink.put(
        "audit.pem",
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64(&der)).as_bytes(),
    )?;
    if let Some(head) = heads.last() {
        sink.put("head.txt", head.text().as_bytes())?;
        sink.put("head.sig", &fracas_model::chain::unhex(&head.signature).unwrap_or_default())?;
    }
    Ok(())
}

/// A stream as lines.
struct Fetched {
    text: String,
    records: usize,
}

/// Fetches a stream, and puts what is beside its records away. `None`: nothing in it is as young as that.
async fn fetched(
    client: &Client,
    one: &KeptStream,
    since: Option<i64>,
    blobs: &mut BTreeSet<String>,
    sink: &mut Sink,
) -> Result<Option<Fetched>, CliError> {
    // Only to learn which bytes belong to which digest; a chain that is broken is exported as it is.
    let mut walk = Walk::new(&one.stream, one.base);
    let mut text = lines(&[json!({ "stream": one.stream, "after": one.base.seq, "hash": hex(&one.base.hash) })]);
    let (mut records, mut youngest) = (0, i64::MIN);
    let mut beside: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut stream = client.records(&one.stream, one.base.seq, true).await?;
    while let Some(record) = stream.next().await {
        let (record, bytes) = record?;
        youngest = youngest.max(wall_ns(&record.stored));
        text += &lines(&[line(&record)]);
        records += 1;
        let named = walk.take(&record).map(|named| named.digest);
        let digest = named.or_else(|| Some(hex(&sha256(bytes.as_deref()?))));
        if let (Some(digest), Some(bytes)) = (digest, bytes) {
            beside.insert(digest, bytes);
        }
    }
    if !one.stream.starts_with("audit/") && since.is_some_and(|since| youngest < since) {
        return Ok(None);
    }
    for (digest, bytes) in beside {
        // The name comes from the history: only a digest is one.
        if digest_from_hex(&digest).is_some() && blobs.insert(digest.clone()) {
            sink.put(&format!("blobs/{digest}"), &bytes)?;
        }
    }
    Ok(Some(Fetched { text, records }))
}

fn line(record: &Stored) -> Value {
    // What is no text cannot be checked as one, and is told as what it is.
    match std::str::from_utf8(&record.stored) {
        Ok(stored) => json!({ "seq": record.seq, "stored": stored, "hash": hex(&record.hash) }),
        Err(_) => json!({ "seq": record.seq, "stored": "", "bytes": hex(&record.stored), "hash": hex(&record.hash) }),
    }
}

fn wall_ns(stored: &[u8]) -> i64 {
    let value: Value = serde_json::from_slice(stored).unwrap_or_default();
    // Without a time it is as young as can be.
    value.pointer("/received/wallNs").and_then(Value::as_i64).unwrap_or(i64::MAX)
}

fn lines(values: &[Value]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}

/// The name of a stream as that of a file, for whatever the controller calls a stream.
fn file_name(stream: &str) -> String {
    let harmless = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    let name: String = stream.chars().map(harmless).take(100).collect();
    // Two names may look the same then.
    format!("{name}-{}", &hex(&sha256(stream.as_bytes()))[..8])
}

/// RFC 4648, for 44 bytes: one line.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let padded = [three[0], *three.get(1).unwrap_or(&0), *three.get(2).unwrap_or(&0)];
        let bits = padded.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let digit = |n: usize| char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize]);
        text.extend((0..4).map(|n| if n <= three.len() { digit(n) } else { '=' }));
    }
    text
}

/// Where the evidence goes: a directory or a tar file, under another name until it is whole.
struct Sink {
    to: PathBuf,
    draft: PathBuf,
    archive: Option<tar::Builder<File>>,
    sums: String,
}

impl Sink {
    fn new(to: &Path) -> Result<Self, CliError> {
        let mut draft = OsString::from(to);
        draft.push(".partial");
        let draft = PathBuf::from(draft);
        let failed = |e: io::Error| CliError::file("make", &draft, &e);
        let archive = if to.extension().is_some_and(|e| e == "tar") {
            Some(tar::Builder::new(File::create_new(&draft).map_err(failed)?))
        } else {
            fs::create_dir(&draft).map_err(failed)?;
            None
        };
        Ok(Self { to: to.to_owned(), draft, archive, sums: String::new() })
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), CliError> {
        self.sums += &format!("{}  {name}\n", hex(&sha256(bytes)));
        self.write(name, bytes).map_err(|e| CliError::file("write", &self.draft.join(name), &e))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if let Some(archive) = &mut self.archive {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            let folder = self.to.file_stem().map(PathBuf::from).unwrap_or_default();
            return archive.append_data(&mut header, folder.join(name), bytes);
        }
        let path = self.draft.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn finish(mut self) -> Result<(), CliError> {
        let sums = std::mem::take(&mut self.sums);
        let written = self.write("SHA256SUMS", sums.as_bytes()).and_then(|()| match self.archive.take() {
            Some(archive) => archive.into_inner()?.sync_all(),
            None => Ok(()),
        });
        let renamed = written.and_then(|()| fs::rename(&self.draft, &self.to));
        renamed.map_err(|e| {
            self.forget();
            CliError::file("write", &self.to, &e)
        })
    }

    /// Removes what there is of it.
    fn forget(&self) {
        // What cannot be removed keeps its name, which says what it is.
        let _ = if self.draft.is_dir() { fs::remove_dir_all(&self.draft) } else { fs::remove_file(&self.draft) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_a_controller_stay_where_they_belong() {
        for stream in ["run/a", "run/../../etc/passwd", "/", "..", &"x".repeat(5000), "run/\u{e9}"] {
            let name = file_name(stream);
            assert!(!name.contains(['/', '.', '\\']) && name.len() < 120 && !name.is_empty(), "{name}");
        }
        assert_ne!(file_name("run/a"), file_name("run.a"));
    }

    #[test]
    fn base64_is_as_the_standard_has_it() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn half_an_export_is_none() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["evidence", "evidence.tar"] {
            let to = folder.path().join(name);
            let mut sink = Sink::new(&to).unwrap();
            sink.put("streams/x", b"abc").unwrap();
            assert!(!to.exists());
            sink.forget();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
            let mut sink = Sink::new(&to).unwrap();
            sink.put("streams/x", b"abc").unwrap();
            sink.finish().unwrap();
            assert!(to.exists());
            fs::remove_dir_all(&to).or_else(|_| fs::remove_file(&to)).unwrap();
        }
    }
}

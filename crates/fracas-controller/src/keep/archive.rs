//! The archive of a backup: an ordinary tar file, whose first member says what the others must be.
//!
//! ```text
//! manifest.json     format, program, instant, epoch, head of the audit stream, and each file with its length and SHA-256
//! history.sqlite    the history, as it was at one instant
//! heads.jsonl       the newest signed heads, the last of them of exactly this history
//! audit.pub  ca.pem  controller.id
//! audit.key  ca.key  server.key  server.pem  admin.token  admin.digest  observer/...        unless without keys
//! ```
//!
//! Members stand in the order of the manifest. A reader takes these names and no others: nothing in an archive decides
//! where anything is written.

use std::io::{self, Read, Write};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::{
    chain::hex,
    datadir::Access,
    identity::AUDIT_KEY_FILE,
    server::{ID_FILE, STORE_FILE},
    verify::HEADS_FILE,
};

/// Names the format and its version.
pub const FORMAT: &str = "fracas.backup/v1";
/// The first member.
const MANIFEST: &str = "manifest.json";
/// Largest manifest read, bytes: it has some hundred for each file.
const MAX_MANIFEST: u64 = 64 << 10;
/// Bytes copied at once.
const BLOCK: usize = 64 << 10;

/// A file that a backup may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name, in the archive and below the data directory.
    pub name: &'static str,
    /// Who may read it there.
    pub access: Access,
    /// It holds a key or a token, or is of no use without one.
    pub key: bool,
}

const fn public(name: &'static str) -> Known {
    Known { name, access: Access::Public, key: false }
}

const fn secret(name: &'static str) -> Known {
    Known { name, access: Access::Private, key: true }
}

const fn goes_with_a_key(name: &'static str) -> Known {
    Known { name, access: Access::Public, key: true }
}

/// Every file that a backup may hold.
pub const FILES: [Known; 15] = [
    Known { name: STORE_FILE, access: Access::Private, key: false },
    Known { name: HEADS_FILE, access: Access::Private, key: false },
    public(AUDIT_KEY_FILE),
    public("ca.pem"),
    public(ID_FILE),
    secret("audit.key"),
    secret("ca.key"),
    secret("server.key"),
    goes_with_a_key("server.pem"),
    secret("admin.token"),
    secret("admin.digest"),
    // The host that looks for the controller goes with it: else it would be a stranger to runs that are open.
    secret("observer/key.pem"),
    goes_with_a_key("observer/cert.pem"),
    goes_with_a_key("observer/ca.pem"),
    goes_with_a_key("observer/host_id"),
];

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// Version of the program that made it.
    pub program: String,
    /// When, wall time, nanoseconds since the Unix epoch.
    pub made_wall_ns: i64,
    /// The controller's epoch.
    pub epoch: u64,
    /// Its audit stream.
    pub audit: String,
    /// Number of the last record of that.
    pub audit_seq: u64,
    /// Hash of that record, hex.
    pub audit_hash: String,
    /// Whether the controller's keys are in it.
    pub with_keys: bool,
    /// The other members, in their order.
    pub files: Vec<Member>,
}

/// One file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
}

/// Why an archive cannot be used. It was not read on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not one of ours.
    #[error("it is not a backup of Fracas ({0})")]
    Foreign(String),
    /// A later version made it.
    #[error(
        "it has the format {0}, this program knows {FORMAT}: restore it with the program that made it, or a later one"
    )]
    Newer(String),
    /// It is not what was written.
    #[error("it is damaged ({0}): use another copy of it")]
    Damaged(String),
    /// What was read could not be put down.
    #[error("{name} cannot be written: {source}")]
    Write {
        /// The file.
        name: &'static str,
        /// What the machine said.
        source: io::Error,
    },
}

/// A file on its way into an archive, with what the manifest says of it.
pub struct Packed {
    member: Member,
    from: Box<dyn Source>,
}

/// Something that can be read twice: once for its digest, once for its bytes.
pub trait Source: Read + io::Seek + Send {}
impl<T: Read + io::Seek + Send> Source for T {}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packed").field("member", &self.member).finish_non_exhaustive()
    }
}

impl Packed {
    /// Reads all of it once.
    pub fn new(name: &'static str, mut from: Box<dyn Source>) -> io::Result<Self> {
        from.rewind()?;
        let (bytes, sha256) = copy(&mut from, &mut io::sink())?;
        Ok(Self { member: Member { name: name.to_owned(), bytes, sha256 }, from })
    }

    /// What the manifest says of it.
    pub fn member(&self) -> &Member {
        &self.member
    }
}

/// Writes an archive of these files; the manifest's list of them is made here.
pub fn write(to: impl Write, mut manifest: Manifest, files: Vec<Packed>) -> io::Result<()> {
    manifest.files = files.iter().map(|file| file.member.clone()).collect();
    let mtime = u64::try_from(manifest.made_wall_ns / 1_000_000_000).unwrap_or(0);
    let mut archive = tar::Builder::new(to);
    let mut add = |name: &str, bytes: u64, from: &mut dyn Read| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_mtime(mtime);
        archive.append_data(&mut header, name, from)
    };
    let text = serde_json::to_string_pretty(&manifest).expect("a manifest has only text keys") + "\n";
    add(MANIFEST, text.len() as u64, &mut text.as_bytes())?;
    for mut file in files {
        file.from.rewind()?;
        add(&file.member.name, file.member.bytes, &mut file.from.take(file.member.bytes))?;
    }
    archive.into_inner()?.flush()
}

/// Reads an archive through and through, handing each file to what `open` gives for it. Every length and digest has been
/// checked when it returns.
pub fn read<W: Write>(
    from: impl Read,
    mut open: impl FnMut(&Manifest, &Known) -> io::Result<W>,
) -> Result<Manifest, ArchiveError> {
    let mut archive = tar::Archive::new(from);
    let mut members = archive.entries().map_err(|e| foreign(&e))?;
    let manifest = manifest(members.next().ok_or_else(|| ArchiveError::Foreign("it is empty".to_owned()))?)?;
    let mut seen = Vec::new();
    for member in &manifest.files {
        let known = FILES.iter().find(|known| known.name == member.name && !seen.contains(&known.name));
        let known = known.ok_or_else(|| damaged(&member.name, "it has no place in a backup"))?;
        seen.push(known.name);
        let entry = members.next().ok_or_else(|| damaged(known.name, "it is missing"))?;
        let mut entry = entry.map_err(|e| damaged(known.name, &e.to_string()))?;
        let regular = entry.header().entry_type().is_file();
        if !regular || *entry.path_bytes() != *known.name.as_bytes() || entry.size() != member.bytes {
            return Err(damaged(known.name, "it is not what the manifest says"));
        }
        let failed = |source| ArchiveError::Write { name: known.name, source };
        let mut to = open(&manifest, known).map_err(failed)?;
        let mut faulty = Faulty { to: &mut to, failed: None };
        let copied = copy(&mut entry, &mut faulty);
        if let Some(source) = faulty.failed {
            return Err(failed(source));
        }
        if copied.map_err(|e| damaged(known.name, &e.to_string()))? != (member.bytes, member.sha256.clone()) {
            return Err(damaged(known.name, "its bytes do not have its digest"));
        }
        to.flush().map_err(failed)?;
    }
    match members.next() {
        None => Ok(manifest),
        Some(_) => Err(ArchiveError::Damaged("there is more in it than its manifest says".to_owned())),
    }
}

fn manifest<R: Read>(entry: io::Result<tar::Entry<'_, R>>) -> Result<Manifest, ArchiveError> {
    let mut entry = entry.map_err(|e| foreign(&e))?;
    if *entry.path_bytes() != *MANIFEST.as_bytes() || entry.size() > MAX_MANIFEST {
        return Err(ArchiveError::Foreign(format!("it does not begin with {MANIFEST}")));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(|e| foreign(&e))?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| ArchiveError::Damaged(format!("{MANIFEST}: {e}")))?;
    match value.get("format").and_then(serde_json::Value::as_str) {
        Some(FORMAT) => {}
        Some(other) if other.starts_with("fracas.backup/") => return Err(ArchiveError::Newer(other.to_owned())),
        _ => return Err(ArchiveError::Foreign(format!("{MANIFEST} names no format"))),
    }
    serde_json::from_value(value).map_err(|e| ArchiveError::Damaged(format!("{MANIFEST}: {e}")))
}

fn foreign(error: &io::Error) -> ArchiveError {
    ArchiveError::Foreign(error.to_string())
}

fn damaged(name: &str, why: &str) -> ArchiveError {
    // The name may be hostile text of any length.
    ArchiveError::Damaged(format!("{}: {why}", name.chars().take(64).collect::<String>()))
}

/// Tells an error of writing from one of reading.
struct Faulty<'w, W> {
    to: &'w mut W,
    failed: Option<io::Error>,
}

impl<W: Write> Write for Faulty<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes).inspect_err(|e| self.failed = Some(e.kind().into()))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Copies to the end; length and SHA-256 of what it was.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<(u64, String)> {
    let (mut context, mut block, mut length) = (Context::new(&SHA256), vec![0; BLOCK], 0_u64);
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok((length, hex(context.finish().as_ref()))),
            Ok(n) => {
                context.update(&block[..n]);
                to.write_all(&block[..n])?;
                length += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests;

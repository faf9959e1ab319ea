//! Who this controller is: its certificate authority, its server certificate, its signature and its first operator.
//!
//! Everything is made at the first start and kept in the data directory. It decides nothing about who may do what.

mod authority;
mod server;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use fracas_model::{id::HostId, units::Dur};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use rustls::pki_types::CertificateDer;

use self::authority::Authority;
pub(crate) use self::server::provider;
pub use self::{
    authority::{HOST_CERTIFICATE_LIFE, HostCertificate, holds_until, peer_host, peer_serial, peer_validity},
    server::{SERVER_NAME, ServerCertificate},
};
use crate::{
    chain::{self, Digest, hex, sha256},
    datadir::{Access, DataDir, DataDirError},
};

/// Why an identity cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A file is there, but is not what it should be.
    #[error("{path} cannot be used ({detail}): {remedy}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
        /// The way out.
        remedy: &'static str,
    },
    /// A signing request was refused.
    #[error("signing request refused: {0}")]
    Request(String),
    /// A name for the server's certificate.
    #[error("`{0}` is neither a host name nor an address: correct it in --name")]
    Name(String),
    /// Making a key or certificate failed.
    #[error("cannot make {what}: {detail}")]
    Crypto {
        /// Which.
        what: &'static str,
        /// What the library said.
        detail: String,
    },
}

/// Keys and certificates of one controller.
pub struct Identity {
    authority: Authority,
    server: Arc<ServerCertificate>,
    audit: AuditKey,
    admin: Digest,
}

/// The key that signs heads of the audit stream.
pub struct AuditKey(Ed25519KeyPair);

impl std::fmt::Debug for AuditKey {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditKey").finish_non_exhaustive()
    }
}

impl AuditKey {
    /// The key in a data directory; `None` when there is none.
    pub fn open(dir: &DataDir) -> Result<Option<Self>, IdentityError> {
        let Some(pkcs8) = dir.read("audit.key", Access::Private)? else { return Ok(None) };
        let key = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|e| IdentityError::Unusable {
            path: dir.join("audit.key"),
            detail: e.to_string(),
            remedy: "restore it from a backup; without it, former signatures can still be checked with audit.pub",
        })?;
        Ok(Some(Self(key)))
    }

    /// An Ed25519 signature over these bytes, 64 bytes.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.sign(bytes).as_ref().to_vec()
    }
}

/// Holds the public key of the audit, hexadecimal.
pub const AUDIT_KEY_FILE: &str = "audit.pub";

/// What restores an identity that is broken.
const RESTORE: &str = "restore the data directory from a backup; a new identity means enrolling every host again";

impl Identity {
    /// Opens the identity in `dir`, making what is not there. `names` are further names and addresses under which
    /// clients reach this controller; `now_ns` is the wall time, nanoseconds since the Unix epoch.
    pub fn open(dir: &DataDir, names: &[String], now_ns: i64) -> Result<Self, IdentityError> {
        let authority = Authority::open(dir, now_ns)?;
        let server = ServerCertificate::open(dir, &authority, names, now_ns)?;
        Ok(Self { authority, server: Arc::new(server), audit: audit_key(dir)?, admin: admin_digest(dir)? })
    }

    /// The CA's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The CA's certificate, DER.
    pub fn ca_der(&self) -> &CertificateDer<'static> {
        self.authority.der()
    }

    /// SHA-256 of the CA's certificate, which join tokens pin.
    pub fn ca_digest(&self) -> Digest {
        sha256(self.authority.der())
    }

    /// The server's certificate as the listeners use it.
    pub fn server(&self) -> &Arc<ServerCertificate> {
        &self.server
    }

    /// Renews the server's certificate when half its life is over; connections made from then on see the new one.
    /// Call it now and then in a controller that runs for weeks.
    pub fn renew(&self, dir: &DataDir, now_ns: i64) -> Result<bool, IdentityError> {
        self.server.renew(dir, &self.authority, now_ns)
    }

    /// Signs a host's request: a client certificate for `host` with this life, but no longer than the authority's. Only
    /// the key is taken from the request; name, use and life are ours.
    pub fn sign_csr(
        &self,
        csr_pem: &str,
        host: &HostId,
        hostname: &str,
        life: Dur,
        now_ns: i64,
    ) -> Result<HostCertificate, IdentityError> {
        self.authority.sign_host(csr_pem, host, hostname, life, now_ns)
    }

    /// Signs the head of the audit stream, or anything else this controller vouches for (Ed25519, 64 bytes).
    pub fn sign_head(&self, bytes: &[u8]) -> Vec<u8> {
        self.audit.sign(bytes)
    }

    /// What signs heads.
    pub fn audit(&self) -> &AuditKey {
        &self.audit
    }

    /// The public key of [`sign_head`](Self::sign_head), 32 bytes; also in `audit.pub`, hexadecimal.
    pub fn audit_public(&self) -> &[u8] {
        self.audit.0.public_key().as_ref()
    }

    /// Whether a presented token is the administrator's.
    pub fn is_admin(&self, token: &str) -> bool {
        chain::same(&sha256(token.as_bytes()), &self.admin)
    }
}

/// Whether `signature` over `bytes` was made by the holder of the Ed25519 key `public`.
pub fn verify_head(public: &[u8], bytes: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(bytes, signature).is_ok()
}

/// Writes `admin.yaml`, the context file by which the command line on this machine finds the controller.
pub fn write_context(dir: &DataDir, front: SocketAddr) -> Result<PathBuf, IdentityError> {
    // JSON text is YAML too, and a path may hold any character.
    let quote = |path: PathBuf| serde_json::to_string(&path.display().to_string()).expect("a text is JSON");
    let path = |name| quote(std::path::absolute(dir.join(name)).unwrap_or_else(|_| dir.join(name)));
    let text = format!(
        "apiVersion: fracas/v1\nkind: Context\ncontroller: \"{}\"\nca: {}\ntokenFile: {}\n",
        reachable(front),
        path("ca.pem"),
        path("admin.token")
    );
    dir.write("admin.yaml", text.as_bytes(), Access::Private)?;
    Ok(dir.join("admin.yaml"))
}

/// The address by which a listener on all addresses is reached from the same machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// Random bytes of the kernel.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

fn audit_key(dir: &DataDir) -> Result<AuditKey, IdentityError> {
    let known = dir.read(AUDIT_KEY_FILE, Access::Public)?;
    let key = match AuditKey::open(dir)? {
        Some(key) => key,
        // Nothing that was signed before could be proved by a new one.
        None if known.is_some() => {
            return Err(IdentityError::Unusable {
                path: dir.join("audit.key"),
                detail: format!("it is gone, and {AUDIT_KEY_FILE} is there"),
                remedy: "put it back from a backup; or keep audit.pub and heads.jsonl elsewhere, to check with them what \
                         was signed so far, and move them away: then a new key is made",
            });
        }
        None => {
            let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                .map_err(|e| IdentityError::Crypto { what: "the audit key", detail: e.to_string() })?;
            dir.write("audit.key", made.as_ref(), Access::Private)?;
            AuditKey::open(dir)?.expect("it was just written")
        }
    };
    let public = hex(key.0.public_key().as_ref());
    if known.as_deref() != Some(public.as_bytes()) {
        dir.write(AUDIT_KEY_FILE, public.as_bytes(), Access::Public)?;
    }
    Ok(key)
}

/// The token is only ever in its file; what is kept is its digest, so the file may be moved away.
fn admin_digest(dir: &DataDir) -> Result<Digest, IdentityError> {
    const REMEDY: &str = "remove admin.token and admin.digest and start again to get a new token";
    let unusable = |name, detail: &str| IdentityError::Unusable {
        path: dir.join(name),
        detail: detail.to_owned(),
        remedy: REMEDY,
    };
    let token = if let Some(token) = dir.read("admin.token", Access::Private)? {
        String::from_utf8(token).map_err(|_| unusable("admin.token", "not a text"))?
    } else {
        if let Some(kept) = dir.read("admin.digest", Access::Private)? {
            let text = String::from_utf8_lossy(&kept);
            return chain::digest_from_hex(text.trim()).ok_or_else(|| unusable("admin.digest", "not a digest"));
        }
        let made = format!("fat1.{}", hex(&random::<32>()));
        dir.write("admin.token", made.as_bytes(), Access::Private)?;
        made
    };
    let token = token.trim();
    if !token.starts_with("fat1.") || token.len() < 37 {
        return Err(unusable("admin.token", "an admin token is `fat1.` and at least 32 further characters"));
    }
    let digest = sha256(token.as_bytes());
    dir.write("admin.digest", hex(&digest).as_bytes(), Access::Private)?;
    Ok(digest)
}

#[cfg(test)]
mod tests;

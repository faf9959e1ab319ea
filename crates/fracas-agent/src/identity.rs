//! Who this host is to the controller: key, certificate, authority and id, in the state directory. It makes none of them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use fracas_model::id::HostId;
use rcgen::KeyPair;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::enrol::EnrolError;

/// File of the private key, mode 0600.
const KEY: &str = "key.pem";
/// File of the host's certificate.
const CERTIFICATE: &str = "cert.pem";
/// File of the authority's certificate.
const AUTHORITY: &str = "ca.pem";
/// File of the host's id.
const HOST: &str = "host_id";
/// The key of an enrolment that has had no answer yet, mode 0600.
const DRAFT: &str = "key.draft";
/// Every file of an identity, in the state directory.
pub const FILES: [&str; 4] = [KEY, CERTIFICATE, AUTHORITY, HOST];

/// A host's credentials, as PEM texts.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The id the controller gave.
    pub host: HostId,
    /// The private key.
    pub key_pem: String,
    /// The certificate.
    pub certificate_pem: String,
    /// The authority that signed it, which also signs controllers.
    pub authority_pem: String,
}

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error("{file} in the state directory cannot be {what}: {error}")]
    Io {
        /// The file.
        file: &'static str,
        /// `read` or `written`.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A part is damaged, or the parts do not belong together.
    #[error("{0}; remove key.pem, cert.pem, ca.pem and host_id from the state directory and enrol with a new token")]
    Unusable(String),
}

impl std::fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Identity {
    /// What is stored in `dir`; `None` before the first enrolment.
    pub fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let read = |file| match fs::read_to_string(dir.join(file)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(IdentityError::Io { file, what: "read", error }),
        };
        // The certificate is written last: without it there was no enrolment.
        let Some(certificate_pem) = read(CERTIFICATE)? else { return Ok(None) };
        let missing = |file| IdentityError::Unusable(format!("{file} is missing beside {CERTIFICATE}"));
        Ok(Some(Self {
            host: HostId::new(read(HOST)?.ok_or_else(|| missing(HOST))?.trim()),
            key_pem: read(KEY)?.ok_or_else(|| missing(KEY))?,
            certificate_pem,
            authority_pem: read(AUTHORITY)?.ok_or_else(|| missing(AUTHORITY))?,
        }))
    }

    /// Stores it, each file as a whole and the certificate last, so that a crash leaves either enrolment or none.
    pub fn store(&self, dir: &Path) -> Result<(), IdentityError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| IdentityError::Io { file: "the directory itself", what: "written", error })?;
        let files = [
            (HOST, self.host.as_str()),
            (AUTHORITY, &self.authority_pem),
            (KEY, &self.key_pem),
            (CERTIFICATE, &self.certificate_pem),
        ];
        for (file, text) in files {
            replace(dir, file, text).map_err(|error| IdentityError::Io { file, what: "written", error })?;
        }
        Ok(())
    }

    /// Settings of mutual TLS with this identity; fails when key and certificate do not belong together.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let broken =
            |what: &str, e: &dyn std::fmt::Display| IdentityError::Unusable(format!("{what} is unusable: {e}"));
        let certificates = certificates(&self.certificate_pem).map_err(|e| broken(CERTIFICATE, &e))?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|e| broken(KEY, &e))?;
        let mut roots = RootCertStore::empty();
        for authority in self::certificates(&self.authority_pem).map_err(|e| broken(AUTHORITY, &e))? {
            roots.add(authority).map_err(|e| broken(AUTHORITY, &e))?;
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| broken("TLS", &e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates, key)
            .map_err(|e| broken("the pair of key.pem and cert.pem", &e))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// Which fleet this is: SHA-256 of the authority's certificate, hexadecimal.
    pub fn fleet(&self) -> String {
        Sha256::digest(self.authority_pem.trim()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Last second (Unix time) at which the certificate is valid.
    pub fn valid_until(&self) -> Result<i64, IdentityError> {
        let broken = |e: &dyn std::fmt::Display| IdentityError::Unusable(format!("{CERTIFICATE} is unusable: {e}"));
        let certificates = certificates(&self.certificate_pem).map_err(|e| broken(&e))?;
        let first = certificates.first().ok_or_else(|| broken(&"it is empty"))?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|e| broken(&e))?;
        Ok(parsed.validity().not_after.timestamp())
    }
}

/// The key to enrol with: that of an attempt whose answer was not heard, so that the controller knows the host again,
/// else a new one.
pub(crate) fn draft_key(dir: &Path) -> Result<KeyPair, EnrolError> {
    if let Some(key) = fs::read_to_string(dir.join(DRAFT)).ok().and_then(|pem| KeyPair::from_pem(&pem).ok()) {
        return Ok(key);
    }
    let key = KeyPair::generate().map_err(EnrolError::Key)?;
    replace(dir, DRAFT, &key.serialize_pem()).map_err(EnrolError::Draft)?;
    Ok(key)
}

/// The attempt is over: the key is stored with its certificate, or refused.
pub(crate) fn forget_draft_key(dir: &Path) -> Result<(), EnrolError> {
    match fs::remove_file(dir.join(DRAFT)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EnrolError::Draft(error)),
        _ => Ok(()),
    }
}

/// All certificates of a PEM text.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect()
}

/// Writes a file beside its place, syncs it, and moves it there.
fn replace(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    let fresh = dir.join(format!("{file}.new"));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(if file == KEY || file == DRAFT { 0o600 } else { 0o644 });
    let mut written = options.open(&fresh)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::rename(&fresh, dir.join(file))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn identity() -> Identity {
        let made = rcgen::generate_simple_self_signed(vec!["h".to_owned()]).unwrap();
        Identity {
            host: "h".into(),
            key_pem: made.signing_key.serialize_pem(),
            certificate_pem: made.cert.pem(),
            authority_pem: made.cert.pem(),
        }
    }

    #[test]
    fn what_is_stored_is_loaded_and_the_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), None);
        let identity = identity();
        identity.store(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap(), Some(identity.clone()));
        let mode = fs::metadata(dir.path().join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        identity.client_config().unwrap();
        assert!(identity.valid_until().unwrap() > 1_700_000_000);
        assert!(!format!("{identity:?}").contains("PRIVATE"), "the key is not shown");
    }

    #[test]
    fn an_enrolment_without_an_answer_goes_on_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let first = draft_key(dir.path()).unwrap().serialize_pem();
        assert_eq!(draft_key(dir.path()).unwrap().serialize_pem(), first);
        let mode = fs::metadata(dir.path().join(DRAFT)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        forget_draft_key(dir.path()).unwrap();
        assert_ne!(draft_key(dir.path()).unwrap().serialize_pem(), first);
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused_with_the_way_out() {
        let mixed = Identity { key_pem: identity().key_pem, ..identity() };
        let error = mixed.client_config().unwrap_err().to_string();
        assert!(error.contains("enrol with a new token"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        identity().store(dir.path()).unwrap();
        fs::remove_file(dir.path().join(KEY)).unwrap();
        assert!(Identity::load(dir.path()).is_err());
    }
}

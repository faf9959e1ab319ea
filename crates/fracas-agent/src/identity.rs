//! Who this host is to the controller: key, certificate, authority and id, in the state directory. It makes none of them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use fracas_model::{id::HostId, identity::Validity};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    crash::{self, Renewing},
    enrol::EnrolError,
};

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
/// Key and certificate of a renewal, mode 0600: in one file, so that there are both or neither. While it is there it counts,
/// and [`KEY`] and [`CERTIFICATE`] do not.
const RENEWED: &str = "renewed.pem";
/// Where a certificate begins in [`RENEWED`], after the key.
const BEGINS: &str = "-----BEGIN CERTIFICATE-----";
/// Every file of an identity, in the state directory.
pub const FILES: [&str; 5] = [RENEWED, KEY, CERTIFICATE, AUTHORITY, HOST];

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
        let stored = Self {
            host: HostId::new(read(HOST)?.ok_or_else(|| missing(HOST))?.trim()),
            key_pem: read(KEY)?.ok_or_else(|| missing(KEY))?,
            certificate_pem,
            authority_pem: read(AUTHORITY)?.ok_or_else(|| missing(AUTHORITY))?,
        };
        let renewed = read(RENEWED)?.and_then(|text| stored.renewed_by(&text));
        Ok(Some(renewed.unwrap_or(stored)))
    }

    /// With key and certificate of a renewal, if they belong together.
    fn renewed_by(&self, text: &str) -> Option<Self> {
        let (key, certificate) = text.split_at(text.find(BEGINS)?);
        self.with(key, certificate).ok()
    }

    /// The same host with another key and certificate.
    ///
    /// # Errors
    /// When they do not belong together.
    pub(crate) fn with(&self, key_pem: &str, certificate_pem: &str) -> Result<Self, IdentityError> {
        let (key_pem, certificate_pem) = (key_pem.to_owned(), certificate_pem.to_owned());
        let renewed = Self { key_pem, certificate_pem, ..self.clone() };
        renewed.client_config().map(|_| renewed)
    }

    /// Stores a renewal: once this has returned, every start finds the new certificate, and whenever it is interrupted, a
    /// start finds the new one or the former one, whole. Only the agent that holds the directory's lock may call it.
    pub(crate) fn store_renewed(&self, dir: &Path) -> Result<(), IdentityError> {
        let both = format!("{}{}", self.key_pem, self.certificate_pem);
        crash::renewing(Renewing::Answered);
        replace(dir, RENEWED, &both).map_err(written(RENEWED))?;
        crash::renewing(Renewing::Kept);
        self.settle(dir)
    }

    /// Finishes a renewal that is stored: key and certificate go to their places. Does nothing when there is none. Only the
    /// agent that holds the directory's lock may call it.
    pub(crate) fn settle(&self, dir: &Path) -> Result<(), IdentityError> {
        if !dir.join(RENEWED).exists() {
            return Ok(());
        }
        replace(dir, KEY, &self.key_pem).map_err(written(KEY))?;
        crash::renewing(Renewing::KeyMoved);
        replace(dir, CERTIFICATE, &self.certificate_pem).map_err(written(CERTIFICATE))?;
        crash::renewing(Renewing::CertificateMoved);
        remove(dir, RENEWED).map_err(written(RENEWED))?;
        crash::renewing(Renewing::Settled);
        Ok(())
    }

    /// Stores it, each file as a whole and the certificate last, so that a crash leaves either enrolment or none.
    pub fn store(&self, dir: &Path) -> Result<(), IdentityError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(written("the directory itself"))?;
        // That of another identity.
        remove(dir, RENEWED).map_err(written(RENEWED))?;
        let files = [
            (HOST, self.host.as_str()),
            (AUTHORITY, &self.authority_pem),
            (KEY, &self.key_pem),
            (CERTIFICATE, &self.certificate_pem),
        ];
        for (file, text) in files {
            replace(dir, file, text).map_err(written(file))?;
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

    /// From when until when the certificate is valid.
    pub fn validity(&self) -> Result<Validity, IdentityError> {
        let broken = |e: &dyn std::fmt::Display| IdentityError::Unusable(format!("{CERTIFICATE} is unusable: {e}"));
        let certificates = certificates(&self.certificate_pem).map_err(|e| broken(&e))?;
        let first = certificates.first().ok_or_else(|| broken(&"it is empty"))?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|e| broken(&e))?;
        let validity = parsed.validity();
        Ok(Validity { from_s: validity.not_before.timestamp(), until_s: validity.not_after.timestamp() })
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

/// A signing request for a key: it says nothing else, since the controller decides what the certificate says.
pub(crate) fn request(key: &KeyPair, name: &str) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serialize_request(key)?.pem()
}

/// All certificates of a PEM text.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect()
}

fn written(file: &'static str) -> impl FnOnce(io::Error) -> IdentityError {
    move |error| IdentityError::Io { file, what: "written", error }
}

/// Removes a file, if it is there, so that it stays away.
fn remove(dir: &Path, file: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| File::open(dir)?.sync_all()),
    }
}

/// Writes a file beside its place, syncs it, and moves it there.
fn replace(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    let fresh = dir.join(format!("{file}.new"));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(if [KEY, DRAFT, RENEWED].contains(&file) {
        0o600
    } else {
        0o644
    });
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
        assert!(identity.validity().unwrap().until_s > 1_700_000_000);
        assert!(!format!("{identity:?}").contains("PRIVATE"), "the key is not shown");
    }

    #[test]
    fn a_renewal_counts_as_soon_as_it_is_stored_and_whatever_is_left_of_it_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let first = identity();
        first.store(dir.path()).unwrap();
        let fresh = identity();
        let next = first.with(&fresh.key_pem, &fresh.certificate_pem).unwrap();
        assert!(first.with(&first.key_pem, &fresh.certificate_pem).is_err(), "they do not belong together");
        let found = || Identity::load(dir.path()).unwrap().unwrap();
        // Each state in which an interrupted renewal leaves the files, one after the other.
        replace(dir.path(), "renewed.pem.new", "half").unwrap();
        assert_eq!(found(), first);
        replace(dir.path(), RENEWED, &format!("{}{}", next.key_pem, next.certificate_pem)).unwrap();
        assert_eq!(found(), next);
        replace(dir.path(), KEY, &next.key_pem).unwrap();
        assert_eq!(found(), next);
        replace(dir.path(), CERTIFICATE, &next.certificate_pem).unwrap();
        assert_eq!(found(), next);
        next.settle(dir.path()).unwrap();
        assert_eq!((found(), dir.path().join(RENEWED).exists()), (next.clone(), false));
        let mode = fs::metadata(dir.path().join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // What is no pair does not count, and another identity takes it away.
        replace(dir.path(), RENEWED, "-----BEGIN CERTIFICATE-----").unwrap();
        assert_eq!(found(), next);
        first.store(dir.path()).unwrap();
        assert_eq!((found(), dir.path().join(RENEWED).exists()), (first, false));
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

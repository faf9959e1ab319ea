//! The certificate authority: its key, its certificate, and what it signs for hosts and for the server.
//!
//! It remembers nothing of what it signed; that is the history's business.

use fracas_model::{id::HostId, identity::Validity, units::Dur};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::{Duration, OffsetDateTime};
use x509_parser::{extensions::GeneralName, parse_x509_certificate, prelude::X509Certificate};

use super::{IdentityError, RESTORE, random};
use crate::{
    chain::{hex, sha256},
    datadir::{Access, DataDir},
};

/// How long a host's certificate lives unless configured. Long, because agents of older versions do not renew it.
pub const HOST_CERTIFICATE_LIFE: Dur = Dur::from_secs(365 * 86_400);

/// How long the authority lives: longer than anybody keeps a fleet without touching it.
const AUTHORITY_DAYS: i64 = 3650;

/// Certificates begin this long before they are made, for hosts whose clocks are slow.
const SLOW_CLOCKS: Duration = Duration::HOUR;

/// Longest signing request, bytes; one with an RSA key of 4096 bits has about 1700.
const MAX_REQUEST_BYTES: usize = 16 << 10;

/// X.520 allows a common name of 64 characters.
const MAX_COMMON_NAME: usize = 64;

/// Scheme of the URI by which a certificate names a host.
const HOST_URI: &str = "fracas:host:";

/// A certificate signed for a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCertificate {
    /// The certificate.
    pub pem: String,
    /// Its serial number, hexadecimal, as [`peer_serial`] gives it.
    pub serial: String,
    /// SHA-256 of the public key it is about, hexadecimal.
    pub key: String,
    /// When it holds.
    pub validity: Validity,
}

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

pub(super) fn crypto(what: &'static str) -> impl FnOnce(rcgen::Error) -> IdentityError {
    move |e| IdentityError::Crypto { what, detail: e.to_string() }
}

pub(super) fn moment(wall_ns: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(wall_ns.into()).expect("i64 nanoseconds end in the year 2262")
}

/// A key of the one kind we make.
pub(super) fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto("a key"))
}

/// A random serial number of 16 bytes whose first byte makes DER neither pad nor shorten it.
fn new_serial() -> [u8; 16] {
    let mut serial = random::<16>();
    serial[0] = serial[0] & 0x3f | 0x40;
    serial
}

/// Fields that all our certificates share.
pub(super) fn params(common_name: &str, now_ns: i64, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = moment(now_ns);
    params.not_before = now - SLOW_CLOCKS;
    params.not_after = now + Duration::days(days);
    params.serial_number = Some(SerialNumber::from_slice(&new_serial()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    params
}

impl Authority {
    pub(super) fn open(dir: &DataDir, now_ns: i64) -> Result<Self, IdentityError> {
        let unusable = |name, detail: String| IdentityError::Unusable { path: dir.join(name), detail, remedy: RESTORE };
        let (key, cert) = (dir.read("ca.key", Access::Private)?, dir.read("ca.pem", Access::Public)?);
        let key = match (key, &cert) {
            (Some(pem), _) => {
                let text = String::from_utf8_lossy(&pem);
                KeyPair::from_pem(&text).map_err(|e| unusable("ca.key", e.to_string()))?
            }
            (None, Some(_)) => return Err(unusable("ca.key", "it is gone, and ca.pem is there".to_owned())),
            (None, None) => {
                let key = new_key()?;
                dir.write("ca.key", key.serialize_pem().as_bytes(), Access::Private)?;
                key
            }
        };
        // A key without a certificate is a first start that was interrupted: nobody has seen a certificate yet.
        let pem = if let Some(pem) = cert {
            String::from_utf8(pem).map_err(|_| unusable("ca.pem", "not a text".to_owned()))?
        } else {
            let pem = certify(&key, now_ns)?;
            dir.write("ca.pem", pem.as_bytes(), Access::Public)?;
            pem
        };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| unusable("ca.pem", e.to_string()))?;
        check(&der, &key, now_ns).map_err(|detail| unusable("ca.pem", detail))?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| unusable("ca.pem", e.to_string()))?;
        Ok(Self { issuer, der, pem })
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub(super) fn sign_host(
        &self,
        csr_pem: &str,
        host: &HostId,
        hostname: &str,
        life: Dur,
        now_ns: i64,
    ) -> Result<HostCertificate, IdentityError> {
        let refused = |why: String| IdentityError::Request(why);
        if csr_pem.len() > MAX_REQUEST_BYTES {
            return Err(refused(format!("{} bytes long, at most {MAX_REQUEST_BYTES} may be", csr_pem.len())));
        }
        if uuid::Uuid::parse_str(host.as_str()).is_err() {
            return Err(refused(format!("host id `{host}` is not a UUID")));
        }
        // This checks that the request is signed by the key it is about.
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| refused(e.to_string()))?;
        let plain = |name: &str| {
            !name.is_empty() && name.len() <= MAX_COMMON_NAME && name.bytes().all(|b| b.is_ascii_graphic())
        };
        let mut ours = params(if plain(hostname) { hostname } else { host.as_str() }, now_ns, 0);
        let now_s = now_ns.div_euclid(1_000_000_000);
        let validity = Validity::signed_at(now_s, life, holds_until(&self.der).unwrap_or(i64::MAX));
        let second = |s: i64| moment(s.saturating_mul(1_000_000_000));
        (ours.not_before, ours.not_after) = (second(validity.from_s), second(validity.until_s));
        let uri = format!("{HOST_URI}{host}").try_into().map_err(crypto("a host's name"))?;
        ours.subject_alt_names = vec![SanType::URI(uri)];
        ours.is_ca = IsCa::ExplicitNoCa;
        ours.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        ours.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let serial = ours.serial_number.as_ref().map(|serial| hex(&serial.to_bytes())).unwrap_or_default();
        let key = hex(&sha256(&request.public_key.subject_public_key_info()));
        request.params = ours;
        let signed = request.signed_by(&self.issuer).map_err(crypto("a host's certificate"))?;
        Ok(HostCertificate { pem: signed.pem(), serial, key, validity })
    }

    pub(super) fn sign_server(&self, params: &CertificateParams, key: &KeyPair) -> Result<String, IdentityError> {
        Ok(params.signed_by(key, &self.issuer).map_err(crypto("the server's certificate"))?.pem())
    }
}

fn certify(key: &KeyPair, now_ns: i64) -> Result<String, IdentityError> {
    // The name tells two authorities apart in error messages and in trust stores.
    let mut params = params(&format!("Fracas CA {}", hex(&random::<4>())), now_ns, AUTHORITY_DAYS);
    // It signs hosts and servers, never another authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key).map_err(crypto("the authority's certificate"))?.pem())
}

fn check(der: &CertificateDer<'_>, key: &KeyPair, now_ns: i64) -> Result<(), String> {
    let (_, cert) = parse_x509_certificate(der).map_err(|e| e.to_string())?;
    if !cert.is_ca() {
        return Err("it is not the certificate of an authority".to_owned());
    }
    if cert.public_key().raw != key.subject_public_key_info() {
        return Err("it does not belong to ca.key".to_owned());
    }
    let (now, ends) = (moment(now_ns).unix_timestamp(), cert.validity().not_after);
    if now >= ends.timestamp() {
        return Err(format!("it expired at {ends}"));
    }
    Ok(())
}

/// The host a verified client certificate stands for; `None` when it names none, or more than one.
pub fn peer_host(der: &CertificateDer<'_>) -> Option<HostId> {
    let (_, cert) = parse_x509_certificate(der).ok()?;
    let names = general_names(&cert);
    let mut hosts = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(HOST_URI),
        _ => None,
    });
    let host = hosts.next().filter(|host| uuid::Uuid::parse_str(host).is_ok())?;
    hosts.next().is_none().then(|| HostId::new(host))
}

/// The serial number of a certificate, hexadecimal.
pub fn peer_serial(der: &CertificateDer<'_>) -> Option<String> {
    let (_, cert) = parse_x509_certificate(der).ok()?;
    Some(hex(cert.raw_serial()))
}

/// When a certificate holds.
pub fn peer_validity(der: &CertificateDer<'_>) -> Option<Validity> {
    let (_, cert) = parse_x509_certificate(der).ok()?;
    let validity = cert.validity();
    Some(Validity { from_s: validity.not_before.timestamp(), until_s: validity.not_after.timestamp() })
}

/// Until when a certificate holds, seconds since the Unix epoch.
pub fn holds_until(der: &CertificateDer<'_>) -> Option<i64> {
    let (_, cert) = parse_x509_certificate(der).ok()?;
    Some(cert.validity().not_after.timestamp())
}

/// The alternative names of a certificate.
pub(super) fn general_names<'a>(cert: &'a X509Certificate<'a>) -> Vec<GeneralName<'a>> {
    let names = cert.subject_alternative_name().ok().flatten();
    names.map(|extension| extension.value.general_names.clone()).unwrap_or_default()
}

//! The server's certificate: made, renewed in time, and handed to every new connection.
//!
//! A certificate that does not fit (expired, other names, another authority) is replaced without asking.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use super::{
    IdentityError,
    authority::{Authority, general_names, new_key, params},
};
use crate::datadir::{Access, DataDir};

/// The name by which agents know every controller, whatever its address.
pub const SERVER_NAME: &str = "fracas-controller";

/// Life of the server's certificate; renewed when half of it is over.
const DAYS: i64 = 90;

/// The server's certificate and key, replaceable while connections are being made.
#[derive(Debug)]
pub struct ServerCertificate {
    current: RwLock<Arc<CertifiedKey>>,
    names: BTreeSet<String>,
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl ServerCertificate {
    pub(super) fn open(
        dir: &DataDir,
        authority: &Authority,
        names: &[String],
        now_ns: i64,
    ) -> Result<Self, IdentityError> {
        for name in names {
            let known = name.parse::<IpAddr>().is_ok() || ServerName::try_from(name.as_str()).is_ok();
            known.then_some(()).ok_or_else(|| IdentityError::Name(name.clone()))?;
        }
        let mut all: BTreeSet<String> =
            [SERVER_NAME, "localhost", "127.0.0.1", "::1"].into_iter().map(str::to_owned).collect();
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        all.extend(ServerName::try_from(own.as_str()).is_ok().then_some(own.clone()));
        // One spelling for each address.
        all.extend(names.iter().map(|name| name.parse::<IpAddr>().map_or_else(|_| name.clone(), |ip| ip.to_string())));
        let current = match load(dir, authority, &all, now_ns)? {
            Some(kept) => kept,
            None => issue(dir, authority, &all, now_ns)?,
        };
        Ok(Self { current: RwLock::new(Arc::new(current)), names: all })
    }

    pub(super) fn renew(&self, dir: &DataDir, authority: &Authority, now_ns: i64) -> Result<bool, IdentityError> {
        if load(dir, authority, &self.names, now_ns)?.is_some() {
            return Ok(false);
        }
        let fresh = Arc::new(issue(dir, authority, &self.names, now_ns)?);
        *self.current.write().expect("no holder panics") = fresh;
        Ok(true)
    }

    /// The certificate that new connections get, DER.
    pub fn leaf(&self) -> CertificateDer<'static> {
        self.current.read().expect("no holder panics").cert[0].clone()
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().expect("no holder panics")))
    }
}

/// The certificate in the data directory, if it will do for the second half of its life.
fn load(
    dir: &DataDir,
    authority: &Authority,
    names: &BTreeSet<String>,
    now_ns: i64,
) -> Result<Option<CertifiedKey>, IdentityError> {
    let (key, cert) = (dir.read("server.key", Access::Private)?, dir.read("server.pem", Access::Public)?);
    let (Some(key), Some(cert)) = (key, cert) else { return Ok(None) };
    Ok(accept(&key, &cert, authority, names, now_ns))
}

fn accept(
    key: &[u8],
    cert: &[u8],
    authority: &Authority,
    names: &BTreeSet<String>,
    now_ns: i64,
) -> Option<CertifiedKey> {
    let leaf = CertificateDer::from_pem_slice(cert).ok()?;
    let (_, parsed) = parse_x509_certificate(&leaf).ok()?;
    let now = now_ns.div_euclid(1_000_000_000);
    let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    if now >= i64::midpoint(from, to) || names_of(&general_names(&parsed)) != *names {
        return None;
    }
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok()?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now as u64));
    verifier.verify_server_cert(&leaf, &[], &ServerName::try_from(SERVER_NAME).ok()?, &[], at).ok()?;
    certified(leaf, key, authority).ok()
}

fn names_of(names: &[GeneralName<'_>]) -> BTreeSet<String> {
    let address = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
        _ => <[u8; 16]>::try_from(bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    names.iter().filter_map(text).collect()
}

fn issue(
    dir: &DataDir,
    authority: &Authority,
    names: &BTreeSet<String>,
    now_ns: i64,
) -> Result<CertifiedKey, IdentityError> {
    let mut params = params(SERVER_NAME, now_ns, DAYS);
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.clone().try_into().map_err(|_| IdentityError::Name(name.clone()))?),
        });
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = new_key()?;
    let pem = authority.sign_server(&params, &key)?;
    // Interrupted in between, key and certificate do not fit, which the next start sees.
    dir.write("server.key", key.serialize_pem().as_bytes(), Access::Private)?;
    dir.write("server.pem", pem.as_bytes(), Access::Public)?;
    let broken = |detail: String| IdentityError::Crypto { what: "the server's certificate", detail };
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| broken(e.to_string()))?;
    certified(leaf, key.serialize_pem().as_bytes(), authority).map_err(broken)
}

/// With the authority's certificate in the chain: a host that joins knows only its digest.
fn certified(leaf: CertificateDer<'static>, key: &[u8], authority: &Authority) -> Result<CertifiedKey, String> {
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| e.to_string())?;
    CertifiedKey::from_der(vec![leaf, authority.der().clone()], key, &provider()).map_err(|e| e.to_string())
}

//! TLS settings of probes, made once when a probe is made ready. No session is ever resumed: each look proves a handshake.

use std::{cell::OnceCell, rc::Rc, sync::Arc};

use fracas_model::plan::Refusal;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

use crate::{Blocking, files};

/// Where distributions keep the bundle of trusted authorities: Debian and Arch, Fedora, SUSE, Alpine and the BSDs.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Longest file of authorities that is read; distributions' bundles have a quarter of a megabyte.
const BUNDLE_BYTES: usize = 4 << 20;

/// Settings that are made once, when they are first asked for. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Settings(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    ca_file: Option<String>,
    insecure: bool,
    made: OnceCell<Arc<ClientConfig>>,
}

impl Settings {
    /// Trust `ca_file`, or the host's bundle, or (`insecure`) anybody. Reads nothing yet.
    pub(crate) fn new(ca_file: Option<&str>, insecure: bool) -> Self {
        Self(Rc::new(Inner { ca_file: ca_file.map(str::to_owned), insecure, made: OnceCell::new() }))
    }

    /// The settings; files are read beside the runtime.
    pub(crate) async fn get(&self) -> Result<Arc<ClientConfig>, Refusal> {
        if let Some(made) = self.0.made.get() {
            return Ok(made.clone());
        }
        let (ca_file, insecure) = (self.0.ca_file.clone(), self.0.insecure);
        let made = Blocking::start(move || settings(ca_file.as_deref(), insecure)).done().await;
        let made = made.map_err(|why| Refusal::new(why, "ask for the probe again"))??;
        Ok(self.0.made.get_or_init(|| made).clone())
    }
}

/// Settings that trust `ca_file`, or the host's bundle, or (`insecure`) anybody.
fn settings(ca_file: Option<&str>, insecure: bool) -> Result<Arc<ClientConfig>, Refusal> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Refusal::new(format!("TLS cannot be set up: {e}"), "probe with http or tcp"))?;
    let mut config = if insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
    } else {
        builder.with_root_certificates(roots(ca_file)?).with_no_client_auth()
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn roots(ca_file: Option<&str>) -> Result<RootCertStore, Refusal> {
    const WAY_OUT: &str = "name a PEM file with caFile, or set insecure: true to look without checking who answers";
    let path = match ca_file {
        Some(path) => path,
        None => BUNDLES
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .ok_or_else(|| Refusal::new("this host has no bundle of trusted authorities", WAY_OUT))?,
    };
    let unreadable = |e: &dyn std::fmt::Display| Refusal::new(format!("{path} cannot be read: {e}"), WAY_OUT);
    let text = files::small(path, BUNDLE_BYTES).map_err(|e| unreadable(&e))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        // A bundle may hold an authority that the verifier does not understand; the others still count.
        let _ = store.add(certificate.map_err(|e| unreadable(&e))?);
    }
    if store.is_empty() {
        return Err(Refusal::new(format!("{path} holds no usable certificate"), WAY_OUT));
    }
    Ok(store)
}

/// Takes any certificate, but still checks that the peer holds its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

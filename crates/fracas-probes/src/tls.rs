//! TLS settings of probes, made once when a probe is made ready. No session is ever resumed: each look proves a handshake.

use std::sync::Arc;

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

/// Where distributions keep the bundle of trusted authorities: Debian and Arch, Fedora, SUSE, Alpine and the BSDs.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Settings that trust `ca_file`, or the host's bundle, or (`insecure`) anybody.
pub(crate) fn settings(ca_file: Option<&str>, insecure: bool) -> Result<Arc<ClientConfig>, Refusal> {
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
    let unreadable = |e: rustls::pki_types::pem::Error| Refusal::new(format!("{path} cannot be read: {e}"), WAY_OUT);
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        // A bundle may hold an authority that the verifier does not understand; the others still count.
        let _ = store.add(certificate.map_err(unreadable)?);
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

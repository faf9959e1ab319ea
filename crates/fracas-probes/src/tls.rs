//! TLS settings of probes, made once when a probe is made ready. No session is ever resumed: each look proves a handshake.

use std::{cell::OnceCell, rc::Rc, sync::Arc};

use fracas_model::{
    catalogue::Params,
    plan::Refusal,
    shape::{Field, Shape},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Blocking, brief, connect::world, files};

/// Where distributions keep the bundle of trusted authorities: Debian and Arch, Fedora, SUSE, Alpine and the BSDs.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Longest file of authorities that is read; distributions' bundles have a quarter of a megabyte.
const BUNDLE_BYTES: usize = 4 << 20;

/// Whom to be sure of, and by whose word.
#[derive(Clone, Debug)]
pub(crate) struct Secure {
    settings: Settings,
    name: ServerName<'static>,
    insecure: bool,
}

/// The parameters that [`Secure::wanted`] reads.
pub(crate) fn fields() -> [Field; 3] {
    [
        Field::with_default("tls", Shape::Bool, false, "Speak TLS, and check the server's certificate."),
        Field::with_default("insecure", Shape::Bool, false, "Take any certificate (tls)."),
        Field::optional("caFile", Shape::Path, "PEM file of trusted authorities on the host (tls), at most 4 MiB."),
    ]
}

impl Secure {
    /// The settings that `caFile` and `insecure` ask for, and a host, an IPv6 address in brackets or not.
    ///
    /// # Errors
    /// No certificate can be of that host.
    pub(crate) fn new(kind: &str, host: &str, params: &Params) -> Result<Self, Refusal> {
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare);
        let name = name.map_err(|e| Refusal::new(format!("{kind}: {host}: {e}"), "check the name of the server"))?;
        let insecure = params.flag("insecure");
        Ok(Self { settings: Settings::new(params.text("caFile"), insecure), name, insecure })
    }

    /// The same where `tls` is asked for.
    ///
    /// # Errors
    /// As above, and what only makes sense with it.
    pub(crate) fn wanted(kind: &str, host: &str, params: &Params) -> Result<Option<Self>, Refusal> {
        if params.flag("tls") {
            return Self::new(kind, host, params).map(Some);
        }
        if params.flag("insecure") || params.text("caFile").is_some() {
            return Err(Refusal::new(
                format!("{kind}: caFile and insecure are for TLS"),
                "write tls: true, or drop them",
            ));
        }
        Ok(None)
    }

    /// Reads what TLS needs of the host.
    pub(crate) async fn prepare(&self) -> Result<(), Refusal> {
        self.settings.get().await.map(|_| ())
    }

    /// Whether the server has proven who it is.
    pub(crate) fn certain(&self) -> bool {
        !self.insecure
    }

    /// Speaks TLS over a stream; `protocols` are those that the server is to choose from, if any.
    pub(crate) async fn over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        protocols: &[&[u8]],
    ) -> Result<TlsStream<S>, String> {
        // Long made where the probe was prepared.
        let mut config = self.settings.get().await.map_err(|refusal| brief(refusal.why))?;
        if !protocols.is_empty() {
            let mut chosen = (*config).clone();
            chosen.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            config = Arc::new(chosen);
        }
        let secured = TlsConnector::from(config).connect(self.name.clone(), stream).await;
        secured.map_err(|e| brief(format_args!("TLS: {}", world(&e))))
    }
}

/// What [`Secure::prepare`] does, where TLS is spoken.
pub(crate) async fn prepare(secure: Option<Secure>) -> Result<(), Refusal> {
    match secure {
        Some(secure) => secure.prepare().await,
        None => Ok(()),
    }
}

/// Settings that are made once, when they are first asked for. Clones are the same.
#[derive(Clone, Debug)]
struct Settings(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    ca_file: Option<String>,
    insecure: bool,
    made: OnceCell<Arc<ClientConfig>>,
}

impl Settings {
    /// Trust `ca_file`, or the host's bundle, or (`insecure`) anybody. Reads nothing yet.
    fn new(ca_file: Option<&str>, insecure: bool) -> Self {
        Self(Rc::new(Inner { ca_file: ca_file.map(str::to_owned), insecure, made: OnceCell::new() }))
    }

    /// The settings; files are read beside the runtime.
    async fn get(&self) -> Result<Arc<ClientConfig>, Refusal> {
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

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;

    use serde_json::json;
    use tempfile::NamedTempFile;

    use super::*;

    /// Speaks TLS as `localhost`, and the authority to trust.
    pub(crate) fn server() -> (tokio_rustls::TlsAcceptor, NamedTempFile) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut ca = NamedTempFile::new().unwrap();
        ca.write_all(made.cert.pem().as_bytes()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        (Arc::new(config).into(), ca)
    }

    #[test]
    fn what_is_for_tls_wants_it() {
        let wanted = |params: serde_json::Value| {
            Secure::wanted("redis", "db", &serde_json::from_value(params).unwrap()).map(|secure| secure.is_some())
        };
        assert_eq!(wanted(json!({})), Ok(false));
        assert_eq!(wanted(json!({ "tls": true, "caFile": "/ca.pem" })), Ok(true));
        for alone in [json!({ "caFile": "/ca.pem" }), json!({ "insecure": true })] {
            let refusal = wanted(alone).unwrap_err();
            assert!(refusal.why.contains("are for TLS") && refusal.instead.contains("tls: true"), "{refusal}");
        }
        assert!(Secure::new("redis", "[::1]", &serde_json::from_value(json!({})).unwrap()).is_ok());
        assert!(Secure::new("redis", "a b", &serde_json::from_value(json!({})).unwrap()).is_err());
    }
}

//! One TLS connection to a controller: TCP, then rustls with the controller's own CA. Knows nothing of gRPC.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The name in every controller's certificate; addresses change, the CA says who it is.
const SERVER_NAME: &str = "fracas-controller";

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Nobody answers there.
    #[error("cannot reach the controller at {address}: {why}")]
    Unreachable { address: String, why: String },
    /// Somebody answers, but it is not our controller, or does not speak TLS.
    #[error("{address} is not the controller that the CA certificate {ca} belongs to: {why}")]
    Untrusted { address: String, ca: String, why: String },
}

/// What is needed to dial again and again.
#[derive(Clone)]
pub(crate) struct Dialler {
    address: String,
    ca: String,
    tls: TlsConnector,
}

impl Dialler {
    /// Reads the CA. `ca` names where `ca_pem` came from. The error says what is wrong with the CA.
    pub(crate) fn new(address: &str, ca: &str, ca_pem: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            let certificate = certificate.map_err(|e| e.to_string())?;
            roots.add(certificate).map_err(|e| e.to_string())?;
        }
        if roots.is_empty() {
            return Err("it holds no certificate".to_owned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { address: address.to_owned(), ca: ca.to_owned(), tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Connects once.
    pub(crate) async fn dial(self) -> Result<TlsStream<TcpStream>, DialError> {
        let tcp = match TcpStream::connect(&self.address).await {
            Ok(tcp) => tcp,
            Err(error) => return Err(DialError::Unreachable { address: self.address, why: said(&error) }),
        };
        // Small messages at once: waiting for more only makes the live view late.
        let _ = tcp.set_nodelay(true);
        let name = ServerName::try_from(SERVER_NAME).expect("a valid DNS name");
        self.tls.connect(name, tcp).await.map_err(|error| {
            let why = said(&error);
            if error.get_ref().is_some_and(
                <dyn std::error::Error + std::marker::Send + std::marker::Sync + 'static>::is::<rustls::Error>,
            ) {
                DialError::Untrusted { address: self.address, ca: self.ca, why }
            } else {
                DialError::Unreachable { address: self.address, why: format!("the TLS handshake broke off ({why})") }
            }
        })
    }
}

/// `Connection refused (os error 111)` without the number.
fn said(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    fn ca() -> (rcgen::Issuer<'static, rcgen::KeyPair>, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        (rcgen::Issuer::new(params, key), pem)
    }

    /// Accepts connections with a certificate of this CA, for as long as the test runs.
    async fn serve(issuer: &rcgen::Issuer<'static, rcgen::KeyPair>) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        let certificate = leaf.signed_by(&key, issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                if let Ok(mut tls) = acceptor.accept(tcp).await {
                    let _ = tls.shutdown().await;
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn our_ca_is_trusted_and_another_is_named_as_the_reason() {
        let (issuer, pem) = ca();
        let address = serve(&issuer).await;
        Dialler::new(&address, "ca.pem", pem.as_bytes()).unwrap().dial().await.unwrap();
        let (_, other) = ca();
        let error = Dialler::new(&address, "other.pem", other.as_bytes()).unwrap().dial().await.unwrap_err();
        assert!(matches!(error, DialError::Untrusted { .. }), "{error}");
        assert!(error.to_string().contains("other.pem"), "{error}");
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let (_, pem) = ca();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Dialler::new(&address, "ca.pem", pem.as_bytes()).unwrap().dial().await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot reach the controller at {address}: Connection refused"));
    }

    #[tokio::test]
    async fn a_listener_without_tls_is_told_apart() {
        let (_, pem) = ca();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        });
        let error = Dialler::new(&address, "ca.pem", pem.as_bytes()).unwrap().dial().await.unwrap_err();
        assert!(matches!(error, DialError::Untrusted { .. }), "{error}");
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        assert_eq!(Dialler::new("a:1", "ca", b"nothing").err().unwrap(), "it holds no certificate");
    }
}

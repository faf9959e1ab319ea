//! Reaching a receiver: a fresh resolution, a fresh connection, and TLS whose authorities are read anew each time.
//!
//! What goes wrong is told without the address, which may be secret; the channel's name says enough.

use std::{io, path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::Failure;

/// Where distributions keep the bundle of trusted authorities: Debian and Arch, Fedora, SUSE, Alpine and the BSDs.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Longest file of authorities that is read; distributions' bundles have a quarter of a megabyte.
const BUNDLE_BYTES: u64 = 4 << 20;

/// How long one address of a name may take, so that the next has its turn.
const EACH: Duration = Duration::from_secs(5);

/// Bytes in both directions, with or without TLS.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection to the first address of `host` that answers.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, Failure> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let mut last = Failure::later("its address does not resolve");
    let Ok(addresses) = tokio::net::lookup_host((bare, port)).await else { return Err(last) };
    for address in addresses {
        match tokio::time::timeout(EACH, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small messages must not wait for each other; a failure only costs time.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = Failure::later(world(&error)),
            Err(_) => last = Failure::later("connection timed out"),
        }
    }
    Err(last)
}

/// TLS to `host` over a connection. Trusted are the authorities in `ca`, else those of the platform.
pub(super) async fn secure(
    stream: impl Wire + 'static,
    host: &str,
    ca: Option<&Path>,
) -> Result<Box<dyn Wire>, Failure> {
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name =
        ServerName::try_from(bare).map_err(|_| Failure::later("its host has no name that a certificate can have"))?;
    let ca = ca.map(Path::to_owned);
    let settings = tokio::task::spawn_blocking(move || settings(ca.as_deref())).await;
    let settings = settings.map_err(|_| Failure::later("the controller is ending"))?.map_err(Failure::later)?;
    let secured = TlsConnector::from(settings).connect(name, stream).await;
    Ok(Box::new(secured.map_err(|e| Failure::later(format!("TLS: {}", world(&e))))?))
}

fn settings(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(crate::identity::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS cannot be set up: {e}"))?;
    Ok(Arc::new(builder.with_root_certificates(roots(ca)?).with_no_client_auth()))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    use std::io::Read as _;
    let path = match ca {
        Some(path) => path,
        None => BUNDLES
            .iter()
            .map(Path::new)
            .find(|path| path.exists())
            .ok_or("this machine has no bundle of trusted authorities: name a PEM file with `ca`")?,
    };
    let unreadable = |e: &dyn std::fmt::Display| format!("the authorities in {} cannot be read: {e}", path.display());
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| unreadable(&e))?;
    file.take(BUNDLE_BYTES).read_to_end(&mut text).map_err(|e| unreadable(&e))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        // A bundle may hold an authority that the verifier does not understand; the others still count.
        let _ = store.add(certificate.map_err(|e| unreadable(&e))?);
    }
    if store.is_empty() { Err(format!("{} holds no usable certificate", path.display())) } else { Ok(store) }
}

/// What the system said, in few words and without an address.
pub(super) fn world(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        io::ErrorKind::TimedOut => "connection timed out".into(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => "connection closed".into(),
        io::ErrorKind::UnexpectedEof => "connection closed early".into(),
        _ => super::notice::one_line(&error.to_string(), 200),
    }
}

//! Listeners: bound sockets that turn strangers into TLS connections with a known peer, within limits.
//!
//! It says who is at the other end; what they may do is decided elsewhere.
//!
//! ```text
//! accept -> (limit on handshakes, 10 s) -> TLS -> who is it -> (limit on connections) -> stream for tonic
//! ```

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use fracas_model::id::HostId;
use rustls::{
    RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::Connected;

use crate::identity::{Identity, peer_host, peer_serial};

/// Longest time from a connection to the end of its handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// Handshakes at the same time; the rest waits in the kernel's queue.
const HANDSHAKES: usize = 256;

/// After the process has run out of descriptors, the next try to accept.
const BREATHER: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection. Each request carries it as an extension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The host its certificate names; `None` without one.
    pub host: Option<HostId>,
    /// Serial number of that certificate, hexadecimal.
    pub serial: Option<String>,
    /// Where it calls from.
    pub address: Option<SocketAddr>,
}

/// How many connections a listener holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of hosts with a certificate.
    pub hosts: usize,
    /// Connections without one. They cannot take the hosts' places.
    pub strangers: usize,
}

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is in use.
    #[error("cannot listen on {address} for {what}: another program uses that port; choose another with {flag}")]
    Taken {
        /// The address.
        address: SocketAddr,
        /// What the listener is for.
        what: &'static str,
        /// The flag that changes it.
        flag: &'static str,
    },
    /// The machine said no.
    #[error("cannot listen on {address} for {what} ({source}): choose another address with {flag}")]
    Failed {
        /// The address.
        address: SocketAddr,
        /// What the listener is for.
        what: &'static str,
        /// The flag that changes it.
        flag: &'static str,
        /// What the machine said.
        source: io::Error,
    },
    /// The TLS library refused our own certificates.
    #[error("cannot set up TLS for {what}: {detail}")]
    Tls {
        /// What the listener is for.
        what: &'static str,
        /// What the library said.
        detail: String,
    },
}

/// Binds an address; `what` and `flag` (as `--fleet-listen`) are for the error.
pub async fn bind(address: SocketAddr, what: &'static str, flag: &'static str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { address, what, flag },
        _ => ListenError::Failed { address, what, flag, source },
    })
}

/// TLS of the fleet listener: TLS 1.3, client certificates of our authority are asked for but not demanded, since a
/// host that enrols has none. A certificate that is not good ends the handshake.
pub fn fleet_tls(identity: &Identity) -> Result<Arc<ServerConfig>, ListenError> {
    let broken = |detail: String| ListenError::Tls { what: "the fleet", detail };
    let mut roots = RootCertStore::empty();
    roots.add(identity.ca_der().clone()).map_err(|e| broken(e.to_string()))?;
    let verifier: Arc<dyn ClientCertVerifier> =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crate::identity::provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| broken(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(crate::identity::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| broken(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity.server().clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// TLS of the front listener: server certificate only; people and programs show a token in each call.
pub fn front_tls(identity: &Identity) -> Result<Arc<ServerConfig>, ListenError> {
    let mut config = ServerConfig::builder_with_provider(crate::identity::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| ListenError::Tls { what: "the front", detail: e.to_string() })?
        .with_no_client_auth()
        .with_cert_resolver(identity.server().clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Bytes in both directions, whatever they run over.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// One connection with a known peer, as tonic takes it.
pub struct Conn {
    bytes: Box<dyn Bytes>,
    peer: Peer,
    _place: Option<OwnedSemaphorePermit>,
}

impl Conn {
    /// A connection that needs no TLS because its peer is known otherwise: simulations and in-process peers.
    pub fn plain(bytes: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, peer: Peer) -> Self {
        Self { bytes: Box::new(bytes), peer, _place: None }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Conn {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}

/// Accepts connections until the returned stream is dropped. Give it to tonic's `serve_with_incoming_shutdown`; a
/// handler finds the peer with `request.extensions().get::<Peer>()`.
pub fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
) -> impl Stream<Item = io::Result<Conn>> + Send + Unpin {
    let (ready, connections) = mpsc::channel(64);
    let door = Arc::new(Door {
        tls: TlsAcceptor::from(tls),
        hosts: Arc::new(Semaphore::new(limits.hosts)),
        strangers: Arc::new(Semaphore::new(limits.strangers)),
        ready,
    });
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let turn = Arc::clone(&handshakes).acquire_owned().await.expect("never closed");
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = door.ready.closed() => return,
            };
            match accepted {
                Ok((socket, address)) => {
                    let door = Arc::clone(&door);
                    tokio::spawn(async move {
                        door.admit(socket, address).await;
                        drop(turn);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(BREATHER).await;
                }
            }
        }
    });
    ReceiverStream::new(connections)
}

struct Door {
    tls: TlsAcceptor,
    hosts: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    ready: mpsc::Sender<io::Result<Conn>>,
}

impl Door {
    async fn admit(&self, socket: TcpStream, address: SocketAddr) {
        // Small messages must not wait for each other; a failure only costs time.
        let _ = socket.set_nodelay(true);
        let stream = match tokio::time::timeout(HANDSHAKE, self.tls.accept(socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "handshake failed"),
            Err(_) => return tracing::debug!(%address, "handshake took too long"),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = Peer {
            host: certificate.and_then(peer_host),
            serial: certificate.and_then(peer_serial),
            address: Some(address),
        };
        let places = if peer.host.is_some() { &self.hosts } else { &self.strangers };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return tracing::warn!(%address, host = ?peer.host, "connection refused, the listener is full");
        };
        let conn = Conn { bytes: Box::new(stream), peer, _place: Some(place) };
        // Nobody listens any more when this fails.
        let _ = self.ready.send(Ok(conn)).await;
    }
}

#[cfg(test)]
mod tests;

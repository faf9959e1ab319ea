//! Listeners: bound sockets that turn strangers into TLS connections with a known peer, within limits.
//!
//! It says who is at the other end; what they may do is decided elsewhere.
//!
//! ```text
//! accept -> (limits on strangers of one address, on handshakes, 10 s) -> TLS -> who is it
//!        -> (limit on connections) -> stream for tonic -> a stranger proves who it is in time, or is let go
//! ```

use std::{
    collections::BTreeMap,
    future::Future as _,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use fracas_model::{id::HostId, identity::Validity};
use rustls::{
    RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Sleep, sleep},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::Connected;

use crate::{
    identity::{Identity, peer_host, peer_serial, peer_validity},
    metrics::{DoorMeters, Open},
};

/// Longest time from a connection to the end of its handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// Handshakes at the same time; the rest waits in the kernel's queue.
const HANDSHAKES: usize = 256;

/// Connections that wait in the kernel's queue: what Linux allows by default (`net.core.somaxconn`). One that finds the queue
/// full is not refused but waits seconds for its peer to try again, and it may be an honest one behind a crowd.
const QUEUE: u32 = 4096;

/// After the process has run out of descriptors, the next try to accept.
pub(crate) const BREATHER: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection. Each request carries it as an extension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The host its certificate names; `None` without one.
    pub host: Option<HostId>,
    /// Serial number of that certificate, hexadecimal.
    pub serial: Option<String>,
    /// When that certificate holds.
    pub validity: Option<Validity>,
    /// Where it calls from.
    pub address: Option<SocketAddr>,
    /// Its connection's place.
    pub pass: Pass,
}

/// How many connections a listener holds, and how long it bears strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that have proved who they are, by a certificate or by a call with a good token.
    pub known: usize,
    /// Connections that have not. They cannot take the places of the others.
    pub strangers: usize,
    /// Those of them that come from one source address (IPv6: one network of 64 bits), handshakes included.
    pub per_address: usize,
    /// How long a connection may be a stranger's.
    pub patience: Duration,
}

/// The place of a connection: a stranger's, until it has proved who it is. Clones are one; two are always equal.
#[derive(Clone, Debug, Default)]
pub struct Pass(Option<Arc<Standing>>);

impl PartialEq for Pass {
    /// It says nothing of who is at the other end.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Pass {}

#[derive(Debug)]
struct Standing {
    known: Arc<Semaphore>,
    place: Mutex<Place>,
}

#[derive(Debug)]
enum Place {
    Stranger(#[expect(dead_code, reason = "held, not read")] (OwnedSemaphorePermit, Share)),
    Known(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit),
}

impl Pass {
    /// The peer has proved who it is, and its connection gives its place among strangers to others. False when there is
    /// no place for one more.
    pub fn prove(&self) -> bool {
        let Some(standing) = &self.0 else { return true };
        let mut place = standing.place.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*place, Place::Stranger(_)) {
            let Ok(permit) = Arc::clone(&standing.known).try_acquire_owned() else { return false };
            *place = Place::Known(permit);
        }
        true
    }

    fn proved(&self) -> bool {
        let place = self.0.as_ref().map(|standing| standing.place.lock().unwrap_or_else(PoisonError::into_inner));
        place.is_none_or(|place| matches!(*place, Place::Known(_)))
    }
}

/// How many strangers there are from each address.
#[derive(Debug, Default)]
struct Sources(Mutex<BTreeMap<IpAddr, usize>>);

/// One of them; dropping it lets another come.
#[derive(Debug)]
struct Share {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Sources {
    fn admit(self: &Arc<Self>, address: SocketAddr, most: usize) -> Option<Share> {
        let source = match address.ip().to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            // Whoever has one address of such a network has all of them.
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Share { sources: Arc::clone(self), source })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
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
    listening(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { address, what, flag },
        _ => ListenError::Failed { address, what, flag, source },
    })
}

/// What `TcpListener::bind` does, with a longer queue.
fn listening(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
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
    /// Until when it may be a stranger's.
    limit: Option<Pin<Box<Sleep>>>,
    meters: DoorMeters,
    /// None of connections that no listener gave.
    _open: Option<Open>,
}

impl Conn {
    /// A connection that needs no TLS because its peer is known otherwise: simulations and in-process peers.
    pub fn plain(bytes: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, peer: Peer) -> Self {
        Self { bytes: Box::new(bytes), peer, limit: None, meters: DoorMeters::default(), _open: None }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether a stranger has been one for too long.
    fn overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(limit) = &mut self.limit else { return false };
        if self.peer.pass.proved() {
            self.limit = None;
            return false;
        }
        limit.as_mut().poll(cx).is_ready()
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
        // A server always reads, so it comes by here when the time is up.
        if self.overdue(cx) {
            self.meters.not_kept("stranger");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.bytes).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // One that does not take its answer stops the server's reading.
        if self.overdue(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.bytes).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}

/// Accepts connections until the returned stream is dropped, and counts them with `meters`. Give it to tonic's
/// `serve_with_incoming_shutdown`; a handler finds the peer with `request.extensions().get::<Peer>()`.
pub fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
    meters: DoorMeters,
) -> impl Stream<Item = io::Result<Conn>> + Send + Unpin {
    accept_hosts(listener, tls, limits, meters, |_| true)
}

/// The same, where only hosts that are `admitted` are more than strangers: whoever shows the certificate of another gets a
/// stranger's place, to be told why, and loses it soon.
pub fn accept_hosts(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
    meters: DoorMeters,
    admitted: impl Fn(&HostId) -> bool + Send + Sync + 'static,
) -> impl Stream<Item = io::Result<Conn>> + Send + Unpin {
    let (ready, connections) = mpsc::channel(64);
    let door = Arc::new(Door {
        tls: TlsAcceptor::from(tls),
        limits,
        known: Arc::new(Semaphore::new(limits.known)),
        strangers: Arc::new(Semaphore::new(limits.strangers)),
        sources: Arc::default(),
        admitted: Box::new(admitted),
        ready,
        meters,
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
                    door.meters.accepted();
                    let Some(share) = door.sources.admit(address, limits.per_address) else {
                        door.meters.not_kept("address");
                        tracing::debug!(%address, "connection refused, too many strangers come from there");
                        continue;
                    };
                    let door = Arc::clone(&door);
                    tokio::spawn(async move {
                        door.admit(socket, address, share).await;
                        drop(turn);
                    });
                }
                Err(error) => {
                    door.meters.stuck();
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
    limits: Limits,
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    sources: Arc<Sources>,
    admitted: Box<dyn Fn(&HostId) -> bool + Send + Sync>,
    ready: mpsc::Sender<io::Result<Conn>>,
    meters: DoorMeters,
}

impl Door {
    async fn admit(&self, socket: TcpStream, address: SocketAddr, share: Share) {
        // Small messages must not wait for each other; a failure only costs time.
        let _ = socket.set_nodelay(true);
        let stream = match tokio::time::timeout(HANDSHAKE, self.tls.accept(socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.meters.not_kept("handshake");
                return tracing::debug!(%address, %error, "handshake failed");
            }
            Err(_) => {
                self.meters.not_kept("slow_handshake");
                return tracing::debug!(%address, "handshake took too long");
            }
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let (host, serial) = (certificate.and_then(peer_host), certificate.and_then(peer_serial));
        let validity = certificate.and_then(peer_validity);
        let known = host.as_ref().is_some_and(|host| (self.admitted)(host));
        let places = if known { &self.known } else { &self.strangers };
        let Ok(permit) = Arc::clone(places).try_acquire_owned() else {
            self.meters.not_kept("full");
            return tracing::warn!(%address, ?host, "connection refused, the listener is full");
        };
        let (place, limit) = if known {
            (Place::Known(permit), None)
        } else {
            (Place::Stranger((permit, share)), Some(Box::pin(sleep(self.limits.patience))))
        };
        let pass = Pass(Some(Arc::new(Standing { known: Arc::clone(&self.known), place: Mutex::new(place) })));
        let peer = Peer { host, serial, validity, address: Some(address), pass };
        let (meters, open) = (self.meters.clone(), Some(self.meters.open()));
        let conn = Conn { bytes: Box::new(stream), peer, limit, meters, _open: open };
        // Nobody listens any more when this fails.
        let _ = self.ready.send(Ok(conn)).await;
    }
}

#[cfg(test)]
mod tests;

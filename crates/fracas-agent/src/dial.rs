//! A line to the controller: bytes first, TLS over them, gRPC over that. Who dials is an argument, so that a simulated
//! network can take the place of the real one.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// The name in every controller's certificate. The address may be anything: it is the enrolled authority that is trusted.
pub const SERVER_NAME: &str = "fracas-controller";
/// How often an idle line is tried by an HTTP/2 ping.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long a ping may go unanswered before the line counts as dead.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// A stream of bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open line.
pub struct Line {
    /// The bytes.
    pub io: Box<dyn Io>,
    /// Every address the controller's name stands for (`ip:port`): network faults must let all of them pass.
    pub addresses: Vec<SocketAddr>,
    /// The controller's port, when the far end is this very host.
    pub beside: Option<u16>,
}

/// A channel to a controller.
pub struct Opened {
    /// One line; when it breaks, the channel is of no more use.
    pub channel: Channel,
    /// See [`Line::addresses`].
    pub addresses: Vec<SocketAddr>,
    /// See [`Line::beside`].
    pub beside: Option<u16>,
}

/// A line that is being opened.
pub type Dialled = Pin<Box<dyn Future<Output = io::Result<Line>> + Send>>;

/// Opens lines.
pub trait Dial: Send + Sync {
    /// A fresh line to `address` (`host:port`).
    fn dial(&self, address: &str) -> Dialled;
}

/// Plain TCP of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial(&self, address: &str) -> Dialled {
        let address = address.to_owned();
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = lookup_host(&address).await?.collect();
            let stream = TcpStream::connect(&addresses[..]).await?;
            stream.set_nodelay(true)?;
            let (near, far) = (stream.local_addr()?, stream.peer_addr()?);
            // Only a host talks to itself from the address it talks to.
            let here = near.ip() == far.ip() || far.ip().to_canonical().is_loopback();
            let beside = here.then_some(far.port());
            Ok(Line { io: Box::new(stream), addresses, beside })
        })
    }
}

/// Where the controller is, and how to reach it.
#[derive(Clone)]
pub struct Contact {
    /// Who opens lines.
    pub dial: Arc<dyn Dial>,
    /// Settings of mutual TLS; absent only in a simulated network.
    pub tls: Option<Arc<ClientConfig>>,
    /// The controllers (`host:port`), tried in turn.
    pub addresses: Vec<String>,
}

impl Contact {
    /// A channel over a fresh line to `address`.
    pub async fn open(&self, address: &str) -> io::Result<Opened> {
        let Line { io, addresses, beside } = self.dial.dial(address).await?;
        let io: Box<dyn Io> = match &self.tls {
            None => io,
            Some(config) => {
                let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
                Box::new(TlsConnector::from(config.clone()).connect(name, io).await?)
            }
        };
        let mut line = Some(io);
        let connector = tower::service_fn(move |_: Uri| {
            let line = line.take().ok_or_else(|| io::Error::other("the line broke"));
            async move { line.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://fracas-controller")
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_LIMIT)
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(io::Error::other)?;
        Ok(Opened { channel, addresses, beside })
    }
}

//! A fresh TCP connection with fresh resolution, as every look makes it. Nothing is cached or kept.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
};

use fracas_model::{catalogue::Params, plan::Refusal};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{Blocking, brief};

/// A stream of bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

/// A connection, secured or not.
pub(crate) type Link = Box<dyn Duplex>;

/// Resolves `host` and connects to the first of its addresses that answers, in the resolver's order.
pub(crate) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let mut last = String::new();
    for address in resolve(host, port).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Small requests must leave at once: a delayed write would count as the service's latency.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(e) => last = world(&e),
        }
    }
    Err(last)
}

/// The addresses of a name. Literal addresses skip the resolver, which needs a thread.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let name = bare.to_owned();
    let found = Blocking::start(move || (name.as_str(), port).to_socket_addrs().map(Vec::from_iter)).done().await?;
    match found {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        Ok(_) => Err(brief(format_args!("{bare} has no address"))),
        Err(_) => Err(brief(format_args!("{bare} does not resolve"))),
    }
}

/// The address that a probe or a ledger of this kind is given, in two; `port` is for the example.
///
/// # Errors
/// It is none.
pub(crate) fn address(kind: &str, params: &Params, port: u16) -> Result<(String, u16), Refusal> {
    let address = params.text("address").unwrap_or_default();
    split(address).map(|(host, port)| (host.to_owned(), port)).ok_or_else(|| {
        Refusal::new(
            format!("{kind}: {address:?} is not an address"),
            format!("write host:port, for example 127.0.0.1:{port}"),
        )
    })
}

/// `host:port` in two; an IPv6 address stands in brackets.
pub(crate) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let whole = !host.is_empty() && (host.starts_with('[') == host.contains(':'));
    port.parse().ok().filter(|_| whole).map(|port| (host, port))
}

/// What the system said, in words that group well in a report.
pub(crate) fn world(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::ConnectionAborted => "connection aborted".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        io::ErrorKind::TimedOut => "connection timed out".into(),
        io::ErrorKind::BrokenPipe => "connection closed".into(),
        io::ErrorKind::UnexpectedEof => "connection closed early".into(),
        _ => brief(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_split_with_and_without_brackets() {
        assert_eq!(split("db.internal:5432"), Some(("db.internal", 5432)));
        assert_eq!(split("[::1]:80"), Some(("[::1]", 80)));
        for bad in ["::1:80", "host", ":80", "host:", "host:70000"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_name_is_resolved_and_all_its_addresses_are_tried() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // `localhost` often resolves to ::1 first, where nobody listens.
        connect("localhost", port).await.unwrap();
        assert_eq!(connect("no-such-name.invalid", 80).await.unwrap_err(), "no-such-name.invalid does not resolve");
    }
}

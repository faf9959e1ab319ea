//! The host's own TCP connections with the kernel's round-trip estimate, through `NETLINK_SOCK_DIAG`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Error, Protocol, Socket,
    message::{self, Message},
};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_INFO`.
const INFO: u16 = 2;
/// `TCP_ESTABLISHED` as a bit.
const ESTABLISHED: u32 = 1 << 1;

/// An established TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Our end.
    pub local: (IpAddr, u16),
    /// The far end.
    pub remote: (IpAddr, u16),
    /// Smoothed round-trip time in microseconds, 0 when never measured.
    pub rtt_us: u32,
    /// Milliseconds since an acknowledgement came.
    pub last_ack_ms: u32,
}

/// All established TCP connections of this thread's network namespace.
pub fn connections() -> Result<Vec<Connection>, Error> {
    let mut socket = Socket::open(Protocol::SockDiag)?;
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut fixed = [0; 56];
        fixed[0] = family as u8;
        fixed[1] = libc::IPPROTO_TCP as u8;
        fixed[2] = 1 << (INFO - 1);
        fixed[4..8].copy_from_slice(&ESTABLISHED.to_ne_bytes());
        let replies = socket.dump(&Message::new(BY_FAMILY, 0, &fixed))?;
        all.extend(replies.iter().filter_map(|reply| connection(&reply.body)));
    }
    Ok(all)
}

/// `struct inet_diag_msg`, 72 bytes, then attributes.
pub(super) fn connection(body: &[u8]) -> Option<Connection> {
    let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let address = |at: usize| {
        let bytes: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
        Some(if i32::from(body[0]) == libc::AF_INET {
            IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
        } else {
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        })
    };
    let info = message::find(body.get(72..)?, INFO)?;
    // Offsets of tcpi_last_ack_recv and tcpi_rtt in struct tcp_info (linux/tcp.h).
    Some(Connection {
        local: (address(8)?, port(4)?),
        remote: (address(24)?, port(6)?),
        rtt_us: message::u32_at(info, 68)?,
        last_ack_ms: message::u32_at(info, 56)?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_own_connection_is_listed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let local = stream.local_addr().expect("connected");
        let found = connections().expect("the kernel answers");
        let ours = found.iter().find(|c| c.local == (local.ip(), local.port())).expect("listed");
        assert_eq!(ours.remote.0, local.ip());
        assert!(ours.rtt_us > 0);
    }
}

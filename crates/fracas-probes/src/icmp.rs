//! Probe `icmp`: sends one echo request and waits for its reply, as ping does. It tells whether a host is reached, no more.

use std::{io, net::SocketAddr, os::fd::OwnedFd, rc::Rc, time::Instant};

use fracas_model::{
    catalogue::{Params, ProbeInfo},
    plan::Refusal,
    policy::Policy,
    shape::{Field, Shape},
    tolerance::{ReadingField, Values},
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send, socket_with,
};
use tokio::io::Interest;

use crate::{
    LookFuture, Lookout, PrepareFuture, Probe, brief,
    connect::{resolve, world},
    watched,
};

/// Types of echo messages (RFC 792, RFC 4443): request and reply, of IPv4 and of IPv6.
const ECHO: [(u8, u8); 2] = [(8, 0), (128, 129)];
/// Bytes by which a reply is known, after a header of eight.
const PAYLOAD: usize = 24;
/// Longest packet that is taken, bytes: an IPv4 header with all options, and our message.
const LONGEST: usize = 60 + 8 + PAYLOAD;

/// The `icmp` probe.
#[derive(Debug)]
pub struct Icmp;

#[derive(Debug)]
struct Ready {
    host: String,
}

/// A socket that gives ICMP messages, with the IP header before them if it is a raw one of IPv4.
struct Socket {
    fd: OwnedFd,
    with_header: bool,
}

impl Probe for Icmp {
    fn info(&self) -> ProbeInfo {
        ProbeInfo {
            name: "icmp".into(),
            summary: "Sends an echo request and waits for its reply, as ping does.".into(),
            help: HELP.into(),
            params: vec![Field::required("host", Shape::Text { max: 253 }, "Name or address to reach.")],
            reading: vec![ReadingField::duration(
                "roundTrip",
                "From the sending of the request to its reply, without the resolving of the name.",
            )],
            example: "{ host: 10.0.0.6, tolerance: { roundTrip: { max: 20ms } } }".into(),
        }
    }

    fn ready(&self, params: &Params, _policy: &Policy) -> Result<Box<dyn Lookout>, Refusal> {
        Ok(Box::new(Rc::new(Ready { host: params.text("host").unwrap_or_default().to_owned() })))
    }
}

impl Lookout for Rc<Ready> {
    fn prepare(&self) -> PrepareFuture {
        Box::pin(async {
            // Either will do: which one is needed shows when the name is resolved.
            let opened = Socket::open(false).or_else(|_| Socket::open(true));
            opened.map(|_| ()).map_err(|e| {
                let instead = "run the agent as root, or let its group into net.ipv4.ping_group_range";
                Refusal::new(format!("icmp: this host lets the agent open no socket for echo requests: {e}"), instead)
            })
        })
    }

    fn look(&self) -> LookFuture {
        let ready = self.clone();
        Box::pin(async move {
            let address = resolve(&ready.host, 0).await?.into_iter().next().ok_or("the name has no address")?;
            let mut payload = [0; PAYLOAD];
            SystemRandom::new().fill(&mut payload).map_err(|_| "the host gives no random bytes")?;
            let socket = Socket::open(address.is_ipv6()).map_err(|e| brief(format_args!("no socket: {e}")))?;
            let began = Instant::now();
            socket.echo(address, payload).await.map_err(|e| world(&e))?;
            Ok(Values::new().with("roundTrip", began.elapsed()))
        })
    }
}

impl Socket {
    /// One without privilege, where the host lets the agent's group have it, else a raw one.
    fn open(v6: bool) -> io::Result<Self> {
        let (family, protocol): (_, Protocol) =
            if v6 { (AddressFamily::INET6, ipproto::ICMPV6) } else { (AddressFamily::INET, ipproto::ICMP) };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let of = |kind| socket_with(family, kind, flags, Some(protocol));
        let (fd, raw) = match of(SocketType::DGRAM) {
            Ok(fd) => (fd, false),
            Err(_) => (of(SocketType::RAW)?, true),
        };
        Ok(Self { fd, with_header: raw && !v6 })
    }

    /// Sends a request and waits for its reply: whatever else comes is not for us.
    async fn echo(self, address: SocketAddr, payload: [u8; PAYLOAD]) -> io::Result<()> {
        // Connected, it takes from this address only, and hears when this host has no way there.
        connect(&self.fd, &address)?;
        let (fd, v6) = (watched(self.fd, Interest::READABLE | Interest::WRITABLE)?, address.is_ipv6());
        let request = request(v6, &payload);
        fd.async_io(Interest::WRITABLE, |fd| Ok(send(fd, &request, SendFlags::empty())?)).await?;
        loop {
            let mut packet = [0; LONGEST];
            let got = fd.async_io(Interest::READABLE, |fd| Ok(recv(fd, &mut packet, RecvFlags::empty())?.0)).await?;
            if is_reply(&packet[..got.min(LONGEST)], v6, self.with_header, &payload) {
                return Ok(());
            }
        }
    }
}

/// An echo request. Its identifier is the beginning of the payload; a socket without privilege writes its own instead.
fn request(v6: bool, payload: &[u8; PAYLOAD]) -> Vec<u8> {
    let kind = ECHO[usize::from(v6)].0;
    let mut message = vec![kind, 0, 0, 0, payload[0], payload[1], 0, 1];
    message.extend_from_slice(payload);
    if !v6 {
        // Of IPv6 the kernel makes it, which knows the addresses that it is made of too.
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// The Internet checksum (RFC 1071) of a message of even length.
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks_exact(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let sum = words.fold(0_u32, u32::wrapping_add);
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

/// Whether a packet is the reply to a request with this payload.
fn is_reply(packet: &[u8], v6: bool, with_header: bool, payload: &[u8]) -> bool {
    let header = match packet.first() {
        // The header's length in words of four bytes (RFC 791, 3.1).
        Some(first) if with_header => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    let Some(message) = packet.get(header..) else { return false };
    message.first() == Some(&ECHO[usize::from(v6)].1) && message.get(8..) == Some(payload)
}

const HELP: &str = "\
Ok when the reply to one echo request comes back. Fails when none comes within the probe's timeout, and at once when this \
host itself has no way there. That a router finds no way further is not heard: the look waits for its timeout.

It shows that packets go there and back, not that anything works there: a host whose services all hang still answers. \
Some networks and hosts drop echo requests: try it before a run rests on it. Each look resolves the name anew and takes \
the first address; a reply is known by random bytes that are new each time.

Linux gives a socket for this to the groups of net.ipv4.ping_group_range (on most systems everybody), and a raw one to \
root; where the agent gets neither the probe is refused. Cost: two packets per look.";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reply_is_known_by_its_bytes() {
        let payload = [7; PAYLOAD];
        let mut message = request(false, &payload);
        assert_eq!(checksum(&message), 0, "a message with its checksum sums up to nothing");
        assert!(!is_reply(&message, false, false, &payload), "a request");
        message[0] = 0;
        assert!(is_reply(&message, false, false, &payload));
        assert!(!is_reply(&message, true, false, &payload));
        let packet = [&[0x46; 24][..], &message].concat();
        assert!(is_reply(&packet, false, true, &payload) && !is_reply(&packet, false, false, &payload));
        let mut other = message.clone();
        other[20] ^= 1;
        assert!(!is_reply(&other, false, false, &payload));
        for length in 0..message.len() {
            assert!(!is_reply(&message[..length], false, false, &payload));
            assert!(!is_reply(&packet[..length], false, true, &payload));
        }
    }

    /// Where sockets for it are given, the loopback answers; elsewhere the refusal says what to do.
    #[tokio::test(flavor = "current_thread")]
    async fn this_host_answers_itself() {
        for host in ["127.0.0.1", "localhost"] {
            let params = serde_json::from_value(json!({ "host": host })).unwrap();
            let lookout = crate::ready(&Icmp, &params, &Policy::builtin()).unwrap();
            match lookout.prepare().await {
                Ok(()) => assert!(lookout.look().await.unwrap().get("roundTrip").is_some()),
                Err(refusal) => assert!(refusal.instead.contains("ping_group_range"), "{refusal:?}"),
            }
        }
    }
}

//! Netlink: sockets, questions and answers. What the messages mean lives in the modules below, one per subsystem;
//! nothing here knows of faults.

#![expect(unsafe_code, reason = "two netlink socket options that no safe wrapper sets")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt},
};

pub mod diag;
pub mod link;
pub mod message;
pub mod nft;
pub mod queue;
pub mod traffic;

use message::{ACK, DUMP, DUMP_INTERRUPTED, Message, REQUEST};

/// `SOL_NETLINK`, linux/socket.h.
const SOL_NETLINK: i32 = 270;
/// `NETLINK_NO_ENOBUFS`, linux/netlink.h.
const NO_ENOBUFS: i32 = 5;
/// `NETLINK_EXT_ACK`, linux/netlink.h: errors come with a text.
const EXT_ACK: i32 = 11;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;

/// Which subsystem of the kernel a socket speaks to; the numbers of linux/netlink.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Protocol {
    /// Devices, addresses, routes, queueing disciplines.
    Route = 0,
    /// Sockets of the host.
    SockDiag = 4,
    /// nftables and NFQUEUE.
    Netfilter = 12,
}

/// What went wrong with a question.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused the message.
    #[error("{}{}", io::Error::from(*.errno), if .detail.is_empty() { String::new() } else { format!(" ({})", .detail) })]
    Refused {
        /// Its error number.
        errno: Errno,
        /// The text it gave along, often empty.
        detail: String,
    },
    /// The socket failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
}

impl Error {
    /// The error number, if the kernel gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket(error) => error.raw_os_error().map(Errno::from_raw_os_error),
        }
    }

    /// Whether the kernel says that the object does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT | Errno::NODEV | Errno::NXIO))
    }
}

/// One message from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Message type.
    pub kind: u16,
    /// What follows the netlink header.
    pub body: Vec<u8>,
}

/// A netlink socket, close-on-exec. Closing it is what removes owner tables and unbinds queues.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Opens a socket in the network namespace of this thread.
    pub fn open(protocol: Protocol) -> Result<Self, Error> {
        let number = rustix::net::RawProtocol::new(protocol as u32).map(rustix::net::Protocol::from_raw);
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, number)
            .map_err(io::Error::from)?;
        // Answers are queued before `send` returns; the bound is there for a kernel that behaves otherwise.
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(Duration::from_secs(5)))
            .map_err(io::Error::from)?;
        let socket = Self { fd, seq: 0, buffer: vec![0; 1 << 17] };
        // Old kernels do not know it; then errors have no text.
        let _ = socket.set(EXT_ACK, true);
        Ok(socket)
    }

    /// Stops the kernel from reporting an overrun receive buffer as an error of the next read.
    pub fn ignore_overruns(&self) -> io::Result<()> {
        self.set(NO_ENOBUFS, true)
    }

    fn set(&self, option: i32, on: bool) -> io::Result<()> {
        let value = i32::from(on);
        let length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: the pointer is to a live i32 of the length given.
        let code =
            unsafe { libc::setsockopt(self.fd.as_raw_fd(), SOL_NETLINK, option, (&raw const value).cast(), length) };
        if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends one request and waits for its acknowledgement. Returns what else came with it.
    pub fn ask(&mut self, mut message: Message) -> Result<Vec<Reply>, Error> {
        message.add_flags(REQUEST | ACK);
        let seq = self.next_seq();
        self.send(&message.finish(seq))?;
        let mut replies = Vec::new();
        loop {
            for part in self.receive(RecvFlags::empty())? {
                if part.seq != seq {
                    continue;
                }
                match part.outcome {
                    Outcome::Data(reply) => replies.push(reply),
                    Outcome::Done => return Ok(replies),
                    Outcome::Failed(error) => return Err(error),
                    Outcome::Interrupted => {}
                }
            }
        }
    }

    /// Lists: sends a dump request and collects all parts. Starts again when the list changed meanwhile.
    pub fn dump(&mut self, message: &Message) -> Result<Vec<Reply>, Error> {
        // Three tries: a list that keeps changing is answered as it was last seen.
        for last in [false, false, true] {
            let mut request = message.clone();
            request.add_flags(REQUEST | DUMP);
            let seq = self.next_seq();
            self.send(&request.finish(seq))?;
            let (replies, torn) = self.collect(seq)?;
            if !torn || last {
                return Ok(replies);
            }
        }
        Ok(Vec::new())
    }

    fn collect(&mut self, seq: u32) -> Result<(Vec<Reply>, bool), Error> {
        let (mut replies, mut torn) = (Vec::new(), false);
        loop {
            for part in self.receive(RecvFlags::empty())? {
                if part.seq != seq {
                    continue;
                }
                match part.outcome {
                    Outcome::Data(reply) => replies.push(reply),
                    Outcome::Interrupted => torn = true,
                    Outcome::Done => return Ok((replies, torn)),
                    Outcome::Failed(error) => return Err(error),
                }
            }
        }
    }

    /// Sends several messages in one datagram, as nftables wants its batches; all of them or none take effect.
    /// Returns what came besides acknowledgements, in order.
    pub fn batch(&mut self, messages: Vec<Message>) -> Result<Vec<Reply>, Error> {
        let mut bytes = Vec::new();
        for message in messages {
            let seq = self.next_seq();
            bytes.extend(message.finish(seq));
        }
        self.send(&bytes)?;
        // All answers are queued by now. The first error is the one that counts: it says which message was refused.
        let (mut replies, mut failed) = (Vec::new(), None);
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(parts) => {
                    for part in parts {
                        match part.outcome {
                            Outcome::Data(reply) => replies.push(reply),
                            Outcome::Failed(error) => failed = failed.or(Some(error)),
                            Outcome::Done | Outcome::Interrupted => {}
                        }
                    }
                }
                Err(Error::Socket(e)) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(replies), Err)
    }

    /// Sends bytes that are whole messages already.
    pub fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::empty()));
        sent.map(|_| ()).map_err(|e| Error::Socket(e.into()))
    }

    fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    fn receive(&mut self, flags: RecvFlags) -> Result<Vec<Part>, Error> {
        let (n, _) = rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, &mut self.buffer, flags))
            .map_err(|e| Error::Socket(e.into()))?;
        Ok(parts(&self.buffer[..n]))
    }
}

/// A received message, sorted by what it means to a question.
#[derive(Debug)]
struct Part {
    seq: u32,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Data(Reply),
    Done,
    Interrupted,
    Failed(Error),
}

fn parts(datagram: &[u8]) -> Vec<Part> {
    let mut all = Vec::new();
    for (header, body) in message::split(datagram) {
        if header.flags & DUMP_INTERRUPTED != 0 {
            all.push(Part { seq: header.seq, outcome: Outcome::Interrupted });
        }
        let outcome = match header.kind {
            ERROR | DONE => {
                let code = body.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
                if code == 0 { Outcome::Done } else { Outcome::Failed(refused(header, body, code)) }
            }
            kind => Outcome::Data(Reply { kind, body: body.to_vec() }),
        };
        all.push(Part { seq: header.seq, outcome });
    }
    all
}

/// The error number that is told as its negative; what cannot be one is a broken message.
fn errno(code: i32) -> Errno {
    /// `MAX_ERRNO`, linux/err.h.
    const MOST: i32 = 4095;
    if (-MOST..0).contains(&code) { Errno::from_raw_os_error(-code) } else { Errno::BADMSG }
}

fn refused(header: message::Header, body: &[u8], code: i32) -> Error {
    /// `NLMSGERR_ATTR_MSG`.
    const TEXT: u16 = 1;
    /// `NLM_F_CAPPED`: the refused message is not repeated beyond its header.
    const CAPPED: u16 = 0x100;
    let echoed = match body.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes) {
        Some(length) if header.kind == ERROR && header.flags & CAPPED == 0 => message::aligned(length as usize),
        _ if header.kind == ERROR => 16,
        _ => 0,
    };
    let text = body.get(4 + echoed..).and_then(|rest| message::find(rest, TEXT)).map(message::text);
    Error::Refused { errno: errno(code), detail: text.unwrap_or_default() }
}

/// All that is read from one datagram of the kernel, for fuzzing: how many things were found in it.
#[cfg(fuzzing)]
pub fn read_datagram(datagram: &[u8]) -> usize {
    let replies = parts(datagram).into_iter().filter_map(|part| match part.outcome {
        Outcome::Data(reply) => Some(reply),
        _ => None,
    });
    let found = |reply: &Reply| {
        usize::from(link::link(reply).is_some())
            + usize::from(diag::connection(&reply.body).is_some())
            + usize::from(traffic::discipline(reply).is_some())
            + usize::from(traffic::found(reply).is_some())
            + usize::from(nft::handle(reply).is_some())
            + nft::counters_of(reply).len()
    };
    replies.map(|reply| found(&reply)).sum::<usize>() + queue::packets(datagram).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: i32) -> Option<Errno> {
        let datagram = Message::new(ERROR, 0, &code.to_ne_bytes()).finish(1);
        match parts(&datagram).remove(0).outcome {
            Outcome::Failed(error) => error.errno(),
            _ => None,
        }
    }

    #[test]
    fn what_cannot_be_an_error_number_is_a_broken_message() {
        assert_eq!(answered(-2), Some(Errno::NOENT));
        assert_eq!(answered(-4095).map(Errno::raw_os_error), Some(4095));
        for code in [1, i32::MAX, i32::MIN, -4096] {
            assert_eq!(answered(code), Some(Errno::BADMSG), "{code}");
        }
        assert_eq!(answered(0), None);
    }
}

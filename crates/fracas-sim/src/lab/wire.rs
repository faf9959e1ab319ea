//! What the lab's processes say to each other over their control sockets, descriptors included. It acts on nothing.
//!
//! A control socket is a pair of `SOCK_SEQPACKET` sockets: one packet is one JSON text, with the descriptors it needs
//! beside it. Both ends are close-on-exec, so that the end of a process is the end of its side.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{LabError, Limit, LinkState, program::End};

/// Longest packet, bytes: below what a socket buffer of the default size takes at once.
const LONGEST: usize = 128 * 1024;
/// Most descriptors beside one packet: standard input, output and error.
const MOST_DESCRIPTORS: usize = 3;

/// The first packet to the outer init: what the creator wants of the lab.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Begin {
    /// Directories of the machine that stay visible and writable.
    pub(super) share: Vec<PathBuf>,
}

/// A request to an init, with the number its reply will carry.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// Given by the creator, rising.
    pub(super) ticket: u64,
    /// What is wanted.
    pub(super) ask: Ask,
}

/// What an init can be asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Start a program; the ticket becomes its number on this socket. Its descriptors come along.
    Spawn(Order),
    /// Send a signal to a program that was started with this ticket.
    Signal {
        /// The ticket.
        process: u64,
        /// Its number.
        signal: i32,
    },
    /// Make a socket in this network namespace and hand it over.
    Socket {
        /// For IPv6 addresses, else IPv4.
        v6: bool,
        /// Of datagrams, else a stream.
        datagram: bool,
    },
    /// Outer init only: start a host.
    AddHost {
        /// Its name.
        name: String,
    },
    /// Outer init only: end a host with all its processes, as if its power was cut.
    EndHost {
        /// Its name.
        name: String,
    },
    /// Outer init only: change a host's link.
    SetLink {
        /// The host.
        name: String,
        /// How it is to be.
        state: LinkState,
    },
}

/// A program to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
    pub(super) clear: bool,
    pub(super) environment: Vec<(String, String)>,
    pub(super) directory: String,
    pub(super) user: Option<(u32, u32)>,
    /// For standard input, output and error: whether a descriptor comes along; the others are `/dev/null`.
    pub(super) given: [bool; 3],
}

/// A good reply.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Spawned {
        pid: i32,
    },
    /// A descriptor comes along.
    Socket,
    /// The host's control socket comes along; its first word says how it got on.
    Host {
        v4: IpAddr,
        v6: IpAddr,
    },
}

/// What an init says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// The first word: it serves requests now.
    Ready { limits: Vec<Limit> },
    /// The first and last word: it could not be set up.
    Refused(LabError),
    /// To a request.
    Reply { ticket: u64, result: Result<Answer, LabError> },
    /// A program has ended.
    Ended { process: u64, end: End },
}

/// Two connected ends.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one packet. The descriptors are copied; the caller keeps its own.
pub(super) fn send(socket: BorrowedFd<'_>, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "arguments and environment exceed 128 KiB"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Waits for one packet; `None` when the other end is closed.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut read = || {
        rustix::io::retry_on_intr(|| {
            let text = &mut [IoSliceMut::new(&mut text)];
            rustix::net::recvmsg(&socket, text, &mut control, RecvFlags::CMSG_CLOEXEC)
        })
    };
    let got = match read() {
        // Told once, before what is still to be read: the other end was closed with unread packets of ours.
        Err(rustix::io::Errno::CONNRESET) => read(),
        other => other,
    };
    let got = match got {
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet was cut short"));
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(Some((serde_json::from_slice(&text[..got.bytes])?, fds)))
}

//! The process connector (`linux/cn_proc.h`): a socket on which the kernel tells everyone who listens what happens to
//! processes. It speaks in the first network namespace and to the first pid and user namespace only; listening takes
//! `CAP_NET_ADMIN`.

use std::{collections::BTreeMap, io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recvfrom, send, socket_with, sockopt,
    },
};

use super::{Event, What};

/// `CN_IDX_PROC` and `CN_VAL_PROC`, linux/connector.h; the group to listen to is the former's bit.
const PROC: (u32, u32) = (1, 1);
/// `PROC_CN_MCAST_LISTEN` and `PROC_CN_MCAST_IGNORE`.
const LISTEN: u32 = 1;
const IGNORE: u32 = 2;
/// `NLMSG_DONE`: what every message of a connector says it is.
const DONE: u16 = 3;
/// Bytes of `struct nlmsghdr` and of `struct cn_msg`, before what happened.
const HEADERS: usize = 16 + 20;
/// Room for what the kernel has not been asked for yet. One message takes somewhat below a kilobyte of it.
const ROOM: usize = 4 << 20;
/// Most messages that are read at a time: nobody holds a look up by starting processes.
const MOST: usize = 100_000;

/// What was read of the socket.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In the order of their stamps, by `CLOCK_MONOTONIC`.
    pub(super) events: Vec<Event>,
    /// Something before the last of them was lost.
    pub(super) lost: bool,
}

/// A socket to which the kernel tells of processes.
#[derive(Debug)]
pub(super) struct Connector {
    fd: OwnedFd,
    token: u32,
    /// The kernel said that it tells.
    accepted: bool,
    /// Of each processor, the number of its next message.
    next: BTreeMap<u32, u32>,
}

impl Connector {
    /// Asks the kernel to tell; it agrees with a message of its own, see [`Connector::accepted`]. The token is one that no
    /// other listener chose.
    ///
    /// # Errors
    /// No right to, no such kernel, or another network namespace.
    pub(super) fn open(token: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::CONNECTOR))?;
        // More than everybody may have takes a right that not every agent has.
        if sockopt::set_socket_recv_buffer_size_force(&fd, ROOM).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, ROOM)?;
        }
        bind(&fd, &SocketAddrNetlink::new(0, 1 << (PROC.0 - 1)))?;
        send(&fd, &request(LISTEN, token), SendFlags::empty())?;
        Ok(Self { fd, token, accepted: false, next: BTreeMap::new() })
    }

    /// Whether the kernel said that it tells everything from then on.
    pub(super) fn accepted(&self) -> bool {
        self.accepted
    }

    /// All that was told since the last call.
    pub(super) fn read(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut buffer = [0; 1024];
        for _ in 0..MOST {
            match recvfrom(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _, from)) if from.as_ref().is_some_and(is_kernel) => {
                    self.take(buffer.get(..length).unwrap_or_default(), &mut batch);
                }
                // Anybody may write to anybody.
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    batch.events.sort_by_key(|event| event.at);
                    return batch;
                }
                Err(_) => batch.lost = true,
            }
        }
        batch.lost = true;
        batch
    }

    fn take(&mut self, datagram: &[u8], batch: &mut Batch) {
        let Some(message) = parse(datagram) else { return };
        match message.told {
            Told::Answer { error } if message.acknowledges == self.token.wrapping_add(1) => self.accepted = error == 0,
            Told::Answer { .. } => {}
            told => {
                let next = self.next.insert(message.cpu, message.number.wrapping_add(1));
                batch.lost |= next.is_some_and(|next| next != message.number);
                if let Told::Of(event) = told {
                    batch.events.push(event);
                }
            }
        }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // Kernels before 6.6 count listeners by these words alone, and make messages while they count one.
        let _ = send(&self.fd, &request(IGNORE, self.token), SendFlags::empty());
    }
}

fn is_kernel(from: &SocketAddrAny) -> bool {
    SocketAddrNetlink::try_from(from.clone()).is_ok_and(|from| from.pid() == 0)
}

fn request(operation: u32, token: u32) -> Vec<u8> {
    let length = u32::try_from(HEADERS + 4).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(DONE.to_ne_bytes());
    bytes.extend([0; 10]);
    for word in [PROC.0, PROC.1, 0, token] {
        bytes.extend(word.to_ne_bytes());
    }
    // Of the length of the operation, and no flags.
    bytes.extend(4_u16.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(operation.to_ne_bytes());
    bytes
}

/// One message of the kernel.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    /// Running number, of its processor.
    number: u32,
    acknowledges: u32,
    cpu: u32,
    told: Told,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// What a listener asked for was done, or not.
    Answer {
        error: u32,
    },
    Of(Event),
    /// Of a thread, or nothing that matters here.
    Other,
}

/// Kinds of events, `enum proc_cn_event`.
const NONE: u32 = 0;
const FORK: u32 = 1;
const EXEC: u32 = 2;
const COMM: u32 = 0x200;
const EXIT: u32 = 0x8000_0000;

/// Reads one datagram; `None` for what is none of the process connector.
fn parse(datagram: &[u8]) -> Option<Message> {
    let word = |at: usize| Some(u32::from_ne_bytes(datagram.get(at..at + 4)?.try_into().ok()?));
    let pid = |index: usize| word(HEADERS + 16 + 4 * index).map(|pid| pid as i32);
    if (word(16)?, word(20)?) != PROC {
        return None;
    }
    let stamp = u64::from_ne_bytes(datagram.get(HEADERS + 8..HEADERS + 16)?.try_into().ok()?);
    let of = |pid, what| Told::Of(Event { at: stamp as i64, pid, what });
    let told = match word(HEADERS)? {
        NONE => Told::Answer { error: word(HEADERS + 16)? },
        FORK => {
            let (parent, child, group) = (pid(1)?, pid(2)?, pid(3)?);
            if child == group { of(child, What::Forked { parent }) } else { Told::Other }
        }
        EXEC => of(pid(1)?, What::Executed),
        COMM if pid(0)? == pid(1)? => of(pid(1)?, What::Renamed),
        EXIT => of(pid(1)?, if pid(0)? == pid(1)? { What::Ended } else { What::ThreadEnded }),
        _ => Told::Other,
    };
    Some(Message { number: word(24)?, acknowledges: word(28)?, cpu: word(HEADERS + 4)?, told })
}

/// What these bytes tell as the kernel's datagrams, for fuzzing: one byte of length, then as many bytes.
#[cfg(fuzzing)]
pub(crate) fn told_in(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (datagram, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        if let Some(Message { told: Told::Of(event), .. }) = parse(datagram) {
            events.push(event);
        }
        bytes = rest;
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captured on Linux 6.18, x86-64, little-endian.
    #[cfg(target_endian = "little")]
    #[test]
    fn messages_of_a_real_kernel_are_read() {
        let read = |hex: &str| {
            let bytes: Vec<u8> =
                (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
            parse(&bytes)
        };
        let answer = read(
            "4c000000030000000000000000000000010000000100000000000000010000002800000000000000\
             00000000fd17d5a348000000000000000000000000000000000000000000000000000000",
        );
        let answer = answer.unwrap();
        assert_eq!((answer.told, answer.acknowledges), (Told::Answer { error: 0 }, 1));
        let at = |low: i64| (0x48 << 32) | low;
        let event = |at, pid, what| Told::Of(Event { at, pid, what });
        let forked = read(
            "4c000000030000000100000000000000010000000100000001000000000000002800000001000000\
             00000000f8c1d5a348000000a1250000a1250000cb250000cb2500000000000000000000",
        );
        let forked = forked.unwrap();
        assert_eq!((forked.number, forked.cpu), (1, 0));
        assert_eq!(forked.told, event(at(0xa3d5_c1f8), 9675, What::Forked { parent: 9633 }));
        let executed = read(
            "4c000000030000000000000000000000010000000100000000000000000000002800000002000000\
             01000000923fe4a348000000cb250000cb25000000000000000000000000000000000000",
        );
        assert_eq!(executed.unwrap().told, event(at(0xa3e4_3f92), 9675, What::Executed));
        let ended = "4c00000003000000010000000000000001000000010000000100000000000000280000000000008001000000\
                     b7ccefa348000000cb250000cb2500000000000011000000a1250000a1250000";
        assert_eq!(read(ended).unwrap().told, event(at(0xa3ef_ccb7), 9675, What::Ended));
        // A thread gave itself a name.
        let renamed = "4c00000003000000030000000000000001000000010000000300000000000000280000000002000000000000\
                       637f50a548000000cc250000592500006f7074206367752e3132000000000000";
        assert_eq!(read(renamed).unwrap().told, Told::Other);
        for cut in 0..HEADERS + 16 + 8 {
            assert_eq!(read(&ended[..2 * cut]), None);
        }
    }

    #[test]
    fn a_message_that_is_missing_is_noticed() {
        let mut connector = Connector {
            fd: rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap(),
            token: 7,
            accepted: false,
            next: BTreeMap::new(),
        };
        let message = |cpu: u32, number: u32, kind: u32, acknowledges: u32| {
            let mut bytes = vec![0; 16];
            for word in [1, 1, number, acknowledges, 40, kind, cpu, 5, 0, 0, 10, 11, 11] {
                bytes.extend(u32::to_ne_bytes(word));
            }
            bytes
        };
        let mut batch = Batch::default();
        connector.take(&message(9, 0, NONE, 7), &mut batch);
        assert!(!connector.accepted(), "somebody else's answer");
        connector.take(&message(9, 0, NONE, 8), &mut batch);
        assert!(connector.accepted());
        for (cpu, number) in [(0, 5), (1, u32::MAX), (0, 6), (1, 0)] {
            connector.take(&message(cpu, number, FORK, 0), &mut batch);
        }
        assert!(!batch.lost);
        assert_eq!(batch.events[0], Event { at: 5, pid: 11, what: What::Forked { parent: 10 } });
        // What is not asked for has a number too.
        connector.take(&message(0, 7, 4, 0), &mut batch);
        connector.take(&message(0, 8, FORK, 0), &mut batch);
        assert!(!batch.lost && batch.events.len() == 5);
        connector.take(&message(1, 2, FORK, 0), &mut batch);
        assert!(batch.lost);
    }
}

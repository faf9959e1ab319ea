//! NFQUEUE: binding queues, reading the packets they hold, saying what becomes of them, and the kernel's own counts.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::net::{RecvFlags, sockopt};

use super::{
    Error, Protocol, Socket,
    message::{self, Message, REQUEST},
};

/// `NFNL_SUBSYS_QUEUE << 8`.
const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIG: u16 = SUBSYSTEM | 2;
const VERDICT_BATCH: u16 = SUBSYSTEM | 3;
/// `NFQA_CFG_F_FAIL_OPEN`: what does not fit passes at once. An overfull fault is then weaker than asked, never lossy.
const FAIL_OPEN: u32 = 1;
/// `NFQA_CFG_F_GSO`: large packets come whole instead of cut into segments.
const GSO: u32 = 4;
/// Receive buffer: several thousand packets' descriptions, or some hundred whole packets.
const BUFFER: usize = 32 << 20;

/// How much of a packet is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// Only that it is there and how long it is; large packets stay whole.
    Meta,
    /// All bytes, with checksums, cut to the size of the device.
    Whole,
}

/// What becomes of a held packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fate {
    /// It is gone.
    Drop = 0,
    /// It goes on its way.
    Accept = 1,
}

/// A packet the kernel holds for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The queue.
    pub queue: u16,
    /// Its number there, rising.
    pub id: u32,
    /// Device it leaves by, 0 when unknown.
    pub out: u32,
    /// The bytes from the IP header on; next to nothing with [`Copy::Meta`].
    pub bytes: &'a [u8],
    /// How many there are of them in the kernel.
    pub length: u32,
}

/// A bound queue with a socket of its own, so that its configuration is over before the first packet comes.
/// Closing it unbinds the queue; what it still holds is lost.
#[derive(Debug)]
pub struct Queue {
    /// Its number.
    pub number: u16,
    socket: Socket,
    buffer: Vec<u8>,
    verdicts: Vec<u8>,
}

/// One line of `/proc/net/netfilter/nfnetlink_queue`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Queue number.
    pub queue: u16,
    /// Packets that wait for a verdict.
    pub waiting: u64,
    /// Dropped because the queue was full.
    pub queue_dropped: u64,
    /// Dropped because the socket buffer was full.
    pub user_dropped: u64,
    /// Packets numbered so far.
    pub numbered: u64,
}

fn header(kind: u16, queue: u16, flags: u16) -> Message {
    let [high, low] = queue.to_be_bytes();
    Message::new(kind, REQUEST | flags, &[0, 0, high, low])
}

fn bind(queue: u16) -> Message {
    let mut m = header(CONFIG, queue, message::ACK);
    m.put(1, &[1, 0, 0, 0]);
    m
}

fn params(queue: u16, copy: Copy, longest: u32) -> Message {
    let (range, mode): (u32, u8) = match copy {
        // One byte, for only then the kernel tells the length too; zero would be all.
        Copy::Meta => (1, 2),
        Copy::Whole => (0xffff, 2),
    };
    let mut value = range.to_be_bytes().to_vec();
    value.push(mode);
    let mut m = header(CONFIG, queue, message::ACK);
    m.put(2, &value).put_be32(3, longest);
    m
}

fn flags(queue: u16, flags: u32) -> Message {
    let mut m = header(CONFIG, queue, message::ACK);
    m.put_be32(4, FAIL_OPEN | GSO).put_be32(5, flags);
    m
}

fn verdict(kind: u16, queue: u16, id: u32, fate: Fate) -> Message {
    let mut value = (fate as u32).to_be_bytes().to_vec();
    value.extend(id.to_be_bytes());
    let mut m = header(kind, queue, 0);
    m.put(2, &value);
    m
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Queue {
    /// Binds a free queue. `longest` is how many packets it may hold.
    pub fn bind(number: u16, copy: Copy, longest: u32) -> Result<Self, Error> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        // Needs a privilege that an own user namespace does not give; then the ordinary limit holds.
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
        }
        socket.ignore_overruns()?;
        let wanted = match copy {
            Copy::Meta => FAIL_OPEN | GSO,
            Copy::Whole => FAIL_OPEN,
        };
        for message in [bind(number), params(number, copy, longest), flags(number, wanted)] {
            socket.ask(message)?;
        }
        Ok(Self { number, socket, buffer: vec![0; 1 << 17], verdicts: Vec::new() })
    }

    /// Reads what the kernel holds, at most `turns` datagrams, and calls `each` for every packet. Never waits.
    /// Returns whether there may be more.
    pub fn read(&mut self, turns: usize, mut each: impl FnMut(Packet<'_>)) -> Result<bool, Error> {
        for _ in 0..turns {
            match rustix::net::recv(&self.socket, &mut self.buffer, RecvFlags::DONTWAIT) {
                Ok((n, _)) => packets(&self.buffer[..n]).for_each(&mut each),
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => {}
                Err(error) => return Err(Error::Socket(error.into())),
            }
        }
        Ok(true)
    }

    /// Judges one packet; sent with [`Self::flush`].
    pub fn judge(&mut self, id: u32, fate: Fate) -> Result<(), Error> {
        self.verdicts.extend(verdict(VERDICT, self.number, id, fate).finish(0));
        if self.verdicts.len() > 1 << 14 { self.flush() } else { Ok(()) }
    }

    /// Judges all packets up to this number, at once.
    pub fn judge_up_to(&mut self, id: u32, fate: Fate) -> Result<(), Error> {
        self.verdicts.extend(verdict(VERDICT_BATCH, self.number, id, fate).finish(0));
        self.flush()
    }

    /// Sends the judgements made so far. The packets are on their way when it returns.
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.verdicts.is_empty() {
            return Ok(());
        }
        let sent = self.socket.send(&self.verdicts);
        self.verdicts.clear();
        sent
    }
}

pub(super) fn packets(datagram: &[u8]) -> impl Iterator<Item = Packet<'_>> {
    message::split(datagram).filter(|(header, _)| header.kind == PACKET).filter_map(|(_, body)| {
        let queue = u16::from_be_bytes([*body.get(2)?, *body.get(3)?]);
        let mut packet = Packet { queue, id: 0, out: 0, bytes: &[], length: 0 };
        let mut seen = false;
        for (kind, value) in message::attributes(body.get(4..)?) {
            match kind {
                1 => (packet.id, seen) = (message::be32(value)?, true),
                6 => packet.out = message::be32(value)?,
                10 => {
                    packet.bytes = value;
                    packet.length = packet.length.max(u32::try_from(value.len()).unwrap_or(u32::MAX));
                }
                13 => packet.length = message::be32(value)?,
                _ => {}
            }
        }
        seen.then_some(packet)
    })
}

/// All bound queues of this thread's network namespace.
pub fn counts() -> io::Result<Vec<Count>> {
    Ok(parse_counts(&std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue")?))
}

pub(crate) fn parse_counts(text: &str) -> Vec<Count> {
    let line = |line: &str| {
        let field: Vec<u64> = line.split_whitespace().map_while(|f| f.parse().ok()).collect();
        let [queue, _, waiting, _, _, queue_dropped, user_dropped, numbered, ..] = field[..] else { return None };
        Some(Count { queue: queue as u16, waiting, queue_dropped, user_dropped, numbered })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::message::hex;

    #[test]
    fn configuration_is_the_accepted_bytes() {
        let golden = "1c 00 00 00 02 03 05 00 01 00 00 00 00 00 00 00 00 00 00 07 08 00 01 00 01 00 00 00";
        assert_eq!(bind(7).finish(1), hex(golden));
        let golden = "28 00 00 00 02 03 05 00 02 00 00 00 00 00 00 00 00 00 00 07 09 00 02 00 00 00 00 01 02 00 00 00
            08 00 03 00 00 00 04 00";
        assert_eq!(params(7, Copy::Meta, 1024).finish(2), hex(golden));
        let golden = "24 00 00 00 02 03 05 00 03 00 00 00 00 00 00 00 00 00 00 07 08 00 04 00 00 00 00 05
            08 00 05 00 00 00 00 05";
        assert_eq!(flags(7, FAIL_OPEN | GSO).finish(3), hex(golden));
    }

    #[test]
    fn a_verdict_is_the_accepted_bytes() {
        let golden = "20 00 00 00 01 03 01 00 00 00 00 00 00 00 00 00 00 00 00 07 0c 00 02 00 00 00 00 01 00 00 00 01";
        assert_eq!(verdict(VERDICT, 7, 1, Fate::Accept).finish(0), hex(golden));
    }

    #[test]
    fn a_packet_and_a_count_are_read() {
        let mut m = header(PACKET, 40_001, 0);
        m.put(1, &[0, 0, 0, 9, 8, 0, 4, 0]).put_be32(6, 3).put(10, &[0x45, 0]).put_be32(13, 9000);
        let bytes = m.finish(0);
        let packet = packets(&bytes).next().expect("a packet");
        assert_eq!(packet, Packet { queue: 40_001, id: 9, out: 3, bytes: &[0x45, 0], length: 9000 });
        let text = "    7  31337     5 1     0     2     3       11  1\n";
        let count = Count { queue: 7, waiting: 5, queue_dropped: 2, user_dropped: 3, numbered: 11 };
        assert_eq!(parse_counts(text), [count]);
    }
}

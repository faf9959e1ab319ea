//! Queueing disciplines and filters, what the faults need of `tc`: netem, clsact, and classic BPF filters with one action.
//! Layout as in linux/rtnetlink.h, pkt_sched.h, pkt_cls.h; the tests hold what Debian's `tc` sends. Decides nothing.

use super::{
    Error, Protocol, Reply, Socket,
    message::{self, CREATE, EXCL, Message},
};

const NEW_QDISC: u16 = 36;
const DEL_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
const DEL_FILTER: u16 = 45;
const GET_FILTER: u16 = 46;
/// `TCA_KIND`.
const KIND: u16 = 1;
/// `TCA_OPTIONS`.
const OPTIONS: u16 = 2;
/// `TCA_STATS2`.
const STATS: u16 = 7;
/// `TCA_STAB`.
const STAB: u16 = 8;
/// `TC_H_ROOT`: the parent of what stands at the root of a device.
pub const ROOT: u32 = 0xffff_ffff;
/// Handle of a clsact or ingress qdisc.
pub const SIDE: u32 = 0xffff_0000;
/// `TC_H_CLSACT`.
const CLSACT: u32 = 0xffff_fff1;
/// Our netem, so that another one is told from it. Spells `fr`.
pub const NETEM: u32 = 0x6672_0000;
/// Overhead in the size table of a clsact that we made. A clsact queues nothing and so never uses its size table, but
/// keeps and shows it: the only mark that is there from the first moment. Spells `frac`.
const MARK: i32 = 0x6672_6163;
/// Nanoseconds in a tick of the older fields: `PSCHED_SHIFT` is 6.
const TICK_NS: u64 = 64;

/// A side of a device that filters hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What comes in.
    Ingress,
    /// What leaves.
    Egress,
}

impl Hook {
    /// `TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS`.
    fn parent(self) -> u32 {
        SIDE | if self == Self::Ingress { 0xfff2 } else { 0xfff3 }
    }
}

/// What netem does with each packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Netem {
    /// Middle of the time it is held, nanoseconds.
    pub delay_ns: u64,
    /// Half the spread around it; drawn evenly, since no table of another distribution is given.
    pub jitter_ns: u64,
    /// Chance of being dropped in units of 2^-32.
    pub loss: u32,
    /// Packets it may hold; further ones are dropped.
    pub limit: u32,
}

/// A queueing discipline of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discipline {
    /// The device.
    pub index: u32,
    /// Its handle.
    pub handle: u32,
    /// Where it hangs.
    pub parent: u32,
    /// `netem`, `clsact`, `fq_codel` ...
    pub kind: String,
    /// It carries the mark of [`Traffic::add_clsact`].
    pub marked: bool,
    /// Its parameters, if it is a netem.
    pub netem: Option<Netem>,
    /// What it did.
    pub counts: Counts,
}

/// What a qdisc or an action did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that came out; a large packet of many segments counts as those.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets held now.
    pub held: u32,
    /// Their bytes.
    pub held_bytes: u32,
    /// Packets dropped.
    pub dropped: u32,
    /// Times that a limit was met.
    pub overlimits: u32,
}

/// One instruction of classic BPF: `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if a test holds.
    pub jt: u8,
    /// Instructions to skip if not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// What becomes of packets that match a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// They leave by the device with this number instead; an ifb brings them back.
    Redirect(u32),
    /// They are gone, and no sender is told.
    Vanish,
    /// They are counted, and the next filter looks at them.
    Count,
}

/// A filter of ours: a program that says which packets match, and one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classifier {
    /// The device.
    pub index: u32,
    /// Which side.
    pub hook: Hook,
    /// Order among the filters of the hook, lowest first.
    pub priority: u16,
    /// Number within the priority.
    pub handle: u32,
    /// Anything but 0 is a match.
    pub program: Vec<Insn>,
    /// The action.
    pub act: Act,
    /// Kept by the kernel with the action, at most 16 bytes: whose it is.
    pub cookie: [u8; 16],
}

/// A filter as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Order among the filters of the hook.
    pub priority: u16,
    /// Number within the priority.
    pub handle: u32,
    /// `bpf`, `u32`, `flower` ...
    pub kind: String,
    /// Kind of its first action, empty without one.
    pub action: String,
    /// Where that action sends packets; 0 when that device is gone.
    pub target: Option<u32>,
    /// What its maker wrote on that action.
    pub cookie: Vec<u8>,
    /// What that action did.
    pub counts: Counts,
}

/// `struct tcmsg`.
fn header(kind: u16, flags: u16, index: u32, handle: u32, parent: u32, info: u32) -> Message {
    let mut fixed = [0; 20];
    for (at, value) in [(4, index), (8, handle), (12, parent), (16, info)] {
        fixed[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    Message::new(kind, flags, &fixed)
}

fn clsact(index: u32) -> Message {
    let mut m = header(NEW_QDISC, CREATE | EXCL, index, SIDE, CLSACT, 0);
    m.put_text(KIND, "clsact");
    // struct tc_sizespec: cell_log, size_log, cell_align, overhead, linklayer, mpu, mtu, tsize.
    let mut spec = [0; 24];
    spec[4..8].copy_from_slice(&MARK.to_ne_bytes());
    m.nest_plain(STAB, |m| {
        m.put(1, &spec);
    });
    m
}

fn netem(index: u32, netem: &Netem) -> Message {
    let mut m = header(NEW_QDISC, CREATE | EXCL, index, NETEM, ROOT, 0);
    let ticks = |ns: u64| u32::try_from(ns / TICK_NS).unwrap_or(u32::MAX);
    m.put_text(KIND, "netem").nest_plain(OPTIONS, |m| {
        // struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter; times in ticks for kernels before 4.16.
        let fields = [ticks(netem.delay_ns), netem.limit, netem.loss, 0, 0, ticks(netem.jitter_ns)];
        m.raw(&fields.map(u32::to_ne_bytes).concat());
        // TCA_NETEM_LATENCY64 and TCA_NETEM_JITTER64, nanoseconds; where known they win.
        m.put(10, &netem.delay_ns.to_ne_bytes()).put(11, &netem.jitter_ns.to_ne_bytes());
    });
    m
}

fn classifier(flags: u16, c: &Classifier) -> Message {
    /// `ETH_P_ALL`; the program looks at the protocol itself.
    const ALL: u16 = 3;
    let info = u32::from(c.priority) << 16 | u32::from(ALL.to_be());
    let kind = if flags & CREATE == 0 { DEL_FILTER } else { NEW_FILTER };
    let mut m = header(kind, flags, c.index, c.handle, c.hook.parent(), info);
    m.put_text(KIND, "bpf");
    if kind == DEL_FILTER {
        return m;
    }
    m.nest_plain(OPTIONS, |m| {
        // TCA_BPF_ACT, then the first action of its list.
        m.nest_plain(1, |m| {
            m.nest_plain(1, |m| action(m, c));
        });
        // TCA_BPF_OPS_LEN and TCA_BPF_OPS
        m.put(4, &(c.program.len() as u16).to_ne_bytes()).put(5, &code(&c.program));
    });
    m
}

fn action(m: &mut Message, c: &Classifier) {
    /// `TC_ACT_STOLEN`: gone, and the sender thinks that it was sent.
    const STOLEN: i32 = 4;
    /// `TC_ACT_UNSPEC`: on with the next filter.
    const NEXT: i32 = -1;
    /// `TCA_EGRESS_REDIR`.
    const REDIRECT: u32 = 1;
    let (kind, verdict) = match c.act {
        Act::Redirect(_) => ("mirred", STOLEN),
        Act::Vanish => ("gact", STOLEN),
        Act::Count => ("gact", NEXT),
    };
    // tc_gen: index, capabilities, verdict, references, bindings.
    let mut parms = [0, 0, verdict.cast_unsigned(), 0, 0].map(u32::to_ne_bytes).concat();
    if let Act::Redirect(to) = c.act {
        parms.extend([REDIRECT, to].map(u32::to_ne_bytes).concat());
    }
    // TCA_ACT_KIND, TCA_ACT_OPTIONS with TCA_MIRRED_PARMS or TCA_GACT_PARMS, TCA_ACT_COOKIE
    m.put_text(1, kind);
    m.nest(2, |m| {
        m.put(2, &parms);
    });
    m.put(6, &c.cookie);
}

fn code(program: &[Insn]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 * program.len());
    for insn in program {
        bytes.extend(insn.code.to_ne_bytes());
        bytes.extend([insn.jt, insn.jf]);
        bytes.extend(insn.k.to_ne_bytes());
    }
    bytes
}

/// A socket for the qdiscs and filters of one network namespace.
#[derive(Debug)]
pub struct Traffic {
    socket: Socket,
}

impl Traffic {
    /// Of the network namespace this thread is in now.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Route)? })
    }

    /// A clsact with our mark. Fails with `EEXIST` if the device has one, or an ingress qdisc, already.
    pub fn add_clsact(&mut self, index: u32) -> Result<(), Error> {
        self.socket.ask(clsact(index)).map(|_| ())
    }

    /// Removes the clsact of a device with all filters on it.
    pub fn delete_clsact(&mut self, index: u32) -> Result<(), Error> {
        let mut m = header(DEL_QDISC, 0, index, SIDE, CLSACT, 0);
        m.put_text(KIND, "clsact");
        self.socket.ask(m).map(|_| ())
    }

    /// A netem with our handle at the root of a device that has only its default there.
    pub fn add_netem(&mut self, index: u32, what: &Netem) -> Result<(), Error> {
        self.socket.ask(netem(index, what)).map(|_| ())
    }

    /// Removes our netem; what it holds is lost.
    pub fn delete_netem(&mut self, index: u32) -> Result<(), Error> {
        self.socket.ask(header(DEL_QDISC, 0, index, NETEM, ROOT, 0)).map(|_| ())
    }

    /// The qdiscs of all devices.
    pub fn disciplines(&mut self) -> Result<Vec<Discipline>, Error> {
        let replies = self.socket.dump(&header(GET_QDISC, 0, 0, 0, 0, 0))?;
        Ok(replies.iter().filter_map(discipline).collect())
    }

    /// A filter; fails with `EEXIST` if the priority has one of this handle.
    pub fn add_filter(&mut self, what: &Classifier) -> Result<(), Error> {
        self.socket.ask(classifier(CREATE | EXCL, what)).map(|_| ())
    }

    /// Removes one bpf filter.
    pub fn delete_filter(&mut self, index: u32, hook: Hook, priority: u16, handle: u32) -> Result<(), Error> {
        let which = Classifier { index, hook, priority, handle, program: Vec::new(), act: Act::Count, cookie: [0; 16] };
        self.socket.ask(classifier(0, &which)).map(|_| ())
    }

    /// The filters of a hook, in the order in which they look; none if the device has no clsact.
    pub fn filters(&mut self, index: u32, hook: Hook) -> Result<Vec<Found>, Error> {
        match self.socket.dump(&header(GET_FILTER, 0, index, 0, hook.parent(), 0)) {
            // EINVAL: the parent does not exist.
            Err(error) if error.is_absent() || error.errno() == Some(rustix::io::Errno::INVAL) => Ok(Vec::new()),
            other => Ok(other?.iter().filter_map(found).collect()),
        }
    }
}

pub(super) fn discipline(reply: &Reply) -> Option<Discipline> {
    let body = reply.body.as_slice();
    let attributes = body.get(20..).filter(|_| reply.kind == NEW_QDISC)?;
    let kind = message::text(message::find(attributes, KIND)?);
    let netem = message::find(attributes, OPTIONS).filter(|_| kind == "netem").and_then(netem_of);
    let spec = message::find_path(attributes, &[STAB, 1]);
    Some(Discipline {
        index: message::u32_at(body, 4)?,
        handle: message::u32_at(body, 8)?,
        parent: message::u32_at(body, 12)?,
        marked: spec.and_then(|s| message::u32_at(s, 4)) == Some(MARK.cast_unsigned()),
        netem,
        counts: message::find(attributes, STATS).map(counts).unwrap_or_default(),
        kind,
    })
}

fn netem_of(options: &[u8]) -> Option<Netem> {
    let field = |i: usize| message::u32_at(options, 4 * i);
    let exact = |kind| options.get(24..).and_then(|more| message::find(more, kind)).and_then(|v| message::u64_at(v, 0));
    let ticks = |i| field(i).map(|ticks| u64::from(ticks) * TICK_NS);
    Some(Netem {
        delay_ns: exact(10).or_else(|| ticks(0))?,
        jitter_ns: exact(11).or_else(|| ticks(5))?,
        loss: field(2)?,
        limit: field(1)?,
    })
}

/// `TCA_STATS2` and `TCA_ACT_STATS` have the same inside.
fn counts(stats: &[u8]) -> Counts {
    // TCA_STATS_BASIC: bytes, packets. TCA_STATS_QUEUE: qlen, backlog, drops, requeues, overlimits. TCA_STATS_PKT64.
    let basic = message::find(stats, 1).unwrap_or_default();
    let queue = |i: usize| message::find(stats, 3).and_then(|q| message::u32_at(q, 4 * i)).unwrap_or(0);
    let packets = message::u32_at(basic, 8).map_or(0, u64::from);
    Counts {
        packets: message::find(stats, 8).and_then(|v| message::u64_at(v, 0)).unwrap_or(packets),
        bytes: message::u64_at(basic, 0).unwrap_or(0),
        held: queue(0),
        held_bytes: queue(1),
        dropped: queue(2),
        overlimits: queue(4),
    }
}

pub(super) fn found(reply: &Reply) -> Option<Found> {
    let body = reply.body.as_slice();
    let attributes = body.get(20..).filter(|_| reply.kind == NEW_FILTER)?;
    let kind = message::text(message::find(attributes, KIND)?);
    // A line without options is only the head of a priority. Where the actions are depends on the kind: 1 is right
    // for bpf, and for others the filter is listed without its action.
    let options = message::find(attributes, OPTIONS)?;
    let act = message::find_path(options, &[1, 1]).filter(|_| kind == "bpf").unwrap_or_default();
    let action = message::find(act, 1).map(message::text).unwrap_or_default();
    let target = message::find_path(act, &[2, 2]).filter(|_| action == "mirred");
    Some(Found {
        priority: (message::u32_at(body, 16)? >> 16) as u16,
        handle: message::u32_at(body, 8)?,
        kind,
        target: target.and_then(|parms| message::u32_at(parms, 24)),
        cookie: message::find(act, 6).unwrap_or_default().to_vec(),
        counts: message::find(act, 4).map(counts).unwrap_or_default(),
        action,
    })
}

#[cfg(test)]
mod tests;

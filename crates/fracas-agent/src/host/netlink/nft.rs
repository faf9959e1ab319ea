//! nftables messages: owner tables, chains, rules and the few expressions the faults need.
//! Layout and traps were tried on the kernel; the tests hold the accepted bytes.

use super::{
    Error, Protocol, Reply, Socket,
    message::{self, ACK, APPEND, CREATE, ECHO, EXCL, Message, REQUEST},
};

/// `NFPROTO_INET`: one table for IPv4 and IPv6.
const INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES << 8`.
const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const DEL_CHAIN: u16 = SUBSYSTEM | 5;
/// `NFT_MSG_NEWRULE`.
pub const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const DEL_RULE: u16 = SUBSYSTEM | 8;
/// `NFT_TABLE_F_OWNER`. Never together with `PERSIST` (4): such a table goes on dropping after its owner's death.
pub const OWNER: u32 = 2;

/// Where packets are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// Everything that comes in, forwarded or not.
    Prerouting = 0,
    /// Everything for a local process.
    Input = 1,
    /// Everything from a local process.
    Output = 3,
    /// Everything that leaves, forwarded or not.
    Postrouting = 4,
}

/// `nft_meta_keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Meta {
    /// Firewall mark, 4 bytes, host order.
    Mark = 3,
    /// Name of the device it came in by, 16 bytes.
    InName = 6,
    /// Name of the device it leaves by, 16 bytes.
    OutName = 7,
    /// Hardware type of the device it came in by, 2 bytes, host order.
    InType = 8,
    /// Hardware type of the device it leaves by.
    OutType = 9,
    /// User of the local socket; a rule does not match where there is no local socket.
    SocketUser = 10,
    /// IPv4 (2) or IPv6 (10), 1 byte.
    Family = 15,
    /// Transport protocol, 1 byte.
    Transport = 16,
}

/// Where an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Base {
    /// Start of the IP header.
    Network = 1,
    /// Start of the transport header; a rule does not match later fragments.
    Transport = 2,
}

/// `nft_cmp_ops`; comparison is by bytes, so values must be big-endian to be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Cmp {
    /// Equal.
    Eq = 0,
    /// Less.
    Less = 2,
    /// At most.
    AtMost = 3,
    /// At least.
    AtLeast = 5,
}

/// How a rule ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet is gone.
    Drop,
    /// It passes this base chain.
    Accept,
    /// Back to the calling chain.
    Return,
    /// On in this chain; back here when it ends.
    Jump(String),
    /// On in this chain; back to our caller when it ends.
    Goto(String),
}

/// Which of the two ways into NFQUEUE this kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueForm {
    /// The `queue` expression of nftables.
    Native,
    /// The xtables target `NFQUEUE`, revision 3, through nft's compatibility expression.
    Target,
}

fn header(kind: u16, flags: u16) -> Message {
    Message::new(kind, REQUEST | flags, &[INET, 0, 0, 0])
}

/// Messages that take effect together or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    messages: Vec<Message>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { messages: vec![Message::new(0x10, REQUEST, &[0, 0, 0, 10])] }
    }
}

impl Batch {
    /// A table that dies with the socket it is sent on.
    pub fn new_table(&mut self, table: &str) -> &mut Self {
        let mut m = header(NEW_TABLE, ACK | CREATE | EXCL);
        m.put_text(1, table).put_be32(2, OWNER);
        self.push(m)
    }

    /// Removes a table of ours with all that is in it.
    pub fn delete_table(&mut self, table: &str) -> &mut Self {
        let mut m = header(DEL_TABLE, ACK);
        m.put_text(1, table);
        self.push(m)
    }

    /// A chain that the kernel calls.
    pub fn base_chain(&mut self, table: &str, chain: &str, hook: Hook, priority: i32) -> &mut Self {
        let mut m = header(NEW_CHAIN, ACK | CREATE);
        m.put_text(1, table).put_text(3, chain);
        m.nest(4, |m| {
            m.put_be32(1, hook as u32).put_be32(2, priority.cast_unsigned());
        });
        m.put_be32(5, 1).put_text(7, "filter");
        self.push(m)
    }

    /// A chain that rules jump to. Its removal leaves all queues alone, unlike that of a base chain.
    pub fn chain(&mut self, table: &str, chain: &str) -> &mut Self {
        let mut m = header(NEW_CHAIN, ACK | CREATE);
        m.put_text(1, table).put_text(3, chain);
        self.push(m)
    }

    /// Removes a chain; nothing may jump to it any more.
    pub fn delete_chain(&mut self, table: &str, chain: &str) -> &mut Self {
        let mut m = header(DEL_CHAIN, ACK);
        m.put_text(1, table).put_text(3, chain);
        self.push(m)
    }

    /// Appends a rule.
    pub fn rule(&mut self, table: &str, chain: &str, rule: &Rule) -> &mut Self {
        self.push(new_rule(table, chain, rule, 0))
    }

    /// Appends a rule whose handle the kernel reports; see [`handle`].
    pub fn rule_with_handle(&mut self, table: &str, chain: &str, rule: &Rule) -> &mut Self {
        self.push(new_rule(table, chain, rule, ECHO))
    }

    /// Removes one rule.
    pub fn delete_rule(&mut self, table: &str, chain: &str, handle: u64) -> &mut Self {
        let mut m = header(DEL_RULE, ACK);
        m.put_text(1, table).put_text(2, chain).put(3, &handle.to_be_bytes());
        self.push(m)
    }

    /// Removes all rules of a chain.
    pub fn delete_rules(&mut self, table: &str, chain: &str) -> &mut Self {
        let mut m = header(DEL_RULE, ACK);
        m.put_text(1, table).put_text(2, chain);
        self.push(m)
    }

    /// Sends it.
    pub fn commit(self, socket: &mut Socket) -> Result<Vec<Reply>, Error> {
        socket.batch(self.finish())
    }

    fn finish(mut self) -> Vec<Message> {
        self.messages.push(Message::new(0x11, REQUEST, &[0, 0, 0, 10]));
        self.messages
    }

    fn push(&mut self, message: Message) -> &mut Self {
        self.messages.push(message);
        self
    }
}

fn new_rule(table: &str, chain: &str, rule: &Rule, flags: u16) -> Message {
    let mut m = header(NEW_RULE, ACK | CREATE | APPEND | flags);
    m.put_text(1, table).put_text(2, chain);
    m.nest(4, |m| {
        m.raw(rule.list.bytes());
    });
    m
}

/// The expressions of a rule: tests, then an end.
#[derive(Clone, Debug)]
pub struct Rule {
    list: Message,
}

impl Default for Rule {
    fn default() -> Self {
        Self { list: Message::attributes() }
    }
}

impl Rule {
    /// A rule without tests.
    pub fn new() -> Self {
        Self::default()
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Message)) -> Self {
        self.list.nest(1, |m| {
            m.put_text(1, name).nest(2, fill);
        });
        self
    }

    /// Loads a property of the packet; by itself it matches where the property exists.
    #[must_use]
    pub fn meta(self, key: Meta) -> Self {
        self.expression("meta", |m| {
            m.put_be32(1, 1).put_be32(2, key as u32);
        })
    }

    /// Loads bytes of the packet.
    #[must_use]
    pub fn payload(self, base: Base, offset: u32, length: u32) -> Self {
        self.expression("payload", |m| {
            m.put_be32(1, 1).put_be32(2, base as u32).put_be32(3, offset).put_be32(4, length);
        })
    }

    /// Compares what was loaded.
    #[must_use]
    pub fn compare(self, how: Cmp, value: &[u8]) -> Self {
        self.expression("cmp", |m| {
            m.put_be32(1, 1).put_be32(2, how as u32).nest(3, |m| {
                m.put(1, value);
            });
        })
    }

    /// Keeps only these bits of what was loaded.
    #[must_use]
    pub fn mask(self, mask: &[u8]) -> Self {
        self.expression("bitwise", |m| {
            m.put_be32(1, 1).put_be32(2, 1).put_be32(3, mask.len() as u32);
            m.nest(4, |m| {
                m.put(1, mask);
            });
            m.nest(5, |m| {
                m.put(1, &vec![0; mask.len()]);
            });
        })
    }

    /// Matches a property of the packet.
    #[must_use]
    pub fn is(self, key: Meta, value: &[u8]) -> Self {
        self.meta(key).compare(Cmp::Eq, value)
    }

    /// Matches one transport protocol.
    #[must_use]
    pub fn transport(self, protocol: u8) -> Self {
        self.is(Meta::Transport, &[protocol])
    }

    /// Matches with a chance of `below` in a million.
    ///
    /// The number is drawn in host order and compared by bytes, hence the turn: without it the rule loads and never
    /// matches.
    #[must_use]
    pub fn chance(self, below: u32) -> Self {
        self.expression("numgen", |m| {
            m.put_be32(1, 1).put_be32(2, 1_000_000).put_be32(3, 1).put_be32(4, 0);
        })
        .expression("byteorder", |m| {
            m.put_be32(1, 1).put_be32(2, 1).put_be32(3, 1).put_be32(4, 4).put_be32(5, 4);
        })
        .compare(Cmp::Less, &below.to_be_bytes())
    }

    /// Counts what came this far.
    #[must_use]
    pub fn counter(self) -> Self {
        self.expression("counter", |_| {})
    }

    /// Ends the rule.
    #[must_use]
    pub fn verdict(self, verdict: &Verdict) -> Self {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5_i32, None),
        };
        self.expression("immediate", |m| {
            m.put_be32(1, 0).nest(2, |m| {
                m.nest(2, |m| {
                    m.put_be32(1, code.cast_unsigned());
                    if let Some(chain) = chain {
                        m.put_text(2, chain);
                    }
                });
            });
        })
    }

    /// Hands the packet to an NFQUEUE. With `bypass` it passes when nobody listens there, without it is lost silently.
    #[must_use]
    pub fn queue(self, form: QueueForm, number: u16, bypass: bool) -> Self {
        match form {
            QueueForm::Native => self.expression("queue", |m| {
                m.put_be16(1, number).put_be16(2, 1).put_be16(3, u16::from(bypass));
            }),
            QueueForm::Target => {
                let mut info = Vec::with_capacity(8);
                for field in [number, 1, u16::from(bypass), 0] {
                    info.extend(field.to_ne_bytes());
                }
                self.expression("target", |m| {
                    m.put_text(1, "NFQUEUE").put_be32(2, 3).put(3, &info);
                })
            }
        }
    }
}

/// The chain and handle of a rule the kernel reported.
pub fn handle(reply: &Reply) -> Option<(String, u64)> {
    let attributes = reply.body.get(4..).filter(|_| reply.kind == NEW_RULE)?;
    let chain = message::find(attributes, 2).map(message::text)?;
    Some((chain, message::find(attributes, 3).and_then(message::be64)?))
}

/// Packets counted by each counter of a chain, rule by rule.
pub fn counters(socket: &mut Socket, table: &str, chain: &str) -> Result<Vec<u64>, Error> {
    Ok(rules(socket, table, chain)?.iter().flat_map(counters_of).collect())
}

pub(super) fn counters_of(reply: &Reply) -> Vec<u64> {
    let list = reply.body.get(4..).and_then(|attributes| message::find(attributes, 4)).unwrap_or_default();
    let expressions = message::attributes(list).filter(|(kind, _)| *kind == 1).map(|(_, value)| value);
    let counters = expressions.filter(|e| message::find(e, 1).map(message::text).as_deref() == Some("counter"));
    // NFTA_COUNTER_BYTES is 1, NFTA_COUNTER_PACKETS is 2.
    counters.filter_map(|e| message::find_path(e, &[2, 2]).and_then(message::be64)).collect()
}

/// All rules of a chain; empty when the chain or the table does not exist.
pub fn rules(socket: &mut Socket, table: &str, chain: &str) -> Result<Vec<Reply>, Error> {
    let mut m = header(GET_RULE, 0);
    m.put_text(1, table).put_text(2, chain);
    match socket.dump(&m) {
        Err(error) if error.is_absent() => Ok(Vec::new()),
        other => Ok(other?.into_iter().filter(|r| r.kind == NEW_RULE).collect()),
    }
}

/// The flags of a table; `None` when there is no such table.
pub fn table_flags(socket: &mut Socket, table: &str) -> Result<Option<u32>, Error> {
    let mut m = header(GET_TABLE, 0);
    m.put_text(1, table);
    match socket.ask(m) {
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
        Ok(replies) => Ok(replies
            .iter()
            .find(|r| r.kind == NEW_TABLE)
            .map(|r| r.body.get(4..).and_then(|a| message::find(a, 2)).and_then(message::be32).unwrap_or(0))),
    }
}

/// Names of the tables of family `inet` that the namespace of this thread holds.
pub fn tables() -> Result<Vec<String>, Error> {
    let found = Socket::open(Protocol::Netfilter)?.dump(&header(GET_TABLE, 0))?;
    let named = found.iter().filter(|r| r.kind == NEW_TABLE);
    Ok(named.filter_map(|r| r.body.get(4..).and_then(|a| message::find(a, 1)).map(message::text)).collect())
}

/// Whether the namespace of this thread holds a table of this name.
pub fn table_exists(table: &str) -> Result<bool, Error> {
    Ok(table_flags(&mut Socket::open(Protocol::Netfilter)?, table)?.is_some())
}

#[cfg(test)]
mod tests;

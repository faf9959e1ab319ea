//! From a fault's filter to one classic BPF program for a clsact hook: which packets are meant, exemptions included.
//! It means the same as the rules of [`super::rules`]; it says nothing of what becomes of the packets.
//!
//! One program is one filter of the kernel: exemptions that let pass would, as filters of their own, also hide the
//! packet from every filter behind them. u32 and flower cannot say "and not"; classic BPF can, needs no privilege
//! beyond that of setting filters, and is there wherever tc is.

use fracas_model::plan::{Direction, Filter, Protocol};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    super::{Failure, netlink::traffic::Insn},
    rules::{DHCP, DISCOVERY, ICMP, ICMP6, TCP, UDP, network},
};

// Opcodes of linux/bpf_common.h, as they are combined here.
const LD_B_ABS: u16 = 0x30;
const LD_H_ABS: u16 = 0x28;
const LD_W_ABS: u16 = 0x20;
const LD_B_IND: u16 = 0x50;
const LD_H_IND: u16 = 0x48;
const LD_IMM: u16 = 0x00;
const LD_MEM: u16 = 0x60;
const LDX_IMM: u16 = 0x01;
/// `X = 4 * (byte & 15)`: the length of an IPv4 header.
const LDX_HEADER: u16 = 0xb1;
const ST: u16 = 0x02;
const ADD_K: u16 = 0x04;
const ADD_X: u16 = 0x0c;
const AND_K: u16 = 0x54;
const SHIFT_K: u16 = 0x64;
const TAX: u16 = 0x07;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PROTOCOL`: the Ethernet type, host order, below any VLAN tag.
const PROTOCOL: u32 = (-0x1000_i32).cast_unsigned();
/// `SKF_AD_OFF + SKF_AD_RANDOM`: 32 random bits.
const RANDOM: u32 = (-0x1000_i32 + 56).cast_unsigned();
/// `SKF_NET_OFF`: from here offsets count from the IP header, but must lie in the packet's first piece.
const NETWORK: u32 = (-0x10_0000_i32).cast_unsigned();
/// Length of an Ethernet header; offsets from the frame's start may lie anywhere in the packet.
const ETHERNET: u32 = 14;

const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
/// Scratch cells: transport protocol, source port, destination port.
const TRANSPORT: u32 = 0;
const SOURCE: u32 = 1;
const DESTINATION: u32 = 2;
/// In a port's cell: there is no port. Greater than any port.
const NO_PORT: u32 = 0x1_0000;
/// IPv6 extension headers looked through; a packet with more is taken for one without ports.
const EXTENSIONS: usize = 4;
/// `BPF_MAXINSNS`.
const LONGEST: usize = 4096;
/// What a match returns. The kernel takes -1 for "matches, no class".
const MATCH: u32 = u32::MAX;

/// What stands before the IP header where the filter looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// Something else or nothing, as on tunnels.
    Other,
}

impl Link {
    /// By the hardware type of a device (`ARPHRD_*`): Ethernet and loopback have that header.
    pub fn of(hardware: u16) -> Self {
        if matches!(hardware, 1 | 772) { Self::Ethernet } else { Self::Other }
    }
}

/// A program that matches exactly the packets of a filter in this direction; of those only some by chance, if `share`
/// is given, in units of 2^-32.
pub fn program(direction: Direction, filter: &Filter, link: Link, share: Option<u32>) -> Result<Vec<Insn>, Failure> {
    let nets = |list: Vec<&String>| list.into_iter().map(|n| network(n)).collect::<Result<Vec<_>, _>>();
    let remotes = nets(filter.remotes.iter().collect())?;
    let passing = nets(filter.pass_remotes.iter().map(|(net, _)| net).collect())?;
    let mut c = Code::new(link);
    let (v4, v6, yes, no) = (c.label(), c.label(), c.label(), c.label());
    let transport = c.label();
    c.emit(LD_W_ABS, PROTOCOL).when(JEQ, IPV4, v4).when(JEQ, IPV6, v6).go(no);
    for version in [4, 6] {
        c.place(if version == 4 { v4 } else { v6 });
        if version == 4 {
            c.read_v4(no);
        } else {
            c.read_v6(no);
        }
        c.always_passes(no);
        for (net, (_, port)) in passing.iter().zip(&filter.pass_remotes).filter(|(n, _)| of(version, n)) {
            let next = c.label();
            c.unless_in(net, direction, next);
            c.far_port(direction, *port, no, next);
            c.place(next);
        }
        for port in &filter.pass_ports {
            c.ports((*port, *port), no);
        }
        for net in remotes.iter().filter(|n| of(version, n)) {
            let next = c.label();
            c.unless_in(net, direction, next).go(transport);
            c.place(next);
        }
        c.go(if remotes.is_empty() { transport } else { no });
    }
    c.place(transport);
    c.transport(filter, yes, no);
    c.place(yes);
    if let Some(below) = share {
        c.emit(LD_W_ABS, RANDOM).when(JGE, below, no);
    }
    c.emit(RET, MATCH);
    c.place(no);
    c.emit(RET, 0);
    c.finish()
}

fn of(version: u8, net: &IpNet) -> bool {
    matches!((version, net), (4, IpNet::V4(_)) | (6, IpNet::V6(_)))
}

/// A place in the program, known or still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label(usize);

/// A program being written. Conditions skip one instruction, a jump: so distances do not matter.
#[derive(Debug)]
struct Code {
    code: Vec<Insn>,
    /// Where the IP header begins.
    base: u32,
    places: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Code {
    fn new(link: Link) -> Self {
        let base = if link == Link::Ethernet { ETHERNET } else { NETWORK };
        Self { code: Vec::new(), base, places: Vec::new(), jumps: Vec::new() }
    }

    fn emit(&mut self, code: u16, k: u32) -> &mut Self {
        self.code.push(Insn { code, jt: 0, jf: 0, k });
        self
    }

    /// An instruction whose operand is an offset into the IP packet.
    fn load(&mut self, code: u16, offset: u32) -> &mut Self {
        self.emit(code, self.base.wrapping_add(offset))
    }

    fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.code.len());
    }

    fn go(&mut self, to: Label) -> &mut Self {
        self.jumps.push((self.code.len(), to));
        self.emit(JA, 0)
    }

    fn when(&mut self, test: u16, k: u32, to: Label) -> &mut Self {
        self.code.push(Insn { code: test, jt: 0, jf: 1, k });
        self.go(to)
    }

    fn unless(&mut self, test: u16, k: u32, to: Label) -> &mut Self {
        self.code.push(Insn { code: test, jt: 1, jf: 0, k });
        self.go(to)
    }

    fn finish(mut self) -> Result<Vec<Insn>, Failure> {
        for (at, label) in &self.jumps {
            let to = self.places[label.0].expect("every label is placed before the program is finished");
            // All jumps go forward: the kernel knows no others.
            self.code[*at].k = (to - at - 1) as u32;
        }
        let length = self.code.len();
        if length > LONGEST {
            let most = format!("a filter program may have {LONGEST} instructions, this one has {length}");
            return Err(Failure(format!("the filter has too many networks and ports: {most}")));
        }
        Ok(self.code)
    }

    /// Fills the cells from an IPv4 header.
    fn read_v4(&mut self, no: Label) {
        let portless = self.label();
        self.load(LD_B_ABS, 9).emit(ST, TRANSPORT);
        // A later fragment: any offset but 0.
        self.load(LD_H_ABS, 6).when(JSET, 0x1fff, portless);
        self.load(LDX_HEADER, 0);
        self.read_ports(portless, no);
    }

    /// Fills the cells from an IPv6 header and the extension headers behind it.
    fn read_v6(&mut self, no: Label) {
        let (portless, done) = (self.label(), self.label());
        self.emit(LDX_IMM, 40).load(LD_B_ABS, 6).emit(ST, TRANSPORT);
        for _ in 0..EXTENSIONS {
            let (plain, fragment, security, next) = (self.label(), self.label(), self.label(), self.label());
            // Hop-by-hop, routing, destination options; fragment; authentication.
            self.when(JEQ, 0, plain).when(JEQ, 43, plain).when(JEQ, 60, plain);
            self.when(JEQ, 44, fragment).when(JEQ, 51, security).go(done);
            self.place(fragment);
            self.load(LD_B_IND, 0).emit(ST, TRANSPORT);
            self.load(LD_H_IND, 2).when(JSET, 0xfff8, portless);
            self.emit(LD_IMM, 8).go(next);
            self.place(security);
            // Its length counts 4 bytes, less two of them.
            self.load(LD_B_IND, 0).emit(ST, TRANSPORT);
            self.load(LD_B_IND, 1).emit(ADD_K, 2).emit(SHIFT_K, 2).go(next);
            self.place(plain);
            // Their length counts 8 bytes beyond the first 8.
            self.load(LD_B_IND, 0).emit(ST, TRANSPORT);
            self.load(LD_B_IND, 1).emit(ADD_K, 1).emit(SHIFT_K, 3);
            self.place(next);
            self.emit(ADD_X, 0).emit(TAX, 0).emit(LD_MEM, TRANSPORT);
        }
        self.place(done);
        self.read_ports(portless, no);
    }

    /// Fills the cells of the ports from the transport header at X. Neighbour discovery ends the program.
    fn read_ports(&mut self, portless: Label, no: Label) {
        let (with, end) = (self.label(), self.label());
        self.emit(LD_MEM, TRANSPORT).when(JEQ, TCP.into(), with).when(JEQ, UDP.into(), with);
        self.unless(JEQ, ICMP6.into(), portless);
        self.load(LD_B_IND, 0).unless(JGE, DISCOVERY.0.into(), portless).unless(JGT, DISCOVERY.1.into(), no);
        self.place(portless);
        self.emit(LD_IMM, NO_PORT).emit(ST, SOURCE).emit(ST, DESTINATION).go(end);
        self.place(with);
        self.load(LD_H_IND, 0).emit(ST, SOURCE).load(LD_H_IND, 2).emit(ST, DESTINATION);
        self.place(end);
    }

    /// DHCP.
    fn always_passes(&mut self, no: Label) {
        let end = self.label();
        self.emit(LD_MEM, TRANSPORT).unless(JEQ, UDP.into(), end);
        for range in DHCP {
            self.ports(range, no);
        }
        self.place(end);
    }

    /// Jumps if either port is in the range.
    fn ports(&mut self, (from, to): (u16, u16), hit: Label) {
        for cell in [SOURCE, DESTINATION] {
            let miss = self.label();
            self.emit(LD_MEM, cell).unless(JGE, from.into(), miss).unless(JGT, to.into(), hit);
            self.place(miss);
        }
    }

    /// Jumps if the far end's port is this one; any will do if it is 0.
    fn far_port(&mut self, direction: Direction, port: u16, hit: Label, miss: Label) {
        if port == 0 {
            self.go(hit);
            return;
        }
        let cell = if direction == Direction::Ingress { SOURCE } else { DESTINATION };
        self.emit(LD_MEM, cell).when(JEQ, port.into(), hit).go(miss);
    }

    /// Jumps if the far end is outside this network.
    fn unless_in(&mut self, net: &IpNet, direction: Direction, miss: Label) -> &mut Self {
        let second = u32::from(direction == Direction::Egress);
        let (offset, words) = match net {
            IpNet::V4(net) => (12 + 4 * second, words_v4(*net)),
            IpNet::V6(net) => (8 + 16 * second, words_v6(net)),
        };
        for (at, (value, mask)) in (offset..).step_by(4).zip(words).filter(|(_, (_, mask))| *mask != 0) {
            self.load(LD_W_ABS, at);
            if mask != u32::MAX {
                self.emit(AND_K, mask);
            }
            self.unless(JEQ, value, miss);
        }
        self
    }

    /// Protocol and ports, the same for both IP versions. Falls through to what follows when all is met.
    fn transport(&mut self, filter: &Filter, yes: Label, no: Label) {
        let icmp = self.label();
        self.emit(LD_MEM, TRANSPORT);
        match filter.protocol {
            Some(Protocol::Tcp) => _ = self.unless(JEQ, TCP.into(), no),
            Some(Protocol::Udp) => _ = self.unless(JEQ, UDP.into(), no),
            Some(Protocol::Icmp) => _ = self.when(JEQ, ICMP.into(), icmp).unless(JEQ, ICMP6.into(), no),
            None => {}
        }
        self.place(icmp);
        for range in &filter.ports {
            self.ports(*range, yes);
        }
        if !filter.ports.is_empty() {
            self.go(no);
        }
    }
}

fn words_v4(net: Ipv4Net) -> Vec<(u32, u32)> {
    vec![(net.network().to_bits(), net.netmask().to_bits())]
}

fn words_v6(net: &Ipv6Net) -> Vec<(u32, u32)> {
    let words = |bits: u128| (0..4).rev().map(move |i| (bits >> (32 * i)) as u32);
    words(net.network().to_bits()).zip(words(net.netmask().to_bits())).collect()
}

#[cfg(test)]
mod tests;

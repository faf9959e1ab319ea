//! The programs run here by an interpreter of the few instructions they use, against the filter's meaning in plain Rust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// A packet before it is bytes.
#[derive(Clone, Debug)]
struct Packet {
    from: IpAddr,
    to: IpAddr,
    transport: u8,
    ports: (u16, u16),
    /// First byte behind the headers of ICMP.
    icmp: u8,
    /// IPv4: words of options. IPv6: extension headers.
    extra: Vec<u8>,
    /// A later fragment.
    later: bool,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let mut tail = match self.transport {
            ICMP | ICMP6 => vec![self.icmp, 0, 0, 0],
            _ => [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat(),
        };
        tail.resize(32, 0);
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let words = 5 + self.extra.len().min(10);
                let mut ip = vec![0; words * 4];
                ip[0] = 0x40 | words as u8;
                ip[6..8].copy_from_slice(&if self.later { 185_u16 } else { 0x4000 }.to_be_bytes());
                ip[9] = self.transport;
                ip[12..16].copy_from_slice(&from.octets());
                ip[16..20].copy_from_slice(&to.octets());
                [ip, tail].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut chain = self.extra.clone();
                if self.later {
                    // Behind the header of a later fragment there are no headers any more.
                    chain.retain(|kind| *kind != 44);
                    chain.push(44);
                }
                let mut ip = vec![0; 40];
                ip[0] = 0x60;
                ip[6] = chain.first().copied().unwrap_or(self.transport);
                ip[8..24].copy_from_slice(&from.octets());
                ip[24..40].copy_from_slice(&to.octets());
                for (i, kind) in chain.iter().enumerate() {
                    let next = chain.get(i + 1).copied().unwrap_or(self.transport);
                    // Odd ones are longer than the least length, to be skipped by what they say.
                    let longer = i % 2;
                    let (length, size) = match kind {
                        44 => (0, 8),
                        51 => (4 + longer, 24 + 4 * longer),
                        _ => (longer, 8 + 8 * longer),
                    };
                    let mut header = vec![0; size];
                    header[0] = next;
                    header[1] = length as u8;
                    if *kind == 44 {
                        header[2..4].copy_from_slice(&if self.later { 185_u16 << 3 } else { 1 }.to_be_bytes());
                    }
                    ip.extend(header);
                }
                [ip, tail].concat()
            }
            _ => unreachable!("one version per packet"),
        }
    }

    fn ports(&self) -> Option<(u16, u16)> {
        (matches!(self.transport, TCP | UDP) && !self.later).then_some(self.ports)
    }
}

/// The filter's meaning.
fn meant(direction: Direction, filter: &Filter, p: &Packet) -> bool {
    let far = if direction == Direction::Ingress { p.from } else { p.to };
    let far_port = p.ports().map(|(from, to)| if direction == Direction::Ingress { from } else { to });
    let inside = |net: &String| network(net).expect("a network").contains(&far);
    let either =
        |from: u16, to: u16| p.ports().is_some_and(|(a, b)| [a, b].iter().any(|port| (from..=to).contains(port)));
    let discovery = p.transport == ICMP6 && !p.later && (133..=137).contains(&p.icmp);
    let dhcp = p.transport == UDP && (either(67, 68) || either(546, 547));
    let passes = |(net, port): &(String, u16)| inside(net) && (*port == 0 || far_port == Some(*port));
    let exempt = filter.pass_remotes.iter().any(passes) || filter.pass_ports.iter().any(|n| either(*n, *n));
    let remote = filter.remotes.is_empty() || filter.remotes.iter().any(inside);
    let protocol = match filter.protocol {
        None => true,
        Some(Protocol::Tcp) => p.transport == TCP,
        Some(Protocol::Udp) => p.transport == UDP,
        Some(Protocol::Icmp) => matches!(p.transport, ICMP | ICMP6),
    };
    let port = filter.ports.is_empty() || filter.ports.iter().any(|(from, to)| either(*from, *to));
    !discovery && !dhcp && !exempt && remote && protocol && port
}

/// Runs a program on a frame as the kernel would. Fails on what the kernel would not take.
fn run(program: &[Insn], ether_type: u32, network: usize, frame: &[u8], random: u32) -> u32 {
    let (mut a, mut x, mut cells, mut at) = (0_u32, 0_u32, [None; 16], 0_usize);
    let bytes = |k: u32, size: usize| -> Option<u32> {
        let from = if k >= NETWORK { network + (k - NETWORK) as usize } else { k as usize };
        Some(frame.get(from..from + size)?.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    };
    loop {
        let Insn { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            LD_W_ABS if k == PROTOCOL => a = ether_type,
            LD_W_ABS if k == RANDOM => a = random,
            LD_B_ABS | LD_H_ABS | LD_W_ABS | LD_B_IND | LD_H_IND => {
                let size = [(LD_B_ABS, 1), (LD_B_IND, 1), (LD_H_ABS, 2), (LD_H_IND, 2), (LD_W_ABS, 4)];
                let size = size.iter().find(|(c, _)| *c == code).expect("known").1;
                let indirect = matches!(code, LD_B_IND | LD_H_IND);
                match bytes(if indirect { x.wrapping_add(k) } else { k }, size) {
                    Some(value) => a = value,
                    None => return 0,
                }
            }
            LDX_HEADER => match bytes(k, 1) {
                Some(value) => x = 4 * (value & 15),
                None => return 0,
            },
            LD_IMM => a = k,
            LDX_IMM => x = k,
            LD_MEM => a = cells[k as usize].expect("a cell is read only after it was written"),
            ST => cells[k as usize] = Some(a),
            ADD_K => a = a.wrapping_add(k),
            ADD_X => a = a.wrapping_add(x),
            AND_K => a &= k,
            SHIFT_K => a <<= k,
            TAX => x = a,
            JA => at += k as usize,
            JEQ => at += jump(a == k),
            JGT => at += jump(a > k),
            JGE => at += jump(a >= k),
            JSET => at += jump(a & k != 0),
            RET => return k,
            other => panic!("opcode {other:#x}"),
        }
    }
}

fn matches_by_program(direction: Direction, filter: &Filter, link: Link, packet: &Packet) -> bool {
    let program = program(direction, filter, link, None).expect("a program");
    let ether_type = if packet.from.is_ipv4() { IPV4 } else { IPV6 };
    let before = if link == Link::Ethernet { 14 } else { 3 };
    let frame = [vec![0xee; before], packet.bytes()].concat();
    run(&program, ether_type, before, &frame, 0) != 0
}

fn v4() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(vec![[10, 0, 0, 1], [10, 0, 1, 9], [10, 1, 0, 1], [192, 168, 0, 7], [169, 254, 169, 254]])
        .prop_map(|a| IpAddr::V4(Ipv4Addr::from(a)))
}

fn v6() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(vec!["fd00::1", "fd00::2:1", "fd00:1::1", "2001:db8::7", "fe80::1"])
        .prop_map(|a| IpAddr::V6(a.parse::<Ipv6Addr>().expect("an address")))
}

fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![22, 67, 68, 546, 5431, 5432, 5440, 40_000, 65_535])
}

fn packet() -> impl Strategy<Value = Packet> {
    let transport = prop::sample::select(vec![TCP, UDP, ICMP, ICMP6, 47]);
    let icmp = prop::sample::select(vec![0_u8, 8, 128, 132, 133, 135, 137, 138]);
    let extra = prop::collection::vec(prop::sample::select(vec![0_u8, 43, 60, 51, 44]), 0..=3);
    let common = (transport, (port(), port()), icmp, extra, prop::bool::weighted(0.1));
    (prop_oneof![(v4(), v4()), (v6(), v6())], common).prop_map(
        |((from, to), (transport, ports, icmp, extra, later))| Packet {
            from,
            to,
            transport,
            ports,
            icmp,
            extra,
            later,
        },
    )
}

fn remote() -> impl Strategy<Value = String> {
    let nets = ["10.0.0.0/8", "10.0.0.0/23", "10.0.1.9", "192.168.0.7/32", "0.0.0.0/0", "fd00::/16", "fd00::/64"];
    let more = ["fd00::2:1/128", "2001:db8::/32", "::/0", "fd00::/112"];
    prop::sample::select([nets.as_slice(), more.as_slice()].concat()).prop_map(str::to_owned)
}

fn filter() -> impl Strategy<Value = Filter> {
    let protocol = prop::option::of(prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Icmp]));
    let range = (port(), port()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let pass = (remote(), prop_oneof![Just(0), port()]);
    let lists = (
        prop::collection::vec(remote(), 0..3),
        prop::collection::vec(range, 0..3),
        prop::collection::vec(pass, 0..3),
        prop::collection::vec(port(), 0..2),
    );
    (lists, protocol).prop_map(|((remotes, ports, pass_remotes, pass_ports), protocol)| Filter {
        remotes,
        ports,
        protocol,
        pass_remotes,
        pass_ports,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_program_matches_what_the_filter_means(filter in filter(), packet in packet(), way: bool, tunnel: bool) {
        let direction = if way { Direction::Ingress } else { Direction::Egress };
        let link = if tunnel { Link::Other } else { Link::Ethernet };
        prop_assert_eq!(matches_by_program(direction, &filter, link, &packet), meant(direction, &filter, &packet));
    }
}

#[test]
fn other_protocols_than_ip_never_match() {
    let program = program(Direction::Egress, &Filter::default(), Link::Ethernet, None).expect("a program");
    for ether_type in [0x0806, 0x8100, 0x88cc] {
        assert_eq!(run(&program, ether_type, 14, &[0; 64], 0), 0, "{ether_type:#x}");
    }
}

#[test]
fn a_share_is_drawn() {
    let program = program(Direction::Egress, &Filter::default(), Link::Ethernet, Some(1 << 30)).expect("a program");
    let frame = [0x45; 64];
    let drawn = |random| run(&program, IPV4, 14, &frame, random) != 0;
    assert!(drawn(0) && drawn((1 << 30) - 1));
    assert!(!drawn(1 << 30) && !drawn(u32::MAX));
}

#[test]
fn a_filter_too_large_is_a_failure_not_a_wrong_program() {
    let remotes = |n: u32| (0..n).map(|i| Ipv4Addr::from_bits(i << 8).to_string() + "/24").collect();
    let of = |n| program(Direction::Egress, &Filter { remotes: remotes(n), ..Filter::default() }, Link::Ethernet, None);
    assert!(of(700).is_ok());
    let failure = of(1200).expect_err("too large").0;
    assert!(failure.contains("4096") && failure.contains("networks"), "{failure}");
}

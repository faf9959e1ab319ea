//! From a fault's filter to nftables rules: the worker's table, and three small chains per fault. Sends nothing.
//!
//! A base chain per direction first lets pass what must always pass, then calls the loss faults, then the delay faults:
//! a packet that was held goes on behind the base chain, so losing has to come first for both to act on one packet.
//! Each fault has a chain that knows its far ends (`m`), one that knows its ports (`p`) and one that acts (`a`). They go
//! on by `goto`, so that a packet reaches `a` once at most, however many rules would match it.
//! Faults come and go without touching base chains: removing one empties every NFQUEUE of the namespace.

use fracas_model::plan::{Direction, Filter, Impair, Protocol};
use ipnet::IpNet;

use super::super::{
    Failure,
    netlink::nft::{Base, Batch, Cmp, Hook, Meta, QueueForm, Rule, Verdict},
};

/// Mark of packets that the worker sends itself: they have been delayed already. Spells `frac`.
pub const MARK: u32 = 0x6672_6163;
/// Before connection tracking (-200), so that what is dropped leaves no trace there: `NF_IP_PRI_RAW`.
const PRIORITY_IN: i32 = -300;
/// `NF_IP_PRI_MANGLE`: routed, not yet translated.
const PRIORITY_OUT: i32 = -150;
/// `ARPHRD_LOOPBACK`.
const LOOPBACK: u16 = 772;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMP6: u8 = 58;
/// DHCP of IPv4 and IPv6.
pub(super) const DHCP: [(u16, u16); 2] = [(67, 68), (546, 547)];
/// Router and neighbour solicitation and advertisement, redirect: RFC 4861.
pub(super) const DISCOVERY: (u8, u8) = (133, 137);

/// What the acting chain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Drops with a chance of so many in a million, on the way in.
    Drop(u32),
    /// The same on the way out, where dropping at once would be a local error: into a queue that nobody reads.
    Vanish(u32, u16),
    /// Holds in a queue.
    Hold(u16),
    /// Local TCP data goes to the first queue, to be copied; everything else is held in the second.
    CopyOrHold(u16, u16),
}

/// The chains of one fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chains {
    /// Calls `matching`.
    pub caller: &'static str,
    /// Exemptions and far ends.
    pub matching: String,
    /// Protocol and ports.
    pub ports: String,
    /// Counts and acts.
    pub acting: String,
}

impl Chains {
    /// Those of the fault with this number.
    pub fn of(number: u32, direction: Direction, delays: bool) -> Self {
        let caller = match (direction, delays) {
            (Direction::Ingress, false) => "in_loss",
            (Direction::Ingress, true) => "in_delay",
            (Direction::Egress, false) => "out_loss",
            (Direction::Egress, true) => "out_delay",
        };
        let name = |part| format!("fault{number}_{part}");
        Self { caller, matching: name("match"), ports: name("ports"), acting: name("act") }
    }
}

/// The table with its base chains and what must always pass. Loopback, neighbour discovery and DHCP do; ARP never
/// comes here.
pub fn foundation(table: &str) -> Batch {
    let mut batch = Batch::default();
    batch.new_table(table);
    for chain in ["in_loss", "in_delay", "out_loss", "out_delay"] {
        batch.chain(table, chain);
    }
    for (base, hook, priority, kind, calls) in [
        ("in", Hook::Prerouting, PRIORITY_IN, Meta::InType, ["in_loss", "in_delay"]),
        ("out", Hook::Postrouting, PRIORITY_OUT, Meta::OutType, ["out_loss", "out_delay"]),
    ] {
        batch.base_chain(table, base, hook, priority);
        batch.rule(table, base, &Rule::new().is(kind, &LOOPBACK.to_ne_bytes()).verdict(&Verdict::Accept));
        batch.rule(table, base, &Rule::new().is(Meta::Mark, &MARK.to_ne_bytes()).verdict(&Verdict::Accept));
        for range in DHCP {
            for end in [Near::Source, Near::Destination] {
                let rule = port(Rule::new().transport(UDP), end, range);
                batch.rule(table, base, &rule.verdict(&Verdict::Accept));
            }
        }
        let discovery = Rule::new().transport(ICMP6).payload(Base::Transport, 0, 1);
        batch.rule(table, base, &between(discovery, &[DISCOVERY.0], &[DISCOVERY.1]).verdict(&Verdict::Accept));
        for call in calls {
            batch.rule(table, base, &Rule::new().verdict(&Verdict::Jump(call.into())));
        }
    }
    batch
}

/// Adds a fault. The last rule is the one that switches it on; its handle is reported.
pub fn add(
    batch: &mut Batch,
    table: &str,
    chains: &Chains,
    impair: &Impair,
    act: Act,
    form: QueueForm,
) -> Result<(), Failure> {
    for chain in [&chains.matching, &chains.ports, &chains.acting] {
        batch.chain(table, chain);
    }
    for rule in matching(impair.direction, &impair.filter, &chains.ports)? {
        batch.rule(table, &chains.matching, &rule);
    }
    for rule in ports(&impair.filter, &chains.acting) {
        batch.rule(table, &chains.ports, &rule);
    }
    for rule in acting(act, form) {
        batch.rule(table, &chains.acting, &rule);
    }
    let mut call = Rule::new();
    if let Some(device) = &impair.device {
        let mut name = [0; 16];
        let length = device.len().min(15);
        name[..length].copy_from_slice(&device.as_bytes()[..length]);
        let key = if impair.direction == Direction::Ingress { Meta::InName } else { Meta::OutName };
        call = call.is(key, &name);
    }
    batch.rule_with_handle(table, chains.caller, &call.verdict(&Verdict::Jump(chains.matching.clone())));
    Ok(())
}

/// Removes the chains of a fault that nothing calls any more.
pub fn remove(table: &str, chains: &Chains) -> Batch {
    let mut batch = Batch::default();
    for chain in [&chains.matching, &chains.ports, &chains.acting] {
        batch.delete_rules(table, chain);
    }
    for chain in [&chains.matching, &chains.ports, &chains.acting] {
        batch.delete_chain(table, chain);
    }
    batch
}

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Near {
    Source,
    Destination,
}

/// The far end of packets in this direction.
fn far(direction: Direction) -> Near {
    if direction == Direction::Ingress { Near::Source } else { Near::Destination }
}

fn matching(direction: Direction, filter: &Filter, then: &str) -> Result<Vec<Rule>, Failure> {
    let (mut rules, end) = (Vec::new(), far(direction));
    for (remote, number) in &filter.pass_remotes {
        let net = network(remote)?;
        if *number == 0 {
            rules.push(address(Rule::new(), end, net).verdict(&Verdict::Return));
        }
        for protocol in [TCP, UDP].into_iter().filter(|_| *number != 0) {
            let rule = address(Rule::new(), end, net).transport(protocol);
            rules.push(port(rule, end, (*number, *number)).verdict(&Verdict::Return));
        }
    }
    for number in &filter.pass_ports {
        for protocol in [TCP, UDP] {
            for end in [Near::Source, Near::Destination] {
                let rule = port(Rule::new().transport(protocol), end, (*number, *number));
                rules.push(rule.verdict(&Verdict::Return));
            }
        }
    }
    let then = Verdict::Goto(then.into());
    for remote in &filter.remotes {
        rules.push(address(Rule::new(), end, network(remote)?).verdict(&then));
    }
    if filter.remotes.is_empty() {
        rules.push(Rule::new().verdict(&then));
    }
    Ok(rules)
}

fn ports(filter: &Filter, then: &str) -> Vec<Rule> {
    let then = Verdict::Goto(then.into());
    let protocols: &[u8] = match filter.protocol {
        Some(Protocol::Tcp) => &[TCP],
        Some(Protocol::Udp) => &[UDP],
        Some(Protocol::Icmp) => &[ICMP, ICMP6],
        None if filter.ports.is_empty() => return vec![Rule::new().verdict(&then)],
        None => &[TCP, UDP],
    };
    let mut rules = Vec::new();
    for protocol in protocols {
        let base = Rule::new().transport(*protocol);
        if filter.ports.is_empty() {
            rules.push(base.clone().verdict(&then));
        }
        for range in &filter.ports {
            for end in [Near::Source, Near::Destination] {
                rules.push(port(base.clone(), end, *range).verdict(&then));
            }
        }
    }
    rules
}

fn acting(act: Act, form: QueueForm) -> Vec<Rule> {
    // The first counter of a chain counts what matched, the second one what was lost.
    let mut rules = vec![Rule::new().counter()];
    let chance = |below: u32| if below < 1_000_000 { Rule::new().chance(below) } else { Rule::new() };
    match act {
        Act::Drop(below) => rules.push(chance(below).counter().verdict(&Verdict::Drop)),
        Act::Vanish(below, nobody) => rules.push(chance(below).counter().queue(form, nobody, false)),
        Act::Hold(queue) => rules.push(Rule::new().queue(form, queue, true)),
        Act::CopyOrHold(copy, hold) => {
            // Without the first SYN: it is one small packet, and holding keeps it what it was.
            let syn = Rule::new().meta(Meta::SocketUser).transport(TCP).payload(Base::Transport, 13, 1).mask(&[2]);
            rules.push(syn.compare(Cmp::Eq, &[0]).queue(form, copy, true));
            rules.push(Rule::new().queue(form, hold, true));
        }
    }
    rules
}

fn port(rule: Rule, end: Near, (from, to): (u16, u16)) -> Rule {
    let rule = rule.payload(Base::Transport, if end == Near::Source { 0 } else { 2 }, 2);
    between(rule, &from.to_be_bytes(), &to.to_be_bytes())
}

fn between(rule: Rule, from: &[u8], to: &[u8]) -> Rule {
    if from == to { rule.compare(Cmp::Eq, from) } else { rule.compare(Cmp::AtLeast, from).compare(Cmp::AtMost, to) }
}

fn address(rule: Rule, end: Near, net: IpNet) -> Rule {
    // `meta nfproto` is NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10); offsets are those of the address in the IP header.
    let (family, offset, bytes, mask) = match net {
        IpNet::V4(n) => (2, 12, n.network().octets().to_vec(), n.netmask().octets().to_vec()),
        IpNet::V6(n) => (10, 8, n.network().octets().to_vec(), n.netmask().octets().to_vec()),
    };
    let length = bytes.len() as u32;
    let offset = if end == Near::Source { offset } else { offset + length };
    let mut rule = rule.is(Meta::Family, &[family]);
    if net.prefix_len() > 0 {
        rule = rule.payload(Base::Network, offset, length);
        if net.prefix_len() < net.max_prefix_len() {
            rule = rule.mask(&mask);
        }
        rule = rule.compare(Cmp::Eq, &bytes);
    }
    rule
}

/// A network, or an address as one of its own.
pub(super) fn network(text: &str) -> Result<IpNet, Failure> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse().ok().map(|a: std::net::IpAddr| a.into()));
    parsed.ok_or_else(|| Failure(format!("{text} is not a network such as 10.0.0.0/8")))
}

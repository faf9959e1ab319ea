//! What faults on packets share: which packets are meant, what always passes, and the two ways of doing it.
//! What happens to the packets is each fault's own file.

use fracas_model::{
    catalogue::{Capability, Params},
    facts::{Facts, Question},
    plan::{Check, Claim, Direction, Effect, Filter, Impair, Plan, Protocol, Refusal, Step},
    shape::{Field, Shape},
    units::Dur,
};
use ipnet::IpNet;

/// Packets netem may hold for each second of delay: 5 Gbit/s of full packets. More than that would be lost silently.
const PACKETS_PER_SECOND: i64 = 500_000;
/// Fewest and most packets netem may hold.
const QUEUE: (i64, i64) = (10_000, 1_000_000);
/// Our filters stand before those that `tc` numbers by itself (from 49152), far from small hand-written ones. Losing comes
/// before holding: what comes back from being held is not looked at again, so only then do both act on one packet.
const LOSE_PRIORITY: u16 = 10_000;
/// See [`LOSE_PRIORITY`].
const HOLD_PRIORITY: u16 = 20_000;
/// Slots that get a priority of their own.
const PRIORITIES: u16 = 8192;
/// netem cuts a greater jitter silently: it keeps it in 31 bits of nanoseconds.
const LONGEST_NETEM_JITTER: Dur = Dur::from_ms(2147);

/// Abilities of the two ways, either of which will do.
pub(crate) fn needs() -> Vec<Vec<Capability>> {
    vec![vec![Capability::Netem], vec![Capability::NftOwner, Capability::Nfqueue]]
}

/// `to`, `ports`, `protocol`, `direction`, `device` and `mechanism`.
pub(crate) fn fields() -> Vec<Field> {
    vec![
        Field::optional("to", Shape::list(Shape::Cidr, 64), "Networks of the far end, IPv4 or IPv6; any when absent."),
        Field::optional(
            "ports",
            Shape::list(Shape::Ports, 32),
            "Ports or ranges of ports, at either end of a packet (TCP and UDP); any when absent.",
        ),
        Field::with_default("protocol", Shape::choice(&["any", "tcp", "udp", "icmp"]), "any", "Which packets."),
        Field::with_default(
            "direction",
            Shape::choice(&["ingress", "egress"]),
            "ingress",
            "Whether packets suffer that come in, or that leave.",
        ),
        Field::optional(
            "device",
            Shape::Text { max: 15 },
            "Only packets of this network device; all but loopback when absent.",
        ),
        Field::with_default(
            "mechanism",
            Shape::choice(&["auto", "netem", "owned"]),
            "auto",
            "netem: the kernel's emulator, on a device of our own. owned: rules that the kernel removes with the worker \
             that owns them. auto: netem where the kernel has it.",
        ),
    ]
}

/// The paragraphs on packets, for help.
pub(crate) const PACKETS: &str = "Which packets: those whose far end is in `to`, that have one of `ports` at either end, \
    of `protocol`. Egress is everything that leaves a device, also what is only forwarded; ingress everything that comes \
    in. Loopback, ARP, neighbour discovery, DHCP, the controller's own address (on its own host its two ports) and whatever the host's policy lets pass \
    (SSH and cloud metadata unless it says otherwise) are never touched.\n\n\
    direction ingress is the default because it holds a round trip as well as egress does and leaves TCP its full \
    speed: what is delayed on its way out counts against the sender's own limits.\n\n\
    Undo: with netem the journal knows device and filters, and they are deleted by name and handle. The owned rules live \
    in an nftables table that the kernel itself deletes when its worker ends, whatever ends it; `nft list ruleset` shows \
    the table, `nft flush ruleset` does not remove it. Packets that are held go on when the fault is undone in order, and \
    are lost when the worker is killed.";

/// What a planner must know of the host.
pub(crate) fn asks() -> Vec<Question> {
    vec![Question::Devices]
}

/// The plan of a fault with this effect. `dimension` is what two faults on the same packets cannot share; `what` begins
/// its summary.
pub(crate) fn plan(
    params: &Params,
    facts: &Facts,
    effect: &Effect,
    dimension: &str,
    what: &str,
) -> Result<Plan, Refusal> {
    let direction = if params.text("direction") == Some("egress") { Direction::Egress } else { Direction::Ingress };
    let filter = filter(params, facts)?;
    let device = device(params, facts)?;
    let claim =
        Claim::Network { direction, filter: filter.clone(), dimension: dimension.into(), device: device.clone() };
    let steps = match mechanism(params, facts, effect)? {
        Mechanism::Owned => {
            let impair = Impair { direction, filter: filter.clone(), effect: effect.clone(), device: device.clone() };
            vec![Step::Impair(impair)]
        }
        Mechanism::Netem => netem(facts, direction, &filter, effect, device.as_deref())?,
    };
    let check = Check::Packets { direction, filter: filter.clone(), effect: effect.clone() };
    let summary = format!("{what} {}", described(direction, &filter, device.as_deref()));
    Ok(Plan { steps, claims: vec![claim], check, summary })
}

enum Mechanism {
    Netem,
    Owned,
}

fn mechanism(params: &Params, facts: &Facts, effect: &Effect) -> Result<Mechanism, Refusal> {
    let cut = matches!(effect, Effect::Delay { jitter, .. } if *jitter > LONGEST_NETEM_JITTER);
    let can = |all: &[Capability]| all.iter().all(|c| facts.host.can(*c));
    let owned = can(&[Capability::NftOwner, Capability::Nfqueue]);
    match params.text("mechanism") {
        Some("netem") if !can(&[Capability::Netem]) => Err(lacking(facts, Capability::Netem)),
        Some("owned") if !owned => {
            let missing = [Capability::NftOwner, Capability::Nfqueue].into_iter().find(|c| !facts.host.can(*c));
            Err(lacking(facts, missing.unwrap_or(Capability::NftOwner)))
        }
        Some("netem") if cut => Err(Refusal::new(
            format!("netem cuts a jitter above {LONGEST_NETEM_JITTER} silently"),
            "ask for less, or write `mechanism: owned`",
        )),
        Some("netem") => Ok(Mechanism::Netem),
        Some("owned") => Ok(Mechanism::Owned),
        _ if can(&[Capability::Netem]) && (!cut || !owned) => Ok(Mechanism::Netem),
        _ => Ok(Mechanism::Owned),
    }
}

fn lacking(facts: &Facts, capability: Capability) -> Refusal {
    let ability = facts.host.abilities.get(&capability);
    let why = ability.map_or("it was not tried", |a| a.why.as_str());
    let fix = ability.map_or("see `fracas-agent check`", |a| a.fix.as_str());
    Refusal::new(format!("this mechanism does not work on this host: {why}"), fix)
}

fn filter(params: &Params, facts: &Facts) -> Result<Filter, Refusal> {
    let protocol = match params.text("protocol") {
        Some("tcp") => Some(Protocol::Tcp),
        Some("udp") => Some(Protocol::Udp),
        Some("icmp") => Some(Protocol::Icmp),
        _ => None,
    };
    let mut ports: Vec<(u16, u16)> = params.texts("ports").into_iter().filter_map(range).collect();
    ports.sort_unstable();
    ports.dedup();
    if protocol == Some(Protocol::Icmp) && !ports.is_empty() {
        return Err(Refusal::new("ICMP has no ports", "leave `ports` out, or choose tcp or udp"));
    }
    let mut remotes: Vec<String> = params.texts("to").into_iter().map(str::to_owned).collect();
    remotes.sort_unstable();
    remotes.dedup();
    let loopback = |net: &String| net.parse::<IpNet>().is_ok_and(|n| n.addr().is_loopback());
    if !remotes.is_empty() && remotes.iter().all(loopback) {
        return Err(Refusal::new(
            "loopback is never touched, so this would do nothing",
            "name the network of the far end as other hosts see it",
        ));
    }
    let mut pass_remotes: Vec<(String, u16)> = facts.policy.pass_networks.iter().map(|n| (n.clone(), 0)).collect();
    let controllers = facts.controllers.iter().filter_map(|c| c.parse::<std::net::SocketAddr>().ok());
    pass_remotes.extend(controllers.map(|c| (IpNet::from(c.ip().to_canonical()).to_string(), c.port())));
    pass_remotes.sort_unstable();
    pass_remotes.dedup();
    let mut pass_ports = facts.policy.pass_ports.clone();
    // At either end, since here a controller is the near one: other hosts and operators must go on reaching it.
    pass_ports.extend(&facts.near_ports);
    pass_ports.sort_unstable();
    pass_ports.dedup();
    Ok(Filter { remotes, ports, protocol, pass_remotes, pass_ports })
}

/// `5432` or `8000-8100`; the shape let nothing else through.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn device(params: &Params, facts: &Facts) -> Result<Option<String>, Refusal> {
    let Some(name) = params.text("device") else { return Ok(None) };
    let others: Vec<&str> = facts.devices.iter().filter(|d| !d.loopback).map(|d| d.name.as_str()).collect();
    match facts.devices.iter().find(|d| d.name == name) {
        Some(device) if device.loopback => {
            Err(Refusal::new(format!("{name} is the loopback device"), format!("choose one of: {}", others.join(", "))))
        }
        Some(_) => Ok(Some(name.to_owned())),
        None => Err(Refusal::new(
            format!("there is no network device {name}"),
            if others.is_empty() {
                "leave `device` out".into()
            } else {
                format!("choose one of: {}", others.join(", "))
            },
        )),
    }
}

/// What suffers, by the kernel's traffic control. Delay: one ifb with netem on it, and from each device a filter that
/// sends the packets through it. Loss: a filter on each device that drops by chance.
fn netem(
    facts: &Facts,
    direction: Direction,
    filter: &Filter,
    effect: &Effect,
    device: Option<&str>,
) -> Result<Vec<Step>, Refusal> {
    let ours = |name: &str| name.starts_with("frc") || name.starts_with("ifb");
    let meant = |d: &&fracas_model::facts::Device| match device {
        Some(name) => d.name == name,
        // A packet that passes two of them would suffer twice.
        None => d.up && !d.loopback && !d.stacked && !ours(&d.name),
    };
    let devices: Vec<String> = facts.devices.iter().filter(meant).map(|d| d.name.clone()).collect();
    if devices.is_empty() {
        return Err(Refusal::new("no network device but loopback is up", "bring one up, or name it with `device`"));
    }
    let number = facts.slot % PRIORITIES;
    let mut steps = Vec::new();
    match effect {
        Effect::Delay { delay, jitter } => {
            let ifb = format!("frc{}", facts.slot);
            let held_us = (*delay + *jitter).ns() / 1000;
            let limit_packets = (held_us.saturating_mul(PACKETS_PER_SECOND) / 1_000_000).clamp(QUEUE.0, QUEUE.1) as u32;
            steps.push(Step::MakeIfb { name: ifb.clone() });
            steps.push(Step::MakeNetem { device: ifb.clone(), effect: effect.clone(), limit_packets });
            let priority = HOLD_PRIORITY + number;
            for device in devices {
                let (to, filter) = (ifb.clone(), filter.clone());
                steps.push(Step::MakeClsact { device: device.clone() });
                steps.push(Step::Redirect { device, to, direction, filter, priority });
            }
        }
        Effect::Loss { percent } => {
            let priority = LOSE_PRIORITY + number;
            for device in devices {
                let filter = filter.clone();
                steps.push(Step::MakeClsact { device: device.clone() });
                steps.push(Step::Lose { device, direction, filter, percent: *percent, priority });
            }
        }
    }
    Ok(steps)
}

fn described(direction: Direction, filter: &Filter, device: Option<&str>) -> String {
    let mut words = vec![match (direction, filter.protocol) {
        (Direction::Ingress, None) => "packets that come in".to_owned(),
        (Direction::Egress, None) => "packets that leave".to_owned(),
        (Direction::Ingress, Some(protocol)) => format!("{} packets that come in", word(protocol)),
        (Direction::Egress, Some(protocol)) => format!("{} packets that leave", word(protocol)),
    }];
    if let Some(device) = device {
        words.push(format!("by {device}"));
    }
    if !filter.remotes.is_empty() {
        let preposition = if direction == Direction::Ingress { "from" } else { "to" };
        words.push(format!("{preposition} {}", filter.remotes.join(", ")));
    }
    if !filter.ports.is_empty() {
        let range = |(a, b): &(u16, u16)| if a == b { a.to_string() } else { format!("{a}-{b}") };
        words.push(format!("with port {}", filter.ports.iter().map(range).collect::<Vec<_>>().join(", ")));
    }
    words.join(" ")
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Icmp => "ICMP",
    }
}

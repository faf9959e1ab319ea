//! Which packets suffer: exactly the filter's, on all ways that leave or enter the host, never what must always pass.

use std::{net::SocketAddr, thread, time::Duration};

use fracas_agent::host::netlink::{
    Protocol as Subsystem, Socket,
    link::Links,
    message::{self, CREATE, Message},
};
use fracas_model::plan::{Direction, Filter, Protocol};

use crate::{
    measure::{echo, once, tcp_echo},
    plane::{BOTH, Kind, Plane, delay, loss},
    run::{Case, emulated},
    stage::{CONTAINER, HOST, OTHER, PEER, Stage, at, wait_for},
};

pub(crate) const CASES: &[Case] = &[
    Case::new("only_the_filter_suffers", BOTH, only_the_filter),
    Case::new("port_ranges_count_at_either_end", BOTH, either_end),
    Case::new("networks_are_those_of_the_far_end", BOTH, far_end),
    Case::new("pings_are_a_protocol", BOTH, pings),
    Case::new("exemptions_pass", BOTH, exemptions),
    Case::new("forwarded_packets_suffer_once", BOTH, forwarded),
    Case::new("neighbours_are_found_under_a_fault_on_everything", BOTH, neighbours),
    Case::new("disjoint_filters_coexist", BOTH, disjoint),
];

/// What the trials delay by, milliseconds; far above what anything else takes, TCP's shortest wait before it sends again (200 ms)
/// included, which a slow machine may run into.
const SLOW: i64 = 350;
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether a datagram there and back takes the delay.
#[track_caller]
fn suffers(to: SocketAddr) -> bool {
    let took = once(to, PATIENCE).unwrap_or_else(|| panic!("{to} does not answer"));
    classify(took, &to.to_string())
}

#[track_caller]
fn classify(took: Duration, what: &str) -> bool {
    let slow = Duration::from_millis(SLOW as u64);
    assert!(took >= slow || took < slow / 2 || emulated(), "{what}: neither slow nor fast: {took:?}");
    assert!(took < slow * 9 / 5, "{what}: delayed more than once: {took:?}");
    took >= slow
}

fn only_the_filter(kind: Kind) {
    let stage = Stage::new();
    for port in [7001, 7002] {
        echo(&stage.peer, port);
    }
    let mut plane = Plane::open(kind, &stage);
    for direction in [Direction::Egress, Direction::Ingress] {
        for version in [0, 1] {
            let width = if version == 0 { 32 } else { 128 };
            let filter = Filter {
                remotes: vec![format!("{}/{width}", PEER[version])],
                ports: vec![(7001, 7001)],
                protocol: Some(Protocol::Udp),
                ..Filter::default()
            };
            plane.add("slow", direction, &filter, &delay(SLOW));
            assert!(suffers(at(PEER[version], 7001)), "{direction:?} {version}");
            assert!(!suffers(at(PEER[version], 7002)), "another port suffers");
            assert!(!suffers(at(OTHER[version], 7001)), "another address suffers");
            assert!(!suffers(at(PEER[1 - version], 7001)), "the other version suffers");
            let tcp = tcp_echo(at(PEER[version], 7001), 10, PATIENCE).expect("TCP works");
            assert!(!classify(tcp, "TCP"), "another protocol suffers: {tcp:?}");
            assert_eq!(plane.figures("slow").matched, 1, "{direction:?} {version}");
            plane.remove("slow");
        }
    }
    plane.close();
}

/// The peer as a client of the host: the port of the filter is then the host's own.
fn either_end(kind: Kind) {
    let stage = Stage::new();
    for port in [7001, 7009, 7010, 7011] {
        echo(&stage.peer, port);
    }
    let own = std::net::UdpSocket::bind(at(HOST[0], 7005)).expect("a port");
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((n, from)) = own.recv_from(&mut buffer) {
            let _ = own.send_to(&buffer[..n], from);
        }
    });
    let mut plane = Plane::open(kind, &stage);
    for direction in [Direction::Egress, Direction::Ingress] {
        let filter = Filter { ports: vec![(7002, 7009), (7011, 7011)], ..Filter::default() };
        plane.add("slow", direction, &filter, &delay(SLOW));
        for (port, slow) in [(7001, false), (7009, true), (7010, false), (7011, true)] {
            for version in [0, 1] {
                assert_eq!(suffers(at(PEER[version], port)), slow, "{direction:?} port {port} version {version}");
            }
        }
        let took = stage.peer.run(|| once(at(HOST[0], 7005), PATIENCE)).expect("the host answers");
        assert!(classify(took, "the host's own port"), "{direction:?}: the near port does not count");
        plane.remove("slow");
    }
    plane.close();
}

fn far_end(kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, 7001);
    let mut plane = Plane::open(kind, &stage);
    for direction in [Direction::Egress, Direction::Ingress] {
        // 10.77.0.2/31 covers both addresses of the peer, not the host; the IPv6 network is the second address alone.
        let remotes = vec!["10.77.0.2/31".into(), "fd77::3/128".into()];
        plane.add("slow", direction, &Filter { remotes, ..Filter::default() }, &delay(SLOW));
        for (address, slow) in [(PEER[0], true), (OTHER[0], true), (PEER[1], false), (OTHER[1], true)] {
            assert_eq!(suffers(at(address, 7001)), slow, "{direction:?} {address}");
        }
        plane.remove("slow");
        // The host's own address is no far end.
        plane.add("none", direction, &Filter { remotes: vec![HOST[0].into()], ..Filter::default() }, &delay(SLOW));
        assert!(!suffers(at(PEER[0], 7001)), "{direction:?}: the near end counts");
        plane.remove("none");
    }
    plane.close();
}

/// ICMP and ICMPv6 echo over a datagram socket of that protocol.
fn ping(to: &str, patience: Duration) -> Option<Duration> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sendto, socket, sockopt};
    let to: SocketAddr = at(to, 0);
    let (family, protocol, kind) = if to.is_ipv4() {
        (AddressFamily::INET, ipproto::ICMP, 8)
    } else {
        (AddressFamily::INET6, ipproto::ICMPV6, 128)
    };
    let fd = socket(family, SocketType::RAW, Some(protocol)).expect("a raw socket");
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(patience)).expect("a limit");
    let mut request = [kind, 0, 0, 0, 0x66, 0x72, 0, 1];
    if to.is_ipv4() {
        // The kernel fills in the checksum for ICMPv6 alone.
        let sum: u32 = request.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        request[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let begun = std::time::Instant::now();
    sendto(&fd, &request, SendFlags::empty(), &to).expect("sent");
    let mut buffer = [0; 256];
    while begun.elapsed() < patience {
        let Ok((n, _)) = rustix::net::recv(&fd, &mut buffer, RecvFlags::empty()) else { return None };
        let answer = if to.is_ipv4() { &buffer[20..n.max(20)] } else { &buffer[..n] };
        let expected = if to.is_ipv4() { 0 } else { 129 };
        if answer.first() == Some(&expected) && answer.get(4..8) == Some(&request[4..8]) {
            return Some(begun.elapsed());
        }
    }
    None
}

fn pings(kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, 7001);
    let mut plane = Plane::open(kind, &stage);
    let filter = Filter { protocol: Some(Protocol::Icmp), ..Filter::default() };
    for direction in [Direction::Egress, Direction::Ingress] {
        plane.add("slow", direction, &filter, &delay(SLOW));
        for address in PEER {
            let took = ping(address, PATIENCE).expect("an answer");
            assert!(classify(took, address), "{direction:?} {address}: a ping does not suffer: {took:?}");
            assert!(!suffers(at(address, 7001)), "{direction:?} {address}: UDP suffers");
        }
        plane.remove("slow");
    }
    plane.close();
}

fn exemptions(kind: Kind) {
    let stage = Stage::new();
    for port in [67, 7001, 7002, 7003] {
        echo(&stage.peer, port);
    }
    let mut plane = Plane::open(kind, &stage);
    let filter = Filter {
        pass_remotes: vec![
            ("10.77.0.3/32".into(), 0),
            ("fd77::3/128".into(), 0),
            ("10.77.0.0/24".into(), 7002),
            ("fd77::/64".into(), 7002),
        ],
        pass_ports: vec![7003],
        ..Filter::default()
    };
    for direction in [Direction::Egress, Direction::Ingress] {
        plane.add("slow", direction, &filter, &delay(SLOW));
        for version in [0, 1] {
            assert!(suffers(at(PEER[version], 7001)), "{direction:?} {version}: nothing suffers");
            assert!(!suffers(at(OTHER[version], 7001)), "{direction:?} {version}: a far end");
            assert!(!suffers(at(PEER[version], 7002)), "{direction:?} {version}: a port of a far end");
            assert!(!suffers(at(PEER[version], 7003)), "{direction:?} {version}: a port");
            let tcp = tcp_echo(at(PEER[version], 7003), 1000, PATIENCE).expect("TCP works");
            assert!(!classify(tcp, "TCP"), "{direction:?} {version}: TCP {tcp:?}");
        }
        assert!(!suffers(at(PEER[0], 67)), "{direction:?}: DHCP");
        plane.remove("slow");
    }
    plane.close();
}

/// A container's packets leave the host like its own, and come in like its own.
fn forwarded(kind: Kind) {
    let stage = Stage::with_container();
    echo(&stage.peer, 7001);
    let container = stage.container.as_ref().expect("a container");
    echo(container, 7001);
    let mut plane = Plane::open(kind, &stage);
    let from_container = |address: &'static str| {
        let took = container.run(move || once(at(address, 7001), PATIENCE)).expect("the peer answers");
        classify(took, address)
    };
    for version in [0, 1] {
        assert!(!from_container(PEER[version]), "slow before anything was done");
        // To and from the peer, whoever on this host speaks to it.
        let width = if version == 0 { 32 } else { 128 };
        let peer = Filter { remotes: vec![format!("{}/{width}", PEER[version])], ..Filter::default() };
        for direction in [Direction::Egress, Direction::Ingress] {
            plane.add("slow", direction, &peer, &delay(SLOW));
            assert!(from_container(PEER[version]), "{direction:?} {version}: forwarded packets do not suffer");
            assert!(!from_container(OTHER[version]), "{direction:?} {version}: another far end suffers");
            assert!(suffers(at(PEER[version], 7001)), "{direction:?} {version}: the host's own do not suffer");
            // The host speaks to its container by another device.
            assert!(!suffers(at(CONTAINER[version], 7001)), "{direction:?} {version}: another way suffers");
            plane.remove("slow");
        }
    }
    plane.close();
}

/// Asks the kernel to look for a neighbour, without sending anything to it.
fn look_for(device: u32, address: &str) {
    let address: std::net::IpAddr = address.parse().expect("an address");
    let (family, bytes) = match address {
        std::net::IpAddr::V4(a) => (2, a.octets().to_vec()),
        std::net::IpAddr::V6(a) => (10, a.octets().to_vec()),
    };
    // RTM_NEWNEIGH; struct ndmsg with NTF_USE; NDA_DST.
    let mut fixed = [0; 12];
    fixed[0] = family;
    fixed[4..8].copy_from_slice(&device.to_ne_bytes());
    fixed[10] = 1;
    let mut m = Message::new(28, CREATE, &fixed);
    m.put(1, &bytes);
    Socket::open(Subsystem::Route).and_then(|mut s| s.ask(m)).expect("the kernel looks for a neighbour");
}

/// Whether the kernel knows the hardware address of a neighbour from an answer: `NUD_REACHABLE`.
fn knows(address: &str) -> bool {
    let address: std::net::IpAddr = address.parse().expect("an address");
    let bytes = match address {
        std::net::IpAddr::V4(a) => a.octets().to_vec(),
        std::net::IpAddr::V6(a) => a.octets().to_vec(),
    };
    // RTM_GETNEIGH
    let list = Socket::open(Subsystem::Route).and_then(|mut s| s.dump(&Message::new(30, 0, &[0; 12])));
    list.expect("a list").iter().any(|reply| {
        let state = message::u16_at(&reply.body, 8).unwrap_or(0);
        message::find(&reply.body[12..], 1) == Some(&bytes[..]) && state & 2 != 0
    })
}

fn neighbours(kind: Kind) {
    let stage = Stage::new();
    echo(&stage.peer, 7001);
    let mut plane = Plane::open(kind, &stage);
    for direction in [Direction::Egress, Direction::Ingress] {
        plane.add(&format!("gone {direction:?}"), direction, &Filter::default(), &loss(100.0));
    }
    // Setting a device down forgets its neighbours, and the IPv6 addresses.
    let mut links = Links::open().expect("netlink");
    let index = links.index("eth0").expect("the device");
    links.set_up(index, false).expect("down");
    links.set_up(index, true).expect("up");
    links.add_address(index, HOST[1].parse().expect("an address"), 64).expect("the address again");
    for address in PEER {
        assert!(!knows(address), "{address} is known before it was looked for");
        wait_for(&format!("{address} to be found"), || {
            look_for(index, address);
            knows(address)
        });
        assert_eq!(once(at(address, 7001), Duration::from_millis(300)), None, "{address}: nothing is lost");
    }
    plane.close();
    for address in PEER {
        wait_for(&format!("{address} to answer again"), || {
            once(at(address, 7001), Duration::from_millis(300)).is_some()
        });
    }
}

fn disjoint(kind: Kind) {
    let stage = Stage::new();
    for port in [7001, 7002] {
        echo(&stage.peer, port);
    }
    let mut plane = Plane::open(kind, &stage);
    for direction in [Direction::Egress, Direction::Ingress] {
        let of = |port| Filter { ports: vec![(port, port)], ..Filter::default() };
        plane.add("one", direction, &of(7001), &delay(SLOW));
        plane.add("two", direction, &of(7002), &delay(600));
        let held = thread::spawn(|| once(at(PEER[0], 7002), PATIENCE));
        assert!(suffers(at(PEER[0], 7001)), "{direction:?}");
        // Ending one lets the other go on with what it holds.
        plane.remove("one");
        assert!(!suffers(at(PEER[0], 7001)), "{direction:?}");
        let took = held.join().expect("it does not panic").expect("a held packet of the other fault arrives");
        assert!(took >= Duration::from_millis(600), "{direction:?}: {took:?}");
        assert!(once(at(PEER[0], 7002), PATIENCE).expect("an answer") >= Duration::from_millis(600), "{direction:?}");
        plane.remove("two");
        assert!(!suffers(at(PEER[0], 7002)), "{direction:?}");
    }
    plane.close();
}

//! Where a trial plays: this process is the host under fault, in a network namespace of its own; a peer and, if wanted,
//! a container behind the host live in others, each held by a thread. All of it ends with the process.

#![expect(unsafe_code, reason = "threads get network namespaces of their own")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use fracas_agent::host::netlink::link::{Links, Namespace};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Addresses of the host, its peer, and the container, each as IPv4 and IPv6.
pub(crate) const HOST: [&str; 2] = ["10.77.0.1", "fd77::1"];
pub(crate) const PEER: [&str; 2] = ["10.77.0.2", "fd77::2"];
/// The peer's second address.
pub(crate) const OTHER: [&str; 2] = ["10.77.0.3", "fd77::3"];
const GATEWAY: [&str; 2] = ["10.78.0.1", "fd78::1"];
pub(crate) const CONTAINER: [&str; 2] = ["10.78.0.2", "fd78::2"];

/// Makes this process the host: a namespace of its own with loopback up. Before any thread is started.
pub(crate) fn enter() {
    let root = rustix::process::geteuid();
    let group = rustix::process::getegid();
    let own = if root.is_root() { UnshareFlags::NEWNET } else { UnshareFlags::NEWUSER | UnshareFlags::NEWNET };
    // SAFETY: this process has one thread.
    if let Err(error) = unsafe { unshare_unsafe(own) } {
        crate::run::skip(&format!("no network namespace can be made: {error}"));
    }
    if !root.is_root() {
        let map = |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text).expect("a map of ids");
        map("setgroups", "deny".into());
        map("uid_map", format!("0 {} 1", root.as_raw()));
        map("gid_map", format!("0 {} 1", group.as_raw()));
    }
    found();
    first_in_line();
}

/// Lets this process and all it starts, the workers too, run before what else the machine is busy with: the trials
/// measure faults, and are as exact on a busy machine as on an idle one. Where that is not allowed, so be it.
fn first_in_line() {
    let priority: i32 = 1;
    // Not every C library has this call. SAFETY: the pointer is to a live struct sched_param, which is this one number.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_RR, &raw const priority) };
}

/// What each namespace needs before it has devices: loopback, and no wait for duplicates of link-local addresses, during
/// which a router would ask for nobody.
fn found() {
    for which in ["all", "default"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0").expect("a switch of IPv6");
    }
    let mut links = Links::open().expect("netlink");
    let index = links.index("lo").expect("the device");
    links.set_up(index, true).expect("up");
}

/// Gives a device addresses and sets it up.
fn equip(device: &str, addresses: &[&str]) {
    let mut links = Links::open().expect("netlink");
    let index = links.index(device).expect("the device");
    for text in addresses {
        let address: IpAddr = text.parse().expect("an address");
        links.add_address(index, address, if address.is_ipv4() { 24 } else { 64 }).expect("an address is added");
    }
    links.set_up(index, true).expect("up");
}

type Work = Box<dyn FnOnce() + Send>;

/// Another network namespace, held by a thread that does what it is asked to.
pub(crate) struct Place {
    work: mpsc::Sender<Work>,
    namespace: OwnedFd,
}

impl Place {
    fn new() -> Self {
        let (work, todo) = mpsc::channel::<Work>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            // SAFETY: only this thread's network namespace becomes a new one; descriptors stay shared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a namespace");
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
            let fd = rustix::fs::open("/proc/thread-self/ns/net", flags, rustix::fs::Mode::empty()).expect("a handle");
            tell.send(fd).expect("somebody waits");
            found();
            for work in todo {
                work();
            }
        });
        Self { work, namespace: told.recv().expect("the thread lives") }
    }

    /// Does something there and waits for it. Threads and sockets made meanwhile stay there.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let work = Box::new(move || _ = tell.send(work()));
        self.work.send(work).expect("the thread lives");
        told.recv().expect("it did not panic there")
    }
}

/// Host, peer and maybe a container.
pub(crate) struct Stage {
    pub(crate) peer: Place,
    pub(crate) container: Option<Place>,
    /// Devices of the host but loopback.
    pub(crate) devices: Vec<String>,
}

impl Stage {
    /// A host with a peer on the device `eth0`.
    pub(crate) fn new() -> Self {
        let peer = Place::new();
        let mut links = Links::open().expect("netlink");
        links.add_veth("eth0", "eth0", Some(Namespace::Fd(peer.namespace.as_fd()))).expect("a wire");
        equip("eth0", &HOST);
        peer.run(|| equip("eth0", &[PEER, OTHER].concat()));
        let stage = Self { peer, container: None, devices: vec!["eth0".into()] };
        settle("eth0", &HOST);
        stage.peer.run(|| settle("eth0", &[PEER, OTHER].concat()));
        stage
    }

    /// The same with a container on the device `ct0`, for which the host forwards.
    pub(crate) fn with_container() -> Self {
        let mut stage = Self::new();
        let container = Place::new();
        let mut links = Links::open().expect("netlink");
        links.add_veth("ct0", "eth0", Some(Namespace::Fd(container.namespace.as_fd()))).expect("a wire");
        equip("ct0", &GATEWAY);
        container.run(|| {
            equip("eth0", &CONTAINER);
            let mut links = Links::open().expect("netlink");
            for gateway in GATEWAY {
                links.add_default_route(gateway.parse().expect("an address")).expect("a route");
            }
        });
        stage.peer.run(|| {
            let mut links = Links::open().expect("netlink");
            for gateway in HOST {
                links.add_default_route(gateway.parse().expect("an address")).expect("a route");
            }
        });
        for file in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
            fs::write(file, "1").expect("forwarding");
        }
        settle("ct0", &GATEWAY);
        container.run(|| settle("eth0", &CONTAINER));
        stage.container = Some(container);
        stage.devices.push("ct0".into());
        stage
    }
}

/// Waits until the wire of a device carries, as seen from this end, and IPv6 listens for whoever looks for these
/// addresses: before that, the first question is lost and asked again after a second.
pub(crate) fn settle(device: &str, addresses: &[&str]) {
    /// `IFF_RUNNING`.
    const RUNNING: u32 = 0x40;
    wait_for("the wire to carry", || {
        let link = Links::open().and_then(|mut l| l.find(device)).expect("netlink").expect("the device");
        link.flags & RUNNING != 0
    });
    for address in addresses.iter().filter_map(|a| a.parse::<std::net::Ipv6Addr>().ok()) {
        // The solicited-node group, RFC 4291 section 2.7.1.
        let group = format!("ff0200000000000000000001ff{:06x}", address.to_bits() & 0xff_ffff);
        wait_for("IPv6 to listen", || {
            let groups = fs::read_to_string("/proc/thread-self/net/igmp6").expect("a list");
            groups.lines().any(|l| l.contains(&group) && l.contains(device))
        });
    }
}

/// `addresses` with this port.
pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// Looks every half millisecond; panics after ten seconds.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain for {what}");
        thread::sleep(Duration::from_micros(500));
    }
    begun.elapsed()
}

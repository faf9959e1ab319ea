//! Where the demo happens: in a namespace lab, or in one process tree on loopback where there can be none. It starts
//! programs on hosts and knows their addresses; what they are is not its affair.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

use fracas_sim::lab::{Bare, DATA, Host, Lab, LabError, Options, Program, Running};

/// The hosts, by name.
pub(super) const HOSTS: [&str; 3] = ["db-1", "db-2", "edge-1"];

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Beside the hosts.
    Outside,
    /// On the host of this number in [`HOSTS`].
    Host(usize),
}

/// Who listens where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    /// The controller, for operators.
    pub(super) front: SocketAddr,
    /// The controller, for agents.
    pub(super) fleet: SocketAddr,
    /// The shop's primary.
    pub(super) primary: SocketAddr,
    /// Its replica.
    pub(super) replica: SocketAddr,
    /// The shop, for its customers.
    pub(super) shop: SocketAddr,
}

/// What everything runs in; it ends when this is dropped or this process is gone, whatever ends it.
#[derive(Debug)]
pub(super) enum Ground {
    /// Hosts of their own.
    Lab(Lab, Vec<Host>),
    /// All on this machine.
    Bare(Bare),
}

impl Ground {
    /// A lab with the hosts.
    pub(super) fn lab() -> Result<(Self, Addresses), LabError> {
        let lab = Lab::start(Options::default())?;
        let hosts = lab.add_hosts(&HOSTS)?;
        let on = |host: usize, port| SocketAddr::new(hosts[host].v4(), port);
        let outside = lab.addresses().0;
        let addresses = Addresses {
            front: (outside, 7766).into(),
            fleet: (outside, 7767).into(),
            primary: on(0, 7001),
            replica: on(1, 7002),
            shop: on(2, 8080),
        };
        Ok((Self::Lab(lab, hosts), addresses))
    }

    /// One process tree on loopback.
    pub(super) fn bare() -> Result<(Self, Addresses), LabError> {
        let bare = Bare::start()?;
        let ports = free_ports().map_err(|e| LabError::Failed(format!("no ports on loopback: {e}")))?;
        let at = |n: usize| (IpAddr::V4(Ipv4Addr::LOCALHOST), ports[n]).into();
        let addresses = Addresses { front: at(0), fleet: at(1), primary: at(2), replica: at(3), shop: at(4) };
        Ok((Self::Bare(bare), addresses))
    }

    /// The lab in words, with what real hosts have and these do not.
    pub(super) fn said(&self) -> String {
        let Self::Lab(lab, hosts) = self else { return String::new() };
        let hosts: Vec<String> = hosts.iter().map(|host| format!("{} {}", host.name(), host.v4())).collect();
        let without: Vec<&str> = lab.limits().iter().map(|limit| limit.what.as_str()).collect();
        format!("{}: namespaces of this machine\nreal hosts also have: {}", hosts.join(", "), without.join("; "))
    }

    /// What the documents must be told here; where names work and nothing else runs, their own defaults hold.
    pub(super) fn parameters(&self, at: Addresses) -> Vec<(String, String)> {
        let shop = || ("shop".to_owned(), format!("http://{}", at.shop));
        match self {
            Self::Lab(lab, _) if lab.limits().iter().any(|limit| limit.what == "hosts by name") => vec![shop()],
            Self::Lab(..) => Vec::new(),
            // Another demo's primary on this machine must not answer to the same name.
            Self::Bare(_) => vec![shop(), ("primary".into(), format!("shop-{}", at.primary.port()))],
        }
    }

    /// Starts a program there.
    pub(super) fn spawn(&self, place: Place, program: Program) -> Result<Running, LabError> {
        match (self, place) {
            (Self::Bare(bare), _) => bare.spawn(program),
            (Self::Lab(lab, _), Place::Outside) => lab.spawn(program),
            (Self::Lab(_, hosts), Place::Host(n)) => hosts[n].spawn(program),
        }
    }

    /// A directory for a program of this name, as that program sees it.
    pub(super) fn directory(&self, name: &str) -> String {
        match self {
            Self::Lab(..) => format!("{DATA}/{name}"),
            Self::Bare(bare) => bare.directory().join(name).display().to_string(),
        }
    }

    /// Ends everything there. When it returns, nothing is left.
    pub(super) fn end(self) -> Result<(), LabError> {
        match self {
            Self::Bare(bare) => bare.stop(),
            Self::Lab(lab, _) => lab.stop(),
        }
    }
}

/// Ports that nobody has at the moment. They are let go before they are taken for good, since those who take them are
/// other programs.
fn free_ports() -> io::Result<[u16; 5]> {
    let held: Vec<TcpListener> =
        (0..5).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<_>>()?;
    let mut ports = [0; 5];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

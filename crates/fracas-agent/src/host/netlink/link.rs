//! Network devices, addresses and routes: what the faults and the namespace lab need of `ip`.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::{
    Error, Protocol, Reply, Socket,
    message::{self, CREATE, EXCL, Message},
};

const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
/// `IFLA_ADDRESS`.
const ADDRESS: u16 = 1;
/// `IFLA_IFNAME`.
const NAME: u16 = 3;
/// `IFLA_MTU`.
const MTU: u16 = 4;
/// `IFLA_MASTER`.
const MASTER: u16 = 10;
/// `IFLA_LINKINFO`.
const INFO: u16 = 18;
/// `IFLA_NET_NS_PID`.
const NS_PID: u16 = 19;
/// `IFLA_IFALIAS`.
const ALIAS: u16 = 20;
/// `IFLA_NET_NS_FD`.
const NS_FD: u16 = 28;
/// `IFLA_AF_SPEC`.
const FAMILIES: u16 = 26;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFF_LOOPBACK`.
const LOOPBACK: u32 = 8;
/// `IFF_RUNNING`.
const RUNNING: u32 = 0x40;

/// Hardware address of every ifb we make, for it is the one mark that is there from the first moment; nothing is ever
/// sent under it. Its first byte says "locally administered, one station".
pub const OURS: [u8; 6] = *b"fracas";

/// A network device as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number in this namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Alias, empty when there is none.
    pub alias: String,
    /// Kind of a virtual device (`veth`, `ifb`, `bridge`), empty for others.
    pub kind: String,
    /// `IFF_*` flags.
    pub flags: u32,
    /// Largest packet.
    pub mtu: u32,
    /// `ARPHRD_*`: 1 is Ethernet.
    pub hardware: u16,
    /// Hardware address.
    pub address: Vec<u8>,
}

/// A network namespace other than one's own.
#[derive(Clone, Copy, Debug)]
pub enum Namespace<'a> {
    /// That of a process.
    Pid(i32),
    /// An open `/proc/PID/ns/net`.
    Fd(BorrowedFd<'a>),
}

impl Link {
    /// Administratively up.
    pub fn up(&self) -> bool {
        self.flags & UP != 0
    }

    /// Up, with a carrier, and the kernel has acted on both: packets pass.
    pub fn running(&self) -> bool {
        self.flags & RUNNING != 0
    }

    /// The loopback device.
    pub fn loopback(&self) -> bool {
        self.flags & LOOPBACK != 0
    }
}

impl Namespace<'_> {
    fn put(self, m: &mut Message) {
        match self {
            Self::Pid(pid) => m.put_u32(NS_PID, pid.cast_unsigned()),
            Self::Fd(fd) => m.put_u32(NS_FD, fd.as_raw_fd().cast_unsigned()),
        };
    }
}

/// `struct ifinfomsg`.
fn link_message(kind: u16, flags: u16, index: u32, set: u32, change: u32) -> Message {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&set.to_ne_bytes());
    fixed[12..].copy_from_slice(&change.to_ne_bytes());
    Message::new(kind, flags, &fixed)
}

/// A socket for devices, addresses and routes of one network namespace.
#[derive(Debug)]
pub struct Links {
    socket: Socket,
}

impl Links {
    /// Of the network namespace this thread is in now.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Route)? })
    }

    /// All devices.
    pub fn list(&mut self) -> Result<Vec<Link>, Error> {
        let replies = self.socket.dump(&link_message(GET_LINK, 0, 0, 0, 0))?;
        Ok(replies.iter().filter_map(link).collect())
    }

    /// The device of this name, if there is one.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut m = link_message(GET_LINK, 0, 0, 0, 0);
        m.put_text(NAME, name);
        match self.socket.ask(m) {
            Err(error) if error.is_absent() => Ok(None),
            other => Ok(other?.iter().find_map(link)),
        }
    }

    /// The device of this number, if there is one.
    pub fn find_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        match self.socket.ask(link_message(GET_LINK, 0, index, 0, 0)) {
            Err(error) if error.is_absent() => Ok(None),
            other => Ok(other?.iter().find_map(link)),
        }
    }

    /// The number of the device of this name.
    pub fn index(&mut self, name: &str) -> Result<u32, Error> {
        let absent = || Error::Refused { errno: rustix::io::Errno::NODEV, detail: format!("no device {name}") };
        Ok(self.find(name)?.ok_or_else(absent)?.index)
    }

    /// A pair of Ethernet devices joined by a wire, the second one in `peer_home` if given.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_home: Option<Namespace<'_>>) -> Result<(), Error> {
        let mut m = link_message(NEW_LINK, CREATE | EXCL, 0, 0, 0);
        m.put_text(NAME, name).nest(INFO, |m| {
            m.put(1, b"veth").nest(2, |m| {
                // VETH_INFO_PEER
                m.nest(1, |m| {
                    m.raw(&[0; 16]).put_text(NAME, peer);
                    if let Some(home) = peer_home {
                        home.put(m);
                    }
                });
            });
        });
        self.socket.ask(m).map(|_| ())
    }

    /// A bridge.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        self.add(name, "bridge", |_| {})
    }

    /// An intermediate functional block: a device whose queueing discipline serves packets redirected to it. It is
    /// made with the address [`OURS`], gets its alias, and is set up without an address of its own, so that nothing
    /// but what is redirected goes through it. Returns its number; on an error nothing is left.
    pub fn add_ifb(&mut self, name: &str, alias: &str) -> Result<u32, Error> {
        self.add(name, "ifb", |m| _ = m.put(ADDRESS, &OURS))?;
        let made = self.index(name).and_then(|index| {
            // No kernel takes an alias while the device is made.
            self.set_alias(index, alias)?;
            // Fails where IPv6 is switched off, and then is not needed.
            let _ = self.forgo_ipv6(index);
            self.set_up(index, true)?;
            Ok(index)
        });
        if made.is_err() {
            self.delete(name)?;
        }
        made
    }

    /// No IPv6 address by itself, hence no neighbour discovery: `IN6_ADDR_GEN_MODE_NONE`.
    fn forgo_ipv6(&mut self, index: u32) -> Result<(), Error> {
        let mut m = link_message(NEW_LINK, 0, index, 0, 0);
        m.nest(FAMILIES, |m| {
            m.nest(libc::AF_INET6 as u16, |m| {
                // IFLA_INET6_ADDR_GEN_MODE
                m.put(8, &[1]);
            });
        });
        self.socket.ask(m).map(|_| ())
    }

    fn add(&mut self, name: &str, kind: &str, more: impl FnOnce(&mut Message)) -> Result<(), Error> {
        let mut m = link_message(NEW_LINK, CREATE | EXCL, 0, 0, 0);
        m.put_text(NAME, name);
        more(&mut m);
        m.nest(INFO, |m| {
            m.put(1, kind.as_bytes());
        });
        self.socket.ask(m).map(|_| ())
    }

    /// Text of at most 255 bytes that `ip link` shows beside the device.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), Error> {
        let mut m = link_message(NEW_LINK, 0, index, 0, 0);
        m.put(ALIAS, alias.as_bytes());
        self.socket.ask(m).map(|_| ())
    }

    /// Makes a device a port of a bridge.
    pub fn set_master(&mut self, index: u32, bridge: u32) -> Result<(), Error> {
        let mut m = link_message(NEW_LINK, 0, index, 0, 0);
        m.put_u32(MASTER, bridge);
        self.socket.ask(m).map(|_| ())
    }

    /// Takes a device up or down.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), Error> {
        self.socket.ask(link_message(NEW_LINK, 0, index, u32::from(up), UP)).map(|_| ())
    }

    /// Renames a device, which must be down.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), Error> {
        let mut m = link_message(NEW_LINK, 0, index, 0, 0);
        m.put_text(NAME, name);
        self.socket.ask(m).map(|_| ())
    }

    /// Gives a device an Ethernet address.
    pub fn set_hardware_address(&mut self, index: u32, address: [u8; 6]) -> Result<(), Error> {
        let mut m = link_message(NEW_LINK, 0, index, 0, 0);
        m.put(ADDRESS, &address);
        self.socket.ask(m).map(|_| ())
    }

    /// Sets the largest packet.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        let mut m = link_message(NEW_LINK, 0, index, 0, 0);
        m.put_u32(MTU, mtu);
        self.socket.ask(m).map(|_| ())
    }

    /// Moves a device to another namespace, where it is down and without addresses.
    pub fn move_to(&mut self, index: u32, home: Namespace<'_>) -> Result<(), Error> {
        let mut m = link_message(NEW_LINK, 0, index, 0, 0);
        home.put(&mut m);
        self.socket.ask(m).map(|_| ())
    }

    /// Removes a device by name.
    pub fn delete(&mut self, name: &str) -> Result<(), Error> {
        let mut m = link_message(DEL_LINK, 0, 0, 0, 0);
        m.put_text(NAME, name);
        self.socket.ask(m).map(|_| ())
    }

    /// Removes a device by number.
    pub fn delete_index(&mut self, index: u32) -> Result<(), Error> {
        self.socket.ask(link_message(DEL_LINK, 0, index, 0, 0)).map(|_| ())
    }

    /// Gives a device an address; an IPv6 one is usable at once, without looking for duplicates.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<(), Error> {
        /// `IFA_F_NODAD`.
        const NO_DAD: u8 = 2;
        let (family, flags, bytes) = match address {
            IpAddr::V4(a) => (libc::AF_INET as u8, 0, a.octets().to_vec()),
            IpAddr::V6(a) => (libc::AF_INET6 as u8, NO_DAD, a.octets().to_vec()),
        };
        let mut fixed = vec![family, prefix, flags, 0];
        fixed.extend(index.to_ne_bytes());
        let mut m = Message::new(NEW_ADDRESS, CREATE | EXCL, &fixed);
        // IFA_LOCAL and IFA_ADDRESS
        m.put(2, &bytes).put(1, &bytes);
        self.socket.ask(m).map(|_| ())
    }

    /// Sends everything not known otherwise to `gateway`.
    pub fn add_default_route(&mut self, gateway: IpAddr) -> Result<(), Error> {
        let (family, bytes) = match gateway {
            IpAddr::V4(a) => (libc::AF_INET as u8, a.octets().to_vec()),
            IpAddr::V6(a) => (libc::AF_INET6 as u8, a.octets().to_vec()),
        };
        // struct rtmsg: main table (254), protocol static (4), scope universe, type unicast (1).
        let fixed = [family, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        let mut m = Message::new(NEW_ROUTE, CREATE | EXCL, &fixed);
        m.put(5, &bytes);
        self.socket.ask(m).map(|_| ())
    }
}

pub(super) fn link(reply: &Reply) -> Option<Link> {
    let body = reply.body.as_slice();
    if reply.kind != NEW_LINK {
        return None;
    }
    let attributes = body.get(16..)?;
    let text = |kind| message::find(attributes, kind).map(message::text).unwrap_or_default();
    Some(Link {
        index: message::u32_at(body, 4)?,
        name: text(NAME),
        alias: text(ALIAS),
        kind: message::find_path(attributes, &[INFO, 1]).map(message::text).unwrap_or_default(),
        flags: message::u32_at(body, 8)?,
        mtu: message::find(attributes, MTU).and_then(|v| message::u32_at(v, 0)).unwrap_or(0),
        hardware: message::u16_at(body, 2)?,
        address: message::find(attributes, ADDRESS).unwrap_or_default().to_vec(),
    })
}

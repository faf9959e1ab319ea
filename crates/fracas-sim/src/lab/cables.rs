//! The lab's network: a bridge in the outer network namespace and a veth pair to each host, by netlink.
//! It knows no processes.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use fracas_agent::host::netlink::{
    Error,
    link::{Links, Namespace},
};

use super::{LabError, Limit, LinkState};

/// The bridge.
const BRIDGE: &str = "lab0";
/// A host's device.
const DEVICE: &str = "eth0";
/// The lab's own number in its networks.
pub(super) const LAB: u8 = 1;
/// The first host's number.
pub(super) const FIRST: u8 = 11;
/// The last host's number.
pub(super) const LAST: u8 = 250;
/// How long a device may take to work once it is up: microseconds, as a rule.
const RAISE: Duration = Duration::from_secs(5);
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;

/// 10.77.0.N. It may be in use on the machine, which this network never meets.
pub(super) fn v4(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, number).into()
}

/// fd77::N with the same digits as the IPv4 address: host 11 is fd77::11.
pub(super) fn v6(number: u8) -> IpAddr {
    let digits = u16::from(number / 100) << 8 | u16::from(number / 10 % 10) << 4 | u16::from(number % 10);
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, digits).into()
}

/// The Ethernet address of this number: always the same, as neighbours remember it when a host starts again. Without
/// one given, a bridge changes its own with every cable.
fn hardware(number: u8) -> [u8; 6] {
    // The second lowest bit of the first byte: locally administered.
    [0x02, 0xfa, 0, 0, 0, number]
}

fn failed(what: &str) -> impl Fn(Error) -> LabError {
    move |error| LabError::failed(format!("{what}: {error}"))
}

/// The outer end of all cables.
#[derive(Debug)]
pub(super) struct Board {
    links: Links,
}

impl Board {
    /// Sets up loopback and the bridge in this network namespace, which must be new.
    pub(super) fn lay() -> Result<(Self, Vec<Limit>), LabError> {
        hurry();
        let mut links = Links::open().map_err(failed("no netlink socket"))?;
        raise_loopback(&mut links).map_err(failed("loopback cannot be raised"))?;
        links.add_bridge(BRIDGE).map_err(failed("no bridge"))?;
        let index = links.index(BRIDGE).map_err(failed("no bridge"))?;
        links.set_hardware_address(index, hardware(LAB)).map_err(failed("the bridge gets no address"))?;
        links.set_up(index, true).map_err(failed("the bridge cannot be raised"))?;
        links.add_address(index, v4(LAB), PREFIX_V4).map_err(failed("the bridge gets no address"))?;
        let limits = match links.add_address(index, v6(LAB), PREFIX_V6) {
            Ok(()) => Vec::new(),
            Err(error) => vec![Limit::new("IPv6", format!("this kernel gives no IPv6 addresses: {error}"), "")],
        };
        Ok((Self { links }, limits))
    }

    /// Changes the link of the host behind this cable.
    pub(super) fn set(&mut self, cable: &str, state: LinkState) -> Result<(), LabError> {
        let mut set = || -> Result<(), Error> {
            let index = self.links.index(cable)?;
            let aside = aside(cable);
            // A bridge of its own that is down: frames vanish, and both ends of the cable still see a carrier.
            let bridge = if state == LinkState::Cut {
                if self.links.find(&aside)?.is_none() {
                    self.links.add_bridge(&aside)?;
                }
                self.links.index(&aside)?
            } else {
                self.links.index(BRIDGE)?
            };
            self.links.set_master(index, bridge)?;
            self.links.set_up(index, state != LinkState::Unplugged)?;
            if state != LinkState::Unplugged {
                await_running(&mut self.links, cable)?;
            }
            if state != LinkState::Cut && self.links.find(&aside)?.is_some() {
                self.links.delete(&aside)?;
            }
            Ok(())
        };
        set().map_err(failed("the link cannot be changed"))
    }

    /// Removes the cable of a host that has ended. The kernel would, but only some time after the host's last process.
    pub(super) fn remove(&mut self, cable: &str) -> Result<(), LabError> {
        for name in [cable, &aside(cable)] {
            match self.links.delete(name) {
                Err(error) if !error.is_absent() => return Err(failed("a cable cannot be removed")(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The bridge a cut cable lies on.
fn aside(cable: &str) -> String {
    format!("cut-{cable}")
}

/// The outer network namespace, seen from a host's init that has not left it yet.
#[derive(Debug)]
pub(super) struct Socket {
    outer: Links,
}

impl Socket {
    /// To be opened before entering the host's own network namespace.
    pub(super) fn open() -> Result<Self, LabError> {
        Ok(Self { outer: Links::open().map_err(failed("no netlink socket"))? })
    }

    /// Lays a cable from the bridge into this network namespace, which must be the host's own by now.
    pub(super) fn connect(mut self, cable: &str, number: u8) -> Result<(), LabError> {
        hurry();
        let home = File::open("/proc/self/ns/net").map_err(|e| LabError::failed(format!("no network: {e}")))?;
        let mut lay = || -> Result<(), Error> {
            self.outer.add_veth(cable, DEVICE, Some(Namespace::Fd(home.as_fd())))?;
            let (index, bridge) = (self.outer.index(cable)?, self.outer.index(BRIDGE)?);
            self.outer.set_master(index, bridge)?;
            self.outer.set_up(index, true)?;
            let mut own = Links::open()?;
            raise_loopback(&mut own)?;
            let index = own.index(DEVICE)?;
            own.set_hardware_address(index, hardware(number))?;
            own.set_up(index, true)?;
            own.add_address(index, v4(number), PREFIX_V4)?;
            // Whether the kernel has IPv6 is known, and told, since the bridge was made.
            let _ = own.add_address(index, v6(number), PREFIX_V6);
            await_running(&mut self.outer, cable)?;
            await_running(&mut own, DEVICE)
        };
        lay().map_err(failed("no cable"))
    }
}

/// Waits until packets pass through a device just raised. The kernel acts on a carrier a moment after the device is up;
/// until then it drops what is sent, and whoever asked for a neighbour asks again only a second later.
fn await_running(links: &mut Links, device: &str) -> Result<(), Error> {
    let until = Instant::now() + RAISE;
    while !links.find(device)?.is_some_and(|link| link.running()) {
        if Instant::now() > until {
            return Err(Error::Socket(io::Error::new(io::ErrorKind::TimedOut, format!("{device} gets no carrier"))));
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn raise_loopback(links: &mut Links) -> Result<(), Error> {
    let index = links.index("lo")?;
    links.set_up(index, true)
}

/// Devices made from now on in this network namespace do not look for duplicates of their addresses for a second before
/// they use them: all addresses are given out here.
fn hurry() {
    let setting = Path::new("/proc/sys/net/ipv6/conf/default/accept_dad");
    if setting.exists() {
        // At worst, link-local addresses come a second later.
        let _ = fs::write(setting, "0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_end_in_the_same_digits() {
        for number in [LAB, FIRST, 99, 100, LAST] {
            assert_eq!(v4(number).to_string(), format!("10.77.0.{number}"));
            assert_eq!(v6(number).to_string(), format!("fd77::{number}"));
        }
    }
}

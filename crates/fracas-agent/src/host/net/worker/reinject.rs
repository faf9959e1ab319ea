//! Sends copied packets on their way again: raw sockets that take whole IP packets, marked so that our own rules let
//! them pass.

#![expect(unsafe_code, reason = "raw sockets with a mark and a chosen device have no safe wrapper")]

use std::{
    io, mem,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};

use super::super::rules::MARK;

/// One socket per IP version.
#[derive(Debug)]
pub(crate) struct Reinject {
    v4: OwnedFd,
    v6: OwnedFd,
}

impl Reinject {
    /// Fails without the right to open raw sockets or to set marks.
    pub(crate) fn open() -> io::Result<Self> {
        // IPPROTO_RAW means: we bring the header along; nothing is ever received.
        Ok(Self { v4: raw(AddressFamily::INET)?, v6: raw(AddressFamily::INET6)? })
    }

    /// Sends a packet, headers included, by the device with this number (0: as routed).
    pub(crate) fn send(&self, packet: &[u8], device: u32) -> io::Result<()> {
        match packet.first().map(|b| b >> 4) {
            Some(4) if packet.len() >= 20 => self.send_v4(packet, device),
            Some(6) if packet.len() >= 40 => self.send_v6(packet, device),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn send_v4(&self, packet: &[u8], device: u32) -> io::Result<()> {
        // SAFETY: plain old data, all zero is valid.
        let mut to: libc::sockaddr_in = unsafe { mem::zeroed() };
        to.sin_family = libc::AF_INET as u16;
        to.sin_addr.s_addr = u32::from_ne_bytes([packet[16], packet[17], packet[18], packet[19]]);
        // SAFETY: plain old data, all zero is valid.
        let mut info: libc::in_pktinfo = unsafe { mem::zeroed() };
        info.ipi_ifindex = device.cast_signed();
        send(&self.v4, packet, &to, libc::IPPROTO_IP, libc::IP_PKTINFO, &info)
    }

    fn send_v6(&self, packet: &[u8], device: u32) -> io::Result<()> {
        // SAFETY: plain old data, all zero is valid.
        let mut to: libc::sockaddr_in6 = unsafe { mem::zeroed() };
        to.sin6_family = libc::AF_INET6 as u16;
        to.sin6_addr.s6_addr.copy_from_slice(&packet[24..40]);
        to.sin6_scope_id = device;
        // SAFETY: plain old data, all zero is valid.
        let mut info: libc::in6_pktinfo = unsafe { mem::zeroed() };
        info.ipi6_ifindex = device;
        send(&self.v6, packet, &to, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info)
    }
}

fn raw(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(family, SocketType::RAW, flags, Some(ipproto::RAW))?;
    let value = MARK;
    let length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the pointer is to a live u32 of the length given.
    let code =
        unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, (&raw const value).cast(), length) };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    // Room for bursts; where it is not granted, a full buffer counts as unasked loss.
    let _ = sockopt::set_socket_send_buffer_size_force(&fd, 64 << 20);
    Ok(fd)
}

/// Space for one control message, aligned as `cmsghdr` must be.
#[repr(align(8))]
struct Control([u8; 64]);

fn send<A, I>(fd: &OwnedFd, packet: &[u8], to: &A, level: i32, kind: i32, info: &I) -> io::Result<()> {
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() };
    // SAFETY: plain old data, all zero is valid.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = (&raw const *to).cast_mut().cast();
    header.msg_namelen = size_of::<A>() as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: arithmetic only.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<I>() as u32) } as _;
    // SAFETY: the control buffer is aligned and larger than one header with `I`, which is plain old data.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_level = level;
        (*first).cmsg_type = kind;
        (*first).cmsg_len = libc::CMSG_LEN(size_of::<I>() as u32) as _;
        std::ptr::copy_nonoverlapping((&raw const *info).cast::<u8>(), libc::CMSG_DATA(first), size_of::<I>());
    }
    // SAFETY: every pointer in the header is to something that lives until the call returns.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

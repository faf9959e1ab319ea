//! What seldom changes about this host, gathered once. Abilities are found by trying, in [`super::trials`].

#![expect(unsafe_code, reason = "getifaddrs has no safe wrapper")]

use std::{collections::BTreeMap, ffi::CStr};

use fracas_model::facts::{Device, HostFacts};
use rustix::thread::{CpuSet, sched_getaffinity};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::{trials, worker::Spawner};

/// Everything. Takes up to a second: abilities are tried, one with a worker.
pub fn gather(spawner: &Spawner, version: &str) -> HostFacts {
    HostFacts { abilities: trials::all(spawner), ..describe(version) }
}

/// Everything that can be read without trying anything.
pub fn describe(version: &str) -> HostFacts {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let cores = cores();
    HostFacts {
        hostname: System::host_name().unwrap_or_default(),
        os: System::long_os_version().unwrap_or_else(|_| "Linux".into()),
        kernel: System::kernel_version().unwrap_or_default(),
        arch: std::env::consts::ARCH.into(),
        cpus: u32::try_from(cores.len()).unwrap_or(u32::MAX),
        cores,
        memory_bytes: System::new_with_specifics(memory).map_or(0, |s| s.total_memory()),
        agent_version: version.to_owned(),
        uid: rustix::process::geteuid().as_raw(),
        abilities: BTreeMap::new(),
    }
}

/// Numbers of the cores this process may use.
fn cores() -> Vec<u32> {
    let may = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|core| may.is_set(*core)).filter_map(|core| u32::try_from(core).ok()).collect()
}

/// Network devices of our network namespace, by number.
pub fn devices() -> Vec<Device> {
    let mut found: BTreeMap<u32, Device> = BTreeMap::new();
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: on success `list` is a chain of valid nodes that stays so until freed below; names are C strings.
    unsafe {
        if libc::getifaddrs(&raw mut list) != 0 {
            return Vec::new();
        }
        let mut next = list;
        while let Some(entry) = next.as_ref() {
            let flags = entry.ifa_flags.cast_signed();
            let index = libc::if_nametoindex(entry.ifa_name);
            let name = CStr::from_ptr(entry.ifa_name).to_string_lossy().into_owned();
            let (loopback, up) = (flags & libc::IFF_LOOPBACK != 0, flags & libc::IFF_UP != 0);
            // An address label such as `eth0:1` has no number of its own.
            if index != 0 {
                let stacked = stacked(&name);
                found.insert(index, Device { name, index, loopback, up, stacked });
            }
            next = entry.ifa_next;
        }
        libc::freeifaddrs(list);
    }
    found.into_values().collect()
}

/// Whether what passes a device passes another one too: it is a port of something, or lies on top of something that is
/// not made of ports.
fn stacked(name: &str) -> bool {
    let home = std::path::Path::new("/sys/class/net").join(name);
    let has = |entry: &str| home.join(entry).exists();
    let made_of_ports = has("bridge") || has("bonding");
    let below = std::fs::read_dir(&home).into_iter().flatten().flatten();
    let on_top = below.into_iter().any(|e| e.file_name().to_string_lossy().starts_with("lower_"));
    has("master") || (on_top && !made_of_ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_core_and_a_loopback_device() {
        assert!(!cores().is_empty());
        assert!(devices().iter().any(|d| d.loopback && d.name == "lo"));
    }
}

//! Looks for anything of an agent on this host, whoever left it and whatever its journal says. It changes nothing.
//!
//! What is found is found by the marks that every mechanism leaves in the kernel; files are beyond that, their only list is
//! the journal.

use std::{fs, path::Path};

use super::{
    linux::netem::marked,
    netlink::{
        link::{self, Links},
        nft,
        traffic::{self, Hook, Traffic},
    },
    processes,
};

/// How the names of all our tables begin.
const TABLES: &str = "fracas";

/// Each thing found, in words; an error is a place where nobody could look.
pub fn find() -> Result<Vec<String>, String> {
    let mut found = workers();
    let tables = nft::tables();
    // A kernel without nftables has no table.
    for table in tables.unwrap_or_default().into_iter().filter(|name| name.starts_with(TABLES)) {
        found.push(format!("the nftables table inet {table}"));
    }
    let mut links = Links::open().map_err(|e| format!("devices cannot be listed: {e}"))?;
    let mut kernel = Traffic::open().map_err(|e| format!("qdiscs cannot be listed: {e}"))?;
    let all = links.list().map_err(|e| format!("devices cannot be listed: {e}"))?;
    let disciplines = kernel.disciplines().map_err(|e| format!("qdiscs cannot be listed: {e}"))?;
    for device in &all {
        if device.kind == "ifb" && device.address == link::OURS {
            found.push(format!("the device {}", device.name));
        }
        let here = disciplines.iter().filter(|d| d.index == device.index);
        if !here.clone().any(|d| d.handle == traffic::SIDE) {
            continue;
        }
        for hook in [Hook::Ingress, Hook::Egress] {
            let filters = kernel.filters(device.index, hook).map_err(|e| format!("filters cannot be listed: {e}"))?;
            if filters.iter().any(|filter| marked(&filter.cookie)) {
                found.push(format!("a filter on {}", device.name));
            }
        }
    }
    Ok(found)
}

/// Processes of an agent or of what it started.
fn workers() -> Vec<String> {
    let own = std::process::id().cast_signed();
    let pids = processes::numbers(Path::new("/proc")).into_iter().filter(|pid| *pid != own);
    let role = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0).skip(1);
        (words.next()? == crate::reexec::MARK.as_bytes()).then_some(())?;
        Some(format!("process {pid}, the {} of an agent", String::from_utf8_lossy(words.next()?)))
    };
    pids.filter_map(role).collect()
}

//! The process table as a probe needs it: names, parents and units from /proc. It never looks for ports.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use fracas_model::process::{Process, ProcessRef};

/// `PF_KTHREAD` of the kernel's `include/linux/sched.h`, in the flags field of /proc/PID/stat.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Every process that runs; zombies do not. Those that end while the table is read are left out.
pub(crate) fn all(with_units: bool) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter_map(|pid| one(pid, with_units)).collect()
}

/// One process, unless it is gone or a zombie.
pub(crate) fn one(pid: i32, with_unit: bool) -> Option<Process> {
    let dir = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    // The name stands in parentheses and may itself hold parentheses and spaces.
    let (head, tail) = stat.rsplit_once(") ")?;
    let name = head.split_once(" (")?.1.to_owned();
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X" | "x") {
        return None;
    }
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let kernel = number(6)? & KERNEL_THREAD != 0;
    let base = |path: &str| path.rsplit('/').next().filter(|b| !b.is_empty()).map(str::to_owned);
    let exe = fs::read_link(dir.join("exe")).ok().and_then(|p| base(p.to_str()?.trim_end_matches(" (deleted)")));
    let argv0 = fs::read(dir.join("cmdline")).ok().and_then(|line| {
        let first = line.split(|b| *b == 0 || *b == b' ').next()?;
        base(std::str::from_utf8(first).ok()?)
    });
    Some(Process {
        id: ProcessRef { pid, start_ticks: number(19)?, name },
        parent: fields.get(1)?.parse().ok()?,
        exe,
        argv0,
        uid: fs::metadata(&dir).ok()?.uid(),
        kernel,
        ports: Vec::new(),
        unit: if with_unit { unit(&fs::read_to_string(dir.join("cgroup")).unwrap_or_default()) } else { None },
    })
}

/// The innermost systemd unit in the text of /proc/PID/cgroup; version 1 lines count only for systemd's own hierarchy.
fn unit(cgroups: &str) -> Option<String> {
    let paths = cgroups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        (controllers.is_empty() || controllers == "name=systemd").then_some(path)
    });
    let is_unit = |part: &&str| matches!(part.rsplit_once('.'), Some((_, "service" | "scope")));
    paths.filter_map(|path| path.rsplit('/').find(is_unit)).map(str::to_owned).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_the_table() {
        let me = i32::try_from(std::process::id()).unwrap();
        let found = all(true).into_iter().find(|p| p.id.pid == me).unwrap();
        assert!(found.id.start_ticks > 0 && found.parent > 0 && !found.kernel, "{found:?}");
        assert_eq!(found.exe, std::env::current_exe().unwrap().file_name().map(|n| n.to_str().unwrap().to_owned()));
    }

    #[test]
    fn units_are_read_from_both_cgroup_versions() {
        assert_eq!(unit("0::/system.slice/nginx.service\n").as_deref(), Some("nginx.service"));
        let old = "12:pids:/system.slice/no.service\n1:name=systemd:/system.slice/redis.service/sub\n";
        assert_eq!(unit(old).as_deref(), Some("redis.service"));
        assert_eq!(unit("0::/\n"), None);
    }
}

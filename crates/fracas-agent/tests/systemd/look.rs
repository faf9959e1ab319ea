//! What other programs see of the guest: systemd's own words, the kernel's tables, and files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use crate::guest::say;

/// The agent's unit.
pub(crate) const AGENT: &str = "fracas-agent.service";

/// A property of a unit, as systemctl has it.
pub(crate) fn property(unit: &str, name: &str) -> String {
    say("/bin/systemctl", &["show", "--value", "-p", name, unit]).good().trim().to_owned()
}

/// Whether a unit is active.
pub(crate) fn active(unit: &str) -> bool {
    property(unit, "ActiveState") == "active"
}

/// Process number of a unit's main process.
pub(crate) fn main_pid(unit: &str) -> i32 {
    property(unit, "MainPID").parse().expect("a number")
}

/// How often systemd has restarted a unit by itself.
pub(crate) fn restarts(unit: &str) -> u32 {
    property(unit, "NRestarts").parse().expect("a number")
}

/// Process number of what answers on a port of this host, if something does.
pub(crate) fn answers(port: u16) -> Option<i32> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(300))).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Processes of the agent's kinds: number and name.
pub(crate) fn ours() -> Vec<(i32, String)> {
    let all = fs::read_dir("/proc").expect("proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let named =
        pids.filter_map(|pid| Some((pid, fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())));
    named.filter(|(_, name)| name.starts_with("fracas-")).collect()
}

/// Process numbers of workers in a role.
pub(crate) fn workers(role: &str) -> Vec<i32> {
    let name = format!("fracas-{role}");
    ours().into_iter().filter(|(_, own)| *own == name).map(|(pid, _)| pid).collect()
}

/// Everything of the guest that a fault or an installation could leave something in, by section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dump(BTreeMap<&'static str, BTreeSet<String>>);

impl Dump {
    /// Looks.
    pub(crate) fn take() -> Self {
        let lines = |program: &str, words: &[&str]| {
            say(program, words).good().lines().map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let mut all = BTreeMap::new();
        all.insert("rules", lines("/usr/sbin/nft", &["list", "ruleset"]));
        all.insert("qdiscs", lines("/sbin/tc", &["qdisc", "show"]));
        // The kernel draws the addresses of its own devices anew at each boot.
        let drawn = |line: &str| ["ifb", "dummy"].iter().any(|kind| line.contains(&format!(": {kind}")));
        let links = lines("/bin/ip", &["-o", "link", "show"]).into_iter();
        let links = links.map(|line| match line.split_once("link/ether") {
            Some((rest, _)) if drawn(&line) => rest.to_owned(),
            _ => line,
        });
        all.insert("links", links.collect());
        let mut filters = BTreeSet::new();
        for device in fs::read_dir("/sys/class/net").expect("devices").flatten() {
            for hook in ["ingress", "egress"] {
                let device = device.file_name().into_string().expect("a name");
                let said = say("/sbin/tc", &["filter", "show", "dev", &device, hook]).out;
                filters.extend(said.lines().map(|line| format!("{device} {hook} {line}")));
            }
        }
        all.insert("filters", filters);
        let mut files = BTreeSet::new();
        for folder in
            ["/etc", "/usr/local", "/opt", "/root", "/run/systemd/system", "/var/lib", "/sys/fs/cgroup/system.slice"]
        {
            walk(Path::new(folder), &mut files);
        }
        // The controller, systemd and the trials go on working.
        let busy = [
            "/var/lib/private/fracas/",
            "/var/lib/trials-over",
            "/sys/fs/cgroup/system.slice/trials",
            "/var/lib/systemd/",
            "/var/lib/fracas ",
            "/etc/.",
        ];
        files.retain(|line| !busy.iter().any(|busy| line.starts_with(busy)));
        all.insert("files", files);
        all.insert("processes", ours().into_iter().map(|(_, name)| name).collect());
        let units = lines("/bin/systemctl", &["list-unit-files", "--no-legend", "--no-pager"]);
        all.insert("units", units);
        Self(all)
    }

    /// Lines that one has and the other has not.
    pub(crate) fn differences(&self, before: &Self) -> Vec<String> {
        let mut all = Vec::new();
        for (section, now) in &self.0 {
            let then = &before.0[section];
            all.extend(then.difference(now).map(|line| format!("{section}: - {line}")));
            all.extend(now.difference(then).map(|line| format!("{section}: + {line}")));
        }
        all
    }

    /// On the disk, for a later boot.
    pub(crate) fn keep(&self, place: &str) {
        fs::write(place, serde_json::to_vec(&self.0).expect("texts")).expect("the disk takes it");
    }

    /// From the disk.
    pub(crate) fn kept(place: &str) -> Self {
        let all: BTreeMap<String, BTreeSet<String>> =
            serde_json::from_slice(&fs::read(place).expect("it was kept")).expect("texts");
        let name = |text: String| {
            ["rules", "qdiscs", "links", "filters", "files", "processes", "units"].into_iter().find(|n| *n == text)
        };
        Self(all.into_iter().map(|(section, lines)| (name(section).expect("a section"), lines)).collect())
    }
}

fn walk(folder: &Path, found: &mut BTreeSet<String>) {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if folder.starts_with("/sys/fs/cgroup") {
            if about.is_dir() {
                found.insert(path.display().to_string());
                walk(&path, found);
            }
            continue;
        }
        let bytes = if about.is_file() { about.len() } else { 0 };
        found.insert(format!("{} {:o} {}:{} {bytes}", path.display(), about.mode(), about.uid(), about.gid()));
        if about.is_dir() {
            walk(&path, found);
        }
    }
}

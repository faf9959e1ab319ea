//! What a fault could leave on a host, each kind asked for by a foreign tool or read from the kernel by the test itself,
//! before and after.

use std::collections::{BTreeMap, BTreeSet};

use fracas_sim::{lab::Program, need::Need};
use libtest_mimic::Trial;

use crate::{
    rig::{Rig, STATE},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let needs = &[Need::Lab, Need::Program("nft"), Need::Program("tc"), Need::Program("ip")];
    vec![trial("planted_residue_is_found", needs, planted_residue_is_found)]
}

/// What a host looks like, by section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dump {
    host: String,
    sections: BTreeMap<&'static str, String>,
}

/// Sections and the shell that prints them. A tool that is not installed prints nothing, before and after: tests that
/// rest on it need it.
const SECTIONS: &[(&str, &str)] = &[
    ("rules", "nft list ruleset 2>/dev/null"),
    ("qdiscs", "tc qdisc show 2>/dev/null"),
    (
        "filters",
        "for d in /proc/sys/net/ipv4/conf/*; do tc filter show dev ${d##*/} ingress 2>/dev/null; tc filter show dev ${d##*/} egress 2>/dev/null; done",
    ),
    ("links", "ip -o link show 2>/dev/null"),
    ("addresses", "ip -o address show 2>/dev/null | sed 's/valid_lft.*//'"),
    ("routes", "ip route show table all 2>/dev/null; ip rule show 2>/dev/null"),
    (
        "settings",
        "cd /proc/sys/net && find . -type f -not -name '*stat*' | sort | xargs grep -s '' | grep -v -e /netfilter/nf_conntrack_count -e '/route/gc' -e random",
    ),
    ("mounts", "cut -d' ' -f4- /proc/self/mountinfo"),
    ("cgroups", "find /sys/fs/cgroup -type d 2>/dev/null | sort"),
    ("queues", "cat /proc/net/netfilter/nfnetlink_queue 2>/dev/null"),
];

impl Dump {
    /// Looks at a host.
    pub(crate) fn of(rig: &Rig, host: &str) -> Self {
        let mut sections: BTreeMap<&'static str, String> = SECTIONS
            .iter()
            .map(|(name, script)| (*name, rig.say(host, Program::new("sh").args(["-c", script])).out))
            .collect();
        // Files, but for what agent and services keep in their own places.
        let files = format!("find /run /tmp /dev/shm -xdev -not -path '{STATE}*' -not -path '/tmp/pg/*' | sort");
        sections.insert("files", rig.shell(host, &files));
        sections.insert("processes", processes(rig, host));
        Self { host: host.to_owned(), sections }
    }

    /// Lines that one of them has and the other has not, by section.
    fn differences(&self, other: &Self) -> BTreeMap<&'static str, Vec<String>> {
        let mut all = BTreeMap::new();
        for (name, mine) in &self.sections {
            let (mine, theirs): (BTreeSet<&str>, BTreeSet<&str>) =
                (mine.lines().collect(), other.sections[name].lines().collect());
            let gone = mine.difference(&theirs).map(|line| format!("- {line}"));
            let fresh = theirs.difference(&mine).map(|line| format!("+ {line}"));
            let lines: Vec<String> = gone.chain(fresh).collect();
            if !lines.is_empty() {
                all.insert(*name, lines);
            }
        }
        all
    }

    /// Nothing may be otherwise than it was.
    pub(crate) fn expect_same(&self, before: &Self) {
        let differences = before.differences(self);
        assert!(differences.is_empty(), "host {} is not as it was: {differences:#?}", self.host);
    }

    /// As [`expect_same`](Self::expect_same), but that the agent may keep its packet worker, with a table in which no fault
    /// is: it goes with the agent.
    pub(crate) fn expect_no_fault(&self, before: &Self) {
        let mut differences = before.differences(self);
        if let Some(lines) = differences.remove("processes") {
            let worker = |line: &String| {
                line.starts_with("+ 0 ") && line.contains("[\"/proc/self/exe\",\"__fracas-worker\",\"net\"]")
            };
            assert!(lines.len() == 1 && lines.iter().all(worker), "host {} has other processes: {lines:#?}", self.host);
        }
        if let Some(lines) = differences.remove("rules") {
            let harmful = |line: &String| {
                ["- ", "drop", "queue", "QUEUE", "xt ", "dport 5432", "10.77"].iter().any(|word| line.contains(word))
            };
            assert!(!lines.iter().any(harmful), "host {} has rules: {lines:#?}", self.host);
            assert!(lines.iter().any(|line| line.contains("flags owner")), "it goes with its worker: {lines:#?}");
        }
        assert!(differences.is_empty(), "host {} is not as it was: {differences:#?}", self.host);
    }

    /// A section must be otherwise now, or the comparison would prove nothing.
    pub(crate) fn expect_change(&self, now: &Self, section: &str) {
        let differences = self.differences(now);
        assert!(differences.contains_key(section), "{section} did not change: {differences:#?}");
    }
}

/// Command lines and states, without numbers: workers would show.
fn processes(rig: &Rig, host: &str) -> String {
    let told = rig.say(host, part(&["processes"])).good().json();
    let mut lines: Vec<String> = told
        .iter()
        // The looker itself; and a process that died but was not reaped yet is no residue of a fault.
        .filter(|process| process["state"] != "Z" && !process["command"].to_string().contains("\"processes\""))
        .map(|process| {
            let stopped = ["t", "T"].iter().any(|state| process["state"] == *state);
            format!("{} {} {}", process["name"], process["command"], if stopped { "stopped" } else { "" })
        })
        .collect();
    lines.sort();
    // Of equal lines each counts.
    let nth = |n: usize| lines[..n].iter().filter(|line| **line == lines[n]).count();
    (0..lines.len()).map(|n| format!("{} {}\n", nth(n), lines[n])).collect()
}

fn planted_residue_is_found() {
    let rig = Rig::bare(&["box"]);
    let before = Dump::of(&rig, "box");
    Dump::of(&rig, "box").expect_same(&before);
    let plants = [
        ("rules", "nft add table inet residue", "nft delete table inet residue"),
        ("qdiscs", "tc qdisc add dev eth0 handle 7: root pfifo", "tc qdisc del dev eth0 root"),
        (
            "filters",
            "tc qdisc add dev eth0 clsact; tc filter add dev eth0 egress bpf bytecode '1,6 0 0 0,'",
            "tc qdisc del dev eth0 clsact",
        ),
        ("links", "ip link add residue type ifb", "ip link del residue"),
        ("addresses", "ip address add 10.99.0.1/24 dev eth0", "ip address del 10.99.0.1/24 dev eth0"),
        ("routes", "ip route add 10.98.0.0/16 dev eth0", "ip route del 10.98.0.0/16"),
        ("settings", "echo 0 > /proc/sys/net/ipv4/tcp_sack", "echo 1 > /proc/sys/net/ipv4/tcp_sack"),
        ("mounts", "mount -i -n -t tmpfs residue /dev/shm", "umount -i -n /dev/shm"),
        ("files", "touch /tmp/residue", "rm /tmp/residue"),
    ];
    for (section, plant, clear) in plants {
        rig.shell("box", plant);
        before.expect_change(&Dump::of(&rig, "box"), section);
        rig.shell("box", clear);
        Dump::of(&rig, "box").expect_same(&before);
    }
    let resting = rig.go("box", "rest", part(&["rest", "residue"])).ready();
    before.expect_change(&Dump::of(&rig, "box"), "processes");
    resting.signal(rustix::process::Signal::STOP);
    resting.kill();
    Dump::of(&rig, "box").expect_same(&before);
}

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

/// Before the name of a section in what the shell prints.
const MARK: &str = "=== section ";

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

/// Words of which a rule that does something to packets has at least one,
/// as the tests write them; the agent's table without a fault has none.
pub(crate) const HARMFUL: &[&str] = &["drop", "queue", "QUEUE", "xt ", "10.77", "5432", "7007"];

impl Dump {
    /// Looks at a host: one shell prints all sections, since looking must be quick enough to do it thousands of times.
    pub(crate) fn of(rig: &Rig, host: &str) -> Self {
        // Files, but for what agent and services keep in their own places.
        let files = format!("find /run /tmp /dev/shm -xdev -not -path '{STATE}*' -not -path '/tmp/pg/*' | sort");
        let all = || SECTIONS.iter().copied().chain([("files", files.as_str())]);
        let script: String = all().map(|(name, script)| format!("echo '{MARK}{name}'; ({script})\n")).collect();
        let said = rig.say(host, Program::new("sh").args(["-c", &script])).out;
        let parts = said.split(MARK).skip(1).map(|part| part.split_once('\n').unwrap_or((part, "")));
        let told: BTreeMap<&str, &str> = parts.collect();
        let mut sections: BTreeMap<&'static str, String> = SECTIONS
            .iter()
            .map(|(name, _)| *name)
            .chain(["files"])
            .map(|name| (name, (*told.get(name).unwrap_or_else(|| panic!("no section {name}"))).to_owned()))
            .collect();
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
        let differences = self.residue(before);
        assert!(differences.is_empty(), "host {} is not as it was: {differences:#?}", self.host);
    }

    /// What is otherwise than before, but for an idle packet worker of the agent and its table, which either may have.
    pub(crate) fn residue(&self, before: &Self) -> BTreeMap<&'static str, Vec<String>> {
        let mut differences = before.differences(self);
        let workers = differences.get_mut("processes").map_or(0, |lines| {
            let all = lines.len();
            lines.retain(|line| !line.contains("[\"/proc/self/exe\",\"__fracas-worker\",\"net\"]"));
            all - lines.len()
        });
        // Its table comes and goes with the worker; a rule in it would be a fault.
        if workers == 1
            && let Some(lines) = differences.get_mut("rules")
        {
            let owned = lines.iter().any(|line| line.contains("flags owner"));
            let harmful = |line: &String| HARMFUL.iter().any(|word| line.contains(word));
            lines.retain(|line| !owned || line.starts_with("+ ") && harmful(line));
        }
        differences.retain(|_, lines| !lines.is_empty());
        if workers > 1 {
            differences.entry("processes").or_default().push(format!("{workers} packet workers more or less"));
        }
        differences
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

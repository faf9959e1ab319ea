//! What a fault could leave on a host, each kind asked for by a foreign tool or read from the kernel by the test itself,
//! before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fracas_sim::{
    lab::{Program, Stream},
    need::Need,
};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    rig::{Rig, STATE},
    stage::{MARK as MARK_OF_PARTS, part},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let needs = &[Need::Lab, Need::Program("nft"), Need::Program("tc"), Need::Program("ip")];
    vec![
        trial("planted_residue_is_found", needs, planted_residue_is_found),
        trial("a_planted_cgroup_is_found", &[Need::LabCgroup], planted_cgroup_is_found),
        trial("a_planted_clock_is_found", &[Need::Lab, Need::TimeNamespace], planted_clock_is_found),
    ]
}

/// What a host looks like, by section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dump {
    host: String,
    sections: BTreeMap<&'static str, String>,
    /// Time of day less time since boot.
    clock_ns: i64,
}

/// How far the clock may have moved between two looks: who keeps the machine's time may slew it by 500 millionths, which
/// comes to this in three minutes. A fault on the clock is one of seconds.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(100);

/// Where files are looked at, beside what a test names.
const PLACES: &[&str] = &["/run", "/tmp", "/dev/shm", "/run/data"];

/// Files that are otherwise for a good reason, by how their paths begin.
const UNLIKE: &[(&str, &str)] = &[
    (STATE, "the agent's own journal and its lock, and the tests' orders beside them: uninstalling proves them gone"),
    ("/tmp/pg/", "a database writes there as it runs"),
    ("/run/nginx.pid", "nginx writes its number there whenever it is started again"),
    ("/run/script.sql", "the tests write there what a database is to be asked next"),
];

/// Before the name of a section in what the shell prints.
const MARK: &str = "=== section ";

/// Sections and the shell that prints them. A tool that is not installed prints nothing, before and after: tests that
/// rest on it need it.
///
/// What is left out, and why: of settings, counters (`stat`), the number of tracked connections and the keys and seeds that
/// the kernel draws itself, and whatever is not below `net`, which is read-only in a lab and the machine's own; of addresses,
/// how long they are still valid; of mounts, numbers that the kernel gives.
const SECTIONS: &[(&str, &str)] = &[
    ("rules", "nft list ruleset 2>/dev/null"),
    ("qdiscs", "tc qdisc show 2>/dev/null"),
    (
        "filters",
        "for d in /proc/sys/net/ipv4/conf/*; do for w in '' ingress egress; do tc filter show dev ${d##*/} $w 2>/dev/null; done; done",
    ),
    ("links", "ip -o link show 2>/dev/null"),
    ("addresses", "ip -o address show 2>/dev/null | sed 's/valid_lft.*//'"),
    (
        "routes",
        "ip route show table all 2>/dev/null; ip -6 route show table all 2>/dev/null; ip neighbour show nud permanent 2>/dev/null",
    ),
    ("policies", "ip rule show 2>/dev/null; ip -6 rule show 2>/dev/null"),
    (
        "settings",
        "uname -n; cd /proc/sys/net && find . -type f -not -name '*stat*' | sort | xargs grep -s '' | grep -v -e /netfilter/nf_conntrack_count -e '/route/gc' -e random",
    ),
    ("mounts", "cut -d' ' -f4- /proc/self/mountinfo"),
    (
        "cgroups",
        "cd /sys/fs/cgroup 2>/dev/null && find . -type d | sort && find . -name cgroup.freeze -o -name cgroup.type -o -name cgroup.subtree_control -o -name '*.max' -o -name '*.weight' | sort | xargs -r grep -s ''",
    ),
    ("queues", "cut -c1-6 /proc/net/netfilter/nfnetlink_queue 2>/dev/null"),
];

/// Words of which a rule that does something to packets has at least one,
/// as the tests write them; the agent's table without a fault has none.
pub(crate) const HARMFUL: &[&str] = &["drop", "queue", "QUEUE", "xt ", "10.77", "5432", "7007"];

impl Dump {
    /// Looks at a host: one shell prints all sections, since looking must be quick enough to do it thousands of times.
    pub(crate) fn of(rig: &Rig, host: &str) -> Self {
        Self::with(rig, host, &[])
    }

    /// The same, with all files in these places too.
    pub(crate) fn with(rig: &Rig, host: &str, places: &[&str]) -> Self {
        let script: String =
            SECTIONS.iter().map(|(name, script)| format!("echo '{MARK}{name}'; ({script})\n")).collect();
        let said = rig.say(host, Program::new("sh").args(["-c", &script])).out;
        let parts = said.split(MARK).skip(1).map(|part| part.split_once('\n').unwrap_or((part, "")));
        let told: BTreeMap<&str, &str> = parts.collect();
        let mut sections: BTreeMap<&'static str, String> = SECTIONS
            .iter()
            .map(|(name, _)| *name)
            .map(|name| (name, (*told.get(name).unwrap_or_else(|| panic!("no section {name}"))).to_owned()))
            .collect();
        let but: Vec<String> = UNLIKE.iter().map(|(path, _)| format!("-{path}")).collect();
        let words: Vec<&str> = ["inventory"]
            .into_iter()
            .chain(PLACES.iter().copied())
            .chain(places.iter().copied())
            .chain(but.iter().map(String::as_str))
            .collect();
        let told = rig.say(host, part(&words)).good().json().remove(0);
        let lines = |what: &str| told[what].as_array().expect("lines").clone();
        let files: Vec<String> = lines("files").iter().map(|line| line.as_str().expect("text").to_owned()).collect();
        sections.insert("files", files.join("\n"));
        sections.insert("processes", processes(&lines("processes")));
        Self { host: host.to_owned(), sections, clock_ns: told["clockNs"].as_i64().expect("a number") }
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
        let moved = Duration::from_nanos(self.clock_ns.abs_diff(other.clock_ns));
        if moved > CLOCK_TOLERANCE {
            all.insert("clock", vec![format!("the time of day moved by {moved:?}")]);
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

/// Command lines, states and what else a fault could change of a process, without numbers: workers would show. A looker
/// is left out, and a process that died but was not reaped yet: it is no residue of a fault.
fn processes(all: &[Value]) -> String {
    let mut lines: Vec<String> = all
        .iter()
        .filter(|process| process["state"] != "Z" && !process["command"].to_string().contains("\"inventory\""))
        .map(|process| {
            let stopped = ["t", "T"].iter().any(|state| process["state"] == *state);
            format!(
                "{} {} {} nice {} oom {} cgroup {}{}",
                process["name"],
                process["command"],
                if stopped { "stopped" } else { "" },
                process["nice"],
                process["oom"],
                process["cgroup"],
                if process["tracer"] == 0 { "" } else { " traced" },
            )
        })
        .collect();
    lines.sort();
    // Of equal lines each counts.
    let nth = |n: usize| lines[..n].iter().filter(|line| **line == lines[n]).count();
    (0..lines.len()).map(|n| format!("{} {}\n", nth(n), lines[n])).collect()
}

/// A section, what makes it another, and what makes it itself again. Where a file is changed, each thing that can be
/// asked of one is a plant of its own; the last shell puts all of it back.
const PLANTS: &[(&str, &str, &str)] = &[
    ("rules", "nft add table inet residue", "nft delete table inet residue"),
    ("qdiscs", "tc qdisc add dev eth0 handle 7: root pfifo", "tc qdisc del dev eth0 root"),
    (
        "filters",
        "tc qdisc add dev eth0 clsact; tc filter add dev eth0 egress bpf bytecode '1,6 0 0 0,'",
        "tc qdisc del dev eth0 clsact",
    ),
    ("links", "ip link add residue type ifb", "ip link del residue"),
    ("links", "ip link set lo txqueuelen 7", "ip link set lo txqueuelen 1000"),
    ("links", "ip link set lo mtu 1400", "ip link set lo mtu 65536"),
    ("addresses", "ip address add 10.99.0.1/24 dev eth0", "ip address del 10.99.0.1/24 dev eth0"),
    ("routes", "ip route add 10.98.0.0/16 dev eth0", "ip route del 10.98.0.0/16"),
    ("routes", "ip -6 route add fd98::/64 dev eth0", "ip -6 route del fd98::/64 dev eth0"),
    ("policies", "ip rule add from 10.97.0.0/16 table 7", "ip rule del from 10.97.0.0/16 table 7"),
    ("settings", "echo 0 > /proc/sys/net/ipv4/tcp_sack", "echo 1 > /proc/sys/net/ipv4/tcp_sack"),
    ("mounts", "mount -i -n -t tmpfs residue /dev/shm", "umount -i -n /dev/shm"),
    ("files", "touch /tmp/residue", "rm /tmp/residue"),
    ("files", "printf CONTENT > /tmp/file; touch -r /tmp/was /tmp/file", "printf content > /tmp/file"),
    ("files", "chmod 4640 /tmp/file", "chmod 640 /tmp/file"),
    ("files", "touch -m -d 2002-02-02 /tmp/file", "true"),
    ("files", "touch -a -d 2003-03-03 /tmp/file", "true"),
    ("files", "ln /tmp/file /tmp/file.too", "rm /tmp/file.too"),
    ("files", "ln -sfn elsewhere /tmp/link", "ln -sfn file /tmp/link"),
    ("files", "mkdir -m 700 /tmp/folder/below", "rmdir /tmp/folder/below"),
    ("files", "chmod 711 /tmp/folder", "chmod 755 /tmp/folder"),
];

fn planted_residue_is_found() {
    let rig = Rig::bare(&["box"]);
    rig.shell(
        "box",
        "cd /tmp; for f in file was marked again; do printf content > $f; chmod 640 $f; touch -d 2001-02-03 $f; done; \
         ln -s file link; mkdir -m 755 folder",
    );
    let before = Dump::of(&rig, "box");
    Dump::of(&rig, "box").expect_same(&before);
    for (section, plant, clear) in PLANTS {
        rig.shell("box", plant);
        let planted = Dump::of(&rig, "box");
        before.expect_change(&planted, section);
        rig.shell("box", &format!("{clear}; touch -r /tmp/was /tmp/file"));
        Dump::of(&rig, "box").expect_same(&before);
    }
    // An owner needs other users, which an ordinary user's lab has not.
    if rustix::process::geteuid().is_root() {
        rig.shell("box", "chown 12:34 /tmp/file");
        before.expect_change(&Dump::of(&rig, "box"), "files");
        rig.shell("box", "chown 0:0 /tmp/file; chmod 640 /tmp/file");
        Dump::of(&rig, "box").expect_same(&before);
    }
    // A queue that somebody holds, a process more, one that is stopped, one that gives way to others.
    let queue = rig.go("box", "bind-queue", part(&["bind-queue"])).ready();
    before.expect_change(&Dump::of(&rig, "box"), "queues");
    queue.kill();
    let resting = rig.go("box", "rest", part(&["rest", "residue"])).ready();
    let rests = Dump::of(&rig, "box");
    before.expect_change(&rests, "processes");
    resting.signal(rustix::process::Signal::STOP);
    rests.expect_change(&Dump::of(&rig, "box"), "processes");
    resting.signal(rustix::process::Signal::CONT);
    Dump::of(&rig, "box").expect_same(&rests);
    rig.shell("box", &format!("renice -n 5 {} >/dev/null", resting.pid()));
    rests.expect_change(&Dump::of(&rig, "box"), "processes");
    resting.kill();
    Dump::of(&rig, "box").expect_same(&before);
    // What cannot be taken back comes last: an attribute, and a file that is another one, alike in all but its number.
    // In memory, the first is known since Linux 6.6, and the second to root.
    let mark = |name: &str| rig.read("box", part(&["mark", "/tmp/marked", name, "x"])).contains("true");
    assert!(mark("user.residue") || mark("trusted.residue"), "no extended attributes here");
    let marked = Dump::of(&rig, "box");
    before.expect_change(&marked, "files");
    rig.shell("box", "cd /tmp; rm again; printf content > again; chmod 640 again; touch -r was again");
    marked.expect_change(&Dump::of(&rig, "box"), "files");
}

fn planted_cgroup_is_found() {
    let rig = Rig::bare(&["box"]);
    let before = Dump::of(&rig, "box");
    for (plant, clear) in [
        ("mkdir /sys/fs/cgroup/residue", ""),
        ("mkdir /sys/fs/cgroup/residue; echo 1 > /sys/fs/cgroup/residue/cgroup.freeze", ""),
    ] {
        rig.shell("box", plant);
        before.expect_change(&Dump::of(&rig, "box"), "cgroups");
        rig.shell("box", &format!("{clear} rmdir /sys/fs/cgroup/residue"));
        Dump::of(&rig, "box").expect_same(&before);
    }
}

/// Nobody may set the clock of a lab, which is the machine's. So it is the looker whose clock since boot is another.
fn planted_clock_is_found() {
    let rig = Rig::bare(&["box"]);
    let before = Dump::of(&rig, "box");
    let mut after = Dump::of(&rig, "box");
    after.expect_same(&before);
    // Its program is standard input: other ways to it are barred in there.
    let words = ["--user", "--map-root-user", "--time", "--boottime", "1", "--fork", "--", "/proc/self/fd/0"];
    let this = std::fs::File::open("/proc/self/exe").expect("this program");
    let looker =
        Program::new("unshare").stdin(Stream::File(this.into())).args(words).args([MARK_OF_PARTS, "inventory"]);
    let told = rig.say("box", looker).good().json().remove(0);
    after.clock_ns = told["clockNs"].as_i64().expect("a number");
    before.expect_change(&after, "clock");
}

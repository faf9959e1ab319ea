//! What others made on a host, before a fault and while it lasts, is the same to the last byte when the fault is gone,
//! whether it ended in order or its agent was killed. Everything of theirs is made by foreign tools.

use std::fmt::Write as _;

use fracas_sim::{lab::Stream, need::Need};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{
    residue::Dump,
    rig::{Going, Rig, until},
    stage::part,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let needs = &[
        Need::Lab,
        Need::Program("nft"),
        Need::Program("tc"),
        Need::Program("ip"),
        Need::Program("iptables-nft"),
        Need::Program("sleep"),
    ];
    vec![trial("what_others_made_is_as_they_left_it", needs, what_others_made_is_as_they_left_it)]
}

/// All faults that touch something others may touch too, at the same time.
const DOCUMENT: &str = r#"
apiVersion: fracas/v1
kind: Experiment
name: everything
targets: { box: { select: "role=box" } }
timeline:
  - { id: in, at: 0s, fault: { net-delay: { delay: 20ms, ports: [7007] } }, target: box, for: LENGTH }
  - { id: out, at: 0s, fault: { net-loss: { percent: 50%, ports: [7008], direction: egress } }, target: box, for: LENGTH }
  - { id: load, at: 0s, fault: { cpu-load: { percent: 5%, cores: 1 } }, target: box, for: LENGTH }
  - { id: pause, at: 0s, fault: { process-pause: { name: crew } }, target: box, for: LENGTH }
  - { id: file, at: 0s, fault: { file-replace: { path: /run/site/one, content: other } }, target: box, for: LENGTH }
  - { id: fill, at: 0s, fault: { disk-fill: { path: /tmp, size: 5MiB } }, target: box, for: LENGTH }
recovery: { stableFor: 1s, giveUpAfter: 2s }
lease: 6s
"#;

/// Something of theirs: a script that makes it, and one that prints it. What this kernel does not know is told and left
/// out; `must` is what every kernel has on which the tests run.
struct Thing {
    name: &'static str,
    must: bool,
    make: &'static str,
    show: &'static str,
    clear: &'static str,
}

const fn thing(name: &'static str, make: &'static str, show: &'static str, clear: &'static str) -> Thing {
    Thing { name, must: true, make, show, clear }
}

const fn maybe(name: &'static str, make: &'static str, show: &'static str, clear: &'static str) -> Thing {
    Thing { name, must: false, make, show, clear }
}

/// Stands for [`tables`].
const TABLE: &str = "TABLES";

/// Tables at the hooks that faults use, at the same priorities and right beside them.
fn tables(who: &str) -> String {
    let mut text = String::from("nft -f - <<'END'\n");
    for family in ["inet", "ip", "ip6", "netdev"] {
        writeln!(text, "add table {family} {who}").expect("text");
    }
    for priority in [-301, -300, -299, -151, -150, -149, 0, 300] {
        for hook in ["prerouting", "input", "forward", "output", "postrouting"] {
            let chain = format!("inet {who} {hook}{}", priority + 1000);
            writeln!(text, "add chain {chain} {{ type filter hook {hook} priority {priority}; policy accept; }}")
                .expect("text");
            writeln!(text, "add rule {chain} tcp dport 9999 drop\nadd rule {chain} udp dport 7007 accept")
                .expect("text");
        }
    }
    writeln!(text, "add chain netdev {who} in {{ type filter hook ingress device eth0 priority 0; }}").expect("text");
    writeln!(text, "add rule netdev {who} in udp dport 9998 drop").expect("text");
    writeln!(text, "add set inet {who} some {{ type ipv4_addr; flags interval; }}").expect("text");
    writeln!(text, "add element inet {who} some {{ 10.1.0.0/16, 10.2.0.1 }}\nEND").expect("text");
    text
}

const SHOW_TABLE: &str = "for f in inet ip ip6 netdev; do nft -a list table $f WHO; done";
const CLEAR_TABLE: &str = "for f in inet ip ip6 netdev; do nft delete table $f WHO; done";

/// What there is before a fault.
const BEFORE: &[Thing] = &[
    thing("tables", TABLE, SHOW_TABLE, CLEAR_TABLE),
    thing(
        "rules of iptables",
        "iptables-nft -A INPUT -p udp --dport 9997 -j DROP; iptables-nft -A OUTPUT -p udp --dport 9997 -j ACCEPT; iptables-nft -t mangle -A POSTROUTING -p tcp --dport 9997 -j MARK --set-mark 7; ip6tables-nft -A OUTPUT -p udp --dport 9997 -j DROP",
        "iptables-nft-save | grep -v '^[#:]'; ip6tables-nft-save | grep -v '^[#:]'; nft -a list table ip filter; nft -a list table ip6 filter",
        "",
    ),
    thing(
        "htb as root, with classes and leaves",
        "tc qdisc add dev eth0 root handle 1: htb default 10; tc class add dev eth0 parent 1: classid 1:10 htb rate 1gbit; \
         tc class add dev eth0 parent 1: classid 1:20 htb rate 500mbit ceil 1gbit; tc qdisc add dev eth0 parent 1:20 handle 20: pfifo limit 100",
        "tc qdisc show dev eth0 | grep -v clsact; tc class show dev eth0",
        "",
    ),
    thing(
        "a filter by u32 on it",
        "tc filter add dev eth0 parent 1: protocol ip prio 5 u32 match ip dport 9996 0xffff flowid 1:20",
        "tc filter show dev eth0 parent 1:",
        "",
    ),
    maybe(
        "fq_codel",
        "ip link add codel0 type ifb; ip link set codel0 up; tc qdisc add dev codel0 root handle 7: fq_codel limit 500 target 7ms",
        "tc qdisc show dev codel0 | grep -v clsact",
        "",
    ),
    maybe(
        "mq",
        "ip link add mq0 numtxqueues 4 type ifb; ip link set mq0 up; tc qdisc add dev mq0 root handle 8: mq",
        "tc qdisc show dev mq0 | grep -v clsact",
        "",
    ),
    maybe(
        "netem of theirs",
        "ip link add netem0 type ifb; ip link set netem0 up; tc qdisc add dev netem0 root handle 9: netem delay 7ms 1ms",
        "tc qdisc show dev netem0 | grep -v clsact",
        "",
    ),
    thing(
        "a clsact with filters both ways",
        "ip link add theirs0 type ifb; ip link set theirs0 up; tc qdisc add dev theirs0 clsact; for w in ingress egress; do \
         tc filter add dev theirs0 $w prio 10 bpf bytecode '1,6 0 0 0,'; tc filter add dev theirs0 $w prio 20000 bpf bytecode '1,6 0 0 0,'; done",
        "tc qdisc show dev theirs0; for w in ingress egress; do tc filter show dev theirs0 $w prio 10; tc filter show dev theirs0 $w prio 20000; done",
        "",
    ),
    thing(
        "addresses, routes and rules",
        "ip address add 10.91.0.1/24 dev theirs0; ip route add 10.92.0.0/16 via 10.77.0.1; ip rule add from 10.93.0.0/16 table 93; ip -6 rule add from fd93::/64 table 93",
        "ip address show dev theirs0 | grep 10.91; ip route show 10.92.0.0/16; ip rule show; ip -6 rule show",
        "",
    ),
    thing(
        "settings",
        "echo 0 > /proc/sys/net/ipv4/tcp_sack; echo 33 > /proc/sys/net/ipv4/ip_default_ttl; ip link set eth0 txqueuelen 123",
        "cat /proc/sys/net/ipv4/tcp_sack /proc/sys/net/ipv4/ip_default_ttl; ip -o link show eth0",
        "",
    ),
    maybe(
        "a cgroup",
        "mkdir -p /sys/fs/cgroup/theirs/below; echo 1 > /sys/fs/cgroup/theirs/below/cgroup.freeze",
        "find /sys/fs/cgroup/theirs -type d | sort; cat /sys/fs/cgroup/theirs/below/cgroup.freeze",
        "",
    ),
    thing(
        "files beside the one that is replaced",
        "printf 1 > /run/site/.one.swp; printf 2 > /run/site/.fracas-of-somebody-else; mkdir -m 700 /run/site/folder",
        "cd /run/site; stat -c '%n %i %a %u %g %s %y %h' .one.swp .fracas-of-somebody-else folder; cat .one.swp .fracas-of-somebody-else",
        "",
    ),
    maybe(
        "NFQUEUE rules",
        "iptables-nft -t raw -A PREROUTING -p udp --dport 9995 -j NFQUEUE --queue-num 4242 --queue-bypass",
        "iptables-nft-save -t raw | grep -v '^[#:]'",
        "",
    ),
];

/// What comes while faults are there.
const DURING: &[Thing] = &[
    thing("more tables", TABLE, SHOW_TABLE, CLEAR_TABLE),
    thing(
        "more rules of iptables",
        "iptables-nft -I INPUT -p udp --dport 9994 -j DROP; iptables-nft -I OUTPUT -p udp --dport 9994 -j ACCEPT",
        "iptables-nft-save | grep 9994",
        "iptables-nft -D INPUT -p udp --dport 9994 -j DROP; iptables-nft -D OUTPUT -p udp --dport 9994 -j ACCEPT",
    ),
    thing(
        "another class and its leaf",
        "tc class add dev eth0 parent 1: classid 1:30 htb rate 300mbit; tc qdisc add dev eth0 parent 1:30 handle 30: pfifo limit 30",
        "tc class show dev eth0 classid 1:30; tc qdisc show dev eth0 | grep ' 30:'",
        "tc qdisc del dev eth0 parent 1:30; tc class del dev eth0 classid 1:30",
    ),
    thing(
        "more filters on their clsact",
        "for w in ingress egress; do tc filter add dev theirs0 $w prio 30 bpf bytecode '1,6 0 0 0,'; done",
        "for w in ingress egress; do tc filter show dev theirs0 $w prio 30; done",
        "for w in ingress egress; do tc filter del dev theirs0 $w prio 30; done",
    ),
    thing(
        "a file",
        "printf 3 > /run/site/during; ln /run/site/during /run/site/during.too",
        "stat -c '%n %i %a %s %y %h' /run/site/during",
        "rm /run/site/during /run/site/during.too",
    ),
    thing(
        "a route",
        "ip route add 10.94.0.0/16 dev theirs0",
        "ip route show 10.94.0.0/16",
        "ip route del 10.94.0.0/16",
    ),
    maybe(
        "a cgroup",
        "mkdir /sys/fs/cgroup/theirs/during",
        "ls -d /sys/fs/cgroup/theirs/during",
        "rmdir /sys/fs/cgroup/theirs/during",
    ),
    thing(
        "a device with a qdisc",
        "ip link add during0 type ifb; ip link set during0 up; tc qdisc add dev during0 root handle 5: pfifo limit 17",
        "tc qdisc show dev during0 | grep -v clsact; ip -o link show during0",
        "ip link del during0",
    ),
];

/// Their things of one time, those that this kernel knows.
struct Theirs {
    who: String,
    things: Vec<&'static Thing>,
}

impl Theirs {
    fn make(rig: &Rig, who: &str, things: &'static [Thing]) -> Self {
        let mut made = Vec::new();
        for thing in things {
            let said = rig.say("box", script(&format!("set -e; {}", thing.make.replace(TABLE, &tables(who)))));
            if said.code == 0 {
                made.push(thing);
            } else {
                assert!(!thing.must, "{}: {}", thing.name, said.text());
                eprintln!("this kernel or lab has no {}: {}", thing.name, said.err.trim());
            }
        }
        Self { who: who.to_owned(), things: made }
    }

    fn shown(&self, rig: &Rig) -> String {
        let mut all = String::new();
        for thing in &self.things {
            let said = rig.say("box", script(&format!("set -e; {}", thing.show.replace("WHO", &self.who))));
            assert_eq!(said.code, 0, "{}: {}", thing.name, said.text());
            assert!(!said.out.trim().is_empty(), "{} shows nothing", thing.name);
            writeln!(all, "=== {}\n{}", thing.name, said.out).expect("text");
        }
        all
    }

    fn clear(&self, rig: &Rig) {
        for thing in self.things.iter().rev() {
            rig.shell("box", &format!("set -e; {}", thing.clear.replace("WHO", &self.who)));
        }
    }
}

/// To the last byte; tells the lines that are not.
fn same(was: &str, is: &str, when: &str) {
    let lines: Vec<_> = was.lines().zip(is.lines()).filter(|(was, is)| was != is).take(10).collect();
    assert!(was == is, "{when}: not as others left it (was, is): {lines:#?}");
}

fn script(text: &str) -> fracas_sim::lab::Program {
    fracas_sim::lab::Program::new("sh").args(["-c", text])
}

fn what_others_made_is_as_they_left_it() {
    let rig = Rig::bare(&["box"]);
    rig.start_controller();
    rig.shell("box", "mkdir /run/site; printf one > /run/site/one; touch -d 2001-02-03 /run/site/one");
    let crew = rig.go("box", "crew", part(&["rest", "crew"])).ready();
    // A process that they stopped themselves, and one that gives way.
    let stopped = rig.go("box", "stopped", part(&["rest", "stopped"])).ready();
    stopped.signal(Signal::STOP);
    let before = Theirs::make(&rig, "before", BEFORE);
    rig.join("box", &[("role", "box")]);
    rig.until_connected(&["box"]);
    let shown = before.shown(&rig);
    let dump = Dump::of(&rig, "box");
    for ending in ["expired", "stop", "killed", "both killed"] {
        let length = if ending == "expired" { "3s" } else { "1m" };
        let run = rig.begin(&DOCUMENT.replace("LENGTH", length), &[]);
        for entry in ["in", "out", "load", "pause", "file", "fill"] {
            run.event_with("active", |body| body["item"]["entry"] == entry);
        }
        same(&shown, &before.shown(&rig), &format!("{ending}: with faults there"));
        let during = Theirs::make(&rig, "during", DURING);
        let resting = rig.go("box", "during", part(&["rest", "during"]).stdin(Stream::Null)).ready();
        let shown_during = during.shown(&rig);
        end(&rig, &run, ending);
        rig.until_connected(&["box"]);
        let run = rig.finish(run);
        assert!(!run.reasons().contains("superseded"), "{}", run.story());
        until("the crew goes on", || rig.process("box", crew.pid()).is_some_and(|it| it["state"] == "S"));
        same(&shown_during, &during.shown(&rig), ending);
        assert!(rig.process("box", stopped.pid()).is_some_and(|it| it["state"] == "T"), "they had stopped it");
        assert!(rig.process("box", resting.pid()).is_some_and(|it| it["state"] == "S"));
        resting.kill();
        during.clear(&rig);
        same(&shown, &before.shown(&rig), ending);
        Dump::of(&rig, "box").expect_no_fault(&dump);
        eprintln!(
            "{ending}: {} things from before and {} from meanwhile are the same",
            before.things.len(),
            during.things.len()
        );
    }
    rig.stop();
}

fn end(rig: &Rig, run: &Going, ending: &str) {
    match ending {
        "expired" => _ = run.event_with("undone", |body| body["item"]["entry"] == "file"),
        "stop" => run.interrupt(),
        _ => {
            if ending == "both killed" {
                let guard = rig.processes("box").into_iter().find(|it| it["name"] == "fracas-guard").expect("a guard");
                rig.shell("box", &format!("kill -9 {}", guard["pid"]));
            }
            rig.signal_agent("box", Signal::KILL);
            rig.end_agent("box", crate::rig::LIMIT);
            rig.start_agent("box");
        }
    }
}

//! Everything about a host's network that a fault might leave behind, as text to be compared. Changes nothing.

use std::{collections::BTreeMap, fs, process::Command};

use fracas_agent::host::netlink::{
    Protocol, Socket,
    link::Links,
    message::Message,
    traffic::{Hook, Traffic},
};

/// Sections by name; each a list of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dump(pub(crate) BTreeMap<&'static str, Vec<String>>);

impl Dump {
    /// Of the network namespace of this process.
    pub(crate) fn take() -> Self {
        let mut all = BTreeMap::new();
        let links = Links::open().and_then(|mut l| l.list()).expect("devices");
        all.insert("links", links.iter().map(|l| format!("{l:?}")).collect());
        let mut traffic = Traffic::open().expect("netlink");
        // What they counted is not compared: traffic goes on.
        let qdiscs = traffic.disciplines().expect("qdiscs");
        let qdisc = |d: &fracas_agent::host::netlink::traffic::Discipline| {
            format!("{} {:x} {:x} {} {} {:?}", d.index, d.handle, d.parent, d.kind, d.marked, d.netem)
        };
        all.insert("qdiscs", qdiscs.iter().map(qdisc).collect());
        let mut filters = Vec::new();
        for link in &links {
            for hook in [Hook::Ingress, Hook::Egress] {
                for f in traffic.filters(link.index, hook).expect("filters") {
                    filters
                        .push(format!("{} {hook:?} {} {} {} {:?}", link.name, f.priority, f.handle, f.kind, f.target));
                }
            }
        }
        all.insert("filters", filters);
        // NFT_MSG_GETTABLE, GETCHAIN, GETRULE of all families.
        let mut nft = Vec::new();
        for kind in [1, 4, 7] {
            let list =
                Socket::open(Protocol::Netfilter).and_then(|mut s| s.dump(&Message::new(10 << 8 | kind, 0, &[0; 4])));
            nft.extend(list.expect("nftables").iter().map(|r| format!("{} {:?}", r.kind, r.body)));
        }
        all.insert("nftables", nft);
        let queues = fs::read_to_string("/proc/self/net/netfilter/nfnetlink_queue").unwrap_or_default();
        all.insert("queues", queues.lines().map(str::to_owned).collect());
        // Foreign eyes, where they are installed.
        for (name, program, arguments) in [
            ("ip link", "ip", &["-d", "link", "show"][..]),
            ("tc qdisc", "tc", &["-d", "qdisc", "show"]),
            ("nft", "nft", &["list", "ruleset"]),
        ] {
            if let Ok(done) = Command::new(program).args(arguments).output() {
                assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
                all.insert(name, String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect());
            }
        }
        Self(all)
    }

    /// Sections that differ, with what is only in one of them.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, mine) in &self.0 {
            let theirs = &other.0[name];
            let only = |a: &Vec<String>, b: &Vec<String>| {
                a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>().join("; ")
            };
            if mine != theirs {
                found.push(format!("{name}: gone {{{}}} new {{{}}}", only(mine, theirs), only(theirs, mine)));
            }
        }
        found
    }
}

//! What will be done to a host, as data: a plan is a list of steps from a closed vocabulary, each with a known inverse.

use serde::{Deserialize, Serialize};

use crate::{
    facts::{FileMark, Space},
    process::ProcessRef,
    units::{Dur, Percent, Size},
};

/// What a fault does on one host. Dry run prints it, the journal stores it, undo runs it backwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// In order of applying.
    pub steps: Vec<Step>,
    /// What it occupies; overlapping claims of two items are refused.
    pub claims: Vec<Claim>,
    /// How to see from outside that it works.
    pub check: Check,
    /// One sentence for people, without volatile numbers.
    pub summary: String,
}

/// How a step ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The kernel ends it with its holder, a worker process.
    Held,
    /// It stays until its inverse is run; journalled and fsynced first.
    Reversible,
    /// One-shot; nothing to undo, never repeated.
    Spent,
}

/// One change to a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Held: a worker burns processor time.
    Burn(Burn),
    /// Held: a worker holds disk space by a file that has no name.
    Fill(Fill),
    /// Held: the network worker delays or drops packets by rules in its own owner table.
    Impair(Impair),
    /// Held: a worker seizes the process with ptrace and keeps all its threads stopped.
    Seize {
        /// Who is stopped.
        process: ProcessRef,
    },
    /// Reversible: SIGSTOP, undone by SIGCONT.
    Suspend {
        /// Who is stopped.
        process: ProcessRef,
    },
    /// Reversible: make an `ifb` device and set it up; undone by deleting it by name, if its alias is still ours.
    MakeIfb {
        /// Device name, `frc<slot>`.
        name: String,
    },
    /// Reversible: netem as root qdisc of our own ifb; what it holds is let go when its time is up, then it is removed.
    MakeNetem {
        /// Our ifb.
        device: String,
        /// What netem does.
        effect: Effect,
        /// Packets it may hold.
        limit_packets: u32,
    },
    /// Reversible: a clsact qdisc on a device, one step per device; undone only if an agent made it and nobody uses it.
    MakeClsact {
        /// The device.
        device: String,
    },
    /// Reversible: a filter on a clsact that sends matching packets through our ifb; undone by handle.
    ///
    /// What comes back from an ifb is not looked at again by the filters of that hook, so of several redirects that
    /// match a packet only the one of lowest priority number has an effect. One step per device; where devices are
    /// stacked (a bridge and its ports, a VLAN and what carries it) a packet meets each of them that is redirected.
    Redirect {
        /// The device whose packets are caught.
        device: String,
        /// Our ifb.
        to: String,
        /// Which way.
        direction: Direction,
        /// Which packets.
        filter: Filter,
        /// Priority of our filter on that hook, ours alone.
        priority: u16,
    },
    /// Reversible: filters on a clsact that drop matching packets by chance, silently, and pass the others on to the
    /// filters behind; undone by handle. With a lower priority number than the redirects of the same hook, loss and
    /// delay act on one packet.
    Lose {
        /// The device whose packets are lost.
        device: String,
        /// Which way.
        direction: Direction,
        /// Which packets.
        filter: Filter,
        /// The chance.
        percent: Percent,
        /// Priority of our filters on that hook, ours alone.
        priority: u16,
    },
    /// Reversible: another file takes the place of a file, which is kept beside it; undone by putting the very same file
    /// back, if nobody changed what stands in its place.
    Replace(Replace),
    /// Reversible: stop a systemd unit that is active; undone by starting it.
    StopUnit {
        /// Its full name: `nginx.service`.
        unit: String,
    },
    /// Spent: a signal, once.
    Signal {
        /// To whom.
        process: ProcessRef,
        /// Signal number.
        signal: i32,
        /// Its name, `KILL`.
        signal_name: String,
    },
}

/// How processor time is burned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Burn {
    /// How much of each core.
    pub percent: Percent,
    /// Whether `percent` counts everybody's use (`Total`) or only what is added (`Added`).
    pub mode: BurnMode,
    /// Core numbers; one thread each.
    pub cores: Vec<u32>,
}

/// What the asked percentage counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BurnMode {
    /// All use of the core is brought up to the percentage.
    Total,
    /// The percentage is added to what others use.
    Added,
}

/// A network fault as rules of the network worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Impair {
    /// Which way.
    pub direction: Direction,
    /// Which packets.
    pub filter: Filter,
    /// What happens to them.
    pub effect: Effect,
    /// Only packets of this device; all but loopback when absent.
    pub device: Option<String>,
}

/// Delay and loss of one fault; netem and the kernel-owned plane mean the same by it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// Each packet is held for a time drawn evenly from `delay - jitter ..= delay + jitter`.
    Delay {
        /// The middle.
        delay: Dur,
        /// Half the spread.
        jitter: Dur,
    },
    /// Each packet is dropped silently with this chance.
    Loss {
        /// The chance.
        percent: Percent,
    },
}

/// How much of a file system is taken away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fill {
    /// A directory of the file system, without any symbolic link.
    pub directory: String,
    /// How far.
    pub goal: FillGoal,
    /// What stays free for programs without privilege at least, also when others write meanwhile.
    pub reserve: Size,
}

/// How far a file system is filled. Used and left are what `df` prints: space that only root may use counts as neither.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FillGoal {
    /// Until this share is used.
    Used(Percent),
    /// By so much.
    Size(Size),
    /// Until so much is left.
    Left(Size),
}

/// A file that another one stands in for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replace {
    /// Absolute path without any symbolic link.
    pub path: String,
    /// What the file reads while it is replaced.
    pub content: String,
    /// What tells the original from any other file.
    pub was: FileMark,
}

/// Which way packets go, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Packets that come in.
    Ingress,
    /// Packets that leave.
    Egress,
}

/// Which packets a network fault means. Empty lists mean any; exemptions always win.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Networks of the far end (`10.0.0.0/8`, `fd00::/8`), normalised and sorted.
    pub remotes: Vec<String>,
    /// Inclusive port ranges, matched at either end; normalised and sorted.
    pub ports: Vec<(u16, u16)>,
    /// Transport; any when absent.
    pub protocol: Option<Protocol>,
    /// Far ends that always pass: (network, port of the far end or 0 for any).
    pub pass_remotes: Vec<(String, u16)>,
    /// Ports at either end that always pass.
    pub pass_ports: Vec<u16>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6 (neighbour discovery always passes).
    Icmp,
}

/// What a plan occupies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Claim {
    /// A process.
    Process(i32),
    /// The load of a core.
    Core(u32),
    /// A file, by its path without any symbolic link.
    File(String),
    /// A systemd unit.
    Unit(String),
    /// The free space of a file system, by the number of its device.
    Space(String),
    /// One dimension of matching packets.
    Network {
        /// Which way.
        direction: Direction,
        /// Which packets.
        filter: Filter,
        /// `delay` or `loss`.
        dimension: String,
        /// Only on this device; on every one when absent.
        #[serde(default)]
        device: Option<String>,
    },
}

/// How the effect is seen from outside the mechanism.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Check {
    /// The worker's processor time, read from /proc by the agent.
    CpuUse {
        /// Asked, per core.
        percent: Percent,
        /// The cores.
        cores: Vec<u32>,
        /// Total or added.
        mode: BurnMode,
    },
    /// These processes are gone.
    Gone {
        /// Who.
        processes: Vec<ProcessRef>,
    },
    /// The signal was taken.
    Delivered {
        /// Who.
        processes: Vec<ProcessRef>,
        /// Signal number.
        signal: i32,
    },
    /// All threads of these processes are stopped.
    Stopped {
        /// Who.
        processes: Vec<ProcessRef>,
    },
    /// A systemd unit stands still.
    UnitStopped {
        /// Its full name.
        unit: String,
    },
    /// A file system is as full as was asked.
    DiskUse(Fill),
    /// Whoever opens the file reads this.
    Content {
        /// The file.
        path: String,
        /// All of it.
        content: String,
    },
    /// Packets are really held or lost.
    Packets {
        /// Which way.
        direction: Direction,
        /// Which packets.
        filter: Filter,
        /// What was asked.
        effect: Effect,
    },
}

/// Why a request cannot be honoured; returned before anything changes, shown word for word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{why}; {instead}")]
pub struct Refusal {
    /// What is wrong, naming the object.
    pub why: String,
    /// What to do instead.
    pub instead: String,
}

impl Refusal {
    /// A refusal and its way out.
    pub fn new(why: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { why: why.into(), instead: instead.into() }
    }
}

impl Step {
    /// How this step ends.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Burn(_) | Self::Fill(_) | Self::Impair(_) | Self::Seize { .. } => Kind::Held,
            Self::Suspend { .. }
            | Self::MakeIfb { .. }
            | Self::MakeNetem { .. }
            | Self::MakeClsact { .. }
            | Self::Redirect { .. }
            | Self::Lose { .. }
            | Self::Replace(_)
            | Self::StopUnit { .. } => Kind::Reversible,
            Self::Signal { .. } => Kind::Spent,
        }
    }
}

impl FillGoal {
    /// How many bytes must be added to a file system that is like this; 0 when it is as full as that already.
    pub fn bytes(&self, space: &Space) -> u64 {
        match self {
            Self::Used(percent) => {
                let goal = (percent.0 / 100.0 * space.offered() as f64).round() as u64;
                goal.saturating_sub(space.used())
            }
            Self::Size(size) => size.0,
            Self::Left(size) => space.left_bytes.saturating_sub(size.0),
        }
    }
}

impl Claim {
    /// Whether both cannot hold at once: same process, same core, or the same dimension of packets that may be the same.
    pub fn clashes(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Network { direction, filter, dimension, device },
                Self::Network { direction: d2, filter: f2, dimension: k2, device: on },
            ) => {
                let apart = device.as_ref().zip(on.as_ref()).is_some_and(|(a, b)| a != b);
                direction == d2 && dimension == k2 && !apart && filter.overlaps(f2)
            }
            (a, b) => a == b,
        }
    }
}

impl Filter {
    /// Whether some packet may match both. Exemptions are not counted: they only make it rarer.
    pub fn overlaps(&self, other: &Self) -> bool {
        let protocols = match (self.protocol, other.protocol) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        let ports = self.ports.is_empty()
            || other.ports.is_empty()
            || self.ports.iter().any(|a| other.ports.iter().any(|b| a.0 <= b.1 && b.0 <= a.1))
            // A packet has two ports, so two filters on different ports may still both match one packet;
            // that takes a connection between exactly those two ports, which is let pass as disjoint.
            ;
        let networks = |list: &[String]| list.iter().filter_map(|n| n.parse::<ipnet::IpNet>().ok()).collect::<Vec<_>>();
        let (mine, theirs) = (networks(&self.remotes), networks(&other.remotes));
        let remotes = mine.is_empty()
            || theirs.is_empty()
            || mine.iter().any(|a| theirs.iter().any(|b| a.contains(b) || b.contains(a)));
        protocols && ports && remotes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(remotes: &[&str], ports: &[(u16, u16)]) -> Filter {
        Filter {
            remotes: remotes.iter().map(|r| (*r).to_owned()).collect(),
            ports: ports.to_vec(),
            ..Filter::default()
        }
    }

    #[test]
    fn a_goal_is_counted_as_df_counts() {
        // 1000 in all, 100 of them only for root, 300 used.
        let space = Space { total_bytes: 1000, free_bytes: 700, left_bytes: 600 };
        let bytes = |goal: FillGoal| goal.bytes(&space);
        assert!((space.used_percent() - 100.0 / 3.0).abs() < 0.01);
        assert_eq!(bytes(FillGoal::Used(Percent(100.0))), 600);
        assert_eq!(bytes(FillGoal::Used(Percent(50.0))), 150);
        assert_eq!(bytes(FillGoal::Used(Percent(20.0))), 0);
        assert_eq!((bytes(FillGoal::Size(Size(7))), bytes(FillGoal::Left(Size(50)))), (7, 550));
        assert_eq!(bytes(FillGoal::Left(Size(601))), 0);
    }

    #[test]
    fn disjoint_filters_coexist_and_intersecting_ones_clash() {
        let on = |f: &Filter, dimension: &str, device: Option<&str>| Claim::Network {
            direction: Direction::Ingress,
            filter: f.clone(),
            dimension: dimension.into(),
            device: device.map(str::to_owned),
        };
        let claim = |f: &Filter, dimension: &str| on(f, dimension, None);
        let wide = filter(&["10.0.0.0/8"], &[]);
        let narrow = filter(&["10.1.0.0/16"], &[(5432, 5432)]);
        let other = filter(&["192.168.0.0/16"], &[]);
        assert!(claim(&wide, "delay").clashes(&claim(&narrow, "delay")));
        assert!(!claim(&wide, "delay").clashes(&claim(&narrow, "loss")));
        assert!(!claim(&wide, "delay").clashes(&claim(&other, "delay")));
        assert!(claim(&filter(&[], &[]), "loss").clashes(&claim(&other, "loss")));
        let (eth0, eth1) = (on(&wide, "delay", Some("eth0")), on(&wide, "delay", Some("eth1")));
        assert!(!eth0.clashes(&eth1) && eth0.clashes(&eth0));
        assert!(eth0.clashes(&claim(&narrow, "delay")) && claim(&narrow, "delay").clashes(&eth1));
    }
}

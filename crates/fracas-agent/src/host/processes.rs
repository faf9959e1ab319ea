//! The process table, read from /proc and parsed here; it selects nothing, see `fracas_model::process`.
//!
//! A process may end between two reads; what was read of it until then is dropped, not guessed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use fracas_model::process::{Process, ProcessRef, ProcessSelector};
use fracas_probes::files;

/// `PF_KTHREAD` of `linux/sched.h`, in field 9 of `/proc/PID/stat`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Longest part of a pid file that is read: PostgreSQL writes several lines, the number is the first.
const PID_FILE_BYTES: usize = 4096;

/// What `/proc/PID/stat` or `/proc/PID/task/TID/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `comm`, which may hold spaces and parentheses.
    pub name: String,
    /// One letter, field 3.
    pub state: char,
    /// Parent, field 4.
    pub parent: i32,
    /// Kernel flags, field 9.
    pub flags: u64,
    /// User and system time in clock ticks, fields 14 and 15 added.
    pub cpu_ticks: u64,
    /// Start in clock ticks since boot, field 22.
    pub start_ticks: u64,
}

impl Stat {
    /// Parses one line. The name ends at the *last* parenthesis.
    pub fn parse(line: &str) -> Option<Self> {
        let (open, close) = (line.find('(')?, line.rfind(')')?);
        let name = line.get(open + 1..close)?.to_owned();
        let rest: Vec<&str> = line.get(close + 1..)?.split_ascii_whitespace().collect();
        // `rest` begins with field 3.
        let number = |field: usize| rest.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            name,
            state: rest.first()?.chars().next()?,
            parent: rest.get(1)?.parse().ok()?,
            flags: number(9)?,
            cpu_ticks: number(14)? + number(15)?,
            start_ticks: number(22)?,
        })
    }

    /// Of a process now; `None` when there is none.
    pub fn of(pid: i32) -> Option<Self> {
        Self::read(&format!("/proc/{pid}/stat"))
    }

    /// Of one thread now.
    pub fn of_thread(pid: i32, tid: i32) -> Option<Self> {
        Self::read(&format!("/proc/{pid}/task/{tid}/stat"))
    }

    fn read(path: &str) -> Option<Self> {
        // A name need not be UTF-8.
        Self::parse(&String::from_utf8_lossy(&fs::read(path).ok()?))
    }

    /// It has ended and only waits for its parent to notice.
    pub fn dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// The process `who` as it is now, if it is still the same one and has not ended. Its first thread may have: a process
/// lives for as long as any of its threads does.
pub fn same(who: &ProcessRef) -> Option<Stat> {
    let lives = |tid| Stat::of_thread(who.pid, tid).is_some_and(|s| !s.dead());
    let same = Stat::of(who.pid).filter(|s| s.start_ticks == who.start_ticks)?;
    (!same.dead() || threads(who.pid).into_iter().any(lives)).then_some(same)
}

/// Thread numbers of a process; empty when it is gone.
pub fn threads(pid: i32) -> Vec<i32> {
    numbers(Path::new(&format!("/proc/{pid}/task")))
}

/// One line `KEY:\tVALUE` of a status file.
pub fn status_field(path: &str, key: &str) -> Option<String> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':').map(|v| v.trim().to_owned()))
}

/// All processes, with the ports they listen on when the selector asks for one.
pub fn table(selector: &ProcessSelector) -> io::Result<Vec<Process>> {
    fs::metadata("/proc/self/stat")?;
    let listening = match selector {
        ProcessSelector::Port(_) => listening(),
        _ => BTreeMap::new(),
    };
    Ok(numbers(Path::new("/proc")).into_iter().filter_map(|pid| one(pid, &listening)).collect())
}

fn one(pid: i32, listening: &BTreeMap<u64, u16>) -> Option<Process> {
    let stat = Stat::of(pid)?;
    if stat.dead() {
        return None;
    }
    let base = |path: &str| path.rsplit('/').next().filter(|b| !b.is_empty()).map(str::to_owned);
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
    // The kernel marks a replaced file, which is still the same program to whoever asks for it by name.
    let exe = exe.and_then(|e| base(e.to_string_lossy().trim_end_matches(" (deleted)")));
    let argv0 = fs::read(format!("/proc/{pid}/cmdline")).ok();
    // A program that rewrote its title has no null bytes: `nginx: master process` is then one word up to the space.
    let argv0 = argv0.and_then(|c| {
        let first = c.split(|b| *b == 0).next()?;
        base(String::from_utf8_lossy(first).split(' ').next()?)
    });
    let uid = status_field(&format!("/proc/{pid}/status"), "Uid")?;
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    Some(Process {
        id: ProcessRef { pid, start_ticks: stat.start_ticks, name: stat.name },
        parent: stat.parent,
        exe,
        argv0,
        uid: uid.split_ascii_whitespace().next()?.parse().ok()?,
        kernel: stat.flags & PF_KTHREAD != 0,
        ports: if listening.is_empty() { Vec::new() } else { ports(pid, listening) },
        unit: unit(&cgroup),
    })
}

/// Names in a folder that are numbers, ascending: processes of `/proc`, threads of a process.
pub fn numbers(folder: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<i32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    found
}

/// The systemd unit in the text of a cgroup file: the last component that is a service, of whichever hierarchy has one.
fn unit(cgroup: &str) -> Option<String> {
    let paths = cgroup.lines().filter_map(|l| l.splitn(3, ':').nth(2));
    let services = paths.filter_map(|p| p.rsplit('/').find(|c| c.ends_with(".service")));
    services.map(str::to_owned).next()
}

/// The systemd unit that this process belongs to.
pub fn own_unit() -> Option<String> {
    unit(&fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// Socket inode of each TCP listener of our network namespace, and its port.
fn listening() -> BTreeMap<u64, u16> {
    let files = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let text: String = files.iter().filter_map(|f| fs::read_to_string(f).ok()).collect();
    text.lines().filter_map(listener).collect()
}

fn listener(line: &str) -> Option<(u64, u16)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    // Column 3 is the state, 0A is LISTEN; column 9 the inode. The header line has no such state.
    (*words.get(3)? == "0A").then_some(())?;
    let port = u16::from_str_radix(words.get(1)?.rsplit(':').next()?, 16).ok()?;
    Some((words.get(9)?.parse().ok()?, port))
}

fn ports(pid: i32, listening: &BTreeMap<u64, u16>) -> Vec<u16> {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let inode = |link: &Path| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok();
    let links = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    let found: BTreeSet<u16> = links.filter_map(|l| listening.get(&inode(&l)?).copied()).collect();
    found.into_iter().collect()
}

/// The number on the first line of a pid file. `None` when there is no such file or no number in it.
pub fn pid_in_file(path: &str) -> Option<i32> {
    let (text, _) = files::start(path, PID_FILE_BYTES).ok()?;
    String::from_utf8_lossy(&text).lines().next()?.trim().parse().ok().filter(|pid| *pid > 0)
}

/// All that is read from texts of /proc, for fuzzing: how many things were found in them.
#[cfg(fuzzing)]
pub fn read_text(text: &str) -> usize {
    let lines = text.lines().filter(|line| listener(line).is_some()).count();
    let counts = super::netlink::queue::parse_counts(text).len();
    lines + counts + usize::from(Stat::parse(text).is_some()) + usize::from(unit(text).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 50 60 0 0 20 0 1 0 98765 1 2 3";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.name.as_str(), stat.state, stat.parent), ("a) b (c)", 'S', 7));
        assert_eq!((stat.flags, stat.cpu_ticks, stat.start_ticks), (4_194_560, 110, 98_765));
        for broken in ["", "42", "42 (x", "42 )x( S", "42 (x) S 1 2"] {
            assert_eq!(Stat::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn units_are_found_in_either_hierarchy() {
        assert_eq!(unit("0::/system.slice/nginx.service\n").as_deref(), Some("nginx.service"));
        let mixed = "5:cpu:/x\n1:name=systemd:/system.slice/pg@13.service/sub\n0::/\n";
        assert_eq!(unit(mixed).as_deref(), Some("pg@13.service"));
        assert_eq!(unit("0::/user.slice/session-1.scope\n"), None);
    }

    #[test]
    fn we_find_ourselves_by_name_and_by_port() {
        let socket = std::net::TcpListener::bind("[::1]:0").or_else(|_| std::net::TcpListener::bind("127.0.0.1:0"));
        let port = socket.as_ref().unwrap().local_addr().unwrap().port();
        let selector = ProcessSelector::Port(port);
        let table = table(&selector).unwrap();
        let me = std::process::id().cast_signed();
        let found = selector.select(&table, None);
        assert_eq!(found.iter().map(|p| p.id.pid).collect::<Vec<_>>(), [me]);
        assert!(!found[0].kernel && same(&found[0].id).is_some());
        let reused = ProcessRef { start_ticks: found[0].id.start_ticks + 1, ..found[0].id.clone() };
        assert_eq!(same(&reused), None);
    }

    #[test]
    fn pid_files_are_read_with_care() {
        let folder = std::env::temp_dir().join(format!("fracas-pid-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("pid");
        for (text, number) in [("123\n/data\n", Some(123)), ("  7 ", Some(7)), ("x", None), ("", None), ("-1", None)] {
            fs::write(&file, text).unwrap();
            assert_eq!(pid_in_file(file.to_str().unwrap()), number, "{text:?}");
        }
        assert_eq!(pid_in_file(folder.to_str().unwrap()), None);
        assert_eq!(pid_in_file("/dev/zero"), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}

//! Whom the test believes beside the demo: a customer with a clock of its own, and the kernel's word on when the shop's
//! primary died and began. It reads no reports.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::Value;

use super::playing::Playing;
use crate::{
    history::number,
    rig::{LIMIT, timed},
    stage::boot_ns,
};

/// The shortest time that an answer of the shop may take before the customer goes away.
const PATIENCE: Duration = Duration::from_secs(5);
/// The kernel tells beginnings in hundredths of a second.
const TICK_NS: i64 = 10_000_000;

/// The shop's primary while it dies: how long there certainly was none.
pub(super) fn without_primary(demo: &Playing) -> i64 {
    let primary = |process: &Value| process["name"] == "shop-primary" && process["state"] != "Z";
    let first = number(&demo.process("a primary", primary), "/pid");
    let pid = Pid::from_raw(i32::try_from(first).expect("a number")).expect("a number");
    let life = pidfd_open(pid, PidfdFlags::empty()).expect("alive");
    let limit = Timespec { tv_sec: LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&life, PollFlags::IN)], Some(&limit)).expect("waited");
    let dead_by = boot_ns();
    assert_eq!(ended, 1, "nobody killed the primary");
    let second = demo.process("a second primary", |process| primary(process) && process["pid"] != first);
    began(&second) - dead_by
}

/// The earliest instant at which a process can have begun.
fn began(process: &Value) -> i64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process["pid"])).expect("alive");
    let (_, after_name) = stat.rsplit_once(')').expect("a name");
    let ticks: i64 = after_name.split_whitespace().nth(19).and_then(|word| word.parse().ok()).expect("its beginning");
    ticks * TICK_NS
}

/// The status of an answer, and how long it took.
pub(super) fn ask(address: SocketAddr, path: &str) -> (u16, Duration) {
    timed(|| {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
    })
}

/// The median time of so many orders, milliseconds. On a busy machine the shop may give one up, which takes longer than
/// to take it and so counts as slow; but most must be taken.
pub(super) fn order_ms(address: SocketAddr, how_many: usize) -> f64 {
    let answers: Vec<(u16, Duration)> = (0..how_many).map(|_| ask(address, "/order")).collect();
    let taken = answers.iter().filter(|(status, _)| *status == 200).count();
    assert!(taken * 3 >= how_many * 2, "{taken} of {how_many} orders were taken: {answers:?}");
    let mut times: Vec<f64> = answers.iter().map(|(_, took)| took.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    times[how_many / 2]
}

/// What the first core did since the machine started, by the kernel's count: idle time and all time, in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Core {
    idle: u64,
    all: u64,
}

impl Core {
    pub(super) fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").expect("the kernel's count");
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu0 ")).expect("the first core");
        let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // The fourth and fifth are idle time, with and without a wait for a device.
        Self { idle: ticks[3] + ticks[4], all: ticks[..8].iter().sum() }
    }

    /// The share of time since `then` in which it had nothing to do.
    pub(super) fn idle_since(self, then: Self) -> f64 {
        (self.idle - then.idle) as f64 / (self.all - then.all).max(1) as f64
    }
}

/// Whether anybody listens there.
pub(super) fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// What the demo's controller and agents have logged so far, which the demo keeps in memory.
pub(super) fn logs(demo: &Playing) -> String {
    let folder = format!("/proc/{}/fd", demo.pid());
    let open = fs::read_dir(folder).expect("its files").flatten().map(|entry| entry.path());
    let logs = open.filter(|path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:log")));
    logs.map(|path| fs::read_to_string(path).expect("a log")).collect()
}

/// What nobody can open without asking another machine, or that runs programs, in an HTML page; empty when it stands on
/// its own.
pub(super) fn strings_attached(page: &str) -> Vec<String> {
    let page = page.to_lowercase();
    let foreign = ["<script", "<link", "<iframe", "<object", "<embed", "<img", "<base", "@import", " src=", "srcset="];
    let mut found: Vec<String> = foreign.iter().filter(|word| page.contains(**word)).map(|w| (*w).into()).collect();
    // What leads somewhere must lead into the page itself.
    for (before, inside) in [("href=\"", "#"), ("url(", "#"), ("href='", "#"), ("action=", "#")] {
        let all = page.match_indices(before).map(|(at, _)| &page[at + before.len()..]);
        found.extend(all.filter(|to| !to.starts_with(inside)).map(|to| to.chars().take(60).collect()));
    }
    found
}

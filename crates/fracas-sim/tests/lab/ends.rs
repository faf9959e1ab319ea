//! A lab leaves nothing, however it ends; and it is quick.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use fracas_agent::host::trials::own_cgroup;
use fracas_sim::{
    lab::{Lab, LabError, Options, Program},
    need::Need,
};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal};

use crate::{
    stage::{self, LIMIT, Place as _, lab, part, part_here, wait_for},
    traces::{self, Traces},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("a_killed_creator_leaves_nothing", &[Need::Lab], a_killed_creator_leaves_nothing),
        trial("an_interrupted_creator_leaves_nothing", &[Need::Lab], an_interrupted_creator_leaves_nothing),
        trial("a_leaked_control_socket_keeps_nothing", &[Need::Lab], a_leaked_control_socket_keeps_nothing),
        trial("a_creator_killed_at_any_moment", &[Need::Lab], a_creator_killed_at_any_moment),
        trial("twenty_labs_leak_nothing", &[Need::Lab], twenty_labs_leak_nothing),
        trial("the_death_of_the_keeper_ends_the_lab", &[Need::Lab], the_death_of_the_keeper_ends_the_lab),
        trial("what_killed_keepers_left_is_removed", &[Need::LabCgroup], what_killed_keepers_left_is_removed),
        trial("two_labs_side_by_side", &[Need::Lab], two_labs_side_by_side),
        trial("three_hosts_take_well_under_a_second", &[Need::Lab], three_hosts_take_well_under_a_second),
    ];
    trials.extend(traces::trials());
    trials
}

/// Three hosts with a program in each and one beside them.
const IN_LAB: usize = 1 + 3 + 4;

/// The part `creator`: a lab with this many hosts; says `ready` and rests until killed.
pub(crate) fn creator(hosts: usize) {
    let lab = Lab::start(Options::default()).expect("lab");
    let names: Vec<String> = (0..hosts).map(|n| format!("h{n}")).collect();
    let hosts = lab.add_hosts(&names.iter().map(String::as_str).collect::<Vec<_>>()).expect("hosts");
    let _programs: Vec<_> = hosts.iter().map(|host| host.ready(&["rest"])).collect();
    let _program = lab.ready(&["rest"]);
    if std::env::var_os("LEAK").is_some() {
        leak();
    }
    stage::print("ready");
    loop {
        thread::park();
    }
}

/// Lets a program outside of the lab inherit the creator's ends of the control sockets, and says its number.
fn leak() {
    let this = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
    let this = this.expect("pidfd");
    let sockets = fs::read_dir("/proc/self/fd").expect("descriptors").flatten().filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    });
    let numbers: Vec<i32> = sockets.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    assert!(!numbers.is_empty(), "the creator holds its ends");
    for number in numbers {
        let flags = rustix::process::PidfdGetfdFlags::empty();
        let copy: OwnedFd = rustix::process::pidfd_getfd(&this, number, flags).expect("copy");
        let child = part_here(&["rest"]).env_remove(traces::MARK).stdin(copy).stdout(Stdio::null()).spawn();
        stage::print(&child.expect("child").id().to_string());
    }
}

/// A creator outside of this process, and what it has made.
struct Creator {
    child: Child,
    mark: String,
    before: Traces,
    made: Traces,
    /// What it said before `ready`.
    said: Vec<String>,
}

impl Creator {
    fn command(mark: &str) -> std::process::Command {
        // Whoever started the tests in the background may ignore what Ctrl-C sends, and that is inherited.
        let mut command = std::process::Command::new("env");
        command.args(["--default-signal=INT", &format!("/proc/{}/exe", std::process::id())]);
        command.args(part_here(&["creator", "3"]).get_args());
        command.env(traces::MARK, mark).stdout(Stdio::piped()).process_group(0);
        command
    }

    fn start(name: &str, leak: bool) -> Self {
        let mark = mark(name);
        let before = Traces::of(&mark);
        assert!(before.processes.is_empty() && before.cgroups.is_empty(), "{before:?}");
        let mut command = Self::command(&mark);
        if leak {
            command.env("LEAK", "1");
        }
        let mut child = command.spawn().expect("creator");
        let lines = BufReader::new(child.stdout.as_mut().expect("pipe")).lines();
        let said: Vec<String> = lines.map(|line| line.expect("line")).take_while(|line| line != "ready").collect();
        let made = Traces::of(&mark);
        // The creator, its keeper, and all in the lab.
        assert_eq!(made.processes.len(), 2 + IN_LAB, "{made:#?}");
        assert!(made.namespaces.len() >= 4 * 5, "each host has its own: {made:#?}");
        assert_eq!(made.devices, before.devices, "the machine sees no device");
        assert_eq!(made.mounts, before.mounts, "the machine sees no mount");
        Self { child, mark, before, made, said }
    }

    /// Kills the creator and waits until nothing is left; how long that took.
    fn end(mut self, signal: Signal) -> Duration {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("pid");
        let begun = Instant::now();
        rustix::process::kill_process_group(pid, signal).expect("killed");
        self.child.wait().expect("reaped");
        // Whoever reads the creator's output need not wait for the lab: it is not held open by it.
        let mut rest = String::new();
        self.child.stdout.take().expect("pipe").read_to_string(&mut rest).expect("end");
        let mut left = Vec::new();
        let until = Instant::now() + LIMIT;
        loop {
            left.clone_from(&self.made.left(&self.mark, &self.before));
            if left.is_empty() || Instant::now() > until {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(left, Vec::<String>::new());
        begun.elapsed()
    }
}

/// A mark nobody else has.
fn mark(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn a_killed_creator_leaves_nothing() {
    let creator = Creator::start("killed", false);
    let limits = lab(&[]).0.limits().iter().any(|limit| limit.what.contains("cgroups"));
    assert_eq!(creator.made.cgroups.len(), usize::from(!limits), "{:#?}", creator.made);
    eprintln!("nothing left of three hosts {:?} after SIGKILL of their creator (n = 1)", creator.end(Signal::KILL));
}

fn an_interrupted_creator_leaves_nothing() {
    // As by Ctrl-C: the whole process group gets it, and nobody drops anything.
    Creator::start("interrupted", false).end(Signal::INT);
}

fn a_leaked_control_socket_keeps_nothing() {
    let creator = Creator::start("leaked", true);
    let holders: Vec<Pid> =
        creator.said.iter().map(|pid| Pid::from_raw(pid.parse().expect("pid")).expect("pid")).collect();
    assert!(!holders.is_empty());
    // The holders are in the creator's process group; only the creator is to go now.
    let pid = Pid::from_raw(creator.child.id().cast_signed()).expect("pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("killed");
    let Creator { mut child, mark, before, made, .. } = creator;
    child.wait().expect("reaped");
    wait_for("the keeper sees the end of the creator itself", || made.left(&mark, &before).is_empty());
    for holder in holders {
        rustix::process::kill_process(holder, Signal::KILL).expect("it still held the socket");
    }
}

fn a_creator_killed_at_any_moment() {
    let mark = mark("moment");
    let before = Traces::of(&mark);
    let mut whole = 0;
    // From before the keeper lives until after the last host is there.
    for round in 0..30 {
        let mut child = Creator::command(&mark).spawn().expect("creator");
        let mut stdout = child.stdout.take().expect("pipe");
        // Not to synchronise with anything: the moment of the kill is what is varied.
        thread::sleep(Duration::from_micros(round * 2500));
        let made = Traces::of(&mark);
        child.kill().and_then(|()| child.wait()).expect("killed");
        let mut said = String::new();
        stdout.read_to_string(&mut said).expect("end");
        whole += usize::from(said == "ready\n");
        wait_for("nothing is left", || made.left(&mark, &before).is_empty());
    }
    eprintln!("killed at 30 moments 2.5 ms apart; {whole} creators had been ready");
}

/// The part `many`: labs one after another, ended in both ways; what this process itself still holds is compared.
pub(crate) fn many(labs: usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/self/{what}")).expect("read").count();
    let held = || (count("fd"), count("task"));
    let before = held();
    for n in 0..labs {
        let (lab, hosts) = lab(&["a", "b", "c"]);
        let running = hosts[n % 3].ready(&["rest"]);
        if n % 2 == 0 {
            lab.stop().expect("stopped");
        } else {
            drop(lab);
        }
        assert_eq!(running.wait(), Err(LabError::Gone));
    }
    assert_eq!(held(), before, "descriptors and threads");
}

fn twenty_labs_leak_nothing() {
    let mark = mark("twenty");
    let before = Traces::of(&mark);
    let status = part_here(&["many", "20"]).env(traces::MARK, &mark).status().expect("run");
    assert!(status.success());
    // No waiting here: the end of a lab is the end.
    assert_eq!(Traces::default().left(&mark, &before), Vec::<String>::new());
}

/// The part `bereaved`: a lab whose keeper is killed.
pub(crate) fn bereaved() {
    let (lab, hosts) = lab(&["a"]);
    let running = hosts[0].ready(&["rest"]);
    let pid = Pid::from_raw(lab.keeper().cast_signed()).expect("pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("killed");
    assert_eq!(running.wait(), Err(LabError::Gone));
    assert_eq!(hosts[0].spawn(part(&["exit", "0"])).expect_err("gone"), LabError::Gone);
    assert!(lab.stop().is_err(), "nobody cleared away");
}

/// In a lab in a lab, so that what is left is nobody's but the host's.
fn the_death_of_the_keeper_ends_the_lab() {
    let (_lab, hosts) = lab(&["a"]);
    hosts[0].read(part(&["bereaved"]));
    let processes = || hosts[0].read(Program::new("sh").args(["-c", "echo /proc/[0-9]*"]));
    wait_for("only the host's own init and the shell are left", || processes().split_whitespace().count() == 2);
}

/// The part `heir`: a lab on a host where keepers were killed before.
pub(crate) fn heir() {
    let own = own_cgroup().expect("own");
    let (old, young, other) = (own.join("fracas-lab-999998"), own.join("fracas-lab-999999"), own.join("other-999998"));
    for path in [&old, &old.join("outer"), &young, &other] {
        fs::create_dir(path).expect("made");
    }
    let ago = std::time::SystemTime::now() - Duration::from_mins(2);
    for path in [&old, &other] {
        fs::File::open(path).and_then(|dir| dir.set_modified(ago)).expect("aged");
    }
    let _lab = lab(&["a"]);
    assert!(!old.exists(), "what a killed keeper left is removed by the next");
    assert!(young.exists() && other.exists(), "what may be somebody's is not");
}

fn what_killed_keepers_left_is_removed() {
    let (_lab, hosts) = lab(&["a"]);
    hosts[0].read(part(&["heir"]));
}

fn two_labs_side_by_side() {
    let (one, other) = (lab(&["a", "b"]), lab(&["a", "b"]));
    let _echo = one.1[0].ready(&["echo"]);
    assert!(one.1[1].reaches("tcp", one.1[0].v4()));
    // The same names and addresses, and no way from one to the other.
    assert_eq!(one.1[0].v4(), other.1[0].v4());
    assert!(!other.1[1].reaches("tcp", other.1[0].v4()));
    one.0.stop().expect("stopped");
    let _echo = other.1[0].ready(&["echo"]);
    assert!(other.1[1].reaches("udp", other.1[0].v6()), "the other one goes on");
    other.0.stop().expect("stopped");
}

/// The part `times`: how long it takes to start and to end a lab of three hosts.
pub(crate) fn times(labs: usize) {
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..labs {
        let begun = Instant::now();
        let (lab, _hosts) = lab(&["db-1", "db-2", "edge"]);
        starts.push(begun.elapsed());
        let begun = Instant::now();
        lab.stop().expect("stopped");
        ends.push(begun.elapsed());
    }
    for (what, mut times) in [("start", starts), ("end", ends)] {
        times.sort();
        let (middle, worst) = (times[labs / 2], times[labs - 1]);
        // Fewer than 299 say nothing about the 99th percentile.
        let tail = if labs < 299 { format!("worst {worst:?}") } else { format!("p99 {:?}", times[labs * 99 / 100]) };
        stage::print(&format!("{what} of a lab with three hosts: n = {labs}, p50 {middle:?}, {tail}"));
    }
}

fn three_hosts_take_well_under_a_second() {
    let output = part_here(&["times", "20"]).stderr(Stdio::inherit()).output().expect("run");
    assert!(output.status.success());
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
    // Wide enough for a busy machine; the figures are what is worth reading.
    let begun = Instant::now();
    let _lab = lab(&["a", "b", "c"]);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

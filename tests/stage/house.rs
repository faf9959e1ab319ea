//! A house for one command: whoever it starts and leaves behind becomes a child of the house, in whatever namespaces it
//! is. So the house knows for certain when the last of them is gone. It asks nothing of the product.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, pidfd_send_signal, set_child_subreaper,
    wait,
};
use serde_json::json;

use super::{MARK, boot_ns, look, say};

/// How long the rest may take to end by itself once the command is killed: it clears away after itself.
const GRACE: Duration = Duration::from_secs(5);
/// How often everybody is killed after that; ten milliseconds apart.
const ATTEMPTS: u32 = 500;

/// The part `house`: `fracas` with these words in a process group of its own, as a terminal would start it, in the cgroup
/// `group` unless that is empty. Its output goes to the files `out` and `err` of the folder; where `reader` is `none`,
/// standard output is a pipe that nobody reads. Tells its process number, its end, and when the house is empty. When
/// standard input ends, the command is killed, and a while later whoever is left.
#[expect(clippy::zombie_processes, reason = "the house waits for everybody, whoever started them")]
pub(super) fn house(folder: &str, group: &str, reader: &str, words: &[&str]) {
    set_child_subreaper(Some(getpid())).expect("a house");
    if !group.is_empty() {
        fs::write(Path::new(group).join("cgroup.procs"), "0").expect("in the cgroup");
    }
    let file = |name: &str| File::create(Path::new(folder).join(name)).expect("a file");
    let out = if reader == "none" { Stdio::from(io::pipe().expect("a pipe").1) } else { file("out").into() };
    let mut command = Command::new("/proc/self/exe");
    command.arg0("fracas").args([MARK, "fracas"]).args(words).process_group(0);
    command.stdin(Stdio::null()).stdout(out).stderr(file("err"));
    let child = command.spawn().expect("started");
    // With it goes this process's end of its output.
    drop(command);
    say(&json!({ "pid": child.id() }));
    let command = Pid::from_child(&child);
    // Nobody has waited for it yet, so the number is its own.
    let held = pidfd_open(command, PidfdFlags::empty()).expect("held");
    thread::spawn(move || clear(&held));
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                say(&json!({ "code": status.exit_status().or(signal), "at": boot_ns() }));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    say(&json!({ "empty": boot_ns() }));
}

/// Waits for the end of standard input, then kills whoever is there. The process ends as soon as nobody is.
fn clear(command: &OwnedFd) {
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    // It may have ended meanwhile.
    let _ = pidfd_send_signal(command, Signal::KILL);
    thread::sleep(GRACE);
    for _ in 0..ATTEMPTS {
        let house = json!(getpid().as_raw_nonzero().get());
        for process in look::all().iter().filter(|process| process["parent"] == house) {
            let pid = process["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

//! Processes that are hard to hit: many of one name, and one that is always already another.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{MARK, say, stay};

/// How long a runner of the relay lives.
const LEG: Duration = Duration::from_millis(2);

fn call(name: &str) {
    rustix::thread::set_name(&std::ffi::CString::new(name).expect("name")).expect("named");
}

fn again(words: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(MARK).args(words).stdin(Stdio::null());
    command
}

/// The part `rest`: a process of this name that does nothing.
pub(super) fn rest(name: &str) {
    call(name);
    say(&json!({ "ready": true }));
    stay();
}

/// The part `stubborn`: the same, and it ignores SIGTERM.
pub(super) fn stubborn(name: &str) {
    // By way of a shell, which hands on what it ignores. It finds this program at its standard input.
    let this = std::fs::File::open("/proc/self/exe").expect("this program");
    let script = "trap '' TERM; exec /proc/self/fd/0 \"$@\"";
    let error = Command::new("sh").args(["-c", script, "sh", MARK, "rest", name]).stdin(this).exec();
    panic!("{error}");
}

/// The part `crowd`: so many processes of this name, none of them below another.
pub(super) fn crowd(name: &str, size: usize) {
    let members: Vec<_> = (0..size).map(|_| again(&["rest", name]).spawn().expect("member")).collect();
    say(&json!({ "pids": members.iter().map(std::process::Child::id).collect::<Vec<_>>() }));
    stay();
}

/// The part `relay`: a process of this name that after two milliseconds hands over to a new one, without end.
pub(super) fn relay(name: &str) {
    call(name);
    thread::sleep(LEG);
    // Its own group, so that nobody catches the next one with this one.
    let next = again(&["relay", name]).process_group(0).spawn();
    assert!(next.is_ok(), "the relay goes on");
}

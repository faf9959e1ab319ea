//! The parts this program plays when it is started again: `fracas` itself, and what stands beside it in a test. Each
//! part is told by its arguments and speaks in JSON lines; but for the crash trial's hand none knows anything of the product
//! but its command line.

mod crowd;
mod datagrams;
mod house;
mod inventory;
pub(crate) mod look;
mod oracle;
mod prober;
mod reborn;
mod receiver;
mod rollcall;
mod striker;
mod supervisor;
pub(crate) mod units;

use std::{ffi::OsString, io::Write as _, process::ExitCode, thread};

use fracas_sim::lab::Program;
use serde_json::Value;

/// First argument of every part.
pub(crate) const MARK: &str = "__fracas-tests";

/// Plays a part and returns its exit code; `None` in an ordinary start.
pub(crate) fn play() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next()?;
    // The demo starts its program again as anybody would start `fracas`, and here that program is this one.
    let demo = [("controller", "--data-dir"), ("agent", "--controller")];
    let second = std::env::args_os().nth(2).unwrap_or_default();
    if demo.iter().any(|(command, option)| first == *command && second == *option) {
        return Some(fracas::run(std::env::args_os()));
    }
    if first != MARK {
        return None;
    }
    let name = arguments.next().unwrap_or_default().to_string_lossy().into_owned();
    if name == "fracas" {
        return Some(fracas::run([OsString::from("fracas")].into_iter().chain(arguments)));
    }
    let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (name.as_str(), words.as_slice()) {
        ("keep", [path]) => keep(path),
        ("ask", [kind, address, timeout_ms]) => prober::ask(kind, address, number(timeout_ms)),
        ("supervise", [pause_ms, program, rest @ ..]) => supervisor::supervise(number(pause_ms), program, rest),
        ("strike", [log, pid, after_ms, delay_us]) => {
            striker::strike(log, number(pid), number(after_ms), number(delay_us));
        }
        ("oracle", [address]) => oracle::oracle(address),
        ("heart", [name]) => oracle::heart(name),
        ("receive", [address]) => receiver::receive(address),
        ("answer", [port]) => datagrams::answer(number(port)),
        ("count", [address, how_many, pause_us]) => datagrams::count(address, number(how_many), number(pause_us)),
        ("roll-call", [period_ms, addresses @ ..]) => rollcall::roll_call(number(period_ms), addresses),
        ("echo", [address]) => rollcall::echo(address),
        ("session", [address]) => rollcall::session(address),
        ("relay", [name]) => crowd::relay(name),
        ("crowd", [name, size]) => crowd::crowd(name, number(size)),
        ("rest", [name]) => crowd::rest(name),
        ("hand", [state, file, disk]) => crate::crash_trial::hand::hand(state, file, disk),
        ("ground", [disk]) => crate::crash_trial::ground::lay(disk),
        ("reborn", [pid, name]) => reborn::reborn(number(pid), name),
        ("units", []) => units::units(),
        ("inventory", words) => inventory::inventory(words),
        ("mark", [path, name, value]) => inventory::mark(path, name, value),
        ("bind-queue", []) => bind_queue(),
        ("without-ptrace", rest) => without_ptrace(rest),
        ("stubborn", [name]) => crowd::stubborn(name),
        ("occupy", [address]) => occupy(address),
        ("get", [address, path]) => get(address, path),
        ("house", [folder, group, reader, rest @ ..]) => house::house(folder, group, reader, rest),
        ("processes", []) => look::processes(),
        other => panic!("no part {other:?}"),
    }
    Some(ExitCode::SUCCESS)
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

/// This program in a part, for a lab.
pub(crate) fn part(words: &[&str]) -> Program {
    Program::this().arg(MARK).args(words.iter().copied())
}

/// This program as `fracas`, outside of any lab.
pub(crate) fn fracas_here(words: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args([MARK, "fracas"]).args(words);
    command
}

/// Says something to whoever started this part.
pub(crate) fn say(what: &Value) {
    let mut out = std::io::stdout().lock();
    // Whoever listened may be gone: then nothing is left to do.
    if writeln!(out, "{what}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

/// Now, on the clock that every host of a lab shares.
pub(crate) fn boot_ns() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Stays until killed.
pub(crate) fn stay() -> ! {
    loop {
        thread::park();
    }
}

/// The part `keep`: standard input becomes a file.
fn keep(path: &str) {
    let mut file = std::fs::File::create(path).expect("file");
    std::io::copy(&mut std::io::stdin().lock(), &mut file).expect("kept");
}

/// `CAP_SYS_PTRACE` of `linux/capability.h`.
const CAP_SYS_PTRACE: u32 = 19;

/// The part `without-ptrace`: this program in another part, which can trace nobody but its own user's children.
fn without_ptrace(words: &[&str]) {
    use std::os::unix::process::CommandExt as _;
    rustix::thread::remove_capability_from_bounding_set(rustix::thread::CapabilitySet::from_bits_retain(
        1 << CAP_SYS_PTRACE,
    ))
    .expect("a capability less");
    let error = std::process::Command::new("/proc/self/exe").arg(MARK).args(words).exec();
    panic!("{error}");
}

/// The part `bind-queue`: holds an NFQUEUE until killed.
fn bind_queue() {
    use fracas_agent::host::netlink::queue::{Copy, Queue};
    let _queue = Queue::bind(77, Copy::Meta, 10).expect("a queue");
    say(&serde_json::json!({ "ready": true }));
    stay();
}

/// The part `get`: asks an HTTP server for a page, in the old form that is never sent in chunks.
fn get(address: &str, path: &str) {
    use std::io::Read as _;
    let asked = std::net::TcpStream::connect(address).and_then(|mut server| {
        write!(server, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        server.read_to_string(&mut answer)?;
        Ok(answer)
    });
    // Nobody may be there yet.
    let answer = asked.unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let code = head.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
    say(&serde_json::json!({ "code": code, "head": head, "body": body }));
}

/// The part `occupy`: holds a TCP port.
fn occupy(address: &str) {
    let _listener = std::net::TcpListener::bind(address).expect("port");
    say(&serde_json::json!({ "ready": true }));
    stay();
}

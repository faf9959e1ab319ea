//! The parts this program plays in a lab when it is started again with a role: the table, and what every part does
//! first. What they do then lives with each.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use rustix::thread::UnshareFlags;

use super::{bare, inside, keeper, kernel, outside};

/// First argument of a process of the lab: `/proc/self/exe __fracas-lab ROLE ARGS...`.
pub(super) const MARK: &str = "__fracas-lab";

/// Name in `ps`, role, and what it runs.
type Part = (&'static str, &'static std::ffi::CStr, fn(&[String]) -> i32);

/// Every part there is.
const PARTS: &[Part] = &[
    ("keeper", c"fracas-keeper", keeper::role),
    ("init", c"fracas-lab", outside::role),
    ("host", c"fracas-lab-host", inside::role),
    ("as", c"fracas-lab-as", as_user),
    ("bare", c"fracas-bare", bare::role),
];

/// Plays the part in a lab this process was started for and returns its exit code; `None` in an ordinary start.
///
/// Each binary that starts a lab calls it first in `main`, before threads, a runtime or logging exist and before
/// anything is opened, and returns from `main` with the code it gets
/// (see [`exit_code`](fracas_agent::reexec::exit_code)).
pub fn role() -> Option<i32> {
    let mut arguments = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    if arguments.next()? != MARK {
        return None;
    }
    let name = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let Some((_, comm, part)) = PARTS.iter().find(|(n, ..)| *n == name) else {
        return Some(2);
    };
    let _ = rustix::thread::set_name(comm);
    Some(part(&rest))
}

/// Takes over a standard stream that a role was given something special as; the stream itself becomes `/dev/null`, so
/// that no child inherits it.
pub(super) fn take(stream: impl AsFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let taken = rustix::io::fcntl_dupfd_cloexec(&stream, 3)?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    match stream.as_fd().as_raw_fd() {
        0 => rustix::stdio::dup2_stdin(null)?,
        _ => rustix::stdio::dup2_stdout(null)?,
    }
    Ok(taken)
}

/// The part `as`: `UID GID PROGRAM ARGS...` becomes that program under other numbers, in a user namespace of its own.
fn as_user(arguments: &[String]) -> i32 {
    let [uid, gid, program, rest @ ..] = arguments else { return 2 };
    let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { return 2 };
    let (outer_uid, outer_gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let mapped = kernel::unshare(UnshareFlags::NEWUSER)
        .and_then(|()| keeper::map(uid, gid, outer_uid.as_raw(), outer_gid.as_raw()));
    let error = match mapped {
        Ok(()) => Command::new(program).args(rest).exec(),
        Err(error) => error,
    };
    complain(program, &error);
    127
}

#[expect(clippy::print_stderr, reason = "the program it stands for would say so there, too")]
fn complain(program: &str, error: &io::Error) {
    eprintln!("lab: {program} cannot be started: {error}");
}

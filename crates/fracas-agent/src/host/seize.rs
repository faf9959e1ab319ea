//! The role `seize`: keeps all threads of one process stopped with ptrace, invisibly to its parent.
//! The kernel lets them run again when this process ends, however it ends; there is no undo to run.
//!
//! The traps, each found by trying:
//! - A seized process that is killed stays a zombie, and its parent's `wait` does not return, until the tracer waits:
//!   so the main thread sits in `waitpid(-1, __WALL)`.
//! - ptrace belongs to the *thread* that seized: everything here is the main thread, and orders are read beside it.
//! - Any stop clears a pending interrupt. A thread stopped by a signal on its way in is interrupted anew and given its
//!   signal: keeping it would lose the signal, because the stop has been reported already.
//! - `PTRACE_O_EXITKILL` must never be set: our death would be the target's.

#![expect(unsafe_code, reason = "ptrace and waitpid with __WALL have no safe wrapper")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io, thread,
    time::{Duration, Instant},
};

use fracas_model::process::ProcessRef;
use serde_json::json;

use super::{
    processes::{Stat, same, threads},
    worker::orders::{Order, Orders},
};

/// How long threads may take to stop. One that waits in the kernel for a device stops when it comes back, and
/// until then runs none of its program.
const STOP: Duration = Duration::from_secs(1);

/// Exit code when the target has ended by itself.
pub const TARGET_GONE: i32 = 3;

/// Runs the role: one order `{"seize": ProcessRef}`, answered with `{"threads": n, "waiting": m}`, where `waiting`
/// counts those that will stop when the kernel lets them. Ends with [`TARGET_GONE`] when the process is no more.
pub fn role(_arguments: &[String]) -> i32 {
    let Ok(mut orders) = Orders::open() else { return 1 };
    let Some(Order::Do(order)) = orders.next(None) else { return 0 };
    let seized = serde_json::from_value::<ProcessRef>(order.get("seize").cloned().unwrap_or_default())
        .map_err(|e| format!("not a seize order: {e}"))
        .and_then(|who| seize(&who));
    let replied = match &seized {
        Ok((stopped, waiting)) => orders.reply(&json!({ "threads": stopped, "waiting": waiting })),
        Err(error) => orders.refuse(error),
    };
    if seized.is_err() || replied.is_err() {
        return 1;
    }
    let watch = thread::Builder::new().name("lifeline".into()).spawn(move || {
        while let Some(Order::Do(_)) = orders.next(None) {}
        leave();
    });
    if watch.is_err() {
        return 1;
    }
    keep()
}

#[expect(clippy::exit, reason = "the main thread sits in waitpid; ending the process is what lets the target go")]
fn leave() -> ! {
    std::process::exit(0)
}

/// Seizes and stops every thread; repeats until the list of threads shows no new one.
fn seize(who: &ProcessRef) -> Result<(usize, usize), String> {
    let name = format!("{} (pid {})", who.name, who.pid);
    if same(who).is_none() {
        return Err(format!("{name} is gone"));
    }
    let until = Instant::now() + STOP;
    let mut tasks: BTreeMap<i32, bool> = BTreeMap::new();
    let mut first = true;
    loop {
        let fresh: Vec<i32> = threads(who.pid).into_iter().filter(|t| !tasks.contains_key(t)).collect();
        for tid in &fresh {
            if take(*tid).map_err(|e| refused(&name, &e))? {
                tasks.insert(*tid, false);
            }
        }
        // Seized, so its number can no longer pass to another: now the check is final. Ending lets go of a stranger.
        if first && same(who).is_none() {
            return Err(format!("{name} has just ended"));
        }
        first = false;
        settle(&mut tasks, until);
        let waiting = tasks.values().filter(|stopped| !**stopped).count();
        let known: BTreeSet<i32> = tasks.keys().copied().collect();
        let quiet = threads(who.pid).iter().all(|t| known.contains(t) || ended(*t));
        if quiet && (waiting == 0 || Instant::now() >= until) {
            return if tasks.is_empty() {
                Err(format!("{name} has no threads left"))
            } else {
                Ok((tasks.len(), waiting))
            };
        }
        if Instant::now() >= until {
            return Err(format!("{name} starts threads faster than they can be stopped"));
        }
    }
}

fn refused(name: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => format!(
            "{name} cannot be seized: it is traced already (a debugger?), or ptrace is not permitted \
             (needs CAP_SYS_PTRACE; see kernel.yama.ptrace_scope)"
        ),
        _ => format!("{name} cannot be seized: {error}"),
    }
}

/// Seizes and interrupts one thread; false when it has ended meanwhile.
fn take(tid: i32) -> io::Result<bool> {
    let taken = ptrace(libc::PTRACE_SEIZE, tid, 0).and_then(|()| ptrace(libc::PTRACE_INTERRUPT, tid, 0));
    match taken {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        // A thread that has ended but is not yet reaped answers EPERM.
        Err(_) if ended(tid) => Ok(false),
        Err(e) => Err(e),
    }
}

fn ended(tid: i32) -> bool {
    Stat::of(tid).is_none_or(|s| s.dead())
}

/// Collects stops until all have stopped or the time is over.
fn settle(tasks: &mut BTreeMap<i32, bool>, until: Instant) {
    while tasks.values().any(|stopped| !stopped) && Instant::now() < until {
        match wait(libc::WNOHANG) {
            Ok(Some((tid, event))) => match event {
                Event::Held => drop(tasks.insert(tid, true)),
                Event::PassedOn => {}
                Event::Ended => drop(tasks.remove(&tid)),
            },
            Ok(None) => thread::sleep(Duration::from_micros(100)),
            Err(_) => return,
        }
    }
}

/// Waits for whatever happens to the stopped threads, until none is left.
fn keep() -> i32 {
    loop {
        match wait(0) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return TARGET_GONE,
        }
    }
}

/// What happened to a thread.
enum Event {
    /// It stands still.
    Held,
    /// It was on its way with a signal, got it, and will stop next.
    PassedOn,
    /// It is no more.
    Ended,
}

fn wait(flags: i32) -> io::Result<Option<(i32, Event)>> {
    let mut status = 0;
    // SAFETY: `status` outlives the call, which writes one int there.
    let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | flags) };
    match tid {
        0 => return Ok(None),
        -1 => return Err(io::Error::last_os_error()),
        _ => {}
    }
    if !libc::WIFSTOPPED(status) {
        return Ok(Some((tid, Event::Ended)));
    }
    if status >> 16 != 0 {
        return Ok(Some((tid, Event::Held)));
    }
    let signal = libc::WSTOPSIG(status);
    let _ = ptrace(libc::PTRACE_INTERRUPT, tid, 0);
    let _ = ptrace(libc::PTRACE_CONT, tid, signal);
    Ok(Some((tid, Event::PassedOn)))
}

/// How the C library counts ptrace requests.
#[cfg(target_env = "musl")]
type Request = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

/// One request without address; `data` is a signal number or 0.
fn ptrace(request: Request, tid: i32, data: i32) -> io::Result<()> {
    // SAFETY: none of the requests used here reads or writes our memory: SEIZE takes options (0), INTERRUPT nothing,
    // CONT a signal number.
    let done = unsafe { libc::ptrace(request as _, tid, 0_usize, data as usize) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

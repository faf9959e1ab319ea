//! The role `fill`: holds disk space by a file that has no name, so that the end of this process is the end of the file.
//! It verifies nothing; the agent asks the file system, see [`crate::host::linux`].
//!
//! Space is taken in pieces, each after a look at what is left: other programs write at the same time, and `fallocate`
//! beyond the free space fails but keeps all it got.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use fracas_model::plan::Fill;
use rand::Rng as _;
use rustix::{
    fs::{FallocateFlags, fallocate, fdatasync, fstatvfs, ftruncate},
    io::Errno,
};
use serde_json::json;

use super::{
    files::{space, unnamed},
    worker::orders::{Order, Orders},
};
use crate::crash::{self, Task};

/// Largest piece that is reserved at once: some milliseconds on a disk, a tenth of a second in memory.
const RESERVED: u64 = 256 << 20;
/// Largest piece that is written at once, and how long it takes at least: 128 MiB a second.
const WRITTEN: u64 = 1 << 20;
const PACE: Duration = Duration::from_micros(7_812);
/// After so many written bytes they are synced, so that no heap of dirty memory grows.
const SYNCED: u64 = 64 << 20;
/// How often the reserve is looked after.
const LOOK: Duration = Duration::from_millis(100);
/// What is given back at once at least, so that it is not done for every block somebody writes.
const RETURNED: u64 = 1 << 20;
/// How long the answer waits for the filling to be done. What takes longer goes on behind it.
const DONE: Duration = Duration::from_secs(2);

/// Runs the role: one order `{"fill": ...}`, answered with `{"bytes": ..., "fd": ...}` (what it will hold, and the number
/// of the file's descriptor); then holds it until the end.
pub fn role(_arguments: &[String]) -> i32 {
    let Ok(mut orders) = Orders::open() else { return 1 };
    let mut filling = false;
    loop {
        match orders.next(None) {
            Some(Order::Do(order)) => {
                let fill = order.get("fill").cloned().unwrap_or_default();
                let reply = match serde_json::from_value::<Fill>(fill) {
                    Ok(fill) if !filling => start(&fill).inspect(|_| filling = true),
                    Ok(_) => Err("it fills already".to_owned()),
                    Err(error) => Err(format!("not a fill order: {error}")),
                };
                let replied = match reply {
                    Ok((bytes, fd)) => orders.reply(&json!({ "bytes": bytes, "fd": fd })),
                    Err(error) => orders.refuse(&error),
                };
                if replied.is_err() {
                    return 1;
                }
            }
            // Returning from `main` closes the file, and with it the space is free.
            _ => return 0,
        }
    }
}

/// Begins; what will be held, and by which descriptor.
fn start(fill: &Fill) -> Result<(u64, i32), String> {
    let no = |what: &str, e: io::Error| format!("the disk of {} cannot be {what}: {e}", fill.directory);
    let space = space(&fill.directory).map_err(|e| no("looked at", e))?;
    let bytes = fill.goal.bytes(&space).min(space.left_bytes.saturating_sub(fill.reserve.0));
    if bytes == 0 {
        return Err(format!("the disk of {} is so full already", fill.directory));
    }
    let file = unnamed(&fill.directory).map_err(|e| no("filled", e.into()))?;
    let fd = file.as_raw_fd();
    let (reserve, (done, is_done)) = (fill.reserve.0, mpsc::channel());
    let hold = move || {
        let mut held = Held { file, bytes: 0, reserve, sparing: true };
        let _ = done.send(held.grow(bytes));
        loop {
            crash::within(Task::Fill);
            thread::sleep(LOOK);
            held.keep_reserve();
        }
    };
    thread::Builder::new().spawn(hold).map_err(|e| format!("no thread: {e}"))?;
    match is_done.recv_timeout(DONE) {
        // Not one byte: a quota, or a file system that is full for other reasons.
        Ok(Err(error)) => Err(no("filled", error)),
        Ok(Ok(())) | Err(_) => Ok((bytes, fd)),
    }
}

/// The file, which always ends where `bytes` says.
struct Held {
    file: File,
    bytes: u64,
    reserve: u64,
    /// The file system can reserve without writing, as far as is known.
    sparing: bool,
}

impl Held {
    /// Takes space until it has `goal` bytes, or as much as there is. An error when there was none at all.
    fn grow(&mut self, goal: u64) -> io::Result<()> {
        let (mut piece, mut unsynced) = (RESERVED, 0);
        while self.bytes < goal {
            let most = self.left().saturating_sub(self.reserve);
            let next = piece.min(goal - self.bytes).min(most);
            if next == 0 {
                break;
            }
            let begun = Instant::now();
            let took = if self.sparing { self.allocate(next) } else { self.write(next.min(WRITTEN)) };
            match took {
                Ok(taken) => {
                    self.bytes += taken;
                    unsynced += taken;
                }
                Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.sparing => self.sparing = false,
                Err(Errno::INTR) => {}
                Err(error) => {
                    // What a failed call got is not kept, so that what is held is known.
                    ftruncate(&self.file, self.bytes)?;
                    if piece > WRITTEN && error == Errno::NOSPC {
                        piece /= 4;
                        continue;
                    }
                    return if self.bytes == 0 { Err(error.into()) } else { Ok(()) };
                }
            }
            if !self.sparing {
                if unsynced >= SYNCED {
                    fdatasync(&self.file)?;
                    unsynced = 0;
                }
                thread::sleep(PACE.saturating_sub(begun.elapsed()));
            }
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> Result<u64, Errno> {
        fallocate(&self.file, FallocateFlags::empty(), self.bytes, bytes).map(|()| bytes)
    }

    /// Random bytes: a file system that compresses would hold others for next to nothing.
    fn write(&mut self, bytes: u64) -> Result<u64, Errno> {
        let mut chunk = vec![0; bytes as usize];
        rand::rng().fill_bytes(&mut chunk);
        let written = self.file.write(&chunk).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        Ok(written as u64)
    }

    /// What programs without privilege may still take.
    fn left(&self) -> u64 {
        fstatvfs(self.file.as_fd()).map_or(0, |about| about.f_bavail.saturating_mul(about.f_frsize))
    }

    /// Gives back what others took out of the reserve.
    fn keep_reserve(&mut self) {
        let missing = self.reserve.saturating_sub(self.left());
        if missing == 0 || self.bytes == 0 {
            return;
        }
        let smaller = self.bytes.saturating_sub(missing.max(RETURNED));
        if ftruncate(&self.file, smaller).is_ok() {
            self.bytes = smaller;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_can_be_reserved_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = unnamed(dir.path().to_str().unwrap()).unwrap();
        let mut held = Held { file, bytes: 0, reserve: 0, sparing: false };
        let begun = Instant::now();
        held.grow(3 * WRITTEN + 5).unwrap();
        assert!(begun.elapsed() >= PACE * 3, "it takes its time: {:?}", begun.elapsed());
        let about = held.file.metadata().unwrap();
        assert_eq!((held.bytes, about.len()), (3 * WRITTEN + 5, 3 * WRITTEN + 5));
        held.reserve = u64::MAX;
        held.keep_reserve();
        assert_eq!((held.bytes, held.file.metadata().unwrap().len()), (0, 0), "all is given back");
    }
}

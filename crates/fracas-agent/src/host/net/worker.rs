//! The role `net`: one process per network namespace that owns the nftables table and the queues of all network faults.
//! It ends when its lifeline does, and with it the kernel ends every rule. It decides nothing: orders say what to do.
//!
//! Orders are lines of JSON: `add`, `remove`, `stats`, `quit`. An orderly end deletes the rules first, then lets go
//! what is held; a kill loses what is held.

mod reinject;
mod traffic;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
};

use fracas_model::plan::Impair;
use rustix::{
    event::epoll,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use traffic::{Lines, Plane};

use crate::{
    crash::{self, Task},
    host::worker::{SEQ, orders::numbered},
};

/// What the agent asks of the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
pub enum Ask {
    /// Put a fault into the kernel.
    Add {
        /// Name for later orders.
        id: String,
        /// The fault.
        impair: Impair,
    },
    /// Take a fault out, let go what it holds.
    Remove {
        /// Its name.
        id: String,
    },
    /// Report what a fault did so far.
    Stats {
        /// Its name.
        id: String,
    },
    /// A fault ends by itself after this much time from now, replacing what was told before. There is no reply.
    #[serde(rename_all = "camelCase")]
    Until {
        /// Its name.
        id: String,
        /// Nanoseconds.
        left_ns: u64,
    },
    /// Take all out and end.
    Quit,
}

/// What a fault did so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Stats {
    /// Packets that matched the filter, counted by the kernel's rule.
    pub matched: u64,
    /// Packets dropped on purpose, counted by the kernel's rule.
    pub lost: u64,
    /// Packets, or segments of them, that came to the worker.
    pub received: u64,
    /// Packets held now.
    pub held: u64,
    /// Packets let go after their time.
    pub released: u64,
    /// Packets that passed at once because a queue or buffer was full: the fault was weaker than asked.
    pub passed: u64,
    /// Packets lost that nobody asked for.
    pub unasked: u64,
    /// Median time held, nanoseconds.
    pub hold_p50_ns: u64,
    /// 99th percentile of the time held.
    pub hold_p99_ns: u64,
    /// How many hold times were measured.
    pub hold_n: u64,
    /// What the worker had to do without.
    pub note: String,
}

/// Where epoll says something happened; queues follow behind.
const STDIN: u64 = 0;
const TIMER: u64 = 1;
const DEADLINE: u64 = 2;
const FIRST_LINE: u64 = 3;

/// The worker's main loop; returns its exit code. `held_most` is how many bytes packets that are held may take; a quarter
/// of the free memory unless told.
fn worker_main(held_most: Option<u64>) -> i32 {
    // Waking late by the default slack of 50 us would be part of every delay.
    let _ = rustix::thread::set_current_timer_slack(core::num::NonZeroU64::new(1));
    // A delay is to be as asked beside a load that fills all processors. 20 ms asked, six spinners on two processors:
    // p99 15 to 62 ms late as everybody, 2 to 7 ms with this. It needs a right; without it the delay is less exact then.
    let _ = rustix::process::setpriority_process(None, -10);
    match Loop::open(held_most).and_then(Loop::run) {
        Ok(()) => 0,
        Err(error) => {
            // Whoever waits for a reply learns why there will be no other.
            let _ = writeln!(io::stdout(), "{}", json!({ "error": format!("network worker: {error}") }));
            1
        }
    }
}

/// The role; its only argument, if there is one, is how many bytes held packets may take.
pub fn role(arguments: &[String]) -> i32 {
    worker_main(arguments.first().and_then(|bytes| bytes.parse().ok()))
}

struct Loop {
    epoll: OwnedFd,
    timer: OwnedFd,
    deadline: OwnedFd,
    input: Vec<u8>,
    /// Made with the first fault, so that a worker without one leaves no trace.
    plane: Option<Plane>,
    lines: Lines,
    armed_ns: u64,
    /// Boot time at which each fault ends by itself; under the empty name, the worker.
    ends: BTreeMap<String, u64>,
}

impl Loop {
    fn open(held_most: Option<u64>) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let this = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            // Time asleep counts: a fault must not outlive its end because the machine was suspended.
            deadline: timerfd_create(TimerfdClockId::Boottime, flags)?,
            input: Vec::new(),
            plane: None,
            lines: Lines::holding(held_most),
            armed_ns: 0,
            ends: BTreeMap::new(),
        };
        let stdin = io::stdin();
        for (fd, number) in [(stdin.as_fd(), STDIN), (this.timer.as_fd(), TIMER), (this.deadline.as_fd(), DEADLINE)] {
            epoll::add(&this.epoll, fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        }
        Ok(this)
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        loop {
            crash::within(Task::Net);
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    STDIN => {
                        if !self.read_orders()? {
                            return self.finish();
                        }
                    }
                    DEADLINE => {
                        if !self.end_due()? {
                            return self.finish();
                        }
                    }
                    TIMER => {
                        let mut expirations = [0; 8];
                        let _ = rustix::io::read(&self.timer, &mut expirations);
                        self.armed_ns = 0;
                    }
                    line => self.lines.receive((line - FIRST_LINE) as u32)?,
                }
            }
            let next = self.lines.release_due()?;
            self.arm(next)?;
        }
    }

    /// False when the lifeline is cut or the worker was told to quit.
    fn read_orders(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        match rustix::io::read(io::stdin().as_fd(), &mut chunk) {
            Ok(0) => return Ok(false),
            Ok(n) => self.input.extend_from_slice(&chunk[..n]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(end) = self.input.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let order: Value = serde_json::from_slice(&line).map_err(io::Error::other)?;
            if let Some(ns) = order.get("deadlineNs").and_then(Value::as_u64) {
                self.end_after(String::new(), ns)?;
                continue;
            }
            let seq = order.get(SEQ).cloned();
            let ask: Ask = serde_json::from_value(order).map_err(io::Error::other)?;
            if let Ask::Until { id, left_ns } = ask {
                self.end_after(id, left_ns)?;
                continue;
            }
            if ask == Ask::Quit {
                self.take_down()?;
                reply(&numbered(&json!({ "ok": true }), seq.as_ref()))?;
                return Ok(false);
            }
            let answer = self.obey(ask).unwrap_or_else(|error| json!({ "error": error }));
            reply(&numbered(&answer, seq.as_ref()))?;
        }
        Ok(true)
    }

    fn obey(&mut self, ask: Ask) -> Result<Value, String> {
        match ask {
            Ask::Add { id, impair } => {
                let plane = match &mut self.plane {
                    Some(plane) => plane,
                    none => none.insert(Plane::open()?),
                };
                let line = plane.add(&id, &impair, &mut self.lines)?;
                for (number, fd) in self.lines.descriptors_of(&line.queues) {
                    let data = epoll::EventData::new_u64(FIRST_LINE + u64::from(number));
                    epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN).map_err(|e| e.to_string())?;
                }
                Ok(json!({ "ok": true, "table": plane.table(), "chain": line.chains.acting, "note": line.note }))
            }
            Ask::Remove { id } => {
                if let Some(plane) = &mut self.plane {
                    plane.remove(&id, &mut self.lines)?;
                }
                // Only now: what could not be taken out still ends at its deadline.
                self.ends.remove(&id);
                Ok(json!({ "ok": true }))
            }
            Ask::Stats { id } => {
                let plane = self.plane.as_mut().ok_or_else(|| format!("no fault {id}"))?;
                serde_json::to_value(plane.stats(&id, &mut self.lines)?).map_err(|e| e.to_string())
            }
            Ask::Until { .. } | Ask::Quit => Ok(json!({ "ok": true })),
        }
    }

    fn end_after(&mut self, id: String, left_ns: u64) -> io::Result<()> {
        self.ends.insert(id, boot_ns().saturating_add(left_ns));
        self.arm_deadline()
    }

    fn arm_deadline(&self) -> io::Result<()> {
        match self.ends.values().min() {
            // All zero would disarm the timer.
            Some(at) => set(&self.deadline, (*at).max(1), TimerfdTimerFlags::ABSTIME),
            None => Ok(()),
        }
    }

    /// Takes out the faults whose time is over: the agent should have, and hangs. False when the worker is to end, also
    /// because one could not be taken out.
    fn end_due(&mut self) -> io::Result<bool> {
        let mut rings = [0; 8];
        let _ = rustix::io::read(&self.deadline, &mut rings);
        let now = boot_ns();
        let due: Vec<String> = self.ends.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.ends.remove(&id);
            let gone = match &mut self.plane {
                Some(plane) => plane.remove(&id, &mut self.lines).is_ok(),
                None => true,
            };
            if id.is_empty() || !gone {
                return Ok(false);
            }
        }
        self.arm_deadline()?;
        Ok(true)
    }

    fn take_down(&mut self) -> io::Result<()> {
        match self.plane.take() {
            Some(plane) => plane.close(&mut self.lines).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    /// Ends without an order: as orderly as can be, but nothing may keep it from ending.
    fn finish(mut self) -> io::Result<()> {
        self.take_down()
    }

    fn arm(&mut self, at_ns: Option<u64>) -> io::Result<()> {
        match at_ns {
            Some(at) if at != self.armed_ns => {
                set(&self.timer, at.max(1), TimerfdTimerFlags::ABSTIME)?;
                self.armed_ns = at;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn boot_ns() -> u64 {
    super::super::clock::boot_ns().max(0).cast_unsigned()
}

fn set(timer: &OwnedFd, ns: u64, flags: TimerfdTimerFlags) -> io::Result<()> {
    let value = Timespec { tv_sec: (ns / 1_000_000_000).cast_signed(), tv_nsec: (ns % 1_000_000_000).cast_signed() };
    let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
    timerfd_settime(timer, flags, &once)?;
    Ok(())
}

fn reply(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

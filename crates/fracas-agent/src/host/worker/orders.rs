//! The worker's side of the pipes: orders come in line by line, the end of the pipe or the deadline ends the worker.
//! It knows nothing of what the orders mean.

use std::{
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};
use serde_json::{Value, json};

use super::SEQ;
use crate::crash::{self, Task};

/// Longest order: a filter with many networks fits, a runaway writer does not.
const LONGEST: usize = 1 << 20;

/// Why an order to end came, when it was the deadline.
pub const DEADLINE: &str = "the deadline has passed";

/// What came down the lifeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// One line.
    Do(Value),
    /// End now, and why.
    End(&'static str),
}

/// Standard input, read as orders, with the deadline beside it.
#[derive(Debug)]
pub struct Orders {
    read: Vec<u8>,
    deadline: OwnedFd,
    renewals: u64,
    /// Number of the order that the next reply answers.
    seq: Option<Value>,
}

impl Orders {
    /// Takes over standard input. There is no deadline until one is sent.
    pub fn open() -> io::Result<Self> {
        // CLOCK_BOOTTIME: time asleep counts, a fault must not outlive its end because the machine was suspended.
        let deadline = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { read: Vec::new(), deadline, renewals: 0, seq: None })
    }

    /// The next order. `None` when `timeout` passed first; deadlines are obeyed here and never seen by the caller.
    pub fn next(&mut self, timeout: Option<Duration>) -> Option<Order> {
        let until = timeout.map(|t| Instant::now() + t);
        loop {
            crash::within(Task::Orders);
            match self.line() {
                Some(Order::Do(mut order)) => {
                    let Some(ns) = order.get("deadlineNs").and_then(Value::as_u64) else {
                        self.seq = order.as_object_mut().and_then(|fields| fields.remove(SEQ));
                        return Some(Order::Do(order));
                    };
                    self.renewals += 1;
                    self.set_deadline(ns);
                    // Another order may stand behind it in the buffer already.
                    continue;
                }
                Some(end) => return Some(end),
                None => {}
            }
            let left = until.map(|u| u.saturating_duration_since(Instant::now()));
            if let Some(end) = self.wait(left) {
                return end;
            }
        }
    }

    /// Waits for input; `Some` when the caller is to be told something instead.
    #[expect(clippy::option_option, reason = "outer: whether to return; inner: what `next` returns")]
    fn wait(&mut self, left: Option<Duration>) -> Option<Option<Order>> {
        let stdin = io::stdin();
        let mut fds = [
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.deadline.as_fd(), PollFlags::IN),
        ];
        let left = left.map(|l| Timespec { tv_sec: l.as_secs().cast_signed(), tv_nsec: l.subsec_nanos().into() });
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Some(None),
            Err(rustix::io::Errno::INTR) => return None,
            Err(_) => return Some(Some(Order::End("standard input cannot be watched"))),
            Ok(_) => {}
        }
        if fds[1].revents().contains(PollFlags::IN) {
            return Some(Some(Order::End(DEADLINE)));
        }
        let mut chunk = [0; 4096];
        match rustix::io::read(stdin.as_fd(), &mut chunk) {
            Ok(0) => Some(Some(Order::End("the agent closed the lifeline or is gone"))),
            Ok(n) => {
                self.read.extend_from_slice(&chunk[..n]);
                None
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => None,
            Err(_) => Some(Some(Order::End("the lifeline cannot be read"))),
        }
    }

    fn line(&mut self) -> Option<Order> {
        let Some(end) = self.read.iter().position(|b| *b == b'\n') else {
            return (self.read.len() > LONGEST).then_some(Order::End("an order was longer than 1 MiB"));
        };
        let line: Vec<u8> = self.read.drain(..=end).collect();
        Some(serde_json::from_slice(&line).map_or(Order::End("an order was not JSON"), Order::Do))
    }

    /// How many times a deadline came down the lifeline.
    pub fn renewals(&self) -> u64 {
        self.renewals
    }

    /// Sets the deadline to so many nanoseconds from now, until another is sent.
    pub fn set_deadline(&self, ns: u64) {
        // All zero would disarm the timer.
        let ns = ns.max(1);
        let value =
            Timespec { tv_sec: (ns / 1_000_000_000).cast_signed(), tv_nsec: (ns % 1_000_000_000).cast_signed() };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        let _ = timerfd_settime(&self.deadline, TimerfdTimerFlags::empty(), &once);
    }

    /// Answers an order. An error means the agent is gone: end.
    pub fn reply(&self, reply: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", numbered(reply, self.seq.as_ref()))?;
        out.flush()
    }

    /// Answers that an order failed.
    pub fn refuse(&self, error: &str) -> io::Result<()> {
        self.reply(&json!({ "error": error }))
    }
}

/// A reply with the number of the order that it answers.
pub fn numbered(reply: &Value, seq: Option<&Value>) -> Value {
    let mut reply = reply.clone();
    if let (Some(fields), Some(seq)) = (reply.as_object_mut(), seq) {
        fields.insert(SEQ.to_owned(), seq.clone());
    }
    reply
}

/// Makes this process a worker: named in `ps` (an image executed through `/proc/self/exe` would be called `exe`), first
/// to go when memory runs out, and without core dumps.
pub fn settle(role: &str) {
    // 15 bytes are what the kernel keeps.
    let _ = std::fs::write("/proc/self/comm", format!("fracas-{role}"));
    // The highest value; raising one's own needs no privilege.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
}

/// The role `rest`: does nothing but answer. For trials of supervision.
pub fn rest(_arguments: &[String]) -> i32 {
    let Ok(mut orders) = Orders::open() else { return 1 };
    while let Some(Order::Do(order)) = orders.next(None) {
        if orders.reply(&order).is_err() {
            return 1;
        }
    }
    0
}

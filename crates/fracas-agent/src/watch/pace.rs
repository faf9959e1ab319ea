//! Time as probes feel it: the clock that stamps looks, and the alarm that starts them. Probes wait on nothing else.
//!
//! The real pace arms a timer descriptor on `CLOCK_BOOTTIME`, because tokio's timers have a grain of 1 ms.

use std::{future::Future, io, os::fd::OwnedFd};

use fracas_model::time::Stamp;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::host::clock::{Clock, boot_ns};

/// A clock with alarms.
pub trait Pace: Clone + 'static {
    /// Its alarms.
    type Alarm: Alarm;
    /// Boot time in nanoseconds; cheap.
    fn boot_ns(&self) -> i64;
    /// The same with everything that belongs to a stamp.
    fn now(&self) -> Stamp;
    /// A new alarm; fails when the host has no descriptors left.
    fn alarm(&self) -> io::Result<Self::Alarm>;
}

/// One alarm, armed again for each tick.
pub trait Alarm: 'static {
    /// Sets it to ring at this boot time; an instant that has passed rings at once.
    fn arm(&mut self, at_ns: i64) -> io::Result<()>;
    /// Waits until it rings. Safe to drop and call again.
    fn rang(&mut self) -> impl Future<Output = io::Result<()>>;
}

/// The host's own boot time.
#[derive(Clone, Debug)]
pub struct BootPace(Clock);

impl BootPace {
    /// Stamps with this clock.
    pub fn new(clock: Clock) -> Self {
        Self(clock)
    }
}

impl Pace for BootPace {
    type Alarm = TimerAlarm;

    fn boot_ns(&self) -> i64 {
        boot_ns()
    }

    fn now(&self) -> Stamp {
        self.0.now()
    }

    fn alarm(&self) -> io::Result<TimerAlarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        watched(timerfd_create(TimerfdClockId::Boottime, flags)?).map(TimerAlarm)
    }
}

#[expect(deprecated, reason = "sound for an owned descriptor, and its successor takes unsafe code to say so")]
fn watched(timer: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(timer, Interest::READABLE)
}

/// A timer descriptor.
#[derive(Debug)]
pub struct TimerAlarm(AsyncFd<OwnedFd>);

impl Alarm for TimerAlarm {
    fn arm(&mut self, at_ns: i64) -> io::Result<()> {
        // A value of zero would disarm it.
        let at_ns = at_ns.max(1);
        let it_value = Timespec { tv_sec: at_ns / 1_000_000_000, tv_nsec: at_ns % 1_000_000_000 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }

    async fn rang(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut count = [0; 8];
            if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut count)?)) {
                return read.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn an_alarm_never_rings_early_and_can_be_armed_again() {
        let pace = BootPace::new(Clock::of("h".into()));
        let mut alarm = pace.alarm().unwrap();
        for _ in 0..5 {
            let due = pace.boot_ns() + 3_000_000;
            alarm.arm(due).unwrap();
            alarm.rang().await.unwrap();
            assert!(pace.boot_ns() >= due);
        }
        alarm.arm(pace.boot_ns() - 1).unwrap();
        alarm.rang().await.unwrap();
    }
}

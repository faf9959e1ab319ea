//! The controller's clock: where every `received` stamp and every decision's `now` comes from.
//!
//! It only reads clocks; waiting is tokio's business.

use std::sync::{Arc, Mutex};

use fracas_model::{
    id::{BootId, HostId},
    time::{ClockId, Stamp},
    units::Dur,
};
use rustix::time::{ClockId as KernelClock, clock_gettime};

/// Reads the time, on a clock that says whose it is.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Stamp;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Stamp {
        (**self).now()
    }
}

/// `CLOCK_BOOTTIME` and `CLOCK_REALTIME` of this machine.
#[derive(Clone, Debug)]
pub struct SystemClock {
    id: ClockId,
    bound_ns: fn() -> i64,
}

impl SystemClock {
    /// The clock of the machine as `host` (the controller's own id). `bound_ns` says how far the wall clock may be
    /// off, -1 when nothing is known; the kernel's word on that needs a call this crate may not make.
    pub fn new(host: HostId, bound_ns: fn() -> i64) -> std::io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self { id: ClockId { host, boot: BootId::new(boot.trim()) }, bound_ns })
    }

    /// The clock's name.
    pub fn id(&self) -> &ClockId {
        &self.id
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Stamp {
        let read = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec * 1_000_000_000 + time.tv_nsec
        };
        Stamp {
            clock: self.id.clone(),
            boot_ns: read(KernelClock::Boottime),
            wall_ns: read(KernelClock::Realtime),
            bound_ns: (self.bound_ns)(),
        }
    }
}

/// A clock that moves only when told, for tests and simulations.
#[derive(Debug)]
pub struct ManualClock(Mutex<Stamp>);

impl ManualClock {
    /// Starts at `stamp`.
    pub fn new(stamp: Stamp) -> Self {
        Self(Mutex::new(stamp))
    }

    /// Moves boot time and wall time forward together.
    pub fn advance(&self, by: Dur) {
        let mut now = self.0.lock().expect("no holder panics");
        *now = now.later(by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Stamp {
        self.0.lock().expect("no holder panics").clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_runs_and_names_its_boot() {
        let clock = SystemClock::new("c".into(), || -1).unwrap();
        let (a, b) = (clock.now(), clock.now());
        assert!(b.since(&a).unwrap() >= Dur::from_ns(0));
        assert_eq!(a.clock.boot.as_str().len(), 36);
        assert!(a.wall_ns > 1_700_000_000_000_000_000, "{}", a.wall_ns);
    }
}

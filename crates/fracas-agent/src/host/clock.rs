//! The clocks of this host, read only: boot time, wall time with the kernel's own bound on its error, boot id.

#![expect(unsafe_code, reason = "adjtimex has no safe wrapper")]

use std::io;

use fracas_model::{
    event::Between,
    id::{BootId, HostId},
    time::{ClockId, Stamp},
};
use rustix::time::{ClockId as Kernel, clock_gettime};

/// `STA_UNSYNC` of `linux/timex.h`: nobody disciplines the clock.
const STA_UNSYNC: i32 = 0x0040;

/// Nanoseconds since boot, time asleep included (`CLOCK_BOOTTIME`).
pub fn boot_ns() -> i64 {
    ns(Kernel::Boottime)
}

/// Nanoseconds since the Unix epoch.
pub fn wall_ns() -> i64 {
    ns(Kernel::Realtime)
}

fn ns(clock: Kernel) -> i64 {
    let t = clock_gettime(clock);
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

/// How far the wall clock may be off: the kernel's `maxerror`. -1 when unsynchronised or unknown.
pub fn wall_bound_ns() -> i64 {
    wall_clock().ok().filter(|clock| clock.synchronised).map_or(-1, |clock| clock.bound_ns)
}

/// What the kernel says of its wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// Whether somebody disciplines it.
    pub synchronised: bool,
    /// How far it may be off, nanoseconds (`maxerror`); it grows while nobody disciplines it.
    pub bound_ns: i64,
    /// How far it most likely is off, nanoseconds (`esterror`).
    pub estimate_ns: i64,
}

/// Reads the state of the wall clock; the error is the kernel's.
pub fn wall_clock() -> io::Result<WallClock> {
    // SAFETY: all-zero is a valid timex, and `modes` 0 makes the call read only.
    let (state, read) = unsafe {
        let mut read: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut read), read)
    };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(WallClock {
        synchronised: read.status & STA_UNSYNC == 0,
        bound_ns: read.maxerror.saturating_mul(1000),
        estimate_ns: read.esterror.saturating_mul(1000),
    })
}

/// The kernel's random id of this boot.
pub fn boot_id() -> BootId {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    BootId::new(read.map_or_else(|_| "unknown".into(), |id| id.trim().to_owned()))
}

/// Makes stamps on this host's clock.
#[derive(Clone, Debug)]
pub struct Clock(ClockId);

impl Clock {
    /// The clock of this boot of the host known under this id.
    pub fn of(host: HostId) -> Self {
        Self(ClockId { host, boot: boot_id() })
    }

    /// Now.
    pub fn now(&self) -> Stamp {
        self.stamp(boot_ns())
    }

    /// From an earlier instant of this boot until now.
    pub fn since(&self, from: Stamp) -> Between {
        Between { from, to: self.now() }
    }

    fn stamp(&self, boot_ns: i64) -> Stamp {
        Stamp { clock: self.0.clone(), boot_ns, wall_ns: wall_ns(), bound_ns: wall_bound_ns() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_advance_and_the_boot_has_an_id() {
        let (a, b) = (boot_ns(), boot_ns());
        assert!(0 < a && a <= b);
        assert!(wall_ns() > 1_700_000_000_000_000_000);
        assert!(wall_bound_ns() >= -1);
        assert_eq!(boot_id().as_str().len(), 36);
    }
}

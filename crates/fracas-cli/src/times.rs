//! Instants for people: UTC and local, from nanoseconds since the Unix epoch. Reads the zone, never the clock.

use chrono::{DateTime, FixedOffset, Local, Offset, TimeZone, Utc};
use fracas_model::units::Dur;

/// Which zone "local" means; tests and `TZ`-less machines fix it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The machine's zone, with its summer time.
    Local,
    /// So many seconds east of UTC.
    East(i32),
}

impl Zone {
    fn offset(self, instant: DateTime<Utc>) -> FixedOffset {
        match self {
            Self::Local => Local.offset_from_utc_datetime(&instant.naive_utc()).fix(),
            Self::East(seconds) => FixedOffset::east_opt(seconds).unwrap_or(Utc.fix()),
        }
    }
}

fn instant(wall_ns: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_nanos(wall_ns)
}

/// `2026-11-24T02:45:01.123Z`.
pub fn utc(wall_ns: i64) -> String {
    instant(wall_ns).format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// `2026-11-24 02:45:01 UTC`, for headings.
pub fn utc_second(wall_ns: i64) -> String {
    instant(wall_ns).format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `03:45:01.123+01:00`: the same instant on the reader's clock, without the date.
pub fn local_clock(wall_ns: i64, zone: Zone) -> String {
    let at = instant(wall_ns);
    at.with_timezone(&zone.offset(at)).format("%H:%M:%S%.3f%:z").to_string()
}

/// `2026-11-24T02:45:01.123Z 03:45:01.123+01:00`, always of the same width.
pub fn both(wall_ns: i64, zone: Zone) -> String {
    format!("{} {}", utc(wall_ns), local_clock(wall_ns, zone))
}

/// `2026-11-24 03:45:01 +01:00` for tables; empty for zero, which stands for "not yet".
pub fn local_second(wall_ns: i64, zone: Zone) -> String {
    if wall_ns == 0 {
        return String::new();
    }
    let at = instant(wall_ns);
    at.with_timezone(&zone.offset(at)).format("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// `+12.345s`, `-0.100s`, `+3m05.000s`, `+1h03m05.000s`: distance from the start of the timeline, in milliseconds.
pub fn from_zero(distance: Dur) -> String {
    let sign = if distance < Dur::ZERO { '-' } else { '+' };
    let ms = distance.ns().unsigned_abs() / 1_000_000;
    let (hours, minutes, seconds, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}.{ms:03}s"),
        (0, m) => format!("{sign}{m}m{seconds:02}.{ms:03}s"),
        (h, m) => format!("{sign}{h}h{m:02}m{seconds:02}.{ms:03}s"),
    }
}

/// `7s`, `1m05s`, `2h03m`: a running length in whole seconds.
pub fn running(length: Dur) -> String {
    let secs = length.ns().max(0) / 1_000_000_000;
    match (secs / 3600, secs / 60 % 60, secs % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

/// The wall clock now, nanoseconds since the epoch. The only clock of this crate that names an instant.
pub fn now() -> i64 {
    Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_795_488_301_123_456_789;

    #[test]
    fn one_instant_in_utc_and_in_the_readers_zone() {
        assert_eq!(both(AT, Zone::East(3600)), "2026-11-24T02:45:01.123Z 03:45:01.123+01:00");
        assert_eq!(both(AT, Zone::East(0)).len(), both(AT, Zone::East(-34200)).len());
        assert_eq!(local_second(0, Zone::Local), "");
    }

    #[test]
    fn distances_keep_their_sign_and_their_milliseconds() {
        assert_eq!(from_zero(Dur::from_ms(12_345)), "+12.345s");
        assert_eq!(from_zero(Dur::from_ms(-100)), "-0.100s");
        assert_eq!(from_zero(Dur::from_ms(185_000)), "+3m05.000s");
        assert_eq!(from_zero(Dur::from_ms(3_785_007)), "+1h03m05.007s");
        assert_eq!(running(Dur::from_secs(7400)), "2h03m");
        assert_eq!(running(Dur::from_secs(65)), "1m05s");
    }
}

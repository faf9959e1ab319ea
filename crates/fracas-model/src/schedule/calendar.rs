//! When a schedule may start something: allowed hours of the week, and blackouts, which beat them.

use chrono::{DateTime, Datelike as _, NaiveDateTime, NaiveTime, TimeZone as _, Weekday};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::due::{instant, utc};

/// Hours of some days of the week, as clocks on the wall show them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hours {
    /// Days on which they begin.
    pub days: Vec<Weekday>,
    /// Their first minute.
    pub from: NaiveTime,
    /// Their end, which is outside; at or before `from`, it is on the next day.
    pub to: NaiveTime,
}

/// A time in which nothing starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blackout {
    /// Its first instant, in local time.
    pub from: NaiveDateTime,
    /// Its end, which is outside.
    pub to: NaiveDateTime,
    /// What people call it.
    pub why: String,
}

/// What stands against a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// No allowed hours.
    Hours,
    /// A blackout of this name.
    Blackout(String),
}

/// What stands against a start at this instant, if anything does. Without allowed hours every hour is allowed.
pub fn closed(allowed: &[Hours], blackouts: &[Blackout], zone: Tz, at_ns: i64) -> Option<Closed> {
    let at = zone.from_utc_datetime(&utc(at_ns).naive_utc());
    let within = |blackout: &&Blackout| instant(zone, blackout.from) <= at_ns && at_ns < instant(zone, blackout.to);
    if let Some(blackout) = blackouts.iter().find(within) {
        return Some(Closed::Blackout(blackout.why.clone()));
    }
    (!allowed.is_empty() && !allowed.iter().any(|hours| hours.hold(&at))).then_some(Closed::Hours)
}

impl Hours {
    fn hold(&self, at: &DateTime<Tz>) -> bool {
        let (day, time) = (at.weekday(), at.time());
        if self.from < self.to {
            return self.days.contains(&day) && self.from <= time && time < self.to;
        }
        // Past midnight they belong to the day on which they began.
        (self.days.contains(&day) && self.from <= time) || (self.days.contains(&day.pred()) && time < self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(days: &[Weekday], from: &str, to: &str) -> Hours {
        Hours { days: days.to_vec(), from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn at(zone: Tz, local: &str) -> i64 {
        instant(zone, local.parse().unwrap())
    }

    #[test]
    fn hours_are_those_on_the_wall_of_the_zone_and_may_pass_midnight() {
        let zone = chrono_tz::Europe::London;
        let work = [hours(&[Weekday::Mon, Weekday::Tue], "09:00:00", "17:00:00")];
        let night = [hours(&[Weekday::Fri], "22:00:00", "06:00:00")];
        let open = |allowed: &[Hours], local| closed(allowed, &[], zone, at(zone, local)).is_none();
        // A Monday in winter, and one in summer: nine on the wall both times.
        assert!(open(&work, "2026-01-05T09:00:00") && open(&work, "2026-07-06T09:00:00"));
        assert!(!open(&work, "2026-01-05T08:59:59") && !open(&work, "2026-01-05T17:00:00"));
        assert!(!open(&work, "2026-01-07T12:00:00"), "a Wednesday");
        assert!(open(&night, "2026-01-09T22:00:00") && open(&night, "2026-01-10T05:59:00"), "into Saturday");
        assert!(!open(&night, "2026-01-10T06:00:00") && !open(&night, "2026-01-10T22:00:00"));
        assert!(open(&[], "2026-01-07T12:00:00"), "without any, all are allowed");
        assert!(open(&[hours(&[Weekday::Wed], "00:00:00", "00:00:00")], "2026-01-07T23:59:59"), "a whole day");
    }

    #[test]
    fn a_blackout_beats_allowed_hours_and_says_its_name() {
        let zone = chrono_tz::America::New_York;
        let freeze = Blackout {
            from: "2026-12-20T00:00:00".parse().unwrap(),
            to: "2027-01-04T00:00:00".parse().unwrap(),
            why: "year-end freeze".into(),
        };
        let allowed = [hours(&[Weekday::Sun], "00:00:00", "00:00:00")];
        let look = |local| closed(&allowed, std::slice::from_ref(&freeze), zone, at(zone, local));
        assert_eq!(look("2026-12-20T00:00:00"), Some(Closed::Blackout("year-end freeze".into())));
        assert_eq!(look("2026-12-19T23:59:59"), Some(Closed::Hours), "a Saturday");
        assert_eq!(look("2027-01-03T23:59:59"), Some(Closed::Blackout("year-end freeze".into())));
        assert_eq!(look("2027-01-10T12:00:00"), None);
    }
}

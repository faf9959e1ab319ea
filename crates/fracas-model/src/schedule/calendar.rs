//! When a schedule may start something: allowed hours of the week, and blackouts, which beat them.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Datelike as _, NaiveDateTime, NaiveTime, TimeZone as _, Weekday};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::{
    Schedule, Skip,
    due::{instant, utc},
};
use crate::{
    diagnostic::{Diagnostic, Findings, Span},
    ical::{self, Calendar},
};

/// Most text of all calendars of a schedule together, bytes: its history keeps them.
const MOST_TEXT: usize = ical::MAX_BYTES;

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
    /// A blackout.
    Blackout {
        /// What people call it.
        name: String,
        /// Its end, which is outside, nanoseconds since the Unix epoch.
        until_ns: i64,
    },
}

/// The calendars of a schedule, read. Clones are one and the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calendars(Arc<[Kept]>);

#[derive(Clone, Debug, PartialEq)]
enum Kept {
    Read(Calendar),
    /// Of this file nobody knows what it says.
    Unreadable(String),
}

impl Calendars {
    /// Those of a schedule, by the texts of their files.
    ///
    /// The error is every mistake in any of them; never empty.
    pub fn read(rules: &Schedule, texts: &BTreeMap<String, String>) -> Result<Self, Vec<Diagnostic>> {
        let (mut all, mut wrong) = (Vec::new(), Vec::new());
        for calendar in &rules.calendars {
            let file = calendar.file.as_str();
            match texts.get(file) {
                None => wrong.extend(told(file, "its text did not come with the schedule", "send it along")),
                Some(text) => match ical::read(file, text, rules.zone, &calendar.zones) {
                    Ok(read) => all.push(read.calendar),
                    Err(mistakes) => wrong.extend(mistakes),
                },
            }
        }
        let bytes: usize = texts.values().map(String::len).sum();
        if bytes > MOST_TEXT && rules.calendars.len() > 1 {
            let message =
                format!("the calendars of the schedule have {bytes} bytes, together at most {MOST_TEXT} are taken");
            wrong.extend(told(&rules.calendars[0].file, &message, "export a shorter time"));
        }
        if wrong.is_empty() { Ok(all.into()) } else { Err(wrong) }
    }

    /// Those of a schedule that was read before. One that cannot be read any more closes all times: nobody knows which.
    pub fn kept(rules: &Schedule, texts: &BTreeMap<String, String>) -> Self {
        let one = |calendar: &super::CalendarFile| {
            let read = texts.get(&calendar.file).map(|text| ical::read("", text, rules.zone, &calendar.zones));
            match read {
                Some(Ok(read)) => Kept::Read(read.calendar),
                _ => Kept::Unreadable(calendar.file.clone()),
            }
        };
        Self(rules.calendars.iter().map(one).collect())
    }
}

impl From<Vec<Calendar>> for Calendars {
    fn from(all: Vec<Calendar>) -> Self {
        Self(all.into_iter().map(Kept::Read).collect())
    }
}

fn told(file: &str, message: &str, help: &str) -> Vec<Diagnostic> {
    let mut findings = Findings::new(file, "");
    findings.error(Span::default(), message, help);
    findings.finish().err().unwrap_or_default()
}

/// What stands against a start at this instant, if anything does: of several blackouts the one that ends last. Without
/// allowed hours every hour is allowed.
pub fn closed(rules: &Schedule, calendars: &Calendars, at_ns: i64) -> Option<Closed> {
    let Schedule { allowed, blackouts, zone, .. } = rules;
    let within = |blackout: &&Blackout| instant(*zone, blackout.from) <= at_ns && at_ns < instant(*zone, blackout.to);
    let written = blackouts.iter().filter(within);
    let written = written.map(|blackout| (instant(*zone, blackout.to), blackout.why.clone()));
    let listed = calendars.0.iter().filter_map(|kept| match kept {
        Kept::Read(calendar) => calendar.at(at_ns).map(|spell| (spell.to_ns(), spell.name.to_string())),
        Kept::Unreadable(file) => Some((i64::MAX, format!("{file} cannot be read any more, set the schedule again"))),
    });
    if let Some((until_ns, name)) = written.chain(listed).max_by_key(|(until_ns, _)| *until_ns) {
        return Some(Closed::Blackout { name, until_ns });
    }
    let at = zone.from_utc_datetime(&utc(at_ns).naive_utc());
    (!allowed.is_empty() && !allowed.iter().any(|hours| hours.hold(&at))).then_some(Closed::Hours)
}

impl From<Closed> for Skip {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Hours => Self::NotAllowedThen,
            Closed::Blackout { name, .. } => Self::Blackout { name },
        }
    }
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
    use crate::schedule::tests::nightly;

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
        let open = |allowed: &[Hours], local| {
            let rules = Schedule { allowed: allowed.to_vec(), zone, ..nightly() };
            closed(&rules, &Calendars::default(), at(zone, local)).is_none()
        };
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
        let frozen = Some(Closed::Blackout { name: freeze.why.clone(), until_ns: at(zone, "2027-01-04T00:00:00") });
        let rules = Schedule { allowed: allowed.to_vec(), blackouts: vec![freeze], zone, ..nightly() };
        let look = |local| closed(&rules, &Calendars::default(), at(zone, local));
        assert_eq!(look("2026-12-20T00:00:00"), frozen);
        assert_eq!(look("2026-12-19T23:59:59"), Some(Closed::Hours), "a Saturday");
        assert_eq!(look("2027-01-03T23:59:59"), frozen);
        assert_eq!(look("2027-01-10T12:00:00"), None);
    }

    const HOLIDAYS: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTART;VALUE=DATE:20261224\r\n\
        DTEND;VALUE=DATE:20261227\r\nRRULE:FREQ=YEARLY\r\nSUMMARY:Christmas\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";

    fn with_file(file: &str) -> Schedule {
        let calendar = super::super::CalendarFile { file: file.into(), zones: BTreeMap::new() };
        Schedule { calendars: vec![calendar], zone: chrono_tz::America::New_York, ..nightly() }
    }

    #[test]
    fn an_event_of_a_calendar_is_a_blackout_that_says_when_it_ends() {
        let rules = with_file("holidays.ics");
        let zone = rules.zone;
        let texts = [("holidays.ics".to_owned(), HOLIDAYS.to_owned())].into();
        let calendars = Calendars::read(&rules, &texts).unwrap();
        assert_eq!(calendars, Calendars::kept(&rules, &texts));
        let look = |local| closed(&rules, &calendars, at(zone, local));
        let until_ns = at(zone, "2031-12-27T00:00:00");
        assert_eq!(look("2031-12-24T00:00:00"), Some(Closed::Blackout { name: "Christmas".into(), until_ns }));
        assert_eq!((look("2031-12-23T23:59:59"), look("2031-12-27T00:00:00")), (None, None));
        // A written one that ends later says its own name.
        let more = Blackout {
            from: "2031-12-25T00:00:00".parse().unwrap(),
            to: "2032-01-02T00:00:00".parse().unwrap(),
            why: "freeze".into(),
        };
        let rules = Schedule { blackouts: vec![more], ..rules };
        assert!(
            matches!(closed(&rules, &calendars, at(zone, "2031-12-26T12:00:00")), Some(Closed::Blackout { name, .. }) if name == "freeze")
        );
    }

    #[test]
    fn a_calendar_that_nobody_can_read_closes_everything() {
        let rules = with_file("holidays.ics");
        let look = |texts: &BTreeMap<String, String>| {
            closed(&rules, &Calendars::kept(&rules, texts), at(rules.zone, "2031-06-01T00:00:00"))
        };
        for texts in [BTreeMap::new(), [("holidays.ics".to_owned(), "moved".to_owned())].into()] {
            let told = look(&texts);
            assert!(
                matches!(&told, Some(Closed::Blackout { name, .. }) if name.contains("set the schedule again")),
                "{told:?}"
            );
            let wrong = Calendars::read(&rules, &texts).unwrap_err();
            assert_eq!((wrong.len(), wrong[0].file.as_str()), (1, "holidays.ics"));
        }
    }

    #[test]
    fn calendars_have_room_for_so_much_text_together() {
        let mut rules = with_file("a.ics");
        rules.calendars.push(super::super::CalendarFile { file: "b.ics".into(), zones: BTreeMap::new() });
        let long = format!("{HOLIDAYS}{}", "\n".repeat(MOST_TEXT / 2));
        let texts: BTreeMap<String, String> = ["a.ics", "b.ics"].map(|file| (file.to_owned(), long.clone())).into();
        let wrong = Calendars::read(&rules, &texts).unwrap_err();
        assert!(wrong.len() == 1 && wrong[0].message.contains("together at most"), "{wrong:?}");
    }
}
